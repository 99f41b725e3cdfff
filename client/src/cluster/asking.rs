//! Which node is asked, when it is asked again, and what a missing answer means.

use std::time::Duration;

use tokio::time::Instant;

use super::ClusterClient;
use super::nodes::{address_of, parse};
use crate::error::{AfterChange, AfterRead};
use crate::{Cause, Error, generated, model};

/// The operation that may be under way already if the answer is that nobody leads.
pub(super) const SWITCH_OVER: &str = "POST /leader";

impl ClusterClient {
    /// A read at one node, tried once.
    pub(super) async fn read_at<T, F, Fut>(&self, operation: &'static str, address: &str, send: F) -> Result<T, Error>
    where
        F: Fn(generated::Client) -> Fut,
        Fut: Future<Output = Answer<T>>,
    {
        let address = parse(address)?;
        let within = self.inner.attempt.min(self.inner.deadline);
        attempt(&self.inner.reads, &address, within, &send).await.map_err(|cause| match cause {
            Cause::Answer { .. } | Cause::Request(_) => Error::Refused { operation, address, cause: cause.into() },
            _ => Error::Deadline { operation, address, within, attempts: 1, cause: cause.into() },
        })
    }

    /// A read at any node. Returns the answer and the address of the node that gave it. `wait` is how long the node may
    /// wait for news before it answers.
    pub(super) async fn read<T, F, Fut>(
        &self,
        operation: &'static str,
        wait: Duration,
        send: F,
    ) -> Result<(T, String), Error>
    where
        F: Fn(generated::Client) -> Fut,
        Fut: Future<Output = Answer<T>>,
    {
        let mut tries = Tries::new(operation, self.inner.deadline + wait, self.inner.backoff);
        self.read_within(&mut tries, self.inner.attempt + wait, send).await
    }

    async fn read_within<T, F, Fut>(&self, tries: &mut Tries, within: Duration, send: F) -> Result<(T, String), Error>
    where
        F: Fn(generated::Client) -> Fut,
        Fut: Future<Output = Answer<T>>,
    {
        let mut told = None;
        loop {
            let candidates = self.nodes().candidates();
            let (mut asked, mut worth_it) = (false, false);
            for address in candidates {
                if asked && tries.left().is_zero() {
                    // The nodes that were not asked might answer.
                    worth_it = true;
                    break;
                }
                asked = true;
                tries.attempts += 1;
                let limit = within.min(tries.left());
                match attempt(&self.inner.reads, &address, limit, &send).await {
                    Ok(answer) => {
                        self.nodes().good = Some(address.clone());
                        return Ok((answer, address));
                    }
                    Err(cause) => {
                        let after = cause.after_read();
                        if after == AfterRead::Refused {
                            return Err(tries.refused(address, cause));
                        }
                        worth_it |= after == AfterRead::Elsewhere;
                        // A timeout of an attempt that had little time is less useful to the caller than an earlier
                        // error.
                        let cut = limit < within / 4 && matches!(cause, Cause::Timeout(_));
                        if told.is_none() || !cut {
                            told = Some((address, cause));
                        }
                    }
                }
            }
            if worth_it && tries.pause().await {
                continue;
            }
            let Some((address, cause)) = told else { return Err(Error::NoAddress) };
            return Err(if worth_it { tries.exhausted(address, cause) } else { tries.refused(address, cause) });
        }
    }

    /// A change, which the leader makes. Only a node that leads, as far as is known, is asked: if some other node did
    /// not answer, the outcome would be unknown.
    pub(super) async fn change<T, F, Fut>(&self, operation: &'static str, send: F) -> Result<T, Error>
    where
        F: Fn(generated::Client) -> Fut,
        Fut: Future<Output = Answer<T>>,
    {
        // The outcome of a change that is sent just before the deadline would be unknown.
        let reserve = self.inner.attempt.min(self.inner.deadline / 4);
        let mut tries = Tries::new(operation, self.inner.deadline, self.inner.backoff);
        tries.deadline -= reserve;
        let (mut followed, mut begun) = (false, false);
        loop {
            let known = self.nodes().leader.clone();
            let address = match known {
                Some(address) => address,
                None => {
                    let find = |node: generated::Client| async move { node.leader_get().send().await };
                    match self.read_within(&mut tries, self.inner.attempt, find).await {
                        Ok((leader, teller)) => address_of(&leader, &teller),
                        Err(error) if begun => return Err(error.unconfirmed()),
                        Err(error) => return Err(error),
                    }
                }
            };
            tries.attempts += 1;
            let cause = match attempt(&self.inner.changes, &address, tries.left() + reserve, &send).await {
                Ok(answer) => {
                    let mut nodes = self.nodes();
                    nodes.good = Some(address.clone());
                    nodes.leader = Some(address);
                    return Ok(answer);
                }
                Err(cause) => cause,
            };
            // The leader may have handed over by then, although the node did not see the new leader in time.
            begun |= operation == SWITCH_OVER && cause.is_no_leader();
            let next = match cause.after_change() {
                AfterChange::Refused => return Err(tries.refused(address, cause)),
                AfterChange::Unconfirmed => {
                    return Err(Error::Unconfirmed { operation, address, cause: cause.into() });
                }
                AfterChange::Follow(Some(leader)) => {
                    let next = address_of(leader, &address);
                    if next == address && matches!(cause, Cause::Answer { status: 412, .. }) {
                        return Err(tries.refused(address, cause));
                    }
                    Some(next)
                }
                AfterChange::Follow(None) | AfterChange::Wait | AfterChange::Elsewhere => None,
            };
            // During an election, nodes may name each other or a node that is gone. So there is a pause before the
            // client follows a second hint in a row.
            let pause = followed || next.as_ref().is_none_or(|next| *next == address);
            followed = !pause;
            self.nodes().leader = next;
            let in_time = if pause { tries.pause().await } else { !tries.left().is_zero() };
            if !in_time {
                let error = tries.exhausted(address, cause);
                return Err(if begun { error.unconfirmed() } else { error });
            }
        }
    }
}

/// The attempts at one operation.
struct Tries {
    operation: &'static str,
    within: Duration,
    /// No attempt begins after this time.
    deadline: Instant,
    backoff: Backoff,
    attempts: u32,
}

impl Tries {
    fn new(operation: &'static str, within: Duration, backoff: Backoff) -> Self {
        Self { operation, within, deadline: Instant::now() + within, backoff, attempts: 0 }
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Pauses, and returns true; if the pause would last until the deadline, returns false at once.
    async fn pause(&mut self) -> bool {
        let pause = self.backoff.next();
        let in_time = pause < self.left();
        if in_time {
            tokio::time::sleep(pause).await;
        }
        in_time
    }

    fn refused(&self, address: String, cause: Cause) -> Error {
        Error::Refused { operation: self.operation, address, cause: cause.into() }
    }

    fn exhausted(&self, address: String, cause: Cause) -> Error {
        let Self { operation, within, attempts, .. } = *self;
        Error::Deadline { operation, address, within, attempts, cause: cause.into() }
    }
}

pub(super) type Answer<T> = Result<generated::ResponseValue<T>, generated::Error<model::Error>>;

/// Sends a request to the node at `address`, and waits for the answer for at most `within`.
pub(super) async fn attempt<T, F, Fut>(
    http: &reqwest::Client,
    address: &str,
    within: Duration,
    send: &F,
) -> Result<T, Cause>
where
    F: Fn(generated::Client) -> Fut,
    Fut: Future<Output = Answer<T>>,
{
    let node = generated::Client::new_with_client(address, http.clone());
    match tokio::time::timeout(within, send(node)).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(Cause::Timeout(within)),
    }
}

/// Pauses that grow. They are shortened at random, so that clients that failed at the same time do not all come back at
/// the same time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    pub(super) next: Duration,
    pub(super) longest: Duration,
}

impl Backoff {
    pub(super) fn next(&mut self) -> Duration {
        let pause = self.next.min(self.longest);
        self.next = pause.saturating_mul(2);
        pause.mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_the_longest_and_differ() {
        let mut backoff = Backoff { next: Duration::from_millis(100), longest: Duration::from_millis(350) };
        for expected in [100, 200, 350, 350] {
            let pause = backoff.next();
            assert!((expected / 2..=expected).contains(&pause.as_millis()), "{pause:?}");
        }
    }
}
