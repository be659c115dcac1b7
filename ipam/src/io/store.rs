//! The ledger in SQLite. Every change is one transaction, durable before it is remembered and before anybody hears of it.

use super::{identity, lent};
use crate::error::StoreError;
use crate::ledger::{Attachment, Ledger, Sandbox};
use crate::origin::{Kind, Origin};
use ipnet::IpNet;
use rusqlite::{Connection, ErrorCode, Transaction, params};
use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Name of the directory inside a node's state directory.
pub const DIRECTORY: &str = "ipam";
/// Name of the file inside the directory given to [`Store::open`].
pub const FILE: &str = "addresses.db";

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS block (cidr TEXT PRIMARY KEY, ready INTEGER NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS attachment (
        container_id TEXT NOT NULL, ifname TEXT NOT NULL, namespace TEXT NOT NULL, pod TEXT NOT NULL, uid TEXT NOT NULL,
        netns TEXT NOT NULL, boot_id TEXT NOT NULL, PRIMARY KEY (container_id, ifname)) STRICT;
    CREATE TABLE IF NOT EXISTS held (
        address TEXT PRIMARY KEY, container_id TEXT NOT NULL, ifname TEXT NOT NULL,
        FOREIGN KEY (container_id, ifname) REFERENCES attachment ON DELETE CASCADE) STRICT;
    CREATE TABLE IF NOT EXISTS origin (
        container_id TEXT NOT NULL, ifname TEXT NOT NULL, network TEXT NOT NULL, generation TEXT NOT NULL, kind TEXT NOT NULL,
        PRIMARY KEY (container_id, ifname),
        FOREIGN KEY (container_id, ifname) REFERENCES attachment ON DELETE CASCADE) STRICT;
    CREATE TABLE IF NOT EXISTS asked (
        container_id TEXT NOT NULL, ifname TEXT NOT NULL, text TEXT NOT NULL, PRIMARY KEY (container_id, ifname),
        FOREIGN KEY (container_id, ifname) REFERENCES attachment ON DELETE CASCADE) STRICT;
    CREATE TABLE IF NOT EXISTS idle (address TEXT PRIMARY KEY, since INTEGER NOT NULL) STRICT;
    PRAGMA user_version = 1;
";

/// The durable ledger of one node.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    connection: Connection,
    ledger: Ledger,
    idle: BTreeMap<IpAddr, u64>,
    fresh: Option<String>,
}

