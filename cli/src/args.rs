//! The command line.

use crate::output::Format;
use clap::{Parser, Subcommand, ValueEnum};
use ipnet::IpNet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;
use twill_crds::names;

/// Routed pod networking and policy for Linux clusters.
#[derive(Debug, Parser)]
#[command(name = "twill", version, propagate_version = true, subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Args {
    /// Level of the log on standard error, e.g. `debug` or `twill_bgpd=debug,info`.
    #[arg(long, global = true, env = "RUST_LOG", default_value = "info", hide_env_values = true)]
    pub(crate) log: String,
    /// Form of the log on standard error.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Plain)]
    pub(crate) log_format: LogFormat,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Form of the log.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum LogFormat {
    /// Lines for people.
    Plain,
    /// One JSON object per line.
    Json,
}

/// Which datastore.
#[derive(Debug, clap::Args)]
pub(crate) struct Store {
    /// The datastore, as sqlite:/path/to/file.db or etcd:https://HOST:2379?ca=FILE&cert=FILE&key=FILE.
    #[arg(long, env = "TWILL_DATASTORE", default_value = "sqlite:/var/lib/twill/datastore.db")]
    pub(crate) datastore: String,
}

/// Where a node's daemons listen.
#[derive(Debug, clap::Args)]
pub(crate) struct Node {
    /// Directory of the sockets of the node's daemons.
    #[arg(long, env = "TWILL_RUN_DIR", default_value = names::RUN_DIR)]
    pub(crate) run_dir: PathBuf,
}

/// How an answer is printed.
#[derive(Debug, clap::Args)]
pub(crate) struct Output {
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
}

/// What `twill` does.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the BGP speaker of a node, or alone from a file.
    Bgpd(twill_bgpd::Args),
    /// Run the node agent: CNI, addresses, policy.
    Felix(twill_felix::Args),
    /// Build, change, probe and remove a cluster of network namespaces on this machine.
    Lab(twill_lab::Args),
    /// Create the objects of manifests, or change those that exist; all are checked before the first is written.
    Apply(Apply),
    /// Print objects.
    Get(Get),
    /// Delete objects.
    Delete(Delete),
    /// Say whether policy lets SRC open a connection to DST, and why; exit 2 if it does not.
    Explain(Explain),
    /// Take nodes out of routing: no new pods, and no peer has a route to them when this returns; their pods go on running.
    Drain(Drain),
    /// Say whether this node's daemons are in sync; exit 2 if something is wrong.
    Status {
        #[command(flatten)]
        node: Node,
        #[command(flatten)]
        output: Output,
    },
    /// List this node's BGP sessions; exit 2 unless all are established.
    Peers {
        #[command(flatten)]
        node: Node,
        #[command(flatten)]
        output: Output,
    },
    /// List the paths that this node's speaker knows, and what the kernel does with them.
    Routes {
        /// Only prefixes equal to or inside this one.
        prefix: Option<IpNet>,
        #[command(flatten)]
        node: Node,
        #[command(flatten)]
        output: Output,
    },
    /// Remove Twill from this node: its daemons leave, then interfaces, routes, tunnels, table, files and objects go.
    Uninstall(Uninstall),
    /// Look at addresses.
    #[command(subcommand)]
    Ipam(Ipam),
    /// Look at policy.
    #[command(subcommand)]
    Policy(Policy),
    /// Print the CustomResourceDefinitions of Twill's kinds, for `kubectl apply -f -`; as a table, what they are called.
    Crds {
        /// Form of the answer.
        #[arg(short, long, value_enum, default_value_t = Format::Yaml)]
        output: Format,
    },
    /// Print a completion script for a shell.
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// What `twill ipam` does.
#[derive(Debug, Subcommand)]
pub(crate) enum Ipam {
    /// Show pools and blocks of the cluster, and how full they are.
    Show {
        #[command(flatten)]
        store: Store,
        #[command(flatten)]
        output: Output,
    },
    /// Say which pod, node, block and pool an address belongs to; exit 2 if neither a pod nor a node has it.
    Who {
        /// The address.
        address: IpAddr,
        #[command(flatten)]
        store: Store,
        #[command(flatten)]
        output: Output,
    },
    /// List the addresses in use on this node, as its own store has them.
    Local {
        #[command(flatten)]
        node: Node,
        #[command(flatten)]
        output: Output,
    },
}

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
}

