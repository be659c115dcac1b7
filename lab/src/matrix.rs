//! The matrix of who reaches whom: in flow what was expected and what came back, out flow cells, text and differences.

use crate::io::prober::Outcome;
use crate::ports::{Port, Protocol};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

/// One question: from a pod to a port of a pod, at one of its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// `NAMESPACE/NAME` of the source.
    pub from: String,
    /// `NAMESPACE/NAME` of the target.
    pub to: String,
    /// Address of the target.
    pub ip: IpAddr,
    /// Its port.
    pub port: Port,
}

/// What the policy evaluator says of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// Whether it should be reached.
    pub allowed: bool,
    /// Why.
    pub reason: String,
}

/// Reached or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// An answer, a refusal, or ICMP port-unreachable.
    Reached,
    /// Silence.
    Denied,
    /// A router says that there is no way: neither policy nor success.
    Unreachable,
    /// This kernel has no sockets of the protocol: nothing was tried.
    Unsupported,
}

/// One cell of the matrix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cell {
    /// `NAMESPACE/NAME` of the source.
    pub from: String,
    /// `NAMESPACE/NAME` of the target.
    pub to: String,
    /// Address of the target.
    pub ip: IpAddr,
    /// Port of the target.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
    /// What policy says.
    pub expected: Verdict,
    /// What came back.
    pub observed: Verdict,
    /// Whether the two differ, or the wrong pod answered.
    pub differs: bool,
    /// Why policy says so.
    pub reason: String,
    /// What came back, in words.
    pub detail: String,
}

/// The cell of a question. `checked` says whether an answer must be the target's own: in a node's network others may answer too.
#[must_use]
pub fn cell(question: &Question, expectation: &Expectation, outcome: &Outcome, checked: bool) -> Cell {
    let (observed, detail) = match outcome {
        Outcome::Answered(Some(line)) => (Verdict::Reached, format!("answered by {line}")),
        Outcome::Answered(None) => (Verdict::Reached, "connected".to_owned()),
        Outcome::Refused => (Verdict::Reached, "refused by the target".to_owned()),
        Outcome::Silence => (Verdict::Denied, "silence".to_owned()),
        Outcome::Unreachable(why) => (Verdict::Unreachable, why.clone()),
        Outcome::Unsupported => (Verdict::Unsupported, "this kernel has no such sockets".to_owned()),
    };
    let expected = if expectation.allowed { Verdict::Reached } else { Verdict::Denied };
    let stranger = matches!(outcome, Outcome::Answered(Some(line)) if checked && *line != question.to);
    Cell {
        from: question.from.clone(),
        to: question.to.clone(),
        ip: question.ip,
        port: question.port.port,
        protocol: question.port.protocol,
        expected,
        observed,
        differs: stranger || (observed != expected && observed != Verdict::Unsupported),
        reason: expectation.reason.clone(),
        detail,
    }
}

/// The matrix as text: targets numbered, then one line per source, expected beside observed, differences last.
#[must_use]
pub fn render(cells: &[Cell]) -> String {
    let mut targets: Vec<(String, IpAddr)> = Vec::new();
    let mut rows: BTreeMap<&str, BTreeMap<usize, &Cell>> = BTreeMap::new();
    for cell in cells {
        let target = (format!("{} {}/{}", cell.to, cell.port, cell.protocol), cell.ip);
        let column = targets.iter().position(|t| *t == target).unwrap_or_else(|| {
            targets.push(target);
            targets.len() - 1
        });
        rows.entry(&cell.from).or_default().insert(column, cell);
    }
    let mut text = String::from("targets\n");
    for (i, (name, ip)) in targets.iter().enumerate() {
        let _ = writeln!(text, "  {:>3}  {name}  {ip}", i + 1);
    }
    let width = rows.keys().map(|name| name.len()).max().unwrap_or_default().max(4);
    let columns = targets.len().max("expected".len());
    let _ = writeln!(text, "\n+ reached   . denied   ! unreachable   ? not tried   x differs");
    let digit = |n: usize| char::from_digit(u32::try_from(n % 10).unwrap_or_default(), 10).unwrap_or(' ');
    let tens = (1..=targets.len()).map(|i| if i.is_multiple_of(10) { digit(i / 10) } else { ' ' }).collect::<String>();
    let ones = (1..=targets.len()).map(digit).collect::<String>();
    let _ = writeln!(text, "{:width$}  {tens:columns$}  {tens:columns$}", "");
    let _ = writeln!(text, "{:width$}  {ones:columns$}  {ones:columns$}", "from");
    let _ = writeln!(text, "{:width$}  {:columns$}  {:columns$}", "", "expected", "observed");
    for (from, row) in &rows {
        let line = |of: fn(&Cell) -> char| {
            (0..targets.len()).map(|i| row.get(&i).map_or(' ', |cell| of(cell))).collect::<String>()
        };
        let (expected, observed) =
            (line(|c| sign(c.expected)), line(|c| if c.differs { 'x' } else { sign(c.observed) }));
        let _ = writeln!(text, "{from:width$}  {expected:columns$}  {observed:columns$}");
    }
    let _ = write!(text, "\n{}", summary(cells));
    text
}