/// The files of a store in a directory: the store, its companions, damaged ones that were set aside, addresses that are lent, and its identity.
///
/// # Errors
/// The directory cannot be read. One that is not there has none.
pub fn files(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(FILE) || name.starts_with(identity::FILE) || name.starts_with(lent::PREFIX) {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

impl Store {
    /// Opens the store in a directory, which is made if it is missing (0700, the file 0600). A damaged file is moved aside and
    /// a new one begun, which knows what is lent and nothing else; [`Store::fresh`] tells. Idle times that lie after `now` become `now`.
    ///
    /// # Errors
    /// [`StoreError::Locked`], [`StoreError::Unwritable`], [`StoreError::Broken`].
    pub fn open(directory: &Path, now: u64) -> Result<Self, StoreError> {
        let path = directory.join(FILE);
        let unwritable = |e: std::io::Error| StoreError::Unwritable { path: path.clone(), problem: e.to_string() };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(unwritable)?;
        let existed = path.exists();
        fs::OpenOptions::new().create(true).append(true).mode(0o600).open(&path).map_err(unwritable)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(unwritable)?;
        match Self::load(&path, now) {
            Ok(mut store) => {
                store.fresh = (!existed).then(|| "there was none".to_owned());
                Ok(store)
            }
            Err(StoreError::Broken { problem, .. }) => {
                let aside = set_aside(&path, now).map_err(unwritable)?;
                fs::OpenOptions::new().create(true).append(true).mode(0o600).open(&path).map_err(unwritable)?;
                let mut store = Self::load(&path, now)?;
                store.fresh = Some(format!("the old one was damaged ({problem}) and is now {}", aside.display()));
                Ok(store)
            }
            Err(other) => Err(other),
        }
        .and_then(|mut store| store.match_lent(directory).map(|()| store))
    }

    /// What is lent, in the store and beside it, becomes the same. What the store does not know is taken in, whether it is new or was killed
    /// between file and transaction: an address too many is found gone with its namespace, one too few would have two holders.
    fn match_lent(&mut self, directory: &Path) -> Result<(), StoreError> {
        let unwritable =
            |e: std::io::Error| StoreError::Unwritable { path: directory.to_owned(), problem: e.to_string() };
        let kept = lent::kept(directory).map_err(unwritable)?;
        for attachment in &kept {
            if self.ledger.attachment(&attachment.sandbox).is_some() || self.ledger.check(attachment).is_err() {
                continue;
            }
            tracing::warn!(addresses = ?attachment.addresses, container = %attachment.sandbox.container_id,
                "addresses that are lent taken in from their files");
            self.attach(attachment.clone())?;
        }
        let lent: Vec<&Attachment> = self.ledger.attachments().filter(|held| held.origin.kind == Kind::Lent).collect();
        let held = |address: &IpAddr| lent.iter().any(|held| held.addresses.contains(address));
        let left: Vec<IpAddr> =
            kept.iter().flat_map(|kept| &kept.addresses).filter(|one| !held(one)).copied().collect();
        lent::forget(directory, &left).map_err(unwritable)?;
        let missing = lent.iter().filter(|held| !kept.contains(held));
        missing.into_iter().try_for_each(|held| lent::keep(directory, held)).map_err(unwritable)
    }

    fn load(path: &Path, now: u64) -> Result<Self, StoreError> {
        let fail = |e| failure(path, &e);
        let mut connection = Connection::open(path).map_err(fail)?;
        connection.busy_timeout(Duration::from_secs(3)).map_err(fail)?;
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE").map_err(fail)?;
        connection.pragma_update(None, "journal_mode", "WAL").map_err(fail)?;
        connection.pragma_update(None, "synchronous", "FULL").map_err(fail)?;
        connection.pragma_update(None, "foreign_keys", true).map_err(fail)?;
        let check: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(fail)?;
        if check != "ok" {
            return Err(StoreError::Broken { path: path.to_owned(), problem: check });
        }
        let transaction =
            connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).map_err(fail)?;
        transaction.execute_batch(SCHEMA).map_err(fail)?;
        transaction.commit().map_err(fail)?;
        let (ledger, idle) = read(&connection, now).map_err(fail)?;
        Ok(Self { path: path.to_owned(), connection, ledger, idle, fresh: None })
    }

    /// Why the store began empty, if it did. Then the caller looks into the kernel for what was attached before.
    #[must_use]
    pub fn fresh(&self) -> Option<&str> {
        self.fresh.as_deref()
    }

    /// Who has what, and what is idle.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Takes a block in, or changes its readiness.
    ///
    /// # Errors
    /// [`StoreError::Unwritable`], [`StoreError::Broken`].
    pub fn set_block(&mut self, cidr: IpNet, ready: bool) -> Result<(), StoreError> {
        if self.ledger.block(cidr).is_some_and(|block| block.ready == ready) {
            return Ok(());
        }
        self.write(|transaction| {
            transaction.execute(
                "INSERT INTO block VALUES (?1, ?2) ON CONFLICT DO UPDATE SET ready = ?2",
                params![cidr.to_string(), ready],
            )
        })?;
        self.ledger.add_block(cidr, ready, &self.idle);
        Ok(())
    }

    /// Forgets a block that is no longer ours. Attachments keep their addresses.
    ///
    /// # Errors
    /// As [`Store::set_block`].
    pub fn remove_block(&mut self, cidr: IpNet) -> Result<(), StoreError> {
        self.write(|transaction| transaction.execute("DELETE FROM block WHERE cidr = ?1", [cidr.to_string()]))?;
        self.ledger.remove_block(cidr);
        Ok(())
    }

    /// Remembers an attachment with its addresses; one of the same sandbox is renewed, and has the same addresses.
    ///
    /// # Errors
    /// [`StoreError::Held`] if somebody else has one of the addresses; else as [`Store::set_block`].
    pub fn attach(&mut self, attachment: Attachment) -> Result<(), StoreError> {
        self.put(attachment, None).map(drop)
    }

    /// The same in the place of what its sandbox had, of which all that it does not have itself rests from now on. Returns what was replaced.
    ///
    /// # Errors
    /// As [`Store::attach`]; then nothing has changed.
    pub fn replace(&mut self, attachment: Attachment, now: u64) -> Result<Option<Attachment>, StoreError> {
        self.put(attachment, Some(now))
    }

    fn put(&mut self, new: Attachment, replaced_at: Option<u64>) -> Result<Option<Attachment>, StoreError> {
        self.ledger.check(&new).map_err(|(address, holder)| StoreError::Held { address, holder })?;
        let old = replaced_at.and_then(|now| Some((self.ledger.attachment(&new.sandbox)?.clone(), now)));
        let resting: Vec<(IpAddr, u64)> =
            old.iter().flat_map(|(old, now)| resting(old, &new.addresses, *now)).collect();
        let directory = self.directory();
        let unwritable = |e: std::io::Error| StoreError::Unwritable { path: directory.clone(), problem: e.to_string() };
        // Before the store: should that be lost, there is an address too many and not one too few.
        if new.origin.kind == Kind::Lent {
            lent::keep(&directory, &new).map_err(unwritable)?;
        }
        let written = self.write(|transaction| {
            rest(transaction, &resting)?;
            insert(transaction, &new)
        });
        if written.is_err() {
            let before = self.ledger.attachment(&new.sandbox).map(|old| old.addresses.clone()).unwrap_or_default();
            forget_lent(&directory, &new, &before);
        }
        written?;
        self.idle.extend(resting);
        for address in &new.addresses {
            self.idle.remove(address);
        }
        if let Some((old, now)) = &old {
            let kept: &[IpAddr] = if new.origin.kind == Kind::Lent { &new.addresses } else { &[] };
            forget_lent(&directory, old, kept);
            self.ledger.release(&new.sandbox, *now);
        }
        self.ledger.attach(new);
        Ok(old.map(|(old, _)| old))
    }

    /// Forgets an attachment; its addresses rest from now on. Returns it, or none if it was not known, which is no error.
    ///
    /// # Errors
    /// As [`Store::set_block`].
    pub fn release(&mut self, sandbox: &Sandbox, now: u64) -> Result<Option<Attachment>, StoreError> {
        let Some(attachment) = self.ledger.attachment(sandbox) else { return Ok(None) };
        let resting = resting(attachment, &[], now);
        self.write(|transaction| {
            rest(transaction, &resting)?;
            transaction.execute(
                "DELETE FROM attachment WHERE container_id = ?1 AND ifname = ?2",
                params![sandbox.container_id, sandbox.ifname],
            )
        })?;
        self.idle.extend(resting);
        let released = self.ledger.release(sandbox, now);
        released.iter().for_each(|released| forget_lent(&self.directory(), released, &[]));
        Ok(released)
    }

    fn directory(&self) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("/")).to_owned()
    }

    fn write(&mut self, change: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<usize>) -> Result<(), StoreError> {
        let path = self.path.clone();
        let fail = |e| failure(&path, &e);
        let transaction = self.connection.transaction().map_err(fail)?;
        change(&transaction).map_err(fail)?;
        transaction.commit().map_err(fail)
    }
}

