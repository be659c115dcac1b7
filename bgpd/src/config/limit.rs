//! `maxPrefixes` of a peer.

use crate::speaker::{Beyond, MaxPrefixes};
use serde::Deserialize;
use std::time::Duration;
use twill_crds::bgp_limit::{RETRY_AFTER, WhenExceeded};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct FileLimit {
    limit: u32,
    #[serde(default)]
    when_exceeded: WhenExceeded,
    retry_after: Option<u32>,
}

pub(super) fn max_prefixes(file: &FileLimit) -> Result<MaxPrefixes, String> {
    if file.limit == 0 {
        return Err("maxPrefixes: limit 0 would take nothing; use import: none for that, or at least 1".to_owned());
    }
    if file.retry_after.is_some() && file.when_exceeded != WhenExceeded::Close {
        return Err("maxPrefixes: retryAfter means something with whenExceeded: Close alone; leave one of the two out"
            .to_owned());
    }
    let retry = file.retry_after.unwrap_or(RETRY_AFTER);
    if retry == 0 {
        return Err("maxPrefixes: retryAfter 0 would have the session flap; use at least 1 second".to_owned());
    }
    let then = match file.when_exceeded {
        WhenExceeded::Close => Beyond::Close(Duration::from_secs(u64::from(retry))),
        WhenExceeded::Refuse => Beyond::Refuse,
        WhenExceeded::Warn => Beyond::Warn,
    };
    Ok(MaxPrefixes { limit: file.limit, then })
}
