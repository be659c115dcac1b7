//! Most nodes gone at once: that is more often a mistake (`kubectl delete nodes --all`, storage that was put back) than meant, and
//! kubelets that do not answer leave machines whose pods go on while Kubernetes deletes their Pods. Then nothing is freed by itself.
//!
//! In flow how many Nodes there are and which are gone; out flows a sentence. That it is meant is said by deleting the NodeNetworks:
//! a block without one, of a node that is gone, is freed as ever.

/// Fewer are no sign of a mistake.
const FEW: usize = 3;

/// Why nothing that these nodes left is freed, if so. They have a NodeNetwork, so nobody has said that it is meant.
#[must_use]
pub fn exodus(nodes: usize, gone: &[&str]) -> Option<String> {
    let all = nodes + gone.len();
    if gone.len() < FEW || gone.len() * 2 <= all {
        return None;
    }
    let some: Vec<&str> = gone.iter().take(FEW).copied().collect();
    let more = if gone.len() > some.len() { " …" } else { "" };
    Some(format!(
        "{} of {all} nodes are gone, too many to be believed: their blocks are not freed ({}{more}); register them again, or, if their \
         machines are off, say so for each: kubectl delete nodenetwork {}{more}",
        gone.len(),
        some.join(", "),
        some.join(" ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_of_several_is_an_exodus() {
        let gone = ["a", "b", "c", "d"];
        for (nodes, gone, is) in [(0, 2, false), (0, 3, true), (2, 3, true), (3, 3, false), (3, 4, true), (4, 4, false)]
            .map(|(nodes, count, is)| (nodes, gone.iter().take(count).copied().collect::<Vec<_>>(), is))
        {
            assert_eq!(exodus(nodes, &gone).is_some(), is, "{nodes} {gone:?}");
        }
        assert_eq!(
            exodus(1, &gone).as_deref(),
            Some(
                "4 of 5 nodes are gone, too many to be believed: their blocks are not freed (a, b, c …); register them again, or, if \
                 their machines are off, say so for each: kubectl delete nodenetwork a b c …"
            )
        );
    }
}
