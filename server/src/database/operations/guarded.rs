//! The guard of a database (`crate::guard`).

use crate::database::Postgres;
use crate::database::error::{Error, Result};
use crate::guard::{Guard, GuardConfig, Hold, WatchdogSettings};

impl Postgres {
    /// Makes each promotion wait for a guard from now on. The caller has to run the guard. A second call changes nothing.
    pub fn guarded_with(&self, watchdog: WatchdogSettings) -> Guard {
        let data_dir = &self.data_dir;
        let config = || GuardConfig {
            // By this name, the program is found even after an upgrade has replaced it.
            program: "/proc/self/exe".into(),
            data_dir: data_dir.path.clone(),
            run_dir: data_dir.run_dir.clone(),
            programs: data_dir.programs.on_data(),
            watchdog,
        };
        self.guard.get_or_init(|| Guard::new(config())).clone()
    }

    /// The guard. None if the database has none.
    pub fn guard(&self) -> Option<&Guard> {
        self.guard.get()
    }

    /// Waits until the guard is ready for a promotion. The returned value must be kept until the promotion is done.
    pub(super) async fn guarded(&self) -> Result<Option<Hold>> {
        match self.guard() {
            Some(guard) => guard.hold().await.map(Some).map_err(|error| Error::Unfit(crate::report::chain(&error))),
            None => Ok(None),
        }
    }
}
