//! Every operation of `openapi.yaml` with everything about it that can be wrong, at a real daemon: the documented codes,
//! never a 500, and nothing has changed afterwards. Operations are covered by being described.

use std::io::Write;
use std::net::Shutdown;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::raw::{self, Raw, head};
use crate::support::{Daemon, Ground};

/// More than any value has, and less than what a server refuses to read at all.
const HUGE: usize = 60_000;

/// The statuses for a request that reaches no operation, or is no valid request.
const STRANGE: [u16; 8] = [400, 404, 405, 411, 413, 414, 415, 431];

/// An operation as it is described.
#[derive(Debug)]
struct Operation {
    method: String,
    path: String,
    parameters: Vec<Parameter>,
    /// The names and schemas of the members of its body, and a valid body. None if it takes no body.
    body: Option<(Vec<String>, Value)>,
    codes: Vec<u16>,
}

#[derive(Clone, Debug)]
struct Parameter {
    name: String,
    in_path: bool,
    required: bool,
    /// A value that is well-formed, and names nothing that is there.
    valid: String,
}

/// A request, and whether it may be refused before it reaches its operation.
#[derive(Clone)]
struct Request {
    what: String,
    bytes: Vec<u8>,
    strange: bool,
    /// All that is sent is sent; without this the server may wait for more.
    ends: bool,
}

fn description() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../openapi.yaml");
    serde_norway::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn resolved<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(reference) => document.pointer(reference.trim_start_matches('#')).unwrap(),
        None => schema,
    }
}

/// A value of this schema as it is written in a path or a query. A port is that of the node itself, which nobody can be
/// given; other numbers name nothing that is there.
fn valid(document: &Value, schema: &Value, port: u16) -> String {
    let schema = resolved(document, schema);
    let first = schema["oneOf"].get(0).or_else(|| schema["allOf"].get(0));
    if let Some(first) = first {
        return valid(document, first, port);
    }
    if let Some(name) = schema["enum"].get(0) {
        return name.as_str().unwrap().into();
    }
    match (schema["type"].as_str(), schema["format"].as_str()) {
        (Some("integer"), Some("uint16")) => port.to_string(),
        (Some("integer" | "number"), _) => "77".into(),
        (Some("boolean"), _) => "true".into(),
        (_, Some("ip")) => "127.0.0.1".into(),
        _ => schema["example"].as_str().unwrap_or("x").into(),
    }
}

fn operations(port: u16) -> Vec<Operation> {
    const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];
    let document = description();
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap().iter().filter(|(name, _)| METHODS.contains(&name.as_str()))
        {
            let parameters = [&item["parameters"], &operation["parameters"]].into_iter().filter_map(Value::as_array);
            let parameter = |parameter: &Value| {
                let parameter = resolved(&document, parameter);
                let place = parameter["in"].as_str().unwrap();
                matches!(place, "path" | "query").then(|| Parameter {
                    name: parameter["name"].as_str().unwrap().into(),
                    in_path: place == "path",
                    required: parameter["required"] == true,
                    valid: valid(&document, &parameter["schema"], port),
                })
            };
            let body = operation["requestBody"]["content"]["application/json"].as_object().map(|content| {
                let schema = resolved(&document, &content["schema"]);
                let members = schema["properties"].as_object().map(|members| members.keys().cloned().collect());
                (members.unwrap_or_default(), content.get("example").unwrap_or(&schema["example"]).clone())
            });
            operations.push(Operation {
                method: method.to_uppercase(),
                path: path.clone(),
                parameters: parameters.flatten().filter_map(parameter).collect(),
                body,
                codes: operation["responses"].as_object().unwrap().keys().map(|code| code.parse().unwrap()).collect(),
            });
        }
    }
    operations
}

impl Operation {
    /// The path with its parameters, which may be replaced, and the query of `pairs`.
    fn target(&self, replaced: Option<(&str, &str)>, pairs: &[(String, String)]) -> String {
        let mut path = self.path.clone();
        for parameter in self.parameters.iter().filter(|parameter| parameter.in_path) {
            let value =
                replaced.filter(|(name, _)| *name == parameter.name).map_or(&*parameter.valid, |(_, value)| value);
            path = path.replace(&format!("{{{}}}", parameter.name), value);
        }
        let query: Vec<_> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if query.is_empty() { path } else { format!("{path}?{}", query.join("&")) }
    }

