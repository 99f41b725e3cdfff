//! SQL to facts, by PostgreSQL's own parser.

use pg_query::protobuf::{ScanToken, Token};
use pg_query::{FingerprintOptions, ParserOptions};
use qluster_consensus::model::StatementHash;
use serde_json::Value;

use super::facts::Facts;

/// Longer statements are refused. As a rule they are lists of values, and parsing them takes memory.
pub(super) const STATEMENT_LIMIT_BYTES: usize = 64 << 10;

/// Statements of PL/pgSQL that do no more than their expressions do. `EXECUTE` is not one of them.
const PLPGSQL: [&str; 15] = [
    "block",
    "assign",
    "if",
    "case",
    "loop",
    "while",
    "fori",
    "fors",
    "foreach_a",
    "exit",
    "return",
    "return_next",
    "return_query",
    "raise",
    "perform",
];

/// The hash of a statement, as [`DatabaseStatements`](qluster_consensus::model::DatabaseStatements) describes it. By
/// default libpg_query leaves out a table's name if it has an alias, its schema, and digits of its name: statements
/// over different tables would share a hash.
pub(crate) fn hash(sql: &str) -> Option<StatementHash> {
    let options = FingerprintOptions::RANGEVAR_PG17_COMPAT | FingerprintOptions::FULL_RELNAME;
    pg_query::fingerprint(sql, ParserOptions::DEFAULT, options).ok().map(|found| StatementHash(found.value))
}

/// What a statement rests on, or why it may write.
pub(crate) fn statement(sql: &str) -> Result<Facts, String> {
    Facts::of_statement(&tree(sql, ParserOptions::DEFAULT)?)
}

/// What the body of a function in SQL rests on: statements, or what `pg_get_function_sqlbody` makes of a body that is
/// kept parsed.
pub(crate) fn body(sql: &str) -> Result<Facts, String> {
    let text = sql.trim();
    if let Some(statements) = text.strip_prefix("BEGIN ATOMIC").and_then(|text| text.strip_suffix("END")) {
        return Facts::of_statements(&tree(statements, ParserOptions::DEFAULT)?);
    }
    match text.strip_prefix("RETURN ") {
        Some(expression) => self::expression(expression),
        None => Facts::of_statements(&tree(text, ParserOptions::DEFAULT)?),
    }
}

/// What an expression rests on.
pub(crate) fn expression(sql: &str) -> Result<Facts, String> {
    statement(&format!("SELECT ({sql})"))
}

/// What a function in PL/pgSQL rests on, by the statement that creates it.
pub(crate) fn plpgsql(definition: &str) -> Result<Facts, String> {
    if definition.len() > STATEMENT_LIMIT_BYTES {
        return Err("it is too long".into());
    }
    let tree = pg_query::parse_plpgsql(definition).map_err(|error| not_understood(&error))?;
    let mut facts = Facts::default();
    walk_plpgsql(&tree, &mut facts)?;
    for expression in initial_values(definition)? {
        facts.merge(self::expression(&expression)?);
    }
    Ok(facts)
}

/// The initial values of a PL/pgSQL function's variables. libpg_query's tree lacks those of a composite type.
fn initial_values(definition: &str) -> Result<Vec<String>, String> {
    let tokens = |sql| pg_query::scan(sql).map(|scanned| scanned.tokens).map_err(|error| not_understood(&error));
    let part = |text: &str, start: i32, end: i32| {
        let (start, end) = (usize::try_from(start).ok()?, usize::try_from(end).ok()?);
        text.get(start..end).map(str::to_owned)
    };
    let odd = || "its text is odd".to_owned();
    // The body comes last, between dollar quotes.
    let quoted = tokens(definition)?.into_iter().rfind(|token| token.token() == Token::Sconst);
    let quoted = quoted.and_then(|token| part(definition, token.start, token.end)).ok_or_else(odd)?;
    let body = quoted
        .strip_prefix('$')
        .and_then(|rest| rest.split_once('$'))
        .and_then(|(tag, rest)| rest.strip_suffix('$')?.strip_suffix(tag)?.strip_suffix('$'));
    let body = body.ok_or_else(odd)?;
    let mut tokens = tokens(body)?;
    tokens.retain(|token| !matches!(token.token(), Token::SqlComment | Token::CComment));
    let mut expressions = Vec::new();
    for (index, _) in tokens.iter().enumerate().filter(|(_, token)| token.token() == Token::Declare) {
        for declaration in tokens[index + 1..].split(|token| token.token() == Token::Ascii59) {
            if declaration.first().is_none_or(|first| first.token() == Token::BeginP) {
                break;
            }
            let begins =
                |token: &&ScanToken| matches!(token.token(), Token::ColonEquals | Token::Ascii61 | Token::Default);
            if let (Some(sign), Some(last)) = (declaration.iter().find(begins), declaration.last()) {
                expressions.push(part(body, sign.end, last.end).ok_or_else(odd)?);
            }
        }
    }
    Ok(expressions)
}

