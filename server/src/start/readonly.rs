//! Starts the rounds that find out which statements do not write. A program that was built without the feature
//! `readonly-statements`, and so without PostgreSQL's parser, records in the cluster why there is no list instead.

#[cfg(any(test, not(feature = "readonly-statements")))]
#[cfg_attr(feature = "readonly-statements", allow(dead_code, reason = "only its decision is tested"))]
mod without;

use std::sync::Arc;

use qluster_consensus::node::cluster::Cluster;

use crate::database::Postgres;
use crate::tasks::Tasks;

#[cfg(feature = "readonly-statements")]
pub(super) fn start(postgres: &Arc<Postgres>, cluster: &Cluster, tasks: &Tasks) {
    let (server, cluster) = (postgres.clone(), cluster.clone());
    tasks.run("judging statements", crate::statements::run(server, cluster));
}

#[cfg(not(feature = "readonly-statements"))]
pub(super) fn start(_: &Arc<Postgres>, cluster: &Cluster, tasks: &Tasks) {
    tasks.run("withdrawing statements", without::run(cluster.clone()));
}

#[cfg(feature = "readonly-statements")]
impl crate::statements::Server for Postgres {
    fn is_primary(&self) -> bool {
        self.role() == qluster_consensus::protocol::database::DatabaseRole::Primary
    }

    fn connect<'a>(&'a self, database: &'a str) -> crate::statements::Connecting<'a> {
        Box::pin(async move { Ok(self.connect_to_look(database).await?) })
    }
}
