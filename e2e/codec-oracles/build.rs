//! Sets `cfg(corpora)` where the test inputs of other projects are, so that tests on them are ignored elsewhere.

use std::path::PathBuf;

fn main() {
    println!("cargo::rustc-check-cfg=cfg(corpora)");
    println!("cargo::rerun-if-env-changed=TWILL_CORPORA");
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpora");
    let directory = std::env::var_os("TWILL_CORPORA").map_or(beside, PathBuf::from).join("bgp");
    println!("cargo::rerun-if-changed={}", directory.display());
    if directory.is_dir() {
        println!("cargo::rustc-cfg=corpora");
    }
}
