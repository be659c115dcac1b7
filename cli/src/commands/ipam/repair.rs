//! `twill ipam check --repair`: what deleted nodes left is freed by the controller's own rules, for clusters where none runs.

use std::time::Duration;
use tokio::time::sleep;
use twill_controller::gone::{Gone, Outcome, Step};
use twill_controller::io::{Clock, perform};
use twill_controller::{Fact, World};
use twill_datastore::{Datastore, Filter, Followed};

/// Looks during a quarantine; the controller takes three for too few when one fails.
const LOOKS: u32 = 6;
/// Longest pause between two.
const LONGEST: Duration = Duration::from_secs(60);
/// Shortest pause.
const SHORTEST: Duration = Duration::from_millis(200);

/// Frees what may be freed, which takes the whole quarantine if there is anything. One sentence for each thing that was done, or was not and why.
pub(super) async fn run(store: &Datastore, quarantine: Duration) -> anyhow::Result<Vec<String>> {
    let (clock, mut gone) = (Clock::start(), Gone::new(quarantine));
    let mut world = World::default();
    let pause = (quarantine / LOOKS).clamp(SHORTEST, LONGEST);
    let mut said = Vec::new();
    loop {
        read(store, &mut world).await?;
        let first = gone.is_empty();
        for step in gone.observe(&mut world, milliseconds(&clock)) {
            perform_one(store, &mut gone, step, &clock, &mut said).await;
        }
        if gone.is_empty() || clock.elapsed() > quarantine + pause * 3 {
            said.extend(gone.problems());
            return Ok(said);
        }
        if first {
            let (nodes, seconds) = (gone.len(), quarantine.as_secs());
            tracing::info!(nodes, seconds, "nodes are gone and have left something; observed for the whole quarantine");
        }
        sleep(pause).await;
    }
}

async fn perform_one(store: &Datastore, gone: &mut Gone, step: Step, clock: &Clock, said: &mut Vec<String>) {
    match step {
        Step::Look { node } => {
            let pods = perform::pods_of(store, &node).await.ok();
            gone.looked(&node, pods, milliseconds(clock));
        }
        Step::Free(left) => {
            let outcome = perform::free(store, &left).await;
            if let Outcome::Freed(blocks, network) = &outcome {
                let freed = blocks.iter().map(|block| format!("IPBlock {} of node {} freed", block.cidr(), left.node));
                said.extend(freed.chain(network.then(|| format!("NodeNetwork {} deleted", left.node))));
            }
            gone.freed(&left.node, &outcome, milliseconds(clock));
        }
        // What hinders is said at the end.
        Step::Say(_) => {}
    }
}

async fn read(store: &Datastore, world: &mut World) -> anyhow::Result<()> {
    world.hear(Fact::node(synced(store).await?));
    world.hear(Fact::Network(synced(store).await?));
    world.hear(Fact::Block(synced(store).await?));
    Ok(())
}

async fn synced<K: twill_crds::Object>(store: &Datastore) -> anyhow::Result<Followed<K>> {
    let all = store.list::<K>(&Filter::default()).await?;
    Ok(Followed::Synced { items: all.items, revision: all.revision })
}

fn milliseconds(clock: &Clock) -> u64 {
    u64::try_from(clock.elapsed().as_millis()).unwrap_or(u64::MAX)
}
