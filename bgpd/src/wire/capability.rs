//! Capabilities (RFC 5492) of OPEN.

use super::{AfiSafi, Family};

/// Graceful restart capability (RFC 4724 section 3, RFC 8538 section 2).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct GracefulRestart {
    /// R bit: the sender has restarted and its peer need not wait for End-of-RIB from it.
    pub restarting: bool,
    /// N bit: graceful restart also after a NOTIFICATION.
    pub notification: bool,
    /// Seconds within which the sender is back, 12 bits.
    pub restart_time: u16,
    /// Families, each with its F bit: forwarding state was kept over the restart.
    pub families: Vec<(AfiSafi, bool)>,
}

impl GracefulRestart {
    /// The F bit of `family`; `None` if the capability does not name it.
    #[must_use]
    pub fn forwarding(&self, family: Family) -> Option<bool> {
        self.families.iter().find(|(named, _)| *named == AfiSafi::from(family)).map(|(_, forwarding)| *forwarding)
    }
}

/// Long-lived graceful restart capability (RFC 9494 section 3.1).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct LongLived {
    /// Families, each with its F bit and for how many seconds its routes may be kept, 24 bits.
    pub families: Vec<(AfiSafi, bool, u32)>,
}

impl LongLived {
    /// The F bit of `family` and its seconds; `None` if the capability does not name it.
    #[must_use]
    pub fn of(&self, family: Family) -> Option<(bool, u32)> {
        let named = self.families.iter().find(|(named, ..)| *named == AfiSafi::from(family));
        named.map(|(_, forwarding, seconds)| (*forwarding, *seconds))
    }
}

/// What the sender of an OPEN is to its peer (RFC 9234 section 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Role {
    /// It gives transit to the peer.
    Provider = 0,
    /// It is a route server, and the peer its client.
    RouteServer = 1,
    /// It is a client of the peer, a route server.
    RouteServerClient = 2,
    /// The peer gives transit to it.
    Customer = 3,
    /// Both exchange their own routes and their customers'.
    Peer = 4,
}

impl Role {
    /// The role with this number.
    #[must_use]
    pub const fn from_octet(octet: u8) -> Option<Self> {
        match octet {
            0 => Some(Role::Provider),
            1 => Some(Role::RouteServer),
            2 => Some(Role::RouteServerClient),
            3 => Some(Role::Customer),
            4 => Some(Role::Peer),
            _ => None,
        }
    }

    /// What the peer has to be (RFC 9234 section 4.2).
    #[must_use]
    pub const fn counterpart(self) -> Self {
        match self {
            Role::Provider => Role::Customer,
            Role::Customer => Role::Provider,
            Role::RouteServer => Role::RouteServerClient,
            Role::RouteServerClient => Role::RouteServer,
            Role::Peer => Role::Peer,
        }
    }

    /// Whether routes come to it from above or aside: they may go on to customers alone.
    #[must_use]
    pub const fn hears_from_above(self) -> bool {
        matches!(self, Role::Customer | Role::Peer | Role::RouteServerClient)
    }

    /// Whether what it tells goes down or aside: the peer may tell it on to customers alone.
    #[must_use]
    pub const fn tells_down(self) -> bool {
        matches!(self, Role::Provider | Role::Peer | Role::RouteServer)
    }
}

/// One capability.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Capability {
    /// 1, RFC 4760.
    Multiprotocol(AfiSafi),
    /// 2, RFC 2918.
    RouteRefresh,
    /// 5, RFC 8950: family of the NLRI, AFI of the next hop.
    ExtendedNextHop(Vec<(AfiSafi, u16)>),
    /// 6, RFC 8654.
    ExtendedMessage,
    /// 9, RFC 9234.
    Role(Role),
    /// 64, RFC 4724.
    GracefulRestart(GracefulRestart),
    /// 65, RFC 6793.
    FourOctetAs(u32),
    /// 69, RFC 7911: 1 receive, 2 send, 3 both.
    AddPath(Vec<(AfiSafi, u8)>),
    /// 70, RFC 7313.
    EnhancedRouteRefresh,
    /// 71, RFC 9494.
    LongLived(LongLived),
    /// Any other, or one whose length does not fit its code.
    Unknown {
        /// Its code.
        code: u8,
        /// Its value.
        value: Vec<u8>,
    },
}

