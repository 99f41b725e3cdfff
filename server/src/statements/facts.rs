//! What a statement rests on according to its parse tree; or why the tree is not that of a statement that only reads.
//!
//! The tree is walked as JSON, so that no field is overlooked: a kind of node that is not listed here refuses the
//! statement. What PostgreSQL calls without a name of its own in the tree (`IN` calls `=`) is added.

use std::collections::BTreeSet;

use pg_query::protobuf::AExprKind;
use serde_json::{Map, Value};

/// Deeper statements are refused: libpg_query's fingerprint leaves out what is deeper than 100 levels.
const DEPTH_LIMIT: usize = 90;

/// A name as it is written, with its schema if that is written, too.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name {
    pub(crate) schema: Option<String>,
    pub(crate) name: String,
}

/// What a statement rests on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) relations: BTreeSet<Name>,
    /// Names of `WITH` queries.
    pub(crate) queries: BTreeSet<String>,
    pub(crate) functions: BTreeSet<Name>,
    pub(crate) operators: BTreeSet<Name>,
    /// Operators that a construct such as `CASE` or `USING` calls. Text that PostgreSQL writes does not say in which
    /// schema they are.
    pub(crate) implied: BTreeSet<String>,
    /// Last parts of names such as `a.b`: a column, or else a function of one argument.
    pub(crate) attributes: BTreeSet<String>,
}

/// Nodes that read, at most by what their parts do.
const READS: [&str; 46] = [
    "SelectStmt",
    "ResTarget",
    "ColumnRef",
    "AStar",
    "AConst",
    "ParamRef",
    "AExpr",
    "BoolExpr",
    "NullTest",
    "BooleanTest",
    "FuncCall",
    "TypeCast",
    "TypeName",
    "CaseExpr",
    "CaseWhen",
    "CoalesceExpr",
    "MinMaxExpr",
    "SubLink",
    "RangeVar",
    "JoinExpr",
    "RangeSubselect",
    "RangeFunction",
    "RangeTableSample",
    "RangeTableFunc",
    "RangeTableFuncCol",
    "SortBy",
    "WindowDef",
    "WithClause",
    "CommonTableExpr",
    "CtesearchClause",
    "CtecycleClause",
    "AArrayExpr",
    "AIndirection",
    "AIndices",
    "RowExpr",
    "CollateClause",
    "SqlvalueFunction",
    "GroupingFunc",
    "GroupingSet",
    "List",
    "NamedArgExpr",
    "Alias",
    "ColumnDef",
    "XmlExpr",
    "XmlSerialize",
    "VariableShowStmt",
];

/// Leaves without a meaning of their own.
const LEAVES: [&str; 5] = ["String", "Integer", "Float", "Boolean", "BitString"];

/// Fields that hold a node of one kind without its name.
const FIELDS: [(&str, &str); 11] = [
    ("larg", "SelectStmt"),
    ("rarg", "SelectStmt"),
    ("with_clause", "WithClause"),
    ("type_name", "TypeName"),
    ("alias", "Alias"),
    ("join_using_alias", "Alias"),
    ("over", "WindowDef"),
    ("search_clause", "CtesearchClause"),
    ("cycle_clause", "CtecycleClause"),
    ("coll_clause", "CollateClause"),
    ("into_clause", "IntoClause"),
];

/// The fingerprint is of all names and of the names of fields and nodes, with nothing in between: an identifier that
/// holds these could pass for a part of another statement.
const AMBIGUOUS: [&str; 3] = ["Stringstr", "RangeVar", "relpersistence"];

/// The operators that `BETWEEN` and its kin stand for.
const BETWEEN: [&str; 4] = [">=", "<=", "<", ">"];

impl Facts {
    /// What the statement of this tree rests on. It must be one statement.
    pub(super) fn of_statement(tree: &Value) -> Result<Self, String> {
        match tree.get("stmts").and_then(Value::as_array).map(Vec::as_slice) {
            Some([_]) => Self::of_statements(tree),
            _ => Err("it is not one statement".into()),
        }
    }

    /// What several statements rest on together.
    pub(super) fn of_statements(tree: &Value) -> Result<Self, String> {
        let mut facts = Self::default();
        for statement in tree.get("stmts").and_then(Value::as_array).into_iter().flatten() {
            let statement = statement.get("stmt").ok_or("an empty statement")?;
            let (kind, _) = variant(statement).ok_or("an empty statement")?;
            if !matches!(kind, "SelectStmt" | "VariableShowStmt") {
                return Err(format!("{kind} is no query"));
            }
            facts.node(statement, 0)?;
        }
        Ok(facts)
    }

    /// Adds what another statement rests on.
    pub(super) fn merge(&mut self, other: Self) {
        let Self { relations, queries, functions, operators, implied, attributes } = other;
        self.relations.extend(relations);
        self.queries.extend(queries);
        self.functions.extend(functions);
        self.operators.extend(operators);
        self.implied.extend(implied);
        self.attributes.extend(attributes);
    }

