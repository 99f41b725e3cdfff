//! What happened in a simulated world: a digest of all of it, and lines for people of what matters.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

/// So many lines are kept, the newest.
const KEPT: usize = 5000;

/// What happened. Two runs of a seed have the same digest.
pub struct History {
    digest: DefaultHasher,
    /// How many events there were.
    pub steps: u64,
    lines: Option<VecDeque<(Duration, String)>>,
}

impl History {
    /// An empty one. It keeps lines for people only if that is asked for, since they take most of the time.
    pub fn new(with_lines: bool) -> Self {
        Self { digest: DefaultHasher::new(), steps: 0, lines: with_lines.then(VecDeque::new) }
    }

    /// Notes an event, for the digest.
    pub fn note(&mut self, event: impl Hash) {
        event.hash(&mut self.digest);
        self.steps += 1;
    }

    /// Tells people of an event.
    pub fn say(&mut self, now: Duration, line: impl FnOnce() -> String) {
        let Some(lines) = &mut self.lines else { return };
        if lines.len() == KEPT {
            lines.pop_front();
        }
        lines.push_back((now, line()));
    }

    /// What distinguishes this history from others.
    pub fn digest(&self) -> u64 {
        self.digest.finish()
    }

    /// The newest lines, what repeats itself merged.
    pub fn lines(&self, most: usize) -> Vec<String> {
        let mut merged: Vec<(Duration, String, u32)> = Vec::new();
        for (at, line) in self.lines.iter().flatten() {
            match merged.last_mut() {
                Some((_, last, times)) if last == line => *times += 1,
                _ => merged.push((*at, line.clone(), 1)),
            }
        }
        let skipped = merged.len().saturating_sub(most);
        let line = |(at, line, times): &(Duration, String, u32)| {
            let times = if *times > 1 { format!(" ({times} times)") } else { String::new() };
            format!("{:>9.3} s  {line}{times}", at.as_secs_f64())
        };
        merged[skipped..].iter().map(line).collect()
    }
}
