//! One call: environment and input become a request, felix's line becomes the answer.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::time::Duration;
use twill_crds::cni::{
    CniError, CniReply, CniRequest, ERR_DECODING, ERR_INCOMPATIBLE_VERSION, ERR_INVALID_CONFIG,
    ERR_INVALID_ENVIRONMENT, ERR_IO, ERR_TRY_AGAIN,
};
use twill_crds::control::FelixRequest;
use twill_crds::names::{FELIX_SOCKET, RUN_DIR};

/// Versions of the specification that we speak, oldest first.
const VERSIONS: [&str; 4] = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"];
/// Longest wait for felix's answer; felix itself gives up earlier.
const DEADLINE: Duration = Duration::from_secs(40);

type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// What is to be printed: a result, or nothing, or the error object.
pub(crate) fn answer(environment: Environment<'_>, input: &[u8]) -> Result<Option<Value>, CniError> {
    let config: Value = serde_json::from_slice(input).map_err(|e| {
        error("", ERR_DECODING, format!("the network configuration on standard input is not JSON: {e}"), "")
    })?;
    let Value::Object(fields) = &config else {
        return Err(error("", ERR_DECODING, "the network configuration on standard input is not a JSON object", ""));
    };
    let version = fields.get("cniVersion").and_then(Value::as_str).unwrap_or_default().to_owned();
    let command = variable(environment, &version, "CNI_COMMAND")?;
    if command == "VERSION" {
        let shown = if version.is_empty() { VERSIONS[VERSIONS.len() - 1] } else { &version };
        return Ok(Some(json!({"cniVersion": shown, "supportedVersions": VERSIONS})));
    }
    if !VERSIONS.contains(&version.as_str()) {
        let said =
            if version.is_empty() { "names no cniVersion".into() } else { format!("asks for cniVersion {version}") };
        let message = format!("the network configuration {said}; twill-cni speaks {}", VERSIONS.join(", "));
        return Err(error(
            &version,
            ERR_INCOMPATIBLE_VERSION,
            message,
            "set cniVersion in the conflist to one of these",
        ));
    }
    let request = FelixRequest::Cni(request(environment, &version, command, &config)?);
    let line = serde_json::to_vec(&request).unwrap_or_default();
    // Inside the request the configuration lies deeper than it lay on its own; felix could not say whose answer its refusal is.
    if let Err(e) = serde_json::from_slice::<FelixRequest>(&line) {
        let message = format!("the network configuration on standard input is nested too deeply: {e}");
        return Err(error(&version, ERR_DECODING, message, ""));
    }
    let socket = match fields.get("socket") {
        None => format!("{RUN_DIR}/{FELIX_SOCKET}"),
        Some(Value::String(path)) if path.starts_with('/') => path.clone(),
        Some(other) => {
            let message = format!("socket: {other} is not an absolute path; leave it out or name felix's socket");
            return Err(error(&version, ERR_INVALID_CONFIG, message, ""));
        }
    };
    match ask(&version, &socket, line)? {
        CniReply::Result(Value::Null) => Ok(None),
        CniReply::Result(result) => Ok(Some(result)),
        CniReply::Error(error) => Err(error),
    }
}

/// The error of an input that cannot be read.
pub(crate) fn cannot_read(problem: &std::io::Error) -> CniError {
    error("", ERR_IO, format!("standard input cannot be read: {problem}"), "")
}

fn request(
    environment: Environment<'_>,
    version: &str,
    command: String,
    config: &Value,
) -> Result<CniRequest, CniError> {
    if command != "ADD" && command != "DEL" {
        let message = format!("CNI_COMMAND {command} is not spoken by this release; it speaks ADD, DEL and VERSION");
        return Err(error(version, ERR_INVALID_ENVIRONMENT, message, ""));
    }
    // The namespace may be gone when the runtime deletes.
    let netns = match variable(environment, version, "CNI_NETNS") {
        Ok(path) => path,
        Err(_) if command == "DEL" => String::new(),
        Err(missing) => return Err(missing),
    };
    Ok(CniRequest {
        container_id: variable(environment, version, "CNI_CONTAINERID")?,
        netns,
        ifname: variable(environment, version, "CNI_IFNAME")?,
        args: environment("CNI_ARGS").unwrap_or_default(),
        config: config.clone(),
        command,
    })
}

