//! Nodes that answer from a script, on real sockets.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

/// What the cluster is like.
#[derive(Clone, Copy, Debug, Default)]
pub struct World {
    /// Node 3 is gone.
    pub lost: bool,
    /// Nobody leads.
    pub leaderless: bool,
    /// No node has a database.
    pub bare: bool,
    /// The nodes are of a version without `/status`.
    pub old: bool,
    /// Requests without this token are refused.
    pub token: Option<&'static str>,
}

/// Nodes that answer until the test ends.
pub struct Nodes {
    pub ports: [u16; 3],
    pub seen: Arc<Mutex<Vec<(String, String)>>>,
}

impl Nodes {
    pub fn new(world: World) -> Self {
        let listeners = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let ports = [0, 1, 2].map(|index: usize| listeners[index].local_addr().unwrap().port());
        let seen = Arc::new(Mutex::new(Vec::new()));
        for (id, listener) in (1..).zip(listeners) {
            if id == 3 && world.lost {
                continue; // Dropped: connections are refused.
            }
            let seen = seen.clone();
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let seen = seen.clone();
                    std::thread::spawn(move || {
                        serve(stream, |line, token| answer(world, ports, id, line, token), &seen)
                    });
                }
            });
        }
        Self { ports, seen }
    }

    /// What was asked that changes something: the first line, and the body without what is null.
    pub fn changes(&self) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        let changes = seen.iter().filter(|(line, _)| !line.starts_with("GET"));
        let whole = changes.map(|(line, body)| {
            let body: Option<serde_json::Map<String, Value>> = serde_json::from_str(body).ok();
            let given = body.into_iter().flatten().filter(|(_, value)| !value.is_null());
            let given = given.map(|(name, value)| format!(" {name}={value}")).collect::<String>();
            self.masked(&format!("{line}{given}"))
        });
        whole.collect()
    }

    /// A text without what differs from run to run. Ports of the system's choice have as many digits as these.
    pub fn masked(&self, text: &str) -> String {
        let ports = self.ports.iter().zip(["10001", "10002", "10003"]);
        ports.fold(text.to_owned(), |text, (port, name)| text.replace(&port.to_string(), name))
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_qluster"));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"QLUSTER_")) {
            command.env_remove(name);
        }
        let [one, two, _] = self.ports;
        command.env("QLUSTER_ADDRESS", format!("http://127.0.0.1:{one},http://127.0.0.1:{two}"));
        command.env_remove("NO_COLOR").env_remove("COLUMNS").args(arguments).stdin(Stdio::null());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }
}

