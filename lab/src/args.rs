//! The command line of `twill lab`.

use crate::ports::Port;
use crate::state::Daemon;
use clap::{Subcommand, ValueEnum};
use std::net::IpAddr;
use std::path::PathBuf;

/// Arguments of `twill lab`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Which lab.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Name {
    /// Name of the lab; without it, the only lab there is.
    #[arg(long)]
    pub(crate) name: Option<String>,
}

/// How an answer is printed.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Output {
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
}

/// Form of an answer.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Command {
    /// Build the cluster of a lab file; returns when it works; exit 2 if something does not.
    Up {
        /// The lab file.
        file: PathBuf,
        /// Name of the lab; without it, the file's.
        #[arg(long)]
        name: Option<String>,
    },
    /// Show nodes, routers and pods, and the namespaces to enter.
    Status {
        #[command(flatten)]
        name: Name,
        #[command(flatten)]
        output: Output,
    },
    /// Run a command inside a node, a router or a pod.
    Exec {
        #[command(flatten)]
        name: Name,
        /// NODE, ROUTER or NAMESPACE/POD.
        target: String,
        /// The command.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Create or change objects, pods included; returns when every node has applied it; exit 2 if something does not work then.
    Apply {
        #[command(flatten)]
        name: Name,
        /// Manifests, or directories of them; `-` is standard input.
        #[arg(short, long = "file", required = true, num_args = 1..)]
        files: Vec<PathBuf>,
    },
    /// Delete objects, pods included; returns when every node has applied it.
    Delete {
        #[command(flatten)]
        name: Name,
        /// Manifests, or directories of them; `-` is standard input.
        #[arg(short, long = "file", required = true, num_args = 1..)]
        files: Vec<PathBuf>,
    },
    /// Try every pod to every pod and port, beside what policy says; exit 2 if they differ.
    Probe {
        #[command(flatten)]
        name: Name,
        #[command(flatten)]
        output: Output,
        /// Ports to try, e.g. 80/TCP,53/UDP; without it, those that the target declares.
        #[arg(long, value_delimiter = ',')]
        ports: Vec<Port>,
        /// Sources: NAMESPACE/POD or POD, `*` for anything.
        #[arg(long, value_delimiter = ',')]
        from: Vec<String>,
        /// Targets: NAMESPACE/POD or POD, `*` for anything.
        #[arg(long, value_delimiter = ',')]
        to: Vec<String>,
    },
    /// Kill a daemon of a node (SIGKILL).
    Kill {
        #[command(flatten)]
        name: Name,
        /// The node.
        node: String,
        /// The daemon.
        daemon: Daemon,
    },
    /// Start a killed daemon again; returns when it is in sync.
    Start {
        #[command(flatten)]
        name: Name,
        /// The node.
        node: String,
        /// The daemon.
        daemon: Daemon,
    },
    /// Cut a node's power and boot it: namespaces, links, daemons, pods are made anew; returns when it works.
    Reboot {
        #[command(flatten)]
        name: Name,
        /// The node.
        node: String,
    },
    /// Cut a node's links; its daemons run on.
    Partition {
        #[command(flatten)]
        name: Name,
        /// The node.
        node: String,
    },
    /// Restore a node's links; returns when packets pass, and all sessions and routes are back.
    Heal {
        #[command(flatten)]
        name: Name,
        /// The node.
        node: String,
    },
    /// Hand connections at a node's loopback on to this machine's: its way to the datastore's server.
    #[command(hide = true)]
    Relay {
        /// The node's namespace.
        #[arg(long)]
        netns: String,
        /// The port, in both.
        #[arg(long)]
        port: u16,
        /// By which the lab finds this process.
        #[arg(long)]
        mark: String,
        /// The node.
        #[arg(long)]
        machine: String,
    },
    /// Remove everything that the lab made; no error if nothing is there.
    Down {
        #[command(flatten)]
        name: Name,
    },
    /// What runs in the place of a pod's containers.
    #[command(hide = true)]
    Hold {
        /// The line that every connection gets.
        #[arg(long)]
        answer: String,
        /// Where to listen; without it, everywhere.
        #[arg(long = "address")]
        addresses: Vec<IpAddr>,
        /// Where to listen, e.g. 80/TCP.
        #[arg(long = "port")]
        ports: Vec<Port>,
    },
    /// Becomes a command in a session of its own.
    #[command(hide = true)]
    RunDetached {
        /// The command.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
}
