//! An explanation, as a value and as a text that fits on a screen.

use super::judge::{Isolating, Judgement, RuleRef};
use super::party::Side;
use super::tunnel::Taken;
use crate::model::Protocol;
use std::fmt;
use std::net::IpAddr;

/// What policy says of one connection, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Whether it may be opened: both directions let it pass.
    pub allowed: bool,
    /// The sender.
    pub src: Side,
    /// The receiver.
    pub dst: Side,
    /// The receiver's port; meaningless for protocols without ports.
    pub port: u16,
    /// The protocol.
    pub protocol: Protocol,
    /// What the policies about the sender say.
    pub egress: Judgement,
    /// What HostPolicies say of the packets that carry it from node to node, if it goes through a tunnel and they do not let these pass.
    pub outer: Option<Judgement>,
    /// What the policies about the receiver say.
    pub ingress: Judgement,
    /// What HostPolicies say of it on its way through a node that sends it on, if it goes that way.
    pub through: Option<Judgement>,
    /// Where it was sent to, if that leads to the receiver.
    pub entered: Option<Entered>,
    /// What to know beside this.
    pub notes: Vec<Note>,
}

/// What to know beside verdicts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// A node was not asked what it needs, and the verdict may depend on that.
    Assumed {
        /// The node.
        node: String,
    },
    /// What a node enforces now is not, or not yet, what the datastore has; in one sentence.
    Enforced(String),
    /// Everybody beyond the sender's node sees that.
    Translated {
        /// The node, with its address.
        node: String,
    },
    /// It goes through a tunnel, or may.
    Tunnelled {
        /// The IPPool that has it.
        pool: String,
        /// The tunnel's device.
        device: &'static str,
        /// When it does.
        taken: Taken,
        /// As whom the receiver's node sees the sender then.
        node: String,
        /// Whether the interface by which it goes can be named.
        nameable: bool,
    },
    /// The verdict is the same through a tunnel, for another reason; in one sentence.
    SameThrough(String),
    /// An address of a pool is nobody's now.
    Nobodys {
        /// The address.
        address: IpAddr,
    },
    /// The receiver's node sees another sender.
    Hidden {
        /// The Service whose proxy does that.
        service: String,
        /// The node that it sees.
        node: String,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Assumed { node } => write!(
                f,
                "node {node} was not asked what it needs: taken for what nodes usually need; --host-state FILE takes what `twill policy host -o json` says there"
            ),
            Self::Enforced(sentence) | Self::SameThrough(sentence) => f.write_str(sentence),
            Self::Tunnelled { pool, device, taken, node, nameable } => {
                match taken {
                    Taken::Always => write!(f, "IPPool {pool} is encapsulated: it goes through {device}")?,
                    Taken::CrossSubnet => write!(
                        f,
                        "IPPool {pool} is encapsulated between subnets: if the nodes are on different ones it goes through {device}"
                    )?,
                    Taken::WithoutRouter => write!(
                        f,
                        "IPPool {pool} is encapsulated: if no router is the next hop it goes through {device}"
                    )?,
                }
                write!(f, ", and who judges it elsewhere sees {node}")?;
                let by = if *nameable { "; --interface NAME says by which it goes" } else { "" };
                f.write_str(by)
            }
            Self::Translated { node } => {
                write!(f, "the sender's pool has natOutgoing: who judges it elsewhere sees {node}")
            }
            Self::Nobodys { address } => write!(
                f,
                "{address} is of a pool, and no pod has it now: it is judged as one outside the cluster, and otherwise once a pod has it"
            ),
            Self::Hidden { service, node } => write!(
                f,
                "Service {service} has externalTrafficPolicy Cluster: its proxy hides the sender, so the receiver's node sees node {node}"
            ),
        }
    }
}

/// What was asked for, if that leads to others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entered {
    /// A pod's port of its node.
    HostPort {
        /// The node.
        node: String,
        /// Its port.
        port: u16,
    },
    /// A Service's port of a node.
    NodePort {
        /// The node.
        node: String,
        /// Its port.
        port: u16,
        /// NAMESPACE/NAME.
        service: String,
    },
    /// An address by which a Service is known outside.
    External {
        /// The address.
        address: IpAddr,
        /// Its port.
        port: u16,
        /// NAMESPACE/NAME.
        service: String,
    },
    /// A Service's own address.
    ClusterIp {
        /// The address.
        address: IpAddr,
        /// Its port.
        port: u16,
        /// NAMESPACE/NAME.
        service: String,
    },
}

