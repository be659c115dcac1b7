//! The datastore, from this node.

use super::Finding;

/// What became of a first question.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// As it was given.
    pub(crate) url: String,
    /// How many IPPools there are, or why it does not answer.
    pub(crate) pools: Result<usize, String>,
}

pub(crate) fn verdict(facts: &Facts) -> Vec<Finding> {
    let url = &facts.url;
    match &facts.pools {
        Err(words) => vec![Finding::unfit(
            "datastore",
            format!("{url}: {words}"),
            "name the one that the daemons are to use with --datastore, and see that it can be reached from here",
        )],
        Ok(0) => vec![
            Finding::fine("datastore", format!("{url} answers")),
            Finding::warning("pools", "there is no IPPool, so pods get no addresses", "twill apply -f POOL.yaml"),
        ],
        Ok(count) => vec![
            Finding::fine("datastore", format!("{url} answers")),
            Finding::fine("pools", format!("IPPools: {count}")),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn a_datastore_must_answer_and_should_have_pools() {
        let states = |pools: Result<usize, &str>| {
            let facts = Facts { url: "sqlite:/x.db".to_owned(), pools: pools.map_err(str::to_owned) };
            verdict(&facts).into_iter().map(|finding| finding.state).collect::<Vec<_>>()
        };
        assert_eq!(states(Ok(2)), [State::Fine, State::Fine]);
        assert_eq!(states(Ok(0)), [State::Fine, State::Warning]);
        assert_eq!(states(Err("no such file")), [State::Unfit]);
    }
}
