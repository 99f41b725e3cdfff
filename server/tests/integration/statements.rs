//! Which statements are called read-only, over real daemons and PostgreSQL: `apt-get install postgresql-15` (or newer).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use pg_query::{FingerprintOptions, ParserOptions};
use qluster_consensus::model::{Event, EventKind, ReadonlyStatements, StatementHash};
use reqwest::header::{ETAG, IF_NONE_MATCH};
use tokio_postgres::{Client, NoTls};

use crate::support::{Daemon, Ground, WAIT_DEADLINE, free_port, holds, until};

/// As a pooler makes it.
fn hash(sql: &str) -> StatementHash {
    let options = FingerprintOptions::RANGEVAR_PG17_COMPAT | FingerprintOptions::FULL_RELNAME;
    StatementHash(pg_query::fingerprint(sql, ParserOptions::DEFAULT, options).unwrap().value)
}

async fn connect(port: u16, database: &str) -> Result<Client, tokio_postgres::Error> {
    let config = format!("host=127.0.0.1 port={port} user=postgres dbname={database} connect_timeout=3");
    let (client, connection) = tokio_postgres::connect(&config, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// A cluster of one node, as soon as its database takes writes.
async fn primary(ground: &Ground) -> (Daemon, u16) {
    let port = free_port();
    let data = ground.database("1");
    let arguments = ["--db-data-dir", &data, "--db-port", &port.to_string(), "--watchdog", "off", "bootstrap"];
    let node = ground.node("1", &arguments);
    let recovers = async || connect(port, "postgres").await?.query_one("SELECT pg_is_in_recovery()", &[]).await;
    until("it is a primary", WAIT_DEADLINE, async || {
        node.until_get("/is-leader", 200).await;
        let recovers = recovers().await.map(|row| row.get::<_, bool>(0));
        holds(matches!(recovers, Ok(false)), recovers)
    })
    .await;
    (node, port)
}

/// Waits until the hashes of a database are as `wanted`.
async fn until_listed(node: &Daemon, database: &str, what: &str, wanted: impl Fn(&BTreeSet<StatementHash>) -> bool) {
    until(what, WAIT_DEADLINE, async || {
        let told: ReadonlyStatements = node.get("/sql/readonly").await.ok();
        let found = told.0.into_iter().find(|told| told.database == database);
        let hashes = found.map(|found| found.hashes.into_iter().collect()).unwrap_or_default();
        holds(wanted(&hashes), hashes)
    })
    .await;
}

const SETUP: &str = r#"
    CREATE TABLE t (id int PRIMARY KEY, name text); CREATE TABLE log (n int); CREATE SEQUENCE s;
    CREATE FUNCTION writes() RETURNS int LANGUAGE sql AS 'INSERT INTO log VALUES (1) RETURNING 1';
    CREATE FUNCTION writes_rows() RETURNS SETOF int LANGUAGE sql AS 'INSERT INTO log VALUES (1) RETURNING 1';
    CREATE FUNCTION over(a int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT a';
    CREATE FUNCTION over(a text) RETURNS int LANGUAGE sql AS 'SELECT writes()';
    CREATE FUNCTION touch(a t) RETURNS int LANGUAGE sql AS 'SELECT writes()';
    CREATE FUNCTION liar() RETURNS bigint STABLE LANGUAGE sql AS $$ SELECT nextval('s') $$;
    CREATE FUNCTION deep_liar() RETURNS bigint IMMUTABLE LANGUAGE sql AS 'SELECT liar()';
    CREATE FUNCTION atomic_liar() RETURNS bigint STABLE LANGUAGE sql BEGIN ATOMIC SELECT nextval('s'); END;
    CREATE FUNCTION pl_liar() RETURNS int STABLE LANGUAGE plpgsql AS 'BEGIN PERFORM writes(); RETURN 1; END';
    CREATE FUNCTION pl_text() RETURNS int STABLE LANGUAGE plpgsql
        AS $$ DECLARE n int; BEGIN EXECUTE 'SELECT writes()' INTO n; RETURN n; END $$;
    CREATE FUNCTION with_default(a int DEFAULT writes()) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT a';
    CREATE FUNCTION step(a int, b int) RETURNS int LANGUAGE sql AS 'SELECT writes() + a + b';
    CREATE AGGREGATE bad_sum (int) (sfunc = step, stype = int, initcond = '0');
    CREATE FUNCTION op(a int, b int) RETURNS int LANGUAGE sql AS 'SELECT writes()';
    CREATE OPERATOR ### (leftarg = int, rightarg = int, function = op);
    CREATE OPERATOR <-> (leftarg = int, rightarg = int, function = op);
    CREATE SCHEMA evil; CREATE SCHEMA other;
    CREATE OPERATOR evil.=== (leftarg = int, rightarg = int, function = op);
    CREATE FUNCTION evil.reverse(text) RETURNS text LANGUAGE sql AS $$ SELECT writes()::text $$;
    CREATE VIEW v AS SELECT writes() AS w; CREATE VIEW vv AS SELECT * FROM v;
    CREATE VIEW evil.shadowed AS SELECT writes() AS n; CREATE TABLE shadowed (n int);
    CREATE VIEW v_lock AS SELECT pg_try_advisory_lock(1) AS x;
    CREATE VIEW v_cast AS SELECT id FROM t WHERE name = liar()::text;
    CREATE FUNCTION by_view() RETURNS int STABLE LANGUAGE sql AS 'SELECT w FROM v';
    CREATE TABLE both_ways (n int); CREATE TABLE other.both_ways (n int);
    CREATE ROLE tricky LOGIN; ALTER ROLE tricky SET search_path = other, public;
    CREATE TABLE ruled (w int); CREATE RULE "_RETURN" AS ON SELECT TO ruled DO INSTEAD SELECT writes() AS w;
    CREATE TABLE guarded (n int); ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
    CREATE POLICY p ON guarded USING (writes() > n);
    CREATE UNLOGGED TABLE unlogged (n int);
    CREATE TABLE parted (n int) PARTITION BY RANGE (n);
    CREATE UNLOGGED TABLE part PARTITION OF parted FOR VALUES FROM (0) TO (9);
    CREATE TABLE parent (n int); CREATE UNLOGGED TABLE child () INHERITS (parent);
    CREATE EXTENSION file_fdw; CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
    CREATE FOREIGN TABLE away (n int) SERVER files OPTIONS (program 'echo 1');
    CREATE EXTENSION dblink; CREATE EXTENSION tablefunc;
    CREATE TEMP TABLE tmp (n int);
    CREATE FUNCTION pg_temp.tf() RETURNS int LANGUAGE sql AS 'SELECT writes()';
    CREATE FUNCTION pl_row() RETURNS int STABLE LANGUAGE plpgsql
        AS $$ DECLARE /* BEGIN */ r t := ROW(writes(), 'x')::t; BEGIN RETURN r.id; END $$;
    CREATE FUNCTION pl_handler() RETURNS int STABLE LANGUAGE plpgsql
        AS $$ BEGIN RETURN 1 / 0; EXCEPTION WHEN division_by_zero THEN RETURN writes(); END $$;
    CREATE FUNCTION pl_raise() RETURNS int STABLE LANGUAGE plpgsql
        AS $$ BEGIN RAISE DEBUG 'x' USING DETAIL = writes()::text; RETURN 1; END $$;
    CREATE FUNCTION definer() RETURNS int STABLE SECURITY DEFINER LANGUAGE sql AS 'SELECT writes()';
    CREATE FUNCTION many(VARIADIC a int[] DEFAULT ARRAY[writes()]) RETURNS int STABLE LANGUAGE sql AS 'SELECT 1';
    CREATE FUNCTION sets() RETURNS int STABLE LANGUAGE sql SET transaction_read_only = off AS 'SELECT 1';
    CREATE FUNCTION good_step(a int, b int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT a + b';
    CREATE FUNCTION bad_last(a int) RETURNS int LANGUAGE sql AS 'SELECT writes() + a';
    CREATE AGGREGATE moving (int) (sfunc = good_step, stype = int, initcond = '0', msfunc = good_step,
        minvfunc = good_step, mstype = int, minitcond = '0', mfinalfunc = bad_last);
    CREATE TABLE addresses (a regclass); INSERT INTO addresses VALUES ('s');
    CREATE FUNCTION counts(int) RETURNS int IMMUTABLE LANGUAGE plpgsql
        AS $$ BEGIN PERFORM nextval('s'); RETURN $1; END $$;
    CREATE TABLE indexed (n int); CREATE INDEX ON indexed ((n + counts(1)));
    CREATE TABLE indexed_part (n int); CREATE INDEX ON indexed_part (n) WHERE n > counts(1);
    CREATE TABLE keyed (n int) PARTITION BY RANGE ((n + counts(1)));
    CREATE TABLE checked (n int); CREATE TABLE checked_child (CHECK (n > counts(1))) INHERITS (checked);
    CREATE TABLE counted (a int, b int); CREATE STATISTICS counted_too ON (a + counts(1)), b FROM counted;
    CREATE FUNCTION positive(int) RETURNS bool LANGUAGE plpgsql AS 'BEGIN RETURN $1 > 0; END';
    CREATE TABLE lax (n int CHECK (positive(n)), name text); CREATE INDEX ON lax (lower(name), (n + 1)) WHERE n > 0;
    CREATE TABLE accounts (aid int PRIMARY KEY, balance int);
    CREATE VIEW good_view AS SELECT a.aid, upper(t.name) AS name FROM accounts a LEFT JOIN t ON t.id = a.aid;
    CREATE FUNCTION good_fn(a int) RETURNS int STABLE LANGUAGE sql AS 'SELECT count(*)::int + a FROM accounts';
    CREATE FUNCTION good_pl(a int) RETURNS int STABLE LANGUAGE plpgsql
        AS $$ DECLARE n int := 0; BEGIN n := a + 1; IF n > 3 THEN RETURN good_fn(n); END IF; RETURN 0; END $$;
"#;

/// Each writes, may write, fails on a standby, or reads what other sessions do not see.
const HOSTILE: [&str; 94] = [
    "SELECT writes()",
    "SELECT over(1)",
    "SELECT public.over(1)",
    "SELECT t.touch FROM t",
    "SELECT (t).touch FROM t",
    "SELECT liar()",
    "SELECT deep_liar()",
    "SELECT atomic_liar()",
    "SELECT pl_liar()",
    "SELECT pl_text()",
    "SELECT with_default()",
    "SELECT bad_sum(id) FROM t",
    "SELECT by_view()",
    "SELECT 1 ### 2",
    "SELECT point(1, 1) <-> point(2, 2)",
    "SELECT 1 OPERATOR(evil.===) 2",
    "SELECT reverse('x')",
    "SELECT * FROM v",
    "SELECT x.w FROM vv AS x",
    "SELECT * FROM v_lock",
    "SELECT * FROM v_cast",
    "SELECT * FROM shadowed",
    "SELECT n FROM both_ways",
    "SELECT * FROM ruled",
    "SELECT * FROM guarded",
    "SELECT * FROM unlogged",
    "SELECT * FROM parted",
    "SELECT * FROM parent",
    "SELECT * FROM away",
    "SELECT * FROM tmp",
    "SELECT * FROM pg_temp.tmp",
    "SELECT pg_temp.tf()",
    "SELECT * FROM writes_rows()",
    "SELECT t.id, w FROM t LEFT JOIN LATERAL writes_rows() AS w ON true",
    "SELECT id FROM t ORDER BY writes()",
    "SELECT id FROM t LIMIT (SELECT writes())",
    "SELECT count(*) FILTER (WHERE writes() > 0) FROM t",
    "SELECT sum(id) OVER (ORDER BY id ROWS (SELECT writes()) PRECEDING) FROM t",
    "SELECT CASE WHEN EXISTS (SELECT writes()) THEN 1 END",
    "VALUES (writes())",
    "WITH w AS (SELECT writes() AS n) SELECT n FROM w",
    "WITH w AS (INSERT INTO log VALUES (2) RETURNING n) SELECT n FROM w",
    "WITH v AS (SELECT 1) SELECT * FROM (SELECT * FROM v) AS x UNION ALL SELECT w FROM public.v",
    "SELECT * FROM t FOR UPDATE",
    "SELECT * FROM (SELECT * FROM t FOR KEY SHARE) AS x",
    "SELECT id INTO copied FROM t",
    "SELECT nextval('s')",
    "SELECT setval('s', 5)",
    "SELECT set_config('application_name', 'x', false)",
    "SELECT pg_advisory_xact_lock(1)",
    "SELECT pg_try_advisory_lock(2)",
    "SELECT dblink_get_connections()",
    "SELECT * FROM crosstab('SELECT 1, 2, writes()') AS c(a int, b int)",
    "SELECT lo_create(0)",
    "SELECT lo_from_bytea(0, '\\\\x00')",
    "SELECT pg_read_file('PG_VERSION')",
    "SELECT pg_ls_dir('.')",
    "SELECT query_to_xml('SELECT writes()', false, false, '')",
    "SELECT table_to_xml('v', false, false, '')",
    "SELECT word FROM ts_stat('SELECT to_tsvector(writes()::text)')",
    "SELECT ts_rewrite('a'::tsquery, 'SELECT ''a''::tsquery, to_tsquery(writes()::text)')",
    "SELECT txid_current()",
    "SELECT pg_current_xact_id()",
    "SELECT pg_notify('c', 'x')",
    "SELECT pg_logical_emit_message(false, 'a', 'b')",
    "SELECT pg_export_snapshot()",
    "EXPLAIN ANALYZE INSERT INTO log VALUES (3)",
    "DO $$ BEGIN PERFORM writes(); END $$",
    "INSERT INTO log SELECT 4",
    "SELECT \"xStringstrwrites\" FROM (SELECT 1) AS x(\"xStringstrwrites\")",
    "TABLE vv",
    "SELECT pl_row()",
    "SELECT pl_handler()",
    "SELECT pl_raise()",
    "SELECT definer()",
    "SELECT many()",
    "SELECT sets()",
    "SELECT moving(id) OVER (ORDER BY id ROWS 1 PRECEDING) FROM t",
    // A column's name may be a function's, PostgreSQL's own as well.
    "SELECT x.nextval FROM regclass('s') AS x",
    "SELECT (a).nextval FROM addresses",
    "SELECT x.lo_create FROM oid('77') AS x",
    "SELECT x.pg_advisory_lock_shared FROM generate_series(1, 2) AS x",
    "SELECT x.pg_read_file FROM text('PG_VERSION') AS x",
    // What the planner calls, although nothing is evaluated.
    "SELECT * FROM indexed",
    "SELECT * FROM indexed_part",
    "SELECT * FROM keyed",
    "SELECT * FROM checked WHERE n = 3",
    "SELECT * FROM counted WHERE b = 1",
    "SELECT * FROM xmltable('/a' PASSING xmlparse(document '<a/>') COLUMNS x int DEFAULT writes())",
    "SELECT * FROM ROWS FROM (generate_series(1, writes()), unnest(ARRAY[1]))",
    "SELECT percentile_cont(writes()) WITHIN GROUP (ORDER BY id) FROM t",
    "SELECT id FROM t TABLESAMPLE system (50) REPEATABLE (writes())",
    "SELECT id FROM t GROUP BY GROUPING SETS ((id), ()) HAVING writes() > 0",
    "SELECT (ARRAY[1, 2])[writes()]",
];

/// Each may be sent to a standby.
const HARMLESS: [&str; 19] = [
    "SELECT balance FROM accounts WHERE aid = 7",
    "SELECT a.balance, t.name FROM accounts a JOIN t ON t.id = a.aid WHERE a.aid IN (1, 2, 3) ORDER BY 1 LIMIT 10",
    "SELECT count(*), max(balance) FROM accounts GROUP BY aid % 10 HAVING count(*) > 1",
    "SELECT random(), now(), clock_timestamp(), gen_random_uuid()",
    "SELECT current_user, current_date + interval '1 day'",
    "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5) SELECT * FROM n",
    "SELECT * FROM good_view WHERE name LIKE 'a%'",
    "SELECT good_fn(3)",
    "SELECT good_pl(3)",
    "TABLE accounts",
    "VALUES (1), (2)",
    "SHOW server_version",
    "SELECT last_value FROM s",
    "SELECT name::varchar(10) COLLATE \"C\", row_number() OVER (PARTITION BY id) FROM t",
    "SELECT generate_series(1, 3), array_agg(id ORDER BY id DESC) FROM t",
    "SELECT count(*) FROM information_schema.tables",
    "SELECT pg_size_pretty(pg_total_relation_size('t'))",
    "SELECT lax.name FROM lax WHERE n = 1",
    "SELECT x.* FROM t, LATERAL (SELECT 1 WHERE t.id BETWEEN 1 AND 5) AS x",
];

/// What is called by no name that a statement has taints its whole database: any constant may be cast, `IN` calls `=`,
/// any column may be sorted.
const TAINTED: [(&str, &str, &str); 5] = [
    (
        "by_domain",
        "CREATE FUNCTION f(int) RETURNS bool LANGUAGE sql AS 'CREATE TABLE IF NOT EXISTS x (); SELECT true';
         CREATE DOMAIN d AS int CHECK (f(VALUE)); CREATE TABLE t (id int);",
        "SELECT 1::d",
    ),
    (
        "by_cast",
        "CREATE TYPE mood AS ENUM ('good', 'bad'); CREATE TABLE log (n int); CREATE TABLE t (id int);
         CREATE FUNCTION f(mood) RETURNS int LANGUAGE sql AS 'INSERT INTO log VALUES (1) RETURNING 1';
         CREATE CAST (mood AS int) WITH FUNCTION f(mood) AS IMPLICIT;",
        "SELECT 1 + 'good'::mood",
    ),
    (
        "by_equality",
        "CREATE TABLE log (n int); CREATE TABLE t (id int);
         CREATE FUNCTION f(int, text) RETURNS bool LANGUAGE sql AS 'INSERT INTO log VALUES (1) RETURNING true';
         CREATE OPERATOR = (leftarg = int, rightarg = text, function = f);",
        "SELECT 1 IN ('x'::text)",
    ),
    (
        "by_equality_of_views",
        "CREATE TYPE mood AS ENUM ('good', 'bad'); CREATE TABLE log (n int); CREATE TABLE t (id int);
         CREATE TABLE moods (m mood); CREATE TABLE more (m mood);
         CREATE FUNCTION f(mood, mood) RETURNS bool LANGUAGE sql AS 'INSERT INTO log VALUES (1) RETURNING true';
         CREATE OPERATOR = (leftarg = mood, rightarg = mood, function = f);
         CREATE VIEW v_case AS SELECT CASE m WHEN 'good' THEN 1 END FROM moods;
         CREATE VIEW v_null AS SELECT nullif(m, 'good') FROM moods;
         CREATE VIEW v_distinct AS SELECT m IS DISTINCT FROM 'good' FROM moods;
         CREATE VIEW v_using AS SELECT 1 FROM moods JOIN more USING (m);",
        "TABLE v_case; TABLE v_null; TABLE v_distinct; TABLE v_using",
    ),
    (
        "by_order",
        "CREATE TYPE mood AS ENUM ('good', 'bad'); CREATE TABLE log (n int); CREATE TABLE t (id int);
         CREATE TABLE moods (m mood); INSERT INTO moods VALUES ('good'), ('bad');
         CREATE FUNCTION f(mood, mood) RETURNS int LANGUAGE sql AS 'INSERT INTO log VALUES (1) RETURNING 1';
         CREATE FUNCTION lt(mood, mood) RETURNS bool IMMUTABLE LANGUAGE sql AS 'SELECT false';
         CREATE OPERATOR < (leftarg = mood, rightarg = mood, function = lt);
         CREATE OPERATOR = (leftarg = mood, rightarg = mood, function = lt);
         CREATE OPERATOR CLASS by_f DEFAULT FOR TYPE mood USING btree
             AS OPERATOR 1 <, OPERATOR 3 =, FUNCTION 1 f(mood, mood);",
        "SELECT m FROM moods ORDER BY m; SELECT greatest(m, m) FROM moods",
    ),
];

/// Statements that are nested far deeper than the fingerprint looks.
fn deep() -> [String; 2] {
    [
        format!("SELECT {}writes(){}", "(SELECT ".repeat(200), ")".repeat(200)),
        format!("SELECT {}writes()", "1 + ".repeat(300)),
    ]
}

#[tokio::test]
async fn what_may_write_is_never_called_read_only_and_what_becomes_so_is_withdrawn() {
    let ground = Ground::new();
    let (node, port) = primary(&ground).await;
    let client = connect(port, "postgres").await.unwrap();
    client.batch_execute(SETUP).await.unwrap();
    for sql in HOSTILE.iter().map(|sql| (*sql).to_owned()).chain(deep()) {
        client.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }
    for (database, setup, hostile) in TAINTED {
        client.batch_execute(&format!("CREATE DATABASE {database}")).await.unwrap();
        let client = connect(port, database).await.unwrap();
        client.batch_execute(setup).await.unwrap();
        client.batch_execute(hostile).await.unwrap();
        client.batch_execute("SELECT id FROM t WHERE id IN (1, 2)").await.unwrap();
    }
    for sql in HARMLESS {
        client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }
    // A statement that comes last is judged last.
    client.batch_execute("SELECT aid AS last FROM accounts WHERE balance = 1").await.unwrap();
    let last = hash("SELECT aid FROM accounts WHERE balance = 2");
    until_listed(&node, "postgres", "the last statement is there", |hashes| hashes.contains(&last)).await;

    let told: ReadonlyStatements = node.get("/sql/readonly").await.ok();
    let hashes = told.0.iter().find(|told| told.database == "postgres").unwrap();
    assert!(hashes.hashes.is_sorted() && hashes.postgresql >= 13, "{hashes:?}");
    for sql in HOSTILE.iter().map(|sql| (*sql).to_owned()).chain(deep()) {
        assert!(!hashes.hashes.contains(&hash(&sql)), "called read-only: {sql}");
    }
    for sql in HARMLESS {
        assert!(hashes.hashes.contains(&hash(sql)), "not called read-only: {sql}");
    }
    for told in told.0.iter().filter(|told| told.database != "postgres") {
        assert_eq!(told.hashes, [], "{}", told.database);
    }

    // A caller that has the current list learns that it is current, and can wait until it changes.
    let http = reqwest::Client::builder().no_proxy().timeout(WAIT_DEADLINE).build().unwrap();
    let first = http.get(node.url("/sql/readonly")).send().await.unwrap();
    let etag = first.headers()[ETAG].clone();
    let again = |path: &str| http.get(node.url(path)).header(IF_NONE_MATCH, etag.clone()).send();
    let unchanged = again("/sql/readonly").await.unwrap();
    assert_eq!((unchanged.status().as_u16(), unchanged.headers()[ETAG].clone()), (304, etag.clone()));
    assert_eq!(unchanged.bytes().await.unwrap().len(), 0);
    let waiting = tokio::spawn(again("/sql/readonly?wait=20s"));

    // A function that published statements call, one of them by way of another, is replaced by one that writes.
    let replaced = "CREATE OR REPLACE FUNCTION good_fn(a int) RETURNS int LANGUAGE sql AS 'SELECT writes()'";
    client.batch_execute(replaced).await.unwrap();
    let gone = ["SELECT good_fn(3)", "SELECT good_pl(3)"].map(hash);
    let kept = hash(HARMLESS[0]);
    until_listed(&node, "postgres", "withdrawn", |hashes| !gone.iter().any(|gone| hashes.contains(gone))).await;
    let changed = waiting.await.unwrap().unwrap();
    assert_eq!(changed.status().as_u16(), 200);
    assert_ne!(changed.headers()[ETAG], etag);
    until_listed(&node, "postgres", "the others stay", |hashes| hashes.contains(&kept)).await;
    let events: Vec<Event> = node.get("/events").await.ok();
    let told = |event: &&Event| event.kind == EventKind::ReadonlyStatementsChanged;
    let cause = &events.iter().rfind(told).unwrap().cause;
    assert!(cause.contains("2 statements withdrawn") && cause.contains("good_fn is volatile"), "{cause}");
    // What is only added is no event.
    assert_eq!(events.iter().filter(told).count(), 1, "{events:?}");

    // Without the extension there is nothing new, and that is said once.
    for database in TAINTED.map(|(database, ..)| database).into_iter().chain(["postgres"]) {
        let client = connect(port, database).await.unwrap();
        client.batch_execute("DROP EXTENSION pg_stat_statements").await.unwrap();
    }
    until("the missing extension is an event", WAIT_DEADLINE, async || {
        let events: Vec<Event> = node.get("/events").await.ok();
        holds(events.iter().any(|event| event.cause.contains("CREATE EXTENSION pg_stat_statements")), events)
    })
    .await;
}

/// The programs of a PostgreSQL without its contrib modules: a copy, since PostgreSQL looks for its files relative to its
/// own program.
fn without_contrib(directory: &Path) -> PathBuf {
    let installed = std::fs::read_dir("/usr/lib/postgresql").unwrap().flatten().map(|entry| entry.path());
    let installed = installed.filter(|path| path.join("bin/postgres").exists());
    let version = installed.max_by_key(|path| path.file_name().unwrap().to_str().unwrap().parse::<u32>().ok()).unwrap();
    let copy = |below: &str| directory.join(below).join(version.file_name().unwrap());
    for kind in ["bin", "lib"] {
        let to = copy("lib/postgresql").join(kind);
        std::fs::create_dir_all(&to).unwrap();
        for file in std::fs::read_dir(version.join(kind)).unwrap().flatten() {
            let (from, to) = (file.path(), to.join(file.file_name()));
            match kind {
                "bin" => drop(std::fs::copy(from, to).unwrap()),
                _ if file.file_name() == "pg_stat_statements.so" => {}
                _ => std::os::unix::fs::symlink(from, to).unwrap(),
            }
        }
    }
    std::fs::create_dir_all(directory.join("share/postgresql")).unwrap();
    let share = Path::new("/usr/share/postgresql").join(version.file_name().unwrap());
    std::os::unix::fs::symlink(share, copy("share/postgresql")).unwrap();
    copy("lib/postgresql").join("bin")
}

#[tokio::test]
async fn without_contrib_modules_a_cluster_is_created_and_the_reason_of_the_empty_list_told_once() {
    let ground = Ground::new();
    let data = ground.database("1");
    let programs = without_contrib(&Path::new(&data).parent().unwrap().with_file_name("postgresql"));
    let port = free_port();
    let database = ["--db-data-dir", &data, "--db-port", &port.to_string(), "--watchdog", "off"];
    let start = [&database[..], &["--db-bin-dir", programs.to_str().unwrap(), "bootstrap"]].concat();
    let mut node = ground.node("1", &start);
    let reasons = |events: Vec<Event>| {
        let told = events.into_iter().filter(|event| event.kind == EventKind::ReadonlyStatementsChanged);
        told.map(|event| event.cause).collect::<Vec<_>>()
    };
    let told = until("a reason is told", WAIT_DEADLINE, async || {
        let told = reasons(node.until_get("/events", 200).await.ok());
        if told.is_empty() { Err("no reason") } else { Ok(told) }
    })
    .await;
    assert!(matches!(&told[..], [told] if told.contains("shared_preload_libraries")), "{told:?}");
    assert_eq!(node.get("/sql/readonly").await.ok::<ReadonlyStatements>().0, []);
    // Nor when it leads again, and looks again.
    node.terminate().await;
    node.start(&start);
    let looked = "SELECT count(*) FROM pg_stat_activity WHERE pid <> pg_backend_pid()
                     AND query LIKE '%FROM pg_extension%' AND state = 'idle' AND NOT pg_is_in_recovery()";
    let sessions = async || connect(port, "postgres").await?.query_one(looked, &[]).await;
    until("it looks again", WAIT_DEADLINE, async || {
        let sessions = sessions().await.map(|row| row.get::<_, i64>(0));
        holds(matches!(sessions, Ok(1)), sessions)
    })
    .await;
    let term = node.until_get("/leader", 200).await.json::<serde_json::Value>()["term"].as_u64();
    assert!(term > Some(1), "{term:?}");
    let log = node.dir.join("log");
    let looked = || std::fs::read_to_string(&log).unwrap_or_default();
    assert!(looked().contains("the database is created without pg_stat_statements"), "{}", looked());
    assert_eq!(reasons(node.get("/events").await.ok()), told);
}
