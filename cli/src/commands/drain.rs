//! `twill drain`: nodes out of routing, and back.
//!
//! What is wanted goes into the node's NodeNetwork, so that it outlives a restart; its bgpd closes all sessions with Cease, and says
//! in the condition `Drained` when that is done. From then on no peer has a route of the node. Pods there reach, and are reached by, only
//! each other; new ones would have no network, so the Node is cordoned, too.

use crate::args::Drain;
use crate::commands::{exit, is_attached};
use crate::io::with_store;
use crate::output::{Format, print_line, print_value};
use anyhow::bail;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use twill_crds::{Node, NodeNetwork, NodeNetworkSpec, Object, Pod};
use twill_datastore::{Datastore, Error, Filter, Key};

/// Between two looks at what a node says.
const LOOK: Duration = Duration::from_millis(100);
/// How long sessions of a node that is back may take. One whose peer is gone never comes, and is no reason to wait for ever.
const SESSIONS: Duration = Duration::from_secs(20);

pub(crate) fn run(args: &Drain) -> anyhow::Result<ExitCode> {
    let drain = !args.undo;
    with_store(&args.store.datastore, async |store| {
        for node in &args.node {
            if store.get::<Node>(&Key::cluster(node)).await?.is_none() {
                bail!("Node {node} does not exist; see: twill get nodes");
            }
        }
        for node in &args.node {
            if drain {
                cordon(&store, node, true).await?;
            }
            ask(&store, node, drain).await?;
        }
        let deadline = Instant::now() + args.timeout;
        let mut outcomes = Vec::new();
        for node in &args.node {
            obeyed(&store, node, args, deadline).await?;
            let outcome =
                if drain { unreachable(&store, node).await? } else { sessions(&store, node, deadline).await? };
            outcomes.push(outcome);
            if !drain {
                cordon(&store, node, false).await?;
            }
        }
        match args.output.output {
            Format::Table => outcomes.iter().try_for_each(|outcome| print_line(&outcome.text))?,
            format => print_value(format, &args.node)?,
        }
        Ok(exit(outcomes.iter().all(|outcome| outcome.well)))
    })
}

/// What became of a node.
struct Outcome {
    text: String,
    well: bool,
}

/// Returns when the node's bgpd has done what was asked.
async fn obeyed(store: &Datastore, node: &str, args: &Drain, deadline: Instant) -> anyhow::Result<()> {
    let drain = !args.undo;
    loop {
        let said = said(store, node).await?;
        if said.wanted != drain {
            bail!(
                "Node {node} was {} by somebody else meanwhile",
                if said.wanted { "drained" } else { "brought back" }
            );
        }
        if said.drained == drain {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let why = said.why.unwrap_or_else(|| "it obeys once it runs and reaches the datastore".to_owned());
            bail!(
                "bgpd of Node {node} has not said within {} s that it is {} ({why}); the wish stands: twill get nodenetwork {node} -o \
                 yaml",
                args.timeout.as_secs(),
                if drain { "drained" } else { "back in routing" },
            );
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What the end of its routes means for the pods that a node has.
async fn unreachable(store: &Datastore, node: &str) -> anyhow::Result<Outcome> {
    let pods = store.list::<Pod>(&Filter::default()).await?.items;
    let here = |pod: &&Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node);
    let text = match pods.iter().filter(here).filter(|pod| is_attached(pod)).count() {
        0 => format!("{node} drained"),
        1 => format!(
            "{node} drained; 1 pod runs on there, and no other node reaches it until: twill drain {node} --undo"
        ),
        n => format!(
            "{node} drained; {n} pods run on there, and no other node reaches them until: twill drain {node} --undo"
        ),
    };
    Ok(Outcome { text, well: true })
}

/// Waits until a node that is back has its sessions, for as long as they take where all peers are there.
async fn sessions(store: &Datastore, node: &str, deadline: Instant) -> anyhow::Result<Outcome> {
    let until = deadline.min(Instant::now() + SESSIONS);
    loop {
        let said = said(store, node).await?;
        let Some(missing) = said.missing else {
            return Ok(Outcome { text: format!("{node} back in routing"), well: true });
        };
        if Instant::now() >= until {
            let text = format!("{node} back in routing, but {missing} yet; see, there: twill peers");
            return Ok(Outcome { text, well: false });
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What a node's NodeNetwork says.
#[derive(Default)]
struct Said {
    /// Whether the node is to be drained.
    wanted: bool,
    /// Whether its bgpd says that its sessions are closed because of that.
    drained: bool,
    /// Why they are not.
    why: Option<String>,
    /// Which sessions are not established, of a node that is not drained.
    missing: Option<String>,
}

async fn said(store: &Datastore, node: &str) -> Result<Said, Error> {
    let Some(network) = store.get::<NodeNetwork>(&Key::cluster(node)).await? else { return Ok(Said::default()) };
    let conditions = network.status.map(|status| status.bgp.conditions).unwrap_or_default();
    let of = |kind: &str| conditions.iter().find(|condition| condition.type_ == kind);
    let drained = of("Drained");
    let missing = match of("SessionsEstablished") {
        Some(condition) if condition.status == "True" => None,
        Some(condition) => Some(condition.message.clone()),
        None => Some("bgpd has not said that its sessions are established".to_owned()),
    };
    Ok(Said {
        wanted: network.spec.drain,
        drained: drained.is_some_and(|condition| condition.status == "True"),
        why: drained.map(|condition| condition.message.clone()).filter(|why| !why.is_empty()),
        missing,
    })
}

/// Writes what is wanted of the node.
async fn ask(store: &Datastore, node: &str, drain: bool) -> Result<(), Error> {
    change(store, node, Some(NodeNetwork::new(node, NodeNetworkSpec::default())), |network: &mut NodeNetwork| {
        std::mem::replace(&mut network.spec.drain, drain) != drain
    })
    .await
}

/// Whether a scheduler may place pods there.
async fn cordon(store: &Datastore, node: &str, cordoned: bool) -> Result<(), Error> {
    change(store, node, None, |node: &mut Node| {
        let spec = node.spec.get_or_insert_default();
        let wanted = cordoned.then_some(true);
        let changed = spec.unschedulable.unwrap_or_default() != cordoned;
        spec.unschedulable = wanted;
        changed
    })
    .await
}

/// Changes an object, whoever else writes it meanwhile; `missing` is created first where there is none.
pub(super) async fn change<K: Object>(
    store: &Datastore,
    name: &str,
    missing: Option<K>,
    change: impl Fn(&mut K) -> bool,
) -> Result<(), Error> {
    loop {
        let mut object = match (store.get::<K>(&Key::cluster(name)).await?, &missing) {
            (Some(object), _) => object,
            (None, None) => return Ok(()),
            (None, Some(new)) => match store.create(new).await {
                Err(Error::AlreadyExists(_)) => continue,
                created => created?,
            },
        };
        if !change(&mut object) {
            return Ok(());
        }
        match store.update(&object).await {
            Err(Error::Conflict(_)) => {}
            updated => return updated.map(|_| ()),
        }
    }
}