    /// All names, whatever they may be of.
    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        let named = self.relations.iter().chain(&self.functions).chain(&self.operators).map(|name| &name.name);
        named.chain(&self.implied).chain(&self.attributes)
    }

    fn node(&mut self, value: &Value, depth: usize) -> Result<(), String> {
        match variant(value) {
            Some((kind, fields)) => self.visit(kind, fields, depth),
            // A list has empty places, such as the lower bound of `a[:2]`.
            None => Ok(()),
        }
    }

    fn visit(&mut self, kind: &str, fields: &Map<String, Value>, depth: usize) -> Result<(), String> {
        if depth > DEPTH_LIMIT {
            return Err(format!("it is nested deeper than {DEPTH_LIMIT}"));
        }
        if LEAVES.contains(&kind) {
            return match fields.get("sval").and_then(Value::as_str) {
                Some(text) => identifier(text),
                None => Ok(()),
            };
        }
        if !READS.contains(&kind) {
            return Err(match kind {
                "LockingClause" => "it locks rows".into(),
                "IntoClause" => "it creates a table (INTO)".into(),
                other => format!("{other} is not known to only read"),
            });
        }
        self.take(kind, fields)?;
        for (field, value) in fields {
            match value {
                Value::Array(items) => items.iter().try_for_each(|item| self.node(item, depth + 2))?,
                Value::Object(_) if value.get("node").is_some() => self.node(value, depth + 1)?,
                Value::Object(inner) => match FIELDS.iter().find(|(name, _)| name == field) {
                    Some((_, kind)) => self.visit(kind, inner, depth + 1)?,
                    // The value of a constant.
                    None if kind == "AConst" => {}
                    None => return Err(format!("the part `{field}` of {kind} is not known to only read")),
                },
                Value::String(text) => identifier(text)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// What a node says itself.
    fn take(&mut self, kind: &str, fields: &Map<String, Value>) -> Result<(), String> {
        let text = |field: &str| fields.get(field).and_then(Value::as_str).unwrap_or_default();
        let strings = |field: &str| strings(fields.get(field));
        let is_set = |field: &str| match fields.get(field) {
            Some(Value::Array(items)) => !items.is_empty(),
            Some(Value::Bool(set)) => *set,
            Some(Value::Null) | None => false,
            Some(_) => true,
        };
        match kind {
            "RangeVar" => {
                if text("relpersistence") != "p" {
                    return Err(format!("{} is not permanent", text("relname")));
                }
                let schema = Some(text("schemaname")).filter(|schema| !schema.is_empty()).map(str::to_owned);
                self.relations.insert(Name { schema, name: text("relname").into() });
            }
            "CommonTableExpr" => drop(self.queries.insert(text("ctename").into())),
            "FuncCall" => self.functions.extend(name(strings("funcname"))),
            "RangeTableSample" => {
                let method = strings("method");
                if !matches!(method.last().map(String::as_str), Some("bernoulli" | "system")) {
                    return Err("its TABLESAMPLE has a method of its own".into());
                }
            }
            "AExpr" => {
                let operator = strings("name");
                if operator.iter().any(|name| name.contains("BETWEEN")) {
                    self.implied(&BETWEEN);
                } else if is_written(fields) {
                    self.operators.extend(name(operator));
                } else {
                    self.implied.extend(operator);
                }
            }
            "SubLink" if is_set("testexpr") && !is_set("oper_name") => self.implied(&["="]),
            "SubLink" => self.operators.extend(name(strings("oper_name"))),
            "SortBy" => self.operators.extend(name(strings("use_op"))),
            "CaseExpr" if is_set("arg") => self.implied(&["="]),
            "JoinExpr" if is_set("is_natural") || is_set("using_clause") => self.implied(&["="]),
            "CtecycleClause" => self.implied(&["=", "<>"]),
            "TypeName" if is_set("pct_type") => return Err("it names a type by a column (%TYPE)".into()),
            "ColumnRef" => {
                let parts = fields.get("fields").and_then(Value::as_array).map_or(0, Vec::len);
                if parts > 1 {
                    self.attributes.extend(strings("fields").into_iter().skip(1));
                }
            }
            "AIndirection" => self.attributes.extend(strings("indirection")),
            _ => {}
        }
        Ok(())
    }

    fn implied(&mut self, operators: &[&str]) {
        self.implied.extend(operators.iter().map(|&name| name.to_owned()));
    }
}

/// Whether the text has the operator of an expression itself, and no other word for it, as `NULLIF` is.
fn is_written(expression: &Map<String, Value>) -> bool {
    let kind = expression.get("kind").and_then(Value::as_i64).and_then(|kind| i32::try_from(kind).ok());
    let kind = kind.and_then(|kind| AExprKind::try_from(kind).ok());
    matches!(kind, Some(AExprKind::AexprOp | AExprKind::AexprOpAny | AExprKind::AexprOpAll))
}

/// A node's kind and fields.
fn variant(value: &Value) -> Option<(&str, &Map<String, Value>)> {
    let (kind, fields) = value.get("node")?.as_object()?.iter().next()?;
    Some((kind, fields.as_object()?))
}

/// The strings of a list.
fn strings(list: Option<&Value>) -> Vec<String> {
    let items = list.and_then(Value::as_array).into_iter().flatten();
    let text = |item| variant(item).and_then(|(_, fields)| Some(fields.get("sval")?.as_str()?.to_owned()));
    items.filter_map(text).collect()
}

fn name(mut parts: Vec<String>) -> Option<Name> {
    let name = parts.pop()?;
    Some(Name { schema: parts.pop(), name })
}

fn identifier(text: &str) -> Result<(), String> {
    match AMBIGUOUS.iter().any(|part| text.contains(part)) {
        true => Err(format!("the name {text:.60} makes its hash ambiguous")),
        false => Ok(()),
    }
}
