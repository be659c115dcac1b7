//! The command line.

use crate::output::Format;
use clap::{Parser, Subcommand, ValueEnum};
use ipnet::IpNet;
use std::net::IpAddr;
use std::path::PathBuf;

/// Routed pod networking and policy for Linux clusters.
#[derive(Debug, Parser)]
#[command(name = "twill", version, propagate_version = true, subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Args {
    /// Form of the log on standard error; RUST_LOG sets its level.
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

/// Where a node's daemons listen.
#[derive(Debug, clap::Args)]
pub(crate) struct Node {
    /// Directory of the sockets of the node's daemons.
    #[arg(long, env = "TWILL_RUN_DIR", default_value = twill_crds::names::RUN_DIR)]
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
    /// Look at addresses.
    #[command(subcommand)]
    Ipam(Ipam),
    /// Look at policy.
    #[command(subcommand)]
    Policy(Policy),
    /// Print a completion script for a shell.
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// What `twill ipam` does.
#[derive(Debug, Subcommand)]
pub(crate) enum Ipam {
    /// List the addresses in use on this node.
    Show {
        #[command(flatten)]
        node: Node,
        #[command(flatten)]
        output: Output,
    },
    /// Say which pod of this node has an address; exit 2 if none.
    Who {
        /// The address.
        address: IpAddr,
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
