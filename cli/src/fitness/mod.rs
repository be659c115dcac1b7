//! Whether a node is fit for Twill: in flow facts that were read from it, out flow findings, each with the command that mends it. Pure; one
//! file per subject.

pub(crate) mod datastore;
pub(crate) mod host;
pub(crate) mod kernel;
pub(crate) mod others;
pub(crate) mod ports;
pub(crate) mod settings;

use serde::Serialize;

/// What is so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum State {
    /// As it should be.
    Fine,
    /// Twill runs; something that not everybody needs does not work.
    Warning,
    /// Twill would not work here.
    Unfit,
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Finding {
    /// What was looked at.
    pub(crate) check: &'static str,
    /// How it is.
    pub(crate) state: State,
    /// What was found.
    pub(crate) found: String,
    /// What to do; empty where there is nothing to do.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) remedy: String,
}

impl Finding {
    fn fine(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, state: State::Fine, found: found.into(), remedy: String::new() }
    }

    fn warning(check: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, state: State::Warning, found: found.into(), remedy: remedy.into() }
    }

    fn unfit(check: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, state: State::Unfit, found: found.into(), remedy: remedy.into() }
    }
}

/// Whether nothing hinders Twill.
pub(crate) fn is_fit(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.state != State::Unfit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_does_not_make_a_node_unfit() {
        let (fine, warning) = (Finding::fine("a", ""), Finding::warning("b", "", ""));
        assert!(is_fit(&[fine.clone(), warning]));
        assert!(!is_fit(&[fine, Finding::unfit("c", "", "")]));
    }
}
