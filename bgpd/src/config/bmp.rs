//! The file's `bmp`: monitoring stations.

use super::{ConfigError, is_mapped, wrong};
use serde::Deserialize;
use serde_saphyr::Spanned;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct FileStation {
    address: IpAddr,
    port: u16,
}

/// Where the stations are.
pub(super) fn read(file: &[Spanned<FileStation>]) -> Result<BTreeSet<SocketAddr>, ConfigError> {
    let mut stations = BTreeSet::new();
    for entry in file {
        let FileStation { address, port } = entry.value;
        if port == 0 {
            return Err(wrong(entry, "bmp: port must not be 0; use the port on which the station listens"));
        }
        if address.is_unspecified() || address.is_multicast() || is_mapped(address) {
            return Err(wrong(entry, &format!("bmp: {address} is no address of a station; use a unicast one")));
        }
        let station = SocketAddr::new(address, port);
        if !stations.insert(station) {
            return Err(wrong(entry, &format!("bmp: {station} stands here twice; one of them must go")));
        }
    }
    Ok(stations)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::config::LoneConfig;

    #[test]
    fn stations_have_an_address_and_a_port_of_their_own() {
        let read = |text: &str| LoneConfig::parse(&format!("asn: 65000\nrouterID: 10.0.0.1\nbmp: {text}"));
        let good = read("[{address: 10.0.0.9, port: 11019}, {address: 'fd00::9', port: 1790}]").unwrap();
        assert_eq!(good.speaker.bmp.len(), 2);
        let cases = [
            ("[{address: 10.0.0.9}]", "port"),
            ("[{address: 10.0.0.9, port: 0}]", "port must not be 0"),
            ("[{address: 0.0.0.0, port: 1}]", "no address of a station"),
            ("[{address: 10.0.0.9, port: 1}, {address: 10.0.0.9, port: 1}]", "twice"),
        ];
        for (text, says) in cases {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(says) && error.contains("line 3"), "{error}");
        }
    }
}
