//! What travels between two nodes: the greeting, the frames, and their limits.
//!
//! All messages are binary, in postcard. The dialing side says [`Hello`] and sends nothing more until it has the
//! [`Greeting`]; then [`Frame`]s go both ways. If the cluster has a secret, the first greeting asks for a proof
//! ([`Proofs`]), and the second one gives one in return.

use std::collections::VecDeque;
use std::task::{Context, Poll, ready};

use futures::{Sink, SinkExt, Stream, StreamExt};
use qluster_consensus::model::NodeId;
use qluster_consensus::protocol::version::Versions;
use qluster_consensus::raft::transport::{PeerRequest, PeerResponse};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message};
use uuid::Uuid;

use super::error::PeerError;
use crate::security::{Nonce, Proof, Statement};

/// The size limit of a message. The largest message is an append of 300 entries, openraft's limit: 19 MiB if each has
/// 64 KiB. This is also how much memory one peer can make this node use for a message that is not complete yet.
pub(super) const MESSAGE_LIMIT_BYTES: usize = 32 << 20;
/// The size limit of a greeting, which anybody can send.
const GREETING_LIMIT_BYTES: usize = 4 << 10;

/// The first message, of the dialing side. Its first field stays the first in all versions: a node that has no version in
/// common with the sender reads nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    /// The versions that the sender speaks.
    pub versions: Versions,
    /// Its cluster.
    pub cluster: Uuid,
    /// Who it is.
    pub from: NodeId,
    /// Which node it wants to speak to.
    pub to: NodeId,
}

/// The answer to [`Hello`], in all versions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Greeting {
    /// Requests are served from now on.
    Welcome,
    /// Requests are not served. The connection is closed.
    Refused {
        /// Why, in a sentence.
        reason: String,
    },
    /// The other side must prove that it knows the cluster's secret, with this nonce.
    Prove {
        /// Of the accepting side.
        nonce: Nonce,
    },
    /// It has proven it, and here is the proof that this side knows it as well. Requests are served from now on.
    Proven {
        /// By a secret that both know.
        proof: Proof,
    },
}

/// The second message of the dialing side, if it is asked for a proof.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Proofs {
    /// Of the dialing side.
    pub nonce: Nonce,
    /// One for each secret that it knows: while secrets are being replaced, the two sides know different ones.
    pub proofs: Vec<Proof>,
}

impl Hello {
    /// What is proven on the connection that this begins.
    pub(super) fn statement(&self, dialing: Nonce, accepting: Nonce) -> Statement {
        Statement { cluster: self.cluster, from: self.from, to: self.to, dialing, accepting }
    }
}

/// All that follows the greeting.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Frame {
    /// From the dialing side.
    Request {
        /// Chosen by the sender, each once in a connection.
        id: u64,
        /// What is asked.
        body: PeerRequest,
    },
    /// From the accepted side.
    Response {
        /// That of the request.
        id: u64,
        /// The answer.
        body: PeerResponse,
    },
}

/// How large messages may be at this point of a connection.
#[derive(Clone, Copy)]
pub(super) enum Stage {
    /// The other side is not known yet.
    Greeting,
    /// The other side is known.
    Frames,
}

impl Stage {
    /// A message over the limit fails when its length is read, before there is room for it.
    pub(super) fn limits(self) -> WebSocketConfig {
        let (largest, buffer) = match self {
            Self::Greeting => (GREETING_LIMIT_BYTES, GREETING_LIMIT_BYTES),
            Self::Frames => (MESSAGE_LIMIT_BYTES, 64 << 10),
        };
        let config = WebSocketConfig::default().read_buffer_size(buffer);
        config.max_message_size(Some(largest)).max_frame_size(Some(largest))
    }
}

/// A WebSocket for the greeting over a connection that was upgraded.
pub(super) async fn for_greeting<S>(stream: S, role: Role) -> WebSocketStream<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    WebSocketStream::from_raw_socket(stream, role, Some(Stage::Greeting.limits())).await
}

/// The same connection with room for frames, after the greeting.
///
/// What the other side sent before its turn is lost, and what follows does not parse. A peer does not do that.
pub(super) async fn for_frames<S>(greeted: WebSocketStream<S>, role: Role) -> WebSocketStream<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    WebSocketStream::from_raw_socket(greeted.into_inner(), role, Some(Stage::Frames.limits())).await
}

