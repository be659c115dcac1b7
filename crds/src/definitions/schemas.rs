//! Schemas of fields whose Rust types do not say enough: ranges of addresses, AS numbers, selectors, conditions.

use crate::bgp::{NodeAsn, PeerAsn};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use std::borrow::Cow;

/// The longest text of a range of addresses: 39 characters of IPv6 and `/128`.
const RANGE_LENGTH: u32 = 43;
/// The longest text of an address: eight groups of IPv6.
pub(super) const ADDRESS_LENGTH: u32 = 39;
/// A label's key: a DNS name of 253, a slash, a name of 63.
const LABEL_KEY_LENGTH: u32 = 317;
/// A label's value.
const LABEL_LENGTH: u32 = 63;
/// How many labels a selector of ours names at most: rules on each have a price, and an API server takes no definition whose rules
/// could cost too much.
pub(crate) const SELECTOR_LABELS: usize = 32;
/// How many expressions it has at most.
pub(crate) const SELECTOR_EXPRESSIONS: usize = 16;
/// How many values an expression has at most; twice as many would still be taken.
pub(crate) const SELECTOR_VALUES: usize = 256;
/// The same of a selector inside of lists, whose rules an API server prices for every element that there could be.
pub(crate) const PEER_LABELS: usize = 8;
/// Expressions of such a selector.
pub(crate) const PEER_EXPRESSIONS: usize = 4;
/// Values of each of these.
pub(crate) const PEER_VALUES: usize = 8;
/// How many ranges a peer has at most.
pub(crate) const PEER_RANGES: usize = 32;
/// What Kubernetes takes as a label's key, but for the length of its prefix.
const LABEL_KEY: &str = "^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?\
                         [A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$";

/// How many ranges an IPReservation names at most.
pub(crate) const RESERVED_RANGES: usize = 64;

/// A range of addresses.
pub(crate) fn range(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "maxLength": RANGE_LENGTH})
}

/// Ranges of a peer.
pub(crate) fn ranges(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "maxItems": PEER_RANGES, "items": range(generator)})
}

/// Ranges of an IPReservation.
pub(crate) fn reserved_ranges(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "maxItems": RESERVED_RANGES, "items": range(generator)})
}

/// Addresses that are kept for a pod, one of each family.
pub(crate) fn kept_addresses(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "maxItems": 2, "items": {"type": "string", "maxLength": ADDRESS_LENGTH}})
}

/// Addresses that a pod has of those: of an edited list it may still have the earlier ones, too.
pub(crate) fn held_addresses(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "items": {"type": "string", "maxLength": ADDRESS_LENGTH}})
}

/// A label selector, with what absence means to our kinds; Kubernetes' own text says the opposite.
pub(crate) fn selector(_: &mut SchemaGenerator) -> Schema {
    selector_of(SELECTOR_LABELS, SELECTOR_EXPRESSIONS, SELECTOR_VALUES)
}

/// The same inside of lists.
pub(crate) fn small_selector(_: &mut SchemaGenerator) -> Schema {
    selector_of(PEER_LABELS, PEER_EXPRESSIONS, PEER_VALUES)
}

fn selector_of(labels: usize, expressions: usize, values: usize) -> Schema {
    json_schema!({
        "type": "object",
        "properties": {
            "matchLabels": {
                "description": "Labels that an object must have, each with this value.",
                "type": "object",
                "maxProperties": labels,
                "additionalProperties": {"type": "string", "maxLength": LABEL_LENGTH},
            },
            "matchExpressions": {
                "description": "Requirements that an object's labels must all meet, beside those of `matchLabels`.",
                "type": "array",
                "maxItems": expressions,
                "x-kubernetes-list-type": "atomic",
                "items": {
                    "description": "A requirement on one label.",
                    "type": "object",
                    "required": ["key", "operator"],
                    "properties": {
                        "key": {
                            "description": "Key of the label.",
                            "type": "string",
                            "maxLength": LABEL_KEY_LENGTH,
                        },
                        "operator": {
                            "description": "`In`: the label has one of the values. `NotIn`: it has none of them, or is not there. \
                                            `Exists`: it is there. `DoesNotExist`: it is not.",
                            "type": "string",
                            "enum": ["In", "NotIn", "Exists", "DoesNotExist"],
                        },
                        "values": {
                            "description": "Values for `In` and `NotIn`, at least one; none for the other operators.",
                            "type": "array",
                            "maxItems": values,
                            "x-kubernetes-list-type": "atomic",
                            "items": {"type": "string", "maxLength": LABEL_LENGTH},
                        },
                    },
                },
            },
        },
    })
}

/// Conditions, one of each type, with the limits that Kubernetes sets for its own.
pub(crate) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "description": "One statement about the object: whether it holds, since when, and why.",
            "type": "object",
            "required": ["lastTransitionTime", "message", "reason", "status", "type"],
            "properties": {
                "type": {
                    "description": "What the condition is about.",
                    "type": "string",
                    "maxLength": 316,
                },
                "status": {
                    "description": "Whether the condition holds.",
                    "type": "string",
                    "enum": ["True", "False", "Unknown"],
                },
                "reason": {
                    "description": "Why the status is what it is, in one word for programs.",
                    "type": "string",
                    "minLength": 1,
                    "maxLength": 1024,
                },
                "message": {
                    "description": "Why the status is what it is, in sentences for people. May be empty.",
                    "type": "string",
                    "maxLength": 32768,
                },
                "lastTransitionTime": {
                    "description": "Since when the status is what it is.",
                    "type": "string",
                    "format": "date-time",
                },
                "observedGeneration": {
                    "description": "The `metadata.generation` of the object that the condition speaks of. If it is smaller than the \
                                    object's, the condition is out of date.",
                    "type": "integer",
                    "format": "int64",
                    "minimum": 0,
                },
            },
        },
    })
}

/// A number or `{nodeLabel: KEY}`. A structural schema cannot say "a number or an object", and CEL does not see what has no type:
/// each of these bounds holds for values of its own type, and together they leave only the two forms.
impl JsonSchema for NodeAsn {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "NodeAsn".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-preserve-unknown-fields": true,
            // Numbers; 23456 is reserved.
            "minimum": 1,
            "maximum": u32::MAX,
            "multipleOf": 1,
            "anyOf": [{"maximum": 23455}, {"minimum": 23457}],
            // Texts and lists, of which none has a length that fits both, and booleans.
            "maxLength": 0,
            "minLength": 1,
            "maxItems": 0,
            "minItems": 1,
            "not": {"enum": [true, false]},
            // Objects.
            "required": ["nodeLabel"],
            "maxProperties": 1,
            "properties": {
                "nodeLabel": {
                    "description": "Key of the label on the Node whose value is the AS number of that node, in decimal.",
                    "type": "string",
                    "maxLength": LABEL_KEY_LENGTH,
                    "pattern": LABEL_KEY,
                },
            },
        })
    }
}

/// A number or one of two words.
impl JsonSchema for PeerAsn {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "PeerAsn".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"x-kubernetes-int-or-string": true, "maxLength": 16})
    }
}