/// `twill apply`.
#[derive(Debug, clap::Args)]
pub(crate) struct Apply {
    /// Manifests, or directories of them; `-` is standard input.
    #[arg(short, long = "filename", required = true, num_args = 1..)]
    pub(crate) filename: Vec<PathBuf>,
    /// Only check them.
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) store: Store,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// `twill get`.
#[derive(Debug, clap::Args)]
pub(crate) struct Get {
    /// Kind, e.g. `pods`, `pool`, `NetworkPolicy`.
    pub(crate) kind: String,
    /// Only this object.
    pub(crate) name: Option<String>,
    /// Namespace, for kinds that live in one.
    #[arg(short, long, default_value = "default")]
    pub(crate) namespace: String,
    /// All namespaces.
    #[arg(short = 'A', long)]
    pub(crate) all_namespaces: bool,
    #[command(flatten)]
    pub(crate) store: Store,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// `twill delete`.
#[derive(Debug, clap::Args)]
pub(crate) struct Delete {
    /// Kind, e.g. `pods`, `pool`, `NetworkPolicy`.
    #[arg(required_unless_present = "filename", conflicts_with = "filename", requires = "name")]
    pub(crate) kind: Option<String>,
    /// Name.
    pub(crate) name: Option<String>,
    /// Manifests whose objects to delete, or directories of them; `-` is standard input.
    #[arg(short, long = "filename", num_args = 1..)]
    pub(crate) filename: Vec<PathBuf>,
    /// Namespace, for kinds that live in one.
    #[arg(short, long, default_value = "default")]
    pub(crate) namespace: String,
    /// An object that does not exist is no error.
    #[arg(long)]
    pub(crate) ignore_not_found: bool,
    #[command(flatten)]
    pub(crate) store: Store,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// `twill drain`.
#[derive(Debug, clap::Args)]
pub(crate) struct Drain {
    /// The nodes.
    #[arg(required = true)]
    pub(crate) node: Vec<String>,
    /// Bring them back instead.
    #[arg(long)]
    pub(crate) undo: bool,
    /// How long their speakers may take, e.g. 90s.
    #[arg(long, default_value = "1m", value_parser = duration)]
    pub(crate) timeout: Duration,
    #[command(flatten)]
    pub(crate) store: Store,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// `twill uninstall`.
#[derive(Debug, clap::Args)]
pub(crate) struct Uninstall {
    /// Remove Twill from every node, by their felix, and then all of its objects; exit 2 if a node does not answer.
    #[arg(long)]
    pub(crate) cluster: bool,
    /// How long the nodes may take, e.g. 90s.
    #[arg(long, requires = "cluster", default_value = "2m", value_parser = duration)]
    pub(crate) timeout: Duration,
    /// Delete the objects also if a node does not answer.
    #[arg(long, requires = "cluster")]
    pub(crate) force: bool,
    /// Do not ask. Without a terminal nobody is asked.
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Name of this node, for its objects, where its daemons do not run and cannot say it.
    #[arg(long, env = "TWILL_NODE")]
    pub(crate) node: Option<String>,
    #[command(flatten)]
    pub(crate) node_dirs: Node,
    /// Directory of what the node's daemons keep over a restart.
    #[arg(long, env = "TWILL_STATE_DIR", default_value = names::STATE_DIR)]
    pub(crate) state_dir: PathBuf,
    /// Directory of the runtime's network configurations; those of Twill go.
    #[arg(long, env = "TWILL_CNI_CONF_DIR", default_value = names::CNI_CONF_DIR)]
    pub(crate) cni_conf_dir: PathBuf,
    /// Directory of the runtime's plugins; Twill's goes.
    #[arg(long, env = "TWILL_CNI_BIN_DIR", default_value = names::CNI_BIN_DIR)]
    pub(crate) cni_bin_dir: PathBuf,
    #[command(flatten)]
    pub(crate) store: Store,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// `2m`, `90s`, `1m30s`.
fn duration(text: &str) -> Result<Duration, String> {
    let parsed = text.parse::<jiff::SignedDuration>().map_err(|error| error.to_string())?;
    Duration::try_from(parsed).map_err(|_| "a duration is not negative".to_owned())
}

/// `twill explain`.
#[derive(Debug, clap::Args)]
pub(crate) struct Explain {
    /// The sender: NAMESPACE/POD or an address.
    pub(crate) src: String,
    /// The receiver: NAMESPACE/POD or an address (IPv6 in brackets), then `:PORT[/PROTOCOL]` or `:icmp`; without a port, every
    /// port that the pod declares.
    pub(crate) dst: String,
    #[command(flatten)]
    pub(crate) store: Store,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_of_every_command_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn durations_carry_their_unit() {
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert!(duration("-1s").is_err() && duration("2").is_err() && duration("").is_err());
    }
}
