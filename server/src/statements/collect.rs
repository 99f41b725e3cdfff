//! Reads what the judge needs of a database: by name, in one short transaction that only reads.

use std::collections::BTreeSet;

use tokio_postgres::{Row, Transaction};

use super::catalogue::{Body, Catalogue, Function, Implicit, Oid, Operator, Relation, schemas_of};
use super::facts::Facts;
use super::parse;
use super::{Asked, cell};

/// How deep views over views, and functions that call functions, are followed.
const REFERENCE_DEPTH_LIMIT: usize = 12;

/// Names the state of all that a judgement depends on. `xmin` changes with every change of a row, and is the same on
/// all nodes. Of `pg_class`, only the columns that matter here count: others change all the time.
const BASIS: &str = "
    SELECT md5(concat_ws(' ',
        (SELECT sum(hashint8extended(oid::bigint, xmin::text::bigint)) FROM pg_proc),
        (SELECT sum(hashint8extended(oid::bigint, xmin::text::bigint)) FROM pg_operator),
        (SELECT sum(hashint8extended(oid::bigint, xmin::text::bigint)) FROM pg_cast),
        (SELECT sum(hashint8extended(oid::bigint, xmin::text::bigint)) FROM pg_rewrite),
        (SELECT sum(hashint8extended(oid::bigint, xmin::text::bigint)) FROM pg_policy),
        (SELECT sum(hashint8extended(aggfnoid::oid::bigint, xmin::text::bigint)) FROM pg_aggregate
          WHERE aggfnoid::oid >= 16384),
        (SELECT sum(hashint8extended(inhrelid::bigint, xmin::text::bigint)) FROM pg_inherits),
        (SELECT sum(hashint8extended(oid::bigint, xmin::text::bigint)) FROM pg_constraint WHERE contype = 'c'),
        (SELECT sum(hashint8extended(amproc::oid::bigint, xmin::text::bigint)) FROM pg_amproc WHERE oid >= 16384),
        (SELECT sum(hashint8extended(amopopr::bigint, xmin::text::bigint)) FROM pg_amop WHERE oid >= 16384),
        (SELECT sum(hashtextextended(concat_ws(' ', indrelid, indexprs, indpred), 0)) FROM pg_index
          WHERE indexprs IS NOT NULL OR indpred IS NOT NULL),
        (SELECT sum(hashtextextended(partexprs::text, partrelid::bigint)) FROM pg_partitioned_table),
        (SELECT sum(hashint8extended(oid::bigint, xmin::text::bigint)) FROM pg_statistic_ext),
        (SELECT sum(hashtextextended(concat_ws(' ', oid, typnamespace, typname, typtype, typinput), 0)) FROM pg_type
          WHERE oid >= 16384 AND typtype = 'b' AND typelem = 0),
        (SELECT sum(hashtextextended(concat_ws(' ', oid, relnamespace, relname, relkind, relpersistence), 0))
           FROM pg_class WHERE relkind IN ('r', 'v', 'm', 'p', 'f', 'S') AND relpersistence <> 't'),
        (SELECT sum(hashtextextended(nspname, oid::bigint)) FROM pg_namespace WHERE nspname !~ '^pg_(toast_)?temp_'),
        (SELECT sum(hashtextextended(concat_ws(' ', setdatabase, setrole, setconfig), 0)) FROM pg_db_role_setting),
        (SELECT sum(hashtextextended(nspname, 0)) FROM pg_namespace JOIN pg_roles ON rolname = nspname)))";

const FUNCTIONS: &str = "
    SELECT p.oid, n.nspname::text, p.proname::text, p.provolatile = 'v', p.provolatile = 'i',
           p.pronargs > 0 AND p.pronargs - p.pronargdefaults <= 1, l.lanname::text,
           CASE l.lanname WHEN 'sql' THEN {body}
                          WHEN 'plpgsql' THEN CASE WHEN p.prokind = 'f' THEN pg_get_functiondef(p.oid) END END,
           {parsed},
           CASE WHEN a.aggfnoid IS NULL THEN '{}'
                ELSE array_remove(ARRAY[a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggserialfn, a.aggdeserialfn,
                                        a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn]::oid[], 0::oid) END,
           pg_get_expr(p.proargdefaults, 0),
           (SELECT setting FROM unnest(p.proconfig) setting WHERE setting ~ '^(transaction_|role=|session_auth)' LIMIT 1)
      FROM pg_proc p
      JOIN pg_namespace n ON n.oid = p.pronamespace
      JOIN pg_language l ON l.oid = p.prolang
      LEFT JOIN pg_aggregate a ON a.aggfnoid = p.oid AND p.oid >= 16384
     WHERE (p.proname = ANY ($1) OR p.oid = ANY ($2)) AND p.prokind <> 'p' AND n.nspname !~ '^pg_temp_'";

