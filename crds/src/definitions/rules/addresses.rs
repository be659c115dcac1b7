//! Rules of ranges and addresses.

use super::Rule;

/// Rules of a range that pods can have.
pub(super) const RANGE: &[Rule] = &[RANGE_SYNTAX, RANGE_HOST_BITS, RANGE_USABLE];

/// Rules of any range.
pub(super) const WRITTEN: &[Rule] = &[RANGE_SYNTAX, RANGE_HOST_BITS];

const RANGE_SYNTAX: Rule =
    Rule::new("range-syntax", "isCIDR(self)", "is no range of addresses; write it like 10.42.0.0/16 or fd42::/48")
        .detail("'\"' + self + '\" is no range of addresses; write it like 10.42.0.0/16 or fd42::/48'");
const RANGE_HOST_BITS: Rule = Rule::new(
    "range-host-bits",
    "!isCIDR(self) || cidr(self) == cidr(self).masked()",
    "has host bits set; write the first address of the range",
)
.detail("self + ' has host bits set; write the first address of the range'");
const RANGE_USABLE: Rule = Rule::new(
        "range-usable",
        "!isCIDR(self) || (cidr(self).prefixLength() > 0 && !['0.0.0.0/8', '127.0.0.0/8', '169.254.0.0/16', '224.0.0.0/3', \
         '::/127', 'fe80::/10', 'ff00::/8'].exists(special, cidr(special).containsIP(cidr(self).ip())))",
        "is loopback, link-local, multicast, reserved or everything; choose a private range such as 10.42.0.0/16 or fd42::/48",
    )
    .detail(
        "self + ' is loopback, link-local, multicast, reserved or everything; choose a private range such as 10.42.0.0/16 or \
         fd42::/48'",
    );

/// The rule of any address.
pub(super) const SYNTAX: Rule =
    Rule::new("address-syntax", "isIP(self)", "is no address; write it like 172.31.1.1 or fd00::1")
        .detail("'\"' + self + '\" is no address; write it like 172.31.1.1 or fd00::1'");

/// Rules of the address of a router.
pub(super) const ROUTER: &[Rule] = &[
    SYNTAX,
    Rule::new(
        "address-of-one",
        "!isIP(self) || !(ip(self).isUnspecified() || self == '255.255.255.255' || ['224.0.0.0/4', 'ff00::/8'].exists(group, \
         cidr(group).containsIP(ip(self))))",
        "is no address of a single router; write the peer's own",
    )
    .detail("self + ' is no address of a single router; write the peer\\'s own'"),
    Rule::new(
        "address-global",
        "!isIP(self) || !cidr('fe80::/10').containsIP(ip(self))",
        "is link-local and says nothing without an interface; give a global address",
    )
    .detail("self + ' is link-local and says nothing without an interface; give a global address'"),
];