impl Capability {
    /// Capability code.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Capability::Multiprotocol(_) => 1,
            Capability::RouteRefresh => 2,
            Capability::ExtendedNextHop(_) => 5,
            Capability::ExtendedMessage => 6,
            Capability::Role(_) => 9,
            Capability::GracefulRestart(_) => 64,
            Capability::FourOctetAs(_) => 65,
            Capability::AddPath(_) => 69,
            Capability::EnhancedRouteRefresh => 70,
            Capability::LongLived(_) => 71,
            Capability::Unknown { code, .. } => *code,
        }
    }

    /// Reads the value of the capability with `code`. A length that does not fit makes it `Unknown`: a capability that
    /// cannot be read counts as one that was not sent.
    #[must_use]
    pub(super) fn decode(code: u8, value: &[u8]) -> Self {
        let known = match (code, value) {
            (1, &[high, low, _, safi]) => {
                Some(Capability::Multiprotocol(AfiSafi { afi: u16::from_be_bytes([high, low]), safi }))
            }
            (2, []) => Some(Capability::RouteRefresh),
            (5, _) if value.len().is_multiple_of(6) => Some(Capability::ExtendedNextHop(
                value
                    .as_chunks::<6>()
                    .0
                    .iter()
                    .map(|&[a, b, _, safi, n, m]| (family(a, b, safi), u16::from_be_bytes([n, m])))
                    .collect(),
            )),
            (6, []) => Some(Capability::ExtendedMessage),
            (9, &[value]) => Role::from_octet(value).map(Capability::Role),
            (64, &[high, low, ref families @ ..]) if families.len() % 4 == 0 => {
                let word = u16::from_be_bytes([high, low]);
                Some(Capability::GracefulRestart(GracefulRestart {
                    restarting: word & 0x8000 != 0,
                    notification: word & 0x4000 != 0,
                    restart_time: word & 0x0fff,
                    families: families
                        .as_chunks::<4>()
                        .0
                        .iter()
                        .map(|&[a, b, safi, flags]| (family(a, b, safi), flags & 0x80 != 0))
                        .collect(),
                }))
            }
            (65, &[a, b, c, d]) => Some(Capability::FourOctetAs(u32::from_be_bytes([a, b, c, d]))),
            (69, _) if value.len().is_multiple_of(4) => Some(Capability::AddPath(
                value.as_chunks::<4>().0.iter().map(|&[a, b, safi, mode]| (family(a, b, safi), mode)).collect(),
            )),
            (70, []) => Some(Capability::EnhancedRouteRefresh),
            (71, _) if value.len().is_multiple_of(7) => {
                let of = |&[a, b, safi, flags, x, y, z]: &[u8; 7]| {
                    (family(a, b, safi), flags & 0x80 != 0, u32::from_be_bytes([0, x, y, z]))
                };
                Some(Capability::LongLived(LongLived { families: value.as_chunks().0.iter().map(of).collect() }))
            }
            _ => None,
        };
        known.unwrap_or_else(|| Capability::Unknown { code, value: value.to_vec() })
    }

    /// Appends code, length and value. Lists beyond 255 octets are cut: no configuration of ours makes one.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.code());
        let length_at = out.len();
        out.push(0);
        match self {
            Capability::Multiprotocol(family) => {
                out.extend_from_slice(&family.afi.to_be_bytes());
                out.extend_from_slice(&[0, family.safi]);
            }
            Capability::RouteRefresh | Capability::ExtendedMessage | Capability::EnhancedRouteRefresh => {}
            Capability::ExtendedNextHop(list) => {
                for (family, next_hop) in list.iter().take(42) {
                    out.extend_from_slice(&family.afi.to_be_bytes());
                    out.extend_from_slice(&[0, family.safi]);
                    out.extend_from_slice(&next_hop.to_be_bytes());
                }
            }
            Capability::GracefulRestart(restart) => {
                let flags = u16::from(restart.restarting) << 15 | u16::from(restart.notification) << 14;
                out.extend_from_slice(&(flags | restart.restart_time.min(0x0fff)).to_be_bytes());
                for (family, forwarding) in restart.families.iter().take(63) {
                    out.extend_from_slice(&family.afi.to_be_bytes());
                    out.extend_from_slice(&[family.safi, u8::from(*forwarding) << 7]);
                }
            }
            Capability::Role(role) => out.push(*role as u8),
            Capability::FourOctetAs(asn) => out.extend_from_slice(&asn.to_be_bytes()),
            Capability::AddPath(list) => {
                for (family, mode) in list.iter().take(63) {
                    out.extend_from_slice(&family.afi.to_be_bytes());
                    out.extend_from_slice(&[family.safi, *mode]);
                }
            }
            Capability::LongLived(long) => {
                for (family, forwarding, seconds) in long.families.iter().take(36) {
                    out.extend_from_slice(&family.afi.to_be_bytes());
                    let [_, x, y, z] = (*seconds).min(0x00ff_ffff).to_be_bytes();
                    out.extend_from_slice(&[family.safi, u8::from(*forwarding) << 7, x, y, z]);
                }
            }
            Capability::Unknown { value, .. } => out.extend_from_slice(&value[..value.len().min(255)]),
        }
        out[length_at] = u8::try_from(out.len() - length_at - 1).unwrap_or(u8::MAX);
    }
}

fn family(high: u8, low: u8, safi: u8) -> AfiSafi {
    AfiSafi { afi: u16::from_be_bytes([high, low]), safi }
}
