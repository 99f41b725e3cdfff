//! Faults of all kinds in a real cluster under load: no row that a client knows of may be lost.
//!
//! The command runs itself again inside the network that it makes. Sockets and `psql` are among the clients there, and
//! nobody else sees what it mounts, which vanishes when it ends.

mod clients;
mod clock;
mod epochs;
mod fault;
mod inflict;
mod journal;
mod ledger;
mod network;
mod random;
mod rounds;
mod table;
mod watch;
mod world;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use crate::args::{Chaos, Sabotage};
use crate::cluster::{Cluster, Directory, Place};
use crate::interrupt::{self, Interrupted};
use crate::{cargo, install, process};
use journal::Journal;
pub(crate) use network::missing;
use network::{Namespaces, Network};
use random::Random;
use rounds::Report;
use world::World;

/// Environment variables for the command inside the network: the prefix of the network's names, and the path of the
/// daemon.
const NETWORK: &str = "QLUSTER_CHAOS_NETWORK";
const SERVER: &str = "QLUSTER_CHAOS_SERVER";

const API_PORT: u16 = 8080;
const DB_PORT: u16 = 5432;
/// The size of the disk of a node, in MiB.
const DISK: u32 = 1024;
/// The line of `pg_hba.conf` that lets the clients in.
const ACCESS: &str = "host all postgres 10.77.0.0/16 trust";

/// Runs the faults. If that is not possible here, it prints why.
pub(crate) fn run(options: &Chaos) -> Result<()> {
    match (std::env::var(NETWORK), std::env::var_os(SERVER)) {
        (Ok(prefix), Some(server)) => inside(options, &prefix, Path::new(&server)),
        _ => outside(options),
    }
}

