//! Network namespaces without names: each belongs to a thread and goes with it, however the test ends.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

type Job = Box<dyn FnOnce() + Send>;

/// A namespace, and the thread that lives in it.
pub(crate) struct Namespace {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    /// What `ip link set … netns` takes.
    pub(crate) path: String,
}

impl Namespace {
    pub(crate) fn new() -> Namespace {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let (tell, path) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a namespace needs root");
            tell.send(format!("/proc/{}/task/{}/ns/net", std::process::id(), nix::unistd::gettid())).unwrap();
            sh("ip link set lo up");
            inbox.into_iter().for_each(|job| job());
        });
        Namespace { jobs: Some(jobs), thread: Some(thread), path: path.recv().expect("the namespace's thread") }
    }

    /// Starts `f` in the namespace; the receiver gets its result. One job at a time.
    pub(crate) fn start<T: Send + 'static>(&self, f: impl FnOnce() -> T + Send + 'static) -> mpsc::Receiver<T> {
        let (done, result) = mpsc::channel();
        let job: Job = Box::new(move || drop(done.send(f())));
        self.jobs.as_ref().unwrap().send(job).expect("the namespace's thread");
        result
    }

    /// Runs `f` in the namespace.
    pub(crate) fn run<T: Send + 'static>(&self, f: impl FnOnce() -> T + Send + 'static) -> T {
        self.start(f).recv().expect("the job ended")
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            // The panic of a job is the test's, and was seen by whoever waited for its result.
            drop(thread.join());
        }
    }
}

/// Runs a command line in the calling thread's namespace; it must succeed.
pub(crate) fn sh(line: &str) -> String {
    let (ok, out) = try_sh(line);
    assert!(ok, "{line}: {out}");
    out
}

/// Runs a command line in the calling thread's namespace: whether it succeeded, and what it said.
pub(crate) fn try_sh(line: &str) -> (bool, String) {
    let out = Command::new("sh").args(["-c", line]).stdin(Stdio::null()).output().unwrap();
    (out.status.success(), String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr))
}

/// Gives nft a script in the calling thread's namespace.
pub(crate) fn nft(script: &str) {
    let mut child = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{script}");
}

/// A host with workloads, each behind a veth of its own as felix would have made it.
pub(crate) struct Host {
    pub(crate) namespace: Namespace,
    pods: u8,
}

/// A workload. Its interface is called `eth0`.
pub(crate) struct Pod {
    pub(crate) namespace: Namespace,
    /// The host's end.
    pub(crate) veth: String,
    pub(crate) v4: IpAddr,
    pub(crate) v6: IpAddr,
}

/// Addresses of the host itself.
pub(crate) const NODE_V4: &str = "10.8.0.1";
pub(crate) const NODE_V6: &str = "fd08::1";

impl Host {
    pub(crate) fn new() -> Host {
        let namespace = Namespace::new();
        namespace.run(|| {
            sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
            sh(&format!("ip addr add {NODE_V4}/32 dev lo; ip addr add {NODE_V6}/128 dev lo nodad"));
        });
        Host { namespace, pods: 0 }
    }

    /// A workload with addresses 10.9.0.N and fd09::N; its host end's name begins with `prefix`.
    pub(crate) fn pod(&mut self, prefix: &str) -> Pod {
        self.pods += 1;
        let n = self.pods;
        self.attach(format!("{prefix}{n}"), &format!("10.9.0.{n}"), &format!("fd09::{n}"))
    }

    /// A workload with the addresses of one whose interface is gone, behind another interface.
    pub(crate) fn pod_again(&mut self, prefix: &str, gone: &Pod) -> Pod {
        self.pods += 1;
        self.attach(format!("{prefix}{}", self.pods), &gone.v4.to_string(), &gone.v6.to_string())
    }

