//! The leader's rounds.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use qluster_consensus::model::{DatabaseStatements, StatementHash, Term};
use qluster_consensus::node::cluster::Cluster;
use qluster_consensus::protocol::readonly::{READONLY_HASHES, Readonly, ReadonlyChange, ReadonlyUpdate};

use super::catalogue::Catalogue;
use super::collect::{self, Known};
use super::facts::Facts;
use super::judge::Judge;
use super::publish::{self, Findings};
use super::sessions::{Sessions, ask};
use super::sources::{self, Inventory};
use super::{Error, Server, parse};
use crate::report;

/// How often the leader checks whether a catalogue has changed. A statement that may write since stays published at most
/// this long, and as long as the judging takes.
pub(super) const CATALOGUE_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// How often the leader reads which statements are new.
pub(super) const DISCOVERY_INTERVAL: Duration = Duration::from_secs(10);
/// The pause after a check of the catalogue, as a multiple of the time that it took. It is at most
/// [`DISCOVERY_INTERVAL`].
const PAUSE_FACTOR: u32 = 20;
/// The time that it takes to judge all statements again is divided by this before it counts for the pause: a change that
/// comes soon after another must not wait for long. Judging new statements does not count, since that happens once in a
/// [`DISCOVERY_INTERVAL`].
const JUDGING_DIVISOR: u32 = 5;
/// How many new statements are judged in a round, so that none takes long.
const NEW_STATEMENTS_PER_ROUND: usize = 2_000;
/// How many statements are judged together.
const STATEMENTS_PER_BATCH: usize = 200;
/// The statements of a database are withdrawn after its catalogue could not be read for this time.
const UNREADABLE_LIMIT: Duration = Duration::from_secs(30);
/// How often the node checks whether it leads.
const LEADERSHIP_CHECK_INTERVAL: Duration = Duration::from_millis(200);

/// Finds out which statements do not write, while this node leads; never returns.
pub(crate) async fn run(server: Arc<dyn Server>, cluster: Cluster) {
    loop {
        if let Some(term) = leads(server.as_ref(), &cluster) {
            let mut watch = Watch::new(&server, &cluster, term);
            // Dropped with its connections when the lead is lost.
            tokio::select! {
                () = watch.rounds() => {}
                () = deposed(server.as_ref(), &cluster, term) => {}
            }
        }
        tokio::time::sleep(LEADERSHIP_CHECK_INTERVAL).await;
    }
}

fn leads(server: &dyn Server, cluster: &Cluster) -> Option<Term> {
    let leader = cluster.is_leader().ok()?;
    server.is_primary().then_some(leader.term)
}

async fn deposed(server: &dyn Server, cluster: &Cluster, term: Term) {
    while leads(server, cluster) == Some(term) {
        tokio::time::sleep(LEADERSHIP_CHECK_INTERVAL).await;
    }
}

/// The basis by which the published statements of each database were judged: empty if their hashes are of another
/// algorithm, so that they are judged again.
fn bases(readonly: &Readonly) -> BTreeMap<String, String> {
    let databases = readonly.databases.iter();
    let basis = |version: &str, basis: &String| {
        if version == DatabaseStatements::VERSION { basis.clone() } else { String::new() }
    };
    databases.map(|(name, judged)| (name.clone(), basis(&judged.version, &judged.basis))).collect()
}

/// The verdict on a statement; None if its text is too long, or gone.
type Verdict = Option<(StatementHash, Result<(), String>)>;

struct Watch<'a> {
    cluster: &'a Cluster,
    server: &'a dyn Server,
    term: Term,
    sessions: Sessions,
    /// The statements that were judged, by database: by which basis, and whether they are safe.
    judged: BTreeMap<String, Seen>,
    /// When the basis of a database was last read and had not changed.
    checked: BTreeMap<String, Instant>,
    inventory: Option<Inventory>,
    /// When the statements were last read.
    looked: Option<Instant>,
    /// The time that counts for the pause after this round.
    busy: Duration,
}

