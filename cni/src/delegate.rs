//! Another's address plugin under ours, run as the specification says (section 4): found by its name in CNI_PATH, in the same environment,
//! with the whole configuration on its standard input.

use crate::call::{Environment, error};
use serde_json::Value;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use twill_crds::cni::{CniError, ERR_INVALID_CONFIG, ERR_INVALID_ENVIRONMENT, ERR_IO, ERR_TRY_AGAIN};

/// How often it is looked whether it has ended, after its output has.
const LOOK: Duration = Duration::from_millis(1);

/// An address plugin.
pub(crate) struct Delegate<'a> {
    name: &'a str,
    version: &'a str,
    path: PathBuf,
    input: &'a [u8],
}

impl<'a> Delegate<'a> {
    /// Finds it.
    pub(crate) fn find(
        environment: &Environment<'_>,
        name: &'a str,
        version: &'a str,
        input: &'a [u8],
    ) -> Result<Self, CniError> {
        let Some(places) = environment.optional("CNI_PATH") else {
            let message = format!("environment variable CNI_PATH is missing, and ipam.type names the plugin {name}");
            return Err(error(version, ERR_INVALID_ENVIRONMENT, message, ""));
        };
        let runs = |path: &PathBuf| {
            path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
        };
        let path = places.split(':').map(|place| PathBuf::from(place).join(name)).find(runs);
        let path = path.ok_or_else(|| {
            let message = format!("ipam.type: there is no plugin {name} in {places}");
            error(version, ERR_INVALID_CONFIG, message, "install it there, or leave ipam out for addresses of IPPools")
        })?;
        Ok(Self { name, version, path, input })
    }

    /// Runs it until then at most; its result, or null if it printed none.
    pub(crate) fn run(&self, command: &str, until: Instant) -> Result<Value, CniError> {
        let failed = |code, what: String| {
            error(self.version, code, format!("address plugin {} {what}", self.name), "look at its own log")
        };
        let child = Command::new(&self.path)
            .env("CNI_COMMAND", command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn();
        let mut child = child.map_err(|e| failed(ERR_IO, format!("does not run: {e}")))?;
        let left = until.saturating_duration_since(Instant::now());
        let output = self.talk(&mut child).recv_timeout(left).unwrap_or_default();
        let Some(status) = ended(&mut child, until) else {
            let message = format!("has not ended within {:.1} s", left.as_secs_f32());
            return Err(failed(ERR_TRY_AGAIN, message));
        };
        let text = String::from_utf8_lossy(&output);
        if status.success() {
            if text.trim().is_empty() {
                return Ok(Value::Null);
            }
            return serde_json::from_str(&text).map_err(|e| failed(ERR_IO, format!("printed what is not JSON: {e}")));
        }
        match serde_json::from_str::<CniError>(&text) {
            // Its own version may be missing in what it says.
            Ok(said) => Err(CniError { cni_version: self.version.to_owned(), ..said }),
            Err(_) => Err(failed(ERR_IO, format!("ended with {status} and said: {}", text.trim()))),
        }
    }

    /// Input and output on a thread each: it may read late, or write more than a pipe holds before it reads.
    fn talk(&self, child: &mut Child) -> mpsc::Receiver<Vec<u8>> {
        let (sender, receiver) = mpsc::channel();
        let (stdin, stdout, input) = (child.stdin.take(), child.stdout.take(), self.input.to_vec());
        // One that does not read all of it says why by its exit status.
        std::thread::spawn(move || stdin.map(|mut stdin| stdin.write_all(&input)));
        std::thread::spawn(move || {
            let mut output = Vec::new();
            let _ = stdout.map(|mut stdout| stdout.read_to_end(&mut output));
            sender.send(output)
        });
        receiver
    }
}

/// Waits until it ends; at the deadline it is killed.
fn ended(child: &mut Child, end: Instant) -> Option<ExitStatus> {
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        if Instant::now() >= end {
            let _ = child.kill();
            let _ = child.wait();
            return None;
        }
        std::thread::sleep(LOOK);
    }
}
