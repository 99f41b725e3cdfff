//! Where statements come from: `pg_stat_statements`, which has those of all databases.

use std::collections::BTreeMap;

use futures::{Stream, TryStreamExt};
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

use super::parse::STATEMENT_LIMIT_BYTES;
use super::sessions::{MAIN, Sessions, ask};
use super::{Asked, Error, cell};

/// In how many databases statements are judged: those with the most statements. Each takes a connection.
pub(super) const DATABASE_LIMIT: usize = 20;

/// The statements that the server knows.
#[derive(Debug)]
pub(super) struct Inventory {
    /// By database: the ids of its statements, those called most often first.
    pub(super) databases: BTreeMap<String, Vec<i64>>,
    /// All databases that can be connected to.
    pub(super) known: Vec<String>,
    /// Where the statements are read; or why they cannot be read.
    pub(super) source: Result<Source, String>,
}

/// Where the statements are read.
#[derive(Clone, Debug)]
pub(super) struct Source {
    /// The database that has the extension.
    pub(super) database: String,
    /// The extension's function, quoted.
    pub(super) function: String,
}

const FUNCTION: &str = "
    SELECT format('%I.pg_stat_statements', nspname)
      FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace WHERE extname = 'pg_stat_statements'";

const DATABASE_NAMES: &str = "
    SELECT datname::text FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY datname <> 'postgres', datname";

/// Reads which statements there are.
pub(super) async fn inventory(sessions: &mut Sessions) -> Result<Inventory, Error> {
    let main = sessions.to(MAIN).await?;
    let names = main.client.query(DATABASE_NAMES, &[]).await.map_err(ask("list the databases", MAIN))?;
    let known: Vec<String> =
        names.iter().map(|row| cell(row, 0)).collect::<Result<_, _>>().map_err(ask("read", MAIN))?;
    let mut source = None;
    for name in known.iter().take(DATABASE_LIMIT) {
        let Ok(session) = sessions.to(name).await else { continue };
        let found = session.client.query_opt(FUNCTION, &[]).await.map_err(ask("look for the extension", name))?;
        let Some(found) = found else { continue };
        let function: String = cell(&found, 0).map_err(ask("read", name))?;
        let sql = format!(
            "SELECT d.datname::text, s.queryid FROM (
                 SELECT dbid, queryid, sum(calls) AS calls FROM {function}(false)
                  WHERE queryid IS NOT NULL AND userid <> (SELECT oid FROM pg_roles WHERE rolname = current_user)
                  GROUP BY 1, 2) s
               JOIN pg_database d ON d.oid = s.dbid AND d.datallowconn AND NOT d.datistemplate
              ORDER BY s.calls DESC"
        );
        match session.client.query(&sql, &[]).await {
            Ok(rows) => {
                let mut databases: BTreeMap<String, Vec<i64>> = BTreeMap::new();
                for row in &rows {
                    let (name, id) =
                        cell(row, 0).and_then(|name| Ok((name, cell(row, 1)?))).map_err(ask("read", name))?;
                    databases.entry(name).or_default().push(id);
                }
                let mut sizes: Vec<usize> = databases.values().map(Vec::len).collect();
                sizes.sort_unstable_by(|one, other| other.cmp(one));
                if let Some(&least) = sizes.get(DATABASE_LIMIT) {
                    databases.retain(|_, ids| ids.len() > least);
                }
                let source = Ok(Source { database: name.clone(), function });
                return Ok(Inventory { databases, known, source });
            }
            Err(error) => match error.as_db_error() {
                // Not in shared_preload_libraries; or somebody took away the rights.
                Some(said) => source = Some(format!("pg_stat_statements does not work: {}", said.message())),
                None => return Err(ask("list the statements", name)(error)),
            },
        }
    }
    let missing = "no database has the extension pg_stat_statements: add it to shared_preload_libraries, restart \
                   PostgreSQL, and run CREATE EXTENSION pg_stat_statements in the database postgres";
    let source = Err(source.unwrap_or_else(|| missing.into()));
    Ok(Inventory { databases: BTreeMap::new(), known, source })
}

/// The ids and texts of statements of a database, as the server sends them. Statements that it no longer has, or that
/// are longer than [`STATEMENT_LIMIT_BYTES`], are left out.
pub(super) async fn texts(
    client: &Client,
    function: &str,
    database: &str,
    ids: &[i64],
) -> Result<impl Stream<Item = Asked<(i64, String)>> + use<>, tokio_postgres::Error> {
    let sql = format!(
        "SELECT queryid, query FROM {function}(true)
          WHERE dbid = (SELECT oid FROM pg_database WHERE datname = $1) AND queryid = ANY ($2)
            AND length(query) <= {STATEMENT_LIMIT_BYTES}"
    );
    // They are judged as they come.
    client.batch_execute("SET statement_timeout = '10min'").await?;
    let parameters: [&(dyn ToSql + Sync); 2] = [&database, &ids];
    let rows = client.query_raw(&sql, parameters).await?;
    Ok(rows.and_then(|row| async move { Ok((cell(&row, 0)?, cell(&row, 1)?)) }))
}
