//! The statements that may be sent to a standby: the cluster's list, kept up to date.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use pg_query::{FingerprintOptions, ParserOptions};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::model::{self, DatabaseStatements, ReadonlyStatements, StatementHash};
use crate::{ClusterClient, Error};

/// How long the leader may wait for a change of the list before it answers, in milliseconds.
const WAIT_MS: u64 = 5_000;
/// A list that the leader has not confirmed for this time is not used: the leader may have withdrawn statements.
const MAX_AGE: Duration = Duration::from_secs(15);
/// The pause after the leader did not answer.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// The statements that do not write, by database. A task keeps them up to date until this is dropped.
///
/// The task asks the leader, which is the first to know that a statement was withdrawn. If the leader has not confirmed
/// the list for 15 seconds, the set contains no statement. `docs/readonly-statements.md` says what the list promises,
/// and what it does not.
///
/// ```no_run
/// # async fn example() -> Result<(), qluster_client::Error> {
/// let cluster = qluster_client::ClusterClient::new(["http://10.0.0.1:8080"])?;
/// let readonly = qluster_client::ReadonlySet::watch(&cluster);
/// readonly.ready().await;
/// if readonly.contains("app", "SELECT name FROM users WHERE id = $1") {
///     println!("a standby may answer it");
/// }
/// # Ok(())
/// # }
/// ```
pub struct ReadonlySet {
    known: Arc<RwLock<Known>>,
    first: watch::Receiver<bool>,
    task: AbortHandle,
}

#[derive(Default)]
struct Known {
    databases: HashMap<String, HashSet<StatementHash>>,
    confirmed: Option<Instant>,
}

impl ReadonlySet {
    /// Begins to watch the list of a cluster.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn watch(cluster: &ClusterClient) -> Self {
        let known = Arc::new(RwLock::new(Known::default()));
        let (told, first) = watch::channel(false);
        let (cluster, list) = (cluster.clone(), known.clone());
        let task = tokio::spawn(async move {
            let mut etag = None;
            loop {
                if let Err(pause) = refresh(&cluster, &list, &mut etag).await.map_err(|_| RETRY_PAUSE) {
                    tokio::time::sleep(pause).await;
                } else {
                    told.send_replace(true);
                }
            }
        });
        Self { known, first, task: task.abort_handle() }
    }

    /// Waits for the first list, without a time limit.
    pub async fn ready(&self) {
        let mut first = self.first.clone();
        // The sender lives as long as the task, which `self` keeps running.
        let _ = first.wait_for(|first| *first).await;
    }

    /// Whether a statement of this database may be sent to a standby.
    ///
    /// Each call computes the hash of the statement, which takes some microseconds. A pooler should keep the hash of a
    /// prepared statement, and call [`contains_hash`](Self::contains_hash).
    pub fn contains(&self, database: &str, sql: &str) -> bool {
        Self::hash(sql).is_some_and(|hash| self.contains_hash(database, hash))
    }

    /// Whether the statement with this [hash](Self::hash) may be sent to a standby.
    pub fn contains_hash(&self, database: &str, hash: StatementHash) -> bool {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let fresh = known.confirmed.is_some_and(|confirmed| confirmed.elapsed() < MAX_AGE);
        fresh && known.databases.get(database).is_some_and(|hashes| hashes.contains(&hash))
    }

    /// The hash of a statement; `None` if PostgreSQL's parser refuses it.
    pub fn hash(sql: &str) -> Option<StatementHash> {
        let options = FingerprintOptions::RANGEVAR_PG17_COMPAT | FingerprintOptions::FULL_RELNAME;
        pg_query::fingerprint(sql, ParserOptions::DEFAULT, options).ok().map(|found| StatementHash(found.value))
    }
}

impl Drop for ReadonlySet {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for ReadonlySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let counts: HashMap<_, _> = known.databases.iter().map(|(name, hashes)| (name, hashes.len())).collect();
        f.debug_struct("ReadonlySet").field("databases", &counts).finish_non_exhaustive()
    }
}

/// Asks for the list, and waits for one that differs from the known one.
async fn refresh(cluster: &ClusterClient, list: &RwLock<Known>, etag: &mut Option<String>) -> Result<(), Error> {
    // The leader gave its answer after it was asked, so the list was valid at this time.
    let asked = Instant::now();
    let wait = if etag.is_some() { WAIT_MS } else { 0 };
    let wait = model::Duration::from_millis(wait);
    let told = cluster.readonly_statements_after(etag.as_deref(), wait).await?;
    let mut known = list.write().unwrap_or_else(PoisonError::into_inner);
    known.confirmed = Some(asked);
    if let Some((statements, tag)) = told {
        known.databases = by_database(statements);
        *etag = Some(tag);
        known.confirmed = Some(Instant::now());
    }
    Ok(())
}

/// The databases whose hashes are computed in the same way as here.
fn by_database(statements: ReadonlyStatements) -> HashMap<String, HashSet<StatementHash>> {
    let ours = |told: &DatabaseStatements| {
        told.algorithm == DatabaseStatements::ALGORITHM && told.version == DatabaseStatements::VERSION
    };
    let databases = statements.0.into_iter().filter(ours);
    databases.map(|told| (told.database, told.hashes.into_iter().collect())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_of_another_algorithm_are_not_used() {
        let told = |database: &str, algorithm: &str, version: &str| DatabaseStatements {
            database: database.into(),
            algorithm: algorithm.into(),
            version: version.into(),
            postgresql: 15,
            generation: 1,
            hashes: vec![StatementHash(1)],
        };
        let (algorithm, version) = (DatabaseStatements::ALGORITHM, DatabaseStatements::VERSION);
        let all = vec![told("a", algorithm, version), told("b", "md5", version), told("c", algorithm, "2")];
        let known = by_database(ReadonlyStatements(all));
        assert_eq!(known.keys().collect::<Vec<_>>(), ["a"]);
    }

    #[test]
    fn constants_and_aliases_do_not_matter_and_tables_do() {
        let hash = |sql| ReadonlySet::hash(sql);
        assert_eq!(hash("SELECT 1").map(|hash| hash.to_string()).as_deref(), Some("50fde20626009aba"));
        assert_eq!(hash("SELECT a FROM t x WHERE b = 'c'"), hash("select a from t where b = $1"));
        assert_ne!(hash("SELECT * FROM t x"), hash("SELECT * FROM u x"));
        assert_eq!(hash("SELECT FROM FROM"), None);
    }
}
