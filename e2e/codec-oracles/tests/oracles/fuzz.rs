//! No input panics, hangs, or decodes to something that does not encode to itself.

use crate::ours;
use std::time::Instant;
use twill_bgpd::wire::Negotiated;
use twill_codec_oracles::fuzz::{Fuzzer, header, swallow};

fn run(rounds: u64, seed: u64) {
    let mut fuzzer = Fuzzer::new(Vec::new());
    let mut routes = 0;
    for number in 0..rounds {
        let message = fuzzer.message(seed, number);
        let started = Instant::now();
        routes += u64::from(fuzzer.throw(&message, number));
        assert!(started.elapsed().as_millis() < 1000, "hangs on {message:02x?}");
    }
    // Otherwise nothing was tested behind the first check.
    assert!(routes > rounds / 40, "{routes} of {rounds} carried routes");
}

#[test]
fn thirty_thousand_mutations_are_survived() {
    run(30_000, 1);
}

#[test]
fn truncated_segments_of_an_as_path_end() {
    // 37 octets: an AS_PATH of eleven whose segment says more than there is once kept another codec busy for ever.
    for kind in 0..=5 {
        for count in 0..=255 {
            let mut attribute = vec![0x40, 2, 11, kind, count];
            attribute.resize(14, 0x11);
            let mut body = vec![0, 0, 0, 14];
            body.extend_from_slice(&attribute);
            let message = header(&body, 2);
            assert_eq!(message.len(), 37);
            for four in [true, false] {
                swallow(&message, &ours::session(true, four));
            }
        }
    }
}

#[test]
fn the_largest_messages_take_no_time() {
    // Many tiny unknown attributes, many duplicates, the longest paths and community lists.
    let session = Negotiated { extended_message: true, ..ours::session(true, false) };
    let attributes = [
        (0..=255_u8).flat_map(|kind| [0xc0, kind, 0]).cycle().take(65_400 / 3 * 3).collect::<Vec<u8>>(),
        [0xc0, 250, 0].into_iter().cycle().take(65_400 / 3 * 3).collect(),
        {
            let segment = |_| [vec![2, 255], vec![0x11; 510]].concat();
            let path: Vec<u8> = (0..120).flat_map(segment).collect();
            let mut block = vec![0x40, 1, 1, 0, 0x40, 3, 4, 192, 0, 2, 1];
            ours::put(&mut block, 0x40, 2, &path);
            block
        },
    ];
    for attributes in attributes {
        let mut body = vec![0, 0];
        body.extend_from_slice(&u16::try_from(attributes.len()).unwrap().to_be_bytes());
        body.extend_from_slice(&attributes);
        body.extend_from_slice(&[24, 203, 0, 113]);
        let message = header(&body, 2);
        let started = Instant::now();
        for _ in 0..10 {
            swallow(&message, &session);
        }
        assert!(started.elapsed().as_millis() < 2000, "{:?}", started.elapsed());
    }
}
