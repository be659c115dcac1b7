//! What the kernel shows of table `inet twill`, held against what was meant.
//!
//! In flow the ruleset as text, in nft's language, and what `nft -j list table` says of the kernel; out flow the objects in which they differ.
//! The text becomes a table of its own, made by `nft` in a namespace for that alone, so both sides are what `nft` reads out of a kernel, one
//! written by felix and one by `nft`. Each object is read through the `nftables` crate, but for maps to verdicts, flags of masquerade and
//! families as elements, which that does not know. Contents of expiring sets and counts are nobody's intention.

use anyhow::{Context, ensure};
use nftables::schema::NfListObject;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Stdio};

/// Longest comment that nft takes, in bytes; the kernel is given no longer ones.
const COMMENT: usize = 127;
/// The comment of a rule that stands for those that nobody here can put in words.
const UNREAD: &str = "comment \"not ours\"";

/// What differs between the kernel, as `nft -j list table inet twill` shows it, and the body of a table as text: `- ` what is missing, `+ `
/// what should not be there.
///
/// # Errors
/// One of both cannot be read.
pub fn differences(kernel: &str, meant: &str) -> anyhow::Result<Vec<String>> {
    let unread = unread(meant);
    let (there, wanted) = (objects(kernel, &unread)?, objects(&listed_by_nft(meant)?, &unread)?);
    let missing = wanted.difference(&there).map(|object| format!("- {object}"));
    Ok(missing.chain(there.difference(&wanted).map(|object| format!("+ {object}"))).collect())
}

/// Chains whose rules are not said.
fn unread(meant: &str) -> BTreeSet<String> {
    let mut chain = "";
    let mut unread = BTreeSet::new();
    for line in meant.lines() {
        if let Some(rest) = line.strip_prefix("chain ") {
            chain = rest.trim_end_matches(" {");
        } else if line.contains(UNREAD) || has_constant(line) {
            unread.insert(chain.to_owned());
        }
    }
    unread
}

/// Whether a rule looks for a constant in a set, which nft's language cannot say; whoever reads netlink compares it.
fn has_constant(line: &str) -> bool {
    line.contains(" . 0x") && line.contains(" @")
}

/// Every object as one line, rules with their place in their chain.
fn objects(json: &str, unread: &BTreeSet<String>) -> anyhow::Result<BTreeSet<String>> {
    let json: Value = serde_json::from_str(json).context("the output of nft -j")?;
    let (mut all, mut places) = (BTreeSet::new(), BTreeMap::<String, usize>::new());
    for object in json["nftables"].as_array().context("nft lists no objects")? {
        let Some((kind, body)) = object.as_object().and_then(|object| object.iter().next()) else { continue };
        if ["metainfo", "table"].contains(&kind.as_str()) {
            continue;
        }
        let chain = body["chain"].as_str().unwrap_or_default().to_owned();
        if kind == "rule" && unread.contains(&chain) {
            continue;
        }
        let mut object = object.clone();
        quiet(&mut object[kind.as_str()]);
        let place = if kind == "rule" {
            let place = places.entry(chain.clone()).or_default();
            *place += 1;
            format!("{chain} {place}: ")
        } else {
            String::new()
        };
        all.insert(format!("{kind} {place}{}", read(&object)?));
    }
    Ok(all)
}

/// Leaves out what says nothing of what was meant.
fn quiet(body: &mut Value) {
    let Some(fields) = body.as_object_mut() else { return };
    for volatile in ["handle", "index"] {
        fields.remove(volatile);
    }
    if fields.contains_key("timeout") {
        fields.remove("elem");
    }
    if let Some(elements) = fields.get_mut("elem").and_then(Value::as_array_mut) {
        elements.sort_by_key(Value::to_string);
    }
    for expression in fields.get_mut("expr").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(counter) = expression.get_mut("counter").and_then(Value::as_object_mut) {
            counter.values_mut().for_each(|count| *count = 0.into());
        }
    }
}

/// As the crate reads it, where it can.
fn read(object: &Value) -> anyhow::Result<String> {
    let text = object.to_string();
    if object.get("map").is_some() || ["\"masquerade\"", "\"nf_proto\""].iter().any(|unknown| text.contains(unknown)) {
        return Ok(text);
    }
    let typed: NfListObject<'_> = serde_json::from_value(object.clone()).with_context(|| text.clone())?;
    Ok(serde_json::to_value(&typed)?.to_string())
}

