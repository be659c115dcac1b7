//! Labs whose objects are in the distribution's etcd, which the lab starts.
//!
//! 1. The demonstration is the same there.
//! 2. etcd is away for a minute: nothing breaks, and everything catches up.
#![allow(clippy::unwrap_used)]

mod support;

use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use support::away::{Server, demonstrate, survive};
use twill_e2e::{Lab, within};
use twill_lab::io::process;
use twill_lab::names;

const START: Duration = Duration::from_secs(30);

/// The etcd of a lab, and how it was started.
struct Etcd {
    mark: String,
    command: Vec<String>,
    child: Option<Child>,
}

impl Etcd {
    fn of(lab: &Lab) -> Self {
        let mark = names::mark(&lab.name);
        let command = process::with_arguments(&[&mark, "--data-dir"]).iter().find_map(|running| {
            let line = std::fs::read(format!("/proc/{}/cmdline", running.pid)).ok()?;
            Some(String::from_utf8(line).ok()?.split_terminator('\0').map(str::to_owned).collect())
        });
        Self { mark, command: command.unwrap(), child: None }
    }
}

impl Server for Etcd {
    fn kill(&mut self) {
        for running in process::with_arguments(&[&self.mark, "--data-dir"]) {
            running.kill().unwrap();
        }
    }

    fn start_again(&mut self) {
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.child = Some(command.spawn().unwrap());
        let at = self.command.iter().position(|argument| argument == "--listen-client-urls").unwrap();
        let address = self.command[at + 1].trim_start_matches("http://");
        within(START, "etcd listens again", || TcpStream::connect(address).is_ok()).unwrap();
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
#[ignore = "needs root: make test"]
fn the_demonstration_on_etcd() {
    demonstrate(&Lab::new("edemo").unwrap(), "etcd");
}

#[test]
#[ignore = "needs root: make test"]
fn etcd_is_away_for_a_minute() {
    let lab = Lab::new("eaway").unwrap();
    survive(&lab, "etcd", || Box::new(Etcd::of(&lab)));
}
