//! The leader's rounds.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use qluster_consensus::model::{DatabaseStatements, StatementHash, Term};
use qluster_consensus::node::cluster::Cluster;
use qluster_consensus::protocol::database::DatabaseRole;
use qluster_consensus::protocol::readonly::{READONLY_HASHES, Readonly, ReadonlyChange, ReadonlyUpdate};

use super::catalogue::Catalogue;
use super::collect::{self, Known};
use super::facts::Facts;
use super::judge::Judge;
use super::publish::{self, Findings};
use super::sessions::{Sessions, ask};
use super::sources::{self, Inventory};
use super::{Error, parse};
use crate::database::Postgres;
use crate::report;

/// Between two questions whether the catalogue has changed: as long, at most, and as the judging takes, a statement
/// stays published that is none any more.
pub(super) const POLL: Duration = Duration::from_secs(1);
/// Between two looks for new statements.
pub(super) const LOOK: Duration = Duration::from_secs(10);
/// The pause after a look at the catalogue is at least so many times as long as that took, and at most [`LOOK`].
const PAUSE: u32 = 20;
/// Judging all again counts for so much less: a change that comes soon after another must not wait for long. New
/// statements are judged no more often than there is a look for them.
const JUDGING: u32 = 5;
/// So many new statements are judged in a round, so that none is long.
const NEW: usize = 2_000;
/// Statements that are judged together.
const BATCH: usize = 200;
/// A database whose catalogue could not be looked at for so long has no statements any more.
const BLIND: Duration = Duration::from_secs(30);
/// Between two looks whether this node leads.
const STEP: Duration = Duration::from_millis(200);

/// Finds out which statements do not write, while this node leads; ends never.
pub(crate) async fn run(postgres: Arc<Postgres>, cluster: Cluster) {
    loop {
        if let Some(term) = leads(&postgres, &cluster) {
            let mut watch = Watch::new(&postgres, &cluster, term);
            // Dropped with its connections where the lead is lost.
            tokio::select! {
                () = watch.rounds() => {}
                () = deposed(&postgres, &cluster, term) => {}
            }
        }
        tokio::time::sleep(STEP).await;
    }
}

fn leads(postgres: &Postgres, cluster: &Cluster) -> Option<Term> {
    let leader = cluster.is_leader().ok()?;
    (postgres.role() == DatabaseRole::Primary).then_some(leader.term)
}

async fn deposed(postgres: &Postgres, cluster: &Cluster, term: Term) {
    while leads(postgres, cluster) == Some(term) {
        tokio::time::sleep(STEP).await;
    }
}

/// By what the published statements of each database were judged: by nothing that counts, where their hashes are of
/// another algorithm.
fn bases(readonly: &Readonly) -> BTreeMap<String, String> {
    let databases = readonly.databases.iter();
    let basis = |version: &str, basis: &String| {
        if version == DatabaseStatements::VERSION { basis.clone() } else { String::new() }
    };
    databases.map(|(name, judged)| (name.clone(), basis(&judged.version, &judged.basis))).collect()
}

/// What is known of a statement: none where its text is too long, or gone.
type Verdict = Option<(StatementHash, Result<(), String>)>;

struct Watch<'a> {
    cluster: &'a Cluster,
    postgres: &'a Postgres,
    term: Term,
    sessions: Sessions,
    /// The statements that were judged, by database: by which basis, and whether they are safe.
    judged: BTreeMap<String, Seen>,
    /// When the basis of a database was last seen.
    checked: BTreeMap<String, Instant>,
    inventory: Option<Inventory>,
    looked: Option<Instant>,
    /// What counts for the pause after this round.
    busy: Duration,
}

#[derive(Default)]
struct Seen {
    basis: String,
    statements: HashMap<i64, Option<(StatementHash, bool)>>,
}