/// What `nft` lists of a table that it makes of a text.
fn listed_by_nft(meant: &str) -> anyhow::Result<String> {
    let mut child = Command::new("unshare")
        .args(["--net", "sh", "-c", "nft -f - && nft -j list table inet twill"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("unshare")?;
    child.stdin.take().context("no standard input")?.write_all(script(meant).as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "nft does not take the text: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// nft wants chains declared before rules or elements lead to them, base chains with their hooks, and comments that are not too long.
fn script(meant: &str) -> String {
    let lines: Vec<&str> = meant.lines().collect();
    let plain = lines.iter().zip(lines.iter().skip(1)).filter(|(_, next)| !next.starts_with("\ttype "));
    let chains = plain.filter_map(|(line, _)| line.strip_prefix("chain ")?.strip_suffix(" {"));
    let declared: String = chains.map(|chain| format!("add chain inet twill {chain}\n")).collect();
    let body: Vec<String> = lines.iter().filter(|line| !has_constant(line)).map(|line| cut_comment(line)).collect();
    format!("add table inet twill\n{declared}table inet twill {{\n{}\n}}\n", body.join("\n"))
}

fn cut_comment(line: &str) -> String {
    let Some((before, comment)) = line.split_once("comment \"") else { return line.to_owned() };
    let comment = comment.strip_suffix('"').unwrap_or(comment);
    let end = (0..=comment.len().min(COMMENT)).rev().find(|end| comment.is_char_boundary(*end)).unwrap_or_default();
    format!("{before}comment \"{}\"", &comment[..end])
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const MEANT: &str = "set known {\n\ttype ifname\n\telements = { \"twla\", \"twlb\" }\n}\nset short {\n\ttype ipv4_addr\n\tflags timeout\n\
        \ttimeout 9s\n}\nchain forward {\n\ttype filter hook forward priority 0; policy accept;\n\tiifname @known goto list_a\n\tcounter drop comment \"end\"\n}\n\
        chain list_a {\n\tcounter drop comment \"all\"\n}\n";

    /// What the kernel shows if it holds this.
    fn kernel(holds: &str) -> String {
        listed_by_nft(holds).unwrap()
    }

    #[test]
    #[ignore = "needs root: make test"]
    fn a_table_differs_by_the_object_that_is_another_and_by_nothing_else() {
        let differs = |holds: &str| differences(&kernel(holds), MEANT).unwrap();
        assert_eq!(differs(MEANT), Vec::<String>::new());
        let counted = MEANT.replace("counter drop", "counter packets 7 bytes 9 drop");
        assert_eq!(differs(&counted), Vec::<String>::new(), "counts are nobody's intention");
        let expiring = MEANT.replace("timeout 9s\n", "timeout 9s\n\telements = { 10.0.0.1 }\n");
        assert_eq!(differs(&expiring), Vec::<String>::new());
        for (from, to, missing, more) in [
            (", \"twlb\"", "", 1, 1),
            ("\"all\"", "\"any\"", 1, 1),
            ("\tcounter drop comment \"end\"\n", "", 1, 0),
            ("goto list_a", "jump list_a", 1, 1),
            ("chain list_a {", "chain list_b {\n}\nchain list_a {", 0, 1),
            ("priority 0", "priority 1", 1, 1),
        ] {
            assert!(MEANT.contains(from));
            let found = differs(&MEANT.replace(from, to));
            let count = |sign: &str| found.iter().filter(|line| line.starts_with(sign)).count();
            assert_eq!((count("- "), count("+ ")), (missing, more), "{from}: {found:?}");
        }
        let order = MEANT
            .replace("\tiifname @known goto list_a\n", "")
            .replace("\"end\"\n", "\"end\"\n\tiifname @known goto list_a\n");
        assert_eq!(differs(&order).len(), 4, "the order of rules is the design");
        let unread = MEANT.replace("\"all\"", "\"not ours\"");
        assert_eq!(differences(&kernel(MEANT), &unread).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn comments_are_cut_as_felix_cuts_them() {
        let long = format!("\tcounter drop comment \"{}\u{e9}\"", "x".repeat(126));
        assert_eq!(cut_comment(&long), format!("\tcounter drop comment \"{}\"", "x".repeat(126)));
        assert_eq!(cut_comment("\tdrop"), "\tdrop");
    }
}