#[derive(Default)]
struct Seen {
    basis: String,
    statements: HashMap<i64, Option<(StatementHash, bool)>>,
}

impl<'a> Watch<'a> {
    fn new(server: &'a Arc<dyn Server>, cluster: &'a Cluster, term: Term) -> Self {
        Self {
            cluster,
            server: server.as_ref(),
            term,
            sessions: Sessions::new(server.clone()),
            judged: BTreeMap::new(),
            checked: BTreeMap::new(),
            inventory: None,
            looked: None,
            busy: Duration::ZERO,
        }
    }

    async fn rounds(&mut self) {
        let mut told = None;
        loop {
            self.busy = Duration::ZERO;
            let look = self.looked.is_none_or(|looked| looked.elapsed() >= DISCOVERY_INTERVAL);
            let error = self.round(look).await.err().map(|error| report::chain(&error));
            if let Some(error) = error.as_ref().filter(|error| told.as_ref() != Some(*error)) {
                tracing::warn!(error, "the statements could not be judged");
            }
            told = error;
            tokio::time::sleep(CATALOGUE_CHECK_INTERVAL.max(self.busy * PAUSE_FACTOR).min(DISCOVERY_INTERVAL)).await;
        }
    }

    async fn round(&mut self, look: bool) -> Result<(), Error> {
        let agreed = self.cluster.readonly_part(bases);
        if look {
            self.looked = Some(Instant::now());
            let inventory = sources::inventory(&mut self.sessions).await?;
            self.tell_reason(inventory.source.as_ref().err()).await?;
            self.forget(&inventory, &agreed).await?;
            let wanted = inventory.databases.keys().chain(agreed.keys()).cloned().collect();
            self.sessions.keep(&wanted);
            self.judged.retain(|database, _| wanted.contains(database));
            self.inventory = Some(inventory);
        }
        let mut databases: BTreeSet<String> = agreed.keys().cloned().collect();
        if look {
            databases.extend(self.inventory.iter().flat_map(|inventory| inventory.databases.keys().cloned()));
        }
        let mut failed = None;
        for database in databases {
            if let Err(error) = self.look_at(&database, agreed.get(&database).map(String::as_str), look).await {
                self.sessions.drop(&database);
                self.blind(&database, agreed.contains_key(&database), &error).await?;
                failed = Some(error);
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Judges what has to be judged: all statements if the catalogue has changed, otherwise the new ones.
    async fn look_at(&mut self, database: &str, agreed: Option<&str>, look: bool) -> Result<(), Error> {
        let basis = self.basis(database).await?;
        let changed = agreed.is_some_and(|agreed| agreed != basis);
        if !changed {
            self.checked.insert(database.to_owned(), Instant::now());
        }
        if !changed && !look {
            return Ok(());
        }
        let ids = self.inventory.as_ref().and_then(|inventory| inventory.databases.get(database));
        let mut ids = ids.cloned().unwrap_or_default();
        if changed && !look {
            // A statement that was not called for long may be gone by now.
            ids = self.fresh(database).await?;
        }
        if self.judged.get(database).is_none_or(|seen| seen.basis != basis) {
            self.judged.insert(database.into(), Seen { basis: basis.clone(), ..Seen::default() });
        }
        let seen = self.judged.entry(database.into()).or_default();
        let unseen = ids.iter().filter(|id| !seen.statements.contains_key(id)).copied();
        // If all are judged again, a statement that is left out is withdrawn.
        let new: Vec<i64> = unseen.take(if changed { usize::MAX } else { NEW_STATEMENTS_PER_ROUND }).collect();
        if new.len() == NEW_STATEMENTS_PER_ROUND {
            // The rest comes next.
            self.looked = None;
        }
        if new.is_empty() && !changed {
            return Ok(());
        }
        let begun = Instant::now();
        let (verdicts, version) = self.judge(database, &new).await?;
        if changed {
            self.busy += begun.elapsed() / JUDGING_DIVISOR;
        }
        if self.basis(database).await? != basis {
            // What was read may be of either catalogue. The next round begins again.
            self.judged.remove(database);
            return Err(Error::Restless(database.into()));
        }
        let findings = self.take(database, &ids, &new, verdicts, changed);
        tracing::debug!(
            database,
            statements = new.len(),
            safe = findings.safe.len(),
            changed,
            took = ?begun.elapsed(),
            "statements were judged"
        );
        self.publish(database, version, &basis, &findings).await
    }

    async fn basis(&mut self, database: &str) -> Result<String, Error> {
        let session = self.sessions.to(database).await?;
        let begun = Instant::now();
        let basis = collect::basis(&session.client).await.map_err(ask("look at the catalogue", database));
        self.busy += begun.elapsed();
        basis
    }

    async fn fresh(&mut self, database: &str) -> Result<Vec<i64>, Error> {
        let mut inventory = sources::inventory(&mut self.sessions).await?;
        let ids = inventory.databases.remove(database).unwrap_or_default();
        self.inventory = Some(Inventory { databases: [(database.to_owned(), ids.clone())].into(), ..inventory });
        self.looked = None;
        Ok(ids)
    }

    /// The verdicts on statements. Parsing and judging have threads of their own. The catalogue is read in several short
    /// transactions; together they are sound, since its basis is read before and after.
    async fn judge(&mut self, database: &str, ids: &[i64]) -> Result<(Vec<(i64, Verdict)>, u32), Error> {
        let source = self.inventory.as_ref().and_then(|inventory| inventory.source.clone().ok());
        let session = self.sessions.to(database).await?;
        let version = session.version;
        let Some(source) = source.filter(|_| !ids.is_empty()) else { return Ok((Vec::new(), version)) };
        let asked = |source| ask("read the catalogue", database)(source);
        let transaction = begin(&mut session.client).await.map_err(asked)?;
        let mut catalogue = collect::begin(&transaction).await.map_err(asked)?;
        drop(transaction);
        let mut known = Known::default();
        let mut verdicts = Vec::with_capacity(ids.len());
        let reader = self.server.connect(&source.database).await;
        let reader = reader.map_err(|error| Error::Connect { database: source.database.clone(), source: error })?;
        let read = |error| ask("read the statements", database)(error);
        let texts = sources::texts(&reader, &source.function, database, ids).await.map_err(read)?;
        let mut batches = Box::pin(texts.chunks(STATEMENTS_PER_BATCH));
        while let Some(batch) = batches.next().await {
            let batch = batch.into_iter().collect::<Result<Vec<_>, _>>().map_err(read)?;
            let parsed = blocking(move || batch.into_iter().map(parse).collect::<Vec<_>>()).await?;
            let facts = parsed.iter().filter_map(|(_, _, facts)| facts.as_ref().ok());
            let transaction = begin(&mut session.client).await.map_err(asked)?;
            transaction.batch_execute(collect::LIMITS).await.map_err(asked)?;
            collect::extend(&transaction, &mut catalogue, &mut known, facts, version).await.map_err(asked)?;
            drop(transaction);
            let judged;
            (catalogue, judged) = blocking(move || judge(catalogue, parsed)).await?;
            verdicts.extend(judged);
        }
        Ok((verdicts, version))
    }

    /// Remembers the verdicts, and returns what they come to.
    fn take(&mut self, database: &str, ids: &[i64], new: &[i64], verdicts: Vec<(i64, Verdict)>, all: bool) -> Findings {
        let seen = self.judged.entry(database.into()).or_default();
        // The texts of those that have none are not read again.
        seen.statements.extend(new.iter().map(|id| (*id, None)));
        let mut unsafe_ = BTreeMap::new();
        for (id, verdict) in verdicts {
            let Some((hash, verdict)) = verdict else { continue };
            seen.statements.insert(id, Some((hash, verdict.is_ok())));
            if let Err(reason) = verdict {
                tracing::debug!(database, %hash, reason, "a statement may write");
                unsafe_.insert(hash, reason);
            }
        }
        let order = ids.iter().filter_map(|id| *seen.statements.get(id)?);
        let safe = order.filter(|(_, safe)| *safe).map(|(hash, _)| hash).collect();
        let refused = seen.statements.values().flatten().filter(|(_, safe)| !safe);
        for (hash, _) in refused {
            unsafe_.entry(*hash).or_insert_with(|| "another statement with its hash may write".into());
        }
        let present: BTreeSet<&i64> = ids.iter().collect();
        seen.statements.retain(|id, _| present.contains(id));
        Findings { safe, unsafe_, all }
    }

    async fn publish(&self, database: &str, version: u32, basis: &str, findings: &Findings) -> Result<(), Error> {
        let agreed = self.cluster.agreed_readonly();
        let taken: usize = agreed.databases.values().map(|judged| judged.hashes.len()).sum();
        let room = READONLY_HASHES.saturating_sub(taken);
        let known = agreed.databases.get(database);
        for (update, cause) in publish::changes(database, version, basis, known, findings, room) {
            self.tell(update, &cause).await?;
        }
        Ok(())
    }

    async fn tell(&self, what: ReadonlyUpdate, cause: &str) -> Result<(), Error> {
        let generation = self.cluster.readonly_part(|readonly| readonly.generation) + 1;
        let change = ReadonlyChange { term: self.term, generation, what };
        tracing::info!(cause, "the list of statements that do not write changes");
        self.cluster.change_readonly(change, cause).await.map_err(Error::Tell)
    }

    /// Publishes why there is no list, once.
    async fn tell_reason(&self, reason: Option<&String>) -> Result<(), Error> {
        if self.cluster.readonly_part(|readonly| readonly.reason.as_ref() == reason) {
            return Ok(());
        }
        let cause = reason.map_or("the statements can be read again", String::as_str);
        self.tell(ReadonlyUpdate::Reason(reason.cloned()), cause).await
    }

    async fn forget(&self, inventory: &Inventory, agreed: &BTreeMap<String, String>) -> Result<(), Error> {
        for database in agreed.keys().filter(|database| !inventory.known.contains(database)) {
            let cause = format!("the database {database} is gone, or takes no connections");
            self.tell(ReadonlyUpdate::Forgotten { database: database.clone() }, &cause).await?;
        }
        Ok(())
    }

    /// The catalogue of a database could not be read. Its statements stay published for [`UNREADABLE_LIMIT`] after it was
    /// last read.
    async fn blind(&mut self, database: &str, published: bool, error: &Error) -> Result<(), Error> {
        let now = Instant::now();
        let since = *self.checked.entry(database.to_owned()).or_insert(now);
        if published && now.duration_since(since) >= UNREADABLE_LIMIT {
            let cause = format!("the catalogue of the database {database} cannot be read: {}", report::chain(error));
            self.tell(ReadonlyUpdate::Forgotten { database: database.into() }, &cause).await?;
        }
        Ok(())
    }
}

async fn begin(client: &mut tokio_postgres::Client) -> super::Asked<tokio_postgres::Transaction<'_>> {
    let isolation = tokio_postgres::IsolationLevel::RepeatableRead;
    client.build_transaction().read_only(true).isolation_level(isolation).start().await
}

type Parsed = (i64, Option<StatementHash>, Result<Facts, String>);

fn parse((id, sql): (i64, String)) -> Parsed {
    (id, parse::hash(&sql), parse::statement(&sql))
}

fn judge(catalogue: Catalogue, parsed: Vec<Parsed>) -> (Catalogue, Vec<(i64, Verdict)>) {
    let mut judge = Judge::new(&catalogue);
    let verdict = |(id, hash, facts): Parsed| {
        let verdict = hash.map(|hash| (hash, facts.and_then(|facts| judge.statement(&facts))));
        (id, verdict)
    };
    let verdicts = parsed.into_iter().map(verdict).collect();
    (catalogue, verdicts)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    Ok(tokio::task::spawn_blocking(work).await?)
}
