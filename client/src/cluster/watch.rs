//! Streams of the map and of the events.

use futures::{Stream, StreamExt, TryStreamExt, stream};
use tokio::time::Instant;

use super::ClusterClient;
use crate::Error;
use crate::error::AfterRead;
use crate::model::{ClusterMap, Event, LogIndex};

impl ClusterClient {
    /// A stream of the cluster's map: first the present one, then each newer one.
    ///
    /// If a node fails, the stream continues at another one. An `Err` says that no node answered; the stream continues
    /// after it. The stream ends only after an error that does not go away by itself, such as a refused credential.
    pub fn watch_map(&self) -> impl Stream<Item = Result<ClusterMap, Error>> + Send + Unpin + use<> {
        let client = self.clone();
        let wait = client.inner.wait;
        self.watch(
            None,
            move |after| {
                let client = client.clone();
                async move { client.ask_map(after.map(|index| (index, wait))).await }
            },
            |map| Some(map.index),
            |map| map.leader.is_some(),
        )
    }

    /// A stream of the cluster's events after the log index `after`, oldest first: the past ones, then each new one as
    /// it happens. Its errors and its end are those of [`watch_map`](Self::watch_map).
    pub fn watch_events(&self, after: LogIndex) -> impl Stream<Item = Result<Event, Error>> + Send + Unpin + use<> {
        let client = self.clone();
        let wait = client.inner.wait;
        let batches = self.watch(
            Some(after),
            move |after| {
                let client = client.clone();
                async move { client.ask_events(after, None, Some(wait)).await }
            },
            |events: &Vec<Event>| events.last().map(|event| event.index),
            |_| true,
        );
        batches.map_ok(|events| stream::iter(events.into_iter().map(Ok))).try_flatten()
    }

    /// Asks again and again, each time for an answer that is newer than the last one. At the same index, an answer that
    /// is `whole` is newer than one that is not: a node that has just started first answers with a map without the
    /// leader, and then with the leader.
    fn watch<T, F, Fut>(
        &self,
        after: Option<LogIndex>,
        ask: F,
        newest: fn(&T) -> Option<LogIndex>,
        whole: fn(&T) -> bool,
    ) -> impl Stream<Item = Result<T, Error>> + Send + Unpin + use<T, F, Fut>
    where
        T: Send + 'static,
        F: Fn(Option<LogIndex>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let client = self.clone();
        // The newest index so far, and whether its answer was whole.
        let state = Some((after.map(|index| (index, true)), client.inner.backoff, ask));
        let told = stream::unfold(state, move |state| {
            let client = client.clone();
            async move {
                let (after, mut backoff, ask) = state?;
                loop {
                    let asked = Instant::now();
                    match ask(after.map(|(index, _)| index)).await {
                        Ok(answer) if newest(&answer).is_some_and(|index| after < Some((index, whole(&answer)))) => {
                            let after = newest(&answer).map(|index| (index, whole(&answer)));
                            return Some((Ok(answer), Some((after, client.inner.backoff, ask))));
                        }
                        Ok(_) => {
                            // There is nothing new, or this node is cut off from the cluster and never has anything
                            // new.
                            client.nodes().ask_another_first();
                            if asked.elapsed() < client.inner.wait.get() / 2 {
                                // The node did not wait. Without a pause there would be a storm of requests.
                                tokio::time::sleep(backoff.next()).await;
                            }
                        }
                        Err(error) => {
                            if error.cause().is_none_or(|cause| cause.after_read() == AfterRead::Refused) {
                                return Some((Err(error), None));
                            }
                            tokio::time::sleep(backoff.next()).await;
                            return Some((Err(error), Some((after, backoff, ask))));
                        }
                    }
                }
            }
        });
        // A stream that has ended must not be polled again, unless it is fused.
        Box::pin(told.fuse())
    }
}
