//! OPEN (RFC 4271 section 4.2), with capabilities (RFC 5492) and long optional parameters (RFC 9072).

use super::frame::{HEADER_LEN, MessageType, begin, finish};
use super::{Capability, Notification};
use std::net::Ipv4Addr;

/// What a speaker with a larger AS number puts into fields of two octets (RFC 6793 section 9).
pub const AS_TRANS: u16 = 23456;

/// An OPEN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// AS of the sender: from the four-octet capability if there is one.
    pub asn: u32,
    /// Hold time in seconds: 0, or at least 3.
    pub hold_time: u16,
    /// BGP Identifier; not 0 (RFC 6286).
    pub identifier: Ipv4Addr,
    /// Capabilities in the order in which they were sent; [`Capability::FourOctetAs`] included.
    pub capabilities: Vec<Capability>,
}

impl Open {
    /// Reads a whole message.
    ///
    /// # Errors
    /// The OPEN Message Errors of RFC 4271 section 6.2 that need no knowledge of the configuration: Unsupported Version
    /// Number, Bad Peer AS (0, RFC 7607), Bad BGP Identifier (0), Unacceptable Hold Time, Unsupported Optional
    /// Parameter, and Unspecific for lengths that do not add up.
    pub fn decode(message: &[u8]) -> Result<Self, Notification> {
        let body = message.get(HEADER_LEN..).unwrap_or(&[]);
        let Some((&[version, as_high, as_low, hold_high, hold_low, a, b, c, d, length], parameters)) =
            body.split_first_chunk::<10>()
        else {
            return Err(Notification::bad_length(message.len()));
        };
        if version != 4 {
            return Err(Notification::open(1, vec![0, 4]));
        }
        let capabilities = parameters_of(length, parameters)?;
        let short = u16::from_be_bytes([as_high, as_low]);
        let asn = capabilities
            .iter()
            .find_map(|capability| match capability {
                Capability::FourOctetAs(asn) => Some(*asn),
                _ => None,
            })
            .unwrap_or(u32::from(short));
        if asn == 0 || short == 0 {
            return Err(Notification::open(2, Vec::new()));
        }
        if [a, b, c, d] == [0; 4] {
            return Err(Notification::open(3, Vec::new()));
        }
        let hold_time = u16::from_be_bytes([hold_high, hold_low]);
        if hold_time == 1 || hold_time == 2 {
            return Err(Notification::open(6, Vec::new()));
        }
        Ok(Open { asn, hold_time, identifier: Ipv4Addr::new(a, b, c, d), capabilities })
    }

    /// Appends the message. Capabilities share one optional parameter while they fit, otherwise the parameters take
    /// RFC 9072's form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = begin(out, MessageType::Open);
        let short = u16::try_from(self.asn).unwrap_or(AS_TRANS);
        out.push(4);
        out.extend_from_slice(&short.to_be_bytes());
        out.extend_from_slice(&self.hold_time.to_be_bytes());
        out.extend_from_slice(&self.identifier.octets());
        let mut capabilities = Vec::new();
        for capability in &self.capabilities {
            capability.encode(&mut capabilities);
        }
        match u8::try_from(capabilities.len()) {
            Ok(0) => out.push(0),
            Ok(length) if length <= 253 => out.extend_from_slice(&[length + 2, 2, length]),
            _ => {
                let length = u16::try_from(capabilities.len()).unwrap_or(u16::MAX - 3);
                out.extend_from_slice(&[255, 255]);
                out.extend_from_slice(&(length + 3).to_be_bytes());
                out.push(2);
                out.extend_from_slice(&length.to_be_bytes());
            }
        }
        out.extend_from_slice(&capabilities);
        finish(out, start);
    }
}

