//! BGP messages of hand-driven peers and of the benchmark, written here and not by the code under test: what is measured or put
//! under pressure must not measure itself. Prefixes are /24s, named by their index from 16.0.0.0/24 on.

/// Length of the header.
pub const HEADER: usize = 19;
/// Message types (RFC 4271 section 4.1).
pub const OPEN: u8 = 1;
/// See [`OPEN`].
pub const UPDATE: u8 = 2;
/// See [`OPEN`].
pub const NOTIFICATION: u8 = 3;
/// See [`OPEN`].
pub const KEEPALIVE: u8 = 4;
/// First prefix: 16.0.0.0/24.
const BASE: u32 = 0x1000_0000;

/// OPEN with IPv4 unicast and 4-octet AS numbers.
#[must_use]
pub fn open(asn: u16, identifier: [u8; 4], hold_time: u16) -> Vec<u8> {
    let [high, low] = asn.to_be_bytes();
    let mut body = vec![4, high, low];
    body.extend(hold_time.to_be_bytes());
    body.extend(identifier);
    body.extend([14, 2, 12, 1, 4, 0, 1, 0, 1, 65, 4, 0, 0, high, low]);
    message(OPEN, &body)
}

/// KEEPALIVE.
#[must_use]
pub fn keepalive() -> Vec<u8> {
    message(KEEPALIVE, &[])
}

/// ORIGIN, AS_PATH, NEXT_HOP, one community.
#[must_use]
pub fn attributes(path: [u32; 3], next_hop: [u8; 4], community: u32) -> Vec<u8> {
    let mut out = vec![0x40, 1, 1, 0, 0x40, 2, 14, 2, 3];
    for asn in path {
        out.extend(asn.to_be_bytes());
    }
    out.extend([0x40, 3, 4]);
    out.extend(next_hop);
    out.extend([0xc0, 8, 4]);
    out.extend(community.to_be_bytes());
    out
}

/// An UPDATE that announces these prefixes with these attributes.
#[must_use]
pub fn announce(attributes: &[u8], prefixes: impl Iterator<Item = u32>) -> Vec<u8> {
    let mut body = vec![0, 0];
    body.extend((attributes.len() as u16).to_be_bytes());
    body.extend(attributes);
    prefixes.for_each(|index| body.extend(prefix(index)));
    message(UPDATE, &body)
}

/// An UPDATE that withdraws these prefixes.
#[must_use]
pub fn withdraw(prefixes: impl Iterator<Item = u32>) -> Vec<u8> {
    let list: Vec<u8> = prefixes.flat_map(prefix).collect();
    let mut body = (list.len() as u16).to_be_bytes().to_vec();
    body.extend(list);
    body.extend([0, 0]);
    message(UPDATE, &body)
}

fn prefix(index: u32) -> [u8; 4] {
    let [a, b, c, _] = (BASE + (index << 8)).to_be_bytes();
    [24, a, b, c]
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![0xff; 16];
    out.extend(((HEADER + body.len()) as u16).to_be_bytes());
    out.push(kind);
    out.extend(body);
    out
}

/// The first whole message in `bytes`: its type and its octets.
#[must_use]
pub fn first(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let length = usize::from(u16::from_be_bytes([*bytes.get(16)?, *bytes.get(17)?]));
    Some((*bytes.get(18)?, bytes.get(..length)?))
}

/// Calls `each` with the index of every prefix that an UPDATE announces in its NLRI field.
pub fn announced(update: &[u8], mut each: impl FnMut(u32)) {
    let field = |at: usize| usize::from(u16::from_be_bytes([update[at], update[at + 1]]));
    let withdrawn = field(HEADER);
    let attributes = field(HEADER + 2 + withdrawn);
    let mut nlri = &update[HEADER + 4 + withdrawn + attributes..];
    while let [24, a, b, c, rest @ ..] = nlri {
        each((u32::from_be_bytes([*a, *b, *c, 0]) - BASE) >> 8);
        nlri = rest;
    }
}
