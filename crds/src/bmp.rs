//! Monitoring stations (BMP, RFC 7854).

use crate::written;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};

/// Stations that a speaker has at most.
pub const MAX_STATIONS: usize = 8;

/// Where a monitoring station listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BmpStation {
    /// The station's address.
    #[serde(deserialize_with = "written::one_address")]
    pub address: IpAddr,
    /// The TCP port on which it listens.
    #[schemars(range(min = 1))]
    pub port: u16,
}

impl BmpStation {
    /// Address and port.
    #[must_use]
    pub fn socket(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }
}
