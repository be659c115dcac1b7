//! What the nodes are to a peer (RFC 9234).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The part of the nodes towards a peer of another AS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RoleSpec {
    /// `Customer` where the peer gives the nodes transit, as a ToR does; `Provider` the other way round; `Peer` where both exchange their own
    /// routes; `RouteServer` and `RouteServerClient`. The peer must be the counterpart of it, or the session is refused. Routes that are
    /// for customers alone (Only to Customer) are not taken from elsewhere, nor told to others.
    pub local: BgpRole,
    /// Whether the peer has to say its own part. By default one that says nothing is believed.
    #[serde(default)]
    pub strict: bool,
}

/// A part that a speaker plays towards its peer (RFC 9234 section 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BgpRole {
    /// Gives transit.
    Provider,
    /// Has transit from the peer.
    Customer,
    /// Both exchange their own routes and their customers'.
    Peer,
    /// Tells each client the routes of the others.
    RouteServer,
    /// Is a client of a route server.
    RouteServerClient,
}
