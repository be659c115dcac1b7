//! The way of one connection: who judges it where, and what each says.

use super::host::{AtHost, Crossing};
use super::judge::{Judgement, judge};
use super::packet::Packet;
use super::party::{Party, Side, UnknownParty};
use super::story::{Entered, Explanation, Note};
use super::tunnel::Tunnel;
use super::universe::Universe;
use crate::model::{Direction, Pod, Protocol, Way};
use std::net::IpAddr;

impl Universe {
    /// Whether a connection from `src` to `port` of `dst` may be opened, and why. For protocols without ports `port` does not
    /// count.
    ///
    /// # Errors
    /// A pod or a node that is named does not exist.
    pub fn explain(
        &self,
        src: &Party,
        dst: &Party,
        port: u16,
        protocol: Protocol,
    ) -> Result<Explanation, UnknownParty> {
        self.explain_by(src, dst, port, protocol, &Crossing::default())
    }

    /// The same of one that takes this way.
    ///
    /// # Errors
    /// A pod or a node that is named does not exist.
    pub fn explain_by(
        &self,
        src: &Party,
        dst: &Party,
        port: u16,
        protocol: Protocol,
        way: &Crossing,
    ) -> Result<Explanation, UnknownParty> {
        let (from, to) = self.ends(src, dst)?;
        let led = if way.came_to.is_none() { self.led_to(&to, port, protocol) } else { None };
        let Some(led) = led else {
            // Who is named by an address sends from that one, whatever the kernel would choose.
            let bound = matches!(src, Party::Address(_));
            return Ok(self.either_way(&from, &to, &Asked { port, protocol, way, bound }));
        };
        let way = Crossing { came_to: Some((led.node.clone(), port)), sent_to: to.address(), ..way.clone() };
        let explained = self.explain_by(src, &led.to, led.port, protocol, &way)?;
        Ok(Explanation { entered: Some(Entered::HostPort { node: led.node, port }), ..explained })
    }

    /// Both ends. A node also receives what is sent to an address that only its Node object has, as a cloud's external one.
    pub(super) fn ends(&self, src: &Party, dst: &Party) -> Result<(Side, Side), UnknownParty> {
        let (from, to) = self.sides(src, dst)?;
        let known = |address| self.known_as.get(address).into_iter().flatten().find(|node| !from.is_on(node));
        match to {
            Side::Outside(address) => match known(&address) {
                Some(node) => Ok((from, Side::Node { node: node.clone(), pod: None, address })),
                None => Ok((from, to)),
            },
            to => Ok((from, to)),
        }
    }

    /// By a tunnel, without one, or, where only the nodes know which, both and what is so for either.
    fn either_way(&self, src: &Side, dst: &Side, asked: &Asked<'_>) -> Explanation {
        let told = |tunnel| self.story(src.clone(), dst.clone(), asked, tunnel);
        let tunnel = asked.sender(src).and_then(|from| self.tunnel(from, dst));
        match tunnel.as_ref().map(|tunnel| (tunnel, tunnel.is_taken(asked.way))) {
            None | Some((_, Some(false))) => told(None),
            Some((tunnel, Some(true))) => told(Some(tunnel)),
            Some((tunnel, None)) => told(None).or_through(told(Some(tunnel)), tunnel),
        }
    }

    fn story(&self, src: Side, dst: Side, asked: &Asked<'_>, tunnel: Option<&Tunnel<'_>>) -> Explanation {
        let Asked { port, protocol, way, bound } = *asked;
        let mut walk = Walk { universe: self, way, protocol, notes: Vec::new() };
        let free = |side: &Side| matches!(side, Side::Outside(address) if self.pools.all.contains(*address));
        let nobodys = [&src, &dst].into_iter().filter(|side| free(side)).filter_map(Side::address);
        walk.notes.extend(nobodys.map(|address| Note::Nobodys { address }));
        let entry = walk.entry(&dst);
        // Who sends it from elsewhere sees the node that it comes to, and no more.
        let (first, first_port) = match &entry {
            Some((node, (name, port))) if !src.is_on(name) => (sent_to(node, way), *port),
            _ => (dst.clone(), port),
        };
        let egress = walk.egress(&src, &first, first_port, tunnel);
        let beyond = self.seen_beyond(&src, &first);
        walk.notes.extend(beyond.iter().map(|node| Note::Translated { node: node.to_string() }));
        let seen = beyond.as_ref().unwrap_or(&src);
        let through = way.came_to.as_ref().map(|(node, port)| walk.through(seen, &dst, node, *port));
        let hidden = entry.as_ref().filter(|(_, (name, _))| way.hidden && !dst.is_on(name));
        let own = hidden.map(|(node, _)| node).or((way.came_to.is_none() && !bound).then_some(&src));
        let tunnelled = tunnel.and_then(|tunnel| tunnel.seen(own?));
        walk.notes.extend(tunnel.zip(tunnelled.as_ref()).map(|(tunnel, seen)| tunnel.note(way, seen)));
        let outer = tunnel.and_then(|tunnel| walk.outer(tunnel));
        let last = tunnelled.as_ref().or(hidden.map(|(node, _)| node)).unwrap_or(seen);
        let ingress = walk.ingress(last, &dst, port, tunnel);
        let mut notes = walk.notes;
        notes.dedup();
        let told = Explanation {
            allowed: false,
            src,
            dst,
            port,
            protocol,
            egress,
            outer,
            ingress,
            through,
            entered: None,
            notes,
        };
        let allowed = told.steps().all(Judgement::allows);
        Explanation { allowed, ..told }
    }

