//! What an ADD does for ports of the node beside the table.

use super::{blocking, socket};
use crate::io::rtnl::Rtnl;
use crate::io::{conntrack, link};
use crate::model::Protocol;
use crate::workload::PortMapping;
use std::net::IpAddr;

/// Datagrams to ports that lead to the pod from now on must not go where they went before.
pub(super) async fn forget_untranslated(ports: &[PortMapping]) {
    let datagrams = ports.iter().filter(|port| port.protocol == Protocol::UDP);
    let at: Vec<_> = datagrams.map(|port| (port.host_ip.filter(|at| !at.is_unspecified()), port.host_port)).collect();
    if at.is_empty() {
        return;
    }
    let forgotten = blocking(move || {
        let mut rtnl = Rtnl::open().map_err(socket)?;
        let host: Vec<IpAddr> = link::addresses(&mut rtnl)?.into_iter().map(|(_, address)| address).collect();
        conntrack::forget_untranslated(&at, &host)
    });
    match forgotten.await {
        Ok(0) => {}
        Ok(connections) => tracing::debug!(connections, "flows to ports that lead to a pod now forgotten"),
        Err(error) => tracing::warn!(%error, "flows to ports that lead to a pod now not forgotten"),
    }
}
