//! A call as the runtime made it becomes one whose every field makes sense, or a failure. Nothing is touched before.

use super::{Failure, Reason, RuntimeConfig, runtime_config};
use crate::workload::alias;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use twill_crds::cni::CniRequest;
use twill_ipam::Sandbox;
use twill_ipam::io::identity::LENGTH;

/// Smallest and largest MTU that can be asked for.
const MTUS: std::ops::RangeInclusive<u64> = 1280..=65535;

/// Longest alias of an interface.
const ALIAS: usize = 255;

/// A valid ADD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Add {
    /// Container and interface.
    pub sandbox: Sandbox,
    /// The pod's network namespace.
    pub netns: PathBuf,
    /// K8S_POD_NAMESPACE.
    pub namespace: String,
    /// K8S_POD_NAME.
    pub pod: String,
    /// K8S_POD_UID.
    pub uid: String,
    /// `mtu` of the configuration.
    pub mtu: Option<u32>,
    /// What the runtime asks for this attachment.
    pub runtime_config: RuntimeConfig,
}

/// A valid DEL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Del {
    /// Container and interface.
    pub sandbox: Sandbox,
}

/// Judges an ADD.
///
/// # Errors
/// The first field that makes no sense.
pub fn add(request: &CniRequest) -> Result<Add, Failure> {
    let sandbox = sandbox(request)?;
    if !request.netns.starts_with('/') {
        let message = format!("CNI_NETNS: {:?} is not an absolute path of a network namespace", request.netns);
        return Err(Failure::new(Reason::InvalidEnvironment, message));
    }
    let mut arguments = arguments(&request.args)?;
    let mut argument = |name: &str| {
        arguments.remove(name).filter(|value| !value.is_empty()).ok_or_else(|| {
            let message =
                format!("CNI_ARGS: {name} is missing; Twill attaches pods only, and the runtime must name them");
            Failure::new(Reason::InvalidEnvironment, message)
        })
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
    let runtime_config = runtime_config(&request.config, &arguments)?;
    let mtu = config(&request.config)?;
    Ok(Add { sandbox, netns: PathBuf::from(&request.netns), namespace, pod, uid, mtu, runtime_config })
}

/// Judges a DEL. Only the names matter: what was configured may be gone.
///
/// # Errors
/// A name that no ADD can have had.
pub fn del(request: &CniRequest) -> Result<Del, Failure> {
    Ok(Del { sandbox: sandbox(request)? })
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

fn config(config: &Value) -> Result<Option<u32>, Failure> {
    let unsupported = |message: &str| Err(Failure::new(Reason::UnsupportedField, message));
    if config.get("prevResult").is_some_and(|result| !result.is_null()) {
        return unsupported(
            "prevResult: twill-cni makes the interface itself; it must be the first plugin of its list",
        );
    }
    if config.get("ipam").and_then(|ipam| ipam.get("type")).is_some() {
        return unsupported("ipam: twill-cni gives addresses from IPPools; remove this field");
    }
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
        }
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
        let cases: [(Break, Reason, &str); 17] = [
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
            (|r| r.config["ipam"] = json!({"type": "host-local"}), Reason::UnsupportedField, "ipam"),
            (|r| r.config["prevResult"] = json!({"ips": []}), Reason::UnsupportedField, "prevResult"),
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
