//! Sets that several selectors share: what stands in the kernel is what was meant, and it judges as sets of their own do.

use crate::packets::{Kept, isolate, with_pods};
use crate::structure::{typed, with_table};
use crate::world::{Host, Namespace, Responder, tcp};
use nftables::schema::NfListObject;
use std::net::IpAddr;
use twill_felix::base::{self, Settings, name, skeleton};
use twill_felix::ruleset::{Chain, Field, Key, KeyType, Match, Rule, Ruleset, Set, Value};

const WEB: u64 = 0x1122_3344_5566_7788;
const DB: u64 = WEB + 1;

fn set(address: KeyType, members: &[(u64, IpAddr)]) -> Set {
    let key = |(selector, address): &(u64, IpAddr)| (Key::selector(*selector).and_addr(*address), Value::Plain);
    Set::of([KeyType::Selector, address]).with(members.iter().map(key))
}

fn from(selector: u64, v4: bool) -> Match {
    let field = if v4 { Field::SourceV4 } else { Field::SourceV6 };
    Match::Set { key: vec![Field::Selector(selector), field], set: name(shared(v4)), negated: false }
}

fn shared(v4: bool) -> &'static str {
    if v4 { "sel4_all" } else { "sel6_all" }
}

/// A list whose two rules differ by the selector alone.
fn ruleset() -> Ruleset {
    let mut all = skeleton(&Settings::default());
    all.sets.insert(shared(true).into(), set(KeyType::V4, &[(WEB, IpAddr::from([10, 0, 0, 1]))]));
    let rules = vec![Rule::allow(vec![from(WEB, true)]), Rule::allow(vec![from(DB, true)]), Rule::deny(vec![])];
    all.chains.insert("list_a".into(), Chain { base: None, rules });
    all.check().unwrap();
    all
}

#[test]
#[ignore = "needs root: make test"]
fn a_shared_set_is_read_back_as_it_was_meant() {
    Namespace::new().run(|| {
        with_table(&ruleset(), async |table| {
            assert_eq!(table.resync(ruleset()).await.unwrap().messages, 0, "nothing differs");
            let mut other = ruleset();
            other.chains.get_mut("list_a").unwrap().rules[1] = Rule::allow(vec![from(DB + 1, true)]);
            assert!(table.resync(other.clone()).await.unwrap().messages > 0, "another selector is another rule");
            assert_eq!(table.resync(other).await.unwrap().messages, 0);
            // nft and the crate read it, too.
            let sets = typed().into_iter().filter_map(|object| match object {
                NfListObject::Set(set) if set.name == "sel4_all" => set.elem.map(|elements| elements.len()),
                _ => None,
            });
            assert_eq!(sets.collect::<Vec<_>>(), [1]);
        });
    });
}

#[test]
#[ignore = "needs root: make test"]
fn a_member_of_one_selector_has_no_rights_of_another_in_the_same_set() {
    let mut host = Host::new();
    let (a, b, c) = (host.pod("twla"), host.pod("twlb"), host.pod("twlc"));
    let kept = Kept::open(&host);
    let _server = Responder::new(&b.namespace, 80);
    let mut all = with_pods(&[&a, &b, &c]);
    // a is of WEB, c of DB, and b is open for WEB.
    for (v4, kind) in [(true, KeyType::V4), (false, KeyType::V6)] {
        let of = |pod: &crate::world::Pod| if v4 { pod.v4 } else { pod.v6 };
        all.sets.insert(shared(v4).into(), set(kind, &[(WEB, of(&a)), (DB, of(&c))]));
    }
    isolate(&mut all, base::TO_POD, &b, [true, false].map(|v4| Rule::allow(vec![from(WEB, v4)])).into());
    kept.resync(&all);
    for to in [b.v4, b.v6] {
        assert!(tcp(&a.namespace, to, 80).is_some(), "{to} from a");
        assert_eq!(tcp(&c.namespace, to, 80), None, "{to} from c");
    }
}
