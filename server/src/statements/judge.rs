//! Whether a statement may write: a pure function of what it rests on and of the catalogue.
//!
//! A session may have any search path, and the hash of a statement says nothing about it. So all that a name may stand
//! for must be safe, in every schema. If the search paths of the database's roles make a name stand for different
//! things, the statement is refused even if none of them writes: readers would not see the same.

use std::collections::{BTreeMap, BTreeSet};

use super::catalogue::{Body, Catalogue, Function, Implicit, Oid, Relation, found_in};
use super::facts::{Facts, Name};

/// Volatile functions of PostgreSQL or of an extension, in machine code, that write nothing.
const HARMLESS: [&str; 18] = [
    "array_sample",
    "array_shuffle",
    "clock_timestamp",
    "gen_random_bytes",
    "gen_random_uuid",
    "gen_salt",
    "pg_database_size",
    "pg_indexes_size",
    "pg_relation_size",
    "pg_table_size",
    "pg_total_relation_size",
    "random",
    "random_normal",
    "timeofday",
    "uuid_generate_v1",
    "uuid_generate_v4",
    "uuidv4",
    "uuidv7",
];

/// Functions that run text as SQL, change a session, write, need a transaction id or are refused by standbys, whatever
/// they are declared to be.
const HARMFUL: [&str; 17] = [
    "nextval",
    "setval",
    "set_config",
    "setseed",
    "txid_current",
    "pg_current_xact_id",
    "pg_export_snapshot",
    "pg_input_is_valid",
    "pg_input_error_info",
    "pg_notify",
    "pg_sequence_last_value",
    "pg_stat_file",
    "pg_walfile_name",
    "pg_walfile_name_offset",
    "ts_rewrite",
    "ts_stat",
    "xpath_table",
];

/// More of them, by the beginning of their names.
const HARMFUL_FAMILIES: [&str; 15] = [
    "connectby",
    "crosstab",
    "dblink",
    "lo_",
    "lowrite",
    "pg_advisory_",
    "pg_create_",
    "pg_drop_",
    "pg_logical_",
    "pg_ls_",
    "pg_read_",
    "pg_replication_",
    "pg_try_advisory_",
    "postgres_fdw_",
    "query_to_xml",
];

/// More of them, by the end of their names: they run the query or the cursor, or read the table, that a text names.
const HARMFUL_ENDS: [&str; 3] = ["_to_xml", "_to_xmlschema", "_to_xml_and_xmlschema"];

/// Judges statements by one catalogue.
pub(crate) struct Judge<'a> {
    catalogue: &'a Catalogue,
    /// The verdicts. An object that is being judged counts as safe, since it may call itself (`||` does).
    known: BTreeMap<Object, Verdict>,
    /// What was found safe for the statement that is being judged. It is certain only when the whole statement is safe,
    /// since it may rest on what only counts as safe.
    uncertain: Vec<Object>,
    implicit: Option<Verdict>,
}

/// Something that has a verdict.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Object {
    Function(Oid),
    /// By its name, and its place among those of that name.
    Relation(String, usize),
}

/// That something does not write; or why it may.
pub(crate) type Verdict = Result<(), String>;

/// How names without a schema are looked up.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lookup {
    /// By the search path of a session.
    Path,
    /// In `pg_catalog`: text that PostgreSQL wrote.
    Catalogue,
}

impl<'a> Judge<'a> {
    pub(crate) fn new(catalogue: &'a Catalogue) -> Self {
        Self { catalogue, known: BTreeMap::new(), uncertain: Vec::new(), implicit: None }
    }

    /// Whether a statement that rests on `facts` does not write.
    pub(crate) fn statement(&mut self, facts: &Facts) -> Verdict {
        self.whole(|judge| judge.facts(facts, Lookup::Path))?;
        if let Some(verdict) = &self.implicit {
            return verdict.clone();
        }
        let catalogue = self.catalogue;
        let verdict = self.whole(|judge| catalogue.implicit.iter().try_for_each(|implicit| judge.implicit(implicit)));
        self.implicit.insert(verdict).clone()
    }

