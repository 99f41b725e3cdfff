//! openraft's own tests of a log store and a state machine.

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};

use super::Store;
use crate::protocol::version::{Spoken, Versions};
use crate::raft::state_machine::StateMachine;
use crate::raft::types::TypeConfig;

struct OnFile;
struct InLine;

impl StoreBuilder<TypeConfig, Store, StateMachine, tempfile::TempDir> for OnFile {
    async fn build(&self) -> Result<(tempfile::TempDir, Store, StateMachine), StorageError<TypeConfig>> {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::create(&directory.path().join("store")).unwrap();
        Ok((directory, store.clone(), StateMachine::new(store, Spoken::new(Versions::KNOWN)).unwrap()))
    }
}

impl StoreBuilder<TypeConfig, Store, StateMachine, ()> for InLine {
    async fn build(&self) -> Result<((), Store, StateMachine), StorageError<TypeConfig>> {
        let store = Store::with_backend_in_line(redb::backends::InMemoryBackend::new()).unwrap();
        Ok(((), store.clone(), StateMachine::new(store, Spoken::new(Versions::KNOWN)).unwrap()))
    }
}

#[tokio::test]
async fn store_and_state_machine_on_a_file_pass_openrafts_suite() {
    Suite::test_all(OnFile).await.unwrap();
}

#[tokio::test]
async fn store_and_state_machine_that_write_in_line_pass_openrafts_suite() {
    Suite::test_all(InLine).await.unwrap();
}
