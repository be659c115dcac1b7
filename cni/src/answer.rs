//! What becomes of a call: felix's part, and that of another's address plugin, in the order that leaves no address without its holder. All of
//! them have the time of the verb together, and each leaves something of it to those after it, so that none is never asked.

use crate::call::{self, Call, Environment, Time, error};
use crate::delegate::Delegate;
use crate::felix::{self, Answered, Refusal};
use crate::tombstone::Tombstone;
use serde_json::{Value, json};
use std::time::Instant;
use twill_crds::cni::{CniError, ERR_IO, ERR_NOT_AVAILABLE, VERSIONS};

/// Hundredths of a verb's time after which who was asked has had his: an address plugin in ADD, felix where a plugin comes after him, and all.
const ADDRESSES: u32 = 45;
const FELIX: u32 = 85;
const ALL: u32 = 100;

/// What is to be printed.
pub(crate) struct Answer {
    /// The result; none if nothing is printed.
    pub(crate) printed: Option<Value>,
    felix: Option<Answered>,
}

impl Answer {
    fn nothing() -> Self {
        Self { printed: None, felix: None }
    }

    /// The runtime has it.
    pub(crate) fn delivered(self) {
        self.felix.into_iter().for_each(Answered::acknowledge);
    }
}

/// Answers a call.
pub(crate) fn answer(environment: &Environment<'_>, input: &[u8]) -> Result<Answer, CniError> {
    let command = environment.command()?;
    if command == "VERSION" {
        return Ok(Answer { printed: Some(version(input)), felix: None });
    }
    let call = call::read(environment, command, input)?;
    let (version, name) = (call.version.clone(), call.ipam.clone());
    let ipam = || name.as_deref().map(|name| Delegate::find(environment, name, &version, input)).transpose();
    let time = environment.time;
    let for_felix = time.at(if call.ipam.is_some() { FELIX } else { ALL });
    let then = |ipam: Option<Delegate<'_>>, command: &str| {
        ipam.map(|ipam| ipam.run(command, time.at(ALL))).transpose().map(|_| Answer::nothing())
    };
    match call.request.command.as_str() {
        "ADD" => add(call, ipam()?.as_ref(), time),
        "DEL" => {
            del(&call, for_felix)?;
            then(ipam()?, "DEL")
        }
        "GC" => gc(&call, ipam(), for_felix, time.at(ALL)),
        "STATUS" => {
            felix::ask(&call, felix::line(&call)?, for_felix).map_err(unavailable)?;
            then(ipam()?, "STATUS")
        }
        command => {
            felix::ask(&call, felix::line(&call)?, for_felix)?;
            then(ipam()?, command)
        }
    }
}

/// Needs nothing but the environment: whoever asks may not know yet what to say.
fn version(input: &[u8]) -> Value {
    let asked: Value = serde_json::from_slice(input).unwrap_or_default();
    let shown = asked["cniVersion"].as_str().filter(|version| !version.is_empty());
    json!({"cniVersion": shown.unwrap_or(VERSIONS[VERSIONS.len() - 1]), "supportedVersions": VERSIONS})
}

/// Another's addresses come first, and go back if felix cannot use them.
fn add(mut call: Call, ipam: Option<&Delegate<'_>>, time: Time) -> Result<Answer, CniError> {
    if let Some(ipam) = ipam {
        call.request.ipam_result = ipam.run("ADD", time.at(ADDRESSES))?;
    }
    let until = time.at(if ipam.is_some() { FELIX } else { ALL });
    let answered = felix::line(&call).and_then(|line| felix::ask(&call, line, until).map_err(CniError::from));
    match answered {
        Ok(felix) => Ok(Answer { printed: Some(felix.result.clone()), felix: Some(felix) }),
        Err(error) => {
            // The runtime calls DEL after a failed ADD, which does this once more if need be.
            ipam.map(|ipam| ipam.run("DEL", time.at(ALL)));
            Err(error)
        }
    }
}

/// The tombstone comes before anything, and stays if felix is away: then the DEL is as good as done. Addresses of another's plugin go
/// back after it: felix does not use them again before it has read its tombstones.
fn del(call: &Call, until: Instant) -> Result<(), CniError> {
    let line = felix::line(call)?;
    let tombstone = Tombstone::write(&call.deleted, &call.request);
    match (felix::ask(call, line, until), tombstone) {
        (Ok(_), tombstone) => {
            tombstone.into_iter().for_each(Tombstone::remove);
            Ok(())
        }
        // The runtime tries again, and felix says more.
        (Err(Refusal::Felix(error)), tombstone) => {
            tombstone.into_iter().for_each(Tombstone::remove);
            Err(error)
        }
        (Err(Refusal::Away(_)), Ok(_)) => Ok(()),
        (Err(Refusal::Away(away)), Err(unwritten)) => {
            let message = format!("{}, and the call cannot be left for it: {unwritten}", away.msg);
            Err(error(&call.version, ERR_IO, message, &away.details))
        }
    }
}

/// Pods that run have their policy without felix; new ones are not attached.
fn unavailable(refusal: Refusal) -> CniError {
    match refusal {
        Refusal::Away(away) => CniError { code: ERR_NOT_AVAILABLE, ..away },
        Refusal::Felix(error) => error,
    }
}

/// Both are asked, whatever the one says, and all is told.
fn gc(
    call: &Call,
    ipam: Result<Option<Delegate<'_>>, CniError>,
    for_felix: Instant,
    end: Instant,
) -> Result<Answer, CniError> {
    let ours = felix::ask(call, felix::line(call)?, for_felix).map_err(CniError::from);
    let theirs = ipam.and_then(|ipam| ipam.map_or(Ok(Value::Null), |ipam| ipam.run("GC", end)));
    match (ours, theirs) {
        (Ok(_), Ok(_)) => Ok(Answer::nothing()),
        (Err(error), Ok(_)) | (Ok(_), Err(error)) => Err(error),
        (Err(ours), Err(theirs)) => Err(CniError { msg: format!("{}; {}", ours.msg, theirs.msg), ..ours }),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