    /// Looks at something as a whole: what is found safe on the way is only where all of it is.
    fn whole(&mut self, look: impl FnOnce(&mut Self) -> Verdict) -> Verdict {
        let verdict = look(self);
        for object in self.uncertain.drain(..) {
            if verdict.is_err() && self.known.get(&object).is_some_and(Result::is_ok) {
                self.known.remove(&object);
            }
        }
        verdict
    }

    /// The verdict on an object, by `look` if it is not known.
    fn once(&mut self, object: Object, look: impl FnOnce(&mut Self) -> Verdict) -> Verdict {
        if let Some(verdict) = self.known.get(&object) {
            return verdict.clone();
        }
        self.known.insert(object.clone(), Ok(()));
        self.uncertain.push(object.clone());
        let verdict = look(self);
        self.known.insert(object, verdict.clone());
        verdict
    }

    fn facts(&mut self, facts: &Facts, lookup: Lookup) -> Verdict {
        facts.functions.iter().try_for_each(|name| self.function(name, lookup))?;
        facts.relations.iter().try_for_each(|name| {
            let is_query = name.schema.is_none() && facts.queries.contains(&name.name);
            // If there is a table of this name as well, either may be meant.
            if is_query && !self.catalogue.relations.contains_key(&name.name) {
                return Ok(());
            }
            self.relation(name, lookup)
        })?;
        facts.operators.iter().try_for_each(|name| self.operator(name, lookup))?;
        facts
            .implied
            .iter()
            .try_for_each(|name| self.operator(&Name { schema: None, name: name.clone() }, Lookup::Path))?;
        facts.attributes.iter().try_for_each(|name| self.attribute(name))
    }

    fn function(&mut self, name: &Name, lookup: Lookup) -> Verdict {
        harmful(&name.name)?;
        let catalogue = self.catalogue;
        let known: Vec<_> =
            catalogue.functions(&name.name).filter(|(_, known)| fits(name, &known.schema, lookup)).collect();
        self.one_meaning(
            "function",
            name,
            lookup,
            known.iter().map(|(_, function)| function.schema.as_str()).collect(),
        )?;
        if known.is_empty() {
            // A type, which is cast to, or a temporary one: neither is looked up.
            return Err(format!("there is no permanent function {name}"));
        }
        known.into_iter().try_for_each(|(oid, function)| self.function_is_safe(oid, function))
    }

    fn operator(&mut self, name: &Name, lookup: Lookup) -> Verdict {
        let known = self.catalogue.operators.get(&name.name).into_iter().flatten();
        let known: Vec<_> = known.filter(|operator| fits(name, &operator.schema, lookup)).collect();
        if known.is_empty() {
            return Err(format!("there is no operator {name}"));
        }
        self.one_meaning("operator", name, lookup, known.iter().map(|operator| operator.schema.as_str()).collect())?;
        known.into_iter().try_for_each(|operator| self.called(operator.function))
    }

    /// `a.b` is a column, or a call of the function `b` with the row `a`: the hash does not tell.
    fn attribute(&mut self, name: &str) -> Verdict {
        let catalogue = self.catalogue;
        let unary = catalogue.functions(name).filter(|(_, function)| function.unary);
        unary.into_iter().try_for_each(|(oid, function)| self.function_is_safe(oid, function))
    }

    fn relation(&mut self, name: &Name, lookup: Lookup) -> Verdict {
        let catalogue = self.catalogue;
        let known = catalogue.relations.get(&name.name).into_iter().flatten().enumerate();
        let known: Vec<_> = known.filter(|(_, relation)| fits(name, &relation.schema, lookup)).collect();
        if known.is_empty() {
            return Err(format!("there is no permanent table or view {name}"));
        }
        self.one_meaning("table", name, lookup, known.iter().map(|(_, relation)| relation.schema.as_str()).collect())?;
        known.into_iter().try_for_each(|(index, relation)| {
            let object = Object::Relation(name.name.clone(), index);
            self.once(object, |judge| judge.relation_is_safe(&name.name, relation))
        })
    }

