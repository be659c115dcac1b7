//! Live connections between pods, each of which can be asked whether it still carries anything, and in which direction.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use twill_lab::io::netns;

/// Within this whatever is not cut arrives, also on a busy machine.
const ARRIVES: Duration = Duration::from_secs(5);
/// What has not arrived after this on one machine does not.
const SILENCE: Duration = Duration::from_millis(400);

/// A pod.
#[derive(Clone, Debug)]
pub(crate) struct Pod {
    pub(crate) netns: String,
    /// IPv4 first.
    pub(crate) addresses: Vec<IpAddr>,
}

/// How the kernel tells connections apart: source, destination, protocol. ICMP has no ports.
pub(crate) type Name = (String, String, String);

/// A connection that was opened.
pub(crate) struct Flow {
    pub(crate) name: Name,
    pub(crate) what: String,
    wire: Wire,
}

enum Wire {
    Tcp { client: TcpStream, server: TcpStream },
    Udp { client: UdpSocket, server: UdpSocket, ends: [SocketAddr; 2] },
    Ping { netns: String, to: IpAddr, id: u16 },
}

impl Flow {
    /// TCP to a port on which nothing else listens.
    pub(crate) fn tcp(client: &Pod, server: &Pod, family: usize, port: u16) -> Self {
        let to = SocketAddr::new(server.addresses[family], port);
        let listener = netns::inside(&server.netns, || Ok(TcpListener::bind(to)?)).unwrap();
        let client = netns::inside(&client.netns, || Ok(TcpStream::connect_timeout(&to, ARRIVES)?)).unwrap();
        let (server, from) = listener.accept().unwrap();
        let wire = Wire::Tcp { client, server };
        Self::opened("TCP", from.to_string(), to.to_string(), wire)
    }

    /// UDP to a port on which nothing else listens, from `from_port` (0: any).
    pub(crate) fn udp(client: &Pod, server: &Pod, family: usize, from_port: u16, port: u16) -> Self {
        let bind = |pod: &Pod, port: u16| {
            let at = SocketAddr::new(pod.addresses[family], port);
            netns::inside(&pod.netns, || Ok(UdpSocket::bind(at)?)).unwrap()
        };
        let (client, server) = (bind(client, from_port), bind(server, port));
        let ends = [client.local_addr().unwrap(), server.local_addr().unwrap()];
        Self::opened("UDP", ends[0].to_string(), ends[1].to_string(), Wire::Udp { client, server, ends })
    }

    /// Echo requests that the kernel takes for one connection.
    pub(crate) fn ping(client: &Pod, server: &Pod, family: usize, id: u16) -> Self {
        let (from, to) = (client.addresses[family], server.addresses[family]);
        let protocol = if to.is_ipv4() { "ICMP" } else { "ICMPv6" };
        let wire = Wire::Ping { netns: client.netns.clone(), to, id };
        Self::opened(protocol, from.to_string(), to.to_string(), wire)
    }

    fn opened(protocol: &str, from: String, to: String, wire: Wire) -> Self {
        let what = format!("{protocol} {from} -> {to}");
        let mut flow = Self { name: (from, to, protocol.to_owned()), what, wire };
        // The server first wherever it can be: its segment is what would open a cut connection anew, the other way round.
        assert!(flow.carries(false, ARRIVES) && flow.carries(true, ARRIVES), "{} does not even open", flow.what);
        flow
    }

    /// Whether what is sent by both ends arrives at the other.
    pub(crate) fn lives(&mut self) -> bool {
        self.carries(true, ARRIVES) && self.carries(false, ARRIVES)
    }

    /// Whether nothing arrives at either end.
    pub(crate) fn is_dead(&mut self) -> bool {
        !self.carries(true, SILENCE) && !self.carries(false, SILENCE)
    }

    fn carries(&mut self, from_server: bool, limit: Duration) -> bool {
        match &mut self.wire {
            Wire::Tcp { client, server } => {
                let (from, to) = if from_server { (server, client) } else { (client, server) };
                to.set_read_timeout(Some(limit)).unwrap();
                from.write_all(b"x").unwrap();
                match to.read(&mut [0]) {
                    Ok(read) => read == 1,
                    Err(error) => {
                        assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
                        false
                    }
                }
            }
            Wire::Udp { client, server, ends } => {
                let (from, to, end) = if from_server { (server, client, ends[0]) } else { (client, server, ends[1]) };
                to.set_read_timeout(Some(SILENCE.min(limit))).unwrap();
                until(limit, || {
                    // A destination that cannot be reached answers by an error of an earlier packet.
                    let _ = from.send_to(b"x", end);
                    to.recv_from(&mut [0]).is_ok()
                })
            }
            Wire::Ping { netns, to, id } => until(limit, || ping(netns, *to, *id)),
        }
    }
}

fn ping(netns: &str, to: IpAddr, id: u16) -> bool {
    let (to, id) = (to.to_string(), id.to_string());
    let mut command = Command::new("ip");
    command.args(["netns", "exec", netns, "ping", "-c", "1", "-W", "0.4", "-e", &id, &to]);
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
}

/// Tries at least once.
fn until(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    loop {
        if done() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
    }
}

/// Names of the flows that `dead` says yes to.
pub(crate) fn names<'a>(flows: impl IntoIterator<Item = &'a Flow>, dead: impl Fn(&Flow) -> bool) -> BTreeSet<Name> {
    flows.into_iter().filter(|flow| dead(flow)).map(|flow| flow.name.clone()).collect()
}
