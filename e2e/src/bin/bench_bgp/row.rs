//! What is measured: the rows of the table.

/// One row: what is sent to a speaker, and when it has done its work.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    /// Its name on the command line.
    pub(crate) name: &'static str,
    /// Senders, each in an AS and on a link of its own, all beginning at once.
    pub(crate) senders: u8,
    /// Prefixes of each sender, all /24s; no two senders have one in common.
    pub(crate) prefixes: u32,
    pub(crate) per_update: u32,
    /// Attribute sets of each sender, which its UPDATEs have in turn.
    pub(crate) sets: u32,
    /// Done when the kernel has all prefixes, and nobody is told; else when the receiver has them all.
    pub(crate) kernel: bool,
}

/// All rows, at full size.
pub(crate) const ROWS: [Row; 5] = [
    Row { name: "50", senders: 1, prefixes: 500_000, per_update: 50, sets: 20, kernel: false },
    Row { name: "1", senders: 1, prefixes: 500_000, per_update: 1, sets: 20, kernel: false },
    Row { name: "sets", senders: 1, prefixes: 500_000, per_update: 1, sets: 100_000, kernel: false },
    Row { name: "ten", senders: 10, prefixes: 100_000, per_update: 50, sets: 20, kernel: false },
    Row { name: "kernel", senders: 1, prefixes: 100_000, per_update: 50, sets: 20, kernel: true },
];

/// One neighbour of the speaker, on a link of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Neighbour {
    /// The third octet of its subnet.
    pub(crate) number: u8,
    /// Whether it sends; else it receives.
    pub(crate) sends: bool,
}

impl Neighbour {
    pub(crate) const RECEIVER: Neighbour = Neighbour { number: 0, sends: false };

    /// Its address; the speaker's ends in 1.
    pub(crate) fn address(self) -> [u8; 4] {
        [10, 98, self.number, 2]
    }

    pub(crate) fn text(self) -> String {
        std::net::Ipv4Addr::from(self.address()).to_string()
    }

    /// Its AS; the speaker's is 65000.
    pub(crate) fn asn(self) -> u16 {
        65_100 + u16::from(self.number)
    }
}

impl Row {
    /// The same with fewer prefixes and sets, for a look.
    pub(crate) fn divided(self, by: u32) -> Self {
        Self {
            prefixes: (self.prefixes / by).max(1),
            sets: (self.sets / by).clamp(self.sets.min(20), self.sets),
            ..self
        }
    }

    pub(crate) fn total(self) -> u32 {
        u32::from(self.senders) * self.prefixes
    }

    pub(crate) fn neighbours(self) -> impl Iterator<Item = Neighbour> {
        let receiver = (!self.kernel).then_some(Neighbour::RECEIVER);
        receiver.into_iter().chain((1..=self.senders).map(|number| Neighbour { number, sends: true }))
    }

    pub(crate) fn about(self) -> String {
        let Self { name, senders, prefixes, per_update, sets, kernel } = self;
        let whose = if senders == 1 { String::new() } else { format!("{senders} senders at once, each ") };
        let to = if kernel { "the kernel" } else { "one receiver" };
        format!("{name}: {whose}{prefixes} prefixes, {per_update} per UPDATE, {sets} attribute sets, to {to}")
    }
}
