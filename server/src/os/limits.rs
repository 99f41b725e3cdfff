//! The daemon's own resource limits.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The open-file limit that the daemon asks for, in files and connections. A lower hard limit wins.
///
/// dropshot closes connections that are slow to send the head of a request. It has no hook to close or refuse those that
/// send nothing at all, so only this limit bounds them. Each takes up to 30 KiB of memory. With the usual limit of 1024,
/// a thousand silent connections would keep everybody else out, and the daemon could not open its own files.
const OPEN_FILES: u64 = 1 << 13;

/// Raises the open-file limit to `OPEN_FILES`, or as far as the system allows.
pub(crate) fn raise_open_files() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // None means that there is no limit.
    let wanted = maximum.map_or(OPEN_FILES, |maximum| maximum.min(OPEN_FILES));
    if current.is_none_or(|current| current >= wanted) {
        return;
    }
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }) {
        tracing::warn!(%error, ?current, wanted, "the open-file limit cannot be raised");
    }
}
