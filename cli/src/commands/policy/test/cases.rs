//! The file format of assertions: in flow a document and the pods that there are, out flow connections and what is expected of them.

use crate::commands::explain::crossing;
use crate::commands::policy::declared;
use crate::destination::{NodePort, port_of};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use twill_crds::manifest::{Document, ManifestError};
use twill_crds::{Object, Pod, names};
use twill_felix::evaluate::{Crossing, Party};
use twill_felix::model::{PodKey, Protocol};

/// What is expected of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Expectation {
    /// Policy lets them be opened.
    Allow,
    /// It does not.
    Deny,
}

/// One case, spelt out.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) name: Option<String>,
    pub(super) file: String,
    pub(super) line: u64,
    pub(super) expect: Expectation,
    /// At least one.
    pub(super) assertions: Vec<Assertion>,
}

impl Case {
    /// Where it stands, and what it is called.
    pub(super) fn place(&self) -> String {
        let name = self.name.as_ref().map(|name| format!(": {name}")).unwrap_or_default();
        format!("{}:{}{name}", self.file, self.line)
    }
}

/// One connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Assertion {
    pub(super) from: Party,
    pub(super) to: Party,
    /// Port, 0 for a protocol without ports.
    pub(super) port: (u16, Protocol),
    /// What it meets on its way.
    pub(super) way: Crossing,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    #[serde(rename = "metadata")]
    _metadata: Option<serde_json::Value>,
    cases: Vec<WrittenCase>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenCase {
    name: Option<String>,
    from: Ends,
    to: Ends,
    port: Option<Word>,
    #[serde(default)]
    ports: Vec<Word>,
    protocol: Option<String>,
    /// The interface of a node.
    interface: Option<String>,
    /// `NODE:PORT`, a NodePort that it comes to.
    through: Option<String>,
    expect: Expectation,
}

/// A number, or `PORT/PROTOCOL`, or `icmp`.
#[derive(Deserialize)]
#[serde(untagged, expecting = "must be a port, PORT/PROTOCOL or a protocol without ports, e.g. 80, 53/UDP or icmp")]
enum Word {
    Number(u64),
    Text(String),
}

