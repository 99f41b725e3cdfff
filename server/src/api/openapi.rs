//! The API's description, `openapi.yaml`: what dropshot emits from the trait in `api/mod.rs`, refined.
//!
//! dropshot documents errors as ranges (`4XX`, `5XX`) and a hand-made response (`/rpc`) not at all. Here every
//! operation gets exactly the codes that it can answer with, and what each means there. [`ErrorCode::status`] decides
//! which code an error has; the tables below decide which codes an operation has, and what they mean.

use openapiv3::{
    Components, License, MediaType, OpenAPI, Operation, Parameter, ParameterSchemaOrContent, PathItem, ReferenceOr,
    Response, Responses, Schema, SchemaData, SchemaKind, SecurityRequirement, SecurityScheme, Server, StatusCode,
    StringType, Tag, Type,
};
use qluster_consensus::model::ErrorCode;

use crate::security::{Kind, Needs, needs};

/// The head of the file, so that nobody edits it.
const HEADER: &str = "# Generated from server/src/api/mod.rs by `cargo xtask openapi`; do not edit.\n";

/// Why the description could not be made. Each is a defect in the trait or in the tables here, found by the tests.
#[derive(Debug, thiserror::Error)]
pub enum OpenapiError {
    /// dropshot refuses the trait.
    #[error("dropshot does not accept the API trait")]
    Api(#[source] dropshot::ApiDescriptionBuildErrors),
    /// What dropshot emits is not an OpenAPI document.
    #[error("dropshot's description is not an OpenAPI document")]
    Emitted(#[source] serde_json::Error),
    /// This crate's version is not a semantic version.
    #[error("the crate's version is not a semantic version")]
    Version(#[source] semver::Error),
    /// An operation of the trait is not in the table.
    #[error("operation `{0}` has no line in the table of operations in openapi.rs")]
    Unlisted(String),
    /// An operation of the table is not in the trait.
    #[error("operation `{0}` is in the table of operations in openapi.rs, but not in api/mod.rs")]
    Vanished(&'static str),
    /// The table of what operations need lacks an operation of the trait.
    #[error("operation `{0}` has no line in the table of what operations need in security/needs.rs")]
    Unguarded(String),
    /// The document cannot be written as YAML.
    #[error("the description cannot be written as YAML")]
    Yaml(#[source] serde_norway::Error),
}

/// What an operation does with the cluster. This decides which codes it has, and what they mean.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Whether this node leads.
    IsLeader,
    /// Reads what this node has applied.
    Read,
    /// Reads from this node's database.
    Database,
    /// Reads who leads.
    Leader,
    /// Hands the leadership over.
    Switchover,
    /// Changes the cluster by an entry in its log.
    Change,
    /// Answers whether this node should get traffic of a kind.
    Check,
    /// Reads what this node remembers, whether or not it is part of a cluster.
    Memory,
}

const CLUSTER: &str = "cluster";
const NODES: &str = "nodes";
const DATABASE: &str = "database";
const EVENTS: &str = "events";
const BALANCING: &str = "load balancing";

const TAGS: [(&str, &str); 5] = [
    (CLUSTER, "Who leads, who is there, and the settings"),
    (NODES, "Adding, enrolling and removing nodes"),
    (DATABASE, "The database of the node that is asked"),
    (EVENTS, "What happened"),
    (BALANCING, "The checks of load balancers: 200 if the node should get traffic of a kind, 503 if not"),
];

/// The operations, by the name of their method in the trait.
const OPERATIONS: [(&str, &str, Class); 23] = [
    ("is_leader", CLUSTER, Class::IsLeader),
    ("map", CLUSTER, Class::Read),
    ("status", CLUSTER, Class::Read),
    ("info", CLUSTER, Class::Read),
    ("config_get", CLUSTER, Class::Read),
    ("config_post", CLUSTER, Class::Change),
    ("leader_get", CLUSTER, Class::Leader),
    ("leader_post", CLUSTER, Class::Switchover),
    ("node_add", NODES, Class::Change),
    ("node_upgrade", NODES, Class::Change),
    ("node_remove", NODES, Class::Change),
    ("node_down", NODES, Class::Change),
    ("db_config", DATABASE, Class::Database),
    ("sql_readonly", DATABASE, Class::Read),
    ("rpc", EVENTS, Class::Memory),
    ("events", EVENTS, Class::Memory),
    ("metrics", EVENTS, Class::Memory),
    ("primary", BALANCING, Class::Check),
    ("replica", BALANCING, Class::Check),
    ("read_only", BALANCING, Class::Check),
    ("health", BALANCING, Class::Check),
    ("liveness", BALANCING, Class::Check),
    ("readiness", BALANCING, Class::Check),
];

/// Operations that answer with text, and an example.
const TEXTS: [(&str, &str); 2] = [
    ("rpc", "2026-01-31T12:00:00.123Z term 7 leader elected: node 1\n"),
    (
        "metrics",
        "# HELP qluster_term The newest term that this node knows.\n# TYPE qluster_term gauge\nqluster_term 7\n",
    ),
];

impl Class {
    /// The errors of its operations, beside those of every operation.
    fn errors(self) -> &'static [ErrorCode] {
        use ErrorCode::*;
        match self {
            Class::IsLeader => &[PreconditionFailed, NotLeader, NoLeader, Unavailable],
            Class::Read | Class::Database => &[PreconditionFailed, Unavailable],
            Class::Leader | Class::Switchover => &[PreconditionFailed, NoLeader, Unavailable],
            Class::Change => &[Superseded, PreconditionFailed, NotLeader, Unconfirmed, NoLeader, Unavailable],
            Class::Check => &[NotServing],
            Class::Memory => &[],
        }
    }

    /// What an error means as an answer to its operations.
    fn meaning(self, error: ErrorCode) -> &'static str {
        match (self, error) {
            (Class::IsLeader, ErrorCode::NotLeader) => "this node is not the leader; the body says who is",
            (Class::Change, ErrorCode::PreconditionFailed) => {
                "this node or the node addressed is not in the state that the change needs; nothing was changed"
            }
            (Class::Switchover, ErrorCode::PreconditionFailed) => {
                "the node is not fit to lead, or this node is not part of a cluster; nothing was changed"
            }
            (Class::Change, ErrorCode::NoLeader) => "the cluster has no leader now; nothing was changed",
            (Class::Database, ErrorCode::PreconditionFailed) => {
                "this node is not part of a cluster, or its role has no database"
            }
            (Class::Database, ErrorCode::Unavailable) => "the database of this node does not answer",
            (_, ErrorCode::PreconditionFailed) => "this node is not part of a cluster",
            (_, ErrorCode::Unavailable) => "this node's consensus is starting, stopping or has stopped",
            (_, error) => general(error).0,
        }
    }
}

/// What an error means in general, and whether the caller may retry.
fn general(error: ErrorCode) -> (&'static str, &'static str) {
    match error {
        ErrorCode::BadRequest => ("a parameter or the body is malformed or breaks a rule", "no"),
        ErrorCode::Unauthenticated => ("no credential, or a wrong one", "no"),
        ErrorCode::Forbidden => ("the credential does not allow this", "no"),
        ErrorCode::NotFound => ("there is no such path", "no"),
        ErrorCode::Superseded => {
            ("leadership moved on before the change was committed; nothing was applied", "yes, at the new leader")
        }
        ErrorCode::PreconditionFailed => {
            ("this node, or the node addressed, is not in the state that this needs", "after the reason is gone")
        }
        ErrorCode::NotLeader => {
            ("only the leader does this, and this node is not it; the body says who is", "yes, at the leader")
        }
        ErrorCode::Unconfirmed => {
            ("the change is in the leader's log but was not confirmed in time: it may still take effect", "look first")
        }
        ErrorCode::TooManyRequests => ("too many wrong credentials came from this address", "yes, shortly"),
        ErrorCode::NotServing => ("a load balancer's check is not met; the body says why", "at another node"),
        ErrorCode::Internal | ErrorCode::Other => ("a defect or a failing disk", "no"),
        ErrorCode::NoLeader => ("the cluster has no leader now", "yes, shortly"),
        ErrorCode::Unavailable => (
            "this node's consensus is starting, stopping or has stopped, or its database does not answer",
            "yes, elsewhere",
        ),
    }
}

/// All errors, in the order of their codes.
const ERRORS: [ErrorCode; 13] = [
    ErrorCode::BadRequest,
    ErrorCode::Unauthenticated,
    ErrorCode::Forbidden,
    ErrorCode::NotFound,
    ErrorCode::Superseded,
    ErrorCode::PreconditionFailed,
    ErrorCode::NotLeader,
    ErrorCode::Unconfirmed,
    ErrorCode::TooManyRequests,
    ErrorCode::Internal,
    ErrorCode::NotServing,
    ErrorCode::NoLeader,
    ErrorCode::Unavailable,
];

/// The kinds of tokens.
const SCHEMES: [(Kind, &str); 2] = [
    (Kind::Read, "A read token: it allows reading. A node at a loopback address may have no tokens."),
    (Kind::Admin, "An admin token: it allows changes as well. A node at a loopback address may have no tokens."),
];

fn scheme(kind: Kind) -> &'static str {
    match kind {
        Kind::Read => "read",
        Kind::Admin => "admin",
    }
}

/// The text of `openapi.yaml`.
pub fn document() -> Result<String, OpenapiError> {
    let api = crate::api::qluster_api_mod::stub_api_description().map_err(OpenapiError::Api)?;
    let version = env!("CARGO_PKG_VERSION").parse().map_err(OpenapiError::Version)?;
    let emitted = api.openapi("qluster rest api", version).json().map_err(OpenapiError::Emitted)?;
    // Through the typed document, which orders an object's members as people expect; a raw value would sort them.
    let mut document: OpenAPI = serde_json::from_value(emitted).map_err(OpenapiError::Emitted)?;
    refine(&mut document)?;
    let yaml = serde_norway::to_string(&document).map_err(OpenapiError::Yaml)?;
    Ok(format!("{HEADER}{yaml}"))
}

fn refine(document: &mut OpenAPI) -> Result<(), OpenapiError> {
    document.info.description = Some(description());
    document.info.license = Some(License {
        name: "Apache-2.0".into(),
        url: Some("https://www.apache.org/licenses/LICENSE-2.0".into()),
        ..Default::default()
    });
    document.servers =
        vec![Server { url: "/".into(), description: Some("The node that is asked".into()), ..Default::default() }];
    document.tags = TAGS
        .into_iter()
        .map(|(name, text)| Tag { name: name.into(), description: Some(text.into()), ..Default::default() })
        .collect();

    let components = document.components.get_or_insert_default();
    // The body of the ranges: each operation gets its own codes below.
    components.responses.clear();
    for (kind, text) in SCHEMES {
        components.security_schemes.insert(
            scheme(kind).into(),
            ReferenceOr::Item(SecurityScheme::HTTP {
                scheme: "bearer".into(),
                bearer_format: None,
                description: Some(text.into()),
                extensions: Default::default(),
            }),
        );
    }

    let components = components.clone();
    let mut missing: Vec<&str> = OPERATIONS.iter().map(|(id, ..)| *id).collect();
    for item in document.paths.paths.values_mut() {
        let ReferenceOr::Item(item) = item else { continue };
        let PathItem { get, put, post, delete, options, head, patch, trace, .. } = item;
        let operations = [&mut *get, put, post, delete, &mut *options, &mut *head, patch, trace];
        for operation in operations.into_iter().flatten() {
            let id = operation.operation_id.clone().unwrap_or_default();
            let Some((id, tag, class)) = OPERATIONS.iter().find(|(name, ..)| *name == id) else {
                return Err(OpenapiError::Unlisted(id));
            };
            let needs = needs(id).ok_or_else(|| OpenapiError::Unguarded((*id).into()))?;
            refine_operation(operation, tag, *class, needs);
            if let Some(ReferenceOr::Item(body)) = &mut operation.request_body {
                for content in body.content.values_mut() {
                    content.example = content.schema.as_ref().and_then(|schema| partial_example(schema, &components));
                }
            }
            // dropshot knows nothing of responses that a handler builds itself.
            let text = TEXTS.iter().find(|(name, _)| name == id).map(|(_, example)| (200, text_response(example)));
            let by_hand = text.or((*id == "sql_readonly").then(|| (304, unchanged_response())));
            if let Some((status, response)) = by_hand {
                operation.responses.responses.insert(StatusCode::Code(status), ReferenceOr::Item(response));
                operation.responses.responses.sort_keys();
            }
            missing.retain(|name| name != id);
        }
        if let Some(check) = get.as_ref().filter(|get| get.tags == [BALANCING]) {
            (*head, *options) = (Some(by(check, "head")), Some(by(check, "options")));
        }
    }
    missing.first().map_or(Ok(()), |id| Err(OpenapiError::Vanished(id)))
}

/// A check by another method.
fn by(check: &Operation, method: &str) -> Operation {
    let mut operation = check.clone();
    operation.operation_id = check.operation_id.as_ref().map(|id| format!("{id}_{method}"));
    operation.description = Some("As GET, for load balancers that look at the code alone.".into());
    for response in operation.responses.responses.values_mut() {
        if let (ReferenceOr::Item(response), "head") = (response, method) {
            response.content.clear();
        }
    }
    operation
}

fn refine_operation(operation: &mut Operation, tag: &str, class: Class, needs: Needs) {
    operation.tags = vec![tag.into()];
    for parameter in &mut operation.parameters {
        // A query string has no null: an optional parameter is left out.
        if let ReferenceOr::Item(Parameter::Query { parameter_data, .. }) = parameter
            && let ParameterSchemaOrContent::Schema(ReferenceOr::Item(schema)) = &mut parameter_data.format
        {
            schema.schema_data.nullable = false;
        }
    }

    let schemes = match needs {
        Needs::Nothing | Needs::Secret => Vec::new(),
        Needs::Token(Kind::Read) => vec![Kind::Read, Kind::Admin],
        Needs::Token(Kind::Admin) => vec![Kind::Admin],
    };
    let requirement = |kind: &Kind| SecurityRequirement::from_iter([(scheme(*kind).into(), Vec::new())]);
    operation.security = Some(schemes.iter().map(requirement).collect());

    let mut errors = vec![ErrorCode::Internal];
    if let Needs::Token(kind) = needs {
        errors.extend([ErrorCode::Unauthenticated, ErrorCode::TooManyRequests]);
        errors.extend((kind == Kind::Admin).then_some(ErrorCode::Forbidden));
    }
    if operation.request_body.is_some() || !operation.parameters.is_empty() {
        errors.push(ErrorCode::BadRequest);
    }
    errors.extend(class.errors());

    let mut responses = std::mem::take(&mut operation.responses.responses);
    responses.retain(|status, _| matches!(status, StatusCode::Code(_)));
    if let Some(ReferenceOr::Item(success)) = responses.get_mut(&StatusCode::Code(200)) {
        success.description = match class {
            Class::IsLeader => "this node is the cluster leader",
            Class::Check => "the check is met",
            _ => "ok",
        }
        .into();
        for content in success.content.values_mut() {
            // dropshot names arrays (`Array_of_Event`), which says nothing to a reader.
            if let Some(ReferenceOr::Item(schema)) = &mut content.schema {
                schema.schema_data.title = None;
            }
        }
    }
    for error in errors {
        responses.insert(StatusCode::Code(error.status()), ReferenceOr::Item(error_response(class.meaning(error))));
    }
    responses.sort_keys();
    operation.responses = Responses { responses, ..Default::default() };
}

/// The example of a request's schema without the fields that are null: they may be left out.
fn partial_example(schema: &ReferenceOr<Schema>, components: &Components) -> Option<serde_json::Value> {
    let ReferenceOr::Reference { reference } = schema else { return None };
    let mut example = components.schemas.get(reference.rsplit('/').next()?)?.as_item()?.schema_data.example.clone()?;
    example.as_object_mut()?.retain(|_, value| !value.is_null());
    Some(example)
}

fn error_response(meaning: &str) -> Response {
    let body = MediaType { schema: Some(ReferenceOr::ref_("#/components/schemas/Error")), ..Default::default() };
    Response {
        description: meaning.into(),
        content: [("application/json".into(), body)].into_iter().collect(),
        ..Default::default()
    }
}

fn text_response(example: &str) -> Response {
    let schema = Schema {
        schema_data: SchemaData { example: Some(example.into()), ..Default::default() },
        schema_kind: SchemaKind::Type(Type::String(StringType::default())),
    };
    let body = MediaType { schema: Some(ReferenceOr::Item(schema)), ..Default::default() };
    Response {
        description: "ok".into(),
        content: [("text/plain".into(), body)].into_iter().collect(),
        ..Default::default()
    }
}

fn unchanged_response() -> Response {
    Response { description: "nothing has changed since the answer with that `etag`".into(), ..Default::default() }
}

/// What the API is, and what the codes mean in all its operations.
fn description() -> String {
    let mut text = String::from(
        "The REST API of a qluster node: who leads, who is there, and how to change it.\n\
         \n\
         Every operation answers for the node that is asked. Any node serves reads, from what it has applied. Only the \
         leader makes changes; another node answers 417 and names it. To wait for changes, ask `/map` or `/events` with \
         `after-index` and `wait`: the answer comes when there is something newer.\n\
         \n\
         Every answer but 200 and 304 has a body of the schema `Error`:\n\
         \n\
         | code | error-code | means | may the caller retry? |\n\
         |---|---|---|---|\n",
    );
    for error in ERRORS {
        let (meaning, retry) = general(error);
        // The name that it has in JSON.
        let name = serde_json::to_value(error).ok();
        let name = name.as_ref().and_then(|name| name.as_str()).unwrap_or_default();
        text.push_str(&format!("| {} | `{name}` | {meaning} | {retry} |\n", error.status()));
    }
    text
}
