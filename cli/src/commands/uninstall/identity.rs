//! What the datastore knows this node by. In flow what daemons, the operator and an interrupted run say, and what the datastore has; out
//! flows one name, none, or the reason why the name that was given cannot be this node's.

use super::objects;
use std::collections::BTreeSet;
use std::path::Path;
use twill_datastore::{Datastore, Error};

/// What is known of this node before the datastore is asked.
#[derive(Clone, Default)]
pub(super) struct Identity {
    /// The name that its daemons serve.
    pub(super) served: Option<String>,
    /// The name that the operator gave.
    pub(super) given: Option<String>,
    /// The name that an interrupted run has noted.
    pub(super) noted: Option<String>,
    /// Identity of its store of addresses, which its blocks carry.
    pub(super) claimant: Option<String>,
}

/// What the datastore says about a name and a store of addresses.
struct Told {
    /// Nodes as which the store has claimed blocks.
    claimed: BTreeSet<String>,
    /// Whether anything in the datastore has the name that was given, or else noted.
    known: bool,
}

impl Identity {
    /// Whether there is anything to look for.
    pub(super) fn is_empty(&self) -> bool {
        self.best().is_none() && self.claimant.is_none()
    }

    /// The name as far as it is known without the datastore.
    pub(super) fn best(&self) -> Option<&str> {
        [&self.served, &self.given, &self.noted].into_iter().find_map(|name| name.as_deref())
    }

    /// What the next run is to find if this one is interrupted: a name, and the store's identity. A name that was only given is
    /// not worth remembering beside an identity, which cannot be mistyped.
    pub(super) fn to_note(&self) -> Option<String> {
        let given = self.given.as_ref().filter(|_| self.claimant.is_none());
        let name = self.served.as_ref().or(self.noted.as_ref()).or(given);
        let parts = [name, self.claimant.as_ref()];
        parts.iter().any(Option::is_some).then(|| parts.map(|part| part.map_or("", String::as_str)).join("\n"))
    }

    /// With what [`Self::to_note`] wrote.
    pub(super) fn with_note(mut self, text: &str) -> Self {
        let mut lines = text.lines().map(|line| Some(line.to_owned()).filter(|line| !line.is_empty()));
        self.noted = lines.next().flatten();
        self.claimant = self.claimant.or(lines.next().flatten());
        self
    }

    /// The node's name in the datastore, if it can be told; an inner error is the reason why the given one is refused.
    pub(super) async fn resolve(
        &self,
        store: &Datastore,
        state_dir: &Path,
    ) -> Result<Result<Option<String>, String>, Error> {
        let claimed = match &self.claimant {
            Some(claimant) => objects::nodes_of(store, claimant).await?,
            None => BTreeSet::new(),
        };
        let known = match self.best() {
            Some(name) => objects::known(store, name).await?,
            None => false,
        };
        Ok(self.name(&Told { claimed, known }, state_dir))
    }

    fn name(&self, told: &Told, state_dir: &Path) -> Result<Option<String>, String> {
        if self.served.is_some() {
            return Ok(self.served.clone());
        }
        let claimed = &told.claimed;
        let Some(given) = &self.given else {
            let noted = self.noted.clone().filter(|noted| told.known || claimed.is_empty() || claimed.contains(noted));
            return Ok(noted.or_else(|| claimed.first().cloned()));
        };
        if claimed.contains(given) {
            return Ok(Some(given.clone()));
        }
        if let Some(own) = claimed.first() {
            return Err(format!(
                "--node (TWILL_NODE) is {given}, but the store of addresses in {} claimed its blocks as node {own}; leave --node \
                 out, or write --node {own}",
                state_dir.display()
            ));
        }
        // An interrupted run may have got as far as the last object.
        if told.known || self.noted.as_ref() == Some(given) {
            return Ok(Some(given.clone()));
        }
        Err(format!(
            "--node (TWILL_NODE): the datastore has no Node, NodeNetwork or IPBlock of {given}; twill get nodenetworks lists the names, \
             and without --node all else goes"
        ))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn of(given: Option<&str>, noted: Option<&str>, claimed: &[&str], known: bool) -> Result<Option<String>, String> {
        let text = |name: Option<&str>| name.map(str::to_owned);
        let identity = Identity { given: text(given), noted: text(noted), ..Identity::default() };
        let claimed = claimed.iter().map(|name| (*name).to_owned()).collect();
        identity.name(&Told { claimed, known }, Path::new("/state"))
    }

    fn is(name: &str) -> Result<Option<String>, String> {
        Ok(Some(name.to_owned()))
    }

    #[test]
    fn a_name_that_cannot_be_this_nodes_is_refused() {
        let error = of(Some("TYPO"), None, &["n1"], false).unwrap_err();
        assert!(error.contains("TYPO") && error.contains("in /state claimed its blocks as node n1"), "{error}");
        assert!(of(Some("n2"), None, &["n1"], true).is_err(), "another node's name is worse than none");
        let error = of(Some("TYPO"), None, &[], false).unwrap_err();
        assert!(error.contains("no Node, NodeNetwork or IPBlock of TYPO"), "{error}");
    }

    #[test]
    fn a_name_is_believed_that_the_datastore_has_or_an_interrupted_run_used() {
        assert_eq!(of(Some("n1"), None, &["n1"], false), is("n1"));
        assert_eq!(of(Some("n1"), None, &[], true), is("n1"));
        assert_eq!(of(Some("n1"), Some("n1"), &[], false), is("n1"));
    }

    #[test]
    fn without_a_given_name_the_note_counts_unless_the_store_knows_better() {
        assert_eq!(of(None, Some("n1"), &[], false), is("n1"));
        assert_eq!(of(None, Some("TYPO"), &["n1"], false), is("n1"));
        assert_eq!(of(None, None, &["n1"], false), is("n1"));
        assert_eq!(of(None, None, &[], false), Ok(None));
    }

    #[test]
    fn what_is_noted_is_read_again_and_a_name_that_was_only_given_is_not_noted_beside_an_identity() {
        let text = |name: &str| Some(name.to_owned());
        let served = Identity { served: text("n1"), claimant: text("0123"), ..Identity::default() };
        let read = Identity::default().with_note(&served.to_note().unwrap_or_default());
        assert_eq!((read.noted, read.claimant), (text("n1"), text("0123")));
        let given = Identity { given: text("n1"), claimant: text("0123"), ..Identity::default() };
        assert_eq!(given.to_note().as_deref(), Some("\n0123"));
        let alone = Identity { given: text("n1"), ..Identity::default() };
        assert_eq!(alone.to_note().as_deref(), Some("n1\n"));
        assert_eq!(Identity::default().to_note(), None);
    }
}