/// What rests from now on of what an attachment had, where another has some of it.
fn resting(old: &Attachment, kept: &[IpAddr], now: u64) -> Vec<(IpAddr, u64)> {
    old.resting().iter().filter(|address| !kept.contains(address)).map(|address| (*address, now)).collect()
}

fn rest(transaction: &Transaction<'_>, resting: &[(IpAddr, u64)]) -> rusqlite::Result<()> {
    for (address, since) in resting {
        let since = i64::try_from(*since).unwrap_or(i64::MAX);
        transaction.execute("INSERT OR REPLACE INTO idle VALUES (?1, ?2)", params![address.to_string(), since])?;
    }
    Ok(())
}

fn insert(transaction: &Transaction<'_>, a: &Attachment) -> rusqlite::Result<usize> {
    let Sandbox { container_id, ifname } = &a.sandbox;
    transaction.execute(
        "INSERT OR REPLACE INTO attachment VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![container_id, ifname, a.namespace, a.pod, a.uid, a.netns, a.boot_id],
    )?;
    transaction.execute("DELETE FROM held WHERE container_id = ?1 AND ifname = ?2", params![container_id, ifname])?;
    transaction.execute(
        "INSERT OR REPLACE INTO origin VALUES (?1, ?2, ?3, ?4, ?5)",
        params![container_id, ifname, a.origin.network, a.origin.generation, a.origin.kind.as_str()],
    )?;
    // A replaced row took its own along.
    if !a.asked.is_empty() {
        transaction
            .execute("INSERT OR REPLACE INTO asked VALUES (?1, ?2, ?3)", params![container_id, ifname, a.asked])?;
    }
    for address in &a.addresses {
        let text = address.to_string();
        transaction.execute("INSERT INTO held VALUES (?1, ?2, ?3)", params![text, container_id, ifname])?;
        transaction.execute("DELETE FROM idle WHERE address = ?1", [text])?;
    }
    Ok(0)
}

