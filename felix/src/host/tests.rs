use super::*;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;
use twill_crds::HostPolicy as Object;

/// A trial may begin, and there are no sessions.
const WITHOUT_BGP: Option<&BTreeSet<IpAddr>> = Some(&BTreeSet::new());

fn object(name: &str, generation: i64, spec: Value) -> Object {
    annotated(name, generation, json!({}), spec)
}

fn annotated(name: &str, generation: i64, annotations: Value, spec: Value) -> Object {
    let meta =
        json!({"name": name, "uid": format!("uid-{name}"), "generation": generation, "annotations": annotations});
    serde_json::from_value(
        json!({"apiVersion": "twill.network/v1", "kind": "HostPolicy", "metadata": meta, "spec": spec}),
    )
    .unwrap()
}

fn after(seconds: u64, since: Instant) -> Instant {
    since + Duration::from_secs(seconds)
}

fn alive(_: &str) -> Option<Duration> {
    Some(Duration::from_secs(7))
}

fn dead(_: &str) -> Option<Duration> {
    None
}

/// Closed but for one port.
fn only(port: u16) -> Value {
    json!({"ingress": [{"ports": [{"port": port}]}]})
}

/// What a felix would go on with that was killed now.
fn restarted(trials: &Trials) -> Trials {
    Trials::new(serde_json::from_value(json!(trials.kept())).unwrap())
}

#[test]
fn a_change_is_on_trial_until_self_tests_have_succeeded() {
    let (begin, mut trials) = (Instant::now(), Trials::default());
    assert_eq!(trials.want(vec![object("h", 1, only(22))], begin, WITHOUT_BGP, dead), Step::Keep);
    let plan = trials.plan(Vec::new());
    assert!(plan.confirmed.is_empty() && plan.trial.as_ref().unwrap().within == Duration::from_secs(60));
    assert!(!trials.running().unwrap().wants_test(), "it is not in the kernel yet");
    trials.committed(begin);
    let attempt = trials.running().unwrap().attempt().to_owned();
    trials.tested(&attempt, Ok(()));
    trials.tested(&attempt, Err("no answer".into()));
    trials.tested(&attempt, Ok(()));
    trials.tested("another", Ok(()));
    assert_eq!(trials.judge(after(30, begin), alive), Step::Nothing, "one success in a row is not enough");
    trials.tested(&attempt, Ok(()));
    assert_eq!(trials.judge(after(59, begin), alive), Step::Keep);
    assert_eq!((trials.plan(Vec::new()).confirmed.len(), trials.running().is_none()), (1, true));
    assert_eq!(trials.want(vec![object("h", 1, only(22))], after(70, begin), WITHOUT_BGP, dead), Step::Nothing);
    // What was confirmed is in force for the next felix, too.
    assert_eq!(restarted(&trials).confirmed(), trials.confirmed());
}

#[test]
fn what_is_not_confirmed_in_time_is_over_and_is_not_tried_again_before_it_is_another() {
    let (begin, mut trials) = (Instant::now(), Trials::default());
    trials.want(vec![object("h", 1, only(22))], begin, WITHOUT_BGP, dead);
    trials.committed(begin);
    let attempt = trials.running().unwrap().attempt().to_owned();
    trials.tested(&attempt, Err("no answer".into()));
    let Step::Tell(reverted) = trials.judge(after(60, begin), alive) else { panic!("{trials:?}") };
    assert!(reverted.why.contains("within 60 s: no answer"), "{}", reverted.why);
    trials.tested(&attempt, Ok(()));
    assert_eq!(trials.plan(Vec::new()), Plan::default());
    for mut trials in [trials.clone(), restarted(&trials)] {
        assert_eq!(trials.want(vec![object("h", 1, only(22))], after(61, begin), WITHOUT_BGP, dead), Step::Nothing);
        assert!(trials.running().is_none() && trials.held_back() == Some(&reverted));
        assert_eq!(trials.want(vec![object("h", 2, only(22))], after(62, begin), WITHOUT_BGP, dead), Step::Keep);
        assert!(trials.running().is_some() && trials.held_back().is_none());
    }
    let again = annotated("h", 1, json!({twill_crds::host_policy::ATTEMPT: "2"}), only(22));
    assert_eq!(trials.want(vec![again], after(63, begin), WITHOUT_BGP, dead), Step::Keep);
}

