//! Sessions on record: BGP4MP_ET of MRT (RFC 6396 sections 3 and 4.4, RFC 8050), which the tools of the field read.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// MRT type of BGP messages with microseconds.
const BGP4MP_ET: u16 = 17;
/// Octets of timestamp, type, subtype and length.
const HEADER: usize = 12;
/// AS numbers that do not fit into two octets (RFC 6793).
const AS_TRANS: u16 = 23456;

/// The two ends of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// AS of the peer; 0 while it is not known.
    pub peer_asn: u32,
    /// Index of the interface that the peer is on, if its address is link-local; else 0.
    pub interface: u16,
    /// Our AS in this session.
    pub local_asn: u32,
    /// Address of the peer.
    pub peer: IpAddr,
    /// Our address, of the same family.
    pub local: IpAddr,
}

/// What happened on a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Time since the epoch, in microseconds as far as it counts.
    pub at: Duration,
    /// Between whom.
    pub ends: Ends,
    /// What.
    pub what: What<'a>,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What<'a> {
    /// A message.
    Message {
        /// Whether we sent it.
        sent: bool,
        /// How it is to be read.
        form: Form,
        /// The message, header included.
        bytes: &'a [u8],
    },
    /// The session went from one state of RFC 4271 section 8.2.2 to another: 1 is Idle, 6 Established.
    State {
        /// Before.
        old: u16,
        /// Now.
        new: u16,
    },
}

/// What a reader has to know of an UPDATE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// Whether AS numbers in paths have four octets.
    pub four_octet_as: bool,
    /// Whether prefixes have path identifiers (RFC 7911).
    pub add_path: bool,
}

impl Form {
    /// Of OPEN and all that has neither paths nor prefixes.
    pub const PLAIN: Form = Form { four_octet_as: true, add_path: false };

    const fn subtype(self, sent: bool) -> u16 {
        match (sent, self.four_octet_as, self.add_path) {
            (false, false, false) => 1,
            (false, true, false) => 4,
            (true, false, false) => 6,
            (true, true, false) => 7,
            (false, false, true) => 8,
            (false, true, true) => 9,
            (true, false, true) => 10,
            (true, true, true) => 11,
        }
    }

    const fn of(subtype: u16) -> Option<(bool, Self)> {
        let (sent, four_octet_as, add_path) = match subtype {
            1 => (false, false, false),
            4 => (false, true, false),
            6 => (true, false, false),
            7 => (true, true, false),
            8 => (false, false, true),
            9 => (false, true, true),
            10 => (true, false, true),
            11 => (true, true, true),
            _ => return None,
        };
        Some((sent, Form { four_octet_as, add_path }))
    }
}

/// Subtype of a change of state with four-octet AS numbers.
const STATE_CHANGE_AS4: u16 = 5;

impl Record<'_> {
    /// Appends the record.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (subtype, wide) = match self.what {
            What::Message { sent, form, .. } => (form.subtype(sent), form.four_octet_as),
            What::State { .. } => (STATE_CHANGE_AS4, true),
        };
        out.extend_from_slice(&u32::try_from(self.at.as_secs()).unwrap_or(u32::MAX).to_be_bytes());
        out.extend_from_slice(&BGP4MP_ET.to_be_bytes());
        out.extend_from_slice(&subtype.to_be_bytes());
        let length_at = out.len();
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.at.subsec_micros().to_be_bytes());
        for asn in [self.ends.peer_asn, self.ends.local_asn] {
            match wide {
                true => out.extend_from_slice(&asn.to_be_bytes()),
                false => out.extend_from_slice(&u16::try_from(asn).unwrap_or(AS_TRANS).to_be_bytes()),
            }
        }
        let afi: u16 = if self.ends.peer.is_ipv4() { 1 } else { 2 };
        out.extend_from_slice(&self.ends.interface.to_be_bytes());
        out.extend_from_slice(&afi.to_be_bytes());
        for address in [self.ends.peer, self.ends.local] {
            match (afi, address) {
                (1, IpAddr::V4(address)) => out.extend_from_slice(&address.octets()),
                (_, IpAddr::V6(address)) => out.extend_from_slice(&address.octets()),
                (_, IpAddr::V4(address)) => out.extend_from_slice(&address.to_ipv6_mapped().octets()),
            }
        }
        match self.what {
            What::Message { bytes, .. } => out.extend_from_slice(bytes),
            What::State { old, new } => {
                out.extend_from_slice(&old.to_be_bytes());
                out.extend_from_slice(&new.to_be_bytes());
            }
        }
        let length = u32::try_from(out.len() - length_at - 4).unwrap_or(u32::MAX);
        out[length_at..length_at + 4].copy_from_slice(&length.to_be_bytes());
    }
}

