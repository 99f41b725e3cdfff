//! The description of the API: that what is committed is what the code says, and that the code says what was agreed.

#![allow(clippy::unwrap_used)] // Helpers are tests too.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use openapiv3::{OpenAPI, Operation, ReferenceOr, Schema, StatusCode};

/// The operations that were agreed, with their codes. Written from the customer's description, not from the code.
const AGREED: [(&str, &str, &[u16]); 15] = [
    ("get", "/is-leader", &[200, 412, 417, 500, 530, 531]),
    ("get", "/map", &[200, 412, 500, 531]),
    ("get", "/info", &[200, 412, 500, 531]),
    ("get", "/config", &[200, 412, 500, 531]),
    ("post", "/config", &[200, 410, 412, 417, 420, 500, 530, 531]),
    ("get", "/db-config", &[200, 412, 500, 531]),
    ("get", "/leader", &[200, 412, 500, 530, 531]),
    ("post", "/leader", &[200, 412, 500, 530, 531]),
    ("post", "/node", &[200, 410, 412, 417, 420, 500, 530, 531]),
    ("patch", "/node/{node}", &[200, 410, 412, 417, 420, 500, 530, 531]),
    ("delete", "/node/{node}", &[200, 410, 412, 417, 420, 500, 530, 531]),
    ("post", "/node-down/{node}", &[200, 410, 412, 417, 420, 500, 530, 531]),
    // 304 was added: it is no error.
    ("get", "/sql/readonly", &[200, 304, 412, 500, 531]),
    ("get", "/rpc", &[200, 500]),
    ("get", "/events", &[200, 500]),
];

/// The checks of load balancers, by the methods that these use.
const CHECKS: [&str; 6] = ["/primary", "/replica", "/read-only", "/health", "/liveness", "/readiness"];

/// The operations that were added, with their codes.
const ADDED: [(&str, &str, &[u16]); 2] = [("get", "/status", &[200, 412, 500, 531]), ("get", "/metrics", &[200, 500])];

/// The parameters that were agreed: method, path, location, name. All are mandatory.
const AGREED_PARAMETERS: [(&str, &str, &str, &str); 8] = [
    ("post", "/leader", "query", "node"),
    ("post", "/node", "query", "ip"),
    ("post", "/node", "query", "role"),
    ("patch", "/node/{node}", "path", "node"),
    ("patch", "/node/{node}", "query", "db-port"),
    ("patch", "/node/{node}", "query", "api-port"),
    ("delete", "/node/{node}", "path", "node"),
    ("post", "/node-down/{node}", "path", "node"),
];

/// The schemas that were agreed, with their types and their fields.
const AGREED_SCHEMAS: [(&str, &str, &[&str]); 12] = [
    ("NodeId", "integer", &[]),
    ("Term", "integer", &[]),
    ("LogIndex", "integer", &[]),
    ("Port", "integer", &[]),
    ("Duration", "string", &[]),
    (
        "Config",
        "object",
        &[
            "node-timeout",
            "pre-voting-timeout",
            "leader-voting-timeout",
            "heartbeat-interval",
            "replication-factor",
            "quorum-replication",
            "replication-retry-interval",
            "autoremove-enabled",
            "autoremove-minimum",
        ],
    ),
    ("NodeRole", "string", &[]),
    ("Node", "object", &["id", "ip", "db-port", "api-port", "role"]),
    ("ClusterMap", "object", &["leader", "nodes"]),
    ("ClusterLog", "object", &["index", "term", "payload"]),
    ("ClusterInfo", "object", &["term", "applied-index", "config", "logs"]),
    ("ReadonlyStatements", "array", &[]),
];

fn document() -> OpenAPI {
    let text = qluster_server::api::openapi::document().unwrap();
    serde_norway::from_str(&text).unwrap()
}

fn operation<'a>(document: &'a OpenAPI, method: &str, path: &str) -> &'a Operation {
    let found = document.operations().find(|(p, m, _)| (*p, *m) == (path, method));
    found.unwrap_or_else(|| panic!("{method} {path} is not in the description")).2
}

fn schemas(document: &OpenAPI) -> BTreeMap<&str, &Schema> {
    let schemas = &document.components.as_ref().unwrap().schemas;
    schemas.iter().map(|(name, schema)| (name.as_str(), schema.as_item().unwrap())).collect()
}

/// Writes instead of comparing with QLUSTER_UPDATE=1: the one code path for both.
#[test]
fn the_committed_description_is_the_emitted_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../openapi.yaml");
    let emitted = qluster_server::api::openapi::document().unwrap();
    if std::env::var_os("QLUSTER_UPDATE").is_some_and(|value| value == "1") {
        std::fs::write(&path, &emitted).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == emitted, "openapi.yaml is not what server/src/api/mod.rs says: run `cargo xtask openapi`");
}

