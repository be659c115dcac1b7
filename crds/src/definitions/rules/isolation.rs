//! Rules of NamespaceIsolation.

use super::{Placed, addresses, selectors};

/// Rules of NamespaceIsolation.
pub(in crate::definitions) fn namespace_isolation() -> Vec<Placed> {
    let mut rules = selectors::at("spec.namespaceSelector");
    for place in ["dns", "ingressControllers", "metrics"] {
        rules.extend(selectors::at(&format!("spec.{place}.namespaceSelector")));
        rules.extend(selectors::at(&format!("spec.{place}.podSelector")));
    }
    rules.extend(selectors::at("spec.ingressControllers.nodeSelector"));
    for place in ["dns", "apiServer"] {
        rules.extend(Placed::all(&format!("spec.{place}.addresses[]"), &[addresses::SYNTAX]));
    }
    rules
}
