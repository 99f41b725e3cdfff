//! The cluster that faults are put into, its clients, and what is known of both.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::clients::{Clients, WRITING};
use super::epochs::{Claim, overtaken};
use super::journal::Journal;
use super::ledger::{Ledger, TABLE, Word};
use super::network::Network;
use super::random::Random;
use super::watch::{Watch, leads};
use crate::cluster::Cluster;
use crate::http::{self, Response};
use crate::wait::{Look, until};

/// Within this time the cluster is well again after any fault, with much to spare. Otherwise something is stuck.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);
pub(crate) const INTERVAL: Duration = Duration::from_millis(150);
/// Within this time a change is confirmed or given up.
const CHANGE_LIMIT: Duration = Duration::from_secs(20);
/// The limit for reading all rows.
const READ_LIMIT: Duration = Duration::from_secs(60);
/// How many lost rows or late answers are shown in detail.
const DETAILS: usize = 10;

/// The cluster and what happens around it.
pub(crate) struct World<'a> {
    pub(crate) cluster: &'a mut Cluster,
    pub(crate) network: Arc<Network>,
    pub(crate) journal: Arc<Journal>,
    pub(crate) random: Random,
    /// The number of nodes, without the one in reserve, which comes last.
    pub(crate) members: usize,
    /// The command that starts each node again.
    commands: Vec<Vec<String>>,
    pub(crate) ledger: Arc<Ledger>,
    // The order matters when they are dropped: clients ask the watch where to go.
    clients: Option<Clients>,
    pub(crate) watch: Watch,
    /// How many answers were late at the last check.
    late: usize,
    /// How many daemons ended without being killed.
    pub(crate) ended: usize,
}

impl<'a> World<'a> {
    /// Starts clients around a running cluster.
    pub(crate) fn new(
        cluster: &'a mut Cluster,
        network: Arc<Network>,
        journal: Arc<Journal>,
        random: Random,
        members: usize,
    ) -> Result<Self> {
        let leader = cluster.leader().context("creating the table: no node says that it leads")?;
        let create = format!("CREATE TABLE {TABLE} (row bigint PRIMARY KEY)");
        cluster.session(leader)?.query(&create, READ_LIMIT)?;
        let apis: Vec<_> = cluster.nodes().iter().map(|node| node.api()).collect();
        let databases = cluster.nodes().iter().map(|node| node.db()).collect();
        let (ledger, watch) = (Arc::<Ledger>::default(), Watch::start(&apis, &journal));
        let clients = Clients::start(cluster.bin_dir().to_owned(), databases, watch.compass(), &ledger);
        let commands = vec![vec!["run".to_owned()]; apis.len()];
        let clients = Some(clients);
        Ok(Self { cluster, network, journal, random, members, commands, ledger, clients, watch, late: 0, ended: 0 })
    }

    /// Starts a node with its current command.
    pub(crate) fn start(&mut self, node: usize) -> Result<()> {
        let command: Vec<&str> = self.commands[node].iter().map(String::as_str).collect();
        self.journal.note(format!("node {} is started: {}", node + 1, command.join(" ")));
        self.cluster.node_mut(node).start(&command)
    }

    /// Sets the command that starts a node from now on.
    pub(crate) fn command(&mut self, node: usize, command: &[&str]) {
        self.commands[node] = command.iter().map(|&word| word.to_owned()).collect();
    }

    /// The node that says that it leads, and its term.
    pub(crate) fn leader(&self) -> Option<(usize, u64)> {
        let nodes = self.cluster.nodes().iter().enumerate();
        nodes.filter_map(|(index, node)| Some((index, leads(node.api())?))).next()
    }

    /// Sends a change to the current leader.
    pub(crate) fn ask_leader(&self, method: &str, path: &str, body: &str) -> Result<Response> {
        let (leader, _) = self.leader().context("no node says that it leads")?;
        let answer = http::ask(method, self.cluster.nodes()[leader].api(), path, body, CHANGE_LIMIT)?;
        let (number, status) = (leader + 1, answer.status);
        self.journal.note(format!("node {number} answers {method} {path} with {status}: {}", answer.body.trim()));
        Ok(answer)
    }

    /// The id of a node in the leader's map, and whether it is a voter that is up. None if it is not in the map.
    pub(crate) fn member(&self, node: usize) -> Result<Option<(u64, bool)>> {
        let (leader, _) = self.leader().context("no node says that it leads")?;
        let map = self.cluster.nodes()[leader].map()?;
        let member = map.member(self.cluster.nodes()[node].api());
        Ok(member.map(|member| (member.id, member.role == "voter" && member.state == "up")))
    }

    /// Starts a daemon that ended by itself again, as a supervisor such as systemd would.
    pub(crate) fn supervise(&mut self, node: usize) -> Result<()> {
        let Some(status) = self.cluster.node_mut(node).ended() else { return Ok(()) };
        self.journal.tell(format!("the daemon of node {} has ended by itself ({status})", node + 1));
        self.ended += 1;
        self.start(node)
    }