    /// One direction of a connection, ready to be judged.
    pub(super) fn packet<'a>(
        &'a self,
        direction: Direction,
        subject: &'a Pod,
        peer: &'a Side,
        dst: &'a Side,
        (port, protocol): (u16, Protocol),
    ) -> Packet<'a> {
        Packet { universe: self, direction, subject: Some(subject), peer, dst, port, protocol }
    }
}

/// What is asked about two ends.
#[derive(Clone, Copy)]
struct Asked<'a> {
    port: u16,
    protocol: Protocol,
    way: &'a Crossing,
    /// Whether it is sent from the sender's address and no other one.
    bound: bool,
}

impl<'a> Asked<'a> {
    /// The node that sends it to the receiver's.
    fn sender(&self, src: &'a Side) -> Option<&'a str> {
        match (&self.way.came_to, src) {
            (Some((node, _)), _) | (None, Side::Node { node, .. }) => Some(node),
            (None, Side::Pod { pod, .. }) => Some(&pod.node),
            (None, Side::Outside(_) | Side::Nowhere { .. }) => None,
        }
    }
}

/// A connection on its way, with what people should know beside the verdicts.
struct Walk<'a> {
    universe: &'a Universe,
    way: &'a Crossing,
    protocol: Protocol,
    notes: Vec<Note>,
}

impl<'a> Walk<'a> {
    /// The node that it comes to first, as others see it, with its name and port; none if that has no address of the family.
    fn entry(&self, dst: &Side) -> Option<(Side, &'a (String, u16))> {
        let came_to @ (name, _) = self.way.came_to.as_ref()?;
        let v4 = dst.address()?.is_ipv4();
        let node = self.universe.nodes.get(name)?;
        let external = || node.known_as.iter().copied().find(|address| address.is_ipv4() == v4);
        let address = self.universe.address_of_node(name, v4).or_else(external)?;
        Some((Side::Node { node: name.clone(), pod: None, address }, came_to))
    }

    fn egress(&mut self, src: &Side, dst: &Side, port: u16, tunnel: Option<&Tunnel<'_>>) -> Judgement {
        match (src, dst) {
            (Side::Nowhere { who, why }, _) => Judgement::Impossible(format!("{who} {why}")),
            (_, Side::Nowhere { .. }) => Judgement::NotJudged("nothing can be sent there".to_owned()),
            _ if self.is_to_itself(src, dst) => to_itself(),
            (Side::Pod { .. }, _) if self.carries_tunnels(port) => {
                Judgement::Guarded(format!("pods may not send {}", self.tunnel_packets()))
            }
            (Side::Pod { pod, .. }, _) => {
                judge(&self.universe.packet(Direction::Egress, pod, dst, dst, (port, self.protocol)))
            }
            (Side::Node { node, .. }, _) if dst.is_on(node) => {
                Judgement::NotJudged("it does not leave the node".to_owned())
            }
            (Side::Node { node, .. }, _) => {
                let device = tunnel.filter(|tunnel| tunnel.from == node.as_str()).map(|tunnel| tunnel.device);
                let interface = device.or(self.way.interface.as_deref());
                let at = AtHost { node, way: Way::Out, port, protocol: self.protocol, interface };
                self.judge(&at, dst)
            }
            (Side::Outside(_), _) => Judgement::NotJudged("the sender is outside the cluster".to_owned()),
        }
    }

