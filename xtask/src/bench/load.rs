//! The rate at which a server answers, measured by wrk.

use std::net::SocketAddrV4;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::{cargo, install};

/// The script that wrk runs.
const SCRIPT: &str = "xtask/src/bench/load.lua";
/// Long enough that another second would change little, short enough to take turns.
const TIME: Duration = Duration::from_secs(4);

/// A request that is sent again and again.
#[derive(Clone, Copy)]
pub(super) struct Load<'a> {
    pub(super) at: SocketAddrV4,
    pub(super) path: &'a str,
    /// JSON to send by POST. None for a GET.
    pub(super) body: Option<&'a str>,
    /// How many requests at a time, each on a connection of its own.
    pub(super) connections: u32,
}

/// The rate of the answers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rate {
    /// Answers per second.
    pub(super) per_second: f64,
    /// The time within which 99 of 100 answers came.
    pub(super) p99: Duration,
}

impl Load<'_> {
    /// Sends it for a few seconds. Fails unless every answer is a success.
    pub(super) fn run(&self) -> Result<Rate> {
        // One thread, because the server needs the other processor.
        let (connections, time) = (self.connections.to_string(), format!("{}s", TIME.as_secs()));
        let mut wrk = install::tool("wrk", "wrk")?;
        wrk.args(["-t", "1", "-c", &connections, "-d", &time, "-s", SCRIPT]).current_dir(cargo::root());
        wrk.arg(format!("http://{}{}", self.at, self.path)).arg("--").args(self.body);
        parse(&cargo::output(wrk)?).with_context(|| format!("loading http://{}{}", self.at, self.path))
    }
}

fn parse(output: &str) -> Result<Rate> {
    let line = output.lines().find_map(|line| line.strip_prefix("load: "));
    let numbers: Vec<u64> = line.unwrap_or_default().split(' ').filter_map(|number| number.parse().ok()).collect();
    let [requests, micros, refused, failed, p99] = numbers[..] else {
        bail!("expected a line `load:` with five numbers, got {output:?}");
    };
    if refused + failed > 0 || requests == 0 {
        bail!("of {requests} requests {refused} were answered with an error and {failed} failed");
    }
    let per_second = requests as f64 / Duration::from_micros(micros).as_secs_f64();
    Ok(Rate { per_second, p99: Duration::from_micros(p99) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_of_the_script_is_read_and_errors_are_not_counted_as_answers() {
        let output = "Running 4s test\n  1 threads and 1 connections\nload: 8000 4000000 0 0 1500\n";
        let expected = Rate { per_second: 2000.0, p99: Duration::from_micros(1500) };
        assert_eq!(parse(output).unwrap(), expected);
        for (output, expected) in [
            ("load: 8000 4000000 3 0 1500", "3 were answered with an error"),
            ("load: 8000 4000000 0 2 1500", "2 failed"),
            ("load: 0 4000000 0 0 0", "of 0 requests"),
            ("unable to connect", "expected a line `load:`"),
        ] {
            let error = parse(output).unwrap_err().to_string();
            assert!(error.contains(expected), "{output}: {error}");
        }
    }
}
