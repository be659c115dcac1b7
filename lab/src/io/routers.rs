//! The programs of routers: found, configured, started inside their namespaces, awaited.

use crate::io::daemons::{QUICK, ask, last_line};
use crate::io::process::{self, Process, own_executable};
use crate::io::underlay;
use crate::names;
use crate::plan::{Plan, Speaker};
use crate::routers::{Installed, Program, Setup, Software, setup};
use crate::state::{Daemon, Router, State};
use anyhow::{Context, bail};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use twill_crds::control::{BgpdRequest, PeerStatus};

/// How long a program may take until others can use it.
const START: Duration = Duration::from_secs(20);

/// Refuses a plan whose programs are not installed.
///
/// # Errors
/// Names the package.
pub fn installed(plan: &Plan) -> anyhow::Result<()> {
    for (machine, speaker) in plan.routers() {
        let Some(speaker) = speaker else { continue };
        for program in setup(speaker, &machine.name, &names::lab_dir(&plan.lab))?.programs {
            executable(&program, speaker.software).with_context(|| format!("router {}", machine.name))?;
        }
    }
    Ok(())
}

fn executable(program: &Program, software: Software) -> anyhow::Result<PathBuf> {
    let Some(Installed { paths, package }) = program.installed else { return own_executable() };
    paths.iter().map(PathBuf::from).find(|p| p.is_file()).with_context(|| {
        format!(
            "speaker {software} needs {}, which is not installed; install Debian's package {package}, or use speaker twill",
            program.name
        )
    })
}

/// Starts a router's programs, one after the other, and notes them in the state.
///
/// # Errors
/// One of them cannot be started.
pub fn start(state: &mut State, router: &str, netns: &str, speaker: &Speaker) -> anyhow::Result<()> {
    let dir = state.machine_dir(router);
    let setup = setup(speaker, router, &dir)?;
    write(&setup, &dir)?;
    for program in &setup.programs {
        let _ = fs::remove_file(&program.socket);
        let log = log(&dir, program.name);
        let (path, stdout) = (executable(program, speaker.software)?, process::open_log(&log)?);
        let child = process::start_program(netns, &path, &program.args, &[], &log, Stdio::from(stdout))?;
        let (process, key) = (process::identify(&child)?, format!("{router}/{}", program.name));
        state.daemons.insert(key.clone(), process);
        if let Some(own) = state.routers.iter_mut().find(|r| r.name == router) {
            own.programs.push(key);
        }
        if !process::until(START, || program.socket.exists() || !process.runs()) || !process.runs() {
            bail!("{} of {router} does not start: {}", program.name, last_line(&log));
        }
    }
    Ok(())
}

fn log(dir: &Path, program: &str) -> PathBuf {
    dir.join(format!("{program}.log"))
}

fn write(setup: &Setup, dir: &Path) -> anyhow::Result<()> {
    for file in &setup.files {
        let path = dir.join(&file.name);
        fs::create_dir_all(path.parent().unwrap_or(dir)).with_context(|| path.display().to_string())?;
        fs::write(&path, &file.text).with_context(|| path.display().to_string())?;
        if file.name.starts_with("bin/") {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
                .with_context(|| path.display().to_string())?;
        }
    }
    if let Some(user) = setup.user {
        let found = nix::unistd::User::from_name(user)?
            .with_context(|| format!("there is no user {user}, whom its package should have made"))?;
        nix::unistd::chown(dir, Some(found.uid), Some(found.gid)).with_context(|| dir.display().to_string())?;
    }
    Ok(())
}

/// Waits until a router has a route to every rack in its kernel, and all its sessions with other routers.
///
/// # Errors
/// It is not so in time, or one of its programs died.
pub fn ready(state: &State, router: &str, limit: Duration) -> anyhow::Result<()> {
    let Some(wanted) = state.routers.iter().find(|r| r.name == router) else { return Ok(()) };
    let deadline = Instant::now() + limit;
    loop {
        let missing = match missing(state, wanted) {
            Ok(None) => return Ok(()),
            Ok(Some(missing)) => missing,
            Err(error) => format!("{error:#}"),
        };
        for key in &wanted.programs {
            if !state.daemons.get(key).is_some_and(Process::runs) {
                let name = key.rsplit('/').next().unwrap_or(key);
                bail!("{name} of {router} died: {}", last_line(&log(&state.machine_dir(router), name)));
            }
        }
        if Instant::now() >= deadline {
            bail!("router {router} is not ready after {} s: {missing}", limit.as_secs());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn missing(state: &State, wanted: &Router) -> anyhow::Result<Option<String>> {
    // The cheaper question first: asking others starts a command.
    let routes = underlay::destinations(&wanted.netns)?;
    if let Some(missing) = wanted.prefixes.iter().find(|p| !routes.contains(p)) {
        return Ok(Some(format!("it has no route to {missing}")));
    }
    let Some(software) = wanted.software else { return Ok(None) };
    let established = established(state, &wanted.name, software)?;
    let enough = established >= wanted.peers as usize;
    Ok((!enough).then(|| format!("{established} of {} sessions are established", wanted.peers)))
}

fn established(state: &State, router: &str, software: Software) -> anyhow::Result<usize> {
    let Some(sessions) = software.sessions() else {
        let peers: Vec<PeerStatus> = ask(&state.socket(router, Daemon::Bgpd), &BgpdRequest::Peers, QUICK)?;
        return Ok(peers.iter().filter(|p| p.state == "Established").count());
    };
    let command = state.machine_dir(router).join("bin").join(sessions.command);
    let answer = Command::new(&command).args(sessions.args).stdin(Stdio::null()).output();
    let answer = answer.with_context(|| command.display().to_string())?;
    Ok((sessions.established)(&String::from_utf8_lossy(&answer.stdout)))
}