const OPERATORS: &str = "
    SELECT o.oprname::text, n.nspname::text, o.oprcode::oid
      FROM pg_operator o JOIN pg_namespace n ON n.oid = o.oprnamespace
     WHERE o.oprname = ANY ($1) AND o.oprcode <> 0 AND n.nspname !~ '^pg_temp_'";

const RELATIONS: &str = "
    SELECT c.relname::text, n.nspname::text, c.relkind::text, c.relpersistence::text,
           CASE c.relkind WHEN 'v' THEN pg_get_viewdef(c.oid) END,
           ARRAY(SELECT pg_get_expr(polqual, polrelid) FROM pg_policy
                  WHERE polrelid = c.oid AND polqual IS NOT NULL AND polcmd IN ('r', '*')),
           ARRAY(WITH RECURSIVE parts (oid) AS (
                     SELECT inhrelid FROM pg_inherits WHERE inhparent = c.oid
                     UNION SELECT inhrelid FROM pg_inherits, parts WHERE inhparent = parts.oid)
                 SELECT concat(part.relkind, part.relpersistence, part.relname)
                   FROM parts JOIN pg_class part USING (oid)
                  WHERE part.relkind = 'f' OR part.relpersistence <> 'p'),
           ARRAY(WITH RECURSIVE tree (oid) AS (
                     SELECT c.oid UNION SELECT inhrelid FROM pg_inherits, tree WHERE inhparent = tree.oid)
                 SELECT pg_get_expr(indexprs, indrelid) FROM tree JOIN pg_index ON indrelid = oid
                  WHERE indexprs IS NOT NULL
                 UNION SELECT pg_get_expr(indpred, indrelid) FROM tree JOIN pg_index ON indrelid = oid
                        WHERE indpred IS NOT NULL
                 UNION SELECT pg_get_expr(conbin, conrelid) FROM tree JOIN pg_constraint con ON conrelid = tree.oid
                        WHERE contype = 'c'
                 UNION SELECT pg_get_expr(partexprs, partrelid) FROM tree JOIN pg_partitioned_table ON partrelid = oid
                        WHERE partexprs IS NOT NULL
                 {statistics})
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relname = ANY ($1) AND c.relkind IN ('r', 'v', 'm', 'p', 'f', 'S') AND n.nspname !~ '^pg_temp_'";

/// Before 14, statistics have no expressions.
const STATISTICS: &str = "
    UNION SELECT pg_get_expr(stxexprs, stxrelid) FROM tree JOIN pg_statistic_ext s ON stxrelid = tree.oid
           WHERE stxexprs IS NOT NULL";

/// Functions of casts, of types' inputs and of operator classes, unless they are machine code that is not declared volatile.
const CALLED_BY_NO_NAME: &str = "
    SELECT format('the cast from %s to %s', format_type(c.castsource, NULL), format_type(c.casttarget, NULL)), p.oid
      FROM pg_cast c JOIN pg_proc p ON p.oid = c.castfunc JOIN pg_language l ON l.oid = p.prolang
     WHERE p.provolatile = 'v' OR l.lanname NOT IN ('internal', 'c')
    UNION ALL
    SELECT format('the type %s', format_type(t.oid, NULL)), p.oid
      FROM pg_type t JOIN pg_proc p ON p.oid IN (t.typinput, t.typmodin) JOIN pg_language l ON l.oid = p.prolang
     WHERE t.typtype IN ('b', 'r', 'm') AND (p.provolatile = 'v' OR l.lanname NOT IN ('internal', 'c'))
    UNION ALL
    SELECT format('the range type %s', format_type(r.rngtypid, NULL)), p.oid
      FROM pg_range r JOIN pg_proc p ON p.oid = r.rngcanonical JOIN pg_language l ON l.oid = p.prolang
     WHERE p.provolatile = 'v' OR l.lanname NOT IN ('internal', 'c')
    UNION ALL
    SELECT format('the operator family %s', f.opfname), p.oid
      FROM (SELECT amprocfamily, amproc FROM pg_amproc UNION
            SELECT amopfamily, oprcode FROM pg_amop JOIN pg_operator o ON o.oid = amopopr) m (family, function)
      JOIN pg_opfamily f ON f.oid = m.family
      JOIN pg_proc p ON p.oid = m.function JOIN pg_language l ON l.oid = p.prolang
     WHERE p.provolatile = 'v' OR l.lanname NOT IN ('internal', 'c')";

