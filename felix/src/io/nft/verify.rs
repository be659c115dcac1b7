//! What is wanted against what the kernel holds, without the thread that commits: a pod does not wait for who looks.

use super::actual;
use super::connection::Connection;
use super::left::Left;
use super::owner::difference;
use super::{Error, Verified};
use crate::base;
use crate::ruleset::{Key, KeyType, Part, Ruleset, Value};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use twill_crds::names::NFT_TABLE;

/// Transactions that the owner has begun, and those that it has ended.
#[derive(Clone, Debug, Default)]
pub(super) struct Transactions(Arc<AtomicU64>);

impl Transactions {
    /// One begins, or has ended.
    pub(super) fn count(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    fn so_far(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// What is wanted at a moment, and a way to the kernel, in the network namespace of the table.
pub struct Meant {
    connection: Connection,
    ruleset: Arc<Ruleset>,
    left: Left,
    transactions: Transactions,
    at: u64,
}

/// The outcome of a comparison.
#[derive(Clone, Debug)]
pub struct Compared {
    /// What is meant, and what differs.
    pub verified: Verified,
    /// Whether nothing was committed by the owner meanwhile. Else what differs may be what it committed.
    pub undisturbed: bool,
}

impl Meant {
    /// What of the table differs that is about one interface, or leads to one of these addresses behind it, one sentence each. Takes time with the number of local workloads.
    ///
    /// # Errors
    /// The kernel could not be read.
    pub fn differences_of(mut self, interface: &str, addresses: &[IpAddr]) -> Result<Vec<String>, Error> {
        let prefix = Key::interface(interface);
        let about = |elements: &BTreeMap<Key, Value>, data: &[KeyType]| -> BTreeMap<Key, Value> {
            let leads_to = |value: &Value| match value {
                Value::Mapped(to) => to.address(data).is_some_and(|address| addresses.contains(&address)),
                _ => false,
            };
            let is_ours = |(key, value): &(&Key, &Value)| key.bytes().starts_with(prefix.bytes()) || leads_to(value);
            let ours = elements.iter().filter(is_ours);
            ours.map(|(key, value)| (key.clone(), value.clone())).collect()
        };
        let mut differences = Vec::new();
        for name in base::BY_INTERFACE.into_iter().chain(base::HOSTPORTS).map(base::name) {
            let Some(meant) = self.ruleset.sets.get(&name) else { continue };
            let actual = actual::elements(&mut self.connection, &name, meant)?;
            let (meant, actual) = (about(&meant.elements, &meant.data), about(&actual, &meant.data));
            if meant != actual {
                let what = if meant.len() > actual.len() { "an element is missing" } else { "an element is another" };
                differences.push(format!("{what} for {interface} in {name} of table inet {NFT_TABLE}"));
            }
        }
        Ok(differences)
    }

    /// On the owner's thread, between two transactions.
    pub(super) fn of(ruleset: &Arc<Ruleset>, left: &Left, transactions: &Transactions) -> Result<Self, Error> {
        let at = transactions.so_far();
        let (left, transactions) = (left.clone(), transactions.clone());
        Ok(Self { connection: Connection::open()?, ruleset: ruleset.clone(), left, transactions, at })
    }

    /// Reads the kernel and compares. Takes time with what the table holds.
    ///
    /// # Errors
    /// The kernel could not be read.
    pub fn compare(self) -> Result<Compared, Error> {
        let Self { mut connection, ruleset, left, transactions, at } = self;
        // A copy, so that the owner's next commit need not make one.
        let meant = Ruleset::clone(&ruleset);
        drop(ruleset);
        let actual = actual::read(&mut connection)?;
        let (mut delta, _) = difference(&actual.seen_by(&meant), &meant);
        left.pass_over(&mut delta);
        let mut differs = delta.parts();
        differs.extend(delta.remove_chains.into_iter().map(Part::Chain).filter(|part| !left.has(part)));
        differs.extend(delta.remove_sets.into_iter().map(Part::Set).filter(|part| !left.has(part)));
        differs.extend(actual.changed_policies(&meant).into_iter().map(Part::Chain));
        Ok(Compared { verified: Verified { meant, differs }, undisturbed: transactions.so_far() == at })
    }
}
