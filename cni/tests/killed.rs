//! A DEL whose plugin is killed, at each of its system calls in turn: what felix finds afterwards is a whole tombstone or none, and none is
//! missing once felix was called.
#![allow(clippy::unwrap_used, missing_docs)]

use nix::libc;
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::fs;
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use twill_crds::cni::CniRequest;

/// Where a run ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Run {
    Killed,
    Ended,
}

/// The plugin, which waits for the end of its input.
fn plugin() -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_twill-cni"));
    command.env_clear().envs([("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", "c1"), ("CNI_IFNAME", "eth0")]);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
}

/// Runs it, and kills it when it begins or ends its `n`th system call after its input has ended.
fn run(directory: &Path, n: usize, its: &OnceLock<Pid>) -> Run {
    let socket = directory.join("felix.sock");
    let config = format!(r#"{{"cniVersion": "1.1.0", "name": "twill", "socket": "{}"}}"#, socket.display());
    let mut child = plugin();
    let pid = *its.get_or_init(|| Pid::from_raw(i32::try_from(child.id()).unwrap()));
    until_it_reads(pid);
    ptrace::seize(pid, ptrace::Options::empty()).unwrap();
    ptrace::interrupt(pid).unwrap();
    waitpid(pid, Some(WaitPidFlag::__WALL)).unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(config.as_bytes()).unwrap();
    drop(stdin);
    let mut outcome = Run::Killed;
    for _ in 0..n {
        ptrace::syscall(pid, None).unwrap();
        if let WaitStatus::Exited(..) | WaitStatus::Signaled(..) = waitpid(pid, Some(WaitPidFlag::__WALL)).unwrap() {
            outcome = Run::Ended;
            break;
        }
    }
    if outcome == Run::Killed {
        kill(pid, Signal::SIGKILL).unwrap();
    }
    let _ = child.wait();
    outcome
}

/// Waits until it waits for its input: else how many system calls are left would depend on how far it has come.
fn until_it_reads(pid: Pid) {
    let reads = format!("{} 0x0 ", libc::SYS_read);
    for _ in 0..10_000 {
        if fs::read_to_string(format!("/proc/{pid}/syscall")).is_ok_and(|call| call.starts_with(&reads)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("the plugin does not read its configuration");
}

#[test]
fn a_del_that_is_killed_at_any_system_call_leaves_a_whole_tombstone_or_none() {
    let (mut whole, mut none) = (0, 0);
    for n in 1..2000 {
        let directory = tempfile::tempdir().unwrap();
        // A felix that takes calls and never answers: the plugin has no way out but being killed.
        let felix = UnixListener::bind(directory.path().join("felix.sock")).unwrap();
        felix.set_nonblocking(true).unwrap();
        let (sender, done) = std::sync::mpsc::channel();
        let path = directory.path().to_owned();
        let pid = Arc::new(OnceLock::new());
        let its = pid.clone();
        let thread = std::thread::spawn(move || sender.send(run(&path, n, &its)));
        // After its call it waits for felix: it does not come to a further system call then.
        let mut calls = Vec::new();
        let outcome = loop {
            calls.extend(felix.accept());
            match done.recv_timeout(Duration::from_millis(if calls.is_empty() { 2 } else { 200 })) {
                Ok(outcome) => break Some(outcome),
                Err(_) if !calls.is_empty() => break None,
                Err(_) => {}
            }
        };
        calls.extend(felix.accept());
        let called = !calls.is_empty();
        let found = tombstones(directory.path());
        match found.as_slice() {
            [] => none += 1,
            [one] => {
                assert_eq!((one.command.as_str(), one.container_id.as_str()), ("DEL", "c1"), "call {n}");
                whole += 1;
            }
            more => panic!("call {n}: {} tombstones", more.len()),
        }
        assert!(!called || found.len() == 1, "call {n}: felix was called before the tombstone was there");
        match outcome {
            Some(Run::Killed) => drop(thread.join()),
            // It waits for felix: there is no further system call to be killed at.
            None => {
                kill(*pid.get().unwrap(), Signal::SIGKILL).unwrap();
                drop(thread.join());
                break;
            }
            Some(Run::Ended) => panic!("call {n}: it ended while felix did not answer"),
        }
    }
    assert!(none > 5 && whole > 2, "killed {none} times before the tombstone, {whole} times after it");
}

/// What felix would read.
fn tombstones(directory: &Path) -> Vec<CniRequest> {
    let entries = fs::read_dir(directory.join("cni-deleted")).into_iter().flatten().flatten();
    let visible = entries.filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'));
    visible.map(|entry| serde_json::from_str(&fs::read_to_string(entry.path()).unwrap()).unwrap()).collect()
}
