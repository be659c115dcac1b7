//! How fast a workload may be: a token bucket on the host's side of its interface for what it receives, and one on a device of its own for
//! what it sends, to which the kernel leads that (`ifb`). Both delay what is too fast and drop only what does not fit into their queue, so
//! senders slow down as on a slow line; dropping at once what comes too fast would starve TCP far below the rate.
//!
//! In flow an interface and a [`Bandwidth`]; out flow queueing disciplines, a filter and a device. The bucket on the interface goes with it; the
//! device does not, so whoever deletes an interface calls [`remove`].
//!
//! Only what is ours is looked at and removed: a bucket of our handle, a filter of our priority, a device of our name. Others hang theirs on the
//! same interfaces (the plugin `bandwidth`, programs of eBPF under `clsact`), and what they hang filters on serves ours as well.

mod wire;

use crate::io::link::{self, KernelError, Trying};
use crate::io::rtnl::Rtnl;
use crate::workload::{Bandwidth, Limit};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};
use std::collections::BTreeMap;
use std::io;
use twill_crds::names::{SHAPER_PREFIX, WORKLOAD_PREFIX};

/// Name of the device through which a workload's packets go on their way out; the digits are its interface's.
#[must_use]
pub fn device(host_name: &str) -> String {
    format!("{SHAPER_PREFIX}{}", host_name.strip_prefix(WORKLOAD_PREFIX).unwrap_or(host_name))
}

/// The interface of the workload whose device this is; none if it is no such device's name.
#[must_use]
pub fn whose(device: &str) -> Option<String> {
    let host_name = format!("{WORKLOAD_PREFIX}{}", device.strip_prefix(SHAPER_PREFIX)?);
    crate::workload::is_interface_name(&host_name).then_some(host_name)
}

/// Makes an interface as fast as it may be, whatever it was before; none: as far as we are concerned, as fast as it can. A limit takes the place of
/// what another has at the interface's root.
///
/// # Errors
/// What was tried and what the kernel said.
pub fn apply(rtnl: &mut Rtnl, index: u32, host_name: &str, wanted: Option<&Bandwidth>) -> Result<(), KernelError> {
    let wanted = wanted.copied().unwrap_or_default();
    remove_egress(rtnl, index, host_name)?;
    match wanted.ingress {
        Some(limit) => bucket(rtnl, index, &limit).trying(|| format!("limiting what {host_name} receives"))?,
        None => absent(rtnl.change(RouteNetlinkMessage::DelQueueDiscipline(wire::root(index)), 0))
            .map(drop)
            .trying(|| format!("no longer limiting what {host_name} receives"))?,
    }
    for limit in [wanted.ingress, wanted.egress].into_iter().flatten() {
        let possible = wire::possible(limit);
        if possible != limit {
            tracing::info!(interface = %host_name, rate = limit.rate, asked = limit.burst, given = possible.burst,
                "a burst is shorter than it was asked for: the kernel holds none that lasts longer");
        }
    }
    let Some(limit) = wanted.egress else { return Ok(()) };
    let made = limit_egress(rtnl, index, host_name, &limit).trying(|| {
        format!(
            "limiting what {host_name} sends (it takes the kernel's ifb, sch_ingress, sch_tbf, cls_u32 and act_mirred)"
        )
    });
    if made.is_err() {
        // Without the filter nothing is lost, with half of it everything.
        let _ = remove_egress(rtnl, index, host_name);
    }
    made
}

/// The limits of all interfaces at one moment.
#[derive(Debug)]
pub struct Found(BTreeMap<u32, wire::Disciplines>);