/// `NAMESPACE/POD`, an address, or pods by labels.
#[derive(Deserialize)]
#[serde(untagged, expecting = "must be NAMESPACE/POD, an address, or {namespace: NAME, labels: {KEY: VALUE}}")]
enum Ends {
    One(String),
    Pods(Selected),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Selected {
    namespace: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

/// All cases of a document.
///
/// # Errors
/// The first thing that is wrong, with file and line.
pub(super) fn read(document: &Document, pods: &[Pod]) -> Result<Vec<Case>, ManifestError> {
    let written: Written = document.decode()?;
    let version = format!("{}/{}", names::GROUP, names::VERSION);
    if written.api_version != version {
        return Err(document.refused("apiVersion", format!("apiVersion: is {}; use {version}", written.api_version)));
    }
    if written.cases.is_empty() {
        return Err(document.refused("cases", "cases: is empty; a test without cases tests nothing".to_owned()));
    }
    written.cases.iter().enumerate().map(|(i, case)| read_case(document, &format!("cases[{i}]"), case, pods)).collect()
}

fn read_case(document: &Document, at: &str, case: &WrittenCase, pods: &[Pod]) -> Result<Case, ManifestError> {
    let refused =
        |field: &str, problem: String| document.refused(&format!("{at}.{field}"), format!("{at}.{field}: {problem}"));
    let (from, to) = (
        ends(&case.from, pods).map_err(|problem| refused("from", problem))?,
        ends(&case.to, pods).map_err(|problem| refused("to", problem))?,
    );
    let ports = ports(case).map_err(|(field, problem)| refused(field, problem))?;
    let through = case.through.as_deref().map(str::parse::<NodePort>).transpose();
    let through = through.map_err(|problem| refused("through", problem))?;
    let way = crossing(case.interface.as_ref(), through.as_ref());
    let both_named = matches!((&case.from, &case.to), (Ends::One(_), Ends::One(_)));
    let mut assertions = Vec::new();
    for (src, dst) in from.iter().flat_map(|src| to.iter().map(move |dst| (src, dst))) {
        // A selector does not mean that a pod is to reach itself, which it always does.
        if src == dst && !both_named {
            continue;
        }
        let ports = if ports.is_empty() {
            declared_by(dst, pods).map_err(|problem| refused("to", problem))?
        } else {
            ports.clone()
        };
        assertions.extend(ports.into_iter().map(|port| Assertion {
            from: src.clone(),
            to: dst.clone(),
            port,
            way: way.clone(),
        }));
    }
    if assertions.is_empty() {
        return Err(refused("to", "the only pod selected is the sender itself; select another".to_owned()));
    }
    let (file, line) = (document.file().to_owned(), document.line_of(at));
    Ok(Case { name: case.name.clone(), file, line, expect: case.expect, assertions })
}

/// The ends that are meant, at least one.
fn ends(written: &Ends, pods: &[Pod]) -> Result<Vec<Party>, String> {
    let keyed = |pod: &Pod| PodKey { namespace: pod.namespace().to_owned(), name: pod.name().to_owned() };
    match written {
        Ends::One(text) => {
            let party: Party = text.parse()?;
            match &party {
                Party::Pod(key) if !pods.iter().any(|pod| keyed(pod) == *key) => Err(format!("there is no pod {key}")),
                _ => Ok(vec![party]),
            }
        }
        Ends::Pods(Selected { namespace, labels }) => {
            let has = |pod: &Pod, (key, value): (&String, &String)| {
                pod.metadata.labels.as_ref().and_then(|own| own.get(key)) == Some(value)
            };
            let selected = pods.iter().filter(|pod| {
                let completed = twill_felix::model::Pod::read(pod).completed;
                let here = namespace.as_ref().is_none_or(|namespace| namespace == pod.namespace());
                here && !completed && labels.iter().all(|label| has(pod, label))
            });
            let found: Vec<Party> = selected.map(|pod| Party::Pod(keyed(pod))).collect();
            if found.is_empty() {
                let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
                let place = namespace.as_ref().map(|name| format!(" in namespace {name}")).unwrap_or_default();
                let labels = if labels.is_empty() { String::new() } else { format!(" with {}", labels.join(",")) };
                return Err(format!("no running pod{place}{labels} is there; a case about nobody tests nothing"));
            }
            Ok(found)
        }
    }
}

/// The ports that are written; none: those that the receivers declare.
fn ports(case: &WrittenCase) -> Result<Vec<(u16, Protocol)>, (&'static str, String)> {
    let read = |field: &'static str, word: &Word| {
        let text = match word {
            Word::Number(number) => number.to_string(),
            Word::Text(text) => text.clone(),
        };
        let text = match &case.protocol {
            Some(protocol) if !text.contains('/') => format!("{text}/{protocol}"),
            _ => text,
        };
        port_of(&text).map_err(|problem| (field, problem))
    };
    let one = case.port.iter().map(|word| read("port", word));
    let ports: Vec<_> = one.chain(case.ports.iter().map(|word| read("ports", word))).collect::<Result<_, _>>()?;
    match (&case.protocol, ports.is_empty()) {
        (Some(protocol), true) => match port_of(protocol) {
            Ok(port) => Ok(vec![port]),
            Err(_) => Err(("protocol", format!("{protocol:?} needs a port; write port or ports beside it"))),
        },
        _ => Ok(ports),
    }
}

fn declared_by(dst: &Party, pods: &[Pod]) -> Result<Vec<(u16, Protocol)>, String> {
    let Party::Pod(key) = dst else { return Err(format!("{dst} declares no ports; write port or ports")) };
    let pod = pods.iter().find(|pod| pod.namespace() == key.namespace && pod.name() == key.name);
    let ports: Vec<_> = pod.map(declared).into_iter().flatten().collect();
    if ports.is_empty() { Err(format!("{dst} declares no ports; write port or ports")) } else { Ok(ports) }
}
