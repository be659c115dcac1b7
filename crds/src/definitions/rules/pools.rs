//! Rules of IPPool.

use super::{Placed, Rule, addresses, selectors};

const CIDR_FIXED: Rule = Rule::new(
    "pool-range-fixed",
    "!isCIDR(self) || !isCIDR(oldSelf) || cidr(self) == cidr(oldSelf)",
    "cannot change; create another pool and disable this one",
)
.detail("'is ' + oldSelf + ' and cannot change; create another pool and disable this one'");

const SPEC: &[Rule] = &[
    Rule::new(
        "block-size-of-family",
        "!isCIDR(self.cidr) || !has(self.blockSize) || (cidr(self.cidr).ip().family() == 4 ? self.blockSize <= 32 : self.blockSize \
         >= 116)",
        "must be 20 to 32 for IPv4, 116 to 128 for IPv6",
    )
    .detail("cidr(self.cidr).ip().family() == 4 ? 'must be 20 to 32 for IPv4' : 'must be 116 to 128 for IPv6'")
    .field(".blockSize"),
    Rule::new(
        "block-within-pool",
        "!isCIDR(self.cidr) || !has(self.blockSize) || self.blockSize >= cidr(self.cidr).prefixLength() || self.blockSize < \
         (cidr(self.cidr).ip().family() == 4 ? 20 : 116)",
        "is larger than the pool; make the block smaller or the pool larger",
    )
    .detail("'is larger than the pool ' + self.cidr + '; make the block smaller or the pool larger'")
    .field(".blockSize"),
    Rule::new(
        "default-block-within-pool",
        "!isCIDR(self.cidr) || has(self.blockSize) || cidr(self.cidr).prefixLength() <= (cidr(self.cidr).ip().family() == 4 ? 26 : \
         122)",
        "is left out, and the default is larger than the pool; set it to the pool's prefix length or more",
    )
    .detail(
        "'is left out, and the default ' + (cidr(self.cidr).ip().family() == 4 ? '/26' : '/122') + ' is larger than the pool ' + \
         self.cidr + '; set it to the prefix length of the pool or more'",
    )
    .field(".blockSize"),
    Rule::new(
        "block-size-fixed",
        "!isCIDR(self.cidr) || !isCIDR(oldSelf.cidr) || (has(self.blockSize) ? self.blockSize : cidr(self.cidr).ip().family() == 4 ? \
         26 : 122) == (has(oldSelf.blockSize) ? oldSelf.blockSize : cidr(oldSelf.cidr).ip().family() == 4 ? 26 : 122)",
        "cannot change; create another pool and disable this one",
    )
    .field(".blockSize"),
    Rule::new(
        "ipip-is-ipv4",
        "!isCIDR(self.cidr) || self.encapsulation.protocol != 'IPIP' || cidr(self.cidr).ip().family() == 4",
        "is IPIP, which carries IPv4 only; use VXLAN or None",
    )
    .field(".encapsulation.protocol"),
];

/// Rules of IPPool.
pub(in crate::definitions) fn pool() -> Vec<Placed> {
    let mut rules = Placed::all("spec.cidr", addresses::RANGE);
    rules.extend(Placed::all("spec.cidr", &[CIDR_FIXED]));
    rules.extend(Placed::all("spec", SPEC));
    rules.extend(selectors::at("spec.nodeSelector"));
    rules.extend(selectors::at("spec.namespaceSelector"));
    rules
}