    /// `tunnel`: by which it comes out at the receiver's node.
    fn ingress(&mut self, src: &Side, dst: &Side, port: u16, tunnel: Option<&Tunnel<'_>>) -> Judgement {
        match (src, dst) {
            (_, Side::Nowhere { who, why }) => Judgement::Impossible(format!("{who} {why}")),
            (Side::Nowhere { .. }, _) => Judgement::NotJudged("nothing arrives".to_owned()),
            _ if self.is_to_itself(src, dst) => to_itself(),
            (Side::Node { node, .. }, Side::Pod { pod, .. }) if *node == pod.node => {
                Judgement::NotJudged("a node always reaches its own pods".to_owned())
            }
            (_, Side::Pod { pod, .. }) => {
                judge(&self.universe.packet(Direction::Ingress, pod, src, dst, (port, self.protocol)))
            }
            (_, Side::Node { node, .. }) if src.is_on(node) => {
                Judgement::NotJudged("HostPolicies are not about what stays on the node".to_owned())
            }
            (_, Side::Node { .. }) if self.carries_tunnels(port) && self.is_stranger(src) => {
                Judgement::Guarded(format!("nodes take {} from nodes alone", self.tunnel_packets()))
            }
            (_, Side::Node { node, .. }) => self.at_node(node, Way::In, port, src, tunnel),
            (_, Side::Outside(_)) => Judgement::NotJudged("the receiver is outside the cluster".to_owned()),
        }
    }

    /// At the node that sends it on to its receiver.
    fn through(&mut self, src: &Side, dst: &Side, node: &str, port: u16) -> Judgement {
        if !self.universe.nodes.contains_key(node) {
            return Judgement::Impossible(format!("there is no node {node}"));
        }
        if src.is_on(node) {
            return Judgement::NotJudged("HostPolicies are not about what begins on the node".to_owned());
        }
        if matches!(dst, Side::Node { node: own, .. } if own == node) {
            return Judgement::NotJudged("it goes on to the node itself, which judges it as such".to_owned());
        }
        self.at_node(node, Way::Through, port, src, None)
    }

    fn at_node(&mut self, node: &str, way: Way, port: u16, peer: &Side, tunnel: Option<&Tunnel<'_>>) -> Judgement {
        let interface = tunnel.map(|tunnel| tunnel.device).or(self.way.interface.as_deref());
        let at = AtHost { node, way, port, protocol: self.protocol, interface };
        self.judge(&at, peer)
    }

    /// Whether it looks like a packet of a tunnel, which the table judges whatever policy says (`base`, chains `workload` and `input`).
    fn carries_tunnels(&self, port: u16) -> bool {
        let vxlan = &self.universe.tunnels.fabric.ports.vxlan;
        self.protocol == Protocol::IP_IN_IP || self.protocol == Protocol::UDP && vxlan.contains(&port)
    }

    fn tunnel_packets(&self) -> String {
        let ports = self.universe.tunnels.fabric.ports.vxlan.iter().map(ToString::to_string).collect::<Vec<_>>();
        format!("tunnel packets, which are IP-in-IP and UDP to BGPConfiguration's vxlanPort ({})", ports.join(", "))
    }

    /// Whether nobody sends tunnel packets from there. IP-in-IP of IPv6 is no tunnel of ours.
    fn is_stranger(&self, src: &Side) -> bool {
        let judged = |address: &IpAddr| address.is_ipv4() || self.protocol == Protocol::UDP;
        src.address().filter(judged).is_some_and(|address| !self.universe.node_addresses().contains(&address))
    }

    fn judge(&mut self, at: &AtHost<'_>, peer: &Side) -> Judgement {
        let judgement = self.universe.judge_at_host(at, peer);
        self.notes.extend(self.universe.remarks(at, peer, &judgement));
        judgement
    }

    /// What becomes of the packets that carry it from node to node, if they do not pass.
    fn outer(&mut self, tunnel: &Tunnel<'_>) -> Option<Judgement> {
        let [from, to] = [tunnel.from, tunnel.to].map(|node| self.universe.tunnel_end(node));
        let (from, to) = (from?, to?);
        let (port, protocol) = tunnel.carrier;
        let interface = self.way.interface.as_deref().filter(|name| *name != tunnel.device);
        for (node, way, peer) in [(tunnel.from, Way::Out, &to), (tunnel.to, Way::In, &from)] {
            let at = AtHost { node, way, port, protocol, interface };
            if !self.universe.judge_at_host(&at, peer).allows() {
                return Some(self.judge(&at, peer));
            }
        }
        None
    }

    fn is_to_itself(&self, src: &Side, dst: &Side) -> bool {
        let same = matches!((src, dst), (Side::Pod { pod: a, .. }, Side::Pod { pod: b, .. }) if a.key == b.key);
        same && self.way.came_to.is_none() && !self.way.led
    }
}

/// A node as who sends something to one of its ports sees it.
fn sent_to(node: &Side, way: &Crossing) -> Side {
    match (node, way.sent_to) {
        (Side::Node { node, pod, address }, Some(sent_to)) if sent_to.is_ipv4() == address.is_ipv4() => {
            Side::Node { node: node.clone(), pod: pod.clone(), address: sent_to }
        }
        _ => node.clone(),
    }
}

fn to_itself() -> Judgement {
    Judgement::NotJudged("a pod's packets to itself never leave it".to_owned())
}
