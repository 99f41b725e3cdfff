//! What Raft writes to disk and sends to peers, declared by us, field by field.
//!
//! openraft has types for the same, which could be encoded as well. But it is an alpha, and its next release may lay
//! them out in another way. The types of this module never change once a release has written them: postcard encodes
//! a struct as its fields in order, and a variant of an enum as its number. What is new becomes a new variant at the
//! end of an enum, or a new version of the protocol.
//!
//! - `log`: what the store keeps: votes, entries, memberships, the metadata of a snapshot. Peers send them, too.
//! - `rpc`: the requests and answers of Raft.
//! - `convert`: from and to openraft's types. What comes from a peer, or from a file, may make no sense: then the
//!   conversion fails.

mod convert;
mod log;
mod rpc;
#[cfg(test)]
mod wire_test;

pub use self::convert::InvalidMembership;
pub use self::log::{LogEntry, LogPayload, LogPosition, Membership, PlacedMembership, SnapshotMetadata, VoteRecord};
pub use self::rpc::{
    AppendRequest, AppendResponse, SnapshotResponse, TransferRefused, TransferRequest, TransferResponse, VoteRequest,
    VoteResponse,
};
