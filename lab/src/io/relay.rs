//! A way for a node to the datastore's server, which is on this machine's loopback: a program that listens at the same port of the
//! node's own loopback, and hands every connection on. It stands for the management network: no packet of it is on the lab's wires,
//! and it is cut with them when the node is partitioned.

use crate::io::{netns, process};
use crate::names;
use crate::state::State;
use anyhow::Context;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;
use tokio::net::TcpStream;

/// How long a relay may take to listen.
const START: Duration = Duration::from_secs(10);

/// Starts the relay of a node unless it runs; nothing where the datastore is a file.
///
/// # Errors
/// It does not listen.
pub fn start(state: &State, machine: &str) -> anyhow::Result<()> {
    let Some(port) = state.server else { return Ok(()) };
    let netns = state.node(machine)?.netns.clone();
    if running(state, machine).is_empty() {
        let dir = state.machine_dir(machine);
        std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        let (mark, port) = (names::mark(&state.name), port.to_string());
        let args = ["lab", "relay", "--mark", &mark, "--machine", machine, "--netns", &netns, "--port", &port];
        process::start_here(&process::own_executable()?, &args, &dir.join("relay.log"))?;
    }
    let listens = || netns::inside(&netns, || Ok(std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port))?)).is_ok();
    anyhow::ensure!(
        process::until(START, listens),
        "{machine}: its relay to the datastore does not listen at port {port}"
    );
    Ok(())
}

/// Ends the relay of a node: its connections to the datastore break. No error if there is none.
///
/// # Errors
/// It does not go.
pub fn stop(state: &State, machine: &str) -> anyhow::Result<()> {
    running(state, machine).iter().try_for_each(process::Process::kill)
}

fn running(state: &State, machine: &str) -> Vec<process::Process> {
    process::with_arguments(&[&names::mark(&state.name), machine])
}

/// Relays for ever.
///
/// # Errors
/// The port is taken in the namespace, or the namespace is not there.
pub fn run(netns: &str, port: u16) -> anyhow::Result<()> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let listener = netns::inside(netns, || TcpListener::bind(address).with_context(|| format!("{netns}: {address}")))?;
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        loop {
            let (client, _) = listener.accept().await?;
            tokio::spawn(async move {
                // Either end may go at any time; the other then hears of it.
                let _ = hand_on(client, address).await;
            });
        }
    })
}

async fn hand_on(mut client: TcpStream, address: SocketAddr) -> std::io::Result<()> {
    let mut server = TcpStream::connect(address).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    tokio::io::copy_bidirectional(&mut client, &mut server).await.map(drop)
}
