//! Three nodes of etcd on this machine, with the timeouts of qluster.

use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::cluster::beside::Beside;
use crate::cluster::{Cluster, NODES, ports};
use crate::wait::{Look, until};
use crate::{http, install};

/// A write through the gateway that speaks JSON: `a` = `b`.
pub(super) const PUT: (&str, &str) = ("/v3/kv/put", r#"{"key": "YQ==", "value": "Yg=="}"#);

/// The defaults of `heartbeat-interval` and `node-timeout` in qluster, in milliseconds.
const HEARTBEAT: &str = "200";
const ELECTION: &str = "1000";

/// How long they may take to start and to elect a leader, with much to spare.
const LIMIT: Duration = Duration::from_secs(60);

/// Its nodes. They end when this is dropped.
pub(super) struct Etcd {
    dir: PathBuf,
    clients: [SocketAddrV4; NODES],
    peers: [SocketAddrV4; NODES],
    nodes: [Option<Beside>; NODES],
}

impl Etcd {
    /// Starts the nodes. Their files are beside those of the cluster, so that both write to the same disk.
    pub(super) fn start(cluster: &Cluster) -> Result<Self> {
        let addresses: [SocketAddrV4; 2 * NODES] = ports::local()?;
        let dir = cluster.dir().join("etcd");
        let mut etcd = Self {
            dir,
            clients: std::array::from_fn(|node| addresses[node]),
            peers: std::array::from_fn(|node| addresses[NODES + node]),
            nodes: [const { None }; NODES],
        };
        (0..NODES).try_for_each(|node| etcd.start_node(cluster, node))?;
        etcd.wait()?;
        Ok(etcd)
    }

    /// The addresses of its nodes for clients.
    pub(super) fn clients(&self) -> &[SocketAddrV4] {
        &self.clients
    }

    pub(super) fn start_node(&mut self, cluster: &Cluster, node: usize) -> Result<()> {
        let name = |node: usize| format!("etcd{}", node + 1);
        let url = |at: SocketAddrV4| format!("http://{at}");
        let all: Vec<_> = (0..NODES).map(|node| format!("{}={}", name(node), url(self.peers[node]))).collect();
        let (client, peer) = (url(self.clients[node]), url(self.peers[node]));
        let mut command = install::tool("etcd", "etcd-server")?;
        command.args(["--name", &name(node)]).arg("--data-dir").arg(self.dir.join(name(node)));
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &all.join(","), "--logger", "zap", "--log-level", "error"]);
        command.args(["--heartbeat-interval", HEARTBEAT, "--election-timeout", ELECTION]);
        self.nodes[node] = Some(Beside::start(cluster, &name(node), command)?);
        Ok(())
    }

    /// Kills a node.
    pub(super) fn kill(&mut self, node: usize) {
        self.nodes[node] = None;
    }

    /// Waits until all nodes follow the same leader, and returns that node's index.
    pub(super) fn wait(&self) -> Result<usize> {
        until("all nodes of etcd follow one leader", LIMIT, Duration::from_millis(50), || {
            let seats: Result<Vec<Seat>> = self.clients.iter().map(|&client| seat(client)).collect();
            Ok(match seats {
                Ok(seats) if seats.iter().any(|seat| seat.leader != seats[0].leader) => {
                    Look::NotYet(format!("{seats:?}"))
                }
                Ok(seats) => match seats.iter().position(|seat| seat.member == seat.leader) {
                    Some(leader) => Look::Done(leader),
                    None => Look::NotYet(format!("{seats:?}")),
                },
                Err(error) => Look::NotYet(format!("{error:#}")),
            })
        })
    }
}

/// The id of a node, and that of the leader it follows.
#[derive(Debug)]
struct Seat {
    member: String,
    leader: String,
}

fn seat(client: SocketAddrV4) -> Result<Seat> {
    let answer = http::ask("POST", client, "/v3/maintenance/status", "{}", http::TIMEOUT)?;
    if answer.status != 200 {
        bail!("etcd at {client} answers {}: {}", answer.status, answer.body.trim());
    }
    let status: Value = serde_json::from_str(&answer.body).with_context(|| format!("reading {:?}", answer.body))?;
    let text = |pointer| status.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    match (text("/header/member_id"), text("/leader")) {
        (Some(member), Some(leader)) => Ok(Seat { member, leader }),
        _ => bail!("expected `header.member_id` and `leader`, got {}", answer.body),
    }
}