/// Encodes a message.
pub(super) fn encode(message: &impl Serialize) -> Result<Message, PeerError> {
    let bytes = postcard::to_stdvec(message).map_err(PeerError::Encode)?;
    match bytes.len() {
        0..=MESSAGE_LIMIT_BYTES => Ok(Message::binary(bytes)),
        bytes => Err(PeerError::TooLarge { bytes }),
    }
}

/// Decodes a message; `expected` names it for the error.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8], expected: &'static str) -> Result<T, PeerError> {
    match postcard::take_from_bytes(bytes) {
        Ok((message, [])) => Ok(message),
        Ok((_, _more)) => Err(PeerError::Malformed { expected, source: postcard::Error::DeserializeBadEncoding }),
        Err(source) => Err(PeerError::Malformed { expected, source }),
    }
}

/// Decodes the first message, for a node that speaks `ours`.
pub(super) fn decode_hello(bytes: &[u8], ours: Versions) -> Result<Hello, PeerError> {
    const EXPECTED: &str = "greeting";
    let theirs: Versions = match postcard::take_from_bytes(bytes) {
        Ok((versions, _)) => versions,
        Err(source) => return Err(PeerError::Malformed { expected: EXPECTED, source }),
    };
    theirs.meet(ours).map_err(|unmet| PeerError::Refused(unmet.to_string()))?;
    decode(bytes, EXPECTED)
}

/// The bytes of a message that was received; None if it only shows that the other side is alive.
pub(super) fn received(
    message: Option<Result<Message, tungstenite::Error>>,
) -> Result<Option<tungstenite::Bytes>, PeerError> {
    match message {
        Some(Ok(Message::Binary(bytes))) => Ok(Some(bytes)),
        Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(None),
        Some(Ok(Message::Close(_))) | None => Err(PeerError::Closed),
        Some(Ok(Message::Text(_) | Message::Frame(_))) => Err(PeerError::Unexpected("text")),
        Some(Err(error)) => Err(error.into()),
    }
}

/// Receives one message of the greeting.
pub(super) async fn receive<S>(socket: &mut S) -> Result<tungstenite::Bytes, PeerError>
where
    S: Stream<Item = Result<Message, tungstenite::Error>> + Unpin,
{
    loop {
        if let Some(bytes) = received(socket.next().await)? {
            return Ok(bytes);
        }
    }
}

