//! Ports of this node that pods ask for: one has each, and none has what the node cannot do without.

use super::Agent;
use super::repair::{IPVS_FAULT, is_ipvs_there};
use crate::cni::{Add, Failure, Reason};
use crate::host::failsafe::server_at;
use crate::io::{calls, link};
use crate::model::Protocol;
use crate::workload::{PortMapping, interface_name};
use std::path::Path;
use twill_ipam::Attachment;

impl Agent {
    /// Refuses ports that another pod here has, or that the node cannot do without; and all ports where they would be those of Services, too.
    pub(super) fn refuse_taken_ports(&mut self, add: &Add) -> Result<(), Failure> {
        let refused = |port: &PortMapping, why: String| {
            let message = format!("hostPort {port} of pod {}/{}: {why}", add.namespace, add.pod);
            Err(Failure::new(Reason::PortTaken, message))
        };
        for port in &add.runtime_config.asked.ports {
            // A port without hostIP is one of every address of this host, and so of every Service.
            if is_ipvs_there() {
                return refused(port, IPVS_FAULT.to_owned());
            }
            if let Some(whose) = self.needed_by_node(port)? {
                return refused(port, format!("{whose}; give the pod another hostPort"));
            }
            if let Some(holder) = self.holder(add, port) {
                let why = format!(
                    "pod {}/{} on this node has it; delete that pod, or give one of the two another hostPort or hostIP",
                    holder.namespace, holder.pod
                );
                return refused(port, why);
            }
        }
        Ok(())
    }

    /// Without these no pod of this node would have a network, or nobody would reach the node any more.
    fn needed_by_node(&mut self, port: &PortMapping) -> Result<Option<&'static str>, Failure> {
        let ports = self.fabric_ports();
        Ok(match port.protocol {
            Protocol::TCP if ports.bgp.contains(&port.host_port) => Some("it is the port of this node's BGP speaker"),
            Protocol::UDP if ports.vxlan.contains(&port.host_port) => {
                Some("it is the port of this node's VXLAN device")
            }
            Protocol::TCP => {
                let own = link::addresses(&mut self.rtnl).map_err(|error| calls::refused(&error))?;
                server_at(self.host_facts(), port.host_port, |at| own.iter().any(|(_, own)| *own == at))
            }
            _ => None,
        })
    }

    /// Another attachment that has the port. One whose interface and namespace are both gone has nothing any more, though its DEL is to come.
    fn holder(&self, add: &Add, port: &PortMapping) -> Option<&Attachment> {
        let overlapping: Vec<&str> = self
            .compiler
            .asked_ports()
            .filter(|(_, theirs)| theirs.iter().any(|other| other.overlaps(port)))
            .map(|(ifname, _)| ifname)
            .collect();
        if overlapping.is_empty() {
            return None;
        }
        let others = self.store.ledger().attachments().filter(|held| held.sandbox != add.sandbox);
        let lives = |held: &&Attachment| {
            self.endpoints.contains_key(&held.sandbox) || !held.netns.is_empty() && Path::new(&held.netns).exists()
        };
        let has_it = |held: &&Attachment| {
            let name = interface_name(&held.sandbox.container_id, &held.sandbox.ifname);
            overlapping.contains(&name.as_str())
        };
        others.filter(has_it).find(lives)
    }
}