impl<'a> Watch<'a> {
    fn new(postgres: &'a Arc<Postgres>, cluster: &'a Cluster, term: Term) -> Self {
        Self {
            cluster,
            postgres,
            term,
            sessions: Sessions::new(postgres.clone()),
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
            let look = self.looked.is_none_or(|looked| looked.elapsed() >= LOOK);
            let error = self.round(look).await.err().map(|error| report::chain(&error));
            if let Some(error) = error.as_ref().filter(|error| told.as_ref() != Some(*error)) {
                tracing::warn!(error, "which statements do not write could not be found out");
            }
            told = error;
            tokio::time::sleep(POLL.max(self.busy * PAUSE).min(LOOK)).await;
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

    /// Judges what has to be: all where the catalogue has changed, and what is new.
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
            // One that was not called for long may be gone since.
            ids = self.fresh(database).await?;
        }
        if self.judged.get(database).is_none_or(|seen| seen.basis != basis) {
            self.judged.insert(database.into(), Seen { basis: basis.clone(), ..Seen::default() });
        }
        let seen = self.judged.entry(database.into()).or_default();
        let unseen = ids.iter().filter(|id| !seen.statements.contains_key(id)).copied();
        // Where all are judged again, what is not is withdrawn.
        let new: Vec<i64> = unseen.take(if changed { usize::MAX } else { NEW }).collect();
        if new.len() == NEW {
            // The rest comes next.
            self.looked = None;
        }
        if new.is_empty() && !changed {
            return Ok(());
        }
        let begun = Instant::now();
        let (verdicts, version) = self.judge(database, &new).await?;
        if changed {
            self.busy += begun.elapsed() / JUDGING;
        }
        if self.basis(database).await? != basis {
            // What was read may be of either. The next round begins anew.
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

    /// The verdicts on statements. Parsing and judging have threads of their own; the catalogue is read in short
    /// transactions, which together are sound since its basis is looked at before and after.
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
        let reader = self.postgres.connect_to_look(&source.database).await;
        let reader = reader.map_err(|error| Error::Connect { database: source.database.clone(), source: error })?;
        let read = |error| ask("read the statements", database)(error);
        let texts = sources::texts(&reader, &source.function, database, ids).await.map_err(read)?;
        let mut batches = Box::pin(texts.chunks(BATCH));
        while let Some(batch) = batches.next().await {
            let batch = batch.into_iter().collect::<Result<Vec<_>, _>>().map_err(read)?;
            let parsed = blocking(move || batch.into_iter().map(parse).collect::<Vec<_>>()).await?;
            let facts = parsed.iter().filter_map(|(_, _, facts)| facts.as_ref().ok());
            let transaction = begin(&mut session.client).await.map_err(asked)?;
            transaction.batch_execute(collect::SHORT).await.map_err(asked)?;
            collect::extend(&transaction, &mut catalogue, &mut known, facts, version).await.map_err(asked)?;
            drop(transaction);
            let judged;
            (catalogue, judged) = blocking(move || judge(catalogue, parsed)).await?;
            verdicts.extend(judged);
        }
        Ok((verdicts, version))
    }

    /// Remembers the verdicts, and tells what they come to.
    fn take(&mut self, database: &str, ids: &[i64], new: &[i64], verdicts: Vec<(i64, Verdict)>, all: bool) -> Findings {
        let seen = self.judged.entry(database.into()).or_default();
        // Those whose text is gone are not asked for again.
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
        tracing::info!(cause, "the statements that do not write change");
        self.cluster.change_readonly(change, cause).await.map_err(Error::Tell)
    }

    /// Says why there are none, once.
    async fn tell_reason(&self, reason: Option<&String>) -> Result<(), Error> {
        if self.cluster.readonly_part(|readonly| readonly.reason.as_ref() == reason) {
            return Ok(());
        }
        let cause = reason.map_or("the statements are known again", String::as_str);
        self.tell(ReadonlyUpdate::Reason(reason.cloned()), cause).await
    }

    async fn forget(&self, inventory: &Inventory, agreed: &BTreeMap<String, String>) -> Result<(), Error> {
        for database in agreed.keys().filter(|database| !inventory.known.contains(database)) {
            let cause = format!("the database {database} is gone, or takes no connections");
            self.tell(ReadonlyUpdate::Forgotten { database: database.clone() }, &cause).await?;
        }
        Ok(())
    }

    /// A database's catalogue could not be looked at: not for ever can its statements stay. Where it could, and did not
    /// change, they do.
    async fn blind(&mut self, database: &str, published: bool, error: &Error) -> Result<(), Error> {
        let now = Instant::now();
        let since = *self.checked.entry(database.to_owned()).or_insert(now);
        if published && now.duration_since(since) >= BLIND {
            let cause = format!("the database {database} cannot be looked at: {}", report::chain(error));
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
    tokio::task::spawn_blocking(work).await.map_err(|_| Error::Stopping)
}
