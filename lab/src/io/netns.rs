//! Network namespaces by name, as `ip netns` keeps them: in flow names, out flow namespaces that outlive us.

use crate::names::{NETNS_DIR, netns_path};
use anyhow::{Context, anyhow};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Makes the namespace `name` and runs `setup` inside it before the name means anything to others.
///
/// # Errors
/// The name is taken, the kernel refuses, or `setup` fails.
pub fn create(name: &str, setup: impl FnOnce() -> anyhow::Result<()> + Send) -> anyhow::Result<()> {
    let path = netns_path(name);
    File::create_new(&path)
        .with_context(|| format!("network namespace {name} cannot be made at {}", path.display()))?;
    let made = std::thread::scope(|scope| {
        let thread = scope.spawn(|| -> anyhow::Result<()> {
            unshare(CloneFlags::CLONE_NEWNET).context("unshare")?;
            setup()?;
            let here = Path::new("/proc/thread-self/ns/net");
            mount(Some(here), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>).context("bind mount")
        });
        thread.join().map_err(|_| anyhow!("the thread that makes it failed"))?
    });
    made.inspect_err(|_| drop(fs::remove_file(&path))).with_context(|| format!("network namespace {name}"))
}

/// Lets the calling thread's namespace forward, and use IPv6 addresses at once.
///
/// # Errors
/// The kernel refuses a setting that it has.
pub fn as_router() -> anyhow::Result<()> {
    for (key, value) in [
        ("ipv4/ip_forward", "1"),
        ("ipv4/fib_multipath_hash_policy", "1"),
        ("ipv6/conf/all/accept_dad", "0"),
        ("ipv6/conf/default/accept_dad", "0"),
        ("ipv6/conf/all/forwarding", "1"),
        ("ipv6/conf/default/forwarding", "1"),
    ] {
        set(key, value)?;
    }
    as_host()
}

/// Lets the calling thread's namespace tell every sender of a datagram to a closed port that it is closed. The kernel would say so
/// once a second only, and what it does not say looks like a policy that denies.
///
/// # Errors
/// The kernel refuses a setting that it has.
pub fn as_host() -> anyhow::Result<()> {
    set("ipv4/icmp_ratemask", "0")?;
    set("ipv6/icmp/ratelimit", "0")
}

fn set(key: &str, value: &str) -> anyhow::Result<()> {
    let path = format!("/proc/sys/net/{key}");
    if Path::new(&path).exists() {
        fs::write(&path, value).with_context(|| path)?;
    }
    Ok(())
}

/// Makes the directory of names the mount point that `ip netns` expects, so that both tools see each other's namespaces.
///
/// # Errors
/// Mostly: not root.
pub fn prepare() -> anyhow::Result<()> {
    fs::create_dir_all(NETNS_DIR).context(NETNS_DIR)?;
    let (own, parent) = (fs::metadata(NETNS_DIR)?, fs::metadata("/run")?);
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("/proc/self/mountinfo")?;
    let mounted = mounts.lines().any(|l| l.split_whitespace().nth(4) == Some(NETNS_DIR)) || own.dev() != parent.dev();
    if !mounted {
        mount(Some(NETNS_DIR), NETNS_DIR, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
            .context("the directory of network namespaces cannot become a mount point")?;
    }
    mount(None::<&str>, NETNS_DIR, None::<&str>, MsFlags::MS_SHARED | MsFlags::MS_REC, None::<&str>)
        .context("the directory of network namespaces cannot become a shared mount")
}

/// Removes the name; the namespace goes with its last process. No error if there is none.
///
/// # Errors
/// The kernel refuses.
pub fn remove(name: &str) -> anyhow::Result<()> {
    let path = netns_path(name);
    // A name may carry several mounts after a crash in between; each call takes one away.
    for _ in 0..8 {
        if umount2(&path, MntFlags::MNT_DETACH).is_err() {
            break;
        }
    }
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("network namespace {name} cannot be removed"))
        }
        _ => Ok(()),
    }
}

/// Names that begin with `prefix`, in order.
#[must_use]
pub fn names(prefix: &str) -> Vec<String> {
    let entries = fs::read_dir(NETNS_DIR).into_iter().flatten().flatten();
    let mut names =
        entries.filter_map(|e| e.file_name().into_string().ok()).filter(|n| n.starts_with(prefix)).collect::<Vec<_>>();
    names.sort();
    names
}

/// Number by which the kernel knows a namespace; none if the name is not there or is a plain file.
#[must_use]
pub fn inode(name: &str) -> Option<u64> {
    fs::metadata(netns_path(name)).ok().map(|m| m.ino())
}

/// Opens a namespace.
///
/// # Errors
/// It is not there.
pub fn open(name: &str) -> anyhow::Result<File> {
    File::open(netns_path(name)).with_context(|| format!("network namespace {name} cannot be opened"))
}

/// Moves the calling thread into a namespace; processes that it starts are born there.
///
/// # Errors
/// The namespace is not there, or we are not root.
pub fn enter(name: &str) -> anyhow::Result<()> {
    setns(open(name)?, CloneFlags::CLONE_NEWNET).with_context(|| format!("network namespace {name} cannot be entered"))
}

/// Runs `work` on a thread of its own inside a namespace.
///
/// # Errors
/// Those of [`enter`] and of `work`.
pub fn inside<T: Send>(name: &str, work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            enter(name)?;
            work()
        });
        thread.join().map_err(|_| anyhow!("a thread inside network namespace {name} failed"))?
    })
}

/// Moves the calling process into a namespace with a `/sys` that shows it, as `ip netns exec` does.
///
/// # Errors
/// Those of [`enter`].
pub fn enter_with_sys(name: &str) -> anyhow::Result<()> {
    enter(name)?;
    unshare(CloneFlags::CLONE_NEWNS).context("unshare")?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_SLAVE | MsFlags::MS_REC, None::<&str>).context("mount /")?;
    // Without a fresh /sys only tools that read it see the host's devices; the command itself still runs inside.
    if umount2("/sys", MntFlags::MNT_DETACH).is_ok() {
        let _ = mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), None::<&str>);
    }
    Ok(())
}
