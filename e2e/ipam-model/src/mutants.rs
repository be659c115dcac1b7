//! What the check must find if it were so.

/// One safeguard that is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// Neither a consistent list nor what is heard shows whether blocks overlap. One of the two alone is enough for addresses: who hears of
    /// his own block has heard of all that were there before it.
    NoOverlap,
    /// A block gives addresses while others have a route for it.
    NoHoldBack,
    /// An address is given again at once.
    NoCoolDown,
    /// A block of one's name is given back without a quarantine.
    NoQuarantine,
    /// The controller does not look at pods.
    NoLook,
    /// While the datastore is away, addresses are given of any block.
    GivesUnheard,
    /// Empty blocks are given back before their addresses have rested.
    ReleasesWarm,
    /// A name is all that makes a block one's own.
    NameOwns,
    /// Blocks of gone nodes are never freed.
    NeverFrees,
    /// Addresses that are kept for a pod are given to others.
    GivesKept,
    /// A pod gets what is kept for it before it is written that it has it.
    TakesUnwritten,
    /// Who has kept addresses is written whatever was written meanwhile.
    NoCompare,
    /// Whether the pod exists that has kept addresses is not asked.
    NoLookAtHolder,
    /// Nor whether a route leads to them.
    NoLookAtRoutes,
    /// What is kept is taken at once of another node's block.
    TakesYoung,
    /// The place of a pod is taken as soon as it is gone.
    TakesFresh,
    /// While the datastore is away a pod gets what is kept for it.
    TakesUnheard,
    /// A pod whose kept address is elsewhere by now keeps it, too.
    NeverCutsKept,
    /// Nobody writes that nobody has what is kept.
    NeverGivesUp,
    /// What a pod has already by the time that it is kept for it is not written down.
    NeverWritesDown,
    /// What is kept is taken at once of another node's block that was just claimed.
    TakesNew,
    /// A holder on a node that is gone is freed while there is that node's block around what it has.
    FreesHolderFirst,
}
