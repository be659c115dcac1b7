//! Performs the steps of a claim on the datastore.

use crate::claim::{Claim, Seen, Step};
use crate::full::PoolFull;
use crate::owner::Owner;
use crate::pool::Pool;
use twill_crds::{IPBlock, IPBlockSpec, Object, names};
use twill_datastore::{Datastore, Error, Filter, Key, Preconditions, Revision};

/// Why no block could be claimed.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// No place is left in the pool.
    #[error(transparent)]
    Full(#[from] PoolFull),
    /// The datastore failed.
    #[error(transparent)]
    Datastore(#[from] Error),
}

/// A block as the allocator sees it.
#[must_use]
pub fn seen(block: &IPBlock) -> Seen {
    let IPBlockSpec { cidr, node, claimant } = block.spec.clone();
    Seen { cidr, node, claimant, used: block.status.as_ref().map(|status| status.used) }
}

/// Claims one block of a pool for its owner; `known` are the blocks heard of so far, stale or not. A pool that is as large as its
/// blocks means this one block or none. Returns the block as it was created.
///
/// # Errors
/// [`ClaimError::Full`] names the pool and its use. After [`ClaimError::Datastore`] a block may have been created and not
/// verified; whoever finds it later among the node's own must verify it as well.
///
/// # Panics
/// Never: a claim stands only after its block was created.
pub async fn claim(store: &Datastore, pool: &Pool, owner: &Owner, known: Vec<Seen>) -> Result<IPBlock, ClaimError> {
    perform(store, Claim::new(&pool.name, pool.cidr, pool.block_len, owner, known)).await
}

/// Performs a claim.
///
/// # Errors
/// As [`claim`].
///
/// # Panics
/// As [`claim`].
pub async fn perform(store: &Datastore, mut claim: Claim) -> Result<IPBlock, ClaimError> {
    let mut created: Option<IPBlock> = None;
    loop {
        match claim.step() {
            Step::Create(cidr) => {
                let Owner { node, claimant } = claim.owner().clone();
                let spec = IPBlockSpec { cidr, node, claimant: Some(claimant) };
                let block = IPBlock::new(&names::block_name(cidr), spec);
                match store.create(&block).await {
                    Ok(block) => {
                        created = Some(block);
                        claim.created(cidr);
                    }
                    Err(Error::AlreadyExists(_)) => claim.taken(cidr),
                    Err(other) => return Err(other.into()),
                }
            }
            Step::List => {
                let list = store.list::<IPBlock>(&Filter::default()).await?;
                claim.listed(list.items.iter().map(seen).collect());
            }
            Step::Delete(cidr) => {
                tracing::info!(block = %cidr, "another block overlaps the one just created; giving it back");
                if let Some(block) = &created {
                    delete(store, block).await?;
                }
                claim.deleted();
            }
            Step::Claimed(_) => return Ok(created.expect("a claim stands only after its block was created")),
            Step::Full(full) => return Err(full.into()),
        }
    }
}

/// Deletes a block exactly as it was seen. Whether it is gone; else somebody has written it since.
///
/// # Errors
/// The datastore failed.
pub async fn delete(store: &Datastore, block: &IPBlock) -> Result<bool, Error> {
    let preconditions = Preconditions { uid: block.metadata.uid.clone(), revision: revision(block) };
    match store.delete::<IPBlock>(&Key::cluster(block.name()), &preconditions).await {
        Ok(()) | Err(Error::NotFound(_)) => Ok(true),
        Err(Error::Conflict(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The revision of a block as it was read.
#[must_use]
pub fn revision(block: &IPBlock) -> Option<Revision> {
    block.metadata.resource_version.as_ref()?.parse().ok().map(Revision)
}
