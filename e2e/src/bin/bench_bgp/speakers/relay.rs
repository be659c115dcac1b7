//! No speaker at all: whole messages go from senders to the receiver as they come.

use crate::message;
use crate::row::{Neighbour, Row};
use anyhow::Context;
use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// Listens, and goes on in threads of the caller's network namespace that end with their connections.
pub(super) fn start(row: Row) -> anyhow::Result<()> {
    let listener = TcpListener::bind("0.0.0.0:179").context("cannot listen on port 179")?;
    std::thread::spawn(move || serve(&listener, row));
    Ok(())
}

fn serve(listener: &TcpListener, row: Row) -> anyhow::Result<()> {
    // The receiver is the first, as everywhere here.
    let receiver = Arc::new(Mutex::new(greet(listener)?));
    for _ in 0..row.senders {
        let (sender, receiver) = (greet(listener)?, Arc::clone(&receiver));
        std::thread::spawn(move || relay(sender, &receiver));
    }
    Ok(())
}

/// The next neighbour, in Established as it sees it.
fn greet(listener: &TcpListener) -> anyhow::Result<TcpStream> {
    let (mut stream, from) = listener.accept()?;
    let number = match from.ip() {
        IpAddr::V4(address) => address.octets()[2],
        IpAddr::V6(_) => Neighbour::RECEIVER.number,
    };
    stream.set_nodelay(true)?;
    stream.write_all(&message::open(65_000, [10, 98, number, 1]))?;
    stream.write_all(&message::keepalive())?;
    Ok(stream)
}

fn relay(mut sender: TcpStream, receiver: &Mutex<TcpStream>) -> anyhow::Result<()> {
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; 256 << 10]);
    loop {
        let octets = sender.read(&mut buffer)?;
        if octets == 0 {
            return Ok(());
        }
        bytes.extend_from_slice(&buffer[..octets]);
        let mut whole = 0;
        while let Some((_, message)) = message::first(&bytes[whole..]) {
            whole += message.len();
        }
        // Only whole ones, since others write there, too. The sender's own OPEN and KEEPALIVE change nothing there.
        receiver.lock().unwrap_or_else(std::sync::PoisonError::into_inner).write_all(&bytes[..whole])?;
        bytes.drain(..whole);
    }
}
