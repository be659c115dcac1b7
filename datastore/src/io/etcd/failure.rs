//! What etcd's refusals mean, and what they are in the words a caller acts on.

use crate::Error;
use tonic::{Code, ConnectError, Status};

/// Why a call came to nothing.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Failure {
    /// This server is not there, or cannot do it now. `sent`: it may have done it all the same.
    Away { problem: String, sent: bool },
    /// The token that we logged in for does not count any more.
    Token,
    /// User and password are not right.
    Login(String),
    /// Logging in is not needed: etcd's authentication is off.
    NoLogin,
    /// etcd wants to know who we are.
    Nobody,
    /// We may not do this.
    Forbidden,
    /// The quota is used up.
    Full,
    /// The value is more than the server takes.
    TooLarge(String),
    /// The answer is more than we take.
    TooMuch,
    /// The revision is compacted.
    Compacted,
    /// Another datastore than before, or none, is there.
    Place(String),
}

impl Failure {
    pub(super) fn of(error: &etcd_client::Error) -> Self {
        match error {
            etcd_client::Error::GRpcStatus(status) => Self::of_status(status),
            other => Self::Away { problem: causes(other), sent: true },
        }
    }

    fn of_status(status: &Status) -> Self {
        let text = status.message();
        let says = |part: &str| text.contains(part);
        match status.code() {
            Code::Unauthenticated => Self::Token,
            Code::InvalidArgument if says("revision of auth store is old") => Self::Token,
            Code::InvalidArgument if says("authentication failed") => Self::Login(text.to_owned()),
            Code::InvalidArgument if says("user name is empty") => Self::Nobody,
            Code::InvalidArgument if says("request is too large") => Self::TooLarge(text.to_owned()),
            Code::FailedPrecondition if says("authentication is not enabled") => Self::NoLogin,
            Code::PermissionDenied => Self::Forbidden,
            Code::ResourceExhausted if says("space exceeded") => Self::Full,
            Code::ResourceExhausted if says("larger than max") => Self::TooLarge(text.to_owned()),
            Code::OutOfRange if says("compacted") => Self::Compacted,
            // It was put back to before that: what was told is as little of its history as what is compacted.
            Code::OutOfRange if says("future revision") => Self::Compacted,
            Code::OutOfRange if says("decoded message length") => Self::TooMuch,
            _ => Self::Away { problem: causes(status), sent: !never_sent(status) },
        }
    }

    /// Why a server ended a watch.
    pub(super) fn of_cancel(reason: &str) -> Self {
        let says = |part: &str| reason.contains(part);
        if says("compacted") {
            Self::Compacted
        } else if says("auth token") || says("auth store is old") {
            Self::Token
        } else if says("user name is empty") {
            Self::Nobody
        } else if says("permission denied") {
            Self::Forbidden
        } else {
            Self::Away { problem: format!("the server ended the watch: {reason}"), sent: true }
        }
    }

    /// In a caller's words. `who` logs in, `what` is what it wanted, and on which keys.
    pub(super) fn error(self, who: &str, what: impl FnOnce() -> String) -> Error {
        match self {
            Self::Away { problem, .. } | Self::Place(problem) => Error::Unavailable(problem),
            Self::Token => Error::Unavailable("etcd does not take the token that it gave us; trying again".into()),
            Self::NoLogin => Error::Unavailable("etcd's authentication was switched off; trying again".into()),
            Self::Login(problem) => Error::Forbidden {
                what: format!("log in with what is in the file that passwordFile names ({problem})"),
                who: who.to_owned(),
            },
            Self::Nobody => Error::Forbidden {
                what: format!(
                    "{}: its authentication is on; add ?user=NAME&passwordFile=FILE to the datastore's URL, or a client \
                     certificate",
                    what()
                ),
                who: who.to_owned(),
            },
            Self::Forbidden => Error::Forbidden { what: what(), who: who.to_owned() },
            Self::Full => Error::Full(
                "etcd's quota is used up; compact and defragment it or raise --quota-backend-bytes, then etcdctl alarm disarm"
                    .into(),
            ),
            Self::TooLarge(problem) => Error::Unavailable(format!("{}: {problem}", what())),
            Self::TooMuch => Error::Unavailable(format!("{}: the answer is too long", what())),
            Self::Compacted => Error::Expired,
        }
    }
}

/// Whether no connection could be made, so that the server knows nothing of the call.
fn never_sent(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    // What a member without a leader says before it looks at the call.
    status.message().contains("etcdserver: no leader")
}

/// An error and its causes in one line.
pub(super) fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = match error.downcast_ref::<Status>() {
        Some(status) => status.message().to_owned(),
        None => error.to_string(),
    };
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_etcd_refuses_is_what_a_caller_acts_on() {
        let of = |code, text: &str| Failure::of(&etcd_client::Error::GRpcStatus(Status::new(code, text)));
        let cases = [
            (Code::Unauthenticated, "etcdserver: invalid auth token", Failure::Token),
            (Code::InvalidArgument, "etcdserver: revision of auth store is old", Failure::Token),
            (Code::InvalidArgument, "etcdserver: user name is empty", Failure::Nobody),
            (Code::FailedPrecondition, "etcdserver: authentication is not enabled", Failure::NoLogin),
            (Code::PermissionDenied, "etcdserver: permission denied", Failure::Forbidden),
            (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded", Failure::Full),
            (Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted", Failure::Compacted),
            (Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision", Failure::Compacted),
        ];
        for (code, text, expected) in cases {
            assert_eq!(of(code, text), expected, "{text}");
        }
        assert!(matches!(of(Code::InvalidArgument, "etcdserver: request is too large"), Failure::TooLarge(_)));
        assert!(matches!(of(Code::Unavailable, "etcdserver: leader changed"), Failure::Away { sent: true, .. }));
        assert!(matches!(of(Code::Unavailable, "etcdserver: no leader"), Failure::Away { sent: false, .. }));
        let refused = [("permission denied", Failure::Forbidden), ("user name is empty", Failure::Nobody)];
        for (text, expected) in refused {
            let reason = format!("rpc error: code = PermissionDenied desc = etcdserver: {text}");
            assert_eq!(Failure::of_cancel(&reason), expected, "{text}");
        }
    }
}