fn sign(verdict: Verdict) -> char {
    match verdict {
        Verdict::Reached => '+',
        Verdict::Denied => '.',
        Verdict::Unreachable => '!',
        Verdict::Unsupported => '?',
    }
}

fn summary(cells: &[Cell]) -> String {
    let different = cells.iter().filter(|c| c.differs).collect::<Vec<_>>();
    let count = |verdict: Verdict| cells.iter().filter(|c| c.observed == verdict).count();
    let unreachable = match count(Verdict::Unreachable) {
        0 => String::new(),
        some => format!("{some} unreachable, "),
    };
    let mut text = format!(
        "{} tried: {} reached, {} denied, {unreachable}{} differ from what policy says",
        cells.len() - count(Verdict::Unsupported),
        count(Verdict::Reached),
        count(Verdict::Denied),
        different.len()
    );
    if count(Verdict::Unsupported) > 0 {
        let _ = write!(text, "; {} not tried: this kernel has no such sockets", count(Verdict::Unsupported));
    }
    for cell in different {
        let _ = write!(
            text,
            "\ndiffers: {} -> {} {}/{} ({}): expected {}, got {}\n{}",
            cell.from,
            cell.to,
            cell.port,
            cell.protocol,
            cell.ip,
            word(cell.expected),
            cell.detail,
            cell.reason
        );
    }
    text
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Reached => "reached",
        Verdict::Denied => "denied",
        Verdict::Unreachable => "unreachable",
        Verdict::Unsupported => "not tried",
    }
}

/// Whether a pod is meant by one of the patterns: `NAMESPACE/POD` or `POD`, with `*` for anything. No pattern means all.
#[must_use]
pub fn selected(patterns: &[String], namespace: &str, name: &str) -> bool {
    patterns.is_empty()
        || patterns.iter().any(|pattern| match pattern.split_once('/') {
            Some((ns, pod)) => glob(ns, namespace) && glob(pod, name),
            None => glob(pattern, name),
        })
}

fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => text
            .strip_prefix(before)
            .is_some_and(|rest| (0..=rest.len()).any(|i| rest.get(i..).is_some_and(|tail| glob(after, tail)))),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn question(from: &str, to: &str) -> Question {
        Question {
            from: from.to_owned(),
            to: to.to_owned(),
            ip: [10, 42, 0, 9].into(),
            port: "80/TCP".parse().unwrap(),
        }
    }

    fn judged(allowed: bool, outcome: Outcome) -> Cell {
        let expectation = Expectation { allowed, reason: "because".to_owned() };
        cell(&question("d/a", "d/b"), &expectation, &outcome, true)
    }

    #[test]
    fn answers_and_refusals_mean_reached_and_silence_means_denied() {
        let answered = || Outcome::Answered(Some("d/b".to_owned()));
        assert!(!judged(true, answered()).differs && !judged(true, Outcome::Refused).differs);
        assert!(!judged(false, Outcome::Silence).differs);
        assert!(judged(false, answered()).differs && judged(false, Outcome::Refused).differs);
        assert!(judged(true, Outcome::Silence).differs);
    }

    #[test]
    fn a_broken_route_is_neither_reached_nor_denied() {
        let broken = || Outcome::Unreachable("no route to host".to_owned());
        assert!(judged(true, broken()).differs && judged(false, broken()).differs);
    }

    #[test]
    fn the_wrong_pods_answer_differs() {
        let cell = judged(true, Outcome::Answered(Some("d/other".to_owned())));
        assert!(cell.differs && cell.detail == "answered by d/other");
    }

    #[test]
    fn a_protocol_that_the_kernel_lacks_is_said_and_no_difference() {
        let cell = judged(true, Outcome::Unsupported);
        assert!(!cell.differs);
        assert!(render(&[cell]).contains("0 tried: 0 reached, 0 denied, 0 differ from what policy says; 1 not tried"));
    }

    #[test]
    fn the_text_shows_expected_beside_observed() {
        let cells = [judged(true, Outcome::Refused), judged(true, Outcome::Silence)];
        let mut cells = cells.to_vec();
        cells[1].to = "d/c".to_owned();
        let text = render(&cells);
        assert!(text.contains("d/a   ++        +x"), "{text}");
        assert!(text.contains("differs: d/a -> d/c 80/TCP (10.42.0.9): expected reached, got silence"), "{text}");
    }

    #[test]
    fn patterns_name_pods() {
        let is = |pattern: &str| selected(&[pattern.to_owned()], "shop", "cart-0");
        assert!(
            is("shop/cart-0")
                && is("cart-0")
                && is("cart-*")
                && is("shop/*")
                && is("*/c*t-?".replace('?', "0").as_str())
        );
        assert!(!is("cart") && !is("bank/*") && !is("*-1"));
        assert!(selected(&[], "shop", "cart-0"));
    }
}