#[test]
fn every_operation_has_the_codes_that_were_agreed() {
    let document = document();
    let agreed = AGREED.into_iter().chain(ADDED).map(|(method, path, codes)| (method, path, codes.to_vec()));
    let methods = ["get", "head", "options"];
    let checks = CHECKS.iter().flat_map(|path| methods.map(|method| (method, *path, vec![200, 500, 503])));
    let all: Vec<_> = agreed.chain(checks).collect();
    assert_eq!(document.operations().count(), all.len());
    for (method, path, codes) in all {
        let operation = operation(&document, method, path);
        let mut expected: BTreeSet<u16> = codes.into_iter().collect();
        // What is refused for want of a credential.
        expected.extend(match (path, method) {
            _ if is_open(path) => &[][..],
            (_, "get") => &[401, 429],
            _ => &[401, 403, 429],
        });
        if operation.request_body.is_some() || !operation.parameters.is_empty() {
            expected.insert(400);
        }
        let given: BTreeSet<u16> = operation
            .responses
            .responses
            .keys()
            .map(|status| match status {
                StatusCode::Code(code) => *code,
                StatusCode::Range(range) => panic!("{method} {path} documents the range {range}XX"),
            })
            .collect();
        assert_eq!(given, expected, "{method} {path}");
        assert!(operation.responses.default.is_none(), "{method} {path} documents a default response");
        assert_eq!(operation.tags.len(), 1, "{method} {path}");
        assert!(operation.summary.is_some(), "{method} {path}");
    }
}

/// Load balancers, which have no token, ask for these.
fn is_open(path: &str) -> bool {
    path == "/is-leader" || CHECKS.contains(&path)
}

#[test]
fn every_operation_says_which_tokens_it_takes() {
    let document = document();
    let schemes = &document.components.as_ref().unwrap().security_schemes;
    assert_eq!(schemes.keys().collect::<Vec<_>>(), ["read", "admin"]);
    assert!(document.security.is_none(), "each operation says so itself");
    for (path, method, operation) in document.operations() {
        let security = operation.security.as_ref().unwrap_or_else(|| panic!("{method} {path} says nothing"));
        let taken: Vec<&str> = security.iter().flat_map(|one| one.keys().map(String::as_str)).collect();
        let expected = match method {
            _ if is_open(path) => &[][..],
            "get" => &["read", "admin"],
            _ => &["admin"],
        };
        assert_eq!(taken, expected, "{method} {path}");
    }
}

#[test]
fn every_agreed_parameter_is_there_and_all_others_are_optional() {
    let document = document();
    let mut given = BTreeSet::new();
    for (path, method, operation) in document.operations() {
        for parameter in &operation.parameters {
            let json = serde_json::to_value(parameter).unwrap();
            let field = |name: &str| json[name].as_str().unwrap().to_owned();
            assert!(json["description"].is_string(), "{method} {path} {json}");
            if json["required"] == true {
                given.insert((method.to_owned(), path.to_owned(), field("in"), field("name")));
            }
        }
    }
    let expected = AGREED_PARAMETERS.map(|(a, b, c, d)| (a.into(), b.into(), c.into(), d.into()));
    assert_eq!(given, BTreeSet::from(expected));
}

#[test]
fn every_agreed_schema_is_there_with_its_type_and_fields() {
    let document = document();
    let schemas = schemas(&document);
    for (name, kind, fields) in AGREED_SCHEMAS {
        let schema = schemas.get(name).unwrap_or_else(|| panic!("{name} is not in the description"));
        let json = serde_json::to_value(schema).unwrap();
        // Variants that each have a description are a `oneOf`.
        let kinds =
            json["oneOf"].as_array().map_or(vec![&json["type"]], |of| of.iter().map(|of| &of["type"]).collect());
        assert!(kinds.iter().all(|given| *given == kind), "{name} is {kinds:?}, not {kind}");
        for field in fields {
            assert!(json["properties"][field].is_object(), "{name} has no field {field}");
        }
    }
}

#[test]
fn every_schema_has_a_description_and_an_example_and_every_field_a_description() {
    let document = document();
    for (name, schema) in schemas(&document) {
        assert!(schema.schema_data.description.is_some(), "{name} has no description");
        assert!(schema.schema_data.example.is_some(), "{name} has no example");
        let json = serde_json::to_value(schema).unwrap();
        for (field, schema) in json["properties"].as_object().into_iter().flatten() {
            assert!(schema["description"].is_string(), "{name}.{field} has no description");
        }
    }
}

#[test]
fn every_error_has_the_one_body_and_says_what_it_means() {
    let document = document();
    for (path, method, operation) in document.operations() {
        for (status, response) in &operation.responses.responses {
            let response = response.as_item().unwrap();
            assert!(!response.description.is_empty(), "{method} {path} {status}");
            if matches!(status, StatusCode::Code(200 | 304)) {
                continue;
            }
            if method == "head" {
                assert!(response.content.is_empty(), "{method} {path} {status}");
                continue;
            }
            let body = response.content.get("application/json").and_then(|body| body.schema.as_ref());
            assert_eq!(body, Some(&ReferenceOr::ref_("#/components/schemas/Error")), "{method} {path} {status}");
        }
    }
}

#[test]
fn events_for_people_are_text() {
    let document = document();
    let success = &operation(&document, "get", "/rpc").responses.responses[&StatusCode::Code(200)];
    let content = &success.as_item().unwrap().content;
    assert_eq!(content.keys().collect::<Vec<_>>(), ["text/plain"]);
    assert_eq!(serde_json::to_value(&content["text/plain"].schema).unwrap()["type"], "string");
}
