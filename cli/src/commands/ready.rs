//! `twill ready`: what a supervisor's probes ask, in one short run.

use crate::args::{Probed, Ready};
use crate::commands::DEGRADED;
use crate::io::control::ask_within;
use std::process::ExitCode;
use twill_crds::control::{
    BfdRequest, BfdStatus, BgpdRequest, BgpdStatus, ControllerRequest, ControllerStatus, FelixRequest, FelixStatus,
};
use twill_crds::names::{BFD_SOCKET, BGPD_SOCKET, CONTROLLER_SOCKET, FELIX_SOCKET};

pub(crate) fn run(args: &Ready) -> anyhow::Result<ExitCode> {
    match hindrance(args) {
        None => Ok(ExitCode::SUCCESS),
        // A kubelet shows what a probe says, whatever the stream.
        Some(why) => {
            eprintln!("twill: {why}");
            Ok(ExitCode::from(DEGRADED))
        }
    }
}

/// Why the probe fails. A daemon that does not answer is a reason like another.
fn hindrance(args: &Ready) -> Option<String> {
    let run_dir = &args.node.run_dir;
    let answer = match args.daemon {
        Probed::Bgpd => ask_within(args.timeout, &run_dir.join(BGPD_SOCKET), &BgpdRequest::Status).map(bgpd),
        Probed::Bfd => {
            ask_within(args.timeout, &run_dir.join(BFD_SOCKET), &BfdRequest::Status).map(|_: BfdStatus| None)
        }
        Probed::Felix => ask_within(args.timeout, &run_dir.join(FELIX_SOCKET), &FelixRequest::Status).map(felix),
        Probed::Controller => {
            ask_within(args.timeout, &run_dir.join(CONTROLLER_SOCKET), &ControllerRequest::Status).map(controller)
        }
    };
    match answer {
        Ok(_) if args.alive => None,
        Ok(hindrance) => hindrance,
        Err(error) => Some(format!("{error:#}")),
    }
}

fn bgpd(status: BgpdStatus) -> Option<String> {
    (!status.in_sync).then(|| "bgpd has not heard all of the datastore yet".to_owned())
}

fn felix(status: FelixStatus) -> Option<String> {
    let why = || status.unready.unwrap_or_else(|| "felix cannot attach pods yet".to_owned());
    (!status.ready).then(why)
}

fn controller(status: ControllerStatus) -> Option<String> {
    let why = || match status.problems.first() {
        Some(problem) => problem.clone(),
        None => "the controller does not know yet who leads".to_owned(),
    };
    (!status.in_sync).then(why)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::args::Node;
    use serde::Serialize;
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixListener;
    use std::path::Path;
    use std::time::Duration;

    /// A daemon that answers one request.
    fn daemon(run_dir: &Path, socket: &str, status: &impl Serialize) {
        let _ = std::fs::remove_file(run_dir.join(socket));
        let listener = UnixListener::bind(run_dir.join(socket)).unwrap();
        let answer = serde_json::to_string(status).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            BufReader::new(stream.try_clone().unwrap()).read_line(&mut String::new()).unwrap();
            writeln!(stream, "{answer}").unwrap();
        });
    }

    fn asked(run_dir: &Path, daemon: Probed, alive: bool) -> Option<String> {
        let node = Node { run_dir: run_dir.to_owned() };
        hindrance(&Ready { daemon, alive, timeout: Duration::from_secs(5), node })
    }

    #[test]
    fn felix_is_ready_when_it_says_so_and_alive_when_it_answers() {
        let directory = tempfile::tempdir().unwrap();
        let run_dir = directory.path();
        let unready = FelixStatus { in_sync: true, unready: Some("no IPPool".to_owned()), ..FelixStatus::default() };
        daemon(run_dir, FELIX_SOCKET, &unready);
        assert_eq!(asked(run_dir, Probed::Felix, false).as_deref(), Some("no IPPool"));
        daemon(run_dir, FELIX_SOCKET, &unready);
        assert_eq!(asked(run_dir, Probed::Felix, true), None);
        daemon(run_dir, FELIX_SOCKET, &FelixStatus { ready: true, ..FelixStatus::default() });
        assert_eq!(asked(run_dir, Probed::Felix, false), None);
    }

    #[test]
    fn peers_that_are_down_do_not_make_bgpd_unready() {
        let directory = tempfile::tempdir().unwrap();
        let run_dir = directory.path();
        daemon(run_dir, BGPD_SOCKET, &BgpdStatus { in_sync: true, peers: 2, ..BgpdStatus::default() });
        assert_eq!(asked(run_dir, Probed::Bgpd, false), None);
        daemon(run_dir, BGPD_SOCKET, &BgpdStatus::default());
        assert!(asked(run_dir, Probed::Bgpd, false).unwrap().contains("not heard all"));
    }

    #[test]
    fn a_controller_is_ready_when_it_leads_or_knows_who_does() {
        let directory = tempfile::tempdir().unwrap();
        let run_dir = directory.path();
        daemon(run_dir, CONTROLLER_SOCKET, &ControllerStatus { in_sync: true, ..ControllerStatus::default() });
        assert_eq!(asked(run_dir, Probed::Controller, false), None);
        daemon(run_dir, CONTROLLER_SOCKET, &ControllerStatus::default());
        assert_eq!(
            asked(run_dir, Probed::Controller, false).as_deref(),
            Some("the controller does not know yet who leads")
        );
        let away = ControllerStatus {
            problems: vec!["who leads is not known: away".to_owned()],
            ..ControllerStatus::default()
        };
        daemon(run_dir, CONTROLLER_SOCKET, &away);
        assert_eq!(asked(run_dir, Probed::Controller, false).as_deref(), Some("who leads is not known: away"));
    }

    #[test]
    fn nobody_there_is_neither_ready_nor_alive() {
        let directory = tempfile::tempdir().unwrap();
        for alive in [true, false] {
            let why = asked(directory.path(), Probed::Bgpd, alive).unwrap();
            assert!(why.contains("no daemon answers at"), "{why}");
        }
    }
}
