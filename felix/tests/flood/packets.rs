//! Packets made by hand, sent many at a time, and counted where they arrive.

use crate::node::Attached;
use crate::world::{Ns, text, until};
use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, SockaddrIn, sendmmsg};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::IoSlice;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use twill_felix::io::netns::Netns;

pub(crate) const UDP: u8 = 17;
/// TCP, of which only the first segment is sent.
pub(crate) const SYN: u8 = 6;
/// Packets of one system call.
const AT_ONCE: usize = 64;
const FIRST_PORT: u16 = 20_000;

/// Packets of one kind.
#[derive(Clone, Copy)]
pub(crate) struct Flow {
    pub(crate) from: Ipv4Addr,
    pub(crate) to: Ipv4Addr,
    pub(crate) protocol: u8,
    pub(crate) port: u16,
    /// How many source ports, one after the other.
    pub(crate) ports: u16,
}

impl Flow {
    /// One for each source port, or the same many times.
    fn packets(&self) -> Vec<Vec<u8>> {
        (0..u64::from(self.ports.max(AT_ONCE as u16))).map(|number| self.packet(number)).collect()
    }

    /// The packet with this number.
    fn packet(&self, number: u64) -> Vec<u8> {
        let source = FIRST_PORT + (number % u64::from(self.ports)) as u16;
        let mut transport = [source.to_be_bytes(), self.port.to_be_bytes()].concat();
        if self.protocol == UDP {
            // No checksum; the number tells one from the other in a capture.
            transport.extend([0, 16, 0, 0]);
            transport.extend(number.to_be_bytes());
        } else {
            transport.extend((number as u32).to_be_bytes());
            transport.extend([0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
            let checksum = self.checksum(&transport);
            transport[16..18].copy_from_slice(&checksum.to_be_bytes());
        }
        let length = (20 + transport.len()) as u16;
        let mut packet = vec![0x45, 0];
        packet.extend(length.to_be_bytes());
        // The kernel fills in its identification and checksum.
        packet.extend([0, 0, 0x40, 0, 64, self.protocol, 0, 0]);
        packet.extend(self.from.octets());
        packet.extend(self.to.octets());
        packet.extend(transport);
        packet
    }

    /// RFC 9293, section 3.1; what is wrong would be dropped as invalid before policy sees it.
    fn checksum(&self, transport: &[u8]) -> u16 {
        let pseudo =
            [&self.from.octets()[..], &self.to.octets(), &[0, self.protocol, 0, transport.len() as u8]].concat();
        let words = pseudo.chunks(2).chain(transport.chunks(2));
        let sum: u32 = words.map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        !((folded & 0xffff) + (folded >> 16)) as u16
    }
}

/// Sends until it is stopped, unless it is held.
pub(crate) struct Sender {
    held: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    /// Of each kind.
    sent: Arc<[AtomicU64; 3]>,
    /// Counts on while it is held.
    turn: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Sender {
    /// Sends packets of each kind in turn out of a pod, so many per second in all if the machine can.
    pub(crate) fn start(pod: &Attached, rate: u64, flows: [Flow; 3]) -> Self {
        let (held, stop) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let (sent, turn) = (Arc::<[AtomicU64; 3]>::default(), Arc::<AtomicU64>::default());
        let raw = || Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW))).unwrap();
        let socket = Netns::open(&pod.ns.path()).unwrap().run(raw).unwrap();
        let shared = (held.clone(), stop.clone(), sent.clone(), turn.clone());
        let thread = std::thread::spawn(move || {
            let (held, stop, sent, turn) = shared;
            let packets = flows.map(|flow| flow.packets());
            let rings = [0, 1, 2].map(|n| Ring::new(flows[n].to, &packets[n]));
            let mut headers = MultiHeaders::preallocate(AT_ONCE, None);
            // Packets that are due come from this moment on; what was not sent while held is not made up for.
            let (mut began, mut begun_with) = (Instant::now(), 0);
            while !stop.load(Ordering::Acquire) {
                let all: u64 = sent.iter().map(|sent| sent.load(Ordering::Relaxed)).sum();
                if held.load(Ordering::Acquire) {
                    (began, begun_with) = (Instant::now(), all);
                    std::thread::park_timeout(Duration::from_micros(200));
                    turn.fetch_add(1, Ordering::Release);
                    continue;
                }
                let due = u128::from(rate) * began.elapsed().as_micros() / 1_000_000;
                if u128::from(all - begun_with) >= due {
                    std::thread::park_timeout(Duration::from_micros(100));
                    continue;
                }
                for (ring, sent) in rings.iter().zip(sent.iter()) {
                    sent.fetch_add(ring.burst(&socket, &mut headers, sent.load(Ordering::Relaxed)), Ordering::Release);
                }
            }
        });
        Self { held, stop, sent, turn, thread: Some(thread) }
    }