    /// Waits until all nodes are full members and each writer has had an answer since `healed`. Returns how long that
    /// took.
    pub(crate) fn recover(&mut self, healed: Instant) -> Result<Duration> {
        until("all nodes are back and all writers write", LIMIT, INTERVAL, || {
            for node in 0..self.members {
                self.supervise(node)?;
            }
            Ok(self.look(healed).map_or_else(|missing| Look::NotYet(format!("{missing:#}")), Look::Done))
        })?;
        (0..self.members).for_each(|node| self.command(node, &["run"]));
        Ok(healed.elapsed())
    }

    fn look(&self, healed: Instant) -> Result<()> {
        self.leader().context("no node says that it leads")?;
        let answered: BTreeSet<usize> = self.ledger.with_acks(|acks| {
            let after = acks.iter().rev().take_while(|ack| ack.at > healed);
            after.filter(|ack| ack.sent > healed).map(|ack| ack.client).collect()
        });
        for node in 0..self.members {
            let member = self.cluster.look_at_member(node, self.members - 1);
            member.with_context(|| format!("node {}", node + 1))?;
        }
        if answered.len() < WRITING {
            bail!("of {WRITING} writers, only {answered:?} were answered");
        }
        Ok(())
    }

    /// Compares what clients know with the rows of the primary: all rows, or new ones. Returns how many are lost.
    pub(crate) fn audit(&self, all: bool) -> Result<usize> {
        let lost = until("a primary can be compared with the ledger", LIMIT, INTERVAL, || {
            let expected = self.ledger.expected(all);
            Ok(match self.read(&expected) {
                Ok(found) => Look::Done(self.ledger.settle(&expected, &found)),
                Err(error) => Look::NotYet(format!("{error:#}")),
            })
        })?;
        for (row, Word { node, at, acknowledged }) in lost.iter().take(DETAILS) {
            let how = if *acknowledged { "acknowledged" } else { "shown" };
            let at = self.journal.offset(*at);
            self.journal.tell(format!("LOST: row {row}, {how} by node {} at {at}", node + 1));
        }
        if lost.len() > DETAILS {
            self.journal.tell(format!("LOST: {} rows in all", lost.len()));
        }
        Ok(lost.len())
    }

    /// The rows of a primary that leads before and after it is asked, in one term. It must have all of `expected`,
    /// which was known before.
    fn read(&self, expected: &BTreeSet<i64>) -> Result<BTreeSet<i64>> {
        let before = self.leader().context("no node says that it leads")?;
        let first = expected.first().copied().unwrap_or_default();
        // A row that no client writes distinguishes the empty table of a primary from a standby.
        let select = format!(
            "SELECT -1 WHERE NOT pg_is_in_recovery() UNION ALL SELECT row FROM {TABLE} \
             WHERE row >= {first} AND NOT pg_is_in_recovery()"
        );
        let rows = self.cluster.session(before.0)?.query(&select, READ_LIMIT)?;
        let rows: BTreeSet<i64> = rows.iter().filter_map(|row| row.parse().ok()).collect();
        if !rows.contains(&-1) {
            bail!("node {} leads, and its database is not a primary", before.0 + 1);
        }
        if self.leader() != Some(before) {
            bail!("node {} no longer leads in term {}", before.0 + 1, before.1);
        }
        Ok(rows)
    }

    /// How many more answers came too late since the last check.
    pub(crate) fn late(&mut self) -> usize {
        let acks: Vec<Claim> = self.ledger.with_acks(|acks| acks.iter().map(|ack| ack.claim()).collect());
        let late = [("acknowledged a row on timeline", acks), ("said that it leads in term", self.watch.claims())];
        let late: Vec<_> = late
            .iter()
            .flat_map(|(what, claims)| overtaken(claims).into_iter().map(move |(late, by)| (*what, late, by)))
            .collect();
        let new = late.len().saturating_sub(self.late);
        let mut by_time: Vec<_> = late.iter().collect();
        by_time.sort_by_key(|(_, claim, _)| claim.at);
        for (what, claim, by) in by_time.iter().rev().take(new.min(DETAILS)).rev() {
            let (sent, at) = (self.journal.offset(claim.sent), self.journal.offset(claim.at));
            self.journal.tell(format!(
                "LATE: node {} {what} {} at {at}, asked at {sent}, after node {} did so in {} at {}",
                claim.node + 1,
                claim.epoch,
                by.node + 1,
                by.epoch,
                self.journal.offset(by.at)
            ));
        }
        self.late = late.len();
        new
    }

    /// Ends the clients. What they would learn from now on is not recorded.
    pub(crate) fn dismiss_clients(&mut self) {
        self.clients = None;
    }
}