const CHECKS: &str = "
    SELECT format('the domain %s', format_type(contypid, NULL)), pg_get_expr(conbin, 0)
      FROM pg_constraint WHERE contypid <> 0 AND contype = 'c'";

/// The search paths that sessions begin with: the server's, and those set for the database or a role.
const SEARCH_PATHS: &str = "
    SELECT reset_val FROM pg_settings WHERE name = 'search_path'
    UNION
    SELECT substr(setting, 13) FROM pg_db_role_setting, unnest(setconfig) setting
     WHERE setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
       AND setting LIKE 'search_path=%'";

/// Roles whose own schema `$user` stands for. Of thousands of them, a part shows as well what depends on the role.
const USERS: &str = "SELECT nspname::text FROM pg_namespace JOIN pg_roles ON rolname = nspname ORDER BY 1 LIMIT 100";

/// Makes a transaction give up soon, and PostgreSQL write names in full.
pub(super) const LIMITS: &str = "SET LOCAL statement_timeout = '5s'; SET LOCAL lock_timeout = '100ms'; \
                                 SET LOCAL search_path = pg_catalog";

/// Names the state of the catalogue, as far as a judgement depends on it.
pub(super) async fn basis(client: &impl tokio_postgres::GenericClient) -> Asked<String> {
    cell(&client.query_one(BASIS, &[]).await?, 0)
}

/// Begins a catalogue with what no name leads to. Call it before [`LIMITS`] hides the search path.
pub(super) async fn begin(transaction: &Transaction<'_>) -> Asked<Catalogue> {
    let mut catalogue = Catalogue::default();
    let users: Vec<String> = column(&transaction.query(USERS, &[]).await?)?;
    for setting in column::<String>(&transaction.query(SEARCH_PATHS, &[]).await?)? {
        let path = schemas_of(&setting);
        // A user without a schema of its own, and each with one.
        catalogue.search_paths.insert(path.iter().filter(|schema| *schema != "$user").cloned().collect());
        if path.iter().any(|schema| schema == "$user") {
            let own = |user: &String| {
                let schema = |schema: &String| if schema == "$user" { user.clone() } else { schema.clone() };
                path.iter().map(schema).collect()
            };
            catalogue.search_paths.extend(users.iter().map(own));
        }
    }
    transaction.batch_execute(LIMITS).await?;
    for row in transaction.query(CALLED_BY_NO_NAME, &[]).await? {
        catalogue.implicit.push(Implicit::Function(cell(&row, 0)?, cell(&row, 1)?));
    }
    for row in transaction.query(CHECKS, &[]).await? {
        let check = parse::expression(cell(&row, 1)?);
        catalogue.implicit.push(Implicit::Check(cell(&row, 0)?, check));
    }
    Ok(catalogue)
}

/// What was read already, so that it is read once.
#[derive(Default)]
pub(super) struct Known {
    names: BTreeSet<String>,
    functions: BTreeSet<Oid>,
}

/// Reads what statements of these facts rest on, and what that rests on, into the catalogue.
pub(super) async fn extend(
    transaction: &Transaction<'_>,
    catalogue: &mut Catalogue,
    known: &mut Known,
    facts: impl Iterator<Item = &Facts>,
    version: u32,
) -> Asked<()> {
    let mut names: BTreeSet<String> = facts.flat_map(Facts::names).cloned().collect();
    for _ in 0..REFERENCE_DEPTH_LIMIT {
        names.extend(catalogue.facts().flat_map(Facts::names).cloned());
        let new: Vec<String> = names.difference(&known.names).cloned().collect();
        let called: Vec<Oid> =
            catalogue.called().collect::<BTreeSet<_>>().difference(&known.functions).copied().collect();
        if new.is_empty() && called.is_empty() {
            break;
        }
        functions(transaction, catalogue, &new, &called, version).await?;
        if !new.is_empty() {
            operators(transaction, catalogue, &new).await?;
            relations(transaction, catalogue, &new, version).await?;
        }
        known.names.extend(new);
        known.functions.extend(called);
        known.functions.extend(catalogue.functions.keys());
    }
    Ok(())
}

