//! The underlay in a real kernel: namespaces, bridges, wires, addresses, routes; and down takes it all away.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::process::Command;
use twill_lab::io::{down, netns, process, underlay};
use twill_lab::{file, names, plan};

/// Takes the lab down, whatever happens.
struct Lab(String);

impl Drop for Lab {
    fn drop(&mut self) {
        down::down(&self.0).unwrap();
    }
}

fn build(name: &str, rack: &str) -> Lab {
    let lab = Lab(format!("{name}-{}", std::process::id()));
    let text =
        format!("apiVersion: twill.network/v1\nkind: Lab\nmetadata: {{name: {}}}\nspec:\n  racks:\n{rack}", lab.0);
    netns::prepare().unwrap();
    underlay::build(&plan::plan(&file::parse(&text, "test").unwrap(), &BTreeMap::new())).unwrap();
    lab
}

const RACKS: &str = "  - {name: r1, subnets: [172.31.1.0/24, 'fd31:1::/64'], nodes: [n1, n2]}
  - {name: r2, subnets: [172.31.2.0/24, 'fd31:2::/64'], nodes: [a-node-with-a-long-name]}
";

fn ping(lab: &Lab, from: &str, to: &str) -> bool {
    netns::inside(&names::machine_netns(&lab.0, from), || {
        Ok(Command::new("ping").args(["-c1", "-W2", "-q", to]).output()?.status.success())
    })
    .unwrap()
}

#[test]
#[ignore = "needs root: make test"]
fn nodes_reach_each_other_in_a_rack_and_across_racks_over_both_families() {
    let lab = build("underlay", RACKS);
    for to in ["172.31.1.12", "172.31.2.11", "fd31:1::12", "fd31:2::11"] {
        assert!(ping(&lab, "n1", to), "n1 does not reach {to}");
    }
    assert!(!ping(&lab, "n1", "172.31.2.99"), "nobody has that address");
}

#[test]
#[ignore = "needs root: make test"]
fn down_takes_namespaces_and_their_processes_away_and_may_be_called_again() {
    let lab = build("away", RACKS);
    let spaces = netns::names(&names::netns_prefix(&lab.0));
    assert_eq!(spaces.len(), 4);
    let mut child = netns::inside(&spaces[0], || Ok(Command::new("sleep").arg("600").spawn()?)).unwrap();
    assert_eq!(process::inside(&spaces).len(), 1);
    down::down(&lab.0).unwrap();
    assert!(netns::names(&names::netns_prefix(&lab.0)).is_empty());
    assert!(!child.wait().unwrap().success(), "it was killed");
    down::down(&lab.0).unwrap();
}
