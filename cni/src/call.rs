//! A call as the runtime makes it: environment and input, judged as far as the specification goes. What they mean is felix's to judge.

use nix::time::{ClockId, clock_gettime};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use twill_crds::cni::{
    CniError, CniRequest, ERR_DECODING, ERR_INCOMPATIBLE_VERSION, ERR_INVALID_CONFIG, ERR_INVALID_ENVIRONMENT, ERR_IO,
    Generation, VERSIONS,
};
use twill_crds::names::{CNI_DELETED, CNI_IPAM_PLUGIN, CNI_PLUGIN, FELIX_SOCKET, RUN_DIR, STATE_DIR};

/// Where the kernel tells boots apart.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The time that a verb has, whomever it asks, and how it is shared out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Time {
    began: Instant,
    whole: Duration,
}

/// What surrounds a call.
pub(crate) struct Environment<'a> {
    /// A variable of it.
    pub(crate) variable: &'a dyn Fn(&str) -> Option<String>,
    /// Whether the executable was called as `twill-ipam`.
    pub(crate) delegated: bool,
    /// The time that it has.
    pub(crate) time: Time,
}

/// A call that felix can be asked.
pub(crate) struct Call {
    /// What felix is asked.
    pub(crate) request: CniRequest,
    /// `cniVersion`, one that we speak.
    pub(crate) version: String,
    /// felix's socket.
    pub(crate) socket: PathBuf,
    /// Where DELs are left for a felix that is away.
    pub(crate) deleted: PathBuf,
    /// The address plugin that `ipam.type` names, unless that is our own.
    pub(crate) ipam: Option<String>,
}

/// The commands that felix answers, and the version that has them first.
const COMMANDS: [(&str, &str); 5] =
    [("ADD", "0.3.1"), ("DEL", "0.3.1"), ("CHECK", "0.4.0"), ("STATUS", "1.1.0"), ("GC", "1.1.0")];

impl Time {
    /// So much from now on.
    pub(crate) fn new(whole: Duration) -> Self {
        Self { began: Instant::now(), whole }
    }

    /// When so many hundredths of it are over.
    pub(crate) fn at(self, hundredths: u32) -> Instant {
        self.began + self.whole * hundredths / 100
    }
}

impl Environment<'_> {
    /// CNI_COMMAND.
    pub(crate) fn command(&self) -> Result<String, CniError> {
        self.required("", "CNI_COMMAND")
    }

    /// A variable that may be absent; empty counts as absent.
    pub(crate) fn optional(&self, name: &str) -> Option<String> {
        (self.variable)(name).filter(|value| !value.is_empty())
    }

    fn required(&self, version: &str, name: &str) -> Result<String, CniError> {
        self.optional(name).ok_or_else(|| {
            let message = format!("environment variable {name} is missing");
            error(version, ERR_INVALID_ENVIRONMENT, message, "twill-cni is called by a container runtime, not by hand")
        })
    }
}

/// Reads a call.
pub(crate) fn read(environment: &Environment<'_>, command: String, input: &[u8]) -> Result<Call, CniError> {
    let since = COMMANDS.iter().find(|(name, _)| *name == command).map(|(_, since)| *since).ok_or_else(|| {
        let message = format!("CNI_COMMAND {command} is not one of ADD, DEL, CHECK, STATUS, GC, VERSION");
        error("", ERR_INVALID_ENVIRONMENT, message, "")
    })?;
    let config: Value = serde_json::from_slice(input).map_err(|e| {
        error("", ERR_DECODING, format!("the network configuration on standard input is not JSON: {e}"), "")
    })?;
    if !config.is_object() {
        return Err(error("", ERR_DECODING, "the network configuration on standard input is not a JSON object", ""));
    }
    let version = config["cniVersion"].as_str().unwrap_or_default().to_owned();
    spoken(&version, &command, since)?;
    let of_container = matches!(command.as_str(), "ADD" | "DEL" | "CHECK");
    let named = |name: &str, needed: bool| match environment.required(&version, name) {
        Err(missing) if needed => Err(missing),
        value => Ok(value.unwrap_or_default()),
    };
    let request = CniRequest {
        container_id: named("CNI_CONTAINERID", of_container)?,
        // The namespace may be gone when the runtime deletes.
        netns: named("CNI_NETNS", matches!(command.as_str(), "ADD" | "CHECK"))?,
        ifname: named("CNI_IFNAME", of_container)?,
        args: environment.optional("CNI_ARGS").unwrap_or_default(),
        delegated: environment.delegated,
        generation: Some(now().map_err(|e| error(&version, ERR_IO, format!("the boot is not known: {e}"), ""))?),
        ipam_result: Value::Null,
        acknowledges: command == "ADD",
        command,
        config,
    };
    let ours = if environment.delegated { &request.config["ipam"] } else { &request.config };
    let socket = path(&version, ours, "socket")?;
    let deleted = match (path(&version, ours, "stateDir")?, &socket) {
        (Some(state_dir), _) => state_dir,
        (None, Some(socket)) => socket.parent().unwrap_or(Path::new("/")).to_owned(),
        (None, None) => PathBuf::from(STATE_DIR),
    };
    let deleted = deleted.join(CNI_DELETED);
    let socket = socket.unwrap_or_else(|| Path::new(RUN_DIR).join(FELIX_SOCKET));
    let ipam = if environment.delegated { None } else { ipam(&version, &request.config)? };
    Ok(Call { request, version, socket, deleted, ipam })
}

