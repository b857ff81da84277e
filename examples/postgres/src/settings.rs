//! `postgres://USER:PASSWORD@HOST:PORT/DATABASE`

use crate::client::Error;

/// See the module.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) user: String,
    pub(crate) password: String,
    pub(crate) database: String,
}

impl Settings {
    pub(crate) fn parse(url: &str) -> Result<Settings, Error> {
        // The password isn't to be told in an error.
        let wrong = || {
            Error::Settings(
                "DATABASE_URL isn't as expected: postgres://USER:PASSWORD@HOST:PORT/DATABASE".into(),
            )
        };
        let rest = url.strip_prefix("postgres://").or(url.strip_prefix("postgresql://")).ok_or_else(wrong)?;
        let (person, place) = rest.rsplit_once('@').ok_or_else(wrong)?;
        let (user, password) = person.split_once(':').unwrap_or((person, ""));
        let (address, database) = place.split_once('/').unwrap_or((place, user));
        let (host, port) = match address.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().map_err(|_| wrong())?),
            None => (address, 5432),
        };
        let text = |part: &str| percent_decoded(part).ok_or_else(wrong);
        Ok(Settings {
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
            user: text(user)?,
            password: text(password)?,
            database: text(database)?,
        })
    }
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let code = std::str::from_utf8(rest.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(code, 16).ok()?);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).ok()
}
