//! Removes a lab, whatever state it is in: everything on this machine is found by name, nothing needs the state file. It says only
//! whether there is something in an API server, too.

use crate::io::cluster::Cluster;
use crate::io::{controller, labs, netns, process, tenancy};
use crate::names::{lab_dir, mark, netns_prefix};
use std::fs;

/// Kills the lab's processes, removes its namespaces and files. No error if nothing is there.
///
/// # Errors
/// Something would not go; everything else is gone.
pub fn down(lab: &str) -> anyhow::Result<()> {
    let spaces = netns::names(&netns_prefix(lab));
    let mut errors = Vec::new();
    errors.extend(process::kill_inside(&spaces).err());
    errors.extend(leave_api_server(lab).err());
    for service in process::with_arguments(&[&mark(lab)]).into_iter().chain(controller::running(lab)) {
        errors.extend(service.kill().err());
    }
    for space in &spaces {
        errors.extend(netns::remove(space).err());
    }
    match fs::remove_dir_all(lab_dir(lab)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            errors.push(anyhow::Error::new(error).context(lab_dir(lab).display().to_string()));
        }
        _ => {}
    }
    if errors.is_empty() {
        return Ok(());
    }
    let all = errors.iter().map(|e| format!("{e:#}")).collect::<Vec<_>>().join("; ");
    Err(anyhow::anyhow!("lab {lab} is not wholly gone: {all}"))
}

/// What the lab wrote into an API server is deleted. One that does not answer keeps it: the next lab of that name there clears it away.
fn leave_api_server(lab: &str) -> anyhow::Result<()> {
    let Ok(state) = labs::load(lab) else { return Ok(()) };
    if !tenancy::concerns(&state) {
        return Ok(());
    }
    let left = Cluster::open(state).and_then(|cluster| tenancy::leave(&cluster));
    if let Err(error) = left {
        eprintln!(
            "what lab {lab} wrote into its API server stays there, the next lab of that name removes it: {error:#}"
        );
    }
    Ok(())
}
