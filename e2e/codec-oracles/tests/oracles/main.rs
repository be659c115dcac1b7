//! Twill's codec beside three independent ones. Each file states one claim:
//!
//! * `updates`, `opens`: what one side encodes, the other decodes to the same meaning, in both directions.
//! * `identified`: the same of path identifiers.
//! * `rfc7606`: what becomes of malformed attributes, case by case, and where rustbgpd-wire judges differently.
//! * `corpora`: messages of other projects' test suites.
//! * `bmp`: what a station hears.
//! * `fuzz`: no input panics, hangs or decodes to something that does not encode to itself.

#![allow(clippy::unwrap_used)]

mod bgp_rs_codec;
mod bmp;
mod corpora;
mod fuzz;
mod identified;
mod model;
mod netgauze;
mod opens;
mod rfc7606;
mod rustbgpd;
mod updates;

use twill_codec_oracles::ours;
