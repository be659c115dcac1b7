//! Commands about policy: what it says, what it would change, what it does to packets.

use super::{Node, Output, Store, duration};
use crate::destination::{Destination, NodePort};
use clap::Subcommand;
use std::path::PathBuf;
use std::time::Duration;
use twill_felix::evaluate::Party;

/// What `twill policy` does.
#[derive(Debug, Subcommand)]
pub(crate) enum Policy {
    /// Print the ruleset that felix means this node's kernel to hold.
    Show {
        #[command(flatten)]
        node: Node,
        #[command(flatten)]
        output: Output,
    },
    /// Say whether what PolicyTests in files assert is so, by policy and pods of the same files; no cluster is needed. Exit 2 if
    /// something is not.
    Test(PolicyTest),
    /// List what policies in files would open and close, were they applied, and on a node which live connections that would cut; exit 2
    /// if it is anything.
    Diff(PolicyDiff),
    /// Show which HostPolicies are in force on this node, which are on trial, and what passes before them and why; exit 2 if it went
    /// back from one.
    Host {
        #[command(flatten)]
        node: Node,
        #[command(flatten)]
        output: Output,
    },
    /// Confirm a HostPolicy that asks for it, as it stands now: nodes where it is on trial keep it.
    Confirm(Named),
    /// Let nodes try a HostPolicy again that they went back from.
    Retry(Named),
}

/// `twill policy confirm` and `retry`.
#[derive(Debug, clap::Args)]
pub(crate) struct Named {
    /// Name of the HostPolicy.
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) store: Store,
}

/// What nodes say of themselves.
#[derive(Debug, clap::Args)]
pub(crate) struct Told {
    /// A file with what a node answered to `twill policy host -o json`: which HostPolicies it enforces and what it needs. May be repeated.
    #[arg(long, value_name = "FILE")]
    pub(crate) host_state: Vec<PathBuf>,
}

/// `twill policy test`.
#[derive(Debug, clap::Args)]
pub(crate) struct PolicyTest {
    /// Manifests and PolicyTests, or directories of them; `-` is standard input.
    #[arg(required = true)]
    pub(crate) file: Vec<PathBuf>,
    /// A datastore whose objects count, too; those in files take the place of its objects of the same name.
    #[arg(long)]
    pub(crate) datastore: Option<String>,
    #[command(flatten)]
    pub(crate) told: Told,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// `twill policy diff`.
#[derive(Debug, clap::Args)]
pub(crate) struct PolicyDiff {
    /// Manifests whose policies and namespaces are to be applied, or directories of them; `-` is standard input.
    #[arg(required_unless_present = "delete")]
    pub(crate) file: Vec<PathBuf>,
    /// A policy that is to go: KIND/NAME or KIND/NAMESPACE/NAME, e.g. networkpolicy/shop/cart. May be repeated.
    #[arg(long, value_name = "KIND/NAME")]
    pub(crate) delete: Vec<String>,
    /// Ask this node's felix, too, which live connections of its pods the change would cut.
    #[arg(long)]
    pub(crate) connections: bool,
    #[command(flatten)]
    pub(crate) told: Told,
    #[command(flatten)]
    pub(crate) store: Store,
    #[command(flatten)]
    pub(crate) node: Node,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// `twill drops`.
#[derive(Debug, clap::Args)]
pub(crate) struct Drops {
    /// Only packets from or to this pod: NAMESPACE/NAME.
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = pod_name)]
    pub(crate) pod: Option<String>,
    /// Go on, and print each packet as it is denied; as JSON, one object per line.
    #[arg(short, long)]
    pub(crate) follow: bool,
    #[command(flatten)]
    pub(crate) node: Node,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// `twill trace`.
#[derive(Debug, clap::Args)]
pub(crate) struct Trace {
    /// Who opens the connection: NAMESPACE/POD, a node's name or an address.
    pub(crate) src: Party,
    /// To whom: NAMESPACE/POD, a node's name or an address (IPv6 in brackets), a Service's too, then `:PORT[/PROTOCOL]` or `:icmp`; without a port, every
    /// packet between the two.
    pub(crate) dst: Destination,
    /// How long to watch, e.g. 90s.
    #[arg(long = "for", value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub(crate) lasts: Duration,
    /// End after this many packets.
    #[arg(short = 'n', long)]
    pub(crate) count: Option<usize>,
    #[command(flatten)]
    pub(crate) store: Store,
    #[command(flatten)]
    pub(crate) node: Node,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// `twill explain`.
#[derive(Debug, clap::Args)]
pub(crate) struct Explain {
    /// The sender: NAMESPACE/POD, a node's name or an address.
    pub(crate) src: Party,
    /// The receiver: NAMESPACE/POD, a node's name or an address (IPv6 in brackets), then `:PORT[/PROTOCOL]` or `:icmp`; without a port, every
    /// port that the pod declares. A port of a node is followed to the pods that it leads to, if it is a NodePort or a hostPort, and so is a
    /// Service's address.
    pub(crate) dst: Destination,
    /// The interface of a node by which it comes or goes, for HostPolicies that name some; a tunnel's device, or another one, where only nodes know
    /// whether a pool's tunnel is taken.
    #[arg(long, value_name = "NAME")]
    pub(crate) interface: Option<String>,
    /// The node and its port, a NodePort, that it comes to before it is sent on to the receiver, for HostPolicies about what is forwarded.
    #[arg(long, value_name = "NODE:PORT")]
    pub(crate) through: Option<NodePort>,
    #[command(flatten)]
    pub(crate) told: Told,
    // This node is asked, too, which HostPolicies it enforces and what it needs.
    #[command(flatten)]
    pub(crate) node: Node,
    #[command(flatten)]
    pub(crate) store: Store,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// `NAMESPACE/NAME`.
fn pod_name(text: &str) -> Result<String, String> {
    match text.parse::<Party>() {
        Ok(Party::Pod(key)) => Ok(key.to_string()),
        _ => Err("it is no pod; write NAMESPACE/NAME".to_owned()),
    }
}