    /// How many of each kind have been sent.
    pub(crate) fn sent(&self) -> [u64; 3] {
        self.sent.each_ref().map(|sent| sent.load(Ordering::Acquire))
    }

    /// Sends no more until it may again; none is on its way out of the pod when this returns.
    pub(crate) fn hold(&self) {
        self.held.store(true, Ordering::Release);
        let seen = self.turn.load(Ordering::Acquire);
        until("a sender holds", Duration::from_secs(10), || self.turn.load(Ordering::Acquire) >= seen + 2);
    }

    pub(crate) fn go_on(&self) {
        self.held.store(false, Ordering::Release);
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        drop(self.thread.take().map(JoinHandle::join));
    }
}

/// Packets that are sent again and again.
struct Ring<'a> {
    slices: Vec<[IoSlice<'a>; 1]>,
    to: Vec<Option<SockaddrIn>>,
}

impl<'a> Ring<'a> {
    fn new(to: Ipv4Addr, packets: &'a [Vec<u8>]) -> Self {
        let slices = packets.iter().map(|packet| [IoSlice::new(packet)]).collect();
        Self { slices, to: vec![Some(SockaddrIn::from(SocketAddrV4::new(to, 0))); AT_ONCE] }
    }

    /// Sends some, beginning with the `first`th of all; how many the kernel took.
    fn burst(&self, socket: &Socket, headers: &mut MultiHeaders<SockaddrIn>, first: u64) -> u64 {
        let begin = (first % self.slices.len() as u64) as usize;
        let some = &self.slices[begin..self.slices.len().min(begin + AT_ONCE)];
        let none: [ControlMessage<'_>; 0] = [];
        let to = &self.to[..some.len()];
        let results = sendmmsg(socket.as_raw_fd(), headers, some, to, none, MsgFlags::empty());
        // None if the pod's own queue is full.
        results.map_or(0, |results| results.count() as u64)
    }
}

/// Counters in a pod's namespace, of the kernel's own, that no thread can be late for.
pub(crate) struct Arrivals {
    netns: String,
}

impl Arrivals {
    /// Counts and takes what comes to a pod: from this address to UDP port 7000, and all else to it.
    pub(crate) fn count(pod: &Attached, friend: Ipv4Addr) -> Self {
        let rules = format!(
            "add table ip flood
             add counter ip flood allowed
             add counter ip flood forbidden
             add chain ip flood arrivals {{ type filter hook prerouting priority -400; }}
             add rule ip flood arrivals ip saddr {friend} udp dport 7000 counter name allowed drop
             add rule ip flood arrivals ip protocol udp counter name forbidden drop
             add rule ip flood arrivals ip protocol tcp counter name forbidden drop
            "
        );
        let script = format!("printf '%s' \"{rules}\" | nft -f -");
        pod.ns.run(&["sh", "-c", &script]);
        Self { netns: pod.ns.0.clone() }
    }

    pub(crate) fn allowed(&self) -> u64 {
        self.read("allowed")
    }

    pub(crate) fn forbidden(&self) -> u64 {
        self.read("forbidden")
    }

    fn read(&self, counter: &str) -> u64 {
        let list = ["netns", "exec", &self.netns, "nft", "list", "counter", "ip", "flood", counter];
        let output = Command::new("ip").args(list).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        text(&output).split("packets ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap()
    }
}

/// Packets that devices of a namespace could not hand on because a queue was full.
pub(crate) fn dropped_by_queues(ns: &Ns) -> u64 {
    let links: serde_json::Value = serde_json::from_str(&ns.run(&["ip", "-j", "-s", "link"])).unwrap();
    let dropped = |link: &serde_json::Value| link["stats64"]["tx"]["dropped"].as_u64().unwrap();
    links.as_array().unwrap().iter().map(dropped).sum()
}
