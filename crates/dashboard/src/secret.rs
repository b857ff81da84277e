//! Secrets that nobody can guess, and their comparison.

use std::fmt::Write;

/// 256 bits.
const BYTES: usize = 32;

/// The system gives no random numbers.
#[derive(Debug)]
pub struct NoRandom(String);

impl std::fmt::Display for NoRandom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the system gives no random numbers, without which the dashboard has no keys: {}", self.0)
    }
}

impl std::error::Error for NoRandom {}

/// A secret, as hexadecimal digits. Nothing prints it by accident.
pub(crate) struct Secret(String);

impl Secret {
    pub(crate) fn new() -> Result<Secret, NoRandom> {
        let mut bytes = [0; BYTES];
        getrandom::fill(&mut bytes).map_err(|err| NoRandom(err.to_string()))?;
        let mut text = String::with_capacity(2 * BYTES);
        for byte in bytes {
            // Writing to a String doesn't fail.
            let _ = write!(text, "{byte:02x}");
        }
        Ok(Secret(text))
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// Whether a text is the secret. The time that this takes doesn't depend on where they differ.
    pub(crate) fn is(&self, text: &str) -> bool {
        let (own, other) = (self.0.as_bytes(), text.as_bytes());
        own.len() == other.len() && own.iter().zip(other).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_itself_alone() {
        let (one, other) = (Secret::new().unwrap(), Secret::new().unwrap());
        assert!(one.is(one.expose()) && !one.is(other.expose()));
        assert!(!one.is("") && !one.is(&one.expose()[1..]) && !one.is(&format!("{}0", one.expose())));
        assert_eq!(one.expose().len(), 64);
    }
}