    fn attach(&self, veth: String, v4: &str, v6: &str) -> Pod {
        let namespace = Namespace::new();
        let script = format!(
            "set -e; ip link add {veth} address ee:ee:ee:ee:ee:ee type veth peer name eth0 netns {}
             ip addr add fe80::1/64 dev {veth} nodad; ip link set {veth} up
             ip route add {v4} dev {veth}; ip route add {v6} dev {veth}",
            namespace.path
        );
        self.namespace.run(move || sh(&script));
        let script = format!(
            "set -e; ip addr add {v4}/32 dev eth0; ip addr add {v6}/128 dev eth0 nodad; ip link set eth0 up
             ip route add 169.254.1.1 dev eth0 scope link; ip route add default via 169.254.1.1
             ip neigh add 169.254.1.1 lladdr ee:ee:ee:ee:ee:ee dev eth0
             ip route add default via fe80::1 dev eth0"
        );
        namespace.run(move || sh(&script));
        Pod { namespace, veth, v4: v4.parse().unwrap(), v6: v6.parse().unwrap() }
    }

    /// A machine beyond the host's uplink `up0`: 192.0.2.2, the host is 192.0.2.1.
    pub(crate) fn outside(&self) -> Namespace {
        let outside = Namespace::new();
        let script = format!(
            "set -e; ip link add up0 type veth peer name eth0 netns {}
             ip addr add 192.0.2.1/24 dev up0; ip link set up0 up",
            outside.path
        );
        self.namespace.run(move || sh(&script));
        outside.run(|| {
            sh("set -e; ip addr add 192.0.2.2/24 dev eth0; ip link set eth0 up; ip route add default via 192.0.2.1")
        });
        outside
    }
}

/// Answers on one port with the asker's address, over UDP and TCP, IPv4 and IPv6, until it is dropped.
pub(crate) struct Responder {
    stop: Arc<AtomicBool>,
    /// UDP datagrams received.
    pub(crate) datagrams: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<()>>,
}

impl Responder {
    pub(crate) fn new(namespace: &Namespace, port: u16) -> Responder {
        let (stop, datagrams) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, counted) = (stop.clone(), datagrams.clone());
        let threads = namespace.run(move || {
            let udp = UdpSocket::bind(("::", port)).unwrap();
            let tcp = TcpListener::bind(("::", port)).unwrap();
            udp.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            tcp.set_nonblocking(true).unwrap();
            let stop = stopped.clone();
            let answer_udp = move || {
                let mut buffer = [0; 2048];
                while !stop.load(Ordering::Relaxed) {
                    if let Ok((_, from)) = udp.recv_from(&mut buffer) {
                        counted.fetch_add(1, Ordering::Relaxed);
                        drop(udp.send_to(from.ip().to_canonical().to_string().as_bytes(), from));
                    }
                }
            };
            let answer_tcp = move || {
                while !stopped.load(Ordering::Relaxed) {
                    match tcp.accept() {
                        Ok((mut stream, from)) => {
                            drop(stream.write_all(from.ip().to_canonical().to_string().as_bytes()));
                        }
                        Err(_) => std::thread::park_timeout(Duration::from_millis(5)),
                    }
                }
            };
            vec![std::thread::spawn(answer_udp), std::thread::spawn(answer_tcp)]
        });
        Responder { stop, datagrams, threads }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

/// Asks a [`Responder`] over UDP: what it answered, or `None` after 900 ms of silence.
pub(crate) fn udp(from: &Namespace, to: IpAddr, port: u16) -> Option<String> {
    from.run(move || {
        let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        socket.connect((to, port)).ok()?;
        let mut buffer = [0; 64];
        for _ in 0..3 {
            // A refused earlier datagram shows as an error here.
            drop(socket.send(b"?"));
            if let Ok(n) = socket.recv(&mut buffer) {
                return Some(String::from_utf8_lossy(&buffer[..n]).into_owned());
            }
        }
        None
    })
}

/// Asks a [`Responder`] over TCP: what it answered, or `None` after 900 ms.
pub(crate) fn tcp(from: &Namespace, to: IpAddr, port: u16) -> Option<String> {
    from.run(move || {
        let mut stream = TcpStream::connect_timeout(&(to, port).into(), Duration::from_millis(900)).ok()?;
        stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    })
}

/// Whether a ping is answered within a second.
pub(crate) fn ping(from: &Namespace, to: IpAddr) -> bool {
    from.run(move || try_sh(&format!("ping -c 1 -W 1 {to}")).0)
}
