//! What an admission check would refuse, for engines that have no API server: one sentence that names the object, the
//! field and the way out.

/// Why an object is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {name}: {field}: {problem}")]
pub struct Invalid {
    /// Kind of the object.
    pub kind: String,
    /// Its name, `namespace/name` if it has a namespace.
    pub name: String,
    /// Path of the field.
    pub field: String,
    /// What is wrong with it and what would be right.
    pub problem: String,
}
