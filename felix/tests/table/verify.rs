//! Who looks whether the kernel holds what is meant keeps nobody from committing.

use crate::structure::{rich, runtime};
use crate::world::Namespace;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use twill_felix::base::{self, Settings, name, skeleton};
use twill_felix::io::nft::{Error, Table};
use twill_felix::ruleset::{Delta, Key, Part, Value};

fn knows(interface: &str) -> Delta {
    let mut delta = Delta::default();
    delta.add_element(&name(base::KNOWN), Key::interface(interface), Value::Plain);
    delta
}

fn in_a_namespace<T: Send + 'static>(job: impl AsyncFnOnce(Table) -> T + Send + 'static) -> T {
    Namespace::new().run(move || {
        runtime().block_on(async {
            let (table, _events) = Table::open(skeleton(&Settings::default())).await.unwrap();
            table.resync(rich()).await.unwrap();
            job(table).await
        })
    })
}

#[test]
#[ignore = "needs root: make test"]
fn the_thread_that_commits_takes_no_part_in_a_comparison() {
    in_a_namespace(async |table| {
        let [before, after] = [table.meant().await.unwrap(), table.meant().await.unwrap()];
        // It commits while one compares, who says so.
        table.commit(knows("twlnew")).await.unwrap();
        let compared = before.compare().unwrap();
        assert!(!compared.undisturbed);
        assert_eq!(compared.verified.differs, BTreeSet::from([Part::Set(name(base::KNOWN))]));
        assert_eq!(compared.verified.meant, rich(), "of the moment at which it was asked");
        // And when it is gone the comparison goes on.
        drop(table);
        until_the_thread_has_ended().await;
        assert!(after.compare().unwrap().verified.differs.contains(&Part::Set(name(base::KNOWN))));
    });
}

#[test]
#[ignore = "needs root: make test"]
fn what_is_committed_while_the_kernel_is_read_is_no_difference() {
    in_a_namespace(async |table| {
        let commits = async {
            for n in 0..400 {
                table.commit(knows(&format!("twl{n}"))).await.unwrap();
            }
        };
        let looks = async {
            let mut found = BTreeSet::new();
            for _ in 0..40 {
                match table.verify().await {
                    Ok(verified) => found.extend(verified.differs),
                    // A slow look at a busy table says so.
                    Err(Error::Torn) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            found
        };
        let ((), found) = futures::join!(commits, looks);
        assert_eq!(found, BTreeSet::new());
        assert_eq!(table.verify().await.unwrap().meant.sets[&name(base::KNOWN)].elements.len(), known_in_rich() + 400);
    });
}

/// The thread of this namespace, which is the only one whose socket is bound here.
async fn until_the_thread_has_ended() {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        // A table whose owner lives answers EPERM to others, and adoption waits; one whose owner is gone is taken at once.
        let opened = Table::open(skeleton(&Settings::default()));
        if let Ok(Ok((adopted, _))) = tokio::time::timeout(Duration::from_millis(100), opened).await {
            assert!(matches!(adopted.meant().await, Err(Error::NotSynced)));
            return;
        }
        assert!(Instant::now() < end, "the thread ends with the last handle");
    }
}

fn known_in_rich() -> usize {
    rich().sets[&name(base::KNOWN)].elements.len()
}
