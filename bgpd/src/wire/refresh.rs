//! ROUTE-REFRESH (RFC 2918), with the markers of RFC 7313.

use super::frame::{HEADER_LEN, MessageType, begin, finish};
use super::{AfiSafi, Code, Notification};

/// Message subtype (RFC 7313 section 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RefreshKind {
    /// Please send everything again.
    Request = 0,
    /// Demarcates the beginning of a route refresh (BoRR).
    Begin = 1,
    /// Demarcates the end of a route refresh (EoRR).
    End = 2,
}

/// A ROUTE-REFRESH message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteRefresh {
    /// Family that it concerns.
    pub family: AfiSafi,
    /// What it says.
    pub kind: RefreshKind,
}

impl RouteRefresh {
    /// Reads a whole message. `Ok(None)`: to be ignored, because the subtype is unknown (RFC 7313 section 5), or the
    /// octet was reserved when there was no negotiation (`enhanced` is false) and does not matter then.
    ///
    /// # Errors
    /// Invalid Message Length of a subtype 1 or 2 (RFC 7313 section 5), or of the header.
    pub fn decode(message: &[u8], enhanced: bool) -> Result<Option<Self>, Notification> {
        let Some(&[afi_high, afi_low, subtype, safi]) = message.get(HEADER_LEN..).and_then(|body| body.first_chunk())
        else {
            return Err(Notification::bad_length(message.len()));
        };
        let family = AfiSafi { afi: u16::from_be_bytes([afi_high, afi_low]), safi };
        let kind = match subtype {
            0 => RefreshKind::Request,
            _ if !enhanced => RefreshKind::Request,
            1 => RefreshKind::Begin,
            2 => RefreshKind::End,
            _ => return Ok(None),
        };
        if message.len() != HEADER_LEN + 4 {
            if kind == RefreshKind::Request {
                // An outbound route filter (RFC 5291) that nobody negotiated.
                return Ok(Some(RouteRefresh { family, kind }));
            }
            return Err(Notification { code: Code::RouteRefresh as u8, subcode: 1, data: message.to_vec() });
        }
        Ok(Some(RouteRefresh { family, kind }))
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = begin(out, MessageType::RouteRefresh);
        out.extend_from_slice(&self.family.afi.to_be_bytes());
        out.push(self.kind as u8);
        out.push(self.family.safi);
        finish(out, start);
    }
}
