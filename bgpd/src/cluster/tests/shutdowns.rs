//! Nodes that are drained, or go down.

use super::*;

fn network(drain: bool) -> Heard {
    Heard::Network(applied(object(json!({"metadata": {"name": "a1"}, "spec": {"drain": drain}}))))
}

#[test]
fn a_drained_node_speaks_with_nobody_also_after_a_restart_and_says_when_all_sessions_are_closed() {
    let mut objects = cluster();
    assert!(objects.apply(network(true)) && !objects.apply(network(true)), "its own status is no news");
    let drained = desired("a1", &objects);
    assert!(drained.speaker.peers.is_empty() && drained.speaker.listen.is_empty());
    assert_eq!(drained.speaker.shutdown, Some(Shutdown::Drained));
    let kept = serde_json::to_string(&snapshot_of(&objects)).unwrap();
    assert_eq!(
        desired("a1", &Objects::remembered("a1", "twill-system", serde_json::from_str(&kept).unwrap())),
        drained
    );

    let now = Timestamp::from_second(1).unwrap();
    let said = |peers: u32| {
        let conditions =
            report(&drained, &Observed { peers, ..Observed::default() }, &BgpState::default(), now).conditions;
        conditions.into_iter().find(|c| c.type_ == "Drained").map(|c| (c.status, c.message)).unwrap()
    };
    assert_eq!(said(2), ("False".to_owned(), "2 sessions are still being closed".to_owned()));
    assert_eq!(said(1), ("False".to_owned(), "1 session is still being closed".to_owned()));
    assert_eq!(said(0), ("True".to_owned(), String::new()));
    let untold = Observed { untold: vec!["tor".to_owned()], ..Observed::default() };
    let conditions = report(&drained, &untold, &BgpState::default(), now).conditions;
    assert!(conditions.iter().any(|c| c.type_ == "Drained" && c.status == "False" && c.message.starts_with("tor: ")));
    objects.apply(network(false));
    let back = desired("a1", &objects);
    assert_eq!(back, desired("a1", &cluster()));
    // What was observed is still of the drained node, which had no sessions.
    let conditions = report(&back, &Observed::default(), &BgpState::default(), now).conditions;
    let sessions = conditions.iter().find(|c| c.type_ == "SessionsEstablished").unwrap();
    assert_eq!(sessions.message, format!("{0} of {0} sessions are not established", back.speaker.peers.len()));
    assert!(!conditions.iter().any(|c| c.type_ == "Drained"));
}

#[test]
fn the_kubelet_says_that_the_machine_goes_down() {
    let node = |message: &str| {
        Heard::Node(Box::new(applied(object(json!({
            "metadata": {"name": "a1", "creationTimestamp": "2026-01-01T00:00:01Z"},
            "status": {
                "addresses": [{"type": "InternalIP", "address": "172.31.1.11"}],
                "conditions": [{"type": "Ready", "status": "False", "message": message}],
            },
        })))))
    };
    assert!(!desired("a1", &with(cluster(), [node("container runtime is down")])).going_down);
    assert!(desired("a1", &with(cluster(), [node("[container runtime is down, node is shutting down]")])).going_down);
    assert!(!desired("a2", &with(cluster(), [node("node is shutting down")])).going_down, "another one does");
}
