//! Rules of NamespaceIsolation.

use super::{Problem, selector};
use crate::{NamespaceIsolation, NamespaceIsolationSpec};

/// Most addresses or ports of a list.
const MOST: usize = 16;

pub(super) fn check(isolation: &NamespaceIsolation) -> Result<(), Problem> {
    let spec = &isolation.spec;
    if spec.directions.is_empty() {
        return Err(Problem::new("spec.directions", "is empty; name Ingress, Egress or both, or delete the object"));
    }
    at_most("spec.directions", spec.directions.len(), 2)?;
    at_most("spec.allow", spec.allow.len(), 5)?;
    at_most("spec.dns.addresses", spec.dns.addresses.len(), MOST)?;
    at_most("spec.apiServer.addresses", spec.api_server.addresses.len(), MOST)?;
    at_most("spec.metrics.ports", spec.metrics.ports.len(), MOST)?;
    if let Some(n) = spec.metrics.ports.iter().position(|port| *port == 0) {
        return Err(Problem::new(format!("spec.metrics.ports[{n}]"), "is 0; use 1 to 65535"));
    }
    selectors(spec)
}

fn selectors(spec: &NamespaceIsolationSpec) -> Result<(), Problem> {
    let all = [
        ("namespaceSelector", &spec.namespace_selector),
        ("dns.namespaceSelector", &spec.dns.namespace_selector),
        ("dns.podSelector", &spec.dns.pod_selector),
        ("ingressControllers.namespaceSelector", &spec.ingress_controllers.namespace_selector),
        ("ingressControllers.podSelector", &spec.ingress_controllers.pod_selector),
        ("metrics.namespaceSelector", &spec.metrics.namespace_selector),
        ("metrics.podSelector", &spec.metrics.pod_selector),
    ];
    all.into_iter().try_for_each(|(field, one)| selector::optional(&format!("spec.{field}"), Some(one)))?;
    selector::optional("spec.ingressControllers.nodeSelector", spec.ingress_controllers.node_selector.as_ref())
}

fn at_most(field: &str, found: usize, most: usize) -> Result<(), Problem> {
    if found <= most {
        return Ok(());
    }
    Err(Problem::new(field, format!("has {found} entries, must have at most {most}; leave some out")))
}
