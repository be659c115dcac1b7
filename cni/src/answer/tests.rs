use super::*;
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;
use twill_crds::cni::{
    ERR_DECODING, ERR_INCOMPATIBLE_VERSION, ERR_INVALID_CONFIG, ERR_INVALID_ENVIRONMENT, ERR_TRY_AGAIN,
};

const COMMANDS: [(&str, &str); 5] =
    [("ADD", "0.3.1"), ("DEL", "0.3.1"), ("CHECK", "0.4.0"), ("STATUS", "1.1.0"), ("GC", "1.1.0")];
const CONTAINER: [(&str, &str); 3] = [("CNI_CONTAINERID", "c1"), ("CNI_NETNS", "/run/netns/a"), ("CNI_IFNAME", "eth0")];

fn called(name: &str, variables: &[(&str, &str)], input: &str) -> Result<Answer, CniError> {
    called_within(40.0, name, variables, input)
}

fn called_within(seconds: f64, name: &str, variables: &[(&str, &str)], input: &str) -> Result<Answer, CniError> {
    let map: BTreeMap<&str, &str> = variables.iter().copied().collect();
    let variable = |name: &str| map.get(name).map(|value| (*value).to_owned());
    let time = Time::new(Duration::from_secs_f64(seconds));
    answer(&Environment { variable: &variable, delegated: name == "twill-ipam", time }, input.as_bytes())
}

fn call(command: &str, input: &str) -> Result<Option<Value>, CniError> {
    let variables: Vec<_> = CONTAINER.into_iter().chain([("CNI_COMMAND", command)]).collect();
    called("twill-cni", &variables, input).map(|answer| answer.printed)
}

fn refusal(answer: Result<Option<Value>, CniError>) -> CniError {
    answer.unwrap_err()
}

/// A felix that answers one request with `line`. It gives back what it was asked, and what it was told after that.
struct Felix {
    directory: tempfile::TempDir,
    asked: JoinHandle<(Value, String)>,
}

impl Felix {
    fn new(line: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("felix.sock")).unwrap();
        let line = line.to_owned();
        let asked = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut read = BufReader::new(stream.try_clone().unwrap());
            let mut asked = String::new();
            read.read_line(&mut asked).unwrap();
            stream.write_all(line.as_bytes()).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let mut told = String::new();
            read.read_to_string(&mut told).unwrap();
            (serde_json::from_str(&asked).unwrap(), told)
        });
        Self { directory, asked }
    }

    fn config(&self, version: &str) -> Value {
        let socket = self.directory.path().join("felix.sock");
        json!({"cniVersion": version, "name": "twill", "type": "twill-cni", "socket": socket})
    }

    fn asked(self) -> (Value, String) {
        self.asked.join().unwrap()
    }
}