/// Reads what [`Record::encode`] or another speaker wrote; records of other types are passed over. An error is the last item.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Records<'a> {
    /// Of a whole file.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn read(&mut self) -> Result<Option<Record<'a>>, String> {
        let start = self.at;
        let cut = || format!("octet {start}: the record is cut off there");
        let header = self.bytes[start..].get(..HEADER).ok_or_else(cut)?;
        let mut reader = Reader(header);
        let (seconds, kind, subtype, length) = (reader.u32(), reader.u16(), reader.u16(), reader.u32());
        let (seconds, length) = (seconds.ok_or_else(cut)?, length.ok_or_else(cut)? as usize);
        let body = self.bytes[start + HEADER..].get(..length).ok_or_else(cut)?;
        self.at = start + HEADER + length;
        if kind != Some(BGP4MP_ET) {
            return Ok(None);
        }
        let subtype = subtype.ok_or_else(cut)?;
        let mut reader = Reader(body);
        let at = Duration::new(seconds.into(), reader.u32().ok_or_else(cut)?.min(999_999) * 1000);
        let record = match Form::of(subtype) {
            Some((sent, form)) => reader.ends(form.four_octet_as).map(|ends| Record {
                at,
                ends,
                what: What::Message { sent, form, bytes: reader.0 },
            }),
            None if subtype == STATE_CHANGE_AS4 => reader.ends(true).and_then(|ends| {
                let (old, new) = (reader.u16()?, reader.u16()?);
                Some(Record { at, ends, what: What::State { old, new } })
            }),
            None => return Ok(None),
        };
        record.map(Some).ok_or_else(cut)
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, String>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.at < self.bytes.len() {
            match self.read() {
                Ok(None) => {}
                Ok(Some(record)) => return Some(Ok(record)),
                Err(problem) => {
                    self.at = self.bytes.len();
                    return Some(Err(problem));
                }
            }
        }
        None
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    fn ends(&mut self, wide: bool) -> Option<Ends> {
        let mut asn = || if wide { self.u32() } else { self.u16().map(u32::from) };
        let (peer_asn, local_asn) = (asn()?, asn()?);
        let (interface, afi) = (self.u16()?, self.u16()?);
        let mut address = || match afi {
            1 => self.take::<4>().map(|octets| IpAddr::V4(Ipv4Addr::from(octets))),
            2 => self.take::<16>().map(|octets| IpAddr::V6(Ipv6Addr::from(octets))),
            _ => None,
        };
        Some(Ends { peer_asn, interface, local_asn, peer: address()?, local: address()? })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ends(peer: &str, local: &str, peer_asn: u32) -> Ends {
        Ends { peer_asn, interface: 0, local_asn: 65000, peer: peer.parse().unwrap(), local: local.parse().unwrap() }
    }

    /// The octets of RFC 6396 section 4.4.3, by hand.
    #[test]
    fn a_message_has_the_octets_of_the_rfc() {
        let record = Record {
            at: Duration::new(0x0102_0304, 5_000),
            ends: ends("10.0.0.2", "10.0.0.1", 70000),
            what: What::Message { sent: false, form: Form::PLAIN, bytes: &[0xff; 19] },
        };
        let mut out = Vec::new();
        record.encode(&mut out);
        let head = [1, 2, 3, 4, 0, 17, 0, 4, 0, 0, 0, 43, 0, 0, 0, 5];
        let ends = [0, 1, 0x11, 0x70, 0, 0, 0xfd, 0xe8, 0, 0, 0, 1, 10, 0, 0, 2, 10, 0, 0, 1];
        assert_eq!(out, [&head[..], &ends, &[0xff; 19]].concat());
    }

    #[test]
    fn other_records_are_passed_over_and_a_cut_is_said() {
        let mut bytes = [&[0, 0, 0, 1, 0, 13, 0, 1, 0, 0, 0, 2][..], &[9, 9]].concat();
        let what = What::State { old: 5, new: 6 };
        let record = Record { at: Duration::from_secs(9), ends: ends("fd00::2", "fd00::1", 1), what };
        record.encode(&mut bytes);
        assert_eq!(Records::new(&bytes).collect::<Result<Vec<_>, _>>(), Ok(vec![record]));
        let cut = &bytes[..bytes.len() - 1];
        assert_eq!(Records::new(cut).next(), Some(Err("octet 14: the record is cut off there".to_owned())));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            seconds in any::<u32>(), micros in 0..1_000_000u32, sent: bool, four_octet_as: bool, add_path: bool, asn in 1..65536u32, v6: bool,
            message in proptest::collection::vec(any::<u8>(), 0..60),
        ) {
            let ends = if v6 { ends("fd00::2", "fd00::1", asn) } else { ends("10.0.0.2", "10.0.0.1", asn) };
            let what = What::Message { sent, form: Form { four_octet_as, add_path }, bytes: &message };
            let record = Record { at: Duration::new(seconds.into(), micros * 1000), ends, what };
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            record.encode(&mut bytes);
            let read: Result<Vec<_>, _> = Records::new(&bytes).collect();
            prop_assert_eq!(read, Ok(vec![record, record]));
        }

        #[test]
        fn any_octets_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            Records::new(&bytes).for_each(drop);
        }
    }
}
