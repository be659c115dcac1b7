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
