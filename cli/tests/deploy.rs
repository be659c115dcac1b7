//! What is checked in under deploy/ and comes from the Rust types is what they say now.

#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::path::Path;
use std::process::Command;

#[test]
fn the_crds_of_the_chart_and_of_the_manifest_are_those_of_the_types() {
    let output = Command::new(env!("CARGO_BIN_EXE_twill")).arg("crds").output().unwrap();
    let crds = String::from_utf8(output.stdout).unwrap();
    assert!(crds.contains("kind: CustomResourceDefinition"));
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    let chart = fs::read_to_string(deploy.join("helm/twill/crds/twill.yaml")).unwrap();
    assert!(chart == crds, "deploy/helm/twill/crds/twill.yaml is stale; make manifest writes it");
    let manifest = fs::read_to_string(deploy.join("twill.yaml")).unwrap();
    assert!(manifest.contains(crds.trim()), "deploy/twill.yaml is stale; make manifest writes it");
}
