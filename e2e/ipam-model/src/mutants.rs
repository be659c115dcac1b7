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
}
