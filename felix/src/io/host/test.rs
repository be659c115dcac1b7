//! The self-test of a trial: whether the node still does what it cannot do without, by connections that are opened now.

use super::facts::established;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;
use twill_datastore::Datastore;

/// How long the datastore may take.
const ANSWER: Duration = Duration::from_secs(5);

/// What is tested.
#[derive(Clone, Debug)]
pub struct Test {
    /// The datastore.
    pub url: String,
    /// Where bgpd's socket is.
    pub run_dir: PathBuf,
    /// Peers with which there were sessions before.
    pub sessions: BTreeSet<IpAddr>,
}

impl Test {
    /// Performs it.
    ///
    /// # Errors
    /// What did not succeed, one sentence.
    pub async fn run(self) -> Result<(), String> {
        let anew = async {
            let datastore = Datastore::open_existing_as(&self.url, "felix").await?;
            datastore.identity().await
        };
        match tokio::time::timeout(ANSWER, anew).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(format!("the datastore was not reached by a new connection: {error}")),
            Err(_) => {
                return Err(format!("the datastore did not answer a new connection within {} s", ANSWER.as_secs()));
            }
        }
        if self.sessions.is_empty() {
            return Ok(());
        }
        let now = established(&self.run_dir).await?;
        match self.sessions.iter().find(|peer| !now.contains(*peer)) {
            Some(lost) => Err(format!("the BGP session with {lost} is down")),
            None => Ok(()),
        }
    }
}