async fn functions(
    transaction: &Transaction<'_>,
    catalogue: &mut Catalogue,
    names: &[String],
    oids: &[Oid],
    version: u32,
) -> Asked<()> {
    let (body, parsed) = match version {
        14.. => ("coalesce(pg_get_function_sqlbody(p.oid), p.prosrc)", "p.prosqlbody IS NOT NULL"),
        _ => ("p.prosrc", "false"),
    };
    let sql = FUNCTIONS.replace("{body}", body).replace("{parsed}", parsed);
    for row in transaction.query(&sql, &[&names, &oids]).await? {
        let oid: Oid = cell(&row, 0)?;
        let (name, language): (String, String) = (cell(&row, 2)?, cell(&row, 6)?);
        let (text, parsed): (Option<String>, bool) = (cell(&row, 7)?, cell(&row, 8)?);
        let sets: Option<String> = cell(&row, 11)?;
        let body = match (language.as_str(), text) {
            _ if sets.is_some() => Body::Unknown(format!("it sets {}", sets.unwrap_or_default())),
            ("internal" | "c", _) => Body::Code,
            ("sql", Some(text)) if parsed => Body::Resolved(parse::body(&text)),
            ("sql", Some(text)) => Body::Text(parse::body(&text)),
            ("plpgsql", Some(text)) => Body::Text(parse::plpgsql(&text)),
            (other, _) => Body::Unknown(format!("what it does in {other} is not looked into")),
        };
        let defaults: Option<String> = cell(&row, 10)?;
        let function = Function {
            schema: cell(&row, 1)?,
            name: name.clone(),
            volatile: cell(&row, 3)?,
            immutable: cell(&row, 4)?,
            unary: cell(&row, 5)?,
            body,
            parts: cell(&row, 9)?,
            defaults: defaults.map(|text| parse::expression(&text)),
        };
        if catalogue.functions.insert(oid, function).is_none() {
            catalogue.functions_by_name.entry(name).or_default().push(oid);
        }
    }
    Ok(())
}

async fn operators(transaction: &Transaction<'_>, catalogue: &mut Catalogue, names: &[String]) -> Asked<()> {
    for row in transaction.query(OPERATORS, &[&names]).await? {
        let operator = Operator { schema: cell(&row, 1)?, function: cell(&row, 2)? };
        catalogue.operators.entry(cell(&row, 0)?).or_default().push(operator);
    }
    Ok(())
}

async fn relations(
    transaction: &Transaction<'_>,
    catalogue: &mut Catalogue,
    names: &[String],
    version: u32,
) -> Asked<()> {
    let sql = RELATIONS.replace("{statistics}", if version >= 14 { STATISTICS } else { "" });
    for row in transaction.query(&sql, &[&names]).await? {
        let view: Option<String> = cell(&row, 4)?;
        let policies: Vec<String> = cell(&row, 5)?;
        let view = view.map(|text| parse::statement(text.trim_end().trim_end_matches(';')));
        let (parts, planned): (Vec<String>, Vec<String>) = (cell(&row, 6)?, cell(&row, 7)?);
        let part = |text: &String| {
            let mut chars = text.chars();
            Some((chars.next()?, chars.next()?)).map(|(kind, persistence)| (chars.collect(), kind, persistence))
        };
        let relation = Relation {
            schema: cell(&row, 1)?,
            kind: first(cell(&row, 2)?),
            persistence: first(cell(&row, 3)?),
            rests_on: view.into_iter().chain(policies.iter().map(|policy| parse::expression(policy))).collect(),
            planned: planned.iter().map(|expression| parse::expression(expression)).collect(),
            parts: parts.iter().filter_map(part).collect(),
        };
        catalogue.relations.entry(cell(&row, 0)?).or_default().push(relation);
    }
    Ok(())
}

fn first(text: &str) -> char {
    text.chars().next().unwrap_or_default()
}

fn column<'a, T: tokio_postgres::types::FromSql<'a>>(rows: &'a [Row]) -> Asked<Vec<T>> {
    rows.iter().map(|row| cell(row, 0)).collect()
}
