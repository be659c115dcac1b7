//! Who has which address of the node's blocks. In flow attachments and the time, out flow addresses.
//!
//! Times are milliseconds since the epoch, given by the caller. An address is held, or idle since a time; one that was never
//! used counts as idle for ever, and goes first.

use crate::origin::{Kind, Origin};
use crate::range;
use crate::reservation::Reserved;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// What the runtime attached: a container and the name of one of its interfaces.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sandbox {
    /// CNI_CONTAINERID.
    pub container_id: String,
    /// CNI_IFNAME.
    pub ifname: String,
}

/// A sandbox with its pod and its addresses.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Attachment {
    /// What the runtime calls it.
    pub sandbox: Sandbox,
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// UID of the pod.
    pub uid: String,
    /// Path of its network namespace.
    pub netns: String,
    /// Boot in which it was attached.
    pub boot_id: String,
    /// Its addresses, one per family at most.
    pub addresses: Vec<IpAddr>,
    /// Its network, its call, and what of it is ours.
    pub origin: Origin,
    /// What the runtime asked for beside them, in the words of whoever attaches; kept with the addresses and not looked into. Empty: nothing.
    pub asked: String,
}

impl Attachment {
    /// Addresses that rest when it ends. What another plugin gave, that one gives again as it likes.
    #[must_use]
    pub fn resting(&self) -> &[IpAddr] {
        if self.origin.kind == Kind::Foreign { &[] } else { &self.addresses }
    }
}

/// The use of one block.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Block {
    /// Whether addresses may be handed out: verified, and its route is in the kernel.
    pub ready: bool,
    held: BTreeMap<u32, Sandbox>,
    /// (idle since, ordinal), longest idle first; exactly the ordinals that are not held, 0 excepted.
    idle: BTreeSet<(u64, u32)>,
}

/// How full a block, or a pool on this node, is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Use {
    /// Addresses that can be handed out now.
    pub free: usize,
    /// Addresses inside their cool-down.
    pub cooling: usize,
    /// Addresses that somebody has.
    pub held: usize,
}

/// The addresses of all blocks of this node. Its changes are a store's to make durable first: see [`crate::io::store`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ledger {
    blocks: BTreeMap<IpNet, Block>,
    attachments: BTreeMap<Sandbox, Attachment>,
}

/// Pools make blocks of at most 4096 addresses; of a larger one, made by hand, so many are given.
const LARGEST: u128 = 1 << 16;

impl Ledger {
    /// The blocks, ordered by range.
    pub fn blocks(&self) -> impl Iterator<Item = (&IpNet, &Block)> {
        self.blocks.iter()
    }

    /// One block.
    #[must_use]
    pub fn block(&self, cidr: IpNet) -> Option<&Block> {
        self.blocks.get(&cidr)
    }

    /// All attachments, ordered by sandbox.
    pub fn attachments(&self) -> impl Iterator<Item = &Attachment> {
        self.attachments.values()
    }

    /// The attachment of a sandbox.
    #[must_use]
    pub fn attachment(&self, sandbox: &Sandbox) -> Option<&Attachment> {
        self.attachments.get(sandbox)
    }

    /// Who has an address.
    #[must_use]
    pub fn holder(&self, address: IpAddr) -> Option<&Attachment> {
        self.attachments.values().find(|attachment| attachment.addresses.contains(&address))
    }

    /// The block of ours that an address lies in.
    #[must_use]
    pub fn block_of(&self, address: IpAddr) -> Option<IpNet> {
        self.blocks.keys().find(|cidr| cidr.contains(&address)).copied()
    }

    /// The address to hand out next from the first of `choice` that has one: longest idle, out of its cool-down, and not
    /// `busy`, which is asked last and only about candidates. Nothing is remembered.
    pub fn choose(
        &self,
        choice: &[IpNet],
        now: u64,
        cool_down: u64,
        mut busy: impl FnMut(IpAddr) -> bool,
    ) -> Option<IpAddr> {
        let ready = choice.iter().filter_map(|cidr| self.blocks.get(cidr).filter(|b| b.ready).map(|b| (*cidr, b)));
        for (cidr, block) in ready {
            for &(since, ordinal) in &block.idle {
                if cooling(since, now, cool_down) {
                    break;
                }
                if let Some(address) = range::address(cidr, ordinal).filter(|address| !busy(*address)) {
                    return Some(address);
                }
            }
        }
        None
    }

    /// How long an address must still rest, in milliseconds; none if it does not.
    #[must_use]
    pub fn rests(&self, address: IpAddr, now: u64, cool_down: u64) -> Option<u64> {
        let cidr = self.block_of(address)?;
        let (block, ordinal) = (self.blocks.get(&cidr)?, range::ordinal(cidr, address)?);
        let since = block.idle.iter().find(|(_, idle)| *idle == ordinal).map(|(since, _)| *since)?;
        cooling(since, now, cool_down).then(|| cool_down - now.saturating_sub(since))
    }

