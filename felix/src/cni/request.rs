//! A call as the runtime made it becomes one whose every field makes sense, or a failure. Nothing is touched before.

use super::asked::asked;
use super::{Failure, Previous, Reason, RuntimeConfig, runtime_config};
use crate::workload::alias;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use twill_crds::cni::{CniRequest, Generation};
use twill_crds::names::CNI_IPAM_PLUGIN;
use twill_ipam::io::identity::LENGTH;
use twill_ipam::{Kind, Origin, Sandbox};

/// Smallest and largest MTU that can be asked for.
const MTUS: std::ops::RangeInclusive<u64> = 1280..=65535;

/// Longest alias of an interface.
const ALIAS: usize = 255;

/// The keys under which the runtime lists the attachments that are in use: the specification's, and the one that its text had before.
const VALID: [&str; 2] = ["cni.dev/valid-attachments", "cni.dev/attachments"];

/// A valid ADD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Add {
    /// Container and interface.
    pub sandbox: Sandbox,
    /// The pod's network namespace.
    pub netns: PathBuf,
    /// K8S_POD_NAMESPACE; may be empty where another plugin makes the interface.
    pub namespace: String,
    /// K8S_POD_NAME; as the namespace.
    pub pod: String,
    /// K8S_POD_UID; as the namespace.
    pub uid: String,
    /// `mtu` of the configuration.
    pub mtu: Option<u32>,
    /// What the runtime asks for this attachment.
    pub runtime_config: RuntimeConfig,
    /// Network, call, and what of it is ours.
    pub origin: Origin,
    /// Addresses that another's plugin gave; empty: ours are given.
    pub given: Vec<IpAddr>,
    /// `dns` of that plugin's result.
    pub dns: Value,
    /// What plugins before ours made.
    pub previous: Previous,
}

/// A valid DEL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Del {
    /// Container and interface.
    pub sandbox: Sandbox,
    /// Name of the network; empty if the call does not say.
    pub network: String,
    /// When it was called; none if the plugin did not say.
    pub generation: Option<Generation>,
}

/// A valid CHECK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Container and interface.
    pub sandbox: Sandbox,
    /// The pod's network namespace.
    pub netns: PathBuf,
    /// Name of the network.
    pub network: String,
    /// K8S_POD_UID; empty if the call does not say.
    pub uid: String,
    /// What the runtime asked for at the ADD.
    pub runtime_config: RuntimeConfig,
    /// What the ADD and the plugins after it said.
    pub previous: Previous,
    /// Whether only the addresses are ours.
    pub delegated: bool,
}

/// A valid GC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gc {
    /// Name of the network.
    pub network: String,
    /// What is in use; none if the runtime does not say.
    pub valid: Option<BTreeSet<Sandbox>>,
    /// When it was called.
    pub generation: Option<Generation>,
    /// Whether it is about addresses of interfaces that other plugins made.
    pub delegated: bool,
}

