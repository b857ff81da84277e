//! Which traces are recorded, as `OTEL_TRACES_SAMPLER` says. Pure.

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sampler {
    /// A trace that goes on from elsewhere is recorded if it is there.
    follows_parent: bool,
    own: Own,
}

/// The choice where nobody has made one.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Own {
    All,
    None,
    /// Those whose number is below this one of 2^63.
    Below(u64),
}

/// Names of samplers.
pub(crate) const NAMES: &str = "always_on, always_off, traceidratio, parentbased_always_on, parentbased_always_off or parentbased_traceidratio";

impl Default for Sampler {
    fn default() -> Sampler {
        Sampler { follows_parent: true, own: Own::All }
    }
}

impl Sampler {
    /// `None` where there is no such sampler. A ratio that is none is 1, and said to be wrong.
    pub(crate) fn parse(name: &str, argument: Option<&str>) -> Option<(Sampler, Result<(), String>)> {
        let (follows_parent, own) = match name.strip_prefix("parentbased_") {
            Some(own) => (true, own),
            None => (false, name),
        };
        let (own, heard) = match own {
            "always_on" => (Own::All, Ok(())),
            "always_off" => (Own::None, Ok(())),
            "traceidratio" => match argument.map(ratio) {
                None => (Own::All, Ok(())),
                Some(Some(ratio)) => (Own::of_ratio(ratio), Ok(())),
                Some(None) => (
                    Own::All,
                    Err(format!(
                        "found \"{}\", expected a number from 0 to 1; 1 is used",
                        argument.unwrap_or_default()
                    )),
                ),
            },
            _ => return None,
        };
        Some((Sampler { follows_parent, own }, heard))
    }

    /// Whether a trace is recorded. `parent` is whether it is where it comes from, if it comes from elsewhere.
    pub(crate) fn takes(&self, trace: u128, parent: Option<bool>) -> bool {
        match (self.follows_parent, parent) {
            (true, Some(parent)) => parent,
            _ => match self.own {
                Own::All => true,
                Own::None => false,
                Own::Below(bound) => number(trace) < bound,
            },
        }
    }
}

impl Own {
    fn of_ratio(ratio: f64) -> Own {
        match ratio {
            1.0.. => Own::All,
            // The product is below 2^63.
            ratio => Own::Below((ratio * (1u64 << 63) as f64) as u64),
        }
    }
}

fn ratio(text: &str) -> Option<f64> {
    text.trim().parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio))
}

/// The part of a trace's number that other programs decide by, too: the last eight bytes but for a bit.
fn number(trace: u128) -> u64 {
    (trace as u64) >> 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sampler(name: &str, argument: Option<&str>) -> Sampler {
        let (sampler, heard) = Sampler::parse(name, argument).unwrap();
        heard.unwrap();
        sampler
    }

    #[test]
    fn a_parent_decides_only_where_it_is_asked() {
        for (name, alone, of_sampled, of_unsampled) in [
            ("always_on", true, true, true),
            ("always_off", false, false, false),
            ("traceidratio", true, true, true),
            ("parentbased_always_on", true, true, false),
            ("parentbased_always_off", false, true, false),
            ("parentbased_traceidratio", true, true, false),
        ] {
            let sampler = sampler(name, None);
            let taken = [None, Some(true), Some(false)].map(|parent| sampler.takes(7, parent));
            assert_eq!(taken, [alone, of_sampled, of_unsampled], "{name}");
        }
        assert_eq!(sampler("parentbased_always_on", None), Sampler::default());
        assert!(Sampler::parse("jaeger_remote", None).is_none());
    }

    #[test]
    fn a_ratio_that_is_none_is_told() {
        for bad in ["2", "-1", "NaN", "1%", ""] {
            let (sampler, heard) = Sampler::parse("traceidratio", Some(bad)).unwrap();
            assert!(heard.unwrap_err().contains(&format!("\"{bad}\"")));
            assert!(sampler.takes(u128::MAX, None));
        }
        assert!(!sampler("traceidratio", Some("0")).takes(0, None));
    }

    #[test]
    fn a_ratio_of_traces_is_taken() {
        let sampler = sampler("traceidratio", Some("0.01"));
        let mut random = fastrand::Rng::with_seed(1);
        let taken = (0..100_000).filter(|_| sampler.takes(random.u128(..), None)).count();
        assert!((900..1_100).contains(&taken), "{taken} of 100,000");
    }

    proptest! {
        #[test]
        fn whoever_takes_fewer_takes_none_that_others_do_not(
            trace: u128, one in 0.0..=1.0f64, other in 0.0..=1.0f64
        ) {
            let (few, many) = (one.min(other).to_string(), one.max(other).to_string());
            let (few, many) = (sampler("traceidratio", Some(&few)), sampler("traceidratio", Some(&many)));
            prop_assert!(!few.takes(trace, None) || many.takes(trace, None));
        }
    }
}
