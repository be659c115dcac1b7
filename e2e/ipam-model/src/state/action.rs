//! What can happen next.

use crate::cluster::Version;
use crate::machine::{Link, Why};
use ipnet::IpNet;
use std::net::IpAddr;

/// One call of one actor, or a fault. Machines by number, nodes by the number of their name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A while passes.
    Tick,
    /// A pod is bound to a node.
    Bind(usize),
    /// The same, and it is attached there and its address told.
    Start(usize),
    /// The pod of this name, for which addresses may be kept, is made and bound to a node.
    Run(usize, u8),
    /// A machine looks at who has what is kept, to write something.
    Settle(usize, u8, Why),
    /// One call of that.
    Ask(usize, u8),
    /// felix and bgpd of a machine hear all.
    Hear(usize),
    /// One call of a claim; a block that is about to go is taken back instead of the first.
    Claim(usize),
    /// A block gives addresses from now on.
    Open(usize),
    /// The runtime attaches a pod.
    Attach(usize, u8),
    /// The kubelet says where it is.
    Report(usize, u8),
    /// It ends.
    End(usize, u8),
    /// Its object is deleted, by its kubelet, or because its node is gone.
    Remove(u8),
    /// A machine looks at blocks of its name that are not its own.
    Watch(usize),
    /// One call of giving such a block back.
    Free(usize),
    /// A block that nobody needs is marked.
    Mark(usize),
    /// One that is marked, or contested, is deleted.
    GiveBack(usize, Version),
    /// The controller hears all and decides.
    Control,
    /// One call of what it decided.
    Perform,
    /// From here on faults. felix is killed.
    Crash(usize),
    /// The machine goes off and on.
    Reboot(usize),
    /// It loses its disk.
    Wipe(usize),
    /// It goes off for good.
    Off(usize),
    /// What is cut off.
    Cut(usize, Link),
    /// The end of that.
    Heal(usize),
    /// A Node is deleted.
    Deregister(usize),
    /// A Node is created.
    Register(usize),
    /// Somebody deletes a pod whose kubelet has not said that it has ended.
    Force(u8),
    /// Somebody deletes a block.
    Delete(IpNet),
    /// The pool is made anew with blocks of another size.
    Resize,
    /// Another controller leads.
    Depose,
    /// Somebody creates a reservation of an address for the pod of a name, or edits it.
    Keep(u8, IpAddr, u8),
    /// Somebody deletes it.
    Unkeep(u8),
    /// It is written, and the answer is lost.
    Unanswered(usize, u8),
}

impl Action {
    pub(super) fn is_fault(self) -> bool {
        use Action::{
            Crash, Cut, Delete, Depose, Deregister, Force, Heal, Keep, Off, Reboot, Register, Resize, Unanswered,
            Unkeep, Wipe,
        };
        matches!(
            self,
            Crash(_)
                | Reboot(_)
                | Wipe(_)
                | Off(_)
                | Cut(..)
                | Heal(_)
                | Deregister(_)
                | Register(_)
                | Force(_)
                | Delete(_)
                | Resize
                | Depose
                | Keep(..)
                | Unkeep(_)
                | Unanswered(..)
        )
    }
}
