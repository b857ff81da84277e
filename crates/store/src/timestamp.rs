//! Points in time as the store keeps and prints them.

use std::fmt;
use std::ops::{Add, Sub};
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;

/// A wall-clock time in milliseconds since 1970-01-01T00:00:00Z; RFC 3339 in JSON.
///
/// Arithmetic saturates: a lease of `Duration::MAX` ends at the largest timestamp. A time that RFC 3339 can't say (years
/// past 9999) is printed as the nearest time that it can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ToSchema)]
#[schema(value_type = String, format = DateTime)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The system's time. A store decides by its [`Clock`](crate::Clock), which tests can move.
    pub fn now() -> Timestamp {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => Timestamp(0) + since,
            Err(before) => Timestamp(0) - before.duration(),
        }
    }

    /// How long after `earlier` this is; zero where it isn't.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Timestamp;

    fn add(self, duration: Duration) -> Timestamp {
        Timestamp(self.0.saturating_add(milliseconds(duration)))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Timestamp;

    fn sub(self, duration: Duration) -> Timestamp {
        Timestamp(self.0.saturating_sub(milliseconds(duration)))
    }
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nearest = if self.0 < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
        jiff::Timestamp::from_millisecond(self.0).unwrap_or(nearest).fmt(f)
    }
}

impl FromStr for Timestamp {
    type Err = jiff::Error;

    /// Reads RFC 3339, with any offset. Fractions of a millisecond are cut off.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(|time: jiff::Timestamp| Timestamp(time.as_millisecond()))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_rfc_3339() {
        let time: Timestamp = "2026-11-21T03:50:59.123+01:00".parse().unwrap();
        assert_eq!(serde_json::to_string(&time).unwrap(), r#""2026-11-21T02:50:59.123Z""#);
        assert_eq!(serde_json::from_str::<Timestamp>(r#""2026-11-21T02:50:59.123Z""#).unwrap(), time);
        assert!(serde_json::from_str::<Timestamp>(r#""yesterday""#).is_err());
    }

    #[test]
    fn prints_what_rfc_3339_cannot_say_as_the_nearest_time() {
        assert!(Timestamp(i64::MAX).to_string().starts_with("9999-12-"));
        assert!(Timestamp(i64::MIN).to_string().starts_with("-009999-01-"));
    }

    #[test]
    fn saturates() {
        assert_eq!(Timestamp(5) + Duration::MAX, Timestamp(i64::MAX));
        assert_eq!(Timestamp(-5) - Duration::MAX, Timestamp(i64::MIN + 1) - Duration::from_millis(4));
        assert_eq!(Timestamp(3).since(Timestamp(5)), Duration::ZERO);
        assert_eq!(Timestamp(i64::MAX).since(Timestamp(i64::MIN)), Duration::from_millis(i64::MAX as u64));
    }
}
