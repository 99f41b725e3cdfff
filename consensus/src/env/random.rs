//! Random numbers: for the moments when nodes stand for election, and for the ids of commands.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use uuid::Uuid;

use crate::env::lock::lock;

/// A source of random numbers. Clones share it.
#[derive(Clone, Debug)]
pub struct Random(Arc<Mutex<StdRng>>);

impl Random {
    /// A source that nobody can predict.
    pub fn from_os() -> Self {
        Self(Arc::new(Mutex::new(StdRng::from_os_rng())))
    }

    /// A source that gives the same numbers for the same seed, for simulations.
    pub fn seeded(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(StdRng::seed_from_u64(seed))))
    }

    /// A number in `range`.
    pub(crate) fn in_range(&self, range: Range<f64>) -> f64 {
        lock(&self.0).random_range(range)
    }

    /// A new id.
    pub(crate) fn uuid(&self) -> Uuid {
        uuid::Builder::from_random_bytes(lock(&self.0).random()).into_uuid()
    }
}
