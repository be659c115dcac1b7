//! The application that `make demo` shows, and a published one.
//!
//! 1. What the demo's policies say is what the kernel does, by an evaluator that shares no code with the compiler.
//! 2. Online Boutique without policies: everything reaches everything. With them: exactly what they say.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::time::{Duration, Instant};
use support::{hold_against_oracle, two_racks};
use twill_e2e::{Lab, examples, repository};

#[test]
#[ignore = "needs root: make test"]
fn the_demo_is_up_in_ten_seconds_and_does_what_its_policies_say() {
    let lab = Lab::new("demo").unwrap();
    let began = Instant::now();
    lab.up_file(&repository().join("demo/lab.yaml")).unwrap();
    let took = began.elapsed();
    println!("lab up took {took:.1?}");
    let pods = lab.status().unwrap().pods;
    assert_eq!(pods.iter().filter(|p| p.phase == "Running").count(), 12);
    assert_eq!(pods.iter().filter(|p| p.phase == "Succeeded").count(), 1);
    let probe = lab.probe(&[]).unwrap();
    hold_against_oracle(&lab, &probe);
    let reached = probe.cells.iter().filter(|c| c.observed == "reached").count();
    assert!(
        reached > 20 && reached < probe.cells.len() - 20,
        "{reached} of {} reached: the demo shows both",
        probe.cells.len()
    );
    assert!(took < Duration::from_secs(10), "lab up took {took:?}");
}

#[test]
#[ignore = "needs the published manifests: TWILL_EXAMPLES=DIR make test"]
fn a_published_application_works_without_its_policies_and_exactly_as_they_say_with_them() {
    let boutique = examples().unwrap().join("online-boutique");
    let resources = format!("  resources: [{}]\n", boutique.join("app.yaml").display());
    let lab = Lab::up("boutique", &two_racks(&resources), &[]).unwrap();
    assert_eq!(lab.status().unwrap().pods.iter().filter(|p| p.phase == "Running").count(), 12);

    let open = lab.probe(&[]).unwrap();
    hold_against_oracle(&lab, &open);
    assert!(open.cells.iter().all(|c| c.observed == "reached"), "without policies everything reaches everything");

    lab.apply(&fs::read_to_string(boutique.join("network-policies.yaml")).unwrap()).unwrap();
    let closed = lab.probe(&[]).unwrap();
    hold_against_oracle(&lab, &closed);
    assert!(closed.cells.iter().filter(|c| c.observed == "denied").count() > closed.cells.len() / 2);
    // A port that nobody declares is closed by the policies, too.
    hold_against_oracle(&lab, &lab.probe(&["--ports", "7777/TCP,7777/UDP"]).unwrap());
}
