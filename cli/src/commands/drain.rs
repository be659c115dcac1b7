//! `twill drain`: nodes out of routing, and back.
//!
//! What is wanted goes into the node's NodeNetwork, so that it outlives a restart; its bgpd closes all sessions with Cease, and says
//! in the condition `Drained` when that is done. From then on no peer has a route of the node. New pods would have no network, so
//! the Node is cordoned, too.

use crate::args::Drain;
use crate::io::with_store;
use crate::output::{Format, print_line, print_value};
use anyhow::bail;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use twill_crds::{Node, NodeNetwork, NodeNetworkSpec, Object};
use twill_datastore::{Datastore, Error, Key};

/// Between two looks at what a node says.
const LOOK: Duration = Duration::from_millis(100);

pub(crate) fn run(args: &Drain) -> anyhow::Result<ExitCode> {
    let (drain, word) = if args.undo { (false, "back in routing") } else { (true, "drained") };
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
        for node in &args.node {
            loop {
                let (wanted, done, why) = said(&store, node).await?;
                if wanted != drain {
                    bail!(
                        "Node {node} was {} by somebody else meanwhile",
                        if wanted { "drained" } else { "brought back" }
                    );
                }
                if done == drain {
                    break;
                }
                if Instant::now() >= deadline {
                    let why = why.unwrap_or_else(|| "it obeys once it runs and reaches the datastore".to_owned());
                    bail!(
                        "bgpd of Node {node} has not said within {} s that it is {word} ({why}); the wish stands: twill get \
                         nodenetwork {node} -o yaml",
                        args.timeout.as_secs()
                    );
                }
                tokio::time::sleep(LOOK).await;
            }
            if !drain {
                cordon(&store, node, false).await?;
            }
        }
        match args.output.output {
            Format::Table => args.node.iter().try_for_each(|node| print_line(&format!("{node} {word}")))?,
            format => print_value(format, &args.node)?,
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Whether the node is to be drained, whether its bgpd says that its sessions are closed because of that, and else why not.
async fn said(store: &Datastore, node: &str) -> Result<(bool, bool, Option<String>), Error> {
    let Some(network) = store.get::<NodeNetwork>(&Key::cluster(node)).await? else { return Ok((false, false, None)) };
    let conditions = network.status.map(|status| status.bgp.conditions).unwrap_or_default();
    let drained = conditions.into_iter().find(|condition| condition.type_ == "Drained");
    let done = drained.as_ref().is_some_and(|condition| condition.status == "True");
    let why = drained.map(|condition| condition.message).filter(|why| !why.is_empty());
    Ok((network.spec.drain, done, why))
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
async fn change<K: Object>(
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
