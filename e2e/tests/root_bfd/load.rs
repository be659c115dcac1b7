//! Two BFD processes with many sessions between them, asked for by the test in the place of bgpd.

use super::world::{LIMIT, Program, World, run, within};
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;
use twill_crds::control::{BfdEnds, BfdHops, BfdRequest, BfdStatus, BfdWanted};
use twill_e2e::twill;
use twill_lab::io::daemons::ask;
use twill_lab::io::netns;

const QUICK: Duration = Duration::from_secs(5);

/// One process and the connection that wants its sessions.
struct End {
    process: Program,
    dir: PathBuf,
    wants: UnixStream,
}

pub(crate) struct Load([End; 2]);

/// The address of a session at one end.
fn address(end: u8, number: u16) -> IpAddr {
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(10, 80 + end, high, low).into()
}

impl Load {
    pub(crate) fn start(world: &World, count: u16) -> Self {
        Self([(0, &world.twill), (1, &world.other)].map(|(end, netns)| {
            // By one next hop: the kernel keeps no more than a thousand neighbours.
            let mut batch = format!("route add 10.{}.0.0/16 via 10.73.1.{}\n", 81 - end, 2 - end);
            for number in 1..=count {
                batch += &format!("address add {}/32 dev eth0\n", address(end, number));
            }
            let dir = world.dir.join(format!("end{end}"));
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("batch"), batch).unwrap();
            run("ip", &format!("-n {netns} -batch {}", dir.join("batch").display()));
            let args = ["bfd", "--run-dir", &dir.display().to_string()];
            let process = Program::start(netns, &twill().unwrap(), &args, &dir.join("log"));
            let socket = dir.join("bfd.sock");
            within(LIMIT, "the process answers", || UnixStream::connect(&socket).is_ok());
            let wanted = |number| BfdWanted {
                ends: BfdEnds {
                    peer: address(1 - end, number),
                    local: Some(address(end, number)),
                    interface: None,
                    hops: BfdHops::Single,
                },
                min_tx: 50,
                min_rx: 50,
                multiplier: 3,
            };
            let request = BfdRequest::Want {
                client: "test".to_owned(),
                netns: netns::inode(netns).unwrap(),
                keep: 0,
                sessions: (1..=count).map(wanted).collect(),
            };
            let mut wants = UnixStream::connect(&socket).unwrap();
            wants.write_all((serde_json::to_string(&request).unwrap() + "\n").as_bytes()).unwrap();
            // What is told is read by nobody else.
            let mut told = wants.try_clone().unwrap();
            std::thread::spawn(move || told.read_to_end(&mut Vec::new()));
            End { process, dir, wants }
        }))
    }

    /// How many sessions are Up at each end.
    pub(crate) fn up(&self) -> [usize; 2] {
        self.0.each_ref().map(|end| {
            let status: BfdStatus = ask(&end.dir.join("bfd.sock"), &BfdRequest::Status, QUICK).unwrap_or_default();
            status.sessions.iter().filter(|session| session.state == "Up").count()
        })
    }

    /// How many sessions failed at each end since the start.
    pub(crate) fn failures(&self) -> [usize; 2] {
        self.0.each_ref().map(|end| fs::read_to_string(end.dir.join("log")).unwrap().matches("session down").count())
    }

    /// Processor time of each process so far: user and system.
    pub(crate) fn processor_time(&self) -> [Duration; 2] {
        self.0.each_ref().map(|end| {
            let stat = fs::read_to_string(format!("/proc/{}/stat", end.process.id())).unwrap();
            // Behind the name, which may contain anything: fields 14 and 15 of proc_pid_stat(5), in hundredths of a second.
            let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
            let ticks: u64 = [11, 12].map(|index: usize| fields[index].parse::<u64>().unwrap()).iter().sum();
            Duration::from_millis(ticks * 10)
        })
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for end in &self.0 {
            // Ends the thread that reads.
            let _ = end.wants.shutdown(std::net::Shutdown::Both);
        }
    }
}
