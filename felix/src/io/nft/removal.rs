//! The end of the table: deleted as a whole, when felix has gone for good.

use super::actual::{self, TableState};
use super::batch;
use super::connection::{Connection, Outcome};
use super::{Error, Refusal};
use nix::errno::Errno;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Pause before a table that still has an owner is looked at again.
const PAUSE: Duration = Duration::from_millis(20);

/// Deletes the table from the calling thread's network namespace; says whether there was one. The table of a dead owner needs no
/// adoption: the kernel has taken the flag from it. One whose owner still lives, as a process that is just ending does, is waited
/// for that long.
///
/// # Errors
/// [`Error::Refused`] with EPERM: the owner lives. [`Error::Io`]: the kernel has no nf_tables, or this process no right to it.
pub fn remove(patience: Duration) -> Result<bool, Error> {
    let mut connection = Connection::open()?;
    let until = Instant::now() + patience;
    loop {
        let owned = match actual::table(&mut connection)? {
            None => return Ok(false),
            Some(TableState { owner: Some(_), .. }) => true,
            Some(_) => match connection.transact(&batch::deletion(connection.next_sequence()))? {
                Outcome::Committed => return Ok(true),
                // Somebody was faster: deleted it, or took it over.
                Outcome::Overtaken => false,
                Outcome::Refused(refusals) => match refusals.first().map(|one| one.errno) {
                    Some(Errno::ENOENT) => false,
                    Some(Errno::EPERM) => true,
                    _ => return Err(Error::Refused { refusals, parts: BTreeSet::new() }),
                },
            },
        };
        if Instant::now() >= until {
            let errno = if owned { Errno::EPERM } else { Errno::EAGAIN };
            let object = "deletion of table inet twill".to_owned();
            let refusals = vec![Refusal { object, part: None, errno }];
            return Err(Error::Refused { refusals, parts: BTreeSet::new() });
        }
        std::thread::sleep(PAUSE);
    }
}
