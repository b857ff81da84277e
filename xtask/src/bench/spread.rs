//! Several measurements of one thing: their median, and how far they lie apart.

use serde::Serialize;

/// The middle and the ends of several measurements.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

impl Spread {
    /// `None` where there are no measurements.
    pub(super) fn of(samples: &[f64]) -> Option<Spread> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let upper = sorted.len() / 2;
        let median = match sorted.len() % 2 {
            1 => sorted[upper],
            _ => (sorted[upper - 1] + sorted[upper]) / 2.0,
        };
        Some(Spread { median, min, max })
    }

    /// The ratios of the rounds, `these` by `those`, which were measured in turn. A machine that is slower for a round is
    /// slower for both.
    pub(super) fn of_ratios(these: &[f64], those: &[f64]) -> Option<Spread> {
        let ratios: Vec<f64> = these.iter().zip(those).map(|(this, that)| this / that).collect();
        Spread::of(&ratios).filter(|spread| spread.median.is_finite())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(Spread::of(&[3.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(Spread::of(&[4.0, 1.0, 2.0, 3.0]), Some(Spread { median: 2.5, min: 1.0, max: 4.0 }));
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn ratios_are_those_of_rounds() {
        let ratios = Spread::of_ratios(&[10.0, 30.0, 50.0], &[10.0, 10.0, 10.0]);
        assert_eq!(ratios, Some(Spread { median: 3.0, min: 1.0, max: 5.0 }));
        assert_eq!(Spread::of_ratios(&[1.0], &[0.0]), None, "nothing can be said beside what doesn't answer");
        assert_eq!(Spread::of_ratios(&[1.0], &[]), None);
    }
}
