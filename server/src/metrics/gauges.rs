//! Gauges: their values are read at each scrape.

use prometheus::GaugeVec;
use qluster_consensus::model::{ClusterMap, ClusterStatus, DatabaseRole, Lsn, NodeState};
use qluster_consensus::node::cluster::Cluster;

use super::table::Table;

/// All roles that a database may have, as their label is.
const ROLES: [(DatabaseRole, &str); 6] = [
    (DatabaseRole::Absent, "absent"),
    (DatabaseRole::Stopped, "stopped"),
    (DatabaseRole::Starting, "starting"),
    (DatabaseRole::Rebuilding, "rebuilding"),
    (DatabaseRole::Standby, "standby"),
    (DatabaseRole::Primary, "primary"),
];

macro_rules! gauges {
    ($($field:ident: $name:literal, [$($label:literal),*], $help:literal;)*) => {
        /// The gauges.
        pub(super) struct Gauges {
            $($field: GaugeVec,)*
        }

        impl Gauges {
            pub(super) fn new(table: &mut Table) -> Result<Self, prometheus::Error> {
                Ok(Self { $($field: table.gauge($name, &[$($label),*], $help)?,)* })
            }

            /// Forgets all values: nodes may be gone.
            fn reset(&self) {
                $(self.$field.reset();)*
            }
        }
    };
}

gauges! {
    build: "qluster_build_info", ["version"], "Always 1; the label is the daemon's version.";
    node: "qluster_node_info", ["node", "cluster"], "Always 1; the labels are the ids of the node and of its cluster.";
    running: "qluster_consensus_running", [], "Whether the node takes part in a cluster and its consensus runs.";
    leads: "qluster_is_leader", [], "Whether this node is the leader: elected, announced, and with a lease that holds.";
    leader: "qluster_has_leader", [], "Whether this node knows a leader.";
    term: "qluster_term", [], "The newest term that this node knows.";
    lease: "qluster_lease_remaining_seconds", [], "Time until the lease of this node ends; 0 if it has none.";
    voters: "qluster_voters", [], "Voters of the cluster, by the committed membership.";
    seen: "qluster_voters_reachable", [], "Voters that this node reaches, including itself.";
    last: "qluster_log_last_index", [], "Index of the last entry in this node's copy of the cluster's log.";
    applied: "qluster_log_applied_index", [], "Index of the last entry that this node has applied.";
    up: "qluster_node_up", ["node", "role"], "Whether a node is up: neither unreachable nor declared down.";
    role: "qluster_database_role", ["role"], "1 for the role of this node's database, 0 for all other roles.";
    fit: "qluster_database_fit", [], "Whether the database of this node is fit: its node may become the leader.";
    admits: "qluster_database_admits_clients", [], "Whether the database of this node is a primary that lets clients in.";
    streaming: "qluster_database_streaming", ["node"], "Whether the database of a node receives WAL at this moment.";
    timeline: "qluster_database_timeline", [], "Timeline of the database of this node.";
    wal: "qluster_wal_position_bytes", ["node"], "End of the WAL of a node's database: its LSN as a number.";
    lag: "qluster_wal_lag_bytes", ["node"], "Bytes of the primary's WAL that a node's database lacks.";
    replay: "qluster_wal_replay_lag_bytes", ["node"], "Bytes of the primary's WAL that a node's database has not replayed.";
    sync_required: "qluster_sync_standbys_required", [], "How many standbys must hold a commit before it is acknowledged, by the sync rule of this primary.";
    sync_standbys: "qluster_sync_standbys", [], "How many standbys count for that rule.";
    sync_held: "qluster_sync_rule_proven", [], "Whether all acknowledged commits are held as the sync rule of this primary asks.";
}

impl Gauges {
    /// Sets all to their values now.
    pub(super) fn set(&self, cluster: Option<&Cluster>) {
        self.reset();
        set(&self.build, &[env!("CARGO_PKG_VERSION")], 1.0);
        let map = cluster.map(Cluster::map).and_then(Result::ok);
        set(&self.running, &[], truth(map.is_some()));
        if let (Some(cluster), Some(map)) = (cluster, map) {
            self.set_consensus(cluster, &map);
            if let Ok(status) = cluster.status() {
                self.set_databases(cluster, &status);
            }
        }
    }

    fn set_consensus(&self, cluster: &Cluster, map: &ClusterMap) {
        let (identity, vitals) = (cluster.identity(), cluster.vitals());
        set(&self.node, &[&identity.node.to_string(), &identity.cluster.to_string()], 1.0);
        set(&self.leads, &[], truth(map.leader == Some(identity.node)));
        set(&self.leader, &[], truth(map.leader.is_some()));
        set(&self.term, &[], map.term.0 as f64);
        set(&self.lease, &[], vitals.lease_left.unwrap_or_default().as_secs_f64());
        set(&self.voters, &[], vitals.voters as f64);
        set(&self.seen, &[], vitals.voters_seen as f64);
        set(&self.last, &[], vitals.last_index.0 as f64);
        set(&self.applied, &[], vitals.applied_index.0 as f64);
        for node in map.nodes.values() {
            let up = truth(node.state == NodeState::Up);
            set(&self.up, &[&node.id.to_string(), &node.role.to_string()], up);
        }
        if let Some(rule) = vitals.sync_rule {
            set(&self.sync_required, &[], rule.count as f64);
            set(&self.sync_standbys, &[], rule.standbys.len() as f64);
            set(&self.sync_held, &[], truth(vitals.sync_rule_proven));
        }
    }

    fn set_databases(&self, cluster: &Cluster, status: &ClusterStatus) {
        for (id, node) in &status.nodes {
            let (node, Some(database)) = (id.to_string(), &node.database) else { continue };
            set(&self.streaming, &[&node], truth(database.streaming));
            set_some(&self.wal, &[&node], database.lsn.map(|Lsn(lsn)| lsn));
            set_some(&self.lag, &[&node], database.lag);
            set_some(&self.replay, &[&node], database.replay_lag);
        }
        let own = status.nodes.get(&status.node).and_then(|node| node.database.as_ref());
        if let Some(database) = own {
            for (role, name) in ROLES {
                set(&self.role, &[name], truth(database.role == role));
            }
            set(&self.fit, &[], truth(database.unfit.is_none()));
            set(&self.admits, &[], truth(cluster.admits()));
            set_some(&self.timeline, &[], database.timeline.map(u64::from));
        }
    }
}

fn set(gauge: &GaugeVec, labels: &[&str], value: f64) {
    gauge.with_label_values(labels).set(value);
}

/// An unknown value is left out: a 0 would be wrong.
fn set_some(gauge: &GaugeVec, labels: &[&str], value: Option<u64>) {
    if let Some(value) = value {
        set(gauge, labels, value as f64);
    }
}

fn truth(holds: bool) -> f64 {
    f64::from(u8::from(holds))
}
