//! Real daemons, and requests to them: every answer to every request is held against `openapi.yaml`.

pub mod raw;
mod wait;

use std::fmt;
use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use openapiv3::{OpenAPI, PathItem, StatusCode};
use qluster_consensus::model::{ClusterMap, Error, ErrorCode, Leader, NodeId};
use reqwest::{Method, Response};
use rustix::process::{Pid, Resource, Rlimit, Signal};
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use wait::{WAIT_DEADLINE, exited, holds, until};

// ---- what is promised ----

static PROMISED: LazyLock<OpenAPI> = LazyLock::new(|| {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../openapi.yaml");
    serde_norway::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
});

/// The codes that the operation documents. None if there is no such operation.
fn documented(method: &Method, path: &str) -> Option<Vec<u16>> {
    let path = path.split('?').next().unwrap();
    let fits = |template: &str| {
        let (one, other): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
        one.len() == other.len()
            && one.iter().zip(other).all(|(part, given)| part == &given || part.starts_with('{') && !given.is_empty())
    };
    let found = PROMISED.paths.iter().find(|(template, _)| fits(template))?;
    let PathItem { get, post, patch, delete, head, options, .. } = found.1.as_item().unwrap();
    let operation = match *method {
        Method::GET => get.as_ref(),
        Method::POST => post.as_ref(),
        Method::PATCH => patch.as_ref(),
        Method::DELETE => delete.as_ref(),
        Method::HEAD => head.as_ref(),
        Method::OPTIONS => options.as_ref(),
        _ => None,
    };
    let code = |status: &StatusCode| match status {
        StatusCode::Code(code) => *code,
        StatusCode::Range(range) => panic!("{method} {path} documents the range {range}XX"),
    };
    operation.map(|operation| operation.responses.responses.keys().map(code).collect())
}

// ---- answers ----

/// An answer that keeps what `openapi.yaml` promises.
pub struct Answer {
    asked: String,
    pub status: u16,
    pub body: String,
    pub took: Duration,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { asked, status, body, took } = self;
        // Requests and answers may be huge.
        write!(f, "{asked:.200} was answered after {took:?} with {status} {body:.1000}")
    }
}

impl Answer {
    async fn of(method: Method, path: &str, begun: Instant, response: Response) -> Self {
        let status = response.status().as_u16();
        let id = response.headers().get("x-request-id").map(|id| id.to_str().unwrap().to_owned());
        let body = response.text().await.unwrap();
        let answer = Self { asked: format!("{method} {path}"), status, body, took: begun.elapsed() };
        match documented(&method, path) {
            Some(codes) => assert!(codes.contains(&status), "not documented: {answer:?}"),
            None => assert!(matches!(status, 404 | 405), "no such operation: {answer:?}"),
        }
        assert_ne!(status, 500, "{answer:?}");
        assert!(id.is_some_and(|id| !id.is_empty()), "without x-request-id: {answer:?}");
        if method == Method::HEAD {
            assert!(answer.body.is_empty(), "{answer:?}");
        } else if status != 200 {
            let error = answer.error();
            assert!(error.message.len() > 8, "no sentence: {answer:?}");
            // An unknown path is answered by the framework, without a code.
            let code = error.error_code;
            assert!(code.status() == status || code == ErrorCode::Other && documented(&method, path).is_none());
        }
        answer
    }

    pub fn json<T: DeserializeOwned>(&self) -> T {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The body of a success.
    pub fn ok<T: DeserializeOwned>(&self) -> T {
        assert_eq!(self.status, 200, "{self:?}");
        self.json()
    }

    /// The body of anything else.
    pub fn error(&self) -> Error {
        assert_ne!(self.status, 200, "{self:?}");
        self.json()
    }

    /// The reason of an answer with `status`.
    pub fn refused(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{self:?}");
        self.error().message
    }

    /// A refusal that names the leader.
    pub fn names(&self, status: u16, leader: &Leader) {
        assert_eq!(self.status, status, "{self:?}");
        let named = self.error().leader.unwrap_or_else(|| panic!("names no leader: {self:?}"));
        assert_eq!((named.id, named.ip, named.api_port), (leader.id, leader.ip, leader.api_port), "{self:?}");
    }
}

// ---- daemons ----

/// A directory for nodes and databases. Each process that works in it is killed when this is dropped.
pub struct Ground(tempfile::TempDir);

impl Ground {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // The account of PostgreSQL has to get through it.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        Self(dir)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// A node of its own directory that starts with `arguments`.
    pub fn node(&self, name: &str, arguments: &[&str]) -> Daemon {
        let dir = self.0.path().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        let port = free_port();
        let mut daemon = Daemon { dir, port, http: client(), child: None };
        daemon.start(arguments);
        daemon
    }

    /// The first node of a cluster, as soon as it leads.
    pub async fn bootstrap(&self) -> Daemon {
        let node = self.node("1", &["bootstrap"]);
        node.until_get("/is-leader", 200).await;
        node
    }

