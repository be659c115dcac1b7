//! What must hold on every datastore behind a server: the demonstration, and the server away for a minute in the middle of everything.

use super::traffic::Traffic;
use super::{hold_against_oracle, only, pod, two_racks};
use std::time::{Duration, Instant};
use twill_e2e::{Lab, repository, within};

/// How long the server is away.
const AWAY: Duration = Duration::from_secs(60);
/// Until everybody has caught up: pauses between attempts grow to some seconds.
const LIMIT: Duration = Duration::from_secs(60);
const NODES: [&str; 3] = ["n1", "n2", "n3"];

/// The lab of `make demo` on `datastore`, held against the oracle.
pub(crate) fn demonstrate(lab: &Lab, datastore: &str) {
    let text = std::fs::read_to_string(repository().join("demo/lab.yaml")).unwrap();
    let text = text.replacen("spec:", &format!("spec:\n  datastore: {datastore}"), 1);
    let beside = ["app.yaml", "policies.yaml"]
        .map(|file| (file, std::fs::read_to_string(repository().join("demo").join(file)).unwrap()));
    lab.up_text(&text, &beside.each_ref().map(|(file, text)| (*file, text.as_str()))).unwrap();
    let pods = lab.status().unwrap().pods;
    assert_eq!(pods.iter().filter(|pod| pod.phase == "Running").count(), 12);
    hold_against_oracle(lab, &lab.probe(&[]).unwrap());
}

/// A server that can be away.
pub(crate) trait Server {
    fn kill(&mut self);
    fn start_again(&mut self);
}

/// The server is away for a minute: packets that may pass pass, others do not, daemons are killed and go on by what they knew; when it
/// is back, all that is asked of the lab is done.
pub(crate) fn survive(lab: &Lab, datastore: &str, server: impl FnOnce() -> Box<dyn Server>) {
    let pods = [pod("a", "n1"), pod("d", "n1"), pod("b", "n2"), pod("c", "n3"), pod("closed", "n3")].concat();
    let text = two_racks(&format!("  datastore: {datastore}\n  resources: [pods.yaml, policy.yaml]\n"));
    lab.up_text(&text, &[("pods.yaml", &pods), ("policy.yaml", &only("closed", "closed", "a"))]).unwrap();
    let before = observed(lab);
    assert!(before.iter().any(|cell| cell.ends_with("denied")) && before.iter().any(|cell| cell.ends_with("reached")));
    let mut server = server();
    let traffic = Traffic::start(lab, &[("c", "a"), ("a", "c"), ("b", "d"), ("d", "b")]);

    server.kill();
    let began = Instant::now();
    for (node, daemon) in [("n1", "bgpd"), ("n1", "felix"), ("n3", "felix"), ("n2", "bgpd")] {
        assert!(lab.lab(["kill", node, daemon]).output().unwrap().status.success());
        let started = lab.lab(["start", node, daemon]).output().unwrap();
        assert_eq!(started.status.code(), Some(2), "it runs, but does not reach the datastore: {started:?}");
        traffic.goes_on();
    }
    let twill = twill_e2e::twill().unwrap().display().to_string();
    let status = lab.exec_command("n1", &[&twill, "status"]).output().unwrap();
    assert_eq!(status.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&status.stdout).contains("the datastore"), "{status:?}");
    std::thread::sleep(AWAY.saturating_sub(began.elapsed()));
    traffic.goes_on();
    server.start_again();

    // Everybody is asked whether it has applied all there is.
    lab.apply(&pod("e", "n2")).unwrap();
    within(LIMIT, "every node is in sync", || NODES.iter().all(|node| lab.ask(node, &["status"]).is_ok())).unwrap();
    let losses = traffic.losses();
    println!("{datastore} away for {:?}: {losses:?}", began.elapsed());
    assert!(losses.iter().all(|(_, _, lost)| *lost == 0), "{losses:?}");
    let after = lab.probe(&[]).unwrap();
    hold_against_oracle(lab, &after);
    assert!(before.iter().all(|cell| observed(lab).contains(cell)), "what was reached is, what was denied is");
    lab.delete(&only("closed", "closed", "a")).unwrap();
    let open = lab.probe(&[]).unwrap();
    hold_against_oracle(lab, &open);
    assert!(open.cells.iter().all(|cell| cell.observed == "reached"));
}

/// Every cell as text.
fn observed(lab: &Lab) -> Vec<String> {
    let cells = lab.probe(&[]).unwrap().cells;
    cells.iter().map(|c| format!("{} {} {}/{} {}", c.from, c.to, c.port, c.protocol, c.observed)).collect()
}
