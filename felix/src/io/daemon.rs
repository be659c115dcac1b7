//! The daemon: starts everything, then one loop feeds the agent.

use crate::base::{Settings, skeleton};
use crate::io::agent::{Agent, Ask, COOL_DOWN, Done, ExistingConnections, Parts, Places};
use crate::io::calls::{self, Calls, Tombstones};
use crate::io::conflist::Conflist;
use crate::io::monitor::{self, News};
use crate::io::nft::{self, Table};
use crate::io::rtnl::Rtnl;
use crate::io::{departure, events, heard, host, link, memory, nflog, removal, report, server, sysctl};
use crate::workload::claimant;
use anyhow::Context;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use twill_crds::names::{CNI_BIN_DIR, CNI_CONF_DIR, FELIX_SOCKET, NFLOG_GROUP, RUN_DIR, STATE_DIR};
use twill_datastore::Datastore;
use twill_ipam::Owner;
use twill_ipam::io::identity::identity;
use twill_ipam::io::store::Store;
use twill_ipam::quarantine::QUARANTINE;

/// Facts per commit at most.
const BATCH: usize = 4096;
/// How often what has no event is looked at.
const TICK: Duration = Duration::from_secs(1);

/// Node agent: attaches pods and enforces policy.
#[derive(clap::Args, Clone, Debug)]
#[command(override_usage = "twill felix [OPTIONS]")]
pub struct Args {
    /// Name of the Node that this process serves
    #[arg(long, env = "TWILL_NODE")]
    pub node: String,
    /// URL of the datastore: sqlite:/path/to/file.db, etcd:https://HOST:2379?ca=FILE&cert=FILE&key=FILE or kubernetes:[/path/to/kubeconfig]
    #[arg(long, env = "TWILL_DATASTORE")]
    pub datastore: String,
    /// Directory of the socket
    #[arg(long, env = "TWILL_RUN_DIR", default_value = RUN_DIR)]
    pub run_dir: PathBuf,
    /// Directory of what outlives a restart
    #[arg(long, env = "TWILL_STATE_DIR", default_value = STATE_DIR)]
    pub state_dir: PathBuf,
    /// Write our network configuration for the runtime once pods can be attached, and keep it there: a kubelet calls the node ready then
    #[arg(long, env = "TWILL_WRITE_CONFLIST")]
    pub write_conflist: bool,
    /// Directory of the runtime's network configurations, from which an uninstall takes ours
    #[arg(long, env = "TWILL_CNI_CONF_DIR", default_value = CNI_CONF_DIR)]
    pub cni_conf_dir: PathBuf,
    /// Directory of the runtime's plugins, from which an uninstall takes ours
    #[arg(long, env = "TWILL_CNI_BIN_DIR", default_value = CNI_BIN_DIR)]
    pub cni_bin_dir: PathBuf,
    /// What becomes of live connections that a change of policy forbids
    #[arg(long, env = "TWILL_EXISTING_CONNECTIONS", value_enum, default_value_t)]
    pub existing_connections: ExistingConnections,
    /// Bytes of the longest transaction with nf_tables; what is longer is committed in parts, and a policy that is longer by itself is
    /// refused, and its pods closed
    #[arg(long, env = "TWILL_LONGEST_TRANSACTION", default_value_t = nft::LONGEST_TRANSACTION, hide_default_value = true)]
    pub longest_transaction: usize,
    /// Identifier of this boot, for tests; the kernel's otherwise
    #[arg(long, env = "TWILL_BOOT_ID", hide = true)]
    pub boot_id: Option<String>,
    /// Seconds before an unused block of another store is given back, for tests
    #[arg(long, env = "TWILL_QUARANTINE", default_value_t = QUARANTINE / 1000, hide = true)]
    pub quarantine: u64,
    /// Seconds for which an address rests before another pod may have it, for tests
    #[arg(long, env = "TWILL_COOL_DOWN", default_value_t = COOL_DOWN.as_secs(), hide = true)]
    pub cool_down: u64,
}

/// Runs until SIGTERM, SIGINT or a request to leave. Everything in the kernel stays, unless the node's NodeNetwork asks for an
/// uninstall.
///
/// # Errors
/// What could not be started, in one sentence.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(serve(args.clone()));
    runtime.shutdown_background();
    match outcome? {
        End::Asked => Ok(ExitCode::SUCCESS),
        End::Uninstall => match departure::become_uninstaller(&args)? {},
    }
}

/// Why felix ends.
enum End {
    /// By a signal or a request: what it made stays in force.
    Asked,
    /// Twill is to be removed from the node.
    Uninstall,
}