impl Found {
    /// Reads them.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn read(rtnl: &mut Rtnl) -> Result<Self, KernelError> {
        wire::disciplines(rtnl).map(Self).trying(|| "reading the limits of interfaces".to_owned())
    }

    /// What of our limits of an interface is not as it should be; none if all is.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn difference(
        &self,
        rtnl: &mut Rtnl,
        index: u32,
        host_name: &str,
        wanted: Option<&Bandwidth>,
    ) -> Result<Option<String>, KernelError> {
        let wanted = wanted.copied().unwrap_or_default();
        let own = self.of(index);
        if !wire::fits(wanted.ingress, own.bucket) {
            return Ok(Some(format!("the limit of what {host_name} receives")));
        }
        let device = link::by_name(rtnl, &device(host_name))?;
        let filters = if own.ingress { wire::filters(rtnl, index) } else { Ok(wire::Filters::default()) };
        let led_to = filters.trying(|| format!("reading the limits of {host_name}"))?.led_to;
        let whole = match (wanted.egress, device) {
            (None, None) => led_to.is_none(),
            (Some(_), Some(device)) => {
                device.up && led_to == Some(device.index) && wire::fits(wanted.egress, self.of(device.index).bucket)
            }
            _ => false,
        };
        Ok((!whole).then(|| format!("the limit of what {host_name} sends")))
    }

    /// The limits that an interface has.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn bandwidth(&self, rtnl: &mut Rtnl, index: u32, host_name: &str) -> Result<Option<Bandwidth>, KernelError> {
        let device = link::by_name(rtnl, &device(host_name))?;
        let egress = device.and_then(|device| self.of(device.index).bucket);
        let found = Bandwidth { ingress: self.of(index).bucket, egress };
        Ok((found != Bandwidth::default()).then_some(found))
    }

    fn of(&self, index: u32) -> wire::Disciplines {
        self.0.get(&index).copied().unwrap_or_default()
    }
}

/// Removes what does not go with a workload's interface. One that has nothing of it is fine.
///
/// # Errors
/// What the kernel said.
pub fn remove(rtnl: &mut Rtnl, host_name: &str) -> Result<bool, KernelError> {
    link::delete(rtnl, &device(host_name))
}

fn remove_egress(rtnl: &mut Rtnl, index: u32, host_name: &str) -> Result<(), KernelError> {
    let what = || format!("no longer limiting what {host_name} sends");
    // Before the device: what the filter led there would be lost.
    let gone = absent(rtnl.change(RouteNetlinkMessage::DelTrafficFilter(wire::our_filter(index)), 0)).trying(what)?;
    if gone && !wire::filters(rtnl, index).trying(what)?.others {
        // Named by its kind, so `clsact`, which we do not make, stays.
        absent(rtnl.change(RouteNetlinkMessage::DelQueueDiscipline(wire::ingress(index)), 0)).trying(what)?;
    }
    remove(rtnl, host_name).map(drop)
}

fn limit_egress(rtnl: &mut Rtnl, index: u32, host_name: &str, limit: &Limit) -> io::Result<()> {
    let name = device(host_name);
    let mut message = LinkMessage::default();
    message.attributes =
        vec![LinkAttribute::IfName(name.clone()), LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Ifb)])];
    rtnl.change(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)?;
    let device = link::by_name(rtnl, &name).map_err(|error| error.source)?;
    let device = device.ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))?;
    bucket(rtnl, device.index, limit)?;
    link::set_up(rtnl, device.index, &name).map_err(|error| error.source)?;
    // Last what leads there, on what another made if there is something.
    match rtnl.change(RouteNetlinkMessage::NewQueueDiscipline(wire::ingress(index)), NLM_F_CREATE | NLM_F_EXCL) {
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {}
        made => made?,
    }
    rtnl.change(RouteNetlinkMessage::NewTrafficFilter(wire::filter(index, device.index)), NLM_F_CREATE | NLM_F_EXCL)
}

fn bucket(rtnl: &mut Rtnl, index: u32, limit: &Limit) -> io::Result<()> {
    let message = RouteNetlinkMessage::NewQueueDiscipline(wire::token_bucket(index, limit));
    rtnl.change(message, NLM_F_CREATE | NLM_F_REPLACE)
}

/// What is not there, or what the kernel has no notion of, needs no removal. Whether it was.
fn absent(outcome: io::Result<()>) -> io::Result<bool> {
    match outcome {
        Err(error)
            if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINVAL | libc::ENODEV | libc::EOPNOTSUPP)) =>
        {
            Ok(false)
        }
        outcome => outcome.map(|()| true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_named_as_its_interface_and_leads_back_to_it() {
        assert_eq!(device("twl60373cf9024"), "twb60373cf9024");
        assert_eq!(whose("twb60373cf9024").as_deref(), Some("twl60373cf9024"));
        for other in ["twl60373cf9024", "twb0", "ifb0", "twbridge-to-rack"] {
            assert_eq!(whose(other), None, "{other}");
        }
    }
}
