//! What runs in the place of a pod's containers: listeners on the declared ports that answer with the pod's name.
//!
//! The process is started inside the pod's namespace before CNI ADD, says `ready` on its standard output once every
//! listener is bound, and lives until it is killed.

use crate::io::process::{self, Process};
use crate::ports::{Port, Protocol};
use anyhow::{Context, bail};
use socket2::{Domain, SockAddr, Socket, Type};
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use tokio::net::TcpListener;

/// Starts a holder and returns when its listeners are bound.
///
/// # Errors
/// A port is taken, or the process cannot be started.
pub fn start(netns: &str, answer: &str, addresses: &[IpAddr], ports: &[Port], log: &Path) -> anyhow::Result<Process> {
    let mut args = vec!["lab".to_owned(), "hold".to_owned(), "--answer".to_owned(), answer.to_owned()];
    for address in addresses {
        args.extend(["--address".to_owned(), address.to_string()]);
    }
    for port in ports {
        args.extend(["--port".to_owned(), port.to_string()]);
    }
    let mut child = process::start(netns, &args, &[], log, Stdio::piped())?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line).context("holder")?;
    }
    if line.trim() != "ready" {
        drop(child.kill());
        drop(child.wait());
        bail!("the listeners of pod {answer} do not start: {}", line.trim());
    }
    process::identify(&child)
}

/// Ends the holder that gives this answer inside a namespace which others share. No error if there is none.
///
/// # Errors
/// It does not go.
pub fn stop(netns: &str, answer: &str) -> anyhow::Result<()> {
    let wanted = format!("\0hold\0--answer\0{answer}\0");
    for process in process::inside(&[netns.to_owned()]) {
        let line = std::fs::read(format!("/proc/{}/cmdline", process.pid)).unwrap_or_default();
        if String::from_utf8_lossy(&line).contains(&wanted) {
            process.kill()?;
        }
    }
    Ok(())
}

/// The holder itself; never returns unless a listener cannot be bound.
///
/// # Errors
/// The port is taken; printed as the first line too.
pub fn run(answer: &str, addresses: &[IpAddr], ports: &[Port]) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let wildcards = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
        let addresses = if addresses.is_empty() { &wildcards } else { addresses };
        let answer: Arc<str> = Arc::from(format!("{answer}\n"));
        for port in ports {
            for address in addresses {
                if let Err(error) = listen(SocketAddr::new(*address, port.port), port.protocol, &answer) {
                    println!("port {port} of {address}: {error:#}");
                    return Err(error);
                }
            }
        }
        println!("ready");
        std::io::stdout().flush()?;
        std::future::pending::<()>().await;
        Ok(())
    })
}

fn listen(address: SocketAddr, protocol: Protocol, answer: &Arc<str>) -> anyhow::Result<()> {
    let (kind, number) = match protocol {
        Protocol::Tcp => (Type::STREAM, socket2::Protocol::TCP),
        Protocol::Udp => (Type::DGRAM, socket2::Protocol::UDP),
        Protocol::Sctp => (Type::STREAM, socket2::Protocol::SCTP),
    };
    let socket = match Socket::new(Domain::for_address(address), kind.nonblocking(), Some(number)) {
        Err(error) if lacks(&error) => {
            tracing::warn!(%address, %protocol, "this kernel has no such sockets; the port stays closed");
            return Ok(());
        }
        other => other?,
    };
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if protocol != Protocol::Udp {
        socket.set_reuse_address(true)?;
    }
    socket.bind(&SockAddr::from(address))?;
    if protocol == Protocol::Udp {
        let socket = tokio::net::UdpSocket::from_std(socket.into())?;
        tokio::spawn(datagrams(socket, answer.clone()));
    } else {
        socket.listen(1024)?;
        // A one-to-one SCTP socket (RFC 6458 section 4) is used as a TCP socket is.
        tokio::spawn(connections(TcpListener::from_std(socket.into())?, answer.clone()));
    }
    Ok(())
}

/// Whether an error of `socket(2)` means that the kernel does not know the family or the protocol.
pub(crate) fn lacks(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EPROTONOSUPPORT | libc::ESOCKTNOSUPPORT | libc::EAFNOSUPPORT))
}

async fn datagrams(socket: tokio::net::UdpSocket, answer: Arc<str>) {
    let mut buffer = [0; 2048];
    loop {
        // Errors here are ICMP messages about earlier answers; the next datagram is another matter.
        if let Ok((_, from)) = socket.recv_from(&mut buffer).await {
            let _ = socket.send_to(answer.as_bytes(), from).await;
        }
    }
}

async fn connections(listener: TcpListener, answer: Arc<str>) {
    loop {
        match listener.accept().await {
            // The line fits the empty send buffer of a fresh connection; closing sends what is there, then ends it.
            Ok((connection, _)) => drop(connection.try_write(answer.as_bytes())),
            Err(error) => tracing::debug!(%error, "accept"),
        }
    }
}