fn variable(environment: Environment<'_>, version: &str, name: &str) -> Result<String, CniError> {
    environment(name).filter(|value| !value.is_empty()).ok_or_else(|| {
        let message = format!("environment variable {name} is missing");
        error(version, ERR_INVALID_ENVIRONMENT, message, "twill-cni is called by a container runtime, not by hand")
    })
}

/// One request and its answer. A thread of its own, so that even a connect that blocks on a full backlog is bounded.
fn ask(version: &str, socket: &str, line: Vec<u8>) -> Result<CniReply, CniError> {
    let (sender, receiver) = mpsc::channel();
    let path = socket.to_owned();
    std::thread::spawn(move || sender.send(exchange(&path, line)));
    let hint = "look at felix: twill status, or journalctl -u twill-felix";
    let away =
        |problem: String| error(version, ERR_TRY_AGAIN, format!("felix does not answer on {socket}: {problem}"), hint);
    match receiver.recv_timeout(DEADLINE) {
        Ok(Ok(line)) if line.is_empty() => Err(away("it closed the connection".to_owned())),
        Ok(Ok(line)) => serde_json::from_str(&line).map_err(|e| away(format!("its answer is not understood ({e})"))),
        Ok(Err(problem)) => Err(away(problem.to_string())),
        Err(_) => Err(away(format!("no answer within {} s", DEADLINE.as_secs()))),
    }
}

fn exchange(socket: &str, mut line: Vec<u8>) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    Ok(answer)
}