/// The files of what is not lent any more. One that stays says no more than that the address rests, and the next start takes it away.
fn forget_lent(directory: &Path, old: &Attachment, kept: &[IpAddr]) {
    if old.origin.kind != Kind::Lent {
        return;
    }
    let over: Vec<IpAddr> = old.addresses.iter().filter(|address| !kept.contains(address)).copied().collect();
    if let Err(error) = lent::forget(directory, &over) {
        tracing::warn!(%error, addresses = ?over, "files of addresses that are not lent any more stay for now");
    }
}

fn read(connection: &Connection, now: u64) -> rusqlite::Result<(Ledger, BTreeMap<IpAddr, u64>)> {
    let mut ledger = Ledger::default();
    let mut held = BTreeMap::<Sandbox, Vec<IpAddr>>::new();
    let mut statement = connection.prepare("SELECT address, container_id, ifname FROM held ORDER BY rowid")?;
    for row in statement.query_map([], |row| {
        Ok((parse::<IpAddr>(row, 0)?, Sandbox { container_id: row.get(1)?, ifname: row.get(2)? }))
    })? {
        let (address, sandbox) = row?;
        held.entry(sandbox).or_default().push(address);
    }
    let mut asked = BTreeMap::<Sandbox, String>::new();
    let mut statement = connection.prepare("SELECT container_id, ifname, text FROM asked")?;
    for row in
        statement.query_map([], |row| Ok((Sandbox { container_id: row.get(0)?, ifname: row.get(1)? }, row.get(2)?)))?
    {
        let (sandbox, text) = row?;
        asked.insert(sandbox, text);
    }
    let mut statement = connection.prepare(
        "SELECT a.*, network, generation, kind FROM attachment a LEFT JOIN origin USING (container_id, ifname)",
    )?;
    let attachments = statement.query_map([], |row| {
        let sandbox = Sandbox { container_id: row.get(0)?, ifname: row.get(1)? };
        Ok(Attachment {
            addresses: Vec::new(),
            asked: String::new(),
            namespace: row.get(2)?,
            pod: row.get(3)?,
            uid: row.get(4)?,
            netns: row.get(5)?,
            boot_id: row.get(6)?,
            origin: Origin {
                network: row.get::<_, Option<String>>(7)?.unwrap_or_default(),
                generation: row.get::<_, Option<String>>(8)?.unwrap_or_default(),
                kind: Kind::parse(&row.get::<_, Option<String>>(9)?.unwrap_or_default()),
            },
            sandbox,
        })
    })?;
    for attachment in attachments {
        let attachment = attachment?;
        let addresses = held.remove(&attachment.sandbox).unwrap_or_default();
        let asked = asked.remove(&attachment.sandbox).unwrap_or_default();
        ledger.attach(Attachment { addresses, asked, ..attachment });
    }
    let mut idle = BTreeMap::new();
    let mut statement = connection.prepare("SELECT address, since FROM idle")?;
    for row in statement.query_map([], |row| Ok((parse::<IpAddr>(row, 0)?, row.get::<_, i64>(1)?)))? {
        let (address, since) = row?;
        idle.insert(address, u64::try_from(since).unwrap_or(0).clamp(1, now.max(1)));
    }
    let mut statement = connection.prepare("SELECT cidr, ready FROM block")?;
    for row in statement.query_map([], |row| Ok((parse::<IpNet>(row, 0)?, row.get::<_, bool>(1)?)))? {
        let (cidr, ready) = row?;
        ledger.add_block(cidr, ready, &idle);
    }
    Ok((ledger, idle))
}

fn parse<T: std::str::FromStr>(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<T>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let text: String = row.get(column)?;
    text.parse()
        .map_err(|e| rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(e)))
}

fn failure(path: &Path, error: &rusqlite::Error) -> StoreError {
    let (path, problem) = (path.to_owned(), error.to_string());
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::Locked { path },
        Some(
            ErrorCode::DiskFull
            | ErrorCode::ReadOnly
            | ErrorCode::SystemIoFailure
            | ErrorCode::CannotOpen
            | ErrorCode::PermissionDenied,
        ) => StoreError::Unwritable { path, problem },
        _ => StoreError::Broken { path, problem },
    }
}

/// Renames the file and its companions, so that a person can look at them.
fn set_aside(path: &Path, now: u64) -> std::io::Result<PathBuf> {
    let with = |suffix: &str| PathBuf::from(format!("{}{suffix}", path.display()));
    let aside = with(&format!(".damaged-{now}"));
    fs::rename(path, &aside)?;
    for companion in ["-wal", "-shm"] {
        match fs::remove_file(with(companion)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    Ok(aside)
}
