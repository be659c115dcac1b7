//! Rules of IPBlock.

use super::{Placed, Rule, addresses};

const NAME: Rule = Rule::new(
    "block-name",
    "!isCIDR(self.spec.cidr) || self.metadata.name == self.spec.cidr.replace('.', '-').replace(':', '-').replace('/', '-')",
    "metadata.name must be spec.cidr with dots, colons and the slash as dashes",
)
.detail(
    "'metadata.name must be \"' + self.spec.cidr.replace('.', '-').replace(':', '-').replace('/', '-') + '\", the name of ' + \
     self.spec.cidr",
);

/// The name must follow from the text, for no two blocks of one range may have two names.
const SHORT: Rule = Rule::new(
    "block-range-short",
    "!isCIDR(self) || string(cidr(self)) == self",
    "is not the short form of the range; write it as in RFC 5952 and without zeros in front",
)
.detail("self + ' is not the short form of the range; write it as in RFC 5952 and without zeros in front'");

const NODE: Rule = Rule::new(
    "block-node-name",
    "!format.dns1123Subdomain().validate(self).hasValue()",
    "is no name of a Node; use lower-case letters, digits, '-' or '.'",
)
.detail("'\"' + self + '\" is no name of a Node; use lower-case letters, digits, \\'-\\' or \\'.\\''");

const FIXED: Rule = Rule::new(
    "block-fixed",
    "self == oldSelf",
    "cannot change: a block has one owner for life; delete it and create another",
);

/// Rules of IPBlock.
pub(in crate::definitions) fn block() -> Vec<Placed> {
    let mut rules = Placed::all("", &[NAME]);
    rules.extend(Placed::all("spec", &[FIXED]));
    rules.extend(Placed::all("spec.cidr", addresses::RANGE));
    rules.extend(Placed::all("spec.cidr", &[SHORT]));
    rules.extend(Placed::all("spec.node", &[NODE]));
    rules
}