    /// As it would be if a sandbox ended now.
    #[must_use]
    pub fn without(&self, sandbox: &Sandbox, now: u64) -> Self {
        let mut without = self.clone();
        without.release(sandbox, now);
        without
    }

    /// The use of these blocks together.
    #[must_use]
    pub fn usage(&self, choice: &[IpNet], now: u64, cool_down: u64) -> Use {
        let mut sum = Use::default();
        for block in choice.iter().filter_map(|cidr| self.blocks.get(cidr)) {
            let cool = block.idle.iter().rev().take_while(|(since, _)| cooling(*since, now, cool_down)).count();
            sum.cooling += cool;
            sum.free += block.idle.len() - cool;
            sum.held += block.held.len();
        }
        sum
    }

    /// The same without what is reserved: that is neither free nor anybody's.
    #[must_use]
    pub fn usage_beside(&self, reserved: &Reserved, choice: &[IpNet], now: u64, cool_down: u64) -> Use {
        let usage = self.usage(choice, now, cool_down);
        let touched = choice.iter().filter(|cidr| reserved.count(**cidr) > 0);
        let idle = touched.filter_map(|cidr| Some((*cidr, self.blocks.get(cidr)?))).flat_map(|(cidr, block)| {
            let rested = block.idle.iter().take_while(|(since, _)| !cooling(*since, now, cool_down));
            rested.filter_map(move |(_, ordinal)| range::address(cidr, *ordinal))
        });
        let kept = idle.filter(|address| reserved.has(*address)).count();
        Use { free: usage.free.saturating_sub(kept), ..usage }
    }

    /// Takes a block in, with the times since which some of its addresses are idle. Attachments known before take their
    /// addresses in it. A block that is known already only changes its readiness.
    pub fn add_block(&mut self, cidr: IpNet, ready: bool, idle_since: &BTreeMap<IpAddr, u64>) {
        if let Some(block) = self.blocks.get_mut(&cidr) {
            block.ready = ready;
            return;
        }
        let size = u32::try_from(range::size(cidr).min(LARGEST)).unwrap_or(u32::MAX);
        let since = |ordinal| range::address(cidr, ordinal).and_then(|a| idle_since.get(&a).copied()).unwrap_or(0);
        let mut block =
            Block { ready, held: BTreeMap::new(), idle: (1..size).map(|ordinal| (since(ordinal), ordinal)).collect() };
        for attachment in self.attachments.values() {
            for ordinal in attachment.addresses.iter().filter_map(|a| range::ordinal(cidr, *a)) {
                block.hold(ordinal, &attachment.sandbox);
            }
        }
        self.blocks.insert(cidr, block);
    }

    /// Forgets a block. Attachments keep their addresses.
    pub fn remove_block(&mut self, cidr: IpNet) {
        self.blocks.remove(&cidr);
    }

    /// Whether an attachment can be remembered.
    ///
    /// # Errors
    /// The address that somebody else has, or that this sandbox cannot have twice.
    pub fn check(&self, attachment: &Attachment) -> Result<(), (IpAddr, Sandbox)> {
        for address in &attachment.addresses {
            if let Some(holder) = self.holder(*address).filter(|holder| holder.sandbox != attachment.sandbox) {
                return Err((*address, holder.sandbox.clone()));
            }
        }
        Ok(())
    }

    /// Remembers an attachment that passed [`Ledger::check`].
    pub fn attach(&mut self, attachment: Attachment) {
        for address in &attachment.addresses {
            for (cidr, block) in &mut self.blocks {
                if let Some(ordinal) = range::ordinal(*cidr, *address) {
                    block.hold(ordinal, &attachment.sandbox);
                }
            }
        }
        self.attachments.insert(attachment.sandbox.clone(), attachment);
    }

    /// Forgets an attachment; its addresses are idle from now on. None if it was not known.
    pub fn release(&mut self, sandbox: &Sandbox, now: u64) -> Option<Attachment> {
        let attachment = self.attachments.remove(sandbox)?;
        for address in &attachment.addresses {
            for (cidr, block) in &mut self.blocks {
                if let Some(ordinal) = range::ordinal(*cidr, *address).filter(|o| block.held.remove(o).is_some()) {
                    // Ordinal 0 never becomes idle, even if a rebuilt store found it in use.
                    if ordinal != 0 {
                        block.idle.insert((now, ordinal));
                    }
                }
            }
        }
        Some(attachment)
    }
}

impl Block {
    /// Addresses that somebody has.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }

    fn hold(&mut self, ordinal: u32, sandbox: &Sandbox) {
        self.idle.retain(|(_, idle)| *idle != ordinal);
        self.held.insert(ordinal, sandbox.clone());
    }
}

/// Whether an address idle since then must still rest. The clock may have jumped back: then it rests.
fn cooling(since: u64, now: u64, cool_down: u64) -> bool {
    since != 0 && now.saturating_sub(since) < cool_down
}