    /// A cluster of three voters, as soon as each knows it. They are patient.
    pub async fn three(&self) -> [Daemon; 3] {
        let one = self.bootstrap().await;
        let url = one.url("");
        let nodes = [one, self.node("2", &["join", &url]), self.node("3", &["join", &url])];
        for node in &nodes {
            node.until("three voters", |map| map.nodes.values().filter(|node| node.votes()).count() == 3).await;
        }
        be_patient(&nodes.each_ref()).await;
        nodes
    }

    /// Where the database of a node is.
    pub fn database(&self, name: &str) -> String {
        self.0.path().join(name).join("database").to_str().unwrap().to_owned()
    }

    /// Whether a database works here.
    pub fn runs_a_database(&self) -> bool {
        !self.databases().is_empty()
    }

    /// Freezes all processes of databases, or lets them go on.
    pub fn pause_databases(&self, pause: bool) {
        self.databases().into_iter().for_each(|pid| signal(pid, if pause { Signal::STOP } else { Signal::CONT }));
    }

    fn databases(&self) -> Vec<i32> {
        let exe = |pid: &i32| std::fs::read_link(format!("/proc/{pid}/exe")).ok();
        let is_postgres = |pid: &i32| exe(pid).is_some_and(|exe| exe.ends_with("postgres"));
        self.processes().into_iter().filter(is_postgres).collect()
    }

