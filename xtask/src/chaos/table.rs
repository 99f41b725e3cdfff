//! The results of the faults, as a table.

use std::collections::BTreeMap;
use std::time::Duration;

use super::fault::Fault;
use crate::bench::table::spread;

/// The result of a round: its faults, and their effect together.
#[derive(Clone, Debug)]
pub(crate) struct Round {
    pub(crate) faults: Vec<Fault>,
    /// The longest time without an acknowledgement.
    pub(crate) gap: Duration,
    /// Rows that clients know of and that are missing.
    pub(crate) lost: usize,
    /// Answers that came too late.
    pub(crate) overtaken: usize,
}

/// One line for each fault. A round of several faults counts for each of them.
pub(crate) fn render(rounds: &[Round]) -> String {
    let mut of: BTreeMap<Fault, Vec<&Round>> = BTreeMap::new();
    for round in rounds {
        round.faults.iter().for_each(|fault| of.entry(*fault).or_default().push(round));
    }
    let width = of.keys().map(|fault| fault.to_string().len()).max().unwrap_or(0).max("fault".len());
    let mut table =
        format!("{:width$} {:>5} {:>10} {:>9} {:>9} {:>8}\n", "fault", "count", "gap median", "worst", "lost", "late");
    let line = |name: &str, rounds: &[&Round]| {
        let gaps: Vec<f64> = rounds.iter().map(|round| round.gap.as_secs_f64()).collect();
        let [_, median, worst] = spread(&gaps);
        let lost: usize = rounds.iter().map(|round| round.lost).sum();
        let late: usize = rounds.iter().map(|round| round.overtaken).sum();
        format!("{name:width$} {:5} {median:8.2} s {worst:7.2} s {lost:9} {late:8}\n", rounds.len())
    };
    for (fault, rounds) in &of {
        table += &line(&fault.to_string(), rounds);
    }
    table + &line("all rounds", &rounds.iter().collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::super::fault::{Kind, Victim};
    use super::*;

    #[test]
    fn a_round_counts_for_each_of_its_faults_and_once_in_all() {
        let switchover = Fault { kind: Kind::Switchover, victim: Victim::Cluster };
        let slow = Fault { kind: Kind::Slow, victim: Victim::Leader };
        let round = |faults: &[Fault], seconds, lost| Round {
            faults: faults.to_vec(),
            gap: Duration::from_secs(seconds),
            lost,
            overtaken: 0,
        };
        let rounds = [round(&[slow], 1, 0), round(&[switchover, slow], 3, 2), round(&[slow], 4, 0)];
        let expected = "\
fault             count gap median     worst      lost     late
slow link: leader     3     3.00 s    4.00 s         2        0
switchover            1     3.00 s    3.00 s         2        0
all rounds            3     3.00 s    4.00 s         2        0
";
        assert_eq!(render(&rounds), expected);
    }
}
