//! The kernel's own news, on a thread of its own: which links and routes of ours changed, so that what others remove is put
//! back. A hint, never the truth: whoever hears of it reads the kernel again.

use crate::io::{link, route, rtnl};
use crate::workload::from_alias;
use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressAttribute;
use netlink_packet_route::route::RouteProtocol;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use std::io;
use std::net::IpAddr;
use tokio::sync::mpsc::UnboundedSender;
use twill_crds::names::{GATEWAY_V6, IPVS_DEVICE, RTPROT_BGPD, RTPROT_FELIX, SHAPER_PREFIX, WORKLOAD_PREFIX};

/// `RTNLGRP_*` of `linux/rtnetlink.h`: links, queues and filters, IPv4 routes, IPv6 addresses and routes, settings of IPv4 and of IPv6.
const GROUPS: [u32; 7] = [1, 4, 7, 9, 11, 24, 25];
/// RTM_NEWNETCONF: forwarding or the check of sources is other than it was, somewhere.
const NEW_SETTINGS: u16 = 80;
/// Enough for a burst of a hundred thousand routes of bgpd.
const RECEIVE_BUFFER: usize = 8 << 20;

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// Something about workload interfaces or their routes: look again.
    Ours,
    /// Another link is there, is gone or is other than it was: the uplink's MTU may be another.
    Link,
    /// bgpd has written the unreachable route of a block.
    Unreachable,
    /// A route of bgpd is gone: of a block that is given back, or of one that others had a route for.
    Withdrawn,
    /// News were lost: look again at everything.
    Lost,
}

/// Starts listening in the calling thread's network namespace. The thread ends when nobody listens to it any more.
///
/// # Errors
/// What the kernel says.
pub fn start(news: UnboundedSender<News>) -> io::Result<()> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind(&SocketAddr::new(0, 0))?;
    for group in GROUPS {
        socket.add_membership(group)?;
    }
    let _ = nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::RcvBufForce, &RECEIVE_BUFFER);
    std::thread::Builder::new().name("monitor".into()).spawn(move || {
        loop {
            let heard = match socket.recv_from_full() {
                Ok((datagram, _)) => judge(&datagram),
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => vec![News::Lost],
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    tracing::error!(%error, "the kernel's news have ended; routes are still checked every few seconds");
                    return;
                }
            };
            if heard.into_iter().any(|item| news.send(item).is_err()) {
                return;
            }
        }
    })?;
    Ok(())
}

fn judge(datagram: &[u8]) -> Vec<News> {
    let of = |part: &[u8]| {
        let kind = part.get(4..6).map(|kind| u16::from_ne_bytes([kind[0], kind[1]]));
        if kind == Some(NEW_SETTINGS) {
            return vec![News::Ours];
        }
        let decoded = rtnl::messages(part).into_iter();
        let news = decoded.filter_map(|message| match message.payload {
            NetlinkPayload::InnerMessage(inner) => one(&inner),
            _ => None,
        });
        news.collect()
    };
    rtnl::parts(datagram).flat_map(of).collect()
}

fn one(message: &RouteNetlinkMessage) -> Option<News> {
    match message {
        RouteNetlinkMessage::NewLink(_) | RouteNetlinkMessage::DelLink(_) => {
            // One with our alias and another name was renamed.
            let named = |link: &link::Link| {
                link.name == IPVS_DEVICE
                    || [WORKLOAD_PREFIX, SHAPER_PREFIX].iter().any(|prefix| link.name.starts_with(prefix))
            };
            let ours = |link: &link::Link| named(link) || from_alias(&link.alias).is_some();
            link::link(message).map(|link| if ours(&link) { News::Ours } else { News::Link })
        }
        RouteNetlinkMessage::DelAddress(gone) => {
            let gateway = AddressAttribute::Address(IpAddr::V6(GATEWAY_V6));
            gone.attributes.contains(&gateway).then_some(News::Ours)
        }
        RouteNetlinkMessage::NewRoute(changed) => {
            if route::is_unreachable(changed) {
                return Some(News::Unreachable);
            }
            // A host route of somebody else may have replaced one of ours.
            let host = route::destination(changed).is_some_and(|net| net.prefix_len() == net.max_prefix_len());
            let ours = changed.header.protocol == RouteProtocol::Other(RTPROT_FELIX);
            let main = changed.header.table == netlink_packet_route::route::RouteHeader::RT_TABLE_MAIN;
            (host && main && !ours).then_some(News::Ours)
        }
        // Limits of workloads are among them, which alone have any here most of the time.
        RouteNetlinkMessage::NewQueueDiscipline(_)
        | RouteNetlinkMessage::DelQueueDiscipline(_)
        | RouteNetlinkMessage::DelTrafficFilter(_) => Some(News::Ours),
        RouteNetlinkMessage::DelRoute(gone) => match gone.header.protocol {
            RouteProtocol::Other(RTPROT_FELIX) => Some(News::Ours),
            RouteProtocol::Other(RTPROT_BGPD) => Some(News::Withdrawn),
            _ => None,
        },
        _ => None,
    }
}