fn serve(stream: TcpStream, answer: impl Fn(&str, Option<&str>) -> (u16, Value), seen: &Mutex<Vec<(String, String)>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut writer = stream;
    loop {
        let (mut first, mut length, mut token) = (String::new(), 0, None);
        if reader.read_line(&mut first).unwrap_or(0) == 0 {
            return;
        }
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.parse().unwrap(),
                "authorization" => token = value.strip_prefix("Bearer ").map(str::to_owned),
                _ => {}
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let line = first.trim_end().trim_end_matches(" HTTP/1.1").to_owned();
        let body = String::from_utf8(body).unwrap();
        seen.lock().unwrap().push((line.clone(), body));
        let (status, body) = answer(&line, token.as_deref());
        let body = body.to_string();
        let head =
            format!("HTTP/1.1 {status} -\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
        if writer.write_all((head + &body).as_bytes()).is_err() {
            return;
        }
    }
}

/// What node `id` answers.
fn answer(world: World, ports: [u16; 3], id: usize, line: &str, token: Option<&str>) -> (u16, Value) {
    let refuse = |status: u16, code: &str, message: &str| {
        let leader = (status == 417).then(|| leader(world, ports));
        (status, json!({"message": message, "error-code": code, "request-id": "1", "leader": leader}))
    };
    match (world.token, token) {
        (Some(_), None) => return refuse(401, "unauthenticated", "no credential was given"),
        (Some(wanted), Some(given)) if wanted != given => return refuse(401, "unauthenticated", "the token is wrong"),
        (Some("read"), _) if !line.starts_with("GET") => return refuse(403, "forbidden", "this needs the token admin"),
        _ => {}
    }
    let leaderless = "no majority: of 3 voters, this node reaches 1, itself included";
    let path = line.split(' ').nth(1).unwrap().split('?').next().unwrap();
    match (line.split(' ').next().unwrap(), path) {
        ("GET", "/map") => (200, map(world, ports)),
        ("GET", "/status") if world.old => (404, json!({"message": "Not Found", "request_id": "1"})),
        ("GET", "/status") => (200, status(world, id)),
        (_, "/leader") if world.leaderless => refuse(530, "no-leader", leaderless),
        ("GET", "/leader") => (200, leader(world, ports)),
        ("POST", "/leader") if line.contains("node=3") => {
            refuse(412, "precondition-failed", "node 3 is not fit: its database does not stream")
        }
        ("POST", "/leader") => {
            (200, json!({"id": 2, "term": 8, "ip": "127.0.0.1", "api-port": ports[1], "db-port": 5442}))
        }
        ("GET", "/config") => (200, config()),
        ("POST", "/config") if line.contains("config") => {
            let mut config = config();
            config["node-timeout"] = json!("2s");
            (200, config)
        }
        ("POST", "/node") => (200, node(world, 4, 8084, "listener", "up", None)),
        ("PATCH", _) => (200, node(world, 3, ports[2], "voter", "up", None)),
        ("POST", _) => {
            (200, node(world, 3, ports[2], "voter", "down", Some("declared down: its database has problems")))
        }
        ("DELETE", _) => (200, node(world, 3, ports[2], "voter", "up", None)),
        ("GET", "/events") => (200, events()),
        ("GET", "/sql/readonly") => (200, readonly()),
        ("GET", "/db-config") => (200, db_config()),
        _ => refuse(404, "not-found", "there is no such path"),
    }
}

fn leader(world: World, ports: [u16; 3]) -> Value {
    let db_port = (!world.bare).then_some(5441);
    json!({"id": 1, "term": 7, "ip": "127.0.0.1", "api-port": ports[0], "db-port": db_port})
}

fn node(world: World, id: u16, api_port: u16, role: &str, state: &str, reason: Option<&str>) -> Value {
    let db_port = (!world.bare && role == "voter").then_some(5440 + id);
    json!({"id": id, "ip": "127.0.0.1", "db-port": db_port, "api-port": api_port, "role": role, "upgrade-to": "voter",
        "state": state, "reason": reason})
}

fn config() -> Value {
    json!({"node-timeout": "1s", "pre-voting-timeout": "500ms", "leader-voting-timeout": "1s",
        "heartbeat-interval": "200ms", "replication-factor": 2, "quorum-replication": true,
        "replication-retry-interval": "500ms", "autoremove-enabled": false, "autoremove-minimum": 3})
}

fn map(world: World, ports: [u16; 3]) -> Value {
    let third = match world.lost {
        true => node(world, 3, ports[2], "voter", "unreachable", Some("node 1 does not reach it: no answer for 1s")),
        false => node(world, 3, ports[2], "voter", "up", None),
    };
    let nodes = json!({"1": node(world, 1, ports[0], "voter", "up", None),
        "2": node(world, 2, ports[1], "voter", "up", None), "3": third});
    let reason = "no majority: of 3 voters, this node reaches 1, itself included";
    json!({"leader": (!world.leaderless).then_some(1), "reason": world.leaderless.then_some(reason), "nodes": nodes,
        "config": config(), "term": 7, "index": 42})
}

fn status(world: World, id: usize) -> Value {
    let database = |id: usize, role: &str, lag: Option<u64>, unfit: Option<&str>| {
        let standby = role == "standby";
        let whole = json!({"role": role, "unfit": unfit, "lsn": "16/B374D848", "replayed": standby.then_some("16/B374D848"),
            "lag": lag, "wal-term": 7, "timeline": 3, "follows": standby.then_some(1),
            "streaming": standby && unfit.is_none(), "progress": null});
        let database = if world.bare { Value::Null } else { whole };
        json!({"id": id, "applied-index": 42, "sees": [], "database": database, "note": null})
    };
    let full = "its disk is full: 12 MB are left, and 48 MB are needed";
    let all = [
        database(1, if world.leaderless { "standby" } else { "primary" }, (!world.leaderless).then_some(0), None),
        database(2, "standby", (!world.leaderless).then_some(16_777_216), None),
        database(3, "standby", None, Some(full)),
    ];
    let heard = all.into_iter().zip(1..).filter(|(_, of)| *of != 3 || !world.lost);
    let nodes: serde_json::Map<String, Value> = heard.map(|(node, of)| (of.to_string(), node)).collect();
    json!({"node": id, "nodes": nodes})
}

fn events() -> Value {
    let event = |index: u64, kind: &str, node: Option<u64>, cause: &str, actor: &str| {
        json!({"index": index, "time": format!("2026-01-31T12:00:{index:02}.123Z"), "term": 7, "kind": kind, "node": node,
            "cause": cause, "actor": actor})
    };
    json!([
        event(1, "cluster-created", None, "bootstrap", "node 1"),
        event(2, "leader-elected", Some(1), "elected in term 7", "node 1"),
        event(9, "config-changed", None, "node-timeout: 1s", "operator at 10.0.0.9"),
    ])
}

fn readonly() -> Value {
    json!([{"database": "shop", "algorithm": "pg_query-fingerprint", "version": "3", "postgresql": 15, "generation": 12,
        "hashes": ["50fde20626009aba"]}])
}

fn db_config() -> Value {
    let setting = |name: &str, value: &str, unit: Option<&str>, pending: bool| json!({"name": name, "value": value, "unit": unit, "source": "configuration file", "pending-restart": pending});
    let settings = [setting("port", "5441", None, false), setting("shared_buffers", "16384", Some("8kB"), true)];
    json!({"version": "15.4", "system-identifier": "7111111111111111111", "settings": settings})
}
