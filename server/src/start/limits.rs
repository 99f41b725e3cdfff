//! How much of the operating system the daemon may use.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// So many files and connections a daemon may have open at once, where the system lets it have so many.
///
/// dropshot ends connections that are slow to send a request's head, and has no hook to end, or to refuse, those that
/// send nothing at all. So it is this limit that bounds them; each takes up to 30 KiB. At the usual limit of 1024 a
/// thousand of them would keep everybody else out, the node's own files included.
const OPEN_FILES: u64 = 1 << 13;

/// Raises the limit of open files to `OPEN_FILES`, or as far as the system allows.
pub fn raise_open_files() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // None is no limit.
    let wanted = maximum.map_or(OPEN_FILES, |maximum| maximum.min(OPEN_FILES));
    if current.is_none_or(|current| current >= wanted) {
        return;
    }
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }) {
        tracing::warn!(%error, ?current, wanted, "the limit of open files cannot be raised");
    }
}
