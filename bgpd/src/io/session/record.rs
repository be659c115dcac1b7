//! What the recorder is told.

use super::Io;
use crate::fsm::State;
use crate::io::connection::Key;
use crate::io::recorder::{Recorder, now};
use crate::mrt::{Ends, Form, Record, What};
use crate::replay::number;
use crate::rib::PeerId;
use crate::wire::{HEADER_LEN, MessageType};
use std::collections::HashMap;

/// A recording that runs, with the ends of each peer's last connection.
pub(super) struct Recording {
    recorder: Recorder,
    ends: HashMap<PeerId, Ends>,
}

impl Recording {
    pub(super) fn new(recorder: Recorder) -> Self {
        Self { recorder, ends: HashMap::new() }
    }
}

impl Io {
    /// Whole messages, sent or received.
    pub(super) fn record(&mut self, key: Key, sent: bool, messages: &[u8]) {
        if self.recording.is_none() || messages.is_empty() {
            return;
        }
        let Some(connection) = self.connections.get(&key) else { return };
        let (id, local) = (connection.peer, connection.stream.as_ref().and_then(|stream| stream.local_addr().ok()));
        let (Some(peer), Some(local)) = (self.peers.get(&id), local) else { return };
        let negotiated = peer.fsm.negotiated();
        let ends = Ends {
            peer_asn: negotiated.map_or(0, |negotiated| negotiated.peer_asn),
            interface: u16::try_from(peer.config.remote().zone).unwrap_or(0),
            local_asn: peer.fsm.config().local_asn,
            peer: peer.config.address,
            local: local.ip(),
        };
        let form = negotiated.map_or(Form::PLAIN, |negotiated| {
            let families = if sent { negotiated.add_path_send } else { negotiated.add_path_receive };
            Form { four_octet_as: negotiated.four_octet_as, add_path: !families.is_empty() }
        });
        let Some(recording) = &mut self.recording else { return };
        recording.ends.insert(id, ends);
        let at = now();
        let records = Messages(messages).map(|bytes| {
            let form = if bytes[HEADER_LEN - 1] == MessageType::Update as u8 { form } else { Form::PLAIN };
            Record { at, ends, what: What::Message { sent, form, bytes } }
        });
        recording.recorder.note(records);
    }

    /// A session that came or went.
    pub(super) fn record_state(&mut self, id: PeerId, old: State, new: State) {
        let Some(recording) = &mut self.recording else { return };
        let Some(ends) = recording.ends.get(&id).copied() else { return };
        let what = What::State { old: number(old), new: number(new) };
        recording.recorder.note(std::iter::once(Record { at: now(), ends, what }));
    }
}

/// Cuts whole messages apart.
struct Messages<'a>(&'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let length = usize::from(u16::from_be_bytes([*self.0.get(16)?, *self.0.get(17)?])).max(HEADER_LEN);
        let (message, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(message)
    }
}
