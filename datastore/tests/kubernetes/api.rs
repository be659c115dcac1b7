//! A real API server, and what it says of itself.
#![allow(unreachable_pub)]

use nix::sys::resource::UsageWho;
use std::io::{Read, Write};
use std::time::Duration;
use twill_control_plane::ApiServer;
use twill_datastore::Datastore;

pub struct Api {
    pub server: ApiServer,
}

impl Api {
    pub fn start() -> Self {
        Self { server: ApiServer::start().unwrap() }
    }

    /// One that knows Twill's kinds.
    pub fn with_definitions() -> Self {
        let api = Self::start();
        api.define();
        api
    }

    pub fn define(&self) {
        self.server.apply(&twill_crds::definitions::yaml().unwrap()).unwrap();
        let wait = ["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"];
        assert!(self.server.kubectl(&wait).unwrap().status.success());
    }

    pub async fn store(&self) -> Datastore {
        let url = format!("kubernetes:{}", self.server.kubeconfig().display());
        Datastore::open_existing_as(&url, "test").await.unwrap()
    }

    pub fn port(&self) -> u16 {
        self.server.url().rsplit_once(':').unwrap().1.parse().unwrap()
    }

    /// How many requests of this kind it has served.
    pub fn requests(&self, verb: &str, resource: &str) -> u64 {
        self.counted("apiserver_request_total", verb, resource)
    }

    /// How many bytes its answers to requests of this kind had.
    pub fn sent(&self, verb: &str, resource: &str) -> u64 {
        self.counted("apiserver_response_sizes_sum", verb, resource)
    }

    fn counted(&self, figure: &str, verb: &str, resource: &str) -> u64 {
        let output = self.server.kubectl(&["get", "--raw", "/metrics"]).unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let counts = text.lines().filter(|line| {
            line.starts_with(&format!("{figure}{{"))
                && line.contains(&format!("verb=\"{verb}\""))
                && line.contains(&format!("resource=\"{resource}\""))
        });
        counts.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap() as u64).sum()
    }

    /// What it has used of a processor.
    pub fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.server.pid().unwrap())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 10)
    }

    /// Makes its etcd forget all history.
    pub fn compact(&mut self) {
        let url = self.server.etcd().url();
        let range = post(&url, "/v3/kv/range", r#"{"key":"AA==","range_end":"AA==","limit":"1"}"#);
        let revision = range.split("\"revision\":\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
        let done = post(&url, "/v3/kv/compaction", &format!(r#"{{"revision":"{revision}","physical":true}}"#));
        assert!(done.contains("200 OK"), "{done}");
    }
}

/// The answer of etcd's JSON gateway, head and body.
fn post(url: &str, path: &str, body: &str) -> String {
    let address = url.strip_prefix("http://").unwrap();
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let length = body.len();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Connections of this process to a port of this machine.
pub fn established(port: u16) -> usize {
    let own: Vec<String> = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok()?.to_str().map(str::to_owned))
        .collect();
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let remote = format!("0100007F:{port:04X}");
    let is_ours = |fields: &[&str]| {
        fields.len() > 9 && fields[2] == remote && fields[3] == "01" && own.contains(&format!("socket:[{}]", fields[9]))
    };
    table.lines().skip(1).filter(|line| is_ours(&line.split_whitespace().collect::<Vec<_>>())).count()
}

/// What this process, or this thread, has used of a processor.
pub fn cpu(of: UsageWho) -> Duration {
    let usage = nix::sys::resource::getrusage(of).unwrap();
    let time =
        |value: nix::sys::time::TimeVal| Duration::from_micros((value.tv_sec() * 1_000_000 + value.tv_usec()) as u64);
    time(usage.user_time()) + time(usage.system_time())
}

/// Bytes that it has in memory.
pub fn resident() -> usize {
    memory("VmRSS:")
}

/// Bytes that it had at most.
pub fn peak() -> usize {
    memory("VmHWM:")
}

fn memory(field: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
}
