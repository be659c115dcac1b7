//! A peer's `bfd`.

use crate::speaker::Bfd;
use serde::Deserialize;
use twill_crds::bgp::{BFD_INTERVAL, BFD_INTERVALS, BFD_MULTIPLIER};
use twill_crds::control::BfdHops;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct FileBfd {
    min_tx: Option<u32>,
    min_rx: Option<u32>,
    multiplier: Option<u8>,
    #[serde(default)]
    multihop: FileMultihop,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum FileMultihop {
    #[default]
    Auto,
    Always,
    Never,
}

/// How far it is to a peer unless `bfd.multihop` says so: over one hop packets have TTL 255, which no router leaves them.
pub(super) fn usual(external: bool, multihop: bool, ttl_security: Option<u8>) -> BfdHops {
    match ttl_security {
        Some(2..) => BfdHops::Multiple,
        _ if external && !multihop => BfdHops::Single,
        _ => BfdHops::Auto,
    }
}

/// BFD with a peer; `usual`: how far it is unless that is said.
pub(super) fn bfd(file: &FileBfd, usual: BfdHops) -> Result<Bfd, String> {
    for (key, interval) in [("minTx", file.min_tx), ("minRx", file.min_rx)] {
        if let Some(millis) = interval.filter(|millis| !BFD_INTERVALS.contains(millis)) {
            let (least, most) = (BFD_INTERVALS.start(), BFD_INTERVALS.end());
            return Err(format!("bfd.{key} {millis} is out of range; use {least} to {most} milliseconds"));
        }
    }
    if file.multiplier == Some(0) {
        return Err("bfd.multiplier must not be 0 (RFC 5880 section 4.1); leave the key out for 3".to_owned());
    }
    let hops = match file.multihop {
        FileMultihop::Auto => usual,
        FileMultihop::Always => BfdHops::Multiple,
        FileMultihop::Never => BfdHops::Single,
    };
    Ok(Bfd {
        min_tx: file.min_tx.unwrap_or(BFD_INTERVAL),
        min_rx: file.min_rx.unwrap_or(BFD_INTERVAL),
        multiplier: file.multiplier.unwrap_or(BFD_MULTIPLIER),
        hops,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::LoneConfig;
    use super::*;

    fn read(peer: &str) -> Result<Option<Bfd>, String> {
        let text = format!("asn: 65000\nrouterID: 1.1.1.1\npeers:\n- {{name: a, address: 10.0.0.2, {peer}}}\n");
        let config = LoneConfig::parse(&text).map_err(|error| error.to_string())?;
        Ok(config.speaker.peers["a"].bfd)
    }

    #[test]
    fn bfd_of_a_peer_has_defaults_and_follows_the_session() {
        let hops = |peer: &str| read(peer).unwrap().unwrap().hops;
        assert_eq!(read("asn: 65001").unwrap(), None);
        let plain = Bfd { min_tx: 300, min_rx: 300, multiplier: 3, hops: BfdHops::Single };
        assert_eq!(read("asn: 65001, bfd: {}").unwrap(), Some(plain), "an external peer is on the link");
        let set = read("asn: 65000, bfd: {minTx: 50, minRx: 100, multiplier: 5, multihop: always}").unwrap();
        assert_eq!(set, Some(Bfd { min_tx: 50, min_rx: 100, multiplier: 5, hops: BfdHops::Multiple }));
        assert_eq!(hops("asn: 65000, bfd: {}"), BfdHops::Auto);
        assert_eq!(hops("asn: 65001, multihop: 8, bfd: {multihop: auto}"), BfdHops::Auto);
        assert_eq!(hops("asn: 65001, multihop: 8, bfd: {multihop: never}"), BfdHops::Single);
        assert_eq!(hops("asn: 65001, ttlSecurity: 2, bfd: {}"), BfdHops::Multiple);
        assert_eq!(hops("asn: 65001, ttlSecurity: 1, bfd: {}"), BfdHops::Single);
    }

    #[test]
    fn impossible_values_of_bfd_are_refused_with_line_and_key() {
        for (bfd, key) in [
            ("minTx: 0", "bfd.minTx 0"),
            ("minRx: 60001", "bfd.minRx 60001"),
            ("multiplier: 0", "bfd.multiplier"),
            ("multihop: maybe", "maybe"),
            ("interval: 1", "interval"),
        ] {
            let error = read(&format!("asn: 65001, bfd: {{{bfd}}}")).unwrap_err();
            assert!(error.contains("line 4") && error.contains(key), "{bfd}: {error}");
        }
    }
}