/// Everything that speaks to the agent.
struct Inputs {
    facts: mpsc::Receiver<heard::Fact>,
    asks: mpsc::UnboundedReceiver<Ask>,
    news: mpsc::UnboundedReceiver<News>,
    done: mpsc::UnboundedReceiver<Done>,
    drops: mpsc::Receiver<nflog::Heard>,
    table: oneshot::Receiver<Result<Opened, nft::Error>>,
    /// SIGTERM and SIGINT. The first process of a container hears only what it asked for, so it asks before anything else.
    end: [Signal; 2],
}

type Opened = (Table, mpsc::UnboundedReceiver<nft::Event>);

async fn serve(args: Args) -> anyhow::Result<End> {
    let end = [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?];
    let departing = args.clone();
    let existing = args.existing_connections;
    let conflist =
        args.write_conflist.then(|| Conflist::new(&args.cni_conf_dir, &args.run_dir).of_state(&args.state_dir));
    let boot_id = boot_id(&args)?;
    sysctl::node().context("preparing the node for routing")?;
    let directory = removal::store_dir(&args.state_dir);
    let store = open_store(&directory)?;
    let (remembered, memory) = memory::open(&args.state_dir).context("starting the thread that keeps what is heard")?;
    let places = places(&args);
    let kept = host::kept::read(&host::kept::path(&places.state_dir));
    // Who has something to go on with goes on.
    let closed = remembered.is_none() && !kept.confirmed.is_empty();
    let datastore = match remembered.is_some() || closed {
        true => Datastore::open_patiently(&args.datastore, "felix").await,
        false => Datastore::open_existing_as(&args.datastore, "felix").await?,
    };
    let (news_sender, news) = mpsc::unbounded_channel();
    monitor::start(news_sender).context("listening to the kernel's news")?;
    let (done_sender, done) = mpsc::unbounded_channel();
    let mut rtnl = Rtnl::open().context("opening a netlink socket")?;
    let links = link::all(&mut rtnl)?;
    let claimant = identity(&directory, || links.iter().find_map(|link| claimant(&link.alias)).map(str::to_owned))?;
    let node = args.node.clone();
    let events = events::start(datastore.clone(), &node);
    let settings = Settings { told: nft::can_tell(), vxlan_ports: kept.ports.vxlan };
    let (told, bare) = (settings.told, skeleton(&settings));
    let parts = Parts {
        owner: Owner { node: node.clone(), claimant },
        boot_id,
        quarantine: Duration::from_secs(args.quarantine),
        cool_down: Duration::from_secs(args.cool_down),
        datastore: datastore.clone(),
        store,
        rtnl,
        done: done_sender.clone(),
        events,
        memory,
        facts: host::facts::local(&places).await,
        places: places.clone(),
        settings,
    };
    let mut agent = Agent::new(parts)?;
    agent.treat(existing);
    agent.announce(conflist);
    if let Some(remembered) = remembered {
        agent.remember(remembered);
    } else if closed {
        agent.go_on_without_memory();
    }
    host::facts::start(datastore.clone(), places, done_sender.clone());
    tokio::spawn(identify(datastore.clone(), done_sender));
    let (ask_sender, asks) = mpsc::unbounded_channel();
    let socket = answer(&args, Calls::new(ask_sender, datastore.clone()))?;
    let (opened, table) = oneshot::channel();
    let options = nft::Options { longest_transaction: args.longest_transaction, ..nft::Options::default() };
    tokio::spawn(async move { opened.send(Table::open_with(bare, options).await) });
    let drops = match told {
        true => nflog::start(NFLOG_GROUP).context("starting the thread that listens to denied packets")?,
        false => mpsc::channel(1).1,
    };
    let facts = heard::follow_all(&datastore);
    let conditions = report::start(datastore.clone(), node.clone());
    tracing::info!(%node, socket = %socket.display(), "felix started");
    let departure = async {
        departure::asked(&datastore, &node).await;
        departure::unhindered(&departing).await;
    };
    let end = tokio::select! {
        fed = feed(&mut agent, Inputs { facts, asks, news, done, drops, table, end }, &conditions) => fed.map(|()| End::Asked)?,
        () = departure => End::Uninstall,
    };
    // A client that finds no socket knows at once; one that finds a dead one does too. Either way nothing else is undone.
    let _ = std::fs::remove_file(&socket);
    match end {
        End::Asked => tracing::info!("felix stopped; the kernel goes on enforcing"),
        End::Uninstall => tracing::info!("felix stopped; the node's NodeNetwork asks to remove Twill from this node"),
    }
    Ok(end)
}

/// Answers on the socket, whose path is returned, and performs what plugins left.
fn answer(args: &Args, calls: Calls) -> std::io::Result<PathBuf> {
    let socket = args.run_dir.join(FELIX_SOCKET);
    let listener = server::bind(&socket)?;
    tokio::spawn(calls::replay(calls.clone(), Tombstones::of(&args.state_dir, &args.run_dir)));
    tokio::spawn(server::serve(listener, calls));
    Ok(socket)
}

