//! A container runtime's side of CNI, as libcni plays it: each plugin of a list in turn, `prevResult` from one to the next, capabilities to
//! those that have them, the last result kept for CHECK and DEL.

use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use twill_e2e::Lab;

/// Directory of the reference plugins (Debian's containernetworking-plugins).
const REFERENCE: &str = "/usr/lib/cni";

/// A network configuration list.
#[derive(Clone)]
pub(crate) struct Network {
    pub(crate) name: String,
    pub(crate) version: &'static str,
    pub(crate) plugins: Vec<Value>,
}

/// What is to be attached.
#[derive(Clone)]
pub(crate) struct Container {
    pub(crate) id: String,
    /// Path of its network namespace; empty: gone.
    pub(crate) netns: String,
    pub(crate) ifname: String,
    /// CNI_ARGS.
    pub(crate) args: String,
    /// By capability.
    pub(crate) capabilities: Value,
}

/// The runtime of a node of a lab.
pub(crate) struct Runtime {
    node: String,
    /// Directory of the node's felix.
    pub(crate) dir: PathBuf,
    results: Mutex<BTreeMap<(String, String, String), Value>>,
}

/// A result, null where nothing was printed, or the error object.
pub(crate) type Outcome = Result<Value, Value>;

impl Runtime {
    /// Of node n1.
    pub(crate) fn of(lab: &Lab) -> Self {
        Self::at(lab, "n1")
    }

    pub(crate) fn at(lab: &Lab, node: &str) -> Self {
        let dir = PathBuf::from(format!("/run/twill-lab/{}/{node}", lab.name));
        let node = lab.status().unwrap().nodes.into_iter().find(|one| one.name == node).unwrap().netns;
        Self { node, dir, results: Mutex::default() }
    }

    /// Our plugin as the node's conflist has it.
    pub(crate) fn ours(&self) -> Value {
        json!({"type": "twill-cni", "socket": self.dir.join("felix.sock"), "stateDir": self.dir,
            "capabilities": {"ips": true, "mac": true}})
    }

    /// Our address plugin, as the `ipam` of another.
    pub(crate) fn lending(&self) -> Value {
        json!({"type": "twill-ipam", "socket": self.dir.join("felix.sock"), "stateDir": self.dir})
    }

    pub(crate) fn add(&self, network: &Network, container: &Container) -> Outcome {
        let mut result = Value::Null;
        for plugin in &network.plugins {
            result = self.call("ADD", network, plugin, Some(container), &result)?;
        }
        self.results.lock().unwrap().insert(key(network, container), result.clone());
        Ok(result)
    }

    pub(crate) fn check(&self, network: &Network, container: &Container) -> Outcome {
        let result = self.result(network, container);
        for plugin in &network.plugins {
            self.call("CHECK", network, plugin, Some(container), &result)?;
        }
        Ok(Value::Null)
    }

    pub(crate) fn del(&self, network: &Network, container: &Container) -> Outcome {
        // The result comes with DEL from 0.4.0 on.
        let result = if network.version == "0.3.1" { Value::Null } else { self.result(network, container) };
        for plugin in network.plugins.iter().rev() {
            self.call("DEL", network, plugin, Some(container), &result)?;
        }
        self.results.lock().unwrap().remove(&key(network, container));
        Ok(Value::Null)
    }

    /// STATUS, GC or VERSION of a network's first plugin, with more in its configuration.
    pub(crate) fn of_network(&self, command: &str, network: &Network, more: Value) -> Outcome {
        let mut plugin = network.plugins[0].clone();
        plugin.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
        self.call(command, network, &plugin, None, &Value::Null)
    }

    fn result(&self, network: &Network, container: &Container) -> Value {
        self.results.lock().unwrap().get(&key(network, container)).cloned().unwrap_or_default()
    }

    fn call(
        &self,
        command: &str,
        network: &Network,
        plugin: &Value,
        container: Option<&Container>,
        previous: &Value,
    ) -> Outcome {
        outcome(command, self.begin(command, network, plugin, container, previous))
    }

    /// Starts a plugin; its whole input is written.
    pub(crate) fn begin(
        &self,
        command: &str,
        network: &Network,
        plugin: &Value,
        container: Option<&Container>,
        previous: &Value,
    ) -> Child {
        let mut config = plugin.clone();
        config["name"] = json!(network.name);
        config["cniVersion"] = json!(network.version);
        let has = config["capabilities"].take();
        config.as_object_mut().unwrap().remove("capabilities");
        if !previous.is_null() {
            config["prevResult"] = previous.clone();
        }
        let asked = container.and_then(|container| container.capabilities.as_object()).cloned().unwrap_or_default();
        let passed: Map<String, Value> = asked.into_iter().filter(|(name, _)| has[name] == true).collect();
        if !passed.is_empty() {
            config["runtimeConfig"] = Value::Object(passed);
        }
        let name = plugin["type"].as_str().unwrap();
        let bin = self.dir.join("cni-bin");
        let path = [bin.join(name), PathBuf::from(REFERENCE).join(name)].into_iter().find(|path| path.exists());
        let path =
            path.unwrap_or_else(|| panic!("there is no plugin {name}: apt-get install containernetworking-plugins"));
        let mut process = Command::new("ip");
        process.args(["netns", "exec", &self.node]).arg(&path);
        // Ours alone speaks with felix and with nobody else, wherever it is.
        if name == "twill-cni" && config["ipam"].is_null() {
            process = Command::new(&path);
        }
        process.env("CNI_COMMAND", command).env("CNI_PATH", format!("{}:{REFERENCE}", bin.display()));
        if let Some(container) = container {
            process.env("CNI_CONTAINERID", &container.id).env("CNI_NETNS", &container.netns);
            process.env("CNI_IFNAME", &container.ifname).env("CNI_ARGS", &container.args);
        }
        process.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = process.spawn().unwrap();
        // One that is killed does not read all of it.
        let _ = child.stdin.take().unwrap().write_all(config.to_string().as_bytes());
        child
    }
}

/// What a plugin has come to.
pub(crate) fn outcome(command: &str, child: Child) -> Outcome {
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let value = || {
        serde_json::from_str(&said).unwrap_or_else(|_| panic!("{command}: {}, and it printed {said:?}", output.status))
    };
    match (output.status.success(), said.trim().is_empty()) {
        (true, true) => Ok(Value::Null),
        (true, false) => Ok(value()),
        (false, _) => Err(value()),
    }
}

fn key(network: &Network, container: &Container) -> (String, String, String) {
    (network.name.clone(), container.id.clone(), container.ifname.clone())
}
