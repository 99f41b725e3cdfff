//! The generated client: that it is what `openapi.yaml` says, and that the types put in place of its schemas fit them.

#![allow(clippy::unwrap_used)] // Helpers are tests too.

use std::path::{Path, PathBuf};

use openapiv3::{OpenAPI, ReferenceOr};
use progenitor::{GenerationSettings, Generator, InterfaceStyle, TypeImpl};
use qluster_client::model;
use serde_json::Value;

type Again = fn(Value) -> serde_json::Result<Value>;

/// The schemas for which the cluster's own types are used, each with what it does with a value of the schema: reads
/// it and writes it again.
const REPLACED: [(&str, Again); 25] = [
    ("ClusterInfo", again::<model::ClusterInfo>),
    ("ClusterLog", again::<model::ClusterLog>),
    ("ClusterMap", again::<model::ClusterMap>),
    ("ClusterStatus", again::<model::ClusterStatus>),
    ("Config", again::<model::Config>),
    ("ConfigUpdate", again::<model::ConfigUpdate>),
    ("DatabaseRole", again::<model::DatabaseRole>),
    ("DatabaseStatements", again::<model::DatabaseStatements>),
    ("Duration", again::<model::Duration>),
    ("Error", again::<model::Error>),
    ("ErrorCode", again::<model::ErrorCode>),
    ("Event", again::<model::Event>),
    ("EventKind", again::<model::EventKind>),
    ("Leader", again::<model::Leader>),
    ("LogIndex", again::<model::LogIndex>),
    ("Lsn", again::<model::Lsn>),
    ("Node", again::<model::Node>),
    ("NodeDatabase", again::<model::NodeDatabase>),
    ("NodeId", again::<model::NodeId>),
    ("NodeRole", again::<model::NodeRole>),
    ("NodeState", again::<model::NodeState>),
    ("NodeStatus", again::<model::NodeStatus>),
    ("Port", again::<model::Port>),
    ("ReadonlyStatements", again::<model::ReadonlyStatements>),
    ("Term", again::<model::Term>),
];

fn again<T: serde::de::DeserializeOwned + serde::Serialize>(value: Value) -> serde_json::Result<Value> {
    serde_json::to_value(serde_json::from_value::<T>(value)?)
}

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn description() -> OpenAPI {
    let text = std::fs::read_to_string(here("../openapi.yaml")).unwrap();
    serde_norway::from_str(&text).unwrap()
}

fn generate() -> String {
    let mut settings = GenerationSettings::new();
    // Positional parameters would be in alphabetical order: two ports, and nothing tells them apart.
    settings.with_interface(InterfaceStyle::Builder).with_derive("PartialEq");
    for (schema, _) in REPLACED {
        let type_name = format!("::qluster_consensus::model::{schema}");
        settings.with_replacement(schema, type_name, [TypeImpl::Display, TypeImpl::FromStr].into_iter());
    }
    let mut description = description();
    for item in description.paths.paths.values_mut() {
        if let ReferenceOr::Item(item) = item {
            // What balancers ask by these methods a program asks by GET, and learns more.
            (item.head, item.options) = (None, None);
        }
    }
    let tokens = Generator::new(&settings).generate_tokens(&description).unwrap();
    let code = prettyplease::unparse(&syn::parse2(tokens).unwrap());
    format!("// Generated from openapi.yaml by `cargo xtask client`; do not edit.\n\n{code}")
}

/// Writes instead of comparing with QLUSTER_UPDATE=1: the one code path for both.
#[test]
fn the_committed_client_is_the_generated_one() {
    let path = here("src/generated.rs");
    let generated = generate();
    if std::env::var_os("QLUSTER_UPDATE").is_some_and(|value| value == "1") {
        std::fs::write(&path, &generated).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == generated, "client/src/generated.rs is not what openapi.yaml says: run `cargo xtask client`");
}

/// The generator does not look whether a type that it puts in place of a schema fits it.
#[test]
fn every_replaced_schema_s_example_is_read_and_written_unchanged() {
    let schemas = description().components.unwrap().schemas;
    for (name, again) in REPLACED {
        let schema = schemas.get(name).unwrap_or_else(|| panic!("{name} is not in openapi.yaml")).as_item().unwrap();
        let example = schema.schema_data.example.clone().unwrap_or_else(|| panic!("{name} has no example"));
        let written = again(example.clone()).unwrap_or_else(|error| panic!("the example of {name}: {error}"));
        assert_eq!(written, example, "{name}");
    }
}

#[test]
fn a_part_of_the_settings_is_an_update() {
    let document = description();
    let (_, _, operation) =
        document.operations().find(|(path, method, _)| (*path, *method) == ("/config", "post")).unwrap();
    let body = operation.request_body.as_ref().unwrap().as_item().unwrap();
    let example = body.content["application/json"].example.clone().unwrap();
    assert_eq!(example.as_object().unwrap().len(), 1, "{example}");
    let update: model::ConfigUpdate = serde_json::from_value(example).unwrap();
    assert!(update.node_timeout.is_some());
}
