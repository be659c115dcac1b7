//! The daemons of nodes and routers: started in their namespace, asked on their sockets.

use crate::io::cni;
use crate::io::process::{self, Process};
use crate::state::{Daemon, State};
use anyhow::{Context, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};
use twill_crds::control::{BgpdRequest, BgpdStatus, FelixRequest, FelixStatus, RouteQuery, RouteStatus, Waited};

/// Asks one thing of a daemon; the answer is awaited for `limit`.
///
/// # Errors
/// Nobody listens, nothing comes, or it is not what was asked for.
pub fn ask<T: DeserializeOwned>(socket: &Path, request: &impl Serialize, limit: Duration) -> anyhow::Result<T> {
    let mut stream = UnixStream::connect(socket).with_context(|| format!("nobody listens on {}", socket.display()))?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line).with_context(|| socket.display().to_string())?;
    let mut answer = String::new();
    BufReader::new(stream)
        .read_line(&mut answer)
        .with_context(|| format!("no answer on {} within {} s", socket.display(), limit.as_secs()))?;
    serde_json::from_str(&answer).with_context(|| format!("answer on {}: {:?}", socket.display(), answer.trim()))
}

pub(crate) const QUICK: Duration = Duration::from_secs(5);

/// Starts a daemon of a node and notes it in the state. With felix the plugin is installed, as a node's installer does.
///
/// # Errors
/// It cannot be started.
pub fn start(state: &mut State, machine: &str, daemon: Daemon) -> anyhow::Result<()> {
    let node = state.node(machine)?;
    let dir = state.machine_dir(machine);
    fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    let path = dir.display().to_string();
    let args = [
        &daemon.to_string(),
        "--node",
        machine,
        "--datastore",
        &state.datastore,
        "--run-dir",
        &path,
        "--state-dir",
        &path,
    ];
    let mut args = args.map(str::to_owned).to_vec();
    if daemon == Daemon::Bgpd {
        args.push("--start-bfd".to_owned());
    }
    if daemon == Daemon::Felix {
        cni::install(&dir, &state.socket(machine, daemon))?;
        args.extend(["--cni-conf-dir".to_owned(), path.clone()]);
        args.extend(["--cni-bin-dir".to_owned(), cni::bin_dir(&dir).display().to_string()]);
    }
    // A socket left by a killed daemon would be taken for the new one's.
    let _ = fs::remove_file(state.socket(machine, daemon));
    // Daemons must not take a boot of the node for one of the machine that it runs on.
    let boot = [("TWILL_BOOT_ID", format!("{}-{machine}-boot-{}", state.name, node.boots))];
    let child = process::start(&node.netns, &args, &boot, &dir.join(format!("{daemon}.log")), Stdio::null())?;
    state.daemons.insert(State::key(machine, daemon), process::identify(&child)?);
    Ok(())
}

