//! `twill drops`: packets that this node denied, as felix is told of them.

use crate::args::Drops as Args;
use crate::commands::counted;
use crate::io::control::{ask, follow};
use crate::output::{Format, print_line, print_table, print_value};
use anyhow::bail;
use std::process::ExitCode;
use twill_crds::control::{DropCount, DropLine, DroppedPacket, Drops, FelixRequest};
use twill_crds::names::FELIX_SOCKET;

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let socket = args.node.run_dir.join(FELIX_SOCKET);
    let about = |packet: &DroppedPacket| args.pod.as_deref().is_none_or(|pod| concerns(packet, pod));
    if args.follow {
        follow(&socket, &FelixRequest::Drops { follow: true }, |line| tell(&line, args.output.output, about))?;
        return Ok(ExitCode::SUCCESS);
    }
    let Some(mut drops) = ask::<_, Option<Drops>>(&socket, &FelixRequest::Drops { follow: false })? else {
        bail!("felix is stopping");
    };
    drops.packets.retain(about);
    if let Some(pod) = &args.pod {
        drops.counts.retain(|count| count.of.iter().any(|one| one.ends_with(&format!(" of {pod}"))));
    }
    match args.output.output {
        Format::Table => table(&drops)?,
        format => print_value(format, &drops)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn concerns(packet: &DroppedPacket, pod: &str) -> bool {
    [&packet.source.pod, &packet.destination.pod, &packet.denial.pod].iter().any(|one| one.as_deref() == Some(pod))
}

const HEADER: [&str; 5] = ["TIME", "FROM", "TO", "PROTOCOL", "DENIED BY"];

fn cells(packet: &DroppedPacket) -> [String; 5] {
    [
        // To the millisecond.
        packet.time.get(..23).map_or_else(|| packet.time.clone(), |time| format!("{time}Z")),
        packet.source.to_string(),
        packet.destination.to_string(),
        packet.protocol.clone(),
        reason(packet),
    ]
}

/// What denied it; where it is about an interface and not a pod, which.
fn reason(packet: &DroppedPacket) -> String {
    let interfaces: Vec<&str> = packet.in_interface.iter().chain(&packet.out_interface).map(String::as_str).collect();
    match packet.denial.pod {
        Some(_) => packet.denial.to_string(),
        None => format!("{} ({})", packet.denial, interfaces.join(" to ")),
    }
}

fn table(drops: &Drops) -> anyhow::Result<()> {
    if drops.packets.is_empty() {
        print_line(&format!("node {} was told of no denied packet", drops.node))?;
    } else {
        print_table(&HEADER, drops.packets.iter().map(|packet| cells(packet).to_vec()))?;
    }
    let silent = |count: &&DropCount| count.dropped > count.told;
    let unseen: Vec<&DropCount> = drops.counts.iter().filter(silent).collect();
    if !unseen.is_empty() {
        print_line("\nNot all that was dropped is told of:")?;
        let row = |count: &&DropCount| {
            let whose = if count.of.is_empty() { count.chain.clone() } else { count.of.join(", ") };
            let [dropped, untold] = [count.dropped, count.dropped - count.told].map(|number| number.to_string());
            vec![count.reason.clone(), whose, dropped, untold]
        };
        print_table(&["DENIED BY", "OF", "DROPPED", "NOT TOLD"], unseen.iter().map(row))?;
    }
    if drops.missed > 0 {
        print_line(&format!("felix could not take {}", counted(usize::try_from(drops.missed)?, "more packet")))?;
    }
    drops.problem.iter().try_for_each(|problem| print_line(&format!("problem: {problem}")))
}

/// One line of those that follow each other.
fn tell(line: &DropLine, format: Format, about: impl Fn(&DroppedPacket) -> bool) -> anyhow::Result<()> {
    if let DropLine::Packet(packet) = line
        && !about(packet)
    {
        return Ok(());
    }
    match (format, line) {
        (Format::Json, _) => print_line(&serde_json::to_string(line)?),
        (Format::Yaml, _) => {
            print_line("---")?;
            print_value(format, line)
        }
        (Format::Table, DropLine::Packet(packet)) => {
            let [time, from, to, protocol, reason] = cells(packet);
            print_line(&format!("{time}  {from} -> {to}  {protocol}  {reason}"))
        }
        (Format::Table, DropLine::Missed { missed: 0 }) => print_line("more could not be told"),
        (Format::Table, DropLine::Missed { missed }) => print_line(&format!("{missed} more could not be told")),
        (Format::Table, DropLine::Problem { problem }) => print_line(&format!("problem: {problem}")),
    }
}
