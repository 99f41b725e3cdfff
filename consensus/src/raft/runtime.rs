//! Tokio as openraft's runtime, for simulations: openraft's random numbers come from a seed.

use std::cell::RefCell;
use std::future::Future;
use std::time::Duration;

#[allow(deprecated)] // It has moved to a crate that this one does not need otherwise.
use openraft::impls::TokioRuntime;
use openraft::{AsyncRuntime, OptionalSend};
use rand_of_openraft::SeedableRng;
use rand_of_openraft::rngs::StdRng;

thread_local! {
    static CHANCE: RefCell<StdRng> = RefCell::new(StdRng::seed_from_u64(0));
}

/// Sets the seed of openraft's random numbers on this thread.
pub fn seed(seed: u64) {
    CHANCE.set(StdRng::seed_from_u64(seed));
}

/// Tokio, with random numbers from the seed.
#[derive(Debug)]
pub struct Runtime(#[allow(deprecated)] TokioRuntime);

/// The source of random numbers that everything on this thread shares.
pub struct Chance;

impl rand_of_openraft::TryRng for Chance {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        CHANCE.with_borrow_mut(|chance| chance.try_next_u32())
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        CHANCE.with_borrow_mut(|chance| chance.try_next_u64())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
        CHANCE.with_borrow_mut(|chance| chance.try_fill_bytes(bytes))
    }
}

#[allow(deprecated)]
type Tokio = TokioRuntime;

impl AsyncRuntime for Runtime {
    type JoinError = <Tokio as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <Tokio as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <Tokio as AsyncRuntime>::Sleep;
    type Instant = <Tokio as AsyncRuntime>::Instant;
    type TimeoutError = <Tokio as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = <Tokio as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = Chance;
    type Mpsc = <Tokio as AsyncRuntime>::Mpsc;
    type Watch = <Tokio as AsyncRuntime>::Watch;
    type Oneshot = <Tokio as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <Tokio as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        Tokio::spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        Tokio::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        Tokio::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(duration: Duration, future: F) -> Self::Timeout<R, F> {
        Tokio::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(deadline: Self::Instant, future: F) -> Self::Timeout<R, F> {
        Tokio::timeout_at(deadline, future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        Tokio::is_panic(join_error)
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        Chance
    }

    fn new(threads: usize) -> Self {
        Self(Tokio::new(threads))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }
}
