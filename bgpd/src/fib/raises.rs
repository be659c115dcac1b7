//! Routes that are to have a greater MTU and nothing else: they wait, and what is less is written at once.
//!
//! Where the MTU of the default route or of an uplink goes up and down, all tunnels' routes would be written each time, and the kernel takes a second for 5,000
//! of them. What waited for a while is written together.

use super::route::Forward;
use ipnet::IpNet;
use rustc_hash::FxHashSet;

/// Those that wait.
#[derive(Debug, Default)]
pub(super) struct Raises {
    waiting: FxHashSet<IpNet>,
    open: bool,
}

impl Raises {
    /// Whether a route stays as it is for now, since only its MTU is to be greater.
    pub(super) fn waits(&mut self, prefix: IpNet, old: &Forward, new: &Forward) -> bool {
        let waits = !self.open && is_raise(old, new);
        if waits {
            self.waiting.insert(prefix);
        }
        waits
    }

    /// A route is looked at anew.
    pub(super) fn forget(&mut self, prefix: IpNet) {
        self.waiting.remove(&prefix);
    }

    /// All routes are looked at anew.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }

    /// Whether some wait.
    #[must_use]
    pub(super) fn any(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// From here on none waits, until [`Raises::close`]; those that did.
    pub(super) fn open(&mut self) -> FxHashSet<IpNet> {
        self.open = true;
        std::mem::take(&mut self.waiting)
    }

    /// What is greater waits again.
    pub(super) fn close(&mut self) {
        self.open = false;
    }
}

/// A route without an MTU has that of its links, which is never less.
fn is_raise(old: &Forward, new: &Forward) -> bool {
    let (
        Forward::Unicast { hops: old_hops, mtu: old, source: old_source },
        Forward::Unicast { hops, mtu: new, source },
    ) = (old, new)
    else {
        return false;
    };
    let of = |mtu: &Option<u32>| mtu.unwrap_or(u32::MAX);
    (old_hops, old_source) == (hops, source) && of(old) < of(new)
}