fn tombstones(directory: &Path) -> Vec<String> {
    let entries =
        fs::read_dir(directory.join("cni-deleted")).map(|all| all.flatten().collect::<Vec<_>>()).unwrap_or_default();
    entries.into_iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn version_needs_neither_felix_nor_anything_else() {
    for (input, shown) in [(r#"{"cniVersion": "1.0.0"}"#, "1.0.0"), ("", "1.1.0"), ("{", "1.1.0"), ("[]", "1.1.0")] {
        let result = called("twill-cni", &[("CNI_COMMAND", "VERSION")], input).unwrap().printed.unwrap();
        let expected = json!({"cniVersion": shown, "supportedVersions": ["0.3.1", "0.4.0", "1.0.0", "1.1.0"]});
        assert_eq!(result, expected);
    }
}

#[test]
fn broken_json_is_error_6() {
    for input in ["", "{", "[]", "\u{1}"] {
        let error = refusal(call("ADD", input));
        assert_eq!((error.code, error.cni_version.as_str()), (ERR_DECODING, "1.1.0"), "{input:?}");
    }
    let (open, close) = ("[".repeat(126), "]".repeat(126));
    let error = refusal(call("ADD", &format!(r#"{{"cniVersion": "1.1.0", "deep": {open}{close}}}"#)));
    assert_eq!((error.code, error.msg.contains("nested too deeply")), (ERR_DECODING, true), "{}", error.msg);
}

#[test]
fn every_verb_of_every_version_reaches_felix_or_is_refused_as_unknown_to_that_version() {
    let versions = VERSIONS;
    for (command, since) in COMMANDS {
        for version in versions {
            let spoken =
                versions.iter().position(|one| one == &version) >= versions.iter().position(|one| one == &since);
            if !spoken {
                let error = refusal(call(command, &json!({"cniVersion": version}).to_string()));
                assert_eq!((error.code, error.cni_version.as_str()), (ERR_INCOMPATIBLE_VERSION, version));
                assert!(error.msg.contains(command) && error.msg.contains(since), "{}", error.msg);
                continue;
            }
            let felix = Felix::new("{\"result\":null}\n");
            call(command, &felix.config(version).to_string()).unwrap();
            assert_eq!(felix.asked().0["command"], command);
        }
    }
    for input in ["{}", r#"{"cniVersion": "0.2.0"}"#, r#"{"cniVersion": "2.0.0"}"#] {
        assert_eq!(refusal(call("ADD", input)).code, ERR_INCOMPATIBLE_VERSION);
    }
    for command in ["add", "UPDATE"] {
        let error = refusal(call(command, r#"{"cniVersion": "1.1.0"}"#));
        assert_eq!((error.code, error.msg.contains(command)), (ERR_INVALID_ENVIRONMENT, true));
    }
}

#[test]
fn each_variable_that_a_verb_needs_is_named_if_it_is_missing() {
    let needs = |command: &str| match command {
        "ADD" | "CHECK" => vec!["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"],
        "DEL" => vec!["CNI_CONTAINERID", "CNI_IFNAME"],
        _ => Vec::new(),
    };
    for (command, _) in COMMANDS {
        for (missing, _) in CONTAINER {
            let felix = Felix::new("{\"result\":null}\n");
            let rest = CONTAINER.into_iter().filter(|(name, _)| *name != missing);
            let variables: Vec<_> = rest.chain([("CNI_COMMAND", command)]).collect();
            let answer = called("twill-cni", &variables, &felix.config("1.1.0").to_string());
            match answer {
                Err(error) => {
                    assert!(needs(command).contains(&missing), "{command} without {missing}: {}", error.msg);
                    assert_eq!((error.code, error.msg.contains(missing)), (ERR_INVALID_ENVIRONMENT, true));
                }
                Ok(_) => assert!(!needs(command).contains(&missing), "{command} without {missing}"),
            }
        }
    }
    let error = called("twill-cni", &[], "{}").map(|answer| answer.printed).unwrap_err();
    assert!(error.code == ERR_INVALID_ENVIRONMENT && error.msg.contains("CNI_COMMAND"));
}

#[test]
fn felix_away_is_error_11_and_names_the_socket() {
    for command in ["ADD", "CHECK", "STATUS", "GC"] {
        let error = refusal(call(command, r#"{"cniVersion": "1.1.0", "socket": "/nonexistent/felix.sock"}"#));
        assert_eq!(error.code, if command == "STATUS" { ERR_NOT_AVAILABLE } else { ERR_TRY_AGAIN }, "{command}");
        assert!(
            error.msg.contains("/nonexistent/felix.sock") && error.details.contains("twill status"),
            "{}",
            error.msg
        );
    }
    let felix = Felix::new("");
    assert_eq!(refusal(call("ADD", &felix.config("1.1.0").to_string())).code, ERR_TRY_AGAIN);
}

#[test]
fn an_add_reaches_felix_whole_and_is_acknowledged_when_its_result_is_delivered() {
    let felix = Felix::new("{\"result\":{\"cniVersion\":\"1.1.0\",\"ips\":[]}}\n");
    let mut config = felix.config("1.1.0");
    config["unknown"] = json!([1]);
    let variables: Vec<_> =
        CONTAINER.into_iter().chain([("CNI_COMMAND", "ADD"), ("CNI_ARGS", "K8S_POD_NAME=a")]).collect();
    let answer = called("twill-cni", &variables, &config.to_string()).unwrap();
    assert_eq!(answer.printed, Some(json!({"cniVersion": "1.1.0", "ips": []})));
    answer.delivered();
    let (mut asked, told) = felix.asked();
    let generation = asked.as_object_mut().unwrap().remove("generation").unwrap();
    assert!(generation.as_str().unwrap().parse::<twill_crds::cni::Generation>().unwrap().at > 0);
    let expected = json!({
        "op": "cni", "command": "ADD", "containerId": "c1", "netns": "/run/netns/a", "ifname": "eth0",
        "args": "K8S_POD_NAME=a", "config": config, "acknowledges": true,
    });
    assert_eq!((asked, told.trim_end()), (expected, twill_crds::cni::ACKNOWLEDGED));
    // Of one that was not delivered nothing is said.
    let felix = Felix::new("{\"result\":{}}\n");
    drop(called("twill-cni", &variables, &felix.config("1.1.0").to_string()).unwrap());
    assert_eq!(felix.asked().1, "");
}

#[test]
fn under_its_other_name_it_asks_for_addresses_and_reads_its_own_section() {
    let felix = Felix::new("{\"result\":{}}\n");
    let socket = felix.directory.path().join("felix.sock");
    let config =
        json!({"cniVersion": "1.0.0", "name": "n", "type": "bridge", "ipam": {"type": "twill-ipam", "socket": socket}});
    let variables: Vec<_> = CONTAINER.into_iter().chain([("CNI_COMMAND", "ADD")]).collect();
    drop(called("twill-ipam", &variables, &config.to_string()).unwrap());
    assert_eq!(felix.asked().0["delegated"], true);
}

#[test]
fn felix_s_error_is_passed_on() {
    for command in ["ADD", "DEL", "CHECK", "STATUS", "GC"] {
        let said = r#"{"error":{"cniVersion":"1.1.0","code":100,"msg":"full","details":"d"}}"#;
        let felix = Felix::new(&format!("{said}\n"));
        let error = refusal(call(command, &felix.config("1.1.0").to_string()));
        assert_eq!((error.code, error.msg.as_str(), error.details.as_str()), (100, "full", "d"));
        assert!(tombstones(felix.directory.path()).is_empty(), "the runtime tries again");
    }
}

#[test]
fn a_del_without_netns_is_performed_and_leaves_no_tombstone() {
    let felix = Felix::new("{\"result\":null}\n");
    let variables = [("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", "c1"), ("CNI_IFNAME", "eth0")];
    let directory = felix.directory.path().to_owned();
    let answer = called("twill-cni", &variables, &felix.config("1.1.0").to_string()).unwrap();
    assert_eq!(answer.printed, None);
    assert!(tombstones(&directory).is_empty());
    assert_eq!(felix.asked().0["netns"], "");
}

#[test]
fn a_del_while_felix_is_away_succeeds_and_leaves_a_tombstone_where_the_state_is() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let socket = directory.path().join("felix.sock");
    let mut config = json!({"cniVersion": "1.1.0", "name": "twill", "socket": socket});
    assert_eq!(call("DEL", &config.to_string()).unwrap(), None);
    config["stateDir"] = json!(state);
    assert_eq!(call("DEL", &config.to_string()).unwrap(), None);
    assert_eq!(call("DEL", &config.to_string()).unwrap(), None);
    assert_eq!((tombstones(directory.path()).len(), tombstones(&state).len()), (1, 2));
    let name = tombstones(&state).remove(0);
    assert!(name.ends_with("-twill-c1-eth0"), "{name}");
    let text = fs::read_to_string(state.join("cni-deleted").join(name)).unwrap();
    let request: twill_crds::cni::CniRequest = serde_json::from_str(&text).unwrap();
    assert_eq!((request.command.as_str(), request.container_id.as_str()), ("DEL", "c1"));
    assert!(request.generation.is_some());
    // Where it cannot be left, that is said.
    fs::write(directory.path().join("file"), "").unwrap();
    config["stateDir"] = json!(directory.path().join("file"));
    let error = refusal(call("DEL", &config.to_string()));
    assert!(error.code == ERR_IO && error.msg.contains("cannot be left for it"), "{}", error.msg);
}

/// A plugin that notes how it was called, and does what a script says.
fn plugin(directory: &Path, script: &str) -> PathBuf {
    let path = directory.join("other-ipam");
    let noted = directory.join("calls");
    let text = format!("#!/bin/sh\ncat >>{0}.input\necho \"$CNI_COMMAND\" >>{0}\n{script}\n", noted.display());
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    noted
}

fn with_plugin(felix: &Felix, command: &str) -> Result<Option<Value>, CniError> {
    with_plugin_within(40.0, felix.directory.path(), command, &Value::Null)
}

/// `more` is in the configuration beside what it needs.
fn with_plugin_within(seconds: f64, directory: &Path, command: &str, more: &Value) -> Result<Option<Value>, CniError> {
    let config = json!({
        "cniVersion": "1.1.0", "name": "twill", "type": "twill-cni", "socket": directory.join("felix.sock"),
        "ipam": {"type": "other-ipam"}, "more": more,
    });
    let path = format!("/nonexistent:{}", directory.display());
    let variables: Vec<_> = CONTAINER.into_iter().chain([("CNI_COMMAND", command), ("CNI_PATH", &path)]).collect();
    called_within(seconds, "twill-cni", &variables, &config.to_string()).map(|answer| answer.printed)
}

#[test]
fn all_who_are_asked_share_the_time_of_a_verb_and_the_last_has_some_of_it() {
    for (command, _) in COMMANDS {
        let directory = tempfile::tempdir().unwrap();
        // Accepts by its backlog, and never answers.
        let _silent = UnixListener::bind(directory.path().join("felix.sock")).unwrap();
        let noted = plugin(directory.path(), "[ $CNI_COMMAND = ADD ] && echo '{}'; exit 0");
        let began = Instant::now();
        let answered = with_plugin_within(2.0, directory.path(), command, &Value::Null);
        assert!(began.elapsed() < Duration::from_secs_f64(3.5), "{command}: {:?}", began.elapsed());
        match command {
            "DEL" => assert_eq!(answered.unwrap(), None, "the tombstone is there"),
            _ => assert!(answered.unwrap_err().msg.contains("felix does not answer"), "{command}"),
        }
        let asked = fs::read_to_string(&noted).unwrap_or_default();
        let expected = match command {
            "ADD" => "ADD\nDEL\n",
            "DEL" => "DEL\n",
            "GC" => "GC\n",
            _ => "",
        };
        assert_eq!(asked, expected, "{command}");
    }
    let directory = tempfile::tempdir().unwrap();
    plugin(directory.path(), "exec sleep 60");
    let error = with_plugin_within(1.0, directory.path(), "ADD", &Value::Null).unwrap_err();
    assert!(error.code == ERR_TRY_AGAIN && error.msg.contains("has not ended within"), "{}", error.msg);
}

#[test]
fn a_plugin_that_writes_much_before_it_reads_much_hangs_nobody() {
    let felix = Felix::new("{\"result\":{\"ips\":[]}}\n");
    let path = plugin(felix.directory.path(), "").with_file_name("other-ipam");
    let much = "x".repeat(300_000);
    let script = r#"#!/bin/sh
printf '{"ips": [], "more": "'
head -c 300000 /dev/zero | tr '\0' x
printf '"}'
exec cat >&2
"#;
    fs::write(&path, script).unwrap();
    with_plugin_within(20.0, felix.directory.path(), "ADD", &json!(much)).unwrap();
    let (asked, _) = felix.asked();
    assert_eq!(asked["ipamResult"]["more"].as_str().map(str::len), Some(300_000));
}

#[test]
fn another_s_address_plugin_is_run_for_each_verb_and_its_result_goes_to_felix() {
    for (command, _) in COMMANDS {
        let felix = Felix::new("{\"result\":{\"ips\":[]}}\n");
        let result = r#"{"cniVersion": "1.1.0", "ips": [{"address": "10.9.0.5/24"}]}"#;
        let noted = plugin(felix.directory.path(), &format!("[ $CNI_COMMAND = ADD ] && echo '{result}'; exit 0"));
        with_plugin(&felix, command).unwrap();
        assert_eq!(fs::read_to_string(&noted).unwrap(), format!("{command}\n"));
        let input: Value = serde_json::from_str(&fs::read_to_string(noted.with_extension("input")).unwrap()).unwrap();
        assert_eq!(input["ipam"]["type"], "other-ipam", "the whole configuration");
        let (asked, _) = felix.asked();
        assert_eq!(asked["ipamResult"]["ips"][0]["address"].is_string(), command == "ADD");
    }
}

#[test]
fn addresses_of_another_go_back_if_felix_refuses_the_add() {
    let felix = Felix::new("{\"error\":{\"cniVersion\":\"1.1.0\",\"code\":11,\"msg\":\"no\"}}\n");
    let noted = plugin(felix.directory.path(), "echo '{}'");
    assert_eq!(with_plugin(&felix, "ADD").unwrap_err().code, 11);
    assert_eq!(fs::read_to_string(noted).unwrap(), "ADD\nDEL\n");
}

#[test]
fn what_is_wrong_with_another_s_plugin_is_said() {
    for (script, code, says) in [
        (r#"echo '{"cniVersion": "1.0.0", "code": 117, "msg": "no addresses"}'; exit 1"#, 117, "no addresses"),
        ("echo rubbish; exit 3", ERR_IO, "exit status: 3 and said: rubbish"),
        ("echo rubbish", ERR_IO, "not JSON"),
    ] {
        let felix = Felix::new("");
        plugin(felix.directory.path(), script);
        let error = with_plugin(&felix, "ADD").unwrap_err();
        assert_eq!((error.code, error.cni_version.as_str()), (code, "1.1.0"));
        assert!(error.msg.contains(says), "{}", error.msg);
    }
    let felix = Felix::new("{\"result\":null}\n");
    let error = with_plugin(&felix, "ADD").unwrap_err();
    assert!(error.code == ERR_INVALID_CONFIG && error.msg.contains("there is no plugin other-ipam"), "{}", error.msg);
    // Our part of a DEL is done all the same.
    assert_eq!(with_plugin(&felix, "DEL").unwrap_err().code, ERR_INVALID_CONFIG);
    assert_eq!(felix.asked().0["command"], "DEL");
}