    fn relation_is_safe(&mut self, name: &str, relation: &Relation) -> Verdict {
        let full = format!("{}.{name}", relation.schema);
        let stored = |name: &str, kind, persistence| match (kind, persistence) {
            ('f', _) => Err(format!("{name} is a foreign table")),
            (_, 'p') => Ok(()),
            (_, 'u') => Err(format!("{name} is not logged, so standbys do not have it")),
            _ => Err(format!("{name} is temporary")),
        };
        stored(&full, relation.kind, relation.persistence)?;
        relation.parts.iter().try_for_each(|(part, kind, persistence)| stored(part, *kind, *persistence))?;
        relation.rests_on.iter().try_for_each(|facts| {
            let verdict = match facts {
                Ok(facts) => self.facts(facts, Lookup::Catalogue),
                Err(reason) => Err(reason.clone()),
            };
            verdict.map_err(|reason| format!("{full}: {reason}"))
        })?;
        let planned = relation.planned.iter().try_for_each(|facts| match facts {
            Ok(facts) => self.planned(facts),
            Err(reason) => Err(reason.clone()),
        });
        planned.map_err(|reason| format!("{full}: {reason}"))
    }

    /// What the planner may call of an expression that is not evaluated.
    fn planned(&mut self, facts: &Facts) -> Verdict {
        let catalogue = self.catalogue;
        let functions = facts.functions.iter().flat_map(|name| {
            catalogue.functions(&name.name).filter(|(_, known)| fits(name, &known.schema, Lookup::Catalogue))
        });
        let written = facts.operators.iter().flat_map(|name| {
            let known = catalogue.operators.get(&name.name).into_iter().flatten();
            known.filter(|operator| fits(name, &operator.schema, Lookup::Catalogue))
        });
        let implied = facts.implied.iter().flat_map(|name| catalogue.operators.get(name).into_iter().flatten());
        let called = functions.map(|(oid, _)| oid).chain(written.chain(implied).map(|operator| operator.function));
        called.into_iter().try_for_each(|oid| match catalogue.functions.get(&oid) {
            Some(function) if !function.immutable => Ok(()),
            _ => self.called(oid),
        })
    }

    fn called(&mut self, oid: Oid) -> Verdict {
        match self.catalogue.functions.get(&oid) {
            Some(function) => self.function_is_safe(oid, function),
            None => Err(format!("function {oid} is not known")),
        }
    }

    fn function_is_safe(&mut self, oid: Oid, function: &Function) -> Verdict {
        self.once(Object::Function(oid), |judge| judge.look_at(function))
    }

    fn look_at(&mut self, function: &Function) -> Verdict {
        let Function { schema, name, .. } = function;
        harmful(name)?;
        if function.volatile {
            let harmless = HARMLESS.contains(&name.as_str()) && matches!(function.body, Body::Code);
            return if harmless { Ok(()) } else { Err(format!("function {schema}.{name} is volatile")) };
        }
        let verdict = match &function.body {
            Body::Code => Ok(()),
            Body::Text(Ok(facts)) => self.facts(facts, Lookup::Path),
            Body::Resolved(Ok(facts)) => self.facts(facts, Lookup::Catalogue),
            Body::Text(Err(reason)) | Body::Resolved(Err(reason)) | Body::Unknown(reason) => Err(reason.clone()),
        };
        let defaults = match &function.defaults {
            Some(Ok(facts)) => self.facts(facts, Lookup::Catalogue),
            Some(Err(reason)) => Err(reason.clone()),
            None => Ok(()),
        };
        verdict.and(defaults).map_err(|reason| format!("function {schema}.{name}: {reason}"))?;
        function
            .parts
            .iter()
            .try_for_each(|&part| self.called(part).map_err(|reason| format!("aggregate {schema}.{name}: {reason}")))
    }