#[test]
fn a_restart_neither_extends_a_trial_nor_confirms_it() {
    let (begin, mut trials) = (Instant::now(), Trials::default());
    trials.want(vec![object("h", 1, only(22))], begin, WITHOUT_BGP, dead);
    trials.committed(begin);
    let mut next = restarted(&trials);
    assert_eq!(next.plan(Vec::new()), Plan::default(), "nothing is in force but what was confirmed");
    assert_eq!(next.want(vec![object("h", 1, only(22))], after(50, begin), WITHOUT_BGP, alive), Step::Nothing);
    assert_eq!(
        next.plan(Vec::new()),
        trials.plan(Vec::new()),
        "its gate has the same name, so nothing is written anew"
    );
    next.committed(after(50, begin));
    assert!(matches!(next.judge(after(57, begin), alive), Step::Tell(_)), "7 s were left");
    // The kernel has ended it meanwhile.
    let mut next = restarted(&trials);
    let Step::Tell(reverted) = next.want(vec![object("h", 1, only(22))], after(90, begin), WITHOUT_BGP, dead) else {
        panic!("{next:?}")
    };
    assert!(reverted.why.contains("felix was not running"), "{}", reverted.why);
    assert_eq!(next.plan(Vec::new()), Plan::default());
}

#[test]
fn nothing_is_confirmed_that_the_kernel_does_not_hold() {
    let (begin, mut trials) = (Instant::now(), Trials::default());
    trials.want(vec![object("h", 1, only(22))], begin, WITHOUT_BGP, dead);
    trials.committed(begin);
    let attempt = trials.running().unwrap().attempt().to_owned();
    trials.tested(&attempt, Ok(()));
    trials.tested(&attempt, Ok(()));
    assert!(matches!(trials.judge(after(10, begin), dead), Step::Tell(_)));
    assert_eq!(trials.plan(Vec::new()), Plan::default());
}

#[test]
fn who_confirms_and_goes_on_at_once_has_confirmed() {
    let manual = |port: u16| json!({"ingress": [{"ports": [{"port": port}]}], "confirmation": {"mode": "Manual"}});
    let confirmed = |generation: &str| json!({twill_crds::host_policy::CONFIRMED_GENERATION: generation});
    let begin = Instant::now();
    // What confirms is replaced before anybody has looked, or stands on what follows; or it is of another generation.
    let replaced = vec![annotated("h", 4, confirmed("4"), manual(22)), object("h", 5, manual(443))];
    let (stands, other) =
        (vec![annotated("h", 5, confirmed("4"), manual(443))], vec![annotated("h", 5, confirmed("5"), manual(443))]);
    for (heard, is_kept) in [(replaced, true), (stands, true), (other, false)] {
        let mut trials = Trials::default();
        trials.want(vec![object("h", 4, manual(22))], begin, WITHOUT_BGP, dead);
        trials.committed(begin);
        heard.iter().for_each(|object| trials.hear(object));
        assert_eq!(trials.judge(after(10, begin), alive) == Step::Keep, is_kept);
        assert_eq!(restarted(&trials).confirmed().len(), usize::from(is_kept));
        trials.want(heard[heard.len() - 1..].to_vec(), after(10, begin), WITHOUT_BGP, alive);
        let plan = trials.plan(Vec::new());
        assert_eq!((plan.confirmed.len(), plan.trial.is_some()), (usize::from(is_kept), true));
    }
}

#[test]
fn an_operator_confirms_what_asks_for_it_and_nothing_else_does() {
    let manual = json!({"confirmation": {"mode": "Manual", "timeoutSeconds": 300}});
    let (begin, mut trials) = (Instant::now(), Trials::default());
    trials.want(vec![object("h", 4, manual.clone())], begin, WITHOUT_BGP, dead);
    trials.committed(begin);
    let attempt = trials.running().unwrap().attempt().to_owned();
    trials.tested(&attempt, Ok(()));
    trials.tested(&attempt, Ok(()));
    assert_eq!(trials.judge(after(200, begin), alive), Step::Nothing);
    let confirmed = |generation: &str| {
        annotated("h", 4, json!({twill_crds::host_policy::CONFIRMED_GENERATION: generation}), manual.clone())
    };
    assert_eq!(trials.want(vec![confirmed("3")], after(201, begin), WITHOUT_BGP, alive), Step::Nothing);
    assert_eq!(trials.judge(after(202, begin), alive), Step::Nothing, "that was another generation");
    assert_eq!(trials.want(vec![confirmed("4")], after(203, begin), WITHOUT_BGP, alive), Step::Nothing);
    assert_eq!(trials.judge(after(204, begin), alive), Step::Keep);
    assert_eq!(trials.confirmed().len(), 1);
    // One that is not confirmed is over.
    let mut trials = Trials::default();
    trials.want(vec![object("h", 4, manual)], begin, WITHOUT_BGP, dead);
    trials.committed(begin);
    let Step::Tell(reverted) = trials.judge(after(300, begin), alive) else { panic!("{trials:?}") };
    assert!(reverted.why.contains("nobody confirmed it within 300 s"), "{}", reverted.why);
}