fn error(version: &str, code: u32, msg: impl Into<String>, details: &str) -> CniError {
    let known = VERSIONS.contains(&version);
    let cni_version = if known { version } else { VERSIONS[VERSIONS.len() - 1] }.to_owned();
    CniError { cni_version, code, msg: msg.into(), details: details.to_owned() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::os::unix::net::UnixListener;

    fn call(variables: &[(&str, &str)], input: &str) -> Result<Option<Value>, CniError> {
        let map: BTreeMap<&str, &str> = variables.iter().copied().collect();
        answer(&|name| map.get(name).map(|value| (*value).to_owned()), input.as_bytes())
    }

    const ADD: [(&str, &str); 5] = [
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "c1"),
        ("CNI_NETNS", "/run/netns/a"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_ARGS", "K8S_POD_NAME=a"),
    ];

    /// A felix that answers one request with `line`, and gives back what it was asked.
    fn felix(line: &str) -> (tempfile::TempDir, String, std::thread::JoinHandle<Value>) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("felix.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let line = line.to_owned();
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = String::new();
            BufReader::new(stream.try_clone().unwrap()).read_line(&mut asked).unwrap();
            stream.write_all(line.as_bytes()).unwrap();
            serde_json::from_str(&asked).unwrap()
        });
        let path = path.display().to_string();
        (directory, path, thread)
    }

    #[test]
    fn version_needs_neither_felix_nor_other_variables() {
        let result = call(&[("CNI_COMMAND", "VERSION")], r#"{"cniVersion": "1.0.0"}"#).unwrap().unwrap();
        assert_eq!(result["cniVersion"], "1.0.0");
        assert_eq!(result["supportedVersions"], json!(["0.3.1", "0.4.0", "1.0.0", "1.1.0"]));
    }

    #[test]
    fn broken_json_is_error_6() {
        for input in ["", "{", "[]", "\u{1}"] {
            let error = call(&ADD, input).unwrap_err();
            assert_eq!((error.code, error.cni_version.as_str()), (ERR_DECODING, "1.1.0"), "{input:?}");
        }
    }

    #[test]
    fn a_configuration_that_felix_could_not_read_is_error_6_not_felix_s_fault() {
        let (open, close) = ("[".repeat(126), "]".repeat(126));
        let input = format!(r#"{{"cniVersion": "1.1.0", "deep": {open}{close}}}"#);
        let error = call(&ADD, &input).unwrap_err();
        assert_eq!((error.code, error.msg.contains("nested too deeply")), (ERR_DECODING, true), "{}", error.msg);
    }

    #[test]
    fn each_missing_variable_is_error_4_and_is_named() {
        for (missing, _) in &ADD[..4] {
            let rest: Vec<_> = ADD.iter().filter(|(name, _)| name != missing).copied().collect();
            let error = call(&rest, r#"{"cniVersion": "0.4.0"}"#).unwrap_err();
            assert_eq!((error.code, error.cni_version.as_str()), (ERR_INVALID_ENVIRONMENT, "0.4.0"));
            assert!(error.msg.contains(missing), "{}", error.msg);
        }
    }

    #[test]
    fn a_version_we_do_not_speak_is_error_1() {
        for input in ["{}", r#"{"cniVersion": "0.2.0"}"#, r#"{"cniVersion": "2.0.0"}"#] {
            assert_eq!(call(&ADD, input).unwrap_err().code, ERR_INCOMPATIBLE_VERSION);
        }
    }

    #[test]
    fn felix_away_is_error_11_and_names_the_socket() {
        let error = call(&ADD, r#"{"cniVersion": "1.1.0", "socket": "/nonexistent/felix.sock"}"#).unwrap_err();
        assert_eq!(error.code, ERR_TRY_AGAIN);
        assert!(error.msg.contains("/nonexistent/felix.sock"), "{}", error.msg);
        assert!(error.details.contains("twill status"));
    }

    #[test]
    fn felix_that_hangs_up_is_error_11() {
        let (_directory, path, thread) = felix("");
        let config = json!({"cniVersion": "1.1.0", "socket": path}).to_string();
        assert_eq!(call(&ADD, &config).unwrap_err().code, ERR_TRY_AGAIN);
        thread.join().unwrap();
    }

    #[test]
    fn the_call_reaches_felix_whole_and_its_result_comes_back_as_it_is() {
        let (_directory, path, thread) = felix("{\"result\":{\"cniVersion\":\"1.1.0\",\"ips\":[]}}\n");
        let config = json!({"cniVersion": "1.1.0", "name": "twill", "socket": path, "unknown": [1]});
        let result = call(&ADD, &config.to_string()).unwrap();
        assert_eq!(result, Some(json!({"cniVersion": "1.1.0", "ips": []})));
        let asked = thread.join().unwrap();
        let expected = json!({
            "op": "cni", "command": "ADD", "containerId": "c1", "netns": "/run/netns/a", "ifname": "eth0",
            "args": "K8S_POD_NAME=a", "config": config,
        });
        assert_eq!(asked, expected);
    }

    #[test]
    fn del_without_netns_is_passed_on_and_prints_nothing() {
        let (_directory, path, thread) = felix("{\"result\":null}\n");
        let config = json!({"cniVersion": "1.1.0", "socket": path}).to_string();
        let variables = [("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", "c1"), ("CNI_IFNAME", "eth0")];
        assert_eq!(call(&variables, &config).unwrap(), None);
        assert_eq!(thread.join().unwrap()["netns"], "");
    }

    #[test]
    fn felix_s_error_is_passed_on() {
        let (_directory, path, thread) =
            felix("{\"error\":{\"cniVersion\":\"1.1.0\",\"code\":100,\"msg\":\"full\",\"details\":\"d\"}}\n");
        let config = json!({"cniVersion": "1.1.0", "socket": path}).to_string();
        let error = call(&ADD, &config).unwrap_err();
        assert_eq!((error.code, error.msg.as_str(), error.details.as_str()), (100, "full", "d"));
        thread.join().unwrap();
    }

    #[test]
    fn check_gc_and_status_are_refused_in_words() {
        for command in ["CHECK", "GC", "STATUS", "add"] {
            let variables = [("CNI_COMMAND", command), ("CNI_CONTAINERID", "c1"), ("CNI_IFNAME", "eth0")];
            let error = call(&variables, r#"{"cniVersion": "1.1.0"}"#).unwrap_err();
            assert_eq!(error.code, ERR_INVALID_ENVIRONMENT);
            assert!(error.msg.contains(command));
        }
    }
}
