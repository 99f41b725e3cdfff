//! What the judge knows of a database: the objects that statements name, and what those rest on. Texts are kept as
//! facts, so that the judge parses nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::facts::{Facts, Name};

/// Identifies an object of a database.
pub(crate) type Oid = u32;

/// What is known of a database.
#[derive(Clone, Debug, Default)]
pub(crate) struct Catalogue {
    pub(crate) functions: BTreeMap<Oid, Function>,
    pub(crate) functions_by_name: BTreeMap<String, Vec<Oid>>,
    pub(crate) operators: BTreeMap<String, Vec<Operator>>,
    pub(crate) relations: BTreeMap<String, Vec<Relation>>,
    /// The search paths that sessions may begin with: schemas, in their order.
    pub(crate) search_paths: BTreeSet<Vec<String>>,
    /// What any statement may call without its name: see [`Implicit`].
    pub(crate) implicit: Vec<Implicit>,
}

/// A function.
#[derive(Clone, Debug)]
pub(crate) struct Function {
    pub(crate) schema: String,
    pub(crate) name: String,
    /// Whether it is declared volatile.
    pub(crate) volatile: bool,
    /// Whether it is declared immutable, so that it may be called while a statement is planned.
    pub(crate) immutable: bool,
    /// Whether it can be called with one argument.
    pub(crate) unary: bool,
    pub(crate) body: Body,
    /// The defaults of its arguments, names resolved.
    pub(crate) defaults: Option<Result<Facts, String>>,
    /// The functions that an aggregate consists of.
    pub(crate) parts: Vec<Oid>,
}

/// What a function does.
#[derive(Clone, Debug)]
pub(crate) enum Body {
    /// Machine code: what it is declared to be.
    Code,
    /// These facts, with unqualified names looked up in the search path of whoever calls; or why they are not known.
    Text(Result<Facts, String>),
    /// The same, with unqualified names in `pg_catalog`.
    Resolved(Result<Facts, String>),
    /// A body that is not read; why not.
    Unknown(String),
}

/// An operator.
#[derive(Clone, Debug)]
pub(crate) struct Operator {
    pub(crate) schema: String,
    pub(crate) function: Oid,
}

/// A table, view or the like.
#[derive(Clone, Debug)]
pub(crate) struct Relation {
    pub(crate) schema: String,
    /// As `pg_class.relkind` has it.
    pub(crate) kind: char,
    /// As `pg_class.relpersistence` has it.
    pub(crate) persistence: char,
    /// What a view and the row policies rest on, names resolved.
    pub(crate) rests_on: Vec<Result<Facts, String>>,
    /// Expressions of its indexes, checks, partition keys and statistics, and of those of its parts. They are not
    /// evaluated; but the planner calls the immutable functions in them whose arguments are constants.
    pub(crate) planned: Vec<Result<Facts, String>>,
    /// Partitions and tables that inherit, at any depth: name, kind and persistence.
    pub(crate) parts: Vec<(String, char, char)>,
}

/// What is called although nothing names it: by `ORDER BY` and the like, or by a cast. The fingerprint leaves out the
/// type of a constant that is cast. So any statement with a constant may have the hash of a statement that casts it to
/// any type, and what casts call must be safe for all.
#[derive(Clone, Debug)]
pub(crate) enum Implicit {
    /// The function of a cast, of a type's input, or of an operator class.
    Function(String, Oid),
    /// The check of a domain.
    Check(String, Result<Facts, String>),
}

impl Catalogue {
    /// The functions of a name, in all schemas.
    pub(super) fn functions(&self, name: &str) -> impl Iterator<Item = (Oid, &Function)> {
        let oids = self.functions_by_name.get(name).into_iter().flatten();
        oids.filter_map(|oid| Some((*oid, self.functions.get(oid)?)))
    }