impl fmt::Display for Entered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HostPort { node, port } => write!(f, "the hostPort {port} of node {node}"),
            Self::NodePort { node, port, service } => {
                write!(f, "the NodePort {port} of node {node} (Service {service})")
            }
            Self::ClusterIp { address, port, service } | Self::External { address, port, service } => {
                write!(f, "port {port} of {address} (Service {service})")
            }
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match (self.allowed, self.depends()) {
            (true, _) => "allowed",
            (false, true) => "depends on the interface",
            (false, false) => "denied",
        };
        if let Some(entered) = &self.entered {
            let (src, dst, own, protocol) = (&self.src, &self.dst, self.port, self.protocol);
            writeln!(f, "{src} -> {dst} {own}/{protocol}, {entered}: {verdict}")?;
        } else if self.protocol.has_ports() {
            writeln!(f, "{} -> {} {}/{}: {verdict}", self.src, self.dst, self.port, self.protocol)?;
        } else {
            writeln!(f, "{} -> {} {}: {verdict}", self.src, self.dst, self.protocol)?;
        }
        write!(f, "  egress   {}", self.egress)?;
        if let Some(outer) = &self.outer {
            write!(f, "\n  tunnel   {outer}")?;
        }
        if let Some(through) = &self.through {
            write!(f, "\n  through  {through}")?;
        }
        write!(f, "\n  ingress  {}", self.ingress)?;
        self.notes.iter().try_for_each(|note| write!(f, "\n  note     {note}"))
    }
}

impl Explanation {
    /// What each step on the way says.
    pub fn steps(&self) -> impl Iterator<Item = &Judgement> {
        [Some(&self.egress), self.outer.as_ref(), self.through.as_ref(), Some(&self.ingress)].into_iter().flatten()
    }

    /// Whether nothing denies it but at some interfaces of a node: which it takes has to be said.
    #[must_use]
    pub fn depends(&self) -> bool {
        let depends = |step: &&Judgement| matches!(step, Judgement::Depends { .. });
        let mut denied = self.steps().filter(|step| !step.allows()).peekable();
        denied.peek().is_some() && denied.all(|step| depends(&step))
    }
}

/// Where what belongs to a judgement is written.
const INDENT: &str = "\n             ";

impl fmt::Display for Judgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotJudged(why) => write!(f, "allowed: {why}"),
            Self::Impossible(why) => write!(f, "impossible: {why}"),
            Self::Guarded(why) => write!(f, "denied: {why}"),
            Self::Needed { node, reason, .. } => {
                write!(f, "allowed: what node {node} needs passes before all HostPolicies: {reason}")
            }
            Self::Depends { node, interfaces } => {
                write!(f, "depends on the interface of node {node}:")?;
                let line = |(name, judgement): &(String, Judgement)| {
                    let text = judgement.to_string();
                    (name.clone(), text.lines().next().unwrap_or_default().to_owned())
                };
                interfaces.iter().map(line).try_for_each(|(name, text)| write!(f, "{INDENT}{name}: {text}"))
            }
            Self::NotIsolated => write!(f, "allowed: no policy isolates the pod in this direction"),
            Self::Allowed { isolating, passed, by } => {
                match by {
                    Some(rule) => write!(f, "allowed by {rule}")?,
                    None => write!(f, "allowed: no rule decides")?,
                }
                governed(f, isolating, passed)
            }
            Self::Denied { isolating, passed, by, nearest, fix } => {
                match by {
                    Some(rule) => write!(f, "denied by {rule}")?,
                    None => write!(f, "denied: no rule allows it")?,
                }
                governed(f, isolating, passed)?;
                if let Some(miss) = nearest {
                    write!(f, "{INDENT}nearest: {} {}", miss.rule, miss.why)?;
                }
                fix.as_ref().map_or(Ok(()), |fix| write!(f, "{INDENT}fix: {fix}"))
            }
        }
    }
}

fn governed(f: &mut fmt::Formatter<'_>, isolating: &[Isolating], passed: &[RuleRef]) -> fmt::Result {
    write!(f, "{INDENT}isolated by {}", list(isolating))?;
    passed.iter().try_for_each(|rule| write!(f, "{INDENT}passed on by {rule}"))
}

/// The first few names: the text has to fit on a screen.
fn list(policies: &[Isolating]) -> String {
    const SHOWN: usize = 8;
    let mut text = policies.iter().take(SHOWN).map(Isolating::to_string).collect::<Vec<_>>().join(", ");
    if policies.len() > SHOWN {
        text.push_str(&format!(" and {} more", policies.len() - SHOWN));
    }
    text
}
