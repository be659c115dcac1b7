//! The CustomResourceDefinitions of our kinds, as `twill crds` prints them.
//!
//! In flow the Rust types with their documentation, and the rules of [`rules`]; out flow documents that an API server takes. A
//! rule here says in CEL what [`crate::validate`] says in Rust; [`cases`] holds the two to each other. What depends on other
//! objects, such as pools that overlap, an API server cannot refuse: that is [`crate::ippool::accepted`] and a condition.

pub mod cases;
mod columns;
mod rules;
pub(crate) mod schemas;
mod structural;

use crate::{
    BGPConfiguration, BGPFilter, BGPPeer, HostPolicy, IPBlock, IPPool, IPReservation, NamespaceIsolation, NodeNetwork,
    Object,
};
use kube::CustomResourceExt;
use rules::Placed;
use serde_json::Value;

/// All definitions, each ready for an API server, in the order of [`crate::known::all`].
#[must_use]
pub fn all() -> Vec<Value> {
    vec![
        definition::<IPPool>(&rules::pool()),
        definition::<IPBlock>(&rules::block()),
        definition::<IPReservation>(&rules::ip_reservation()),
        definition::<BGPConfiguration>(&rules::bgp_configuration()),
        definition::<BGPPeer>(&rules::bgp_peer()),
        definition::<BGPFilter>(&rules::bgp_filter()),
        definition::<NodeNetwork>(&[]),
        definition::<NamespaceIsolation>(&rules::namespace_isolation()),
        definition::<HostPolicy>(&rules::host_policy()),
    ]
}

/// All definitions as one stream of YAML documents.
///
/// # Errors
/// Never, unless the YAML writer has a fault.
pub fn yaml() -> Result<String, serde_saphyr::ser::Error> {
    all().iter().map(|definition| Ok(format!("---\n{}", serde_saphyr::to_string(definition)?))).collect()
}

fn definition<K: CustomResourceExt + Object>(rules: &[Placed]) -> Value {
    let mut definition =
        serde_json::to_value(K::crd()).expect("a definition is made of texts, numbers, lists and maps");
    structural::whole_numbers(&mut definition);
    definition["spec"]["versions"][0]["additionalPrinterColumns"] = columns::of(&K::kind());
    if let Some(schema) = definition.pointer_mut("/spec/versions/0/schema/openAPIV3Schema") {
        structural::refine(schema);
        rules.iter().for_each(|rule| rule.attach(schema));
    }
    definition
}

#[cfg(test)]
mod tests;