fn walk_plpgsql(value: &Value, facts: &mut Facts) -> Result<(), String> {
    match value {
        Value::Array(items) => items.iter().try_for_each(|item| walk_plpgsql(item, facts)),
        Value::Object(fields) => fields.iter().try_for_each(|(key, value)| {
            if let Some(kind) = key.strip_prefix("PLpgSQL_stmt_")
                && !PLPGSQL.contains(&kind)
                && !matches!(kind, "assert" | "execsql" | "getdiag")
            {
                return Err(format!("its {kind} may run anything"));
            }
            if key == "dynquery" {
                return Err("it runs text as a query".into());
            }
            if key == "PLpgSQL_expr" {
                facts.merge(plpgsql_expression(value)?);
                return Ok(());
            }
            walk_plpgsql(value, facts)
        }),
        _ => Ok(()),
    }
}

fn plpgsql_expression(value: &Value) -> Result<Facts, String> {
    let query = value.get("query").and_then(Value::as_str).unwrap_or_default();
    let mode = value.get("parseMode").and_then(Value::as_i64).unwrap_or_default();
    match mode {
        0 => statement(query),
        2 => expression(query),
        // `target := expression`; a target such as `a[f(x)]` is refused.
        3..=5 => {
            let (target, assigned) = query.split_once('=').ok_or("an odd assignment")?;
            if target.contains(['(', '[']) {
                return Err("it assigns to a part of a value".into());
            }
            expression(assigned)
        }
        _ => Err("an odd expression".into()),
    }
}

fn tree(sql: &str, options: ParserOptions) -> Result<Value, String> {
    if sql.len() > STATEMENT_LIMIT_BYTES {
        return Err("it is too long".into());
    }
    let parsed = pg_query::parse(sql, options).map_err(|error| not_understood(&error))?;
    serde_json::to_value(&parsed.protobuf).map_err(|error| not_understood(&error))
}

