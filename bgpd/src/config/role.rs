//! `role` of a peer.

use crate::fsm::LocalRole;
use crate::wire::Role;
use serde::Deserialize;
use twill_crds::bgp_role::BgpRole;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct FileRole {
    local: BgpRole,
    #[serde(default)]
    strict: bool,
}

pub(super) fn role(file: &FileRole, external: bool) -> Result<LocalRole, String> {
    if !external {
        return Err("role is for peers in another AS (RFC 9234); leave it out".to_owned());
    }
    Ok(LocalRole { ours: Role::from(file.local), strict: file.strict })
}

impl From<BgpRole> for Role {
    fn from(role: BgpRole) -> Self {
        match role {
            BgpRole::Provider => Self::Provider,
            BgpRole::Customer => Self::Customer,
            BgpRole::Peer => Self::Peer,
            BgpRole::RouteServer => Self::RouteServer,
            BgpRole::RouteServerClient => Self::RouteServerClient,
        }
    }
}
