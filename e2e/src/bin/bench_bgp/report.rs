//! The table.

use super::row::Row;
use super::run::Outcome;
use super::speakers::Speaker;

/// All that was measured of one speaker in one row; or why nothing was.
pub(crate) struct Entry {
    pub(crate) row: Row,
    pub(crate) speaker: Speaker,
    pub(crate) rounds: Result<Vec<Outcome>, String>,
}

/// Medians.
struct Figures {
    seconds: f64,
    updates: f64,
    mib: f64,
    cpu: f64,
}

/// The columns' names.
pub(crate) const HEAD: &str = "\
| row | speaker | seconds | all rounds | × Twill | UPDATEs out | peak MiB | × Twill | CPU s |
|---|---|---|---|---|---|---|---|---|";

impl Entry {
    /// Medians, if every round was finished.
    fn figures(&self) -> Option<Figures> {
        let rounds = self.rounds.as_ref().ok()?;
        let finished = !rounds.is_empty() && rounds.iter().all(|outcome| outcome.distinct == self.row.total());
        let middle = |figure: &dyn Fn(&Outcome) -> f64| {
            let mut figures: Vec<f64> = rounds.iter().map(figure).collect();
            figures.sort_by(f64::total_cmp);
            figures[figures.len() / 2]
        };
        finished.then(|| Figures {
            seconds: middle(&|outcome| outcome.seconds),
            updates: middle(&|outcome| outcome.updates as f64),
            mib: middle(&|outcome| outcome.peak_mib.iter().map(|(_, mib)| mib).sum()),
            cpu: middle(&|outcome| outcome.cpu_seconds),
        })
    }

    /// Its line, beside Twill's entry of the same row.
    pub(crate) fn line(&self, twill: Option<&Entry>) -> String {
        let Self { row, speaker, rounds } = self;
        let start = format!("| {} | {} |", row.name, speaker.name());
        let rounds = match rounds {
            Err(reason) => return format!("{start} {reason} | | | | | | |"),
            Ok(rounds) => rounds,
        };
        let Some(figures) = self.figures() else {
            let worst = rounds.iter().min_by_key(|outcome| outcome.distinct);
            let (seconds, distinct) = worst.map_or((0.0, 0), |outcome| (outcome.seconds, outcome.distinct));
            return format!(
                "{start} did not finish in {seconds:.0} s: {distinct} of {} prefixes | | | | | | |",
                row.total()
            );
        };
        let twill = twill.filter(|twill| twill.speaker != *speaker).and_then(Entry::figures);
        let ratio = |ours: fn(&Figures) -> f64, theirs: f64| {
            twill.as_ref().map_or(String::new(), |twill| format!("{:.2}", theirs / ours(twill)))
        };
        let all: Vec<String> = rounds.iter().map(|outcome| format!("{:.2}", outcome.seconds)).collect();
        let updates = if row.kernel { String::new() } else { format!("{:.0}", figures.updates) };
        let (time, memory) = (ratio(|twill| twill.seconds, figures.seconds), ratio(|twill| twill.mib, figures.mib));
        let (mib, cpu) = match speaker {
            Speaker::Relay => (String::new(), String::new()),
            _ => (self.memory(figures.mib), format!("{:.2}", figures.cpu)),
        };
        let memory = if *speaker == Speaker::Relay { String::new() } else { memory };
        format!("{start} {:.3} | {} | {time} | {updates} | {mib} | {memory} | {cpu} |", figures.seconds, all.join(" "))
    }

    /// The sum, and the parts where there are several programs.
    fn memory(&self, sum: f64) -> String {
        let mut text = format!("{sum:.1}");
        let last = self.rounds.as_ref().ok().and_then(|rounds| rounds.last());
        if let Some(outcome) = last.filter(|outcome| outcome.peak_mib.len() > 1) {
            let parts: Vec<String> = outcome.peak_mib.iter().map(|(name, mib)| format!("{name} {mib:.1}")).collect();
            text += &format!(" ({})", parts.join(", "));
        }
        text
    }
}

/// Whether Twill is faster than BIRD, and no larger, in this row.
pub(crate) fn verdict(twill: &Entry, bird: &Entry) -> Option<String> {
    let (ours, theirs) = (twill.figures()?, bird.figures()?);
    let word = |met: bool| if met { "met" } else { "NOT met" };
    Some(format!(
        "goal in row {}: faster than BIRD {} ({:.2} of its time), at most its memory {} ({:.2} of it)",
        twill.row.name,
        word(ours.seconds < theirs.seconds),
        ours.seconds / theirs.seconds,
        word(ours.mib <= theirs.mib),
        ours.mib / theirs.mib
    ))
}

/// How much of the time senders and receiver take by themselves.
pub(crate) fn floor(relay: &Entry, twill: &Entry) -> Option<String> {
    let (floor, ours) = (relay.figures()?, twill.figures()?);
    let sent = twill.rounds.as_ref().ok()?.iter().filter_map(|outcome| outcome.sent).fold(0.0, f64::max);
    Some(format!(
        "senders and receiver in row {}: {:.3} s without a speaker between them, {:.2} of Twill's time; to Twill all was written after {sent:.3} s",
        relay.row.name,
        floor.seconds,
        floor.seconds / ours.seconds
    ))
}
