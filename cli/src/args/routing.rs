//! Arguments of `twill routes`.

use super::{Node, Output};
use anyhow::bail;
use ipnet::IpNet;
use std::path::PathBuf;
use std::str::FromStr;
use twill_crds::control::{RouteQuery, RouteView};

/// Which routes.
#[derive(Debug, clap::Args)]
pub(crate) struct Routes {
    /// A prefix: only those equal to or inside it. `received`: what peers have told and was taken. `advertised`: what they have been told.
    #[arg(value_name = "PREFIX|received|advertised", num_args = 0..=2)]
    asked: Vec<Word>,
    /// Only of this peer.
    #[arg(long, value_name = "NAME")]
    peer: Option<String>,
    /// What peers have told and was not taken, and why: the rule of a filter, a loop, `import`. With `advertised`: what the peer is not told,
    /// and why.
    #[arg(long)]
    rejected: bool,
    /// Of a recording (`twill bgpd --record FILE`) in place of this node's speaker, as it would be with the configuration of --config.
    #[arg(long, value_name = "FILE", requires = "config")]
    pub(crate) replay: Option<PathBuf>,
    /// Configuration of a speaker that runs alone, for --replay.
    #[arg(long, value_name = "FILE", requires = "replay")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) node: Node,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// A word after `twill routes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Prefix(IpNet),
    Received,
    Advertised,
}

impl FromStr for Word {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "received" => Ok(Self::Received),
            "advertised" => Ok(Self::Advertised),
            _ => text
                .parse()
                .map(Self::Prefix)
                .map_err(|_| "write a prefix like 10.42.0.0/16, received or advertised".to_owned()),
        }
    }
}

impl Routes {
    /// What the speaker is asked.
    ///
    /// # Errors
    /// Words that do not go together.
    pub(crate) fn query(&self) -> anyhow::Result<RouteQuery> {
        let mut query = RouteQuery { peer: self.peer.clone(), ..RouteQuery::default() };
        let mut view = None;
        for word in &self.asked {
            let (said, new) = match word {
                Word::Prefix(prefix) => match query.prefix.replace(*prefix) {
                    None => continue,
                    Some(_) => bail!("two prefixes are asked for; ask for one, or for one that holds both"),
                },
                Word::Received => ("received", RouteView::Taken),
                Word::Advertised => ("advertised", RouteView::Advertised),
            };
            if view.replace(new).is_some() {
                bail!("{said}: received and advertised are two questions; ask one");
            }
        }
        query.view = match (view, self.rejected) {
            (Some(RouteView::Advertised), true) => RouteView::Withheld,
            (_, true) => RouteView::Rejected,
            (view, false) => view.unwrap_or_default(),
        };
        if view == Some(RouteView::Advertised) && query.peer.is_none() {
            bail!("advertised: to whom? add --peer NAME; `twill peers` lists them");
        }
        Ok(query)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        routes: Routes,
    }

    fn query(line: &str) -> Result<RouteQuery, String> {
        let line = Line::try_parse_from(["routes"].into_iter().chain(line.split_whitespace()));
        line.map_err(|error| error.to_string())?.routes.query().map_err(|error| error.to_string())
    }

    #[test]
    fn words_come_in_any_order() {
        let prefix = Some("10.0.0.0/8".parse().unwrap());
        assert_eq!(query("").unwrap(), RouteQuery::default());
        assert_eq!(query("10.0.0.0/8 received").unwrap(), RouteQuery { prefix, ..RouteQuery::default() });
        let told = RouteQuery { prefix, view: RouteView::Advertised, peer: Some("tor".to_owned()) };
        assert_eq!(query("advertised 10.0.0.0/8 --peer tor").unwrap(), told);
        assert_eq!(query("--rejected").unwrap().view, RouteView::Rejected);
        assert_eq!(query("received --rejected").unwrap().view, RouteView::Rejected);
        assert_eq!(query("advertised --rejected --peer tor").unwrap().view, RouteView::Withheld);
    }

    #[test]
    fn what_does_not_go_together_is_said() {
        for (line, word) in [
            ("received advertised --peer a", "two questions"),
            ("advertised --rejected", "--peer NAME"),
            ("10.0.0.0/8 10.1.0.0/16", "two prefixes"),
            ("advertised", "--peer NAME"),
            ("best", "received or advertised"),
        ] {
            let problem = query(line).unwrap_err();
            assert!(problem.contains(word), "{line}: {problem}");
        }
    }
}