/// Reads the optional parameters after `length`, the one octet of their length.
fn parameters_of(length: u8, bytes: &[u8]) -> Result<Vec<Capability>, Notification> {
    let unspecific = || Notification::open(0, Vec::new());
    // RFC 9072 section 2: a parameter type of 255 marks the extended form; the octet before it should be 255, and must
    // not be 0.
    let extended = length != 0 && bytes.first() == Some(&255);
    let (mut rest, expected) = if extended {
        let (&[_, high, low], rest) = bytes.split_first_chunk::<3>().ok_or_else(unspecific)?;
        (rest, usize::from(u16::from_be_bytes([high, low])))
    } else {
        (bytes, usize::from(length))
    };
    if rest.len() != expected {
        return Err(unspecific());
    }
    let mut capabilities = Vec::new();
    while !rest.is_empty() {
        let (kind, size, body) = match (extended, rest) {
            (false, [kind, size, body @ ..]) => (*kind, usize::from(*size), body),
            (true, [kind, high, low, body @ ..]) => (*kind, usize::from(u16::from_be_bytes([*high, *low])), body),
            _ => return Err(unspecific()),
        };
        let (mut value, tail) = body.split_at_checked(size).ok_or_else(unspecific)?;
        if kind != 2 {
            return Err(Notification::open(4, Vec::new()));
        }
        while let [code, size, body @ ..] = value {
            let (content, tail) = body.split_at_checked(usize::from(*size)).ok_or_else(unspecific)?;
            capabilities.push(Capability::decode(*code, content));
            value = tail;
        }
        if !value.is_empty() {
            return Err(unspecific());
        }
        rest = tail;
    }
    Ok(capabilities)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::wire::{AfiSafi, GracefulRestart};

    fn message(body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let start = begin(&mut out, MessageType::Open);
        out.extend_from_slice(body);
        finish(&mut out, start);
        out
    }

    fn error(body: &[u8]) -> (u8, u8, Vec<u8>) {
        let error = Open::decode(&message(body)).unwrap_err();
        (error.code, error.subcode, error.data)
    }

    #[test]
    fn an_open_is_written_and_read_octet_by_octet() {
        let families = vec![(AfiSafi { afi: 1, safi: 1 }, true)];
        let restart = GracefulRestart { restarting: true, notification: true, restart_time: 120, families };
        let open = Open {
            asn: 4_200_000_001,
            hold_time: 90,
            identifier: Ipv4Addr::new(192, 0, 2, 1),
            capabilities: vec![
                Capability::Multiprotocol(AfiSafi { afi: 2, safi: 1 }),
                Capability::RouteRefresh,
                Capability::GracefulRestart(restart),
                Capability::FourOctetAs(4_200_000_001),
            ],
        };
        let mut bytes = Vec::new();
        open.encode(&mut bytes);
        let expected = [
            &[4, 0x5b, 0xa0, 0, 90, 192, 0, 2, 1, 24, 2, 22][..],
            &[1, 4, 0, 2, 0, 1],
            &[2, 0],
            &[64, 6, 0xc0, 120, 0, 1, 1, 0x80],
            &[65, 4, 0xfa, 0x56, 0xea, 1],
        ];
        assert_eq!(bytes[HEADER_LEN..], expected.concat());
        assert_eq!(Open::decode(&bytes), Ok(open));
    }

    #[test]
    fn errors_have_the_subcodes_of_rfc_4271() {
        let good = [4, 0xfd, 0xe9, 0, 90, 10, 0, 0, 1, 0];
        assert!(Open::decode(&message(&good)).is_ok());
        let with = |at: usize, value: &[u8]| {
            let mut body = good.to_vec();
            body[at..at + value.len()].copy_from_slice(value);
            error(&body)
        };
        assert_eq!(with(0, &[3]), (2, 1, vec![0, 4]), "the largest version that we speak");
        assert_eq!(with(1, &[0, 0]), (2, 2, vec![]), "AS 0, RFC 7607");
        assert_eq!(with(5, &[0, 0, 0, 0]), (2, 3, vec![]), "identifier 0, RFC 6286");
        assert_eq!(with(3, &[0, 1]), (2, 6, vec![]));
        assert_eq!(with(3, &[0, 2]), (2, 6, vec![]));
        assert_eq!(with(9, &[1]), (2, 0, vec![]), "length that does not add up");
        let parameters = |parameters: &[u8]| {
            let length = u8::try_from(parameters.len()).unwrap();
            error(&[&good[..9], &[length], parameters].concat())
        };
        assert_eq!(parameters(&[1, 1, 0]), (2, 4, vec![]), "authentication");
        assert_eq!(parameters(&[2, 3, 65, 4, 0]), (2, 0, vec![]), "a capability that is cut off");
        assert_eq!(parameters(&[2, 1, 2]), (2, 0, vec![]), "half a capability");
        assert_eq!(parameters(&[2, 9, 2, 0]), (2, 0, vec![]), "a parameter that is cut off");
        assert_eq!(parameters(&[2, 6, 65, 4, 0, 0, 0, 0]), (2, 2, vec![]), "four-octet AS 0");
    }

    #[test]
    fn a_capability_of_the_wrong_length_counts_as_unknown() {
        let body = [4, 0xfd, 0xe9, 0, 90, 10, 0, 0, 1, 7, 2, 5, 65, 3, 0, 0, 9];
        let open = Open::decode(&message(&body)).unwrap();
        assert_eq!(
            (open.asn, &open.capabilities[..]),
            (65001, &[Capability::Unknown { code: 65, value: vec![0, 0, 9] }][..])
        );
    }

    #[test]
    fn long_parameters_are_taken_also_where_short_ones_would_do() {
        // RFC 9072 section 2.
        let body = [4, 0xfd, 0xe9, 0, 90, 10, 0, 0, 1, 255, 255, 0, 5, 2, 0, 2, 2, 0];
        assert_eq!(Open::decode(&message(&body)).unwrap().capabilities, [Capability::RouteRefresh]);
        let long = Open {
            asn: 65001,
            hold_time: 0,
            identifier: Ipv4Addr::new(10, 0, 0, 1),
            capabilities: vec![Capability::Unknown { code: 250, value: vec![1; 200] }; 3],
        };
        let mut bytes = Vec::new();
        long.encode(&mut bytes);
        assert_eq!(Open::decode(&bytes), Ok(long));
    }
}