/// Judges an ADD.
///
/// # Errors
/// The first field that makes no sense.
pub fn add(request: &CniRequest) -> Result<Add, Failure> {
    let sandbox = sandbox(request)?;
    let netns = netns(request)?;
    let arguments = arguments(&request.args)?;
    let argument = |name: &str| match arguments.get(name).filter(|value| !value.is_empty()) {
        Some(value) => Ok(value.clone()),
        // What another plugin makes need not be a pod's.
        None if request.delegated => Ok(String::new()),
        None => {
            let message =
                format!("CNI_ARGS: {name} is missing; Twill attaches pods only, and the runtime must name them");
            Err(Failure::new(Reason::InvalidEnvironment, message))
        }
    };
    let (namespace, pod, uid) = (argument("K8S_POD_NAMESPACE")?, argument("K8S_POD_NAME")?, argument("K8S_POD_UID")?);
    // All three are in the interface's alias, from which a lost store is rebuilt: it must hold them, and be taken apart again.
    if uid.contains('/') || alias(&sandbox, &uid, "").len() + LENGTH > ALIAS {
        let message = format!(
            "CNI_ARGS: K8S_POD_UID {uid:?} contains '/' or is, together with CNI_CONTAINERID and CNI_IFNAME, longer than \
             {ALIAS} bytes"
        );
        return Err(Failure::new(Reason::InvalidEnvironment, message));
    }
    let mut runtime_config = runtime_config(&request.config, &arguments)?;
    if !request.delegated {
        runtime_config.asked = asked(&request.config)?;
    }
    let (given, dns) = given(request)?;
    if !given.is_empty() && !runtime_config.ips.is_empty() && given != runtime_config.ips {
        let message = "runtimeConfig.ips: the plugin of ipam.type gave other addresses; leave one of the two out";
        return Err(Failure::new(Reason::InvalidConfig, message));
    }
    let kind = match (request.delegated, given.is_empty()) {
        (true, _) => Kind::Lent,
        (false, false) => Kind::Foreign,
        (false, true) => Kind::Workload,
    };
    let previous = Previous::read(&request.config)?;
    if kind != Kind::Lent && previous.has_interface(&sandbox.ifname, &request.netns) {
        let message = format!(
            "prevResult: an earlier plugin of the list has made {} already; twill-cni makes the interface itself, so it stands before \
             plugins that change interfaces, not after one that makes them",
            sandbox.ifname
        );
        return Err(Failure::new(Reason::UnsupportedField, message));
    }
    let generation = request.generation.as_ref().map(ToString::to_string).unwrap_or_default();
    let origin = Origin { network: network(&request.config), generation, kind };
    let mtu = mtu(&request.config)?;
    Ok(Add { sandbox, netns, namespace, pod, uid, mtu, runtime_config, origin, given, dns, previous })
}

/// Judges a DEL. Only the names matter: what was configured may be gone.
///
/// # Errors
/// A name that no ADD can have had.
pub fn del(request: &CniRequest) -> Result<Del, Failure> {
    let (sandbox, generation) = (sandbox(request)?, request.generation.clone());
    Ok(Del { sandbox, network: network(&request.config), generation })
}

/// Judges a CHECK.
///
/// # Errors
/// As [`add`]; `prevResult` must be there.
pub fn check(request: &CniRequest) -> Result<Check, Failure> {
    let sandbox = sandbox(request)?;
    let netns = netns(request)?;
    let arguments = arguments(&request.args)?;
    if request.config.get("prevResult").is_none_or(Value::is_null) {
        let message = "prevResult: is missing; CHECK compares with the result of the ADD, which the runtime keeps";
        return Err(Failure::new(Reason::InvalidConfig, message));
    }
    Ok(Check {
        sandbox,
        netns,
        network: network(&request.config),
        uid: arguments.get("K8S_POD_UID").cloned().unwrap_or_default(),
        runtime_config: runtime_config(&request.config, &arguments)?,
        previous: Previous::read(&request.config)?,
        delegated: request.delegated,
    })
}

/// Judges a GC.
///
/// # Errors
/// The network has no name, or what is in use is not a list of attachments.
pub fn gc(request: &CniRequest) -> Result<Gc, Failure> {
    let network = network(&request.config);
    if network.is_empty() {
        return Err(Failure::new(Reason::InvalidConfig, "name: is missing; GC is about one network"));
    }
    let mut valid: Option<BTreeSet<Sandbox>> = None;
    for key in VALID {
        let Some(list) = request.config.get(key).filter(|list| !list.is_null()) else { continue };
        let read: Option<BTreeSet<Sandbox>> = list.as_array().and_then(|all| all.iter().map(attachment).collect());
        let read = read.ok_or_else(|| {
            let message = format!("{key}: is not a list of objects with containerID and ifname");
            Failure::new(Reason::InvalidConfig, message)
        })?;
        // Where the two differ, what either has is in use.
        valid.get_or_insert_default().extend(read);
    }
    Ok(Gc { network, valid, generation: request.generation.clone(), delegated: request.delegated })
}

