//! What the evaluator says: in flow questions with what was seen of them, out flow the stories that are otherwise.

use crate::Seen;
use crate::cluster::Stage;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;
use std::process::Command;
use twill_e2e::twill;

/// So many cases a document: what is wrong in one is looked for by line.
const OF_A_DOCUMENT: usize = 100;

/// A story that is not as was seen.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) allowed: bool,
    /// Whether the interface has to be said.
    pub(crate) depends: bool,
    story: Value,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let verdict = match (self.allowed, self.depends) {
            (true, _) => "allowed",
            (_, true) => "depends on the interface",
            _ => "denied",
        };
        let story = &self.story;
        write!(f, "  {} -> {}: {verdict}", text(&story["source"]), text(&story["destination"]))?;
        for step in ["hostPort", "nodePort", "clusterIP", "external"].into_iter().filter(|step| !story[step].is_null())
        {
            write!(f, ", {step} {}", story[step])?;
        }
        for step in ["egress", "tunnel", "through", "ingress"].into_iter().filter(|step| !story[step].is_null()) {
            write!(f, "\n    {step}: {}", text(&story[step]["reason"]))?;
        }
        story["notes"].as_array().into_iter().flatten().try_for_each(|note| write!(f, "\n    note: {}", text(note)))
    }
}

fn case(stage: &Stage, i: usize, seen: &Seen, named: bool) -> Value {
    let question = &seen.question;
    let to = question.attempt.to;
    let mut case = json!({
        "name": i.to_string(), "from": question.from, "to": to.ip().to_string(), "port": to.port(),
        "protocol": question.attempt.protocol.to_string(), "expect": if seen.arrived() { "Allow" } else { "Deny" },
    });
    if named {
        case["interface"] = stage.interface(question).into();
    }
    case
}

/// One process for all: those that are not as was seen, by their place.
pub(crate) fn ask(stage: &Stage, seen: &[Seen], which: &[usize], named: bool) -> BTreeMap<usize, Told> {
    if which.is_empty() {
        return BTreeMap::new();
    }
    let cases: Vec<Value> = which.iter().map(|i| case(stage, *i, &seen[*i], named)).collect();
    let document = |cases: &[Value]| json!({"apiVersion": "twill.network/v1", "kind": "PolicyTest", "cases": cases});
    let documents: Vec<String> = cases.chunks(OF_A_DOCUMENT).map(|cases| document(cases).to_string()).collect();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("cases.yaml");
    std::fs::write(&file, documents.join("\n---\n")).unwrap();
    let mut command = Command::new(twill().unwrap());
    command.args(["policy", "test", "-o", "json", "--datastore", &stage.datastore]).arg(&file);
    for (node, state) in &stage.states {
        let file = directory.path().join(format!("{node}.json"));
        std::fs::write(&file, state).unwrap();
        command.arg("--host-state").arg(file);
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(matches!(output.status.code(), Some(0 | 2)), "{said}");
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let cases = told["cases"].as_array().unwrap();
    assert_eq!(cases.len(), which.len(), "{said}");
    let failed = cases.iter().filter_map(|case| Some((case, case["failed"].as_array()?.first()?)));
    let of_case = |(case, story): (&Value, &Value)| {
        let depends = !story["depends"].is_null();
        let told = Told { allowed: story["allowed"] == true, depends, story: story.clone() };
        (case["name"].as_str().unwrap().parse().unwrap(), told)
    };
    failed.map(of_case).collect()
}
