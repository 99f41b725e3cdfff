//! The messages between the daemon and its guard: frames of a fixed size on the guard's standard input, lines on its
//! standard output.

use std::time::Duration;

use qluster_consensus::env::clock::Instant;

/// Length of a frame in bytes. The kernel writes as few as these into a pipe all at once, or not at all.
pub(super) const LENGTH: usize = 32;

/// A message of the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// The database is not a primary: there is nothing to guard.
    Rest,
    /// The database is a primary, or is about to be one.
    Serve(Serve),
}

/// How long the database may serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Serve {
    /// The deadline, on CLOCK_BOOTTIME.
    pub(super) until: Instant,
    /// How long ending its processes may take.
    pub(super) fencing: Duration,
    /// The cluster's node-timeout.
    pub(super) node_timeout: Duration,
    /// Counts the promotions that wait for the guard; the reply names it.
    pub(super) ask: u64,
}

impl Frame {
    pub(super) fn encode(&self) -> [u8; LENGTH] {
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let words = match self {
            Self::Rest => [0; 4],
            // No deadline is at the instant of the boot.
            Self::Serve(serve) => {
                [nanos(serve.until).max(1), nanos(serve.fencing), nanos(serve.node_timeout), serve.ask]
            }
        };
        let mut bytes = [0; LENGTH];
        for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    pub(super) fn decode(bytes: &[u8; LENGTH]) -> Self {
        let mut words = bytes.chunks_exact(8).map(|word| word.try_into().map_or(0, u64::from_le_bytes));
        let mut next = || words.next().unwrap_or(0);
        let (until, fencing, node_timeout, ask) = (next(), next(), next(), next());
        let duration = Duration::from_nanos;
        match until {
            0 => Self::Rest,
            until => Self::Serve(Serve {
                until: duration(until),
                fencing: duration(fencing),
                node_timeout: duration(node_timeout),
                ask,
            }),
        }
    }
}

/// A message of the guard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// It is ready, as the promotion with this number asked.
    Ready(u64),
    /// It guards the deadline, but lacks something that is required (the text says what). So nothing may be promoted.
    Refused(u64, String),
    /// Something that people should know.
    Note(String),
}

impl Reply {
    pub(super) fn encode(&self) -> String {
        match self {
            Self::Ready(ask) => format!("ready {ask}\n"),
            Self::Refused(ask, reason) => format!("refused {ask} {}\n", reason.replace('\n', " ")),
            Self::Note(text) => format!("note {}\n", text.replace('\n', " ")),
        }
    }

    /// Reads a line. None if it is no reply.
    pub(super) fn decode(line: &str) -> Option<Self> {
        let (word, rest) = line.trim_end().split_once(' ')?;
        match word {
            "ready" => rest.parse().ok().map(Self::Ready),
            "refused" => {
                let (ask, reason) = rest.split_once(' ')?;
                Some(Self::Refused(ask.parse().ok()?, reason.into()))
            }
            "note" => Some(Self::Note(rest.into())),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn frames_are_read_as_they_were_written(until in 1u64.., fencing: u64, node_timeout: u64, ask: u64) {
            let duration = Duration::from_nanos;
            let (until, fencing, node_timeout) = (duration(until), duration(fencing), duration(node_timeout));
            for frame in [Frame::Rest, Frame::Serve(Serve { until, fencing, node_timeout, ask })] {
                prop_assert_eq!(Frame::decode(&frame.encode()), frame);
            }
        }

        /// All bytes are a frame: what is not `Rest` is a deadline.
        #[test]
        fn any_frame_is_read_as_it_would_be_written(bytes: [u8; LENGTH]) {
            let frame = Frame::decode(&bytes);
            match frame {
                Frame::Rest => prop_assert_eq!(&bytes[..8], &[0; 8]),
                Frame::Serve(_) => prop_assert_eq!(frame.encode(), bytes),
            }
        }

        #[test]
        fn any_line_is_understood_or_not(line in "(ready|refused|note|) ?-?[0-9]{0,22} ?.{0,60}") {
            if let Some(reply) = Reply::decode(&line) {
                prop_assert_eq!(Reply::decode(&reply.encode()), Some(reply));
            }
        }
    }

    #[test]
    fn replies_are_read_as_they_were_written() {
        for reply in [Reply::Ready(7), Reply::Refused(8, "no device".into()), Reply::Note("a b".into())] {
            assert_eq!(Reply::decode(&reply.encode()), Some(reply));
        }
        for line in ["", "ready", "ready x", "refused 1", "odd 1"] {
            assert_eq!(Reply::decode(line), None, "{line}");
        }
    }
}
