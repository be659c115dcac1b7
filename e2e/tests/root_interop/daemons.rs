//! The speakers: how each is started from the files of a scenario, and asked.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// What is started in a member's namespace, and how it is asked. `RUN` in words is the member's own directory, which holds the scenario's
/// files and is writable for everyone.
struct Software {
    name: &'static str,
    programs: &'static [&'static [&'static str]],
    ask: &'static [&'static str],
}

const SOFTWARE: [Software; 6] = [
    Software {
        name: "twill",
        programs: &[&[
            "TWILL",
            "bgpd",
            "--config",
            "RUN/twill.yaml",
            "--socket",
            "RUN/bgpd.sock",
            "--record",
            "RUN/twill.mrt",
        ]],
        ask: &["TWILL"],
    },
    Software {
        name: "bird",
        programs: &[&["bird", "-f", "-c", "RUN/bird.conf", "-s", "RUN/bird.ctl"]],
        ask: &["birdc", "-s", "RUN/bird.ctl"],
    },
    Software {
        name: "frr",
        programs: &[
            &[
                "/usr/lib/frr/zebra",
                "--vty_socket",
                "RUN",
                "-i",
                "RUN/zebra.pid",
                "-z",
                "RUN/zserv.api",
                "-A",
                "127.0.0.1",
                "-P",
                "0",
                "--log",
                "stdout",
            ],
            &[
                "/usr/lib/frr/bgpd",
                "--vty_socket",
                "RUN",
                "-i",
                "RUN/bgpd.pid",
                "-z",
                "RUN/zserv.api",
                "-A",
                "127.0.0.1",
                "-P",
                "0",
                "--log",
                "stdout",
                "-f",
                "RUN/frr.conf",
            ],
        ],
        ask: &["vtysh", "--vty_socket", "RUN", "-c"],
    },
    Software {
        name: "gobgp",
        programs: &[&[
            "gobgpd",
            "-f",
            "RUN/gobgpd.toml",
            "--api-hosts",
            "unix://RUN/gobgp.sock",
            "--pprof-disable",
            "--log-plain",
        ]],
        ask: &["gobgp", "--target", "unix://RUN/gobgp.sock"],
    },
    Software {
        name: "openbgpd",
        programs: &[&["/usr/sbin/bgpd", "-d", "-v", "-f", "RUN/openbgpd.conf"]],
        ask: &["bgpctl", "-s", "RUN/bgpd.ctl"],
    },
    // It has no command that answers: what it hears it writes as JSON into a file.
    Software { name: "exabgp", programs: &[&["exabgp", "RUN/exabgp.conf"]], ask: &["cat", "RUN/heard.json", "--"] },
];

/// A member's daemons; they end with the value.
pub(crate) struct Daemons {
    software: &'static Software,
    netns: String,
    run: PathBuf,
    twill: PathBuf,
    children: Vec<Child>,
}

impl Daemons {
    /// Starts them. `run` holds their files.
    pub(crate) fn start(name: &str, netns: String, run: PathBuf) -> Self {
        let software = SOFTWARE.iter().find(|software| software.name == name);
        let software =
            software.unwrap_or_else(|| panic!("steps.yaml: {name} is none of the speakers that are known here"));
        let mut daemons = Self { software, netns, run, twill: twill_e2e::twill().unwrap(), children: Vec::new() };
        daemons.resume();
        daemons
    }

    /// Where its files are.
    pub(crate) fn directory(&self) -> &Path {
        &self.run
    }

    /// Starts what does not run.
    pub(crate) fn resume(&mut self) {
        assert!(self.children.is_empty(), "{} runs already", self.software.name);
        if self.software.name == "openbgpd" {
            // Its user's home, where it locks itself in; its unit makes it where there is systemd.
            fs::create_dir_all("/run/openbgpd").unwrap();
        }
        // A killed GoBGP leaves its socket, and will not start beside it.
        let _ = fs::remove_file(self.run.join("gobgp.sock"));
        for (index, words) in self.software.programs.iter().enumerate() {
            let log = File::create(self.run.join(format!("log-{index}"))).unwrap();
            let child =
                self.inside(words.iter().copied()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
            self.children.push(child);
        }
    }

    /// Ends them as kill -9 does.
    pub(crate) fn kill(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        self.children.clear();
    }

    /// Sends SIGHUP, after which each reads its file again.
    pub(crate) fn reload(&self) {
        for child in &self.children {
            let pid = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGHUP).unwrap();
        }
    }

    /// What `ip` says of the member's kernel.
    pub(crate) fn ip(&self, question: &str) -> String {
        let output = self.inside(std::iter::once("ip").chain(question.split_whitespace())).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The answer, whatever the exit code: that there is no such route is one too.
    pub(crate) fn ask(&self, question: &str) -> String {
        let mut words: Vec<String> = self.software.ask.iter().map(|word| (*word).to_owned()).collect();
        match self.software.name {
            // One argument is one command.
            "frr" => words.push(question.to_owned()),
            "exabgp" => words.truncate(2),
            "twill" => {
                words.extend(question.split_whitespace().map(ToOwned::to_owned));
                words.extend(["--run-dir".to_owned(), "RUN".to_owned()]);
            }
            _ => words.extend(question.split_whitespace().map(ToOwned::to_owned)),
        }
        let output = self.inside(words.iter().map(String::as_str)).output().unwrap();
        let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
        text(&output.stdout) + &text(&output.stderr)
    }

    /// What they wrote to standard output and error.
    pub(crate) fn logs(&self) -> String {
        let logs = (0..self.software.programs.len()).map(|index| self.run.join(format!("log-{index}")));
        logs.filter_map(|log| fs::read_to_string(log).ok()).collect()
    }

    fn inside<'a>(&self, words: impl Iterator<Item = &'a str>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.netns]).args(words.map(|word| self.word(word)));
        command.env("exabgp.daemon.user", "root").env("exabgp.api.cli", "false").stdin(Stdio::null());
        command
    }

    fn word(&self, word: &str) -> String {
        let text = |path: &Path| path.display().to_string();
        if word == "TWILL" { text(&self.twill) } else { word.replace("RUN", &text(&self.run)) }
    }
}

impl Drop for Daemons {
    fn drop(&mut self) {
        self.kill();
        // OpenBGPD's and ExaBGP's children end with their parent, but not at once, and hold the namespace until then.
        if let Ok(output) = Command::new("ip").args(["netns", "pids", &self.netns]).output() {
            for pid in String::from_utf8_lossy(&output.stdout).split_whitespace().filter_map(|pid| pid.parse().ok()) {
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
            }
        }
    }
}