/// An error may repeat the statement.
fn not_understood(error: &dyn std::error::Error) -> String {
    format!("it is not understood: {:.200}", error.to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::facts::Name;
    use super::*;

    fn names(names: &std::collections::BTreeSet<Name>) -> Vec<String> {
        let text =
            |name: &Name| name.schema.as_ref().map_or(name.name.clone(), |schema| format!("{schema}.{}", name.name));
        names.iter().map(text).collect()
    }

    #[test]
    fn a_query_rests_on_its_tables_functions_and_operators() {
        let facts = statement(
            "WITH w AS (SELECT a FROM s.t) SELECT u.touch, lower(b), pg_catalog.upper(c) FROM w JOIN x u USING (a) \
             WHERE a BETWEEN 1 AND 2 AND b OPERATOR(s.@@) 'x' AND (c).d IS NULL ORDER BY a USING <",
        )
        .unwrap();
        assert_eq!(names(&facts.relations), ["w", "x", "s.t"]);
        assert_eq!(names(&facts.functions), ["lower", "pg_catalog.upper"]);
        assert_eq!(names(&facts.operators), ["<", "s.@@"]);
        assert_eq!(facts.implied.iter().collect::<Vec<_>>(), ["<", "<=", "=", ">", ">="]);
        assert_eq!(facts.queries.iter().collect::<Vec<_>>(), ["w"]);
        assert_eq!(facts.attributes.iter().collect::<Vec<_>>(), ["d", "touch"]);
        for plain in ["TABLE t", "VALUES (1), ($1)", "SHOW search_path", "SELECT a[1:$2] FROM t TABLESAMPLE system (1)"]
        {
            assert!(statement(plain).is_ok(), "{plain}: {:?}", statement(plain));
        }
    }

    #[test]
    fn what_is_called_without_a_name_is_found() {
        for (sql, expected) in [
            ("SELECT 1 WHERE a IN (1, 2)", "="),
            ("SELECT 1 WHERE a NOT IN (1, 2)", "<>"),
            ("SELECT 1 WHERE a IN (SELECT 1)", "="),
            ("SELECT CASE a WHEN 1 THEN 2 END", "="),
            ("SELECT nullif(a, b)", "="),
            ("SELECT a IS DISTINCT FROM b", "="),
            ("SELECT 1 FROM t NATURAL JOIN u", "="),
            ("SELECT a LIKE 'x'", "~~"),
            ("SELECT a NOT BETWEEN SYMMETRIC 1 AND 2", "<"),
        ] {
            let found = statement(sql).unwrap().implied;
            assert!(found.contains(expected), "{sql}: {found:?}");
        }
    }

    #[test]
    fn whatever_may_write_is_refused() {
        for (sql, expected) in [
            ("INSERT INTO t VALUES (1)", "InsertStmt"),
            ("SELECT 1; SELECT 2", "not one statement"),
            ("", "not one statement"),
            ("SELECT 1 FROM t FOR UPDATE", "locks"),
            ("SELECT 1 FROM (SELECT 1 FROM t FOR KEY SHARE) x", "locks"),
            ("SELECT 1 INTO t", "creates a table"),
            ("CREATE TABLE t AS SELECT 1", "CreateTableAsStmt"),
            ("WITH w AS (DELETE FROM t RETURNING a) SELECT 1 FROM w", "DeleteStmt"),
            ("EXPLAIN ANALYZE SELECT 1", "ExplainStmt"),
            ("DO $$ BEGIN END $$", "DoStmt"),
            ("CALL p()", "CallStmt"),
            ("DECLARE c CURSOR FOR SELECT 1", "DeclareCursorStmt"),
            ("COPY (SELECT 1) TO STDOUT", "CopyStmt"),
            ("EXECUTE p", "ExecuteStmt"),
            ("SELECT \"xStringstry\"", "ambiguous"),
            ("SELECT * FROM t TABLESAMPLE mine (1)", "TABLESAMPLE"),
            ("SELECT FROM FROM", "not understood"),
        ] {
            let refused = statement(sql).unwrap_err();
            assert!(refused.contains(expected), "{sql}: {refused}");
        }
        let deep = format!("SELECT {}1{}", "(SELECT ".repeat(200), ")".repeat(200));
        assert!(statement(&deep).is_err());
        let long = format!("SELECT 1 WHERE a IN ({})", vec!["1"; 40_000].join(","));
        assert_eq!(statement(&long).unwrap_err(), "it is too long");
    }

    #[test]
    fn statements_over_other_tables_have_other_hashes() {
        assert_eq!(hash("SELECT 1").map(|hash| hash.to_string()).as_deref(), Some("50fde20626009aba"));
        assert_eq!(
            hash("select a from t where b in (1,2) limit 3"),
            hash("SELECT a FROM t x WHERE b IN ($1) LIMIT $2")
        );
        for (one, other) in [
            ("SELECT * FROM t x", "SELECT * FROM u x"),
            ("SELECT * FROM s.t", "SELECT * FROM t"),
            ("SELECT * FROM t_2024", "SELECT * FROM t_2025"),
        ] {
            assert_ne!(hash(one), hash(other), "{one} {other}");
        }
        assert_eq!(hash("SELECT FROM FROM"), None);
    }

    #[test]
    fn bodies_of_functions_are_read() {
        let sql = body("SELECT f(1); SELECT g(2)").unwrap();
        assert_eq!(names(&sql.functions), ["f", "g"]);
        assert_eq!(names(&body("BEGIN ATOMIC\n SELECT s.f(1);\nEND").unwrap().functions), ["s.f"]);
        assert_eq!(names(&body("RETURN s.f(1)").unwrap().functions), ["s.f"]);
        assert!(body("SELECT 1; DELETE FROM t").is_err());

        let function = |body: &str| {
            plpgsql(&format!("CREATE FUNCTION f(a int) RETURNS int STABLE LANGUAGE plpgsql AS $_$ {body} $_$"))
        };
        let found = function(
            "DECLARE x int := d(a); r record; BEGIN x := e(x); PERFORM p(x); FOR r IN SELECT l(b) FROM t LOOP \
             IF i(x) THEN RETURN z(x); END IF; END LOOP; RETURN 1; END",
        );
        let found = found.unwrap();
        assert_eq!(names(&found.functions), ["d", "e", "i", "l", "p", "z"]);
        assert_eq!(names(&found.relations), ["t"]);
        let found = function(
            "<<a>> DECLARE /* ; */ r t := ROW(c(), 'x')::t; q CONSTANT t NOT NULL DEFAULT d(';'); DECLARE s t = e(\"r;\"); \
             -- BEGIN\n BEGIN DECLARE u t := f(); BEGIN RETURN g(u); END; END",
        );
        assert_eq!(names(&found.unwrap().functions), ["c", "d", "e", "f", "g"]);
        for odd in [
            "BEGIN EXECUTE 'SELECT 1'; RETURN 1; END",
            "BEGIN INSERT INTO t VALUES (1); RETURN 1; END",
            "BEGIN RETURN QUERY EXECUTE 'SELECT 1'; END",
            "BEGIN CALL p(); RETURN 1; END",
            "BEGIN odd",
        ] {
            assert!(function(odd).is_err(), "{odd}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_text_is_refused_or_read_without_a_panic(text in "(\\PC|SELECT |FROM |WITH |\\(|\\)|\\$1){0,40}") {
            let _ = statement(&text);
            let _ = plpgsql(&text);
            let _ = hash(&text);
        }
    }
}