    /// The processes that work here.
    pub fn processes(&self) -> Vec<i32> {
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let works_here =
            |pid: &i32| std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(self.0.path()));
        pids.filter(works_here).collect()
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        while let pids = self.processes()
            && !pids.is_empty()
        {
            pids.into_iter().for_each(|pid| signal(pid, Signal::KILL));
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// A node's process. It is killed when this is dropped. If the test has failed, the end of its log is shown.
pub struct Daemon {
    pub dir: PathBuf,
    pub port: u16,
    http: reqwest::Client,
    child: Option<Child>,
}

impl Daemon {
    /// Starts the process, the first time or again.
    pub fn start(&mut self, arguments: &[&str]) {
        let log = File::options().create(true).append(true).open(self.dir.join("log")).unwrap();
        // A write beyond a limit of its own (`limit_files`) fails then, as on a full disk.
        let mut command = Command::new("env");
        command.args(["--ignore-signal=XFSZ", env!("CARGO_BIN_EXE_qluster-server")]);
        // Settings of whoever runs the tests are not theirs.
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("QLUSTER_") && name != "QLUSTER_LOG") {
            command.env_remove(name);
        }
        command.current_dir(&self.dir).args(["--ip", "127.0.0.1", "--api-port", &self.port.to_string()]);
        command.arg("--data-dir").arg(self.dir.join("data")).args(arguments);
        self.child = Some(command.stderr(log).spawn().unwrap());
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Asks, and holds the answer against the description.
    pub async fn ask(&self, method: Method, path: &str, json: Option<Value>) -> Answer {
        let body = json.map(|json| (json.to_string().into_bytes(), "application/json"));
        self.ask_raw(method, path, body).await
    }

    /// The same with any body, and its content type.
    pub async fn ask_raw(&self, method: Method, path: &str, body: Option<(Vec<u8>, &'static str)>) -> Answer {
        let begun = Instant::now();
        let mut request = self.http.request(method.clone(), self.url(path));
        if let Some((body, kind)) = body {
            request = request.header("content-type", kind).body(body);
        }
        let response = request.send().await.unwrap_or_else(|error| panic!("{method} {path}: {error:?}"));
        Answer::of(method, path, begun, response).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, None).await
    }

    pub async fn post(&self, path: &str) -> Answer {
        self.ask(Method::POST, path, None).await
    }

    pub async fn patch(&self, path: &str) -> Answer {
        self.ask(Method::PATCH, path, None).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.ask(Method::DELETE, path, None).await
    }

    pub async fn configure(&self, json: Value) -> Answer {
        self.ask(Method::POST, "/config", Some(json)).await
    }

    pub async fn map(&self) -> ClusterMap {
        self.get("/map").await.ok()
    }

    /// Asks without being answered yet: a long poll, say.
    pub fn ask_later(&self, path: String) -> tokio::task::JoinHandle<Result<Answer, reqwest::Error>> {
        let (http, url) = (client(), self.url(&path));
        tokio::spawn(async move {
            let begun = Instant::now();
            let response = http.get(url).send().await?;
            Ok(Answer::of(Method::GET, &path, begun, response).await)
        })
    }

    /// Asks until the answer has `status`, from before the node listens.
    pub async fn until_get(&self, path: &str, status: u16) -> Answer {
        let begun = Instant::now();
        until(&format!("{path} is {status}"), WAIT_DEADLINE, async || {
            let response = self.http.get(self.url(path)).send().await.map_err(|error| error.to_string())?;
            let answer = Answer::of(Method::GET, path, begun, response).await;
            if answer.status == status { Ok(answer) } else { Err(format!("{answer:?}")) }
        })
        .await
    }

    /// Asks until it is refused with `reason`.
    pub async fn until_refused(&self, path: &str, reason: &str) {
        until(&format!("{path} is refused with `{reason}`"), WAIT_DEADLINE, async || {
            let message = self.until_get(path, 412).await.error().message;
            holds(message.contains(reason), message)
        })
        .await;
    }

    /// The map as soon as it is as `wanted`.
    pub async fn until(&self, what: &str, wanted: impl Fn(&ClusterMap) -> bool) -> ClusterMap {
        self.until_get("/map", 200).await;
        until(what, WAIT_DEADLINE, async || {
            let map = self.map().await;
            if wanted(&map) { Ok(map) } else { Err(map) }
        })
        .await
    }

    /// Ends the process at once.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Asks the process to end, and waits until it has.
    pub async fn terminate(&mut self) -> (ExitStatus, Duration) {
        self.signal(Signal::TERM);
        self.ended().await
    }

    /// Waits until the process has ended.
    pub async fn ended(&mut self) -> (ExitStatus, Duration) {
        let begun = Instant::now();
        let status = exited(self.child.as_mut().unwrap()).await;
        self.child = None;
        (status, begun.elapsed())
    }

    /// From now on the process can write no file beyond `bytes`.
    pub fn limit_files(&self, bytes: u64) {
        let limit = Rlimit { current: Some(bytes), maximum: Some(bytes) };
        let pid = Pid::from_child(self.child.as_ref().unwrap());
        rustix::process::prlimit(Some(pid), Resource::Fsize, limit).unwrap();
    }

    /// Sends the process a signal.
    pub fn signal(&self, kind: Signal) {
        let child = self.child.as_ref().unwrap();
        signal(child.id().try_into().unwrap(), kind);
    }

    /// The memory that the process has, in KiB.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.as_ref().unwrap().id())).unwrap();
        let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        memory.trim().trim_end_matches(" kB").parse().unwrap()
    }

    pub fn is_alive(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            let tail: Vec<_> = log.lines().rev().take(20).collect();
            eprintln!("---- {} ----", self.dir.display());
            tail.into_iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}

/// The leader that all of `nodes` agree on.
pub async fn leader(nodes: &[&Daemon]) -> Leader {
    until("the nodes agree on a leader", WAIT_DEADLINE, async || {
        let mut leaders = Vec::new();
        for node in nodes {
            let answer = node.get("/leader").await;
            if answer.status == 200 {
                leaders.push(answer.ok::<Leader>());
            }
        }
        let all = leaders.len() == nodes.len();
        leaders.dedup();
        if let (true, [leader]) = (all, &leaders[..]) { Ok(leader.clone()) } else { Err(leaders) }
    })
    .await
}

/// Makes nodes patient: what else the machine has to do, such as to start a browser, costs the leader no lease, and a
/// switchover is given up later.
pub async fn be_patient(nodes: &[&Daemon]) {
    let settings = serde_json::json!({"node-timeout": "3s", "leader-voting-timeout": "3s"});
    until("the settings are confirmed", WAIT_DEADLINE, async || {
        let (leads, _) = parted(nodes, &leader(nodes).await);
        let answer = leads.configure(settings.clone()).await;
        // It may be confirmed only once Raft counts a vote that the map names already.
        assert!(matches!(answer.status, 200 | 410 | 417 | 420 | 530), "{answer:?}");
        holds(answer.status == 200, answer)
    })
    .await;
}

/// The leader after `before`, whom the others name for a while after it is gone.
pub async fn leader_after(nodes: &[&Daemon], before: &Leader) -> Leader {
    until(&format!("somebody leads after {before:?}"), WAIT_DEADLINE, async || {
        let now = leader(nodes).await;
        if now.term > before.term { Ok(now) } else { Err(now) }
    })
    .await
}

/// Of `nodes`, the one that `leader` is, and the others.
pub fn parted<'a>(nodes: &[&'a Daemon], leader: &Leader) -> (&'a Daemon, Vec<&'a Daemon>) {
    let (leads, follow): (Vec<_>, Vec<_>) = nodes.iter().partition(|node| node.port == leader.api_port.get());
    (leads[0], follow)
}

/// The id of a node by the map.
pub fn id_of(map: &ClusterMap, node: &Daemon) -> NodeId {
    map.nodes.values().find(|known| known.api_port.get() == node.port).unwrap().id
}

pub fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

fn client() -> reqwest::Client {
    // Nothing may hang: a request that takes longer is a failure.
    reqwest::Client::builder().no_proxy().timeout(WAIT_DEADLINE).build().unwrap()
}

pub fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}
