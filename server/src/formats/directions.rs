//! The *directions* of a database: what it was told last to be. They are in `qluster.conf`, so that a restarted daemon,
//! and a guard, know them.

use qluster_consensus::model::Term;
use qluster_consensus::protocol::database::Primary;

use super::conf;
use super::sync_names::NOBODY;

/// What a database was told last to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Directions {
    /// A standby that receives WAL from nobody.
    Fenced,
    /// A standby of this primary.
    Follows(Primary),
    /// A primary, with this value of `synchronous_standby_names`. It is written before the promotion, so the database may
    /// still be a standby.
    Leads(String),
}

/// The beginning of the line that holds the directions.
const MARK: &str = "# directions:";

impl Directions {
    /// The primary to follow. None unless it follows one.
    pub(crate) fn primary(&self) -> Option<&Primary> {
        match self {
            Self::Follows(primary) => Some(primary),
            _ => None,
        }
    }

    /// The value of `synchronous_standby_names` under these directions.
    pub(crate) fn sync_names(&self) -> &str {
        match self {
            Self::Leads(rule) => rule,
            _ => NOBODY,
        }
    }

    /// The line in `qluster.conf` that holds them.
    pub(crate) fn line(&self) -> String {
        let text = match self {
            Self::Fenced => "fenced".into(),
            Self::Follows(Primary { node, term, ip, port, timeline }) => {
                format!("follows {node} {term} {ip} {port} {timeline}")
            }
            Self::Leads(_) => "leads".into(),
        };
        format!("{MARK} {text}")
    }

    /// Reads them from the text of a `qluster.conf`. None if it has none, or not these.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mark = text.lines().find_map(|line| line.strip_prefix(MARK))?;
        let words: Vec<&str> = mark.split_whitespace().collect();
        match words[..] {
            ["fenced"] => Some(Self::Fenced),
            ["leads"] => {
                let mut settings = text.lines().filter_map(conf::parse_line);
                let (_, rule) = settings.find(|(name, _)| name == "synchronous_standby_names")?;
                Some(Self::Leads(rule))
            }
            ["follows", node, term, ip, port, timeline] => Some(Self::Follows(Primary {
                node: node.parse().ok()?,
                term: Term(term.parse().ok()?),
                ip: ip.parse().ok()?,
                port: port.parse().ok()?,
                timeline: timeline.parse().ok()?,
            })),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use qluster_consensus::model::{NodeId, Port};

    use super::*;

    #[test]
    fn directions_are_read_from_the_lines_of_a_file() {
        let ip = [10, 0, 0, 2].into();
        let primary = Primary { node: NodeId(2), term: Term(7), ip, port: Port::new(5432).unwrap(), timeline: 3 };
        for directions in [Directions::Fenced, Directions::Follows(primary)] {
            assert_eq!(Directions::parse(&directions.line()), Some(directions));
        }
        let leads = Directions::Leads("ANY 1 (a)".into());
        let text = format!("{}\nsynchronous_standby_names = 'ANY 1 (a)'\n", leads.line());
        assert_eq!(Directions::parse(&text), Some(leads));
        for text in ["", "# directions: follows 1\n", "# directions: odd\n", "# directions: leads\n"] {
            assert_eq!(Directions::parse(text), None, "{text}");
        }
    }
}
