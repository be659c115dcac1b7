//! `twill policy test`: assertions about who reaches whom, held against the evaluator that enforcement is held to.

mod cases;

use super::{Cluster, Putting, told};
use crate::args::PolicyTest;
use crate::commands::{counted, exit, explain};
use crate::io::{manifests, with_store};
use crate::output::{Format, print_line, print_value};
use anyhow::{Context, ensure};
use cases::{Assertion, Expectation};
use serde_json::{Value, json};
use std::process::ExitCode;
use twill_felix::evaluate::{Explanation, Judgement, Note, Universe};

/// Kind of the documents that hold assertions.
const KIND: &str = "PolicyTest";

pub(crate) fn run(args: &PolicyTest) -> anyhow::Result<ExitCode> {
    let (manifests, tests) = manifests::read_with(&args.file, KIND)?;
    ensure!(!tests.is_empty(), "the files hold no {KIND}; write one with apiVersion: twill.network/v1 and cases");
    let mut cluster = match &args.datastore {
        Some(url) => with_store(url, async |store| Cluster::of(&store).await)?,
        None => Cluster::default(),
    };
    let mut putting = Putting::into(&mut cluster);
    for manifest in &manifests {
        putting.put(manifest)?;
    }
    cluster.complete()?;
    let states = told::of_files(&args.told, &cluster.nodes)?;
    let universe = told::needing(cluster.universe(), &states);
    let mut outcomes = Vec::new();
    let known = cases::Known::of(&cluster.pods, &cluster.nodes);
    for test in &tests {
        for case in cases::read(test, &known)? {
            outcomes.push(held(&universe, case)?);
        }
    }
    universe.problems().for_each(|problem| eprintln!("warning: {problem}"));
    match args.output.output {
        Format::Table => table(&outcomes)?,
        format => print_value(format, &value(&outcomes))?,
    }
    Ok(exit(outcomes.iter().all(|outcome| outcome.failed.is_empty())))
}

/// How a case went.
struct Outcome {
    case: cases::Case,
    /// How many assertions it is.
    asserted: usize,
    /// Stories of the connections that are not as expected.
    failed: Vec<Explanation>,
    /// Assertions that may depend on what a node needs that was not asked.
    assumed: usize,
}

/// A case, assertion by assertion: of those that hold nothing is kept.
fn held(universe: &Universe, case: cases::Case) -> anyhow::Result<Outcome> {
    let (mut asserted, mut assumed, mut failed) = (0, 0, Vec::new());
    for assertion in case.assertions() {
        let stories = ask(universe, &assertion).with_context(|| case.place())?;
        asserted += 1;
        assumed += usize::from(stories.iter().any(is_assumed));
        failed.extend(first_that_fails(stories, case.expect));
    }
    Ok(Outcome { case, asserted, failed, assumed })
}

/// One story for each receiver that the connection may be led to.
fn ask(universe: &Universe, assertion: &Assertion) -> anyhow::Result<Vec<Explanation>> {
    let (port, protocol) = assertion.port;
    Ok(universe.explain_each(&assertion.from, &assertion.to, port, protocol, &assertion.way)?)
}

fn is_assumed(story: &Explanation) -> bool {
    story.notes.iter().any(|note| matches!(note, Note::Assumed { .. }))
}

/// What is asserted of a Service is so of each of its receivers; one of them that is otherwise is enough to tell.
fn first_that_fails(stories: Vec<Explanation>, expect: Expectation) -> Option<Explanation> {
    stories.into_iter().find(|story| !holds(story, expect))
}

/// A connection that cannot be is neither allowed nor denied by policy, and of one that depends on an interface nothing can be said before
/// it is named: whoever asserts something of these is mistaken.
fn holds(story: &Explanation, expect: Expectation) -> bool {
    let impossible = story.steps().any(|step| matches!(step, Judgement::Impossible(_)));
    !impossible && !story.depends() && story.allowed == (expect == Expectation::Allow)
}

fn table(outcomes: &[Outcome]) -> anyhow::Result<()> {
    for Outcome { case, failed, .. } in outcomes {
        for story in failed {
            print_line(&format!("FAILED {}: expected {:?}\n{story}", case.place(), case.expect))?;
        }
    }
    let (all, failed) = totals(outcomes);
    let assumed = assumed(outcomes);
    if assumed > 0 {
        print_line(&format!(
            "{} may depend on what nodes need, which only they know: taken for what nodes usually need; --host-state FILE tells what one said",
            counted(assumed, "assertion")
        ))?;
    }
    let cases = counted(outcomes.len(), "case");
    print_line(&match failed {
        0 => format!("{} of {cases}: all hold", counted(all, "assertion")),
        _ => format!("{} of {cases}: {failed} failed", counted(all, "assertion")),
    })
}

fn totals(outcomes: &[Outcome]) -> (usize, usize) {
    let all = outcomes.iter().map(|outcome| outcome.asserted).sum();
    (all, outcomes.iter().map(|outcome| outcome.failed.len()).sum())
}

fn assumed(outcomes: &[Outcome]) -> usize {
    outcomes.iter().map(|outcome| outcome.assumed).sum()
}

fn value(outcomes: &[Outcome]) -> Value {
    let (all, failed) = totals(outcomes);
    let cases = outcomes.iter().map(|Outcome { case, asserted, failed, assumed }| {
        json!({
            "file": case.file,
            "line": case.line,
            "name": case.name,
            "expect": case.expect,
            "assertions": asserted,
            "assumed": assumed,
            "failed": failed.iter().map(explain::value).collect::<Vec<_>>(),
        })
    });
    json!({"cases": cases.collect::<Vec<_>>(), "assertions": all, "failed": failed, "assumed": assumed(outcomes)})
}
