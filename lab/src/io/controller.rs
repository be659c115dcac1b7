//! The cluster's controller, where the topology needs one that decides: a process in this machine's own namespace, as it would run on any
//! node. It is started once, and goes with the lab.

use crate::io::{daemons, process};
use crate::names;
use crate::state::State;
use anyhow::ensure;
use std::path::PathBuf;
use std::time::Duration;
use twill_crds::BGPConfiguration;
use twill_crds::bgp::Topology;
use twill_crds::control::{ControllerRequest, ControllerStatus};
use twill_crds::names::CONTROLLER_SOCKET;
use twill_crds::topology::MESH_UP_TO;

/// Its directory, log and Lease's name inside the lab's directory.
pub const NAME: &str = "controller";
/// How long it may take to lead.
const START: Duration = Duration::from_secs(30);
/// Seconds of its Lease: who takes a lab down and builds the next one does not wait for the last one's.
const LEASE: &str = "4";

/// Whether somebody has to decide who reflects.
#[must_use]
pub fn is_needed(configuration: &BGPConfiguration, nodes: usize) -> bool {
    match configuration.spec.topology {
        Topology::RouteReflector => true,
        Topology::Auto => nodes > MESH_UP_TO,
        Topology::Mesh | Topology::Fabric => false,
    }
}

/// Its processes.
#[must_use]
pub fn running(lab: &str) -> Vec<process::Process> {
    process::with_arguments(&["controller", &directory(lab).display().to_string()])
}

/// Starts it unless it runs, and waits until it leads.
///
/// # Errors
/// It does not in time.
pub fn start(state: &State) -> anyhow::Result<()> {
    let directory = directory(&state.name);
    let (path, log) = (directory.display().to_string(), directory.with_extension("log"));
    if running(&state.name).is_empty() {
        let args = ["controller", "--datastore", &state.datastore, "--run-dir", &path, "--lease", LEASE];
        process::start_here(&process::own_executable()?, &args, &log)?;
    }
    let leads = || {
        let asked = daemons::ask(&directory.join(CONTROLLER_SOCKET), &ControllerRequest::Status, daemons::QUICK);
        asked.is_ok_and(|status: ControllerStatus| status.leading && status.in_sync)
    };
    ensure!(
        process::until(START, leads),
        "the controller does not lead after {} s: {}",
        START.as_secs(),
        daemons::last_line(&log)
    );
    Ok(())
}

fn directory(lab: &str) -> PathBuf {
    names::lab_dir(lab).join(NAME)
}
