//! What crosses a wire, written by tcpdump.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use twill_lab::io::netns;

/// A capture into a file inside a namespace.
pub(crate) struct Capture {
    child: Child,
    file: String,
}

impl Capture {
    /// All that crosses `eth0` of a namespace from now on.
    pub(crate) fn start(netns_name: &str) -> Self {
        let file = std::env::temp_dir().join(format!("{netns_name}-{}.pcap", std::process::id())).display().to_string();
        let mut child = netns::inside(netns_name, || {
            let mut tcpdump = Command::new("tcpdump");
            tcpdump.args(["-i", "eth0", "-w", &file, "-U", "--immediate-mode", "-Z", "root"]);
            Ok(tcpdump.stderr(Stdio::piped()).spawn()?)
        })
        .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        assert!(stderr.lines().any(|l| l.unwrap().contains("listening on")), "tcpdump does not start");
        Self { child, file }
    }

    pub(crate) fn stop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().try_into().unwrap());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        self.child.wait().unwrap();
    }

    /// The file, as tcpdump writes it.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        std::fs::read(&self.file).unwrap()
    }

    /// How many packets pass a filter.
    pub(crate) fn count(&self, filter: &str) -> usize {
        let output = Command::new("tcpdump").args(["-nn", "-r", &self.file, filter]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).lines().count()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.file);
    }
}
