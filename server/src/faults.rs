//! Switches for tests that put faults into real clusters. They exist in `qluster-server-faults` only: the feature
//! `faults` is on in no program that anybody runs.

/// Set to `1`: the nodes of a test's own network, which nobody else reaches, do without credentials.
const NETWORK: &str = "QLUSTER_FAULT_NETWORK";

/// The same at all nodes, which is all that a test needs of it.
const PASSWORD: &str = "not-a-secret";

/// Whether the node serves an address that is not loopback, though it has no credentials.
pub(crate) fn network() -> bool {
    std::env::var_os(NETWORK).is_some_and(|value| value == "1")
}

/// The password that lets standbys of other addresses in.
pub(crate) fn replication_password() -> Option<String> {
    network().then(|| PASSWORD.to_owned())
}
