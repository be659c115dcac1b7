//! Rules of BGPFilter.

use super::{Placed, Rule, addresses};

const DOES_SOMETHING: Rule = Rule::new(
    "filter-rule-does-something",
    "has(self.action) || (has(self.set) && (has(self.set.localPref) || has(self.set.med) || has(self.set.prepend) || \
     (has(self.set.addCommunities) && size(self.set.addCommunities) > 0) || \
     (has(self.set.removeCommunities) && size(self.set.removeCommunities) > 0)))",
    "does nothing; give it an action (Accept or Reject) or something to set",
);

const SHORTEST: Rule = Rule::new(
    "filter-prefix-shortest",
    "!isCIDR(self.cidr) || !has(self.minLength) || (self.minLength >= cidr(self.cidr).prefixLength() && \
     self.minLength <= (cidr(self.cidr).ip().family() == 4 ? 32 : 128))",
    "is no length of a prefix inside of cidr; use the range's own length up to 32 (IPv4) or 128 (IPv6)",
)
.field(".minLength");

const LONGEST: Rule = Rule::new(
    "filter-prefix-longest",
    "!isCIDR(self.cidr) || !has(self.maxLength) || (self.maxLength >= (has(self.minLength) ? self.minLength : \
     cidr(self.cidr).prefixLength()) && self.maxLength <= (cidr(self.cidr).ip().family() == 4 ? 32 : 128))",
    "is no length of a prefix that is meant; use minLength, or the range's own length, up to 32 (IPv4) or 128 (IPv6)",
)
.field(".maxLength");

const PATH_LENGTHS: Rule = Rule::new(
    "filter-path-lengths",
    "!has(self.minLength) || !has(self.maxLength) || self.maxLength >= self.minLength",
    "is less than minLength; raise it",
)
.field(".maxLength");

const NO_OWN_IMPORT: Rule = Rule::new(
    "filter-imports-nothing-own",
    "self != 'Own'",
    "is Own, but no peer tells our own routes; leave the rule out",
);

/// The forms, with numbers as large as each has room for: in a route target one of the two has two octets.
const PATTERN: Rule = Rule::new(
    "filter-community-pattern",
    "self in ['no-export', 'no-advertise', 'no-export-subconfed', 'no-peer', 'graceful-shutdown', 'llgr-stale', 'no-llgr', 'blackhole'] || \
     (self.matches('^([0-9]{1,5}|[*]):([0-9]{1,5}|[*])$') && self.split(':').all(p, p == '*' || (int(p) <= 65535 && string(int(p)) == p))) || \
     (self.matches('^(rt|soo|[0-9]{1,10}|[*])(:([0-9]{1,10}|[*])){2}$') && \
     self.split(':').all(p, p in ['*', 'rt', 'soo'] || (int(p) <= 4294967295 && string(int(p)) == p)) && \
     (!self.matches('^[rs]') || self.split(':').exists(p, p == '*' || (!(p in ['rt', 'soo']) && int(p) <= 65535))))",
    "is no community; write it like 65000:1, 65000:1:2, rt:65000:1 or no-export, with * for any number",
)
.detail(
    "'\"' + self + '\" is no community; write it like 65000:1, 65000:1:2, rt:65000:1 or no-export, with * for any number'",
);

const COMMUNITY: Rule = Rule::new(
    "filter-community",
    "!self.contains('*')",
    "is no community but a pattern; write it like 65000:1, 65000:1:2, rt:65000:1 or no-export",
)
.detail("'\"' + self + '\" is no community; write it like 65000:1, 65000:1:2, rt:65000:1 or no-export'");

/// Rules of BGPFilter.
pub(in crate::definitions) fn bgp_filter() -> Vec<Placed> {
    let mut rules = Vec::new();
    for direction in ["spec.import[]", "spec.export[]"] {
        let at = |field: &str| format!("{direction}.{field}");
        rules.extend(Placed::all(direction, &[DOES_SOMETHING]));
        rules.extend(Placed::all(&at("match.prefixes[]"), &[SHORTEST, LONGEST]));
        rules.extend(Placed::all(&at("match.prefixes[].cidr"), addresses::WRITTEN));
        rules.extend(Placed::all(&at("match.nextHops[]"), addresses::WRITTEN));
        rules.extend(Placed::all(&at("match.asPath"), &[PATH_LENGTHS]));
        rules.extend(Placed::all(&at("match.communities[]"), &[PATTERN]));
        rules.extend(Placed::all(&at("set.removeCommunities[]"), &[PATTERN]));
        rules.extend(Placed::all(&at("set.addCommunities[]"), &[PATTERN, COMMUNITY]));
    }
    rules.extend(Placed::all("spec.import[].match.source", &[NO_OWN_IMPORT]));
    rules
}
