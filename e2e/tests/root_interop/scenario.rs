//! A scenario: its directory, and the steps in it.

use super::daemons::Daemons;
use super::segment::Segment;
use super::wires::Wires;
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// How long something may take to be seen.
const LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(100);

/// `steps.yaml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Scenario {
    /// What it shows.
    #[allow(dead_code, reason = "for people")]
    about: String,
    /// Speakers beside Twill, in the order of their addresses from .2 on.
    with: Vec<String>,
    /// Whether each has a cable of its own to Twill, without a subnet, instead of one segment for all.
    #[serde(default)]
    wires: bool,
    steps: Vec<Step>,
}

/// One step: something is done, or seen.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    /// Whom to ask, and what: `bird show protocols`.
    ask: Option<String>,
    /// Whose kernel to ask, and what of `ip`: `twill route show 10.1.0.0/24`.
    kernel: Option<String>,
    /// What the answer has to contain, all of it at once, white space apart.
    #[serde(default)]
    has: Vec<String>,
    /// What it must not contain then.
    #[serde(default)]
    lacks: Vec<String>,
    /// A speaker whose file becomes another one, and which reads it: `twill.yaml: closed.yaml`, by SIGHUP.
    reload: Option<BTreeMap<String, String>>,
    /// A speaker that is killed.
    kill: Option<String>,
    /// A speaker that is started again.
    start: Option<String>,
    /// A speaker whose cable is taken out.
    cut: Option<String>,
    /// A speaker whose cable is put in again.
    mend: Option<String>,
    /// A member, and a command of its machine: `twill ip route`. What it prints has `has`, and lacks `lacks`.
    run: Option<String>,
}

/// Files and daemons of a running scenario.
struct Running {
    directory: PathBuf,
    root: tempfile::TempDir,
    daemons: BTreeMap<String, Daemons>,
    // Last: the daemons go first.
    network: Network,
}

/// What the members are on.
enum Network {
    Segment(Segment),
    Wires(Wires),
}

impl Network {
    fn netns(&self, member: &str) -> String {
        match self {
            Self::Segment(segment) => segment.netns(member),
            Self::Wires(wires) => wires.netns(member),
        }
    }
}

/// Runs the scenario of this directory of `e2e/interop`.
pub(crate) fn run(name: &str) {
    let directory = twill_e2e::repository().join("e2e/interop").join(name);
    let scenario: Scenario =
        serde_saphyr::from_str(&fs::read_to_string(directory.join("steps.yaml")).unwrap()).unwrap();
    let mut running = Running::start(directory, &scenario);
    for (index, step) in scenario.steps.iter().enumerate() {
        running.perform(&format!("{name}, step {}", index + 1), step);
    }
    running.replay(name);
}

/// What a path is, whatever the kernel and other paths make of it.
const OF_A_PATH: [&str; 8] = ["prefix", "nextHop", "peer", "pathID", "asPath", "localPref", "med", "communities"];

impl Running {
    fn start(directory: PathBuf, scenario: &Scenario) -> Self {
        let members: Vec<&str> = std::iter::once("twill").chain(scenario.with.iter().map(String::as_str)).collect();
        let network = match scenario.wires {
            true => Network::Wires(Wires::new(&members)),
            false => Network::Segment(Segment::new(&members)),
        };
        let root = tempfile::tempdir().unwrap();
        open(root.path());
        let mut daemons = BTreeMap::new();
        for member in &members {
            let run = root.path().join(member);
            fs::create_dir(&run).unwrap();
            open(&run);
            for file in fs::read_dir(&directory).unwrap() {
                put(&file.unwrap().path(), &run);
            }
            daemons.insert((*member).to_owned(), Daemons::start(member, network.netns(member), run));
        }
        Self { directory, root, daemons, network }
    }