    fn implicit(&mut self, implicit: &Implicit) -> Verdict {
        let (what, verdict) = match implicit {
            Implicit::Function(what, oid) => (what, self.called(*oid)),
            Implicit::Check(what, Ok(facts)) => (what, self.facts(facts, Lookup::Catalogue)),
            Implicit::Check(what, Err(reason)) => (what, Err(reason.clone())),
        };
        verdict.map_err(|reason| format!("no statement says whether it calls {what}, which is not safe: {reason}"))
    }

    /// Whether the name stands for the same in all search paths that sessions begin with, if it is known at all.
    fn one_meaning(&self, what: &str, name: &Name, lookup: Lookup, schemas: BTreeSet<&str>) -> Verdict {
        if lookup == Lookup::Catalogue || name.schema.is_some() || schemas.len() < 2 {
            return Ok(());
        }
        let meanings = self.catalogue.search_paths.iter().map(|path| {
            let mut found = found_in(path, &schemas);
            if what == "table" {
                // The first hides the others.
                found.truncate(1);
            }
            found
        });
        let meanings: BTreeSet<_> = meanings.filter(|found| !found.is_empty()).collect();
        match meanings.len() {
            0 | 1 => Ok(()),
            _ => Err(format!("the search path decides which {what} {name} is")),
        }
    }
}

fn fits(name: &Name, schema: &str, lookup: Lookup) -> bool {
    match (&name.schema, lookup) {
        (Some(wanted), _) => wanted == schema,
        (None, Lookup::Path) => true,
        (None, Lookup::Catalogue) => schema == "pg_catalog",
    }
}

