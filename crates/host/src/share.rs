//! The share of a canary: how much of a type's requests and jobs go to a release that isn't live yet.

use std::fmt;

/// A part in percent, from 1 to 99.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Share(u32);

/// The calls that a type takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Takes {
    Requests,
    Jobs,
}

/// A type's instances, by the version that they are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parts {
    pub(crate) live: u32,
    pub(crate) canary: u32,
}

impl Share {
    pub(crate) fn of_percent(percent: u64) -> Option<Share> {
        u32::try_from(percent).ok().filter(|percent| (1..=99).contains(percent)).map(Share)
    }

    pub(crate) fn percent(self) -> u32 {
        self.0
    }

    /// Whether the next of many requests is for the canary.
    pub(crate) fn falls_to_canary(self) -> bool {
        fastrand::u32(..100) < self.0
    }

    /// The instances of either version, for this count.
    ///
    /// Where requests are shared each of them is sent to one of the versions. So the live version keeps its count, and is
    /// as large as before when the canary ends. Jobs are taken by whoever has room, so that instances are what is shared:
    /// there are as many as before, but each version has one.
    pub(crate) fn parts(self, takes: Takes, count: u32) -> Parts {
        if count == 0 {
            return Parts { live: 0, canary: 0 };
        }
        let hundredths = u64::from(count) * u64::from(self.0);
        // No more than the count.
        let part = |hundredths: u64| u32::try_from(hundredths / 100).unwrap_or(count).max(1);
        match takes {
            Takes::Requests => Parts { live: count, canary: part(hundredths + 99) },
            Takes::Jobs => {
                let most = (count - 1).max(1);
                let canary = part(hundredths + 50).min(most);
                Parts { live: (count - canary).max(1), canary }
            }
        }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parts(percent: u64, takes: Takes, count: u32) -> (u32, u32) {
        let Parts { live, canary } = Share::of_percent(percent).unwrap().parts(takes, count);
        (live, canary)
    }

    #[test]
    fn a_share_is_from_1_to_99_percent() {
        assert_eq!(
            [0, 1, 99, 100, u64::MAX].map(|percent| Share::of_percent(percent).is_some()),
            [false, true, true, false, false]
        );
        assert_eq!(Share::of_percent(10).unwrap().to_string(), "10%");
    }

    #[test]
    fn a_type_that_takes_requests_keeps_its_count_and_the_canary_is_rounded_up() {
        for (percent, count, canary) in [
            (10, 4, 1),
            (25, 4, 1),
            (26, 4, 2),
            (10, 100, 10),
            (1, 1, 1),
            (99, 1, 1),
            (99, 100, 99),
            (50, 3, 2),
        ] {
            assert_eq!(parts(percent, Takes::Requests, count), (count, canary), "{percent}% of {count}");
        }
        assert_eq!(parts(10, Takes::Requests, 0), (0, 0));
        assert_eq!(parts(99, Takes::Requests, u32::MAX).0, u32::MAX);
    }

    #[test]
    fn instances_that_take_jobs_are_shared_and_each_version_has_one() {
        for (percent, count, canary) in
            [(10, 4, 1), (25, 4, 1), (40, 4, 2), (10, 100, 10), (1, 2, 1), (99, 2, 1), (99, 4, 3), (50, 3, 2)]
        {
            assert_eq!(parts(percent, Takes::Jobs, count), (count - canary, canary), "{percent}% of {count}");
        }
        assert_eq!(parts(50, Takes::Jobs, 1), (1, 1));
        assert_eq!(parts(50, Takes::Jobs, 0), (0, 0));
    }

    proptest! {
        #[test]
        fn each_version_has_an_instance_and_there_are_no_more_than_the_count_asks_for(
            percent in 1..=99_u64,
            count in 1..=u32::MAX,
        ) {
            let wanted = f64::from(count) * percent as f64 / 100.0;
            let (live, canary) = parts(percent, Takes::Requests, count);
            prop_assert!(live == count && canary >= 1 && canary <= count);
            prop_assert!((f64::from(canary) - wanted).abs() < 1.0 || canary == 1);
            let (live, canary) = parts(percent, Takes::Jobs, count);
            prop_assert!(live >= 1 && canary >= 1);
            prop_assert_eq!(u64::from(live) + u64::from(canary), u64::from(count).max(2));
            prop_assert!((f64::from(canary) - wanted).abs() <= 0.5 + 0.01 || canary == 1 || live == 1);
        }

        #[test]
        fn a_larger_count_or_share_is_no_smaller_canary(percent in 1..=98_u64, count in 1..1_000_000_u32) {
            for takes in [Takes::Requests, Takes::Jobs] {
                let canary = parts(percent, takes, count).1;
                prop_assert!(parts(percent + 1, takes, count).1 >= canary);
                prop_assert!(parts(percent, takes, count + 1).1 >= canary);
            }
        }
    }
}
