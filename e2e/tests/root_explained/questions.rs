//! Who asks for what: in flow the senders and the receivers that there are, out flow questions of every kind, and a choice of them.

use crate::random::Random;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use twill_lab::io::prober::Attempt;
use twill_lab::ports::Protocol;

/// Who sends.
#[derive(Clone, Debug)]
pub(crate) struct Sender {
    /// As `twill explain` takes it; of somebody outside it depends on the receiver, by rack and family.
    pub(crate) name: Option<String>,
    /// `pod`, `node`, `outside`.
    pub(crate) kind: &'static str,
    /// Its node, if it has one.
    pub(crate) node: Option<String>,
    pub(crate) netns: String,
}

/// Where something is sent to.
#[derive(Clone, Debug)]
pub(crate) struct Receiver {
    pub(crate) kind: &'static str,
    /// The node that it is of, none for a Service's address: there it is that of the sender.
    pub(crate) node: Option<String>,
    /// The node of who answers.
    pub(crate) home: String,
    pub(crate) address: IpAddr,
    pub(crate) port: (u16, Protocol),
    /// Whether a port of a node leads on to a pod.
    pub(crate) is_led: bool,
    /// What is heard if anything is.
    pub(crate) answers: Option<String>,
}

/// One question.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    /// Of which some are chosen.
    kind: String,
    pub(crate) from: String,
    /// The sender's node.
    pub(crate) node: Option<String>,
    pub(crate) attempt: Attempt,
    /// The node that it is sent to; none for a Service's address.
    pub(crate) to_node: Option<String>,
    /// The node of who answers.
    pub(crate) home: String,
    pub(crate) is_led: bool,
    pub(crate) answers: Option<String>,
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Attempt { to, protocol, .. } = &self.attempt;
        write!(f, "[{}] {} -> {to}/{protocol}", self.kind, self.from)
    }
}

/// Where the receiver is as the sender sees it.
fn place(sender: &Sender, receiver: &Receiver, rack: &impl Fn(&str) -> String) -> &'static str {
    let Some(own) = sender.node.as_deref() else { return "" };
    let to = receiver.node.as_deref().unwrap_or(&receiver.home);
    match () {
        () if own == to => "of its own node",
        () if rack(own) == rack(to) => "in its rack",
        () => "in another rack",
    }
}

/// Every question. `outside`: the address that somebody outside has for a receiver.
pub(crate) fn every(
    senders: &[Sender],
    receivers: &[Receiver],
    rack: &impl Fn(&str) -> String,
    outside: &impl Fn(&Receiver) -> String,
) -> Vec<Question> {
    let pairs = senders.iter().flat_map(|sender| receivers.iter().map(move |receiver| (sender, receiver)));
    // A Service's address means something inside alone.
    let asked = pairs.filter(|(sender, receiver)| sender.node.is_some() || receiver.node.is_some());
    let question = |(sender, receiver): (&Sender, &Receiver)| Question {
        kind: format!("{} to {} {}", sender.kind, receiver.kind, place(sender, receiver, rack)).trim_end().to_owned(),
        from: sender.name.clone().unwrap_or_else(|| outside(receiver)),
        node: sender.node.clone(),
        attempt: Attempt {
            netns: sender.netns.clone(),
            to: SocketAddr::new(receiver.address, receiver.port.0),
            protocol: receiver.port.1,
        },
        to_node: receiver.node.clone(),
        home: receiver.home.clone(),
        is_led: receiver.is_led,
        answers: receiver.answers.clone(),
    };
    asked.map(question).collect()
}

/// Some of each kind.
pub(crate) fn choose(all: Vec<Question>, of_a_kind: usize, random: &mut Random) -> Vec<Question> {
    let mut kinds: BTreeMap<String, Vec<Question>> = BTreeMap::new();
    all.into_iter().for_each(|question| kinds.entry(question.kind.clone()).or_default().push(question));
    let mut chosen = Vec::new();
    for mut of_kind in kinds.into_values() {
        for _ in 0..of_a_kind.min(of_kind.len()) {
            let one = usize::try_from(random.below(of_kind.len() as u64)).unwrap();
            chosen.push(of_kind.swap_remove(one));
        }
    }
    chosen
}