#[test]
fn sessions_of_the_beginning_are_asked_for_by_whoever_tests() {
    let sessions: BTreeSet<IpAddr> = ["192.0.2.9".parse().unwrap()].into();
    let (begin, mut trials) = (Instant::now(), Trials::default());
    let wanted = || vec![object("h", 1, only(22))];
    assert_eq!(trials.want(wanted(), begin, None, dead), Step::Nothing);
    assert!(trials.waits() && trials.running().is_none(), "which sessions there are is not known");
    assert_eq!(trials.want(wanted(), begin, Some(&sessions), dead), Step::Keep);
    assert!(!trials.waits());
    trials.committed(begin);
    let mut next = restarted(&trials);
    // They are down meanwhile, or bgpd does not answer.
    next.want(wanted(), after(1, begin), None, alive);
    assert_eq!((next.running().is_some(), &next.kept().sessions), (true, &sessions));
    next.judge(after(60, begin), alive);
    assert_eq!(next.kept().sessions, BTreeSet::new(), "nothing is on trial any more");
}

#[test]
fn only_what_is_on_trial_waits_for_an_operator() {
    let spec = |mode: &str| json!({"interfaces": [mode], "confirmation": {"mode": mode, "timeoutSeconds": 300}});
    let confirmed =
        |name: &str| annotated(name, 1, json!({twill_crds::host_policy::CONFIRMED_GENERATION: "1"}), spec("Manual"));
    let (begin, mut trials) = (Instant::now(), Trials::default());
    trials.want(vec![confirmed("old")], begin, WITHOUT_BGP, dead);
    trials.committed(begin);
    assert_eq!(trials.judge(begin, alive), Step::Keep);
    // Without its annotation it is in force all the same.
    let old = || object("old", 1, spec("Manual"));
    trials.want(vec![old(), object("new", 1, spec("Manual"))], begin, WITHOUT_BGP, dead);
    trials.committed(begin);
    assert_eq!(trials.judge(after(1, begin), alive), Step::Nothing);
    assert_eq!(trials.want(vec![old(), confirmed("new")], after(2, begin), WITHOUT_BGP, dead), Step::Nothing);
    assert_eq!(trials.judge(after(2, begin), alive), Step::Keep);
    assert_eq!(trials.confirmed().len(), 2);
    // Where self-tests decide, nobody is waited for.
    trials.want(vec![old(), confirmed("new"), object("more", 1, spec("SelfTest"))], after(3, begin), WITHOUT_BGP, dead);
    trials.committed(after(3, begin));
    assert!(trials.running().unwrap().wants_test());
}

#[test]
fn what_loosens_needs_no_trial_and_ends_one() {
    let (begin, mut trials) = (Instant::now(), Trials::default());
    trials.want(vec![object("h", 1, only(22))], begin, WITHOUT_BGP, dead);
    trials.committed(begin);
    assert_eq!(trials.want(Vec::new(), after(1, begin), WITHOUT_BGP, alive), Step::Keep);
    assert!(trials.running().is_none() && trials.kept().pending.is_none() && trials.kept().reverted.is_empty());
    // What was abandoned may be tried again: nobody said that it is bad.
    assert_eq!(trials.want(vec![object("h", 1, only(22))], after(2, begin), WITHOUT_BGP, dead), Step::Keep);
    trials.committed(after(2, begin));
    // A change in the middle is another trial, from the start.
    assert_eq!(trials.want(vec![object("h", 2, only(80))], after(20, begin), WITHOUT_BGP, alive), Step::Keep);
    assert_eq!(trials.running().unwrap().left(after(20, begin)), Duration::from_secs(60));
}

#[test]
fn what_cannot_be_kept_is_not_begun() {
    let mut trials = Trials::default();
    trials.want(vec![object("h", 1, only(22))], Instant::now(), WITHOUT_BGP, dead);
    trials.not_begun();
    assert_eq!(trials.plan(Vec::new()), Plan::default());
    assert_eq!(
        trials.want(vec![object("h", 1, only(22))], Instant::now(), WITHOUT_BGP, dead),
        Step::Keep,
        "it is tried again"
    );
}

#[test]
fn a_confirmation_that_cannot_be_kept_is_none() {
    let (begin, mut trials) = (Instant::now(), Trials::default());
    trials.want(vec![object("h", 1, only(22))], begin, WITHOUT_BGP, dead);
    trials.committed(begin);
    let attempt = trials.running().unwrap().attempt().to_owned();
    (0..2).for_each(|_| trials.tested(&attempt, Ok(())));
    let before = trials.clone();
    assert_eq!(trials.judge(after(10, begin), alive), Step::Keep);
    let mut trials = before;
    trials.not_kept("no space".into());
    assert!(trials.plan(Vec::new()).trial.is_some() && trials.confirmed().is_empty());
    assert_eq!(trials.clone().judge(after(11, begin), alive), Step::Keep, "it may be kept yet");
    let Step::Tell(reverted) = trials.judge(after(60, begin), alive) else { panic!("{trials:?}") };
    assert!(reverted.why.contains("could not be kept within 60 s: no space"), "{}", reverted.why);
}

