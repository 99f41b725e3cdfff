//! A node whose disk fails: it says so and stops, for as long as it runs.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use qluster_consensus::env::clock::Clock;
use qluster_consensus::env::random::Random;
use qluster_consensus::model::{ConfigUpdate, Node, NodeId, NodeRole, NodeState, Port};
use qluster_consensus::node::cluster::{Cluster, ClusterError, Parts};
use qluster_consensus::protocol::version::{Spoken, Versions};
use qluster_consensus::raft::store::Store;
use qluster_consensus::raft::transport::{PeerRequest, PeerResponse, Transport, TransportError};
use redb::StorageBackend;
use redb::backends::InMemoryBackend;

use crate::support::{WAIT_DEADLINE, holds, until};

/// A disk that can be made to fail.
#[derive(Debug)]
struct Disk {
    inner: InMemoryBackend,
    full: Arc<AtomicBool>,
}

impl Disk {
    fn check(&self) -> Result<(), io::Error> {
        match self.full.load(Ordering::SeqCst) {
            true => Err(io::Error::new(io::ErrorKind::StorageFull, "no space left on device")),
            false => Ok(()),
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> Result<u64, io::Error> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.check()?;
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.check()?;
        self.inner.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.check()?;
        self.inner.write(offset, data)
    }
}

/// Nobody else is there.
struct Alone;

impl Transport for Alone {
    fn call(
        &self,
        node: NodeId,
        address: SocketAddr,
        _: PeerRequest,
        _: Duration,
    ) -> BoxFuture<'static, Result<PeerResponse, TransportError>> {
        let reason = "nobody is there".into();
        futures::future::ready(Err(TransportError::Unreachable { node, address, reason })).boxed()
    }

    fn forget(&self, _: NodeId) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_disk_is_full_says_so_leads_no_more_and_does_not_try_again() {
    let full = Arc::new(AtomicBool::new(false));
    let store = Store::with_backend(Disk { inner: InMemoryBackend::new(), full: full.clone() }).unwrap();
    let node = Node {
        id: NodeId(1),
        ip: [127, 0, 0, 1].into(),
        db_port: None,
        api_port: Port::constant(8001),
        role: NodeRole::Voter,
        upgrade_to: NodeRole::Voter,
        state: NodeState::Up,
        reason: None,
    };
    let parts = Parts {
        store,
        transport: Arc::new(Alone),
        database: None,
        clock: Clock::boottime(),
        random: Random::from_os(),
        versions: Spoken::new(Versions::KNOWN),
    };
    let cluster = Cluster::create(parts, node).await.unwrap();
    until("it leads", WAIT_DEADLINE, async || cluster.is_leader()).await;
    let update = |minimum| ConfigUpdate { autoremove_minimum: Some(minimum), ..Default::default() };
    cluster.set_config(update(5), "test").await.unwrap();

    full.store(true, Ordering::SeqCst);
    let error = cluster.set_config(update(6), "test").await.unwrap_err();
    println!("{error}");
    until("it stops", WAIT_DEADLINE, async || {
        let leads = cluster.is_leader();
        holds(matches!(leads, Err(ClusterError::Unavailable(_))), leads)
    })
    .await;
    // There is room again, but nobody knows what was lost.
    full.store(false, Ordering::SeqCst);
    for error in [
        cluster.set_config(update(7), "test").await.map(drop).unwrap_err(),
        cluster.map().map(drop).unwrap_err(),
        cluster.leader().map(drop).unwrap_err(),
    ] {
        assert!(matches!(&error, ClusterError::Unavailable(reason) if reason.contains("no space left")), "{error:?}");
    }
    assert_eq!(cluster.lease_end(), None);
}
