//! Where an attachment comes from: the network that it belongs to, the call that made it, and what of it is ours.

/// The origin of an attachment. That of a release which did not say is the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// Name of the network in the runtime's configuration; empty if it is not known.
    pub network: String,
    /// The call that made it, as `twill_crds::cni::Generation` has it as text; empty if it is not known.
    pub generation: String,
    /// What of it is ours.
    pub kind: Kind,
}

/// What of an attachment is ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Interface and addresses.
    #[default]
    Workload,
    /// The interface; the addresses are another plugin's, which also takes them back.
    Foreign,
    /// The addresses; another plugin makes the interface.
    Lent,
}

impl Kind {
    /// As the store has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Workload => "workload",
            Self::Foreign => "foreign",
            Self::Lent => "lent",
        }
    }

    /// From the store; what a later release wrote counts as [`Kind::Workload`].
    #[must_use]
    pub fn parse(text: &str) -> Self {
        match text {
            "foreign" => Self::Foreign,
            "lent" => Self::Lent,
            _ => Self::Workload,
        }
    }
}