    /// All facts in it.
    pub(super) fn facts(&self) -> impl Iterator<Item = &Facts> {
        let bodies = self.functions.values().filter_map(|function| match &function.body {
            Body::Text(facts) | Body::Resolved(facts) => facts.as_ref().ok(),
            Body::Code | Body::Unknown(_) => None,
        });
        let relations =
            self.relations.values().flatten().flat_map(|relation| relation.rests_on.iter().chain(&relation.planned));
        let checks = self.implicit.iter().filter_map(|implicit| match implicit {
            Implicit::Check(_, facts) => Some(facts),
            Implicit::Function(..) => None,
        });
        let defaults = self.functions.values().filter_map(|function| function.defaults.as_ref());
        bodies.chain(relations.chain(checks).chain(defaults).filter_map(|facts| facts.as_ref().ok()))
    }

    /// The functions that are called without their names.
    pub(super) fn called(&self) -> impl Iterator<Item = Oid> {
        let parts = self.functions.values().flat_map(|function| function.parts.iter().copied());
        let operators = self.operators.values().flatten().map(|operator| operator.function);
        let implicit = self.implicit.iter().filter_map(|implicit| match implicit {
            Implicit::Function(_, oid) => Some(*oid),
            Implicit::Check(..) => None,
        });
        parts.chain(operators).chain(implicit)
    }
}

/// The schemas that have objects of a name, in the order of a search path. `pg_catalog` comes first unless it is named.
pub(super) fn found_in<'a>(path: &'a [String], schemas: &BTreeSet<&str>) -> Vec<&'a str> {
    let implied = !path.iter().any(|schema| schema == "pg_catalog");
    let first = implied.then_some("pg_catalog").into_iter();
    let mut found: Vec<&str> = first.chain(path.iter().map(String::as_str)).collect();
    found.retain(|schema| schemas.contains(schema));
    found.dedup();
    found
}

/// The schemas of a setting of `search_path`; `$user` stands for itself.
pub(super) fn schemas_of(setting: &str) -> Vec<String> {
    let mut schemas = Vec::new();
    let mut chars = setting.chars().peekable();
    while let Some(&next) = chars.peek() {
        let mut name = String::new();
        match next {
            ',' | ' ' | '\t' | '\n' => {
                chars.next();
                continue;
            }
            '"' => {
                chars.next();
                while let Some(c) = chars.next() {
                    if c == '"' && chars.peek() != Some(&'"') {
                        break;
                    }
                    if c == '"' {
                        chars.next();
                    }
                    name.push(c);
                }
            }
            _ => {
                while let Some(c) = chars.next_if(|c| !matches!(c, ',' | ' ' | '\t' | '\n')) {
                    name.extend(c.to_lowercase());
                }
            }
        }
        schemas.push(name);
    }
    schemas
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.schema {
            Some(schema) => write!(f, "{schema}.{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_path_is_read_as_postgresql_reads_it() {
        for (setting, expected) in [
            ("\"$user\", public", &["$user", "public"][..]),
            ("", &[]),
            ("\"\"", &[""]),
            ("App,\"My \"\"own\"\"\" , x", &["app", "My \"own\"", "x"]),
            ("\"open", &["open"]),
        ] {
            assert_eq!(schemas_of(setting), expected, "{setting}");
        }
    }

    #[test]
    fn names_are_found_in_the_order_of_the_path_and_in_pg_catalog_first() {
        let path = |schemas: &[&str]| schemas.iter().map(|&schema| schema.to_owned()).collect::<Vec<_>>();
        let schemas = BTreeSet::from(["pg_catalog", "b", "a"]);
        assert_eq!(found_in(&path(&["a", "x", "b"]), &schemas), ["pg_catalog", "a", "b"]);
        assert_eq!(found_in(&path(&["b", "pg_catalog"]), &schemas), ["b", "pg_catalog"]);
        assert_eq!(found_in(&path(&["x"]), &BTreeSet::from(["a"])), Vec::<&str>::new());
    }
}
