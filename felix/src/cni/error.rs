//! Why a call fails, in the codes of the specification and in one sentence.

use twill_crds::cni::{
    CniError, ERR_ADDRESS_REFUSED, ERR_DIFFERS, ERR_INVALID_CONFIG, ERR_INVALID_ENVIRONMENT, ERR_IO, ERR_KERNEL,
    ERR_LIMITED, ERR_NO_ADDRESS, ERR_NOT_AVAILABLE, ERR_PORT_TAKEN, ERR_STORE, ERR_TRY_AGAIN, ERR_UNKNOWN_CONTAINER,
    ERR_UNSUPPORTED_FIELD,
};

/// Version that errors carry when the configuration asks for none.
const NEWEST: &str = "1.1.0";

/// What kind of failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A field of the configuration is not supported.
    UnsupportedField,
    /// A field of the configuration has a wrong value.
    InvalidConfig,
    /// An environment variable is wrong.
    InvalidEnvironment,
    /// The network namespace does not exist: nothing is left to clean up.
    UnknownContainer,
    /// Not now.
    TryAgain,
    /// No address is left.
    NoAddress,
    /// A port of the node that was asked for is another's.
    PortTaken,
    /// The kernel refused.
    Kernel,
    /// The local store cannot be written.
    Store,
    /// An address that was asked for cannot be given.
    AddressRefused,
    /// STATUS: an ADD would fail now.
    NotAvailable,
    /// STATUS: the same, and pods that run may suffer.
    Limited,
    /// CHECK: something is not as it was attached.
    Differs,
    /// Anything else.
    Io,
}

/// A failed call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Its kind.
    pub reason: Reason,
    /// One sentence.
    pub message: String,
    /// What to do next; may be empty.
    pub details: &'static str,
}

impl Failure {
    /// A failure with the details of its kind.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        let details = match reason {
            Reason::TryAgain => "the runtime tries again by itself; twill status shows what felix waits for",
            Reason::NoAddress => "twill ipam show",
            Reason::PortTaken => "a port of a node leads to one pod; the runtime tries again by itself",
            Reason::Store => "df on felix's state directory, then try again",
            Reason::Kernel => "journalctl -u twill-felix",
            Reason::AddressRefused => "twill ipam show",
            Reason::NotAvailable | Reason::Limited => "twill status",
            Reason::Differs => {
                "twill status shows what felix puts right by itself; delete the pod if that does not help"
            }
            _ => "",
        };
        Self { reason, message: message.into(), details }
    }

    /// The error object for a configuration that asks for `version`.
    #[must_use]
    pub fn object(&self, version: &str) -> CniError {
        CniError {
            cni_version: if version.is_empty() { NEWEST } else { version }.to_owned(),
            code: match self.reason {
                Reason::UnsupportedField => ERR_UNSUPPORTED_FIELD,
                Reason::InvalidConfig => ERR_INVALID_CONFIG,
                Reason::InvalidEnvironment => ERR_INVALID_ENVIRONMENT,
                Reason::UnknownContainer => ERR_UNKNOWN_CONTAINER,
                Reason::TryAgain => ERR_TRY_AGAIN,
                Reason::NoAddress => ERR_NO_ADDRESS,
                Reason::PortTaken => ERR_PORT_TAKEN,
                Reason::Kernel => ERR_KERNEL,
                Reason::Store => ERR_STORE,
                Reason::AddressRefused => ERR_ADDRESS_REFUSED,
                Reason::NotAvailable => ERR_NOT_AVAILABLE,
                Reason::Limited => ERR_LIMITED,
                Reason::Differs => ERR_DIFFERS,
                Reason::Io => ERR_IO,
            },
            msg: self.message.clone(),
            details: self.details.to_owned(),
        }
    }
}
