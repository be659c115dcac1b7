//! BGP messages of the sender and the receiver, written by hand: what is measured must not measure itself.

/// Length of the header.
pub(crate) const HEADER: usize = 19;
/// First prefix: 16.0.0.0/24.
const BASE: u32 = 0x1000_0000;

/// OPEN with IPv4 unicast and 4-octet AS numbers.
pub(crate) fn open(asn: u16, identifier: [u8; 4]) -> Vec<u8> {
    let [high, low] = asn.to_be_bytes();
    let mut body = vec![4, high, low, 0, 240];
    body.extend(identifier);
    body.extend([14, 2, 12, 1, 4, 0, 1, 0, 1, 65, 4, 0, 0, high, low]);
    message(1, &body)
}

pub(crate) fn keepalive() -> Vec<u8> {
    message(4, &[])
}

/// All UPDATEs: the attribute sets take turns.
pub(crate) fn updates(prefixes: u32, per_update: u32, sets: u32, asn: u16, next_hop: [u8; 4]) -> Vec<u8> {
    let sets: Vec<Vec<u8>> = (0..sets).map(|set| attributes(set, asn, next_hop)).collect();
    let mut out = Vec::new();
    let mut first = 0;
    for set in sets.iter().cycle() {
        if first >= prefixes {
            return out;
        }
        let last = prefixes.min(first + per_update);
        let mut body = vec![0, 0];
        body.extend((set.len() as u16).to_be_bytes());
        body.extend(set);
        for index in first..last {
            let [a, b, c, _] = (BASE + (index << 8)).to_be_bytes();
            body.extend([24, a, b, c]);
        }
        out.extend(message(2, &body));
        first = last;
    }
    out
}

/// ORIGIN, AS_PATH of three, NEXT_HOP, one community.
fn attributes(set: u32, asn: u16, next_hop: [u8; 4]) -> Vec<u8> {
    let mut out = vec![0x40, 1, 1, 0, 0x40, 2, 14, 2, 3];
    for asn in [u32::from(asn), 100_000 + set, 5_000_000 + set] {
        out.extend(asn.to_be_bytes());
    }
    out.extend([0x40, 3, 4]);
    out.extend(next_hop);
    out.extend([0xc0, 8, 4]);
    out.extend((65000 << 16 | set & 0xffff).to_be_bytes());
    out
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![0xff; 16];
    out.extend(((HEADER + body.len()) as u16).to_be_bytes());
    out.push(kind);
    out.extend(body);
    out
}

/// The first whole message in `bytes`: its type and its octets.
pub(crate) fn first(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let length = usize::from(u16::from_be_bytes([*bytes.get(16)?, *bytes.get(17)?]));
    Some((*bytes.get(18)?, bytes.get(..length)?))
}

/// Calls `each` with the index of every prefix that an UPDATE announces in its NLRI field.
pub(crate) fn announced(update: &[u8], mut each: impl FnMut(u32)) {
    let field = |at: usize| usize::from(u16::from_be_bytes([update[at], update[at + 1]]));
    let withdrawn = field(HEADER);
    let attributes = field(HEADER + 2 + withdrawn);
    let mut nlri = &update[HEADER + 4 + withdrawn + attributes..];
    while let [24, a, b, c, rest @ ..] = nlri {
        each((u32::from_be_bytes([*a, *b, *c, 0]) - BASE) >> 8);
        nlri = rest;
    }
}