    fn perform(&mut self, at: &str, step: &Step) {
        if let Some(kill) = &step.kill {
            self.daemons.get_mut(kill).unwrap().kill();
        }
        if let Some(start) = &step.start {
            self.daemons.get_mut(start).unwrap().resume();
        }
        for (file, other) in step.reload.iter().flatten() {
            let member = file.split('.').next().unwrap();
            let text = fs::read_to_string(self.directory.join(other)).unwrap();
            let run = self.root.path().join(member);
            fs::write(run.join(file), text.replace("RUN", &run.display().to_string())).unwrap();
            self.daemons[member].reload();
        }
        for (member, there) in [(&step.cut, false), (&step.mend, true)] {
            match (member, &self.network) {
                (Some(member), Network::Wires(wires)) => wires.cable(member, there),
                (Some(_), Network::Segment(_)) => panic!("{at}: only wires can be cut"),
                (None, _) => {}
            }
        }
        if let Some(ask) = &step.ask {
            let (member, question) = ask.split_once(' ').unwrap_or((ask, ""));
            self.see(at, ask, step, || self.daemons[member].ask(question));
        }
        if let Some(ask) = &step.kernel {
            let (member, question) = ask.split_once(' ').unwrap_or((ask, ""));
            self.see(at, ask, step, || self.daemons[member].ip(question));
        }
        if let Some(run) = &step.run {
            let (member, command) = run.split_once(' ').unwrap_or((run, ""));
            self.see(at, run, step, || self.run(member, command));
        }
    }

    fn run(&self, member: &str, command: &str) -> String {
        let netns = self.network.netns(member);
        let words = ["netns", "exec", &netns].into_iter().chain(command.split_whitespace());
        let output = Command::new("ip").args(words).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    }

    /// The sessions of every scenario are recorded, and give the same paths when they are played.
    fn replay(&self, at: &str) {
        let twill = &self.daemons["twill"];
        let replay = format!("--replay {0}/twill.mrt --config {0}/twill.yaml", twill.directory().display());
        let begun = Instant::now();
        loop {
            let live = paths(&twill.ask("routes received -o json"));
            let replayed = paths(&twill.ask(&format!("routes received -o json {replay}")));
            if live.is_some() && live == replayed {
                return;
            }
            assert!(begun.elapsed() < LIMIT, "{at}: replayed {replayed:#?}\nlive {live:#?}\n{}", twill.logs());
            std::thread::sleep(PAUSE);
        }
    }

    fn see(&self, at: &str, ask: &str, step: &Step, look: impl Fn() -> String) {
        let begun = Instant::now();
        loop {
            let answer = look();
            let plain = spaced(&answer);
            let missing: Vec<_> = step.has.iter().filter(|words| !plain.contains(&spaced(words))).collect();
            let present: Vec<_> = step.lacks.iter().filter(|words| plain.contains(&spaced(words))).collect();
            if missing.is_empty() && present.is_empty() {
                return;
            }
            if begun.elapsed() > LIMIT {
                let logs: String =
                    self.daemons.iter().map(|(name, one)| format!("--- {name}\n{}\n", one.logs())).collect();
                panic!("{at}: {ask}: {missing:?} missing, {present:?} there, in\n{answer}\n{logs}");
            }
            std::thread::sleep(PAUSE);
        }
    }
}

/// Paths of others in an answer as JSON.
fn paths(answer: &str) -> Option<BTreeSet<String>> {
    let routes: Vec<Value> = serde_json::from_str(answer).ok()?;
    let others = routes.iter().filter(|route| route["peer"] != "");
    let shown = |route: &Value| OF_A_PATH.map(|field| format!("{field} {}", route[field])).join(", ");
    Some(others.map(shown).collect())
}

/// Text with single spaces, so that columns may have any width.
fn spaced(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Some speakers give up root.
fn open(directory: &Path) {
    fs::set_permissions(directory, fs::Permissions::from_mode(0o777)).unwrap();
}

fn put(file: &Path, run: &Path) {
    let text = fs::read_to_string(file).unwrap().replace("RUN", &run.display().to_string());
    let to = run.join(file.file_name().unwrap());
    fs::write(&to, text).unwrap();
    // FRR reads as its own user; OpenBGPD takes no file that others may read.
    let mode = if to.ends_with("openbgpd.conf") { 0o600 } else { 0o644 };
    fs::set_permissions(&to, fs::Permissions::from_mode(mode)).unwrap();
}
