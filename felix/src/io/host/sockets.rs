//! TCP sockets of this network namespace, as `/proc` tells: who listens, and where this process is connected to.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const ESTABLISHED: &str = "01";
const LISTEN: &str = "0A";

/// A TCP socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Socket {
    /// Its own end.
    pub local: SocketAddr,
    /// The other end; unspecified while it listens.
    pub remote: SocketAddr,
    /// Whether it listens; else it is connected.
    pub listens: bool,
    /// Its number, as the descriptors of processes name it.
    pub inode: u64,
}

/// All that listen or are connected. What cannot be read is left out.
#[must_use]
pub fn all() -> Vec<Socket> {
    let files = ["/proc/net/tcp", "/proc/net/tcp6"];
    files.iter().filter_map(|file| fs::read_to_string(file).ok()).flat_map(|text| parse(&text)).collect()
}

/// Numbers of the sockets that a process has open.
#[must_use]
pub fn of_process(pid: &str) -> BTreeSet<u64> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let links = descriptors.filter_map(|entry| fs::read_link(entry.path()).ok());
    links.filter_map(|link| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()).collect()
}

/// Numbers of the sockets of all processes of these names, as far as this one can see them.
#[must_use]
pub fn of_processes_named(names: &[&str]) -> BTreeSet<u64> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids =
        entries.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| name.parse::<u32>().is_ok());
    let named = |pid: &String| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| names.contains(&name.trim_end()))
    };
    pids.filter(named).flat_map(|pid| of_process(&pid)).collect()
}

fn parse(text: &str) -> Vec<Socket> {
    text.lines().skip(1).filter_map(line).collect()
}

fn line(line: &str) -> Option<Socket> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let state = *fields.get(3)?;
    if ![ESTABLISHED, LISTEN].contains(&state) {
        return None;
    }
    Some(Socket {
        local: end(fields.get(1)?)?,
        remote: end(fields.get(2)?)?,
        listens: state == LISTEN,
        inode: fields.get(9)?.parse().ok()?,
    })
}

/// `0100007F:1F90`: words of the address in the machine's byte order.
fn end(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let words = address.as_bytes().chunks(8).map(|word| u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok());
    let bytes: Vec<u8> = words.collect::<Option<Vec<u32>>>()?.into_iter().flat_map(u32::to_ne_bytes).collect();
    let address = match bytes.len() {
        4 => IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        _ => IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)).to_canonical(),
    };
    Some(SocketAddr::new(address, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_listener_and_a_connection_of_this_process_are_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let six = TcpListener::bind("[::1]:0").unwrap();
        let own = of_process("self");
        let mine: Vec<Socket> = all().into_iter().filter(|socket| own.contains(&socket.inode)).collect();
        for listening in [listener.local_addr().unwrap(), six.local_addr().unwrap()] {
            assert!(mine.iter().any(|socket| socket.listens && socket.local == listening), "{mine:?}");
        }
        let (local, remote) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
        assert!(
            mine.iter().any(|socket| !socket.listens && (socket.local, socket.remote) == (local, remote)),
            "{mine:?}"
        );
    }
}
