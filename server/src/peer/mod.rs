//! The channel between nodes: WebSockets on the API's port.
//!
//! Each node dials every other one. The dialing side asks, the accepting side serves. So there are up to two connections
//! between two nodes, and each has one task on either end.
//!
//! # Layout
//!
//! - `wire`: the greeting, the frames, their limits.
//! - `dialer`: [`WebSocketTransport`], the asking side: one task for each node, which dials, sends, and hands out answers.
//! - `acceptor`: [`accept`], the serving side.
//! - `log`: [`PeerLog`], what became of the connections, for people.
//! - `stream`: the TCP stream under a dialed connection.
//! - `error`: why a connection ended.

mod acceptor;
mod dialer;
mod error;
mod log;
mod stream;
mod wire;

pub use acceptor::accept;
pub use dialer::WebSocketTransport;
pub use log::PeerLog;