fn spoken(version: &str, command: &str, since: &str) -> Result<(), CniError> {
    let place = |version: &str| VERSIONS.iter().position(|known| *known == version);
    let Some(asked) = place(version) else {
        let said =
            if version.is_empty() { "names no cniVersion".into() } else { format!("asks for cniVersion {version}") };
        let message = format!("the network configuration {said}; {CNI_PLUGIN} speaks {}", VERSIONS.join(", "));
        let hint = "set cniVersion in the conflist to one of these";
        return Err(error(version, ERR_INCOMPATIBLE_VERSION, message, hint));
    };
    if Some(asked) < place(since) {
        let message = format!("CNI_COMMAND {command} does not exist in cniVersion {version}; it came with {since}");
        let hint = "set cniVersion in the conflist to that or a later one";
        return Err(error(version, ERR_INCOMPATIBLE_VERSION, message, hint));
    }
    Ok(())
}

fn path(version: &str, ours: &Value, field: &str) -> Result<Option<PathBuf>, CniError> {
    match &ours[field] {
        Value::Null => Ok(None),
        Value::String(path) if path.starts_with('/') => Ok(Some(PathBuf::from(path))),
        other => {
            let message = format!("{field}: {other} is not an absolute path; leave it out or name felix's");
            Err(error(version, ERR_INVALID_CONFIG, message, ""))
        }
    }
}

fn ipam(version: &str, config: &Value) -> Result<Option<String>, CniError> {
    match &config["ipam"]["type"] {
        Value::Null => Ok(None),
        Value::String(name) if name.is_empty() || name == CNI_IPAM_PLUGIN => Ok(None),
        Value::String(name) if !name.contains('/') => Ok(Some(name.clone())),
        other => {
            let message =
                format!("ipam.type: {other} is not the name of a plugin; leave ipam out for addresses of IPPools");
            Err(error(version, ERR_INVALID_CONFIG, message, ""))
        }
    }
}

fn now() -> std::io::Result<Generation> {
    let boot = std::fs::read_to_string(BOOT_ID)?.trim().to_owned();
    let since = clock_gettime(ClockId::CLOCK_BOOTTIME)?;
    let [seconds, nanoseconds] = [since.tv_sec(), since.tv_nsec()].map(|part| u64::try_from(part).unwrap_or_default());
    Ok(Generation { boot, at: seconds * 1_000_000_000 + nanoseconds })
}

/// The error of an input that cannot be read.
pub(crate) fn cannot_read(problem: &std::io::Error) -> CniError {
    error("", ERR_IO, format!("standard input cannot be read: {problem}"), "")
}

/// An error of this version, or of the newest if we do not speak it.
pub(crate) fn error(version: &str, code: u32, msg: impl Into<String>, details: &str) -> CniError {
    let known = VERSIONS.contains(&version);
    let cni_version = if known { version } else { VERSIONS[VERSIONS.len() - 1] }.to_owned();
    CniError { cni_version, code, msg: msg.into(), details: details.to_owned() }
}
