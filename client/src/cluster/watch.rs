//! Streams of what changes in a cluster.

use futures::{Stream, StreamExt, TryStreamExt, stream};
use tokio::time::Instant;

use super::ClusterClient;
use crate::Error;
use crate::error::AfterRead;
use crate::model::{ClusterMap, Event, LogIndex};

impl ClusterClient {
    /// The cluster's map, now and whenever it changes: each newer than the one before it.
    ///
    /// It goes on at another node when one fails, and after an error: an `Err` says that no node had an answer. It ends
    /// only where the credential is refused, or something else that does not change by itself.
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

    /// The cluster's events after the log index `after`, oldest first: those that there are, and each as it happens.
    /// Errors are as in [`watch_map`](Self::watch_map).
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

    /// Asks again and again, each time for what is newer than the newest so far. What is `whole` is newer than what is not:
    /// a node that has just started tells a map of the same index first without, and then with, the leader.
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
        // The newest index so far, and whether what had it was whole.
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
                            // Nothing new: or a node that is cut off from the cluster, and will never say more.
                            client.nodes().ask_another_first();
                            if asked.elapsed() < client.inner.wait.get() / 2 {
                                // It did not wait. Do not turn that into a storm of requests.
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
        // Asked again after its end, it has ended.
        Box::pin(told.fuse())
    }
}