fn harmful(name: &str) -> Verdict {
    let known = HARMFUL.contains(&name)
        || HARMFUL_FAMILIES.iter().any(|family| name.starts_with(family))
        || HARMFUL_ENDS.iter().any(|end| name.ends_with(end));
    if known { Err(format!("function {name} is on the list of those that write or run text")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::super::catalogue::Operator;
    use super::super::parse;
    use super::*;

    fn function(schema: &str, name: &str, volatile: bool, body: Body) -> Function {
        let (schema, name) = (schema.to_owned(), name.to_owned());
        Function { immutable: !volatile, schema, name, volatile, unary: true, body, defaults: None, parts: Vec::new() }
    }

    fn table(schema: &str) -> Relation {
        Relation {
            schema: schema.into(),
            kind: 'r',
            persistence: 'p',
            rests_on: Vec::new(),
            planned: Vec::new(),
            parts: Vec::new(),
        }
    }

    fn text(sql: &str) -> Body {
        Body::Text(parse::body(sql))
    }

    fn catalogue() -> Catalogue {
        let mut catalogue = Catalogue::default();
        let functions = [
            function("pg_catalog", "lower", false, Body::Code),
            function("pg_catalog", "random", true, Body::Code),
            function("pg_catalog", "int4eq", false, Body::Code),
            function("public", "writes", true, text("INSERT INTO t VALUES (1)")),
            function("public", "even", false, text("SELECT odd(1)")),
            function("public", "odd", false, text("SELECT even(1)")),
            function("public", "bad_even", false, text("SELECT bad_odd(1)")),
            function("public", "bad_odd", false, text("SELECT bad_even(1), writes()")),
            function("public", "mixed", false, Body::Code),
            function("other", "mixed", false, Body::Code),
            function("public", "foreign", false, Body::Unknown("what it does in plperlu is not looked into".into())),
            Function {
                defaults: Some(parse::expression("public.writes()")),
                ..function("public", "lax", false, Body::Code)
            },
            Function { parts: vec![1003], ..function("public", "total", false, Body::Code) },
        ];
        for (oid, function) in (1000..).zip(functions) {
            catalogue.functions_by_name.entry(function.name.clone()).or_default().push(oid);
            catalogue.functions.insert(oid, function);
        }
        catalogue.operators.insert("=".into(), vec![Operator { schema: "pg_catalog".into(), function: 1002 }]);
        catalogue.relations.insert("t".into(), vec![table("public")]);
        catalogue.relations.insert("two".into(), vec![table("public"), table("other")]);
        let view =
            Relation { kind: 'v', rests_on: vec![parse::statement("SELECT public.writes()")], ..table("public") };
        catalogue.relations.insert("v".into(), vec![view]);
        let parted = Relation { kind: 'p', parts: vec![("part".into(), 'f', 'p')], ..table("public") };
        catalogue.relations.insert("parted".into(), vec![parted]);
        let path = |schemas: &[&str]| schemas.iter().map(|&schema| schema.to_owned()).collect();
        catalogue.search_paths = BTreeSet::from([path(&["public"]), path(&["other", "public"])]);
        catalogue
    }

    #[test]
    fn a_statement_is_safe_where_all_that_it_rests_on_is() {
        let catalogue = catalogue();
        for (sql, expected) in [
            ("SELECT lower(a), random() FROM t WHERE a IN (1)", None),
            ("SELECT even(1)", None),
            ("SELECT other.mixed(1), public.mixed(2)", None),
            ("SELECT a FROM public.two", None),
            ("WITH w AS (SELECT 1) SELECT * FROM w", None),
            ("SELECT writes()", Some("public.writes is volatile")),
            ("SELECT bad_odd(1)", Some("public.writes is volatile")),
            ("SELECT even(1), bad_even(1)", Some("public.writes is volatile")),
            ("SELECT t.writes FROM t", Some("public.writes is volatile")),
            ("SELECT lax(1)", Some("lax: function public.writes is volatile")),
            ("SELECT total(1)", Some("aggregate public.total: function public.writes")),
            ("SELECT \"foreign\"(1)", Some("plperlu")),
            ("SELECT mixed(1)", Some("the search path decides which function mixed is")),
            ("SELECT a FROM two", Some("the search path decides which table two is")),
            ("SELECT * FROM v", Some("public.v: function public.writes is volatile")),
            ("WITH v AS (SELECT 1) SELECT * FROM v", Some("public.v")),
            ("SELECT * FROM parted", Some("part is a foreign table")),
            ("SELECT * FROM gone", Some("there is no permanent table or view gone")),
            ("SELECT gone()", Some("there is no permanent function gone")),
            ("SELECT 1 @@ 2", Some("there is no operator @@")),
            ("SELECT set_config('a', 'b', false)", Some("on the list")),
            ("SELECT dblink_exec('x')", Some("on the list")),
            ("SELECT schema_to_xml('x', true, true, '')", Some("on the list")),
        ] {
            // Whatever was judged before.
            let mut judge = Judge::new(&catalogue);
            for _ in 0..2 {
                let verdict = judge.statement(&parse::statement(sql).unwrap());
                match (verdict, expected) {
                    (Ok(()), None) => {}
                    (Err(reason), Some(expected)) => assert!(reason.contains(expected), "{sql}: {reason}"),
                    (verdict, _) => panic!("{sql}: {verdict:?}"),
                }
                let _ = judge.statement(&parse::statement("SELECT bad_even(1)").unwrap());
            }
        }
    }

    #[test]
    fn what_any_constant_may_call_must_be_safe() {
        let mut catalogue = catalogue();
        let plain = parse::statement("SELECT a FROM t WHERE a = 1").unwrap();
        catalogue.implicit = vec![Implicit::Check("the domain d".into(), parse::expression("VALUE > 0"))];
        // `>` is not there.
        let reason = Judge::new(&catalogue).statement(&plain).unwrap_err();
        assert!(reason.contains("the domain d, which is not safe: there is no operator >"), "{reason}");
        catalogue.implicit = vec![Implicit::Function("the cast from a to b".into(), 1003)];
        let reason = Judge::new(&catalogue).statement(&plain).unwrap_err();
        assert!(reason.contains("the cast from a to b, which is not safe"), "{reason}");
        catalogue.implicit = vec![Implicit::Function("the cast from a to b".into(), 1000)];
        assert_eq!(Judge::new(&catalogue).statement(&plain), Ok(()));
    }
}