#[test]
fn what_the_kernel_refuses_is_not_tried_again_as_it_stands() {
    let (begin, mut trials) = (Instant::now(), Trials::default());
    let wanted = |generation| vec![object("h", generation, only(22))];
    trials.want(wanted(1), begin, WITHOUT_BGP, dead);
    let Step::Tell(reverted) = trials.refused("the kernel refused it".into()) else { panic!("{trials:?}") };
    assert_eq!((reverted.why.as_str(), trials.plan(Vec::new())), ("the kernel refused it", Plan::default()));
    for mut trials in [trials.clone(), restarted(&trials)] {
        assert_eq!(trials.want(wanted(1), after(1, begin), WITHOUT_BGP, dead), Step::Nothing);
        assert_eq!(trials.held_back(), Some(&reverted));
        assert_eq!(trials.want(wanted(2), after(2, begin), WITHOUT_BGP, dead), Step::Keep);
        // What is in the kernel already is not over because something else is refused.
        trials.committed(after(2, begin));
        assert_eq!(trials.refused("another".into()), Step::Nothing);
        assert!(trials.running().is_some());
    }
}

#[test]
fn looser_is_what_forbids_nothing_more() {
    let program = |specs: &[Value]| -> Program {
        let one = |(n, spec): (usize, &Value)| {
            Arc::new(crate::model::host_policy(&object(&format!("h{n}"), 1, spec.clone())))
        };
        let mut all: Program = specs.iter().enumerate().map(one).collect();
        sort(&mut all);
        all
    };
    let looser = |new: &[Value], old: &[Value]| is_looser(&program(new), &program(old));
    let rules = |actions: &[(&str, u16)]| {
        let rule = |(action, port): &(&str, u16)| json!({"action": action, "ports": [{"port": port}]});
        json!({"ingress": actions.iter().map(rule).collect::<Vec<_>>()})
    };
    assert!(looser(&[], &[json!({})]), "nothing at all");
    assert!(!looser(&[json!({})], &[]));
    assert!(looser(&[rules(&[("Accept", 22), ("Accept", 80)])], &[rules(&[("Accept", 80)])]), "one more allowance");
    assert!(!looser(&[rules(&[("Accept", 80)])], &[rules(&[("Accept", 22), ("Accept", 80)])]));
    assert!(looser(&[rules(&[("Accept", 80)])], &[rules(&[("Deny", 22), ("Accept", 80)])]), "one denial less");
    assert!(!looser(&[rules(&[("Deny", 22), ("Accept", 80)])], &[rules(&[("Accept", 80)])]));
    assert!(
        !looser(&[rules(&[("Deny", 80), ("Accept", 80)])], &[rules(&[("Accept", 80), ("Deny", 80)])]),
        "another order"
    );
    assert!(!looser(&[json!({})], &[json!({"interfaces": ["eth0"]})]), "more interfaces");
    // One of two that is taken away may have been what let something pass.
    assert!(!looser(&[json!({})], &[rules(&[("Accept", 22)]), json!({})]));
    assert!(looser(&[rules(&[("Accept", 22)])], &[rules(&[("Accept", 22)]), json!({"interfaces": ["eth0"]})]));
    assert!(!looser(&[json!({"directions": ["Ingress", "Egress"]})], &[json!({})]));
    assert!(looser(&[json!({})], &[json!({"directions": ["Ingress", "Egress"]})]));
    let risky = json!({"failsafes": "None", "lockoutRisk": "Accepted"});
    assert!(looser(&[json!({})], std::slice::from_ref(&risky)) && !looser(&[risky], &[json!({})]));
}

#[test]
fn what_is_on_trial_is_told_with_what_is_read_of_it_alone() {
    let whole = || {
        let mut object =
            annotated("h", 1, json!({"kubectl.kubernetes.io/last-applied-configuration": "long"}), only(22));
        object.metadata.managed_fields = Some(Vec::new());
        object.metadata.resource_version = Some("7".into());
        object
    };
    let (begin, mut trials) = (Instant::now(), Trials::default());
    let bare = object("h", 1, only(22));
    for _ in ["it is new", "it is heard again"] {
        trials.want(vec![whole()], begin, WITHOUT_BGP, dead);
        let [told] = trials.running().unwrap().objects() else { panic!("{trials:?}") };
        let (meta, spec) = (&told.metadata, &told.spec);
        assert_eq!(
            (spec, &meta.name, &meta.uid, meta.generation),
            (&bare.spec, &bare.metadata.name, &bare.metadata.uid, Some(1))
        );
        assert_eq!((&meta.annotations, &meta.managed_fields, &meta.resource_version), (&None, &None, &None));
    }
}