    /// What its query is when it is right.
    fn pairs(&self) -> Vec<(String, String)> {
        let of_query = self.parameters.iter().filter(|parameter| !parameter.in_path);
        of_query.map(|parameter| (parameter.name.clone(), parameter.valid.clone())).collect()
    }

    fn request(&self, what: String, target: &str, strange: bool) -> Request {
        // A body that says nothing, so that what is wrong is what is asked.
        let bytes = match self.body {
            Some(_) => self.with_body(target, "content-type: application/json\r\n", b"{}"),
            None => head(&self.method, target, ""),
        };
        Request { what, bytes, strange, ends: false }
    }

    fn with_body(&self, target: &str, headers: &str, body: &[u8]) -> Vec<u8> {
        let mut bytes = head(&self.method, target, &format!("{headers}content-length: {}\r\n", body.len()));
        bytes.extend_from_slice(body);
        bytes
    }

    /// With each parameter wrong in each way.
    fn with_wrong_parameters(&self) -> Vec<Request> {
        let mut requests = Vec::new();
        let pairs = self.pairs();
        for Parameter { name, in_path, required, valid } in &self.parameters {
            let huge = ["x".repeat(HUGE), "9".repeat(HUGE), "%41".repeat(HUGE / 3)];
            let upper = valid.to_uppercase();
            let wrong = [
                "",
                "true",
                "-1",
                "+1",
                "1.5",
                "1e3",
                "0x10",
                "99999999999999999999",
                "NaN",
                "null",
                "%5B%5D",
                "%7B%7D",
                "*",
                "%00",
                "%0d%0a",
                "%ff%fe",
                "%c0%80",
                "%ed%a0%80",
                "%e2%80%ae",
                "%F0%9F%98%80",
                "%",
                "%z",
                "%2",
                "%25",
                ";",
                "'%20OR%201",
                "%2e%2e%2f",
                "..",
                "+",
                "%20",
                "1,2",
                "http://x",
                &upper,
                &huge[0],
                &huge[1],
                &huge[2],
            ];
            for value in wrong {
                // What is right in this other case is not asked for: it could be done.
                if value == valid {
                    continue;
                }
                let what = format!("{name}={value:.20}");
                if *in_path {
                    // An empty segment, or one that goes up, is another path.
                    requests.push(self.request(what, &self.target(Some((name, value)), &pairs), true));
                } else {
                    let mut wrong = pairs.clone();
                    wrong.iter_mut().filter(|(known, _)| known == name).for_each(|(_, known)| *known = value.into());
                    requests.push(self.request(what, &self.target(None, &wrong), false));
                }
            }
            if *in_path {
                continue;
            }
            let without: Vec<_> = pairs.iter().filter(|(known, _)| known != name).cloned().collect();
            if *required {
                requests.push(self.request(format!("without {name}"), &self.target(None, &without), false));
            }
            for other in
                [name.to_uppercase(), name.replace('-', "_"), format!("{name}[]"), format!("%00{name}"), String::new()]
            {
                let renamed = [&without[..], &[(other.clone(), valid.clone())]].concat();
                let strange = other == *name;
                if !strange {
                    requests.push(self.request(format!("{other} for {name}"), &self.target(None, &renamed), false));
                }
            }
            let doubled = [&pairs[..], &[(name.clone(), valid.clone())]].concat();
            requests.push(self.request(format!("{name} twice"), &self.target(None, &doubled), false));
        }
        if self.parameters.iter().any(|parameter| !parameter.in_path) {
            let more = [&pairs[..], &[("no-such-thing".into(), "1".into())]].concat();
            requests.push(self.request("more than there is".into(), &self.target(None, &more), false));
            let many: Vec<_> = (0..5000).map(|number| (format!("p{number}"), "1".into())).collect();
            requests.push(self.request("very many".into(), &self.target(None, &many), false));
        }
        requests
    }

