//! The table as it is meant, and where the kernel is not that: read, compared and written down beside the agent's loop, whose thread this
//! runtime shares.

use super::Calls;
use crate::base;
use crate::compile::{User, Users};
use crate::io::agent::{Ask, Shown};
use crate::ruleset::Ruleset;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io;
use twill_crds::control::ListUser;

/// The answer to [`twill_crds::control::FelixRequest::Ruleset`], as JSON.
pub(super) async fn ruleset(calls: &Calls) -> io::Result<Vec<u8>> {
    let Some(shown) = calls.ask(Ask::Ruleset).await else { return Ok(serde_json::to_vec(&Value::Null)?) };
    let Shown { table, meant, users } = shown;
    let (meant, differs) = match table {
        Ok(table) => match table.verify().await {
            Ok(verified) => {
                let differs = verified.differs.iter().map(ToString::to_string).collect();
                (meant.unwrap_or(verified.meant), differs)
            }
            Err(error) => (meant.unwrap_or_default(), vec![error.to_string()]),
        },
        Err(sentence) => (meant.unwrap_or_default(), vec![sentence]),
    };
    let written = tokio::task::spawn_blocking(move || serde_json::to_vec(&value(&meant, &users, &differs)));
    Ok(written.await.map_err(io::Error::other)??)
}

fn value(meant: &Ruleset, users: &Users, differs: &[String]) -> Value {
    let user = |user: &User| ListUser {
        interface: user.interface.clone(),
        direction: user.blame.direction.to_string(),
        pod: user.blame.pod.to_string(),
        policies: user.blame.policies.iter().map(ToString::to_string).collect(),
    };
    let lists = meant.chains.keys().filter(|name| name.starts_with(base::LIST));
    let lists: BTreeMap<&str, Vec<ListUser>> =
        lists.map(|name| (&**name, users.of(name).map(user).collect())).collect();
    json!({"table": twill_crds::names::NFT_TABLE, "text": meant.to_string(), "lists": lists, "differs": differs})
}