/// Makes the network, runs this command inside it, and checks that no process is left there.
fn outside(options: &Chaos) -> Result<()> {
    if let Some(missing) = network::missing() {
        println!("chaos is skipped: {missing}");
        return Ok(());
    }
    install::postgresql()?;
    let server = cargo::build_server_with_faults(options.release)?;
    interrupt::watch()?;
    let prefix = format!("qluster-{}", std::process::id());
    let Some(namespaces) = Namespaces::create(&prefix, options.nodes + 1)? else {
        println!("chaos is skipped: network namespaces are not permitted here");
        return Ok(());
    };
    let seed = options.seed.unwrap_or_else(|| Random::new(u64::from(std::process::id())).next() % 1_000_000);
    let mut command = namespaces.among_clients(&std::env::current_exe().context("looking for this program")?);
    command.args(Chaos { seed: Some(seed), ..options.clone() }.args());
    command.env(NETWORK, &prefix).env(SERVER, server);
    let mut child = command.spawn().context("starting this program among the clients")?;
    let mut signalled = false;
    let status = loop {
        if let Some(status) = child.try_wait().context("waiting for the run")? {
            break status;
        }
        if interrupt::check().is_err() && !signalled {
            // At a terminal it has received the signal already, and a second one changes nothing.
            process::signal(child.id(), Signal::TERM);
            signalled = true;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let left = namespaces.end();
    drop(namespaces);
    interrupt::check()?;
    if !left.is_empty() {
        bail!("these processes were left in the network of the nodes, and were killed: {left:?}");
    }
    match status.success() {
        true => Ok(()),
        false => bail!("chaos failed, see above; to repeat the order of its faults: --seed {seed}"),
    }
}

fn inside(options: &Chaos, prefix: &str, server: &Path) -> Result<()> {
    // If the process that made the network ends, this one ends, too.
    rustix::process::set_parent_process_death_signal(Some(Signal::TERM)).context("following the parent process")?;
    interrupt::watch()?;
    let bin_dir = install::postgresql()?;
    let network = Arc::new(Network::attach(prefix));
    let dir = Directory::create("chaos", options.keep.as_deref())?;
    let journal = Arc::new(Journal::create(dir.path())?);
    let seed = options.seed.unwrap_or_default();
    journal.tell(format!("seed {seed}, {} nodes; what happens is in {}", options.nodes, journal.path().display()));
    let places = (0..=options.nodes).map(|node| place(&network, node, options.sabotage)).collect();
    let cluster = Cluster::new(server, &bin_dir, dir, places)?;
    cluster.attend(|cluster| {
        let worked = work(cluster, options, seed, network, &journal);
        if let Err(error) = &worked
            && !interrupted(&worked)
        {
            cluster.keep();
            journal.note(format!("failed: {error:#}"));
            println!("what happened is in {}, the logs of the nodes are beside it", journal.path().display());
        }
        worked
    })
}

fn place(network: &Network, node: usize, sabotage: Option<Sabotage>) -> Place {
    let mut place = Place::new(network::address(node), API_PORT, DB_PORT);
    place.launcher = network.launcher(node);
    // The network is theirs alone.
    place.env.push(("QLUSTER_ALLOW_UNAUTHENTICATED_NETWORK", "1"));
    // Standbys need a password, which is derived from the secret.
    place.secret = Some("the-secret-of-a-cluster-that-lives-for-a-test");
    if sabotage == Some(Sabotage::Fence) {
        place.env.push(("QLUSTER_FAULT_NO_FENCE", "1"));
    }
    place.disk = Some(DISK);
    place
}

fn work(
    cluster: &mut Cluster,
    options: &Chaos,
    seed: u64,
    network: Arc<Network>,
    journal: &Arc<Journal>,
) -> Result<()> {
    cluster.bootstrap()?;
    cluster.nodes()[0].admit(ACCESS)?;
    (1..options.nodes).try_for_each(|index| cluster.join(index))?;
    let mut world = World::new(cluster, network, journal.clone(), Random::new(seed), options.nodes)?;
    if options.sabotage == Some(Sabotage::Quorum) {
        let answer =
            world.ask_leader("POST", "/config", r#"{"quorum-replication": false, "replication-factor": 0}"#)?;
        if answer.status != 200 {
            bail!("the leader does not give up the quorum: {}", answer.body);
        }
    }
    let mut report = Report::default();
    let ran = rounds::run(&mut world, options, &mut report);
    if !interrupted(&ran) {
        println!("\n{}\n{}", table::render(&report.rounds), sum(&report));
    }
    ran?;
    rounds::check_nothing_runs(&mut world)?;
    verdict(&report, options.sabotage)
}

fn interrupted(result: &Result<()>) -> bool {
    result.as_ref().is_err_and(|error| error.root_cause().is::<Interrupted>())
}

fn sum(report: &Report) -> String {
    let Report { rounds, rows, lost, late, ended } = report;
    format!(
        "{} rounds, {rows} rows acknowledged or shown, {lost} lost, {late} answers of nodes that no longer led, {ended} \
         daemons ended by themselves",
        rounds.len()
    )
}

/// Fails unless the report is what it should be. If a rule was broken on purpose, something must have been lost or
/// late.
fn verdict(report: &Report, sabotage: Option<Sabotage>) -> Result<()> {
    match (report.lost + report.late > 0, sabotage) {
        (false, None) => Ok(()),
        (true, Some(_)) => {
            println!("the sabotage was noticed, as it should be");
            Ok(())
        }
        (true, None) => bail!("clients know of rows or leaders that the cluster denies"),
        (false, Some(_)) => {
            bail!("a rule was broken on purpose and nothing was lost or late: this test finds too little")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sabotage_must_be_noticed_and_without_one_nothing_may_be() {
        let report = |lost, late| Report { rounds: Vec::new(), rows: 9, lost, late, ended: 0 };
        for (report, sabotage, passes) in [
            (report(0, 0), None, true),
            (report(1, 0), None, false),
            (report(0, 1), None, false),
            (report(0, 0), Some(Sabotage::Quorum), false),
            (report(1, 0), Some(Sabotage::Fence), true),
        ] {
            assert_eq!(verdict(&report, sabotage).is_ok(), passes, "{}, {sabotage:?}", sum(&report));
        }
    }
}