fn boot_id(args: &Args) -> anyhow::Result<String> {
    let id = match args.boot_id.clone() {
        Some(id) => id,
        None => std::fs::read_to_string("/proc/sys/kernel/random/boot_id").context("reading the boot ID")?,
    };
    Ok(id.trim().to_owned())
}

fn open_store(directory: &Path) -> anyhow::Result<Store> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let store = Store::open(directory, u64::try_from(now).unwrap_or(u64::MAX))?;
    if let Some(why) = store.fresh() {
        tracing::info!(%why, "the store of addresses begins empty; what the kernel has is taken back");
    }
    Ok(store)
}

fn places(args: &Args) -> Places {
    Places { state_dir: args.state_dir.clone(), run_dir: args.run_dir.clone(), url: args.datastore.clone() }
}

/// Asks the datastore which it is, until it answers.
async fn identify(datastore: Datastore, done: mpsc::UnboundedSender<Done>) {
    loop {
        let answer = datastore.identity().await;
        let last = answer.is_ok();
        if done.send(Done::Identified(answer)).is_err() || last {
            return;
        }
        tokio::time::sleep(TICK).await;
    }
}

async fn feed(agent: &mut Agent, mut inputs: Inputs, conditions: &report::Sender) -> anyhow::Result<()> {
    let [terminate, interrupt] = &mut inputs.end;
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut facts, mut news) = (Vec::with_capacity(BATCH), Vec::new());
    let mut events: Option<mpsc::UnboundedReceiver<nft::Event>> = None;
    let mut listening = true;
    let mut looks = Looks::default();
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            heard = inputs.facts.recv_many(&mut facts, BATCH) => {
                anyhow::ensure!(heard > 0, "the datastore's facts have ended");
                agent.hear(&mut facts).await;
            }
            Some(ask) = inputs.asks.recv() => {
                let last = matches!(ask, Ask::Leave(_));
                agent.answer(ask).await;
                if last {
                    return Ok(());
                }
            }
            Some(heard) = inputs.drops.recv() => agent.denied(heard),
            Some(done) = inputs.done.recv() => agent.done(done).await,
            heard = inputs.news.recv_many(&mut news, BATCH), if listening => {
                // Nothing at all means that the monitor has ended: the tick's look at the kernel has to do.
                listening = heard > 0;
                tell(agent, &mut news, &mut looks).await;
            }
            () = looks.due() => looks.look(agent).await,
            opened = &mut inputs.table, if events.is_none() => {
                let (table, outbox) = opened.context("the table's thread has ended")?.context("table inet twill")?;
                events = Some(outbox);
                agent.take_table(table).await;
            }
            event = next(&mut events) => {
                match event {
                    Some(event) => agent.table_event(event),
                    None => anyhow::bail!("the thread that owns table inet twill has ended"),
                }
            }
            _ = tick.tick() => agent.tick().await,
        }
        if let Some(now) = agent.conditions() {
            report::tell(conditions, now);
        }
    }
}

async fn next(events: &mut Option<mpsc::UnboundedReceiver<nft::Event>>) -> Option<nft::Event> {
    match events {
        Some(events) => events.recv().await,
        None => std::future::pending().await,
    }
}

/// A look reads all links and routes, and each interface that is attached is some news: so many looks at fifty interfaces at once would be
/// all that the agent does.
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);

/// When the kernel was looked at, and is to be.
#[derive(Default)]
struct Looks {
    last: Option<Instant>,
    due: Option<Instant>,
}

impl Looks {
    /// There is a reason for a look: now, or as soon as the last one is not too near.
    fn ask(&mut self, now: Instant) {
        let earliest = self.last.map_or(now, |last| (last + BETWEEN_LOOKS).max(now));
        self.due.get_or_insert(earliest);
    }

    async fn due(&self) {
        match self.due {
            Some(at) => tokio::time::sleep_until(at.into()).await,
            None => std::future::pending().await,
        }
    }

    async fn look(&mut self, agent: &mut Agent) {
        self.due = None;
        agent.repair().await;
        // From its end: a long one must not be followed by the next at once.
        self.last = Some(Instant::now());
    }
}

/// All news of one moment are one look at the kernel.
async fn tell(agent: &mut Agent, news: &mut Vec<News>, looks: &mut Looks) {
    let (mut routed, mut withdrawn, mut linked) = (false, false, false);
    for item in news.drain(..) {
        match item {
            News::Ours => looks.ask(Instant::now()),
            News::Link => linked = true,
            News::Unreachable => routed = true,
            // Thousands may go at once: the next tick looks.
            News::Withdrawn => withdrawn = true,
            News::Lost => {
                looks.ask(Instant::now());
                (routed, linked) = (true, true);
            }
        }
    }
    if linked {
        agent.refresh_uplinks();
    }
    if routed || withdrawn {
        agent.routes_changed();
    }
    if routed {
        agent.check_blocks();
        agent.retry().await;
    }
}