fn attachment(value: &Value) -> Option<Sandbox> {
    let text = |key: &str| value.get(key)?.as_str().map(str::to_owned);
    Some(Sandbox { container_id: text("containerID")?, ifname: text("ifname")? })
}

fn network(config: &Value) -> String {
    config.get("name").and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn netns(request: &CniRequest) -> Result<PathBuf, Failure> {
    if request.netns.starts_with('/') {
        return Ok(PathBuf::from(&request.netns));
    }
    let message = format!("CNI_NETNS: {:?} is not an absolute path of a network namespace", request.netns);
    Err(Failure::new(Reason::InvalidEnvironment, message))
}

fn sandbox(request: &CniRequest) -> Result<Sandbox, Failure> {
    let wrong = |message| Err(Failure::new(Reason::InvalidEnvironment, message));
    let (id, ifname) = (&request.container_id, &request.ifname);
    let id_fits = id.starts_with(|c: char| c.is_ascii_alphanumeric())
        && id.len() <= 200
        && id.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
    if !id_fits {
        return wrong(format!(
            "CNI_CONTAINERID: {id:?} is no container ID; it takes letters, digits, '_', '.', '-', and begins with a letter \
             or digit"
        ));
    }
    let ifname_fits = !ifname.is_empty()
        && ifname.len() <= 15
        && ifname != "."
        && ifname != ".."
        // The kernel's settings take these two for all interfaces.
        && ifname != "all"
        && ifname != "default"
        && !ifname.contains(|c: char| matches!(c, '/' | ':' | '%') || c.is_whitespace() || c.is_control());
    if !ifname_fits {
        return wrong(format!(
            "CNI_IFNAME: {ifname:?} is no interface name; it takes 1 to 15 bytes without '/', ':', '%' and \
             blanks, and is neither \"all\" nor \"default\""
        ));
    }
    Ok(Sandbox { container_id: id.clone(), ifname: ifname.clone() })
}

fn arguments(text: &str) -> Result<BTreeMap<&str, String>, Failure> {
    let mut found = BTreeMap::new();
    for pair in text.split(';').filter(|pair| !pair.is_empty()) {
        let Some((key, value)) = pair.split_once('=') else {
            let message = format!("CNI_ARGS: {pair:?} is not of the form KEY=VALUE");
            return Err(Failure::new(Reason::InvalidEnvironment, message));
        };
        found.insert(key, value.to_owned());
    }
    Ok(found)
}

/// The address plugin of somebody else that an interface of ours has its addresses from, if it does.
#[must_use]
pub fn foreign_ipam(request: &CniRequest) -> Option<&str> {
    let asked = request.config.pointer("/ipam/type").and_then(Value::as_str).unwrap_or_default();
    Some(asked).filter(|asked| !request.delegated && !asked.is_empty() && *asked != CNI_IPAM_PLUGIN)
}

/// What another's address plugin gave: addresses, one of each family at most, and its `dns`.
fn given(request: &CniRequest) -> Result<(Vec<IpAddr>, Value), Failure> {
    let wrong = |what: String| Err(Failure::new(Reason::InvalidConfig, format!("ipam: the plugin's result {what}")));
    let Some(asked) = foreign_ipam(request) else { return Ok((Vec::new(), Value::Null)) };
    let result = &request.ipam_result;
    let mut found: Vec<IpAddr> = Vec::new();
    for ip in result["ips"].as_array().into_iter().flatten() {
        let text = ip["address"].as_str().unwrap_or_default();
        let Ok(address) = text.split('/').next().unwrap_or_default().parse::<IpAddr>() else {
            return wrong(format!("has {ip} among its ips, which has no address"));
        };
        if found.iter().any(|other| other.is_ipv4() == address.is_ipv4()) {
            return wrong(format!("has {text} as a second address of its family; a pod has one of each"));
        }
        found.push(address);
    }
    if found.is_empty() {
        return wrong(format!("has no address; {asked} must give one"));
    }
    found.sort_unstable();
    Ok((found, result["dns"].clone()))
}

fn mtu(config: &Value) -> Result<Option<u32>, Failure> {
    match config.get("mtu") {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_u64().filter(|mtu| MTUS.contains(mtu)).and_then(|mtu| u32::try_from(mtu).ok()) {
            Some(mtu) => Ok(Some(mtu)),
            None => {
                let message = format!("mtu: {value} is not a number from {} to {}", MTUS.start(), MTUS.end());
                Err(Failure::new(Reason::InvalidConfig, message))
            }
        },
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn request() -> CniRequest {
        CniRequest {
            command: "ADD".into(),
            container_id: "c1".into(),
            netns: "/run/netns/a".into(),
            ifname: "eth0".into(),
            args:
                "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart;K8S_POD_UID=u-1;K8S_POD_INFRA_CONTAINER_ID=c1"
                    .into(),
            config: json!({"cniVersion": "1.1.0", "name": "twill", "type": "twill-cni"}),
            delegated: false,
            generation: None,
            ipam_result: Value::Null,
            acknowledges: false,
        }
    }

    fn made(interface: &str) -> Value {
        json!({"interfaces": [{"name": interface, "sandbox": "/run/netns/a"}], "ips": []})
    }

    #[test]
    fn what_another_plugin_gave_is_read() {
        let mut request = request();
        request.config["ipam"] = json!({"type": "host-local"});
        request.ipam_result =
            json!({"ips": [{"address": "fd00::5/64"}, {"address": "10.9.0.5/24"}], "dns": {"domain": "x"}});
        request.config["prevResult"] = made("dummy0");
        let add = add(&request).unwrap();
        assert_eq!(add.given, ["10.9.0.5", "fd00::5"].map(|text| text.parse::<IpAddr>().unwrap()));
        assert_eq!((add.origin.kind, add.dns), (Kind::Foreign, json!({"domain": "x"})));
        request.ipam_result = json!({"ips": [{"address": "10.9.0.5/24"}, {"address": "10.9.0.6/24"}]});
        assert!(super::add(&request).unwrap_err().message.contains("10.9.0.6/24 as a second"));
        request.config["ipam"] = json!({"type": "twill-ipam"});
        assert_eq!(super::add(&request).unwrap().origin.kind, Kind::Workload);
    }

    #[test]
    fn an_address_for_another_s_interface_needs_no_pod() {
        let request = CniRequest { delegated: true, args: String::new(), ..request() };
        let add = add(&request).unwrap();
        assert_eq!((add.origin.kind, add.pod.as_str()), (Kind::Lent, ""));
    }

    #[test]
    fn what_is_in_use_is_read_from_either_key_and_its_absence_is_not_its_emptiness() {
        let gc_of = |pairs: &[(&str, Value)]| {
            let mut request = request();
            pairs.iter().for_each(|(key, value)| request.config[*key] = value.clone());
            gc(&request)
        };
        let list = |ids: &[&str]| ids.iter().map(|id| json!({"containerID": id, "ifname": "eth0"})).collect::<Value>();
        let count = |pairs: &[(&str, Value)]| gc_of(pairs).unwrap().valid.map(|valid| valid.len());
        assert_eq!(count(&[]), None);
        assert_eq!(count(&[(VALID[0], Value::Null), (VALID[1], Value::Null)]), None);
        assert_eq!(count(&[(VALID[0], json!([]))]), Some(0));
        assert_eq!(count(&[(VALID[1], list(&["a"]))]), Some(1));
        assert_eq!(count(&[(VALID[0], list(&["a", "b"])), (VALID[1], list(&["b", "c"]))]), Some(3));
        for wrong in [json!({}), json!("a"), json!(["a"]), json!([{"containerID": "a"}])] {
            assert_eq!(gc_of(&[(VALID[0], wrong)]).unwrap_err().reason, Reason::InvalidConfig);
        }
        assert_eq!(gc_of(&[("name", json!(""))]).unwrap_err().reason, Reason::InvalidConfig);
    }

    #[test]
    fn check_needs_the_result_of_the_add() {
        let mut request = request();
        assert!(check(&request).unwrap_err().message.starts_with("prevResult: is missing"));
        request.config["prevResult"] = json!({"ips": [{"address": "10.42.0.5/32"}]});
        assert_eq!(check(&request).unwrap().previous.addresses().count(), 1);
    }

    #[test]
    fn a_good_call_is_understood() {
        let add = add(&request()).unwrap();
        assert_eq!((add.namespace.as_str(), add.pod.as_str(), add.uid.as_str()), ("shop", "cart", "u-1"));
        assert_eq!(add.mtu, None);
    }

    #[test]
    fn each_bad_field_is_named_with_the_code_of_its_kind() {
        type Break = fn(&mut CniRequest);
        let cases: [(Break, Reason, &str); 18] = [
            (|r| r.container_id = "../x".into(), Reason::InvalidEnvironment, "CNI_CONTAINERID"),
            (|r| r.container_id = String::new(), Reason::InvalidEnvironment, "CNI_CONTAINERID"),
            (|r| r.ifname = "a/b".into(), Reason::InvalidEnvironment, "CNI_IFNAME"),
            (|r| r.ifname = "..".into(), Reason::InvalidEnvironment, "CNI_IFNAME"),
            (|r| r.ifname = "sixteen-byte-nam".into(), Reason::InvalidEnvironment, "CNI_IFNAME"),
            (|r| r.ifname = "all".into(), Reason::InvalidEnvironment, "CNI_IFNAME"),
            (|r| r.ifname = "eth%d".into(), Reason::InvalidEnvironment, "CNI_IFNAME"),
            (|r| r.netns = "netns/a".into(), Reason::InvalidEnvironment, "CNI_NETNS"),
            (|r| r.args = "K8S_POD_NAME".into(), Reason::InvalidEnvironment, "CNI_ARGS"),
            (|r| r.args = "K8S_POD_NAMESPACE=a;K8S_POD_NAME=b".into(), Reason::InvalidEnvironment, "K8S_POD_UID"),
            (|r| r.args = r.args.replace("u-1", "u/1"), Reason::InvalidEnvironment, "K8S_POD_UID"),
            (|r| r.args = r.args.replace("u-1", &"u".repeat(250)), Reason::InvalidEnvironment, "K8S_POD_UID"),
            (|r| r.config["mtu"] = json!("big"), Reason::InvalidConfig, "mtu"),
            (|r| r.config["mtu"] = json!(68), Reason::InvalidConfig, "mtu"),
            (|r| r.config["ipam"] = json!({"type": "host-local"}), Reason::InvalidConfig, "host-local must give one"),
            (|r| r.config["prevResult"] = made("eth0"), Reason::UnsupportedField, "prevResult"),
            (|r| r.config["prevResult"] = json!([]), Reason::InvalidConfig, "prevResult"),
            (|r| r.config["runtimeConfig"] = json!({"deviceID": "x"}), Reason::UnsupportedField, "deviceID"),
        ];
        for (break_it, reason, field) in cases {
            let mut request = request();
            break_it(&mut request);
            let failure = add(&request).unwrap_err();
            assert_eq!(failure.reason, reason, "{failure}");
            assert!(failure.message.contains(field), "{failure}");
        }
    }

    #[test]
    fn del_needs_nothing_but_names() {
        let request = CniRequest { netns: String::new(), args: "rubbish".into(), config: json!({}), ..request() };
        assert_eq!(del(&request).unwrap().sandbox.container_id, "c1");
    }
}
