//! The file format of assertions: in flow a document, and the pods and nodes that there are; out flow connections and what is expected of them.

use crate::commands::explain::crossing;
use crate::commands::policy::declared;
use crate::destination::{NodePort, port_of};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use twill_crds::manifest::{Document, ManifestError};
use twill_crds::{Node, Object, Pod, names};
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
    from: Vec<Party>,
    /// With the ports that are asked about.
    to: Vec<(Party, Vec<(u16, Protocol)>)>,
    way: Crossing,
    /// Whether both ends are named: a selector does not mean that a pod or a node is to reach itself, which it always does.
    both_named: bool,
}

impl Case {
    /// Where it stands, and what it is called.
    pub(super) fn place(&self) -> String {
        let name = self.name.as_ref().map(|name| format!(": {name}")).unwrap_or_default();
        format!("{}:{}{name}", self.file, self.line)
    }

    /// Each connection, at least one. They are made one by one: of two selectors there are as many as pairs.
    pub(super) fn assertions(&self) -> impl Iterator<Item = Assertion> {
        let counts = |src: &Party, dst: &Party| src != dst || self.both_named;
        let pairs = self.from.iter().flat_map(|src| self.to.iter().map(move |to| (src, to)));
        pairs.filter(move |(src, (dst, _))| counts(src, dst)).flat_map(move |(src, (dst, ports))| {
            let assertion = move |port: &(u16, Protocol)| {
                let (from, to, port, way) = (src.clone(), dst.clone(), *port, self.way.clone());
                Assertion { from, to, port, way }
            };
            ports.iter().map(assertion)
        })
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

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

/// `NAMESPACE/POD`, a node's name, an address, or pods or nodes by labels.
#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "must be NAMESPACE/POD, a node's name, an address, {namespace: NAME, labels: {KEY: VALUE}} or {nodeLabels: {KEY: VALUE}}"
)]
enum Ends {
    /// YAML takes the name of a node that is all digits for a number.
    One(Word),
    Pods(Selected),
    Nodes(SelectedNodes),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Selected {
    namespace: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SelectedNodes {
    node_labels: BTreeMap<String, String>,
}

/// Whom cases may be about.
pub(super) struct Known<'a> {
    pods: BTreeMap<PodKey, &'a Pod>,
    /// Those of them that own addresses still.
    running: Vec<(PodKey, &'a Pod)>,
    nodes: BTreeMap<&'a str, &'a Node>,
}

impl<'a> Known<'a> {
    pub(super) fn of(pods: &'a [Pod], nodes: &'a [Node]) -> Self {
        let all = || pods.iter().map(|pod| (keyed(pod), pod));
        let running = all().filter(|(_, pod)| !twill_felix::model::Pod::read(pod).completed).collect();
        Self { pods: all().collect(), running, nodes: nodes.iter().map(|node| (node.name(), node)).collect() }
    }
}

/// All cases of a document.
///
/// # Errors
/// The first thing that is wrong, with file and line.
pub(super) fn read(document: &Document, known: &Known<'_>) -> Result<Vec<Case>, ManifestError> {
    let written: Written = document.decode()?;
    let version = format!("{}/{}", names::GROUP, names::VERSION);
    if written.api_version != version {
        return Err(document.refused("apiVersion", format!("apiVersion: is {}; use {version}", written.api_version)));
    }
    if written.cases.is_empty() {
        return Err(document.refused("cases", "cases: is empty; a test without cases tests nothing".to_owned()));
    }
    written.cases.iter().enumerate().map(|(i, case)| read_case(document, &format!("cases[{i}]"), case, known)).collect()
}

fn read_case(document: &Document, at: &str, case: &WrittenCase, known: &Known<'_>) -> Result<Case, ManifestError> {
    let refused =
        |field: &str, problem: String| document.refused(&format!("{at}.{field}"), format!("{at}.{field}: {problem}"));
    let (from, to) = (
        ends(&case.from, known).map_err(|problem| refused("from", problem))?,
        ends(&case.to, known).map_err(|problem| refused("to", problem))?,
    );
    let ports = ports(case).map_err(|(field, problem)| refused(field, problem))?;
    let through = case.through.as_deref().map(str::parse::<NodePort>).transpose();
    let through = through.map_err(|problem| refused("through", problem))?;
    let way = crossing(case.interface.as_ref(), through.as_ref());
    let both_named = matches!((&case.from, &case.to), (Ends::One(_), Ends::One(_)));
    let mut to_ports = Vec::new();
    for dst in to.into_iter().filter(|dst| both_named || from.iter().any(|src| src != dst)) {
        let declared = || declared_by(&dst, known).map_err(|problem| refused("to", problem));
        let ports = if ports.is_empty() { declared()? } else { ports.clone() };
        to_ports.push((dst, ports));
    }
    if to_ports.is_empty() {
        return Err(refused("to", "the only one selected is the sender itself; select another".to_owned()));
    }
    let (file, line) = (document.file().to_owned(), document.line_of(at));
    Ok(Case { name: case.name.clone(), file, line, expect: case.expect, from, to: to_ports, way, both_named })
}

/// The ends that are meant, at least one.
fn ends(written: &Ends, known: &Known<'_>) -> Result<Vec<Party>, String> {
    match written {
        Ends::One(word) => {
            let party: Party = word.to_string().parse()?;
            match &party {
                Party::Pod(key) if !known.pods.contains_key(key) => Err(format!("there is no pod {key}")),
                Party::Node(name) if !known.nodes.contains_key(name.as_str()) => {
                    Err(format!("there is no node {name}; a pod is written NAMESPACE/POD"))
                }
                _ => Ok(vec![party]),
            }
        }
        Ends::Pods(selected) => pods(selected, known),
        Ends::Nodes(SelectedNodes { node_labels }) => nodes(node_labels, known),
    }
}

fn keyed(pod: &Pod) -> PodKey {
    PodKey { namespace: pod.namespace().to_owned(), name: pod.name().to_owned() }
}

fn pods(Selected { namespace, labels }: &Selected, known: &Known<'_>) -> Result<Vec<Party>, String> {
    let selected = known.running.iter().filter(|(key, pod)| {
        let here = namespace.as_ref().is_none_or(|namespace| *namespace == key.namespace);
        here && has(*pod, labels)
    });
    let found: Vec<Party> = selected.map(|(key, _)| Party::Pod(key.clone())).collect();
    if found.is_empty() {
        let place = namespace.as_ref().map(|name| format!(" in namespace {name}")).unwrap_or_default();
        return Err(format!("no running pod{place}{} is there; a case about nobody tests nothing", with(labels)));
    }
    Ok(found)
}

fn nodes(labels: &BTreeMap<String, String>, known: &Known<'_>) -> Result<Vec<Party>, String> {
    let selected = known.nodes.values().filter(|node| has(**node, labels));
    let found: Vec<Party> = selected.map(|node| Party::Node(node.name().to_owned())).collect();
    if found.is_empty() {
        return Err(format!("no node{} is there; a case about nobody tests nothing", with(labels)));
    }
    Ok(found)
}

fn has<K: Object>(object: &K, labels: &BTreeMap<String, String>) -> bool {
    let own = object.meta().labels.as_ref();
    labels.iter().all(|(key, value)| own.and_then(|own| own.get(key)) == Some(value))
}

/// Labels as the rest of a sentence.
fn with(labels: &BTreeMap<String, String>) -> String {
    let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    if labels.is_empty() { String::new() } else { format!(" with {}", labels.join(",")) }
}

/// The ports that are written; none: those that the receivers declare.
fn ports(case: &WrittenCase) -> Result<Vec<(u16, Protocol)>, (&'static str, String)> {
    let read = |field: &'static str, word: &Word| {
        let text = word.to_string();
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

fn declared_by(dst: &Party, known: &Known<'_>) -> Result<Vec<(u16, Protocol)>, String> {
    let Party::Pod(key) = dst else { return Err(format!("{dst} declares no ports; write port or ports")) };
    let ports: Vec<_> = known.pods.get(key).map(|pod| declared(pod)).into_iter().flatten().collect();
    if ports.is_empty() { Err(format!("{dst} declares no ports; write port or ports")) } else { Ok(ports) }
}