/// Writes what is in `queue`, and is ready when all of it is with the operating system. Nothing is lost when it is
/// not polled to its end.
pub(super) fn write<S>(
    socket: &mut S,
    queue: &mut VecDeque<Message>,
    cx: &mut Context<'_>,
) -> Poll<Result<(), PeerError>>
where
    S: Sink<Message, Error = tungstenite::Error> + Unpin,
{
    while !queue.is_empty() {
        ready!(socket.poll_ready_unpin(cx))?;
        if let Some(message) = queue.pop_front() {
            socket.start_send_unpin(message)?;
        }
    }
    socket.poll_flush_unpin(cx).map_err(PeerError::from)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use qluster_consensus::model::{Duration, LogIndex, Term};
    use qluster_consensus::protocol::choice::Promise;
    use qluster_consensus::protocol::database::{DatabaseRole, DatabaseStatus};
    use qluster_consensus::protocol::version::Version;
    use qluster_consensus::raft::transport::{NodeReport, SnapshotChunk};
    use qluster_consensus::raft::wire::{AppendRequest, AppendResponse, VoteRecord, VoteRequest};

    use super::*;

    /// Frames of every shape: numbers, options, sets, bytes and texts.
    fn frames() -> Vec<Vec<u8>> {
        let report = NodeReport {
            node: NodeId(1),
            applied: LogIndex(300),
            sees: [NodeId(2), NodeId(3)].into(),
            database: Some(DatabaseStatus::unknown(DatabaseRole::Primary)),
            position: None,
            note: Some("it waits".into()),
            version: Version::FIRST,
        };
        let vote = VoteRecord { term: Term(1), voted_for: NodeId(1), committed: true };
        let chunk = SnapshotChunk {
            transfer: Uuid::from_u128(5),
            vote,
            meta: Default::default(),
            offset: 1 << 40,
            data: vec![7; 1000],
            last: true,
        };
        let requests = [
            PeerRequest::Recruit { term: Term(u64::MAX) },
            PeerRequest::Leave { actor: "operator".into() },
            PeerRequest::Down { reason: "it is so".into(), actor: "node 1".into() },
            PeerRequest::Up,
            PeerRequest::Look,
            PeerRequest::Force { actor: "operator".into() },
            PeerRequest::Append(AppendRequest { vote, previous: None, entries: Vec::new(), committed: None }),
            PeerRequest::Vote(VoteRequest { vote, last: None, leadership_transfer: false }),
            PeerRequest::Snapshot(chunk),
            PeerRequest::Report(Box::new(report.clone())),
        ];
        let responses = [
            PeerResponse::SnapshotPart,
            PeerResponse::Append { response: AppendResponse::Success, node_timeout: Duration::from_millis(1000) },
            PeerResponse::Promise(Promise { position: None, unfit: Some("full".into()) }),
            PeerResponse::Done,
            PeerResponse::Report(Box::new(report)),
            PeerResponse::Removed,
            PeerResponse::Failed("it is so".into()),
        ];
        let requests = requests.map(|body| Frame::Request { id: 1 << 33, body });
        let responses = responses.map(|body| Frame::Response { id: 5, body });
        requests.iter().chain(&responses).map(|frame| postcard::to_stdvec(frame).unwrap()).collect()
    }

    #[test]
    fn frames_come_back_as_they_were() {
        for bytes in frames() {
            let frame: Frame = decode(&bytes, "frame").unwrap();
            assert_eq!(postcard::to_stdvec(&frame).unwrap(), bytes);
        }
    }

    /// QLUSTER_UPDATE_FIXTURES=1 writes the file again. Never do that once a release speaks this version. What is said differently
    /// from then on is a new variant, at the end of its list.
    #[test]
    fn frames_are_those_of_the_first_version() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/frames-1.txt");
        let line = |bytes: &Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n";
        let lines: String = frames().iter().map(line).collect();
        if std::env::var_os("QLUSTER_UPDATE_FIXTURES").is_some_and(|value| value == "1") {
            std::fs::write(path, &lines).unwrap();
        }
        assert_eq!(lines, std::fs::read_to_string(path).unwrap());
    }

    #[test]
    fn what_follows_a_message_is_not_ignored() {
        for mut bytes in frames() {
            bytes.push(0);
            assert!(decode::<Frame>(&bytes, "frame").is_err());
        }
    }

    #[test]
    fn the_version_is_read_before_all_else() {
        let (cluster, versions) = (Uuid::from_u128(1), Versions::KNOWN);
        let hello = Hello { versions, cluster, from: NodeId(2), to: NodeId(3) };
        let mut bytes = postcard::to_stdvec(&hello).unwrap();
        assert_eq!(decode_hello(&bytes, versions).unwrap(), hello);
        bytes.truncate(2);
        assert!(matches!(decode_hello(&bytes, versions), Err(PeerError::Malformed { .. })));
        for (oldest, newest, upgraded) in [(8, 9, "on the one that is dialed"), (0, 0, "on the one that dials")] {
            bytes[..2].copy_from_slice(&[oldest, newest]);
            let refused = decode_hello(&bytes, versions).unwrap_err();
            assert!(matches!(&refused, PeerError::Refused(why) if why.contains(upgraded)), "{refused}");
        }
    }

    #[test]
    fn the_limit_is_kept_by_the_sender() {
        let fits = vec![0_u8; MESSAGE_LIMIT_BYTES - 10];
        assert!(encode(&fits).is_ok());
        let large = vec![0_u8; MESSAGE_LIMIT_BYTES];
        assert!(matches!(encode(&large), Err(PeerError::TooLarge { .. })));
    }

    proptest! {
        /// No bytes make a decoder panic.
        #[test]
        fn any_bytes_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            let _ = decode::<Frame>(&bytes, "frame");
            let _ = decode::<Greeting>(&bytes, "greeting");
            let _ = decode::<Proofs>(&bytes, "proof");
            let _ = decode_hello(&bytes, Versions::KNOWN);
        }

        /// Frames with a few bytes changed get past more of the decoder.
        #[test]
        fn changed_frames_are_decoded_or_refused(
            which in any::<prop::sample::Index>(),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
            cut in any::<Option<prop::sample::Index>>(),
        ) {
            let frames = frames();
            let mut bytes = which.get(&frames).clone();
            for (place, byte) in changes {
                *place.get_mut(&mut bytes) = byte;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            let _ = decode::<Frame>(&bytes, "frame");
        }
    }
}
