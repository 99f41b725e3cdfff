//! Samples, summed up as a table.

/// A figure and its samples.
pub(crate) struct Row {
    pub(crate) figure: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) samples: Vec<f64>,
}

/// One line for each figure: the least, the median and the greatest of its samples.
pub(crate) fn render(rows: &[Row]) -> String {
    let width = rows.iter().map(|row| row.figure.len()).max().unwrap_or(0);
    let mut table = format!("{:width$} {:>9} {:>9} {:>9}  unit (samples)\n", "figure", "min", "median", "max");
    for Row { figure, unit, samples } in rows {
        let [min, middle, max] = spread(samples);
        table += &format!("{figure:width$} {min:9.3} {middle:9.3} {max:9.3}  {unit} ({})\n", samples.len());
    }
    table
}

/// The least, the median and the greatest sample; NaN if there is none.
pub(crate) fn spread(samples: &[f64]) -> [f64; 3] {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    match (sorted.first(), sorted.last()) {
        (Some(&min), Some(&max)) => [min, median(&sorted), max],
        _ => [f64::NAN; 3],
    }
}

/// The median of samples in ascending order. There must be at least one.
fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_between_the_two() {
        assert_eq!(spread(&[3.0, 1.0, 2.0]), [1.0, 2.0, 3.0]);
        assert_eq!(spread(&[4.0, 1.0, 2.0, 3.0]), [1.0, 2.5, 4.0]);
        assert_eq!(spread(&[5.0]), [5.0, 5.0, 5.0]);
        assert!(spread(&[]).iter().all(|value| value.is_nan()));
    }

    #[test]
    fn a_table_has_a_line_a_figure() {
        let rows = [
            Row { figure: "write gap", unit: "s", samples: vec![1.5, 1.25, 2.0] },
            Row { figure: "memory", unit: "MiB", samples: vec![20.0] },
        ];
        let expected = "\
figure          min    median       max  unit (samples)
write gap     1.250     1.500     2.000  s (3)
memory       20.000    20.000    20.000  MiB (1)
";
        assert_eq!(render(&rows), expected);
    }
}
