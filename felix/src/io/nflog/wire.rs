//! nfnetlink_log's bytes (`linux/netfilter/nfnetlink_log.h`).

use super::packet::{self, Packet};
use crate::io::netfilter::{attributes, errno, message, messages};
use netlink_sys::Socket;
use std::io;

/// `NFNL_SUBSYS_ULOG << 8`, with `NFULNL_MSG_PACKET` and `_CONFIG`.
const PACKET: u16 = 0x400;
const CONFIG: u16 = 0x401;
const ERROR: u16 = 2;
const ACK: u16 = 0x5;

const CONFIG_COMMAND: u16 = 1;
const CONFIG_MODE: u16 = 2;
const CONFIG_TIMEOUT: u16 = 4;
const CONFIG_THRESHOLD: u16 = 5;
const BIND: u8 = 1;
const COPY_PACKET: u8 = 2;
/// Hundredths of a second after which a packet is told at the latest, and packets after which it is at once.
const TIMEOUT: u32 = 5;
const THRESHOLD: u32 = 32;
/// The table's rules say how much of a packet is told; this is the limit of all.
const COPIED: u32 = 256;

const HEADER: u16 = 1;
const IN_INTERFACE: u16 = 4;
const OUT_INTERFACE: u16 = 5;
const PAYLOAD: u16 = 9;
const PREFIX: u16 = 10;

/// What must be asked for, one after the other.
pub(super) fn requests(group: u16) -> Vec<Vec<u8>> {
    let mode = [&COPIED.to_be_bytes()[..], &[COPY_PACKET, 0]].concat();
    let settings = [
        attribute(CONFIG_MODE, &mode),
        attribute(CONFIG_TIMEOUT, &TIMEOUT.to_be_bytes()),
        attribute(CONFIG_THRESHOLD, &THRESHOLD.to_be_bytes()),
    ];
    let config = |attributes: &[u8]| message(CONFIG, ACK, (0, group), attributes);
    vec![config(&attribute(CONFIG_COMMAND, &[BIND])), config(&settings.concat())]
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Waits for the answer to a request. Packets that come meanwhile are not told.
pub(super) fn acknowledged(socket: &Socket) -> io::Result<()> {
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        for (kind, body) in messages(&datagram) {
            if kind == ERROR {
                return errno(body);
            }
        }
    }
}

/// The packets of a datagram.
pub(super) fn packets(datagram: &[u8]) -> impl Iterator<Item = Packet> {
    messages(datagram).filter(|(kind, _)| *kind == PACKET).filter_map(|(_, body)| read(body.get(4..)?))
}

fn read(bytes: &[u8]) -> Option<Packet> {
    let mut packet = Packet::default();
    for (kind, value, _) in attributes(bytes) {
        let index = || value.first_chunk().map(|index| u32::from_be_bytes(*index));
        match kind {
            HEADER => packet.to_host = value.get(2) == Some(&LOCAL_IN),
            IN_INTERFACE => packet.in_interface = index(),
            OUT_INTERFACE => packet.out_interface = index(),
            PREFIX => {
                let text = value.split(|byte| *byte == 0).next().unwrap_or_default();
                packet.prefix = String::from_utf8_lossy(text).into_owned();
            }
            PAYLOAD => packet.headers = packet::headers(value),
            _ => {}
        }
    }
    packet.headers.is_some().then_some(packet)
}

/// `NF_INET_LOCAL_IN`.
const LOCAL_IN: u8 = 1;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// As Linux 6.18 sent them for `udp dport 8080 log prefix "list_0123 no rule allows it" group 21591 snaplen 128` at the input hook.
    const V4: &str = "b000000000040000000000000000000002005457080001000800010020000a006c6973745f30313233206e6f2072756c6520616c6c6f77
        732069740008000400000000011000080000060000000000000000000006000f000304000006001100000e0000120010000000000000000000000000
        000800000014000300000000006b07d9ad00000000000c5514210009004500001d51fa40004011ead37f0000017f00000113881f900009fe1c78000000";
    const V6: &str = "c40000000004000000000000000000000a0054570800010086dd010020000a006c6973745f30313233206e6f2072756c6520616c6c6f77
        732069740008000400000000011000080000060000000000000000000006000f000304000006001100000e0000120010000000000000000000000000
        0086dd000014000300000000006b07d9ad00000000000d26823500090060069b65000911400000000000000000000000000000000100000000000000
        00000000000000000113881f900009001c78000000";

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits.chunks(2).map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap()).collect()
    }

    #[test]
    fn what_the_kernel_tells_is_read() {
        let both = [hex(V4), hex(V6)].concat();
        let told: Vec<Packet> = packets(&both).collect();
        assert_eq!(told.len(), 2);
        for (packet, address) in told.iter().zip(["127.0.0.1", "::1"]) {
            let headers = packet.headers.unwrap();
            assert_eq!(packet.prefix, "list_0123 no rule allows it");
            assert_eq!((packet.in_interface, packet.out_interface, packet.to_host), (Some(1), None, true));
            assert_eq!((headers.source.ip().to_string(), headers.source.port()), (address.to_owned(), 5000));
            assert_eq!((headers.destination.port(), headers.protocol), (8080, 17));
        }
    }

    #[test]
    fn bytes_that_end_too_early_are_no_packet() {
        let whole = hex(V4);
        for end in 0..whole.len() {
            assert_eq!(packets(&whole[..end]).count(), 0, "{end}");
        }
    }

    /// `NFULNL_MSG_CONFIG`, the group in `res_id`; then CMD bind, and copy mode packet with its range.
    #[test]
    fn a_group_is_asked_for_as_the_header_file_says() {
        let all: Vec<String> =
            requests(21_591).iter().map(|bytes| bytes.iter().map(|byte| format!("{byte:02x}")).collect()).collect();
        assert_eq!(all[0], "1c00000001040500000000000000000000005457".to_owned() + "0500010001000000");
        assert_eq!(
            all[1],
            "3000000001040500000000000000000000005457".to_owned()
                + "0a000200000001000200"
                + "0000"
                + "0800040000000005"
                + "0800050000000020"
        );
    }
}
