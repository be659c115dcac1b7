//! Who is on the other end of an interface: neighbours without a configured address (unnumbered peers).
//!
//! In flow router advertisements and solicitations (RFC 4861), what the kernel says of an interface and of its neighbours, and time; out
//! flow advertisements and solicitations of our own, and a [`Sight`]: the link-local addresses of both sides, or what is missing.
//! Pure; [`crate::io::nd`] has the socket.
//!
//! What we advertise makes no host use us: the router lifetime is 0, and there is no prefix in it. It only says who we are.

mod link;
pub mod message;

pub use link::{Condition, Link, Send};

use std::net::Ipv6Addr;

/// What is known of an interface and the router on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sight {
    /// There is no interface of this name.
    Missing,
    /// It is down, or its cable is out.
    Down,
    /// It has no link-local address that could be used yet.
    NoAddress,
    /// It can be used.
    Up {
        /// Its index.
        index: u32,
        /// Our link-local address on it.
        own: Ipv6Addr,
        /// That of the router on it, once it is known.
        router: Option<Ipv6Addr>,
        /// Other routers that were heard there, besides.
        others: usize,
    },
    /// It cannot be listened to; why.
    Deaf(String),
}

impl Sight {
    /// What is missing to speak with the router on `interface`, in one sentence; `found`: its address need not be heard.
    #[must_use]
    pub fn missing(&self, interface: &str, found: bool) -> Option<String> {
        match self {
            Self::Missing => Some(format!("there is no interface {interface}; create it, or correct the name")),
            Self::Down => Some(format!("interface {interface} is down, or its cable is out; bring it up")),
            Self::NoAddress => Some(format!(
                "interface {interface} has no link-local address that can be used yet; enable IPv6 on it \
                 (net.ipv6.conf.{interface}.disable_ipv6=0, addr_gen_mode=0)"
            )),
            Self::Up { router: None, .. } if !found => Some(format!(
                "no router advertisement has been heard on {interface}; make the peer send them (FRR: neighbor {interface} interface; BIRD: \
                 protocol radv), or give its link-local address"
            )),
            Self::Up { .. } => None,
            Self::Deaf(why) => Some(why.clone()),
        }
    }
}
