//! The command line.

mod objects;
mod policy;
mod routing;

pub(crate) use objects::{Apply, Delete, Get};
pub(crate) use policy::{Drops, Explain, Named, Policy, PolicyDiff, PolicyTest, Told, Trace};
pub(crate) use routing::Routes;

use crate::output::Format;
use clap::{Parser, Subcommand, ValueEnum};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;
use twill_crds::names;

/// Routed pod networking and policy for Linux clusters.
#[derive(Debug, Parser)]
#[command(name = "twill", version, propagate_version = true, subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Args {
    /// Level of the log on standard error, e.g. `debug` or `twill_bgpd=debug,info`.
    #[arg(long, global = true, env = "RUST_LOG", default_value = "info", hide_env_values = true, value_parser = log_filter)]
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
    /// The datastore: sqlite:/path/to/file.db, etcd:https://HOST:2379?ca=FILE&cert=FILE&key=FILE, kubernetes: (the pod's service
    /// account, or $KUBECONFIG) or kubernetes:/path/to/kubeconfig?context=NAME.
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
    /// Run BFD for this node's speaker, in a process that outlives it.
    Bfd(twill_bgpd::BfdArgs),
    /// Run the node agent: CNI, addresses, policy.
    Felix(twill_felix::Args),
    /// Run the controller of the cluster: frees what deleted nodes left, writes the status of pools and peers.
    Controller(twill_controller::Args),
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
    /// Take nodes out of routing: no new pods, and no peer has a route to them when this returns; their pods run on, out of reach of other
    /// nodes.
    Drain(Drain),
    /// Say whether this node's daemons are in sync, or which nodes of the cluster are not; exit 2 if something is wrong.
    Status {
        /// Look at all nodes, as they wrote it into the datastore, in the place of this node's daemons.
        #[arg(long)]
        cluster: bool,
        #[command(flatten)]
        store: Store,
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
    /// List the paths that this node's speaker knows, why each is used or not, and what the kernel does with them.
    Routes(Routes),
    /// List the packets that this node denied lately, with pods and policies; each pair of interfaces tells of five a second at most.
    Drops(Drops),
    /// Watch what this node's tables do to real packets from SRC to DST and back, beside what policy says; exit 2 if one is dropped, or
    /// fares otherwise than policy says, or none comes.
    Trace(Trace),
    /// Ask a daemon of this node for a probe: exit 0 if it is ready, 2 and the reason if it is not.
    Ready(Ready),
    /// Put the plugin in place for this node's container runtime, or check beforehand whether the node is fit.
    Install(Install),
    /// Remove Twill from this node: its daemons leave, then interfaces, routes, tunnels, table, files and objects go.
    Uninstall(Uninstall),
    /// Look at addresses.
    #[command(subcommand)]
    Ipam(Ipam),
    /// Look at policy, test it, and see what a change of it would do.
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
    /// Look for what is wrong with blocks and addresses, one sentence each; exit 2 if anything is and was not repaired.
    Check {
        /// Free the blocks of nodes that are gone, as the controller does: after the whole quarantine, if nothing speaks for them in it.
        #[arg(long)]
        repair: bool,
        /// How long a node must be gone and named by no Pod before its blocks are freed.
        #[arg(long, requires = "repair", default_value = "15m", value_parser = duration)]
        quarantine: Duration,
        #[command(flatten)]
        store: Store,
        #[command(flatten)]
        output: Output,
    },
    /// Say which blocks would become free if which pods were restarted, fewest pods first.
    Defrag {
        /// Print the plan; nothing is restarted.
        #[arg(long, required = true)]
        plan: bool,
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

/// `twill drain`.
#[derive(Debug, clap::Args)]
pub(crate) struct Drain {
    /// The nodes.
    #[arg(required = true)]
    pub(crate) node: Vec<String>,
    /// Bring them back instead; exit 2 if not all of their sessions come up.
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

/// `twill ready`.
#[derive(Debug, clap::Args)]
pub(crate) struct Ready {
    /// Which daemon.
    #[arg(value_enum)]
    pub(crate) daemon: Probed,
    /// Ask only whether it answers at all.
    #[arg(long)]
    pub(crate) alive: bool,
    /// How long it may take, e.g. 5s.
    #[arg(long, default_value = "5s", value_parser = duration)]
    pub(crate) timeout: Duration,
    #[command(flatten)]
    pub(crate) node: Node,
}

/// A daemon that probes ask.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Probed {
    /// Ready: it has heard all of the datastore, and its sessions and routes follow. How the peers are does not count.
    Bgpd,
    /// Ready: it answers. How its sessions are does not count.
    Bfd,
    /// Ready: pods can be attached, and policy is enforced.
    Felix,
    /// Ready: it leads and has heard all of the datastore, or knows who leads.
    Controller,
}

/// `twill install`.
#[derive(Debug, clap::Args)]
pub(crate) struct Install {
    /// Change nothing, and say what on this node would hinder Twill; exit 2 if something does.
    #[arg(long)]
    pub(crate) check: bool,
    /// The plugin's executable; without this, the twill-cni beside this executable.
    #[arg(long)]
    pub(crate) source: Option<PathBuf>,
    /// Directory of the runtime's plugins.
    #[arg(long, env = "TWILL_CNI_BIN_DIR", default_value = names::CNI_BIN_DIR, visible_alias = "bin-dir")]
    pub(crate) cni_bin_dir: PathBuf,
    /// Directory of the runtime's network configurations; felix writes ours when it can serve (--write-conflist).
    #[arg(long, env = "TWILL_CNI_CONF_DIR", default_value = names::CNI_CONF_DIR, visible_alias = "conf-dir")]
    pub(crate) cni_conf_dir: PathBuf,
    #[command(flatten)]
    pub(crate) node: Node,
    /// Directory of what the node's daemons are to keep over a restart.
    #[arg(long, env = "TWILL_STATE_DIR", default_value = names::STATE_DIR)]
    pub(crate) state_dir: PathBuf,
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
    /// When nothing is left, wait for a signal: for supervisors that would start it again.
    #[arg(long, conflicts_with = "cluster")]
    pub(crate) stay: bool,
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
    let parsed = text.parse::<jiff::SignedDuration>().ok().and_then(|parsed| Duration::try_from(parsed).ok());
    parsed.ok_or_else(|| "it is no duration; write e.g. 90s, 2m or 1m30s".to_owned())
}

/// `LEVEL` or `TARGET=LEVEL`, several of them with commas. Anything else would be taken for the name of a module that says nothing.
fn log_filter(text: &str) -> Result<String, String> {
    let level = |word: &str| ["off", "error", "warn", "info", "debug", "trace"].contains(&word.to_lowercase().as_str());
    let known = |directive: &str| {
        // A directive with spans is left to the filter itself.
        directive.is_empty()
            || directive.contains('[')
            || level(directive.rsplit('=').next().unwrap_or_default().trim())
    };
    match text.split(',').find(|directive| !known(directive.trim())) {
        None => Ok(text.to_owned()),
        Some(other) => {
            Err(format!("{other:?} is no level; write off, error, warn, info, debug or trace, or TARGET=LEVEL"))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_of_every_command_is_sound() {
        Args::command().debug_assert();
    }

    /// What the manifest has the image run: the containers of every pod.
    #[allow(clippy::unwrap_used)]
    fn deployed() -> Vec<(String, Vec<String>)> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/twill.yaml");
        let text = std::fs::read_to_string(path).unwrap();
        let objects: Vec<serde_json::Value> = serde_saphyr::from_multiple(&text).unwrap();
        let mut containers = Vec::new();
        for object in &objects {
            let pod = &object["spec"]["template"]["spec"];
            for container in ["initContainers", "containers"].iter().filter_map(|list| pod[*list].as_array()).flatten()
            {
                let words = |list: &str| {
                    container[list].as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned())
                };
                containers.push((
                    container["name"].as_str().unwrap().to_owned(),
                    words("command").chain(words("args")).collect(),
                ));
                let probes = ["startupProbe", "livenessProbe", "readinessProbe"]
                    .map(|probe| &container[probe]["exec"]["command"]);
                for words in probes.into_iter().filter_map(|words| words.as_array()) {
                    let words = words.iter().map(|word| word.as_str().unwrap().to_owned());
                    containers.push((container["name"].as_str().unwrap().to_owned(), words.collect()));
                }
            }
        }
        containers
    }

    #[test]
    fn what_the_manifest_runs_is_understood() {
        let deployed = deployed();
        for (container, count) in [("install", 1), ("bgpd", 4), ("felix", 4)] {
            let mine: Vec<_> = deployed.iter().filter(|(name, _)| name == container).collect();
            assert_eq!(mine.len(), count, "{container} and its probes");
            for (_, words) in mine {
                assert!(Args::try_parse_from(words).is_ok(), "{container}: {words:?}");
            }
        }
    }

    #[test]
    #[allow(clippy::unwrap_used)]
    fn the_chart_has_the_version_of_the_workspace() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/helm/twill/Chart.yaml");
        let chart: serde_json::Value = serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!((&chart["version"], &chart["appVersion"]), (&version.into(), &version.into()));
    }

    #[test]
    fn durations_carry_their_unit() {
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert!(duration("-1s").is_err() && duration("2").is_err() && duration("").is_err());
        assert_eq!(duration("5x").unwrap_err(), "it is no duration; write e.g. 90s, 2m or 1m30s");
    }

    #[test]
    fn a_level_is_one_that_exists() {
        for good in ["info", "DEBUG", "twill_bgpd=debug,info", "", "off", "twill_felix::io=trace", "[span]=info"] {
            assert_eq!(log_filter(good).as_deref(), Ok(good));
        }
        for bad in ["bogus", "info,bogus", "twill_bgpd=loud", "twill_bgpd="] {
            assert!(log_filter(bad).is_err(), "{bad}");
        }
    }
}