    /// With bodies that are wrong in each way, also for operations that take no body.
    fn with_wrong_bodies(&self) -> Vec<Request> {
        const JSON: &str = "content-type: application/json\r\n";
        let target = self.target(None, &self.pairs());
        let (members, example) = self.body.clone().unwrap_or_else(|| (vec!["x".into()], json!({})));
        let deep = "[".repeat(HUGE);
        let mut bodies: Vec<Vec<u8>> = [
            "",
            "null",
            "true",
            "1",
            "\"x\"",
            "[]",
            "[{}]",
            "{",
            "}",
            "{}{}",
            "{\"\": 1}",
            "{\"no-such-thing\": 1}",
            "{]",
            "nul",
            "\u{feff}{}",
            "{\"\\ud800\": 1}",
            "{'a': 1}",
            "{} //",
            &deep,
            "1e999999",
        ]
        .map(|text| text.as_bytes().to_vec())
        .into();
        bodies.push(b"{\"\xff\xfe\": \"\xc0\x80\"}".to_vec());
        bodies.push("{}".encode_utf16().flat_map(u16::to_le_bytes).collect());
        bodies.push(vec![b' '; 10 << 20]);
        for member in &members {
            let wrong =
                [json!([]), json!({}), json!(-1), json!(1.5), json!(""), json!("x".repeat(HUGE)), json!("\u{0}")];
            bodies.extend(wrong.into_iter().map(|value| json!({ member: value }).to_string().into_bytes()));
            bodies.push(json!({ member.to_uppercase(): example[member] }).to_string().into_bytes());
            bodies.push(format!("{{\"{member}\": null, \"{member}\": null}}").into_bytes());
            bodies.push(format!("{{\"{member}\": 1e999999}}").into_bytes());
        }
        let mut requests: Vec<_> = bodies
            .into_iter()
            .map(|body| Request {
                what: format!("the body {:.30}", String::from_utf8_lossy(&body[..body.len().min(99)])),
                bytes: self.with_body(&target, JSON, &body),
                strange: false,
                ends: false,
            })
            .collect();
        let wrong = json!({ "no-such-thing": 1 }).to_string().into_bytes();
        for headers in [
            "",
            "content-type: \r\n",
            "content-type: text/plain\r\n",
            "content-type: application/x-www-form-urlencoded\r\n",
            "content-type: multipart/form-data; boundary=x\r\n",
            "content-type: application/json; charset=utf-7\r\n",
            "content-type: application/json\r\ncontent-type: text/plain\r\n",
            "content-type: \u{fc}\r\n",
            "content-type: application/json\r\ncontent-encoding: gzip\r\n",
            "content-type: application/json\r\ncontent-encoding: \u{1f600}\r\n",
            "content-type: application/json\r\nexpect: 100-continue\r\n",
            "content-type: application/json\r\nexpect: x\r\n",
        ] {
            let (what, bytes) = (format!("a body with {headers:?}"), self.with_body(&target, headers, &wrong));
            requests.push(Request { what, bytes, strange: headers.contains("expect: x"), ends: false });
        }
        // Lengths and chunks that are wrong: no server has to take these for requests.
        for (headers, body) in [
            ("content-length: 100\r\n", "{}"),
            ("content-length: -1\r\n", "{}"),
            ("content-length: x\r\n", "{}"),
            ("content-length: 99999999999999999999\r\n", "{}"),
            ("content-length: 4294967296\r\n", "{}"),
            ("content-length: 2\r\ncontent-length: 3\r\n", "{}x"),
            ("transfer-encoding: chunked\r\n", "zz\r\nrubbish\r\n"),
            ("transfer-encoding: chunked\r\n", "ffffffffffffffff\r\n{}"),
            ("transfer-encoding: chunked\r\n", "5\r\n{}"),
            ("transfer-encoding: chunked\r\n", "-1\r\n"),
            ("transfer-encoding: chunked\r\n", "2;x=y\r\n{}\r\n0\r\nx: y\r\n\r\n"),
            ("transfer-encoding: gzip, chunked\r\n", "0\r\n\r\n"),
            ("transfer-encoding: rubbish\r\n", "{}"),
            ("transfer-encoding: chunked\r\ncontent-length: 2\r\n", "0\r\n\r\n"),
        ] {
            let mut bytes = head(&self.method, &target, &format!("{JSON}{headers}"));
            bytes.extend_from_slice(body.as_bytes());
            requests.push(Request { what: format!("{headers:?} and {body:?}"), bytes, strange: true, ends: true });
        }
        requests
    }