/// Waits until `check` says nothing is missing; its last words are the error. A dead daemon ends the wait at once.
///
/// # Errors
/// Something is still missing after `limit`, or the daemon died.
pub fn awaited(
    state: &State,
    machine: &str,
    daemon: Daemon,
    limit: Duration,
    mut check: impl FnMut(&Path) -> anyhow::Result<Option<String>>,
) -> anyhow::Result<()> {
    let socket = state.socket(machine, daemon);
    let deadline = Instant::now() + limit;
    loop {
        let missing = match check(&socket) {
            Ok(None) => return Ok(()),
            Ok(Some(missing)) => missing,
            Err(error) => format!("{error:#}"),
        };
        if !state.runs(machine, daemon) {
            bail!(
                "{daemon} of {machine} died: {}",
                last_line(&state.machine_dir(machine).join(format!("{daemon}.log")))
            );
        }
        if Instant::now() >= deadline {
            bail!("{daemon} of {machine} is not ready after {} s: {missing}", limit.as_secs());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) fn last_line(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    text.lines().rfind(|l| !l.trim().is_empty()).unwrap_or("it left no word in its log").to_owned()
}

/// State of a node's bgpd.
///
/// # Errors
/// It does not answer.
pub fn bgpd_status(socket: &Path) -> anyhow::Result<BgpdStatus> {
    ask(socket, &BgpdRequest::Status, QUICK)
}

/// State of a node's felix.
///
/// # Errors
/// It does not answer.
pub fn felix_status(socket: &Path) -> anyhow::Result<FelixStatus> {
    ask(socket, &FelixRequest::Status, QUICK)
}

/// Routes of a node's bgpd.
///
/// # Errors
/// It does not answer.
pub fn routes(socket: &Path) -> anyhow::Result<Vec<RouteStatus>> {
    ask(socket, &BgpdRequest::Routes(RouteQuery::default()), QUICK)
}

/// Waits until every running daemon of every node has applied all that the datastore has now; says which daemons do not run.
///
/// # Errors
/// One of them has not in time.
pub fn applied(state: &State, limit: Duration) -> anyhow::Result<Vec<String>> {
    let timeout_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    let mut absent = Vec::new();
    std::thread::scope(|scope| {
        let mut waits = Vec::new();
        for node in &state.nodes {
            for daemon in [Daemon::Bgpd, Daemon::Felix] {
                if !state.runs(&node.name, daemon) {
                    absent.push(State::key(&node.name, daemon));
                    continue;
                }
                let socket = state.socket(&node.name, daemon);
                waits.push((node, daemon, scope.spawn(move || one_applied(&socket, daemon, timeout_ms))));
            }
        }
        for (node, daemon, wait) in waits {
            let applied = wait.join().map_err(|_| anyhow::anyhow!("a waiting thread failed"))?;
            let (applied, problems) = applied.with_context(|| format!("{daemon} of {}", node.name))?;
            if !applied {
                bail!(
                    "{daemon} of {} has not applied all that is in the datastore after {} s{}",
                    node.name,
                    limit.as_secs(),
                    problems.first().map(|p| format!(": {p}")).unwrap_or_default()
                );
            }
        }
        Ok(())
    })?;
    Ok(absent)
}

fn one_applied(socket: &Path, daemon: Daemon, timeout_ms: u64) -> anyhow::Result<(bool, Vec<String>)> {
    let limit = Duration::from_millis(timeout_ms) + QUICK;
    Ok(match daemon {
        Daemon::Bgpd => {
            let answer: Waited<BgpdStatus> = ask(socket, &BgpdRequest::Wait { timeout_ms }, limit)?;
            (answer.applied, answer.status.problems)
        }
        Daemon::Felix => {
            let answer: Waited<FelixStatus> = ask(socket, &FelixRequest::Wait { timeout_ms }, limit)?;
            (answer.applied, answer.status.problems)
        }
    })
}

/// SIGKILLs a daemon of a node.
///
/// # Errors
/// It does not run.
pub fn kill(state: &State, machine: &str, daemon: Daemon) -> anyhow::Result<()> {
    state.node(machine)?;
    match state.daemons.get(&State::key(machine, daemon)).filter(|p| p.runs()) {
        Some(process) => Process::kill(process),
        None => bail!("{daemon} of {machine} does not run; start it with: twill lab start {machine} {daemon}"),
    }
}

/// Daemons that should run and do not, one sentence each.
#[must_use]
pub fn absent(state: &State) -> Vec<String> {
    let nodes = state.nodes.iter().flat_map(|n| [(&n.name, Daemon::Bgpd), (&n.name, Daemon::Felix)]);
    let nodes = nodes.filter(|(machine, daemon)| !state.runs(machine, *daemon)).map(|(machine, daemon)| {
        format!("{daemon} of {machine} does not run; start it with: twill lab start {machine} {daemon}")
    });
    let dead = |key: &&String| !state.daemons.get(*key).is_some_and(Process::runs);
    let routers = state.routers.iter().flat_map(|r| r.programs.iter().filter(dead).map(move |p| (r, p)));
    let program = |key: &str| key.rsplit('/').next().unwrap_or_default().to_owned();
    nodes.chain(routers.map(|(router, p)| format!("{} of router {} does not run", program(p), router.name))).collect()
}

/// Waits until one daemon of a node answers on its socket, whatever it says.
///
/// # Errors
/// It does not in time.
pub fn answers(state: &State, machine: &str, daemon: Daemon, limit: Duration) -> anyhow::Result<()> {
    awaited(state, machine, daemon, limit, |socket| match daemon {
        Daemon::Bgpd => bgpd_status(socket).map(|_| None),
        Daemon::Felix => felix_status(socket).map(|_| None),
    })
}

/// Waits until one daemon of a node is in sync.
///
/// # Errors
/// It is not in time.
pub fn in_sync(state: &State, machine: &str, daemon: Daemon, limit: Duration) -> anyhow::Result<()> {
    awaited(state, machine, daemon, limit, |socket| {
        let (in_sync, problems) = match daemon {
            Daemon::Bgpd => bgpd_status(socket).map(|s| (s.in_sync, s.problems))?,
            Daemon::Felix => felix_status(socket).map(|s| (s.in_sync, s.problems))?,
        };
        Ok((!in_sync).then(|| problems.first().cloned().unwrap_or_else(|| "it is not in sync".to_owned())))
    })
}
