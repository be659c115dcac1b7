//! Throws random messages at the codec and at whole speakers, for as long as one likes: `--count 100000000`. Ends with an error at the
//! first message that makes one of them panic, takes too long, or takes too much memory, and says which it was; `--only` throws it again.

mod counting;

use anyhow::{Context, bail, ensure};
use clap::Parser;
use counting::{Counting, begin, counts};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use twill_codec_oracles::fuzz::Fuzzer;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Most that one message may make us ask for: a message of 65,535 octets has as many prefixes, each of which takes some tens of octets
/// in tables that double.
const MESSAGE: i64 = 16 << 20;
/// Most that a thread may hold: four speakers with 50,000 prefixes at most, and one message.
const THREAD: i64 = 64 << 20;
/// Octets of a message that are printed.
const SHOWN: usize = 4096;

#[derive(Parser)]
#[command(about = "Random BGP messages against Twill's codec and speaker")]
struct Args {
    /// How many messages.
    #[arg(long, default_value_t = 1_000_000)]
    count: u64,
    /// Another seed, other messages.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Throw only this message, and print it.
    #[arg(long)]
    only: Option<u64>,
    /// A directory with messages of other projects in `bgp/`, which become seeds, too: `../shared/corpora`.
    #[arg(long)]
    corpora: Option<PathBuf>,
    /// Threads; default: one per processor.
    #[arg(long)]
    threads: Option<usize>,
    /// Seconds after which a message counts as a hang; generous, because the machine may have other work.
    #[arg(long, default_value_t = 10)]
    hang: u64,
}

/// What a thread is doing: the number of its message plus one, 0 between messages, and when that began, in milliseconds.
#[derive(Default)]
struct Doing {
    message: AtomicU64,
    since: AtomicU64,
}

/// What a thread has done.
#[derive(Clone, Copy, Default)]
struct Done {
    routes: u64,
    peak: i64,
    most: i64,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let seeds = args.corpora.as_deref().map(corpora).transpose()?.unwrap_or_default();
    if let Some(number) = args.only {
        let mut fuzzer = Fuzzer::new(seeds);
        let message = fuzzer.message(args.seed, number);
        println!("{message:02x?}");
        let routes = fuzzer.throw(&message, number);
        println!("survived by fresh speakers{}", if routes { "; it carries routes" } else { "" });
        return Ok(());
    }
    let threads =
        args.threads.or_else(|| std::thread::available_parallelism().ok().map(usize::from)).unwrap_or(1).max(1);
    let doing: Vec<Doing> = (0..threads).map(|_| Doing::default()).collect();
    let started = Instant::now();
    let done = std::thread::scope(|scope| -> anyhow::Result<Vec<Done>> {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                let (args, seeds, doing) = (&args, seeds.clone(), &doing[thread]);
                scope.spawn(move || work(args, seeds, (thread, threads), doing, started))
            })
            .collect();
        while workers.iter().any(|worker| !worker.is_finished()) {
            std::thread::sleep(Duration::from_millis(100));
            watch(&args, &seeds, &doing, started);
        }
        workers.into_iter().map(|worker| worker.join().map_err(|_| anyhow::anyhow!("a thread failed"))?).collect()
    })?;
    let seconds = started.elapsed().as_secs_f64();
    let routes: u64 = done.iter().map(|done| done.routes).sum();
    let mib = |octets: Option<i64>| octets.unwrap_or(0) as f64 / f64::from(1 << 20);
    println!(
        "{} messages with seed {}, {} seeds of others, {threads} threads: no panic, no hang; {:.0} a second, {:.1} % with routes; \
         at most {:.1} MiB asked for by a message, {:.1} MiB held by a thread",
        args.count,
        args.seed,
        seeds.len(),
        args.count as f64 / seconds,
        100.0 * routes as f64 / args.count.max(1) as f64,
        mib(done.iter().map(|done| done.most).max()),
        mib(done.iter().map(|done| done.peak).max()),
    );
    ensure!(
        args.count < 1000 || routes > args.count / 40,
        "only {routes} messages carried routes: this tests too little"
    );
    Ok(())
}

/// Every `step`th message from `first` on.
fn work(
    args: &Args,
    seeds: Vec<Vec<u8>>,
    (first, step): (usize, usize),
    doing: &Doing,
    started: Instant,
) -> anyhow::Result<Done> {
    let mut fuzzer = Fuzzer::new(seeds);
    let mut done = Done::default();
    for number in (first as u64..args.count).step_by(step) {
        let message = fuzzer.message(args.seed, number);
        doing.since.store(started.elapsed().as_millis() as u64, Ordering::Relaxed);
        doing.message.store(number + 1, Ordering::Release);
        begin();
        let result = catch_unwind(AssertUnwindSafe(|| fuzzer.throw(&message, number)));
        let counts = counts();
        doing.message.store(0, Ordering::Release);
        let what = || named(args.seed, number, &message);
        match result {
            Ok(routes) => done.routes += u64::from(routes),
            Err(_) => bail!("a panic, told above, by {}", what()),
        }
        ensure!(counts.asked <= MESSAGE, "{} octets were asked for by {}", counts.asked, what());
        ensure!(counts.live <= THREAD, "{} octets are held, {} paths, after {}", counts.live, fuzzer.held(), what());
        (done.most, done.peak) = (done.most.max(counts.asked), counts.peak);
    }
    Ok(done)
}

/// Ends the process if a message takes too long: the thread that hangs cannot.
fn watch(args: &Args, seeds: &[Vec<u8>], doing: &[Doing], started: Instant) {
    for doing in doing {
        let number = doing.message.load(Ordering::Acquire);
        let since = Duration::from_millis(doing.since.load(Ordering::Relaxed));
        if number > 0
            && started.elapsed().saturating_sub(since) > Duration::from_secs(args.hang)
            && doing.message.load(Ordering::Acquire) == number
        {
            let message = Fuzzer::new(seeds.to_vec()).message(args.seed, number - 1);
            eprintln!("more than {} s for {}", args.hang, named(args.seed, number - 1, &message));
            std::process::exit(1);
        }
    }
}

fn named(seed: u64, number: u64, message: &[u8]) -> String {
    let shown = &message[..message.len().min(SHOWN)];
    format!("message {number} of seed {seed} (--seed {seed} --only {number}), {} octets: {shown:02x?}", message.len())
}

/// Messages of other projects' test suites.
fn corpora(directory: &Path) -> anyhow::Result<Vec<Vec<u8>>> {
    let directory = directory.join("bgp");
    let file = directory.join("exabgp-qa-raw.hex");
    let text = fs::read_to_string(&file).with_context(|| format!("--corpora: cannot read {}", file.display()))?;
    let octet = |line: &str, at: usize| u8::from_str_radix(line.get(2 * at..2 * at + 2).unwrap_or_default(), 16);
    let message = |line: &str| (0..line.len() / 2).map(|at| octet(line, at)).collect::<Result<Vec<u8>, _>>();
    let mut messages =
        text.lines().map(message).collect::<Result<Vec<_>, _>>().with_context(|| file.display().to_string())?;
    for entry in fs::read_dir(directory.join("bad-len")).context("--corpora: no bgp/bad-len there")? {
        messages.push(fs::read(entry?.path())?);
    }
    Ok(messages)
}