    /// With paths and lines that are nearly right.
    fn nearly_right(&self, all: &[Operation]) -> Vec<Request> {
        let target = self.target(None, &self.pairs());
        let (path, query) =
            target.split_once('?').map_or((&*target, String::new()), |(path, query)| (path, format!("?{query}")));
        let near = [
            format!("{path}/{query}"),
            format!("/{path}{query}"),
            format!("{}{query}", path.to_uppercase()),
            format!("{path}/..{query}"),
            format!("/.{path}{query}"),
            format!("{path}%00{query}"),
            format!("{path}%2f{query}"),
            format!("{path}\u{e9}{query}"),
            format!("{path};x=y{query}"),
            format!("{path}?{query}"),
            format!("{path}#{query}"),
            format!("http://other.example{path}{query}"),
            format!("{path}{query}&&&==&%"),
            format!("{path}?{}", "&".repeat(HUGE)),
            format!("{path}/{}", "x/".repeat(HUGE / 2)),
            format!("{path}?{}", "x".repeat(200_000)),
            path[1..].to_owned(),
            "*".into(),
        ];
        let mut requests: Vec<_> =
            near.iter().map(|target| self.request(format!("the target {target:.60}"), target, true)).collect();
        for method in
            ["GET", "PUT", "POST", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "CONNECT", "get", "X-RUBBISH", ""]
        {
            if method != self.method && !all.iter().any(|other| other.path == self.path && other.method == method) {
                let bytes = head(method, &target, "");
                requests.push(Request { what: format!("the method {method:?}"), bytes, strange: true, ends: true });
            }
        }
        requests
    }
}

fn send(port: u16, request: &Request) -> Raw {
    let mut stream = raw::connect(port);
    let _ = stream.write_all(&request.bytes);
    if request.ends {
        let _ = stream.shutdown(Shutdown::Write);
    }
    raw::answer(&mut stream)
}

/// What is wrong with an answer. None if nothing is.
fn fault(operation: &Operation, request: &Request, answer: &Raw) -> Option<String> {
    let Some(status) = answer.status else { return (!request.strange).then(|| "no answer".into()) };
    let documented = operation.codes.contains(&status) && status != 500;
    if !documented {
        return (!request.strange || !STRANGE.contains(&status)).then(|| "not documented".into());
    }
    // What is no HTTP is answered without a body.
    let framework = request.strange && STRANGE.contains(&status) && answer.body.is_empty();
    if status == 200 || operation.method == "HEAD" || framework {
        return None;
    }
    let error: Result<Value, _> = serde_json::from_str(&answer.body);
    match error.as_ref().map(|error| error["message"].as_str()) {
        Ok(Some(message)) if message.len() > 8 => None,
        Ok(_) => Some("no sentence".into()),
        Err(error) => Some(error.to_string()),
    }
}

/// Sends all that is wrong.
fn walk(node: &Daemon) {
    let (mut sent, mut faults) = (0, Vec::new());
    let operations = operations(node.port);
    for operation in &operations {
        let requests =
            [operation.with_wrong_parameters(), operation.with_wrong_bodies(), operation.nearly_right(&operations)]
                .concat();
        for request in &requests {
            let answer = send(node.port, request);
            if let Some(fault) = fault(operation, request, &answer) {
                let Operation { method, path, .. } = operation;
                faults.push(format!("{fault}: {method} {path} with {}: {answer:.300?}", request.what));
            }
        }
        sent += requests.len();
    }
    println!("{sent} requests to {} operations", operations.len());
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_wrong_with_a_request_is_refused_as_described_and_changes_nothing() {
    let ground = Ground::new();
    let node = ground.bootstrap().await;
    let known = || async {
        let answers = [node.get("/config").await, node.get("/map").await, node.get("/events").await];
        answers.map(|answer| answer.body)
    };
    let before = known().await;
    tokio::task::block_in_place(|| walk(&node));
    assert_eq!(known().await, before);
    node.get("/is-leader").await.ok::<Value>();
}

#[tokio::test(flavor = "multi_thread")]
async fn so_it_is_by_a_node_that_is_in_no_cluster() {
    let ground = Ground::new();
    let node = ground.node("stranger", &["run"]);
    node.until_get("/is-leader", 412).await;
    tokio::task::block_in_place(|| walk(&node));
    node.until_get("/is-leader", 412).await;
}
