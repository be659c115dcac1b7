//! What can go wrong, in the words a caller acts on.

use crate::engine::Key;

/// A failed call. `what` is `Kind name` or `Kind namespace/name`.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// Create: the name is taken.
    #[error("{0} exists already")]
    AlreadyExists(String),
    /// Update, status update, delete: there is no such object.
    #[error("{0} does not exist")]
    NotFound(String),
    /// Update or delete: the object changed since it was read, or has another UID. Read again, decide again.
    #[error("{0} was changed by somebody else meanwhile; read it again")]
    Conflict(String),
    /// Watch: the revision is no longer kept. List again and watch from there.
    #[error("the revision to watch from is no longer kept; list again")]
    Expired,
    /// The object breaks a rule of its kind.
    #[error(transparent)]
    Invalid(#[from] twill_crds::validate::Invalid),
    /// A stored object cannot be read as its type. Lists and watches skip it and say so in the log.
    #[error("{what} cannot be read: {problem}")]
    Malformed {
        /// Kind and name.
        what: String,
        /// What the decoder said.
        problem: String,
    },
    /// The engine cannot be reached or refuses to work now; try again later.
    #[error("the datastore does not answer: {0}")]
    Unavailable(String),
    /// The engine's storage is full.
    #[error("the datastore has no space left: {0}")]
    Full(String),
    /// The engine does not let us do this, and will not until somebody grants it.
    #[error("{who} may not {what}; grant it that right")]
    Forbidden {
        /// Verb and resource.
        what: String,
        /// The user that we are to the engine.
        who: String,
    },
    /// The engine does not know this kind; a sentence that says what to install.
    #[error("{0}")]
    UnknownKind(String),
    /// The engine's address or file is wrong.
    #[error("datastore {url}: {problem}")]
    Open {
        /// As it was given.
        url: String,
        /// What is wrong with it and what would be right.
        problem: String,
    },
}

impl Error {
    /// `Kind namespace/name`, for the messages above.
    #[must_use]
    pub fn what(kind: &twill_crds::Kind, key: &Key) -> String {
        format!("{} {key}", kind.kind)
    }
}
