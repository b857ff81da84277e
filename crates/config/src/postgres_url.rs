//! `postgres://user:password@host:5432/database?sslmode=verify-full`, read by its grammar.
//!
//! Messages never repeat a user or a password, nor anything that could be a part of one.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::spelling::{nearest, quoted};

/// The port of PostgreSQL.
const PORT_DEFAULT: u16 = 5432;

/// The longest name that PostgreSQL doesn't cut, in bytes.
const NAME_BYTES_MAX: usize = 63;

/// Addresses of one URL, at most.
const ADDRESSES_MAX: usize = 16;

const PARAMETERS: [&str; 4] = ["schema", "sslmode", "sslrootcert", "target_session_attrs"];

/// A database of PostgreSQL, and the schema in it that a formation has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresUrl {
    /// Where the server is. Several are tried one after another: a server, and those that take over from it.
    pub addresses: Vec<PostgresAddress>,
    /// The role to log in as.
    pub user: String,
    /// Its password, if it needs one.
    pub password: Option<Password>,
    /// The database.
    pub database: String,
    /// The schema that has this formation's tables.
    pub schema: String,
    /// Whether the connection is encrypted, and how the server proves who it is.
    pub tls: PostgresTls,
    /// Which server may be used, of several.
    pub session: PostgresSession,
}

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresAddress {
    /// A name, an IP address without brackets, or the folder of a socket, which begins with `/`.
    pub host: String,
    /// The port; that of a socket is a part of its name.
    pub port: u16,
}

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

/// `sslmode` and `sslrootcert`, as libpq has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PostgresTls {
    /// Never.
    Disable,
    /// If the server can.
    Prefer,
    /// Always. The server's certificate isn't looked at.
    Require,
    /// Always, and the server's certificate is signed by one of these.
    VerifyCa(PathBuf),
    /// The same, and the certificate is for the name that the URL has.
    VerifyFull(PostgresRoots),
}

/// Certificates that are trusted to sign a server's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PostgresRoots {
    /// Those that browsers trust, as this program knows them.
    System,
    /// Those of a file in PEM.
    File(PathBuf),
}

/// `target_session_attrs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PostgresSession {
    /// One that can be written: the primary of a cluster.
    ReadWrite,
    /// Whichever answers first.
    Any,
}

impl Password {
    /// The text.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl PostgresUrl {
    /// Reads a URL. The schema is `wasmhost_NAME` where the URL has none, and paths are relative to `folder`.
    ///
    /// # Errors
    ///
    /// The text says what was found, and what was expected.
    pub fn parse(url: &str, name: &str, folder: &Path) -> Result<PostgresUrl, String> {
        let rest = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://"));
        let Some(rest) = rest else {
            return Err(format!(
                "found \"postgres:\" without \"//\", expected {EXPECTED}",
                EXPECTED = PostgresUrl::EXPECTED
            ));
        };
        let (authority, rest) = split_at_any(rest, &['/', '?', '#']);
        if rest.contains('@') || authority.matches('@').count() > 1 {
            let message = "found a user or password with \"/\", \"?\", \"#\" or \"@\" in it, expected them as %2F, %3F, %23 and %40";
            return Err(message.to_owned());
        }
        if rest.contains('#') {
            return Err("found a \"#\", expected none: write it as %23".to_owned());
        }
        let Some((user, hosts)) = authority.split_once('@') else {
            return Err("found no user, expected \"postgres://USER:PASSWORD@HOST/DATABASE\"".to_owned());
        };
        let (user, password) = match user.split_once(':') {
            Some((user, password)) => (user, Some(password)),
            None => (user, None),
        };
        let secret = |part: &str, what: &str| {
            decoded(part)
                .ok_or_else(|| format!("found a {what} with a \"%\" that escapes nothing: write it as %25"))
        };
        let user = secret(user, "user")?;
        if user.is_empty() {
            return Err("found an empty user, expected \"postgres://USER:PASSWORD@HOST/DATABASE\"".to_owned());
        }
        let password = password.map(|password| secret(password, "password").map(Password)).transpose()?;
        let addresses = hosts.split(',').map(address).collect::<Result<Vec<_>, _>>()?;
        if addresses.len() > ADDRESSES_MAX {
            return Err(format!("found {} addresses, expected {ADDRESSES_MAX} at most", addresses.len()));
        }
        let (database, query) = rest.split_once('?').unwrap_or((rest, ""));
        let database = readable(database.strip_prefix('/').unwrap_or(database), "database")?;
        if database.is_empty() || database.len() > NAME_BYTES_MAX {
            return Err(format!(
                "found {}, expected a database of 1 to {NAME_BYTES_MAX} bytes behind the address: \"postgres://USER@HOST/DATABASE\"",
                if database.is_empty() { "no database".to_owned() } else { quoted(&database) }
            ));
        }
        let parameters = Parameters::parse(query)?;
        let schema = match parameters.schema {
            Some(schema) => schema_name(schema)?,
            None => default_schema(name)?,
        };
        let tls = tls(parameters.sslmode.as_deref(), parameters.sslrootcert.as_deref(), folder)?;
        let session = match parameters.target_session_attrs.as_deref() {
            None | Some("read-write" | "primary") => PostgresSession::ReadWrite,
            Some("any") => PostgresSession::Any,
            Some(other) => {
                let found = quoted(other);
                return Err(format!(
                    "found target_session_attrs={found}, expected \"read-write\" or \"any\""
                ));
            }
        };
        Ok(PostgresUrl { addresses, user, password, database, schema, tls, session })
    }

    /// The form of such a URL, for messages.
    pub const EXPECTED: &str = "\"postgres://USER:PASSWORD@HOST:PORT/DATABASE\"";
}

/// The text up to the first of these characters, and from it on.
fn split_at_any<'a>(text: &'a str, ends: &[char]) -> (&'a str, &'a str) {
    text.split_at(text.find(ends).unwrap_or(text.len()))
}

fn address(text: &str) -> Result<PostgresAddress, String> {
    let (host, port) = match text.strip_prefix('[') {
        Some(bracketed) => {
            let Some((host, rest)) = bracketed.split_once(']') else {
                return Err(format!("found {}, expected a \"]\" behind the address", quoted(text)));
            };
            if host.parse::<std::net::Ipv6Addr>().is_err() {
                return Err(format!("found {}, expected an IPv6 address in the brackets", quoted(host)));
            }
            (host.to_owned(), rest.strip_prefix(':').or(rest.is_empty().then_some("")).map(str::to_owned))
        }
        None => match text.split_once(':') {
            Some((host, port)) => (readable(host, "host")?, Some(port.to_owned())),
            None => (readable(text, "host")?, Some(String::new())),
        },
    };
    let is_folder = host.starts_with('/');
    if host.is_empty() || !is_folder && host.contains(|letter: char| letter.is_whitespace() || letter == '/')
    {
        let found = quoted(text);
        return Err(format!(
            "found {found}, expected a host, or the folder of a socket with each \"/\" as %2F"
        ));
    }
    let port = match port.as_deref() {
        Some("") => Some(PORT_DEFAULT),
        Some(digits) => digits.parse().ok().filter(|port| *port > 0),
        None => None,
    };
    let Some(port) = port else {
        return Err(format!("found {}, expected HOST:PORT with a port from 1 to 65535", quoted(text)));
    };
    Ok(PostgresAddress { host, port })
}

#[derive(Default)]
struct Parameters {
    schema: Option<String>,
    sslmode: Option<String>,
    sslrootcert: Option<String>,
    target_session_attrs: Option<String>,
}

impl Parameters {
    fn parse(query: &str) -> Result<Parameters, String> {
        let mut parameters = Parameters::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = readable(value, key)?;
            let place = match key {
                "schema" => &mut parameters.schema,
                "sslmode" => &mut parameters.sslmode,
                "sslrootcert" => &mut parameters.sslrootcert,
                "target_session_attrs" => &mut parameters.target_session_attrs,
                // libpq takes it so.
                "password" => {
                    return Err("found the parameter \"password\", expected it before the \"@\"".to_owned());
                }
                _ => {
                    let did_you_mean = nearest(key, PARAMETERS)
                        .map(|nearest| format!(" (did you mean \"{nearest}\"?)"))
                        .unwrap_or_default();
                    let expected = PARAMETERS.map(|name| format!("\"{name}\"")).join(", ");
                    let found = quoted(key);
                    return Err(format!(
                        "found the parameter {found}, expected one of {expected}{did_you_mean}"
                    ));
                }
            };
            if value.is_empty() {
                return Err(format!("found the parameter \"{key}\" without a value, expected {key}=..."));
            }
            if place.replace(value).is_some() {
                return Err(format!("found the parameter \"{key}\" twice, expected it once"));
            }
        }
        Ok(parameters)
    }
}

fn tls(mode: Option<&str>, roots: Option<&str>, folder: &Path) -> Result<PostgresTls, String> {
    let file = roots.filter(|roots| *roots != "system").map(|file| folder.join(file));
    match (mode.unwrap_or("prefer"), file) {
        ("disable", _) => Ok(PostgresTls::Disable),
        ("prefer", _) => Ok(PostgresTls::Prefer),
        // As libpq: with certificates that are trusted, one of them has to have signed.
        ("require" | "verify-ca", Some(file)) => Ok(PostgresTls::VerifyCa(file)),
        ("require", None) => Ok(PostgresTls::Require),
        // Anybody can get a certificate for a name of their own.
        ("verify-ca", None) => {
            Err("found sslmode=verify-ca without a file of certificates, expected sslrootcert=FILE; \
             or sslmode=verify-full, which takes those that browsers trust"
                .to_owned())
        }
        ("verify-full", Some(file)) => Ok(PostgresTls::VerifyFull(PostgresRoots::File(file))),
        ("verify-full", None) => Ok(PostgresTls::VerifyFull(PostgresRoots::System)),
        (other, _) => Err(format!(
            "found sslmode={}, expected \"disable\", \"prefer\", \"require\", \"verify-ca\" or \"verify-full\"",
            quoted(other)
        )),
    }
}

fn schema_name(schema: String) -> Result<String, String> {
    let is_reserved = schema.starts_with("pg_") || schema == "information_schema" || schema == "public";
    if schema.len() > NAME_BYTES_MAX || schema.contains(char::is_control) || is_reserved {
        return Err(format!(
            "found schema={}, expected a schema of wasmhost's own, of {NAME_BYTES_MAX} bytes at most",
            quoted(&schema)
        ));
    }
    Ok(schema)
}

fn default_schema(name: &str) -> Result<String, String> {
    let schema = format!("wasmhost_{name}");
    if schema.len() > NAME_BYTES_MAX {
        return Err(format!(
            "the schema \"wasmhost_NAME\" would have {} bytes, of {NAME_BYTES_MAX} that PostgreSQL takes: name one by \"?schema=...\"",
            schema.len()
        ));
    }
    Ok(schema)
}

/// A part that may be repeated, without its escapes.
fn readable(part: &str, what: &str) -> Result<String, String> {
    decoded(part).filter(|text| !text.contains('\0')).ok_or_else(|| {
        format!("found {} as {what}, expected each \"%\" as %25, and no zero byte", quoted(part))
    })
}

/// Without percent escapes; none where one is broken.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit =
                    |byte: Option<u8>| char::from(byte?).to_digit(16).and_then(|d| u8::try_from(d).ok());
                digit(rest.next())? << 4 | digit(rest.next())?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                encoded.push(char::from(byte))
            }
            byte => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

impl fmt::Display for PostgresUrl {
    /// As it was written, but for the password, and without parameters about TLS.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let password = if self.password.is_some() { ":***" } else { "" };
        write!(f, "postgres://{}{password}@", encoded(&self.user))?;
        for (place, address) in self.addresses.iter().enumerate() {
            let comma = if place > 0 { "," } else { "" };
            write!(f, "{comma}{address}")?;
        }
        write!(f, "/{}?schema={}", encoded(&self.database), encoded(&self.schema))?;
        let (mode, roots) = match &self.tls {
            PostgresTls::Prefer => (None, None),
            PostgresTls::Disable => (Some("disable"), None),
            PostgresTls::Require => (Some("require"), None),
            PostgresTls::VerifyCa(file) => (Some("verify-ca"), Some(file)),
            PostgresTls::VerifyFull(PostgresRoots::System) => (Some("verify-full"), None),
            PostgresTls::VerifyFull(PostgresRoots::File(file)) => (Some("verify-full"), Some(file)),
        };
        if let Some(mode) = mode {
            write!(f, "&sslmode={mode}")?;
        }
        if let Some(file) = roots {
            write!(f, "&sslrootcert={}", encoded(&file.to_string_lossy()))?;
        }
        match self.session {
            PostgresSession::ReadWrite => Ok(()),
            PostgresSession::Any => f.write_str("&target_session_attrs=any"),
        }
    }
}

impl fmt::Display for PostgresAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            folder if folder.starts_with('/') => write!(f, "{}:{}", encoded(folder), self.port),
            ip if ip.contains(':') => write!(f, "[{ip}]:{}", self.port),
            host => write!(f, "{host}:{}", self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<PostgresUrl, String> {
        PostgresUrl::parse(url, "shop", Path::new("/srv/shop"))
    }

    #[test]
    fn a_url_is_read_whole() {
        let url = parse(
            "postgresql://app:s%3Ae%2Fc%40r%25et@db-1:6432,[::1],%2Frun%2Fpostgresql/my%20app?sslmode=verify-full&sslrootcert=ca.pem",
        )
        .unwrap();
        let at = |host: &str, port| PostgresAddress { host: host.to_owned(), port };
        assert_eq!(url.addresses, [at("db-1", 6432), at("::1", 5432), at("/run/postgresql", 5432)]);
        assert_eq!((url.user.as_str(), url.database.as_str()), ("app", "my app"));
        assert_eq!(url.password.as_ref().map(Password::reveal), Some("s:e/c@r%et"));
        assert_eq!(url.schema, "wasmhost_shop");
        assert_eq!(url.tls, PostgresTls::VerifyFull(PostgresRoots::File("/srv/shop/ca.pem".into())));
        assert_eq!(url.session, PostgresSession::ReadWrite);
        let shown = url.to_string();
        assert!(!shown.contains("s%3A") && !format!("{url:?}").contains("c@r"), "{shown}");
        assert_eq!(PostgresUrl { password: url.password.clone(), ..parse(&shown).unwrap() }, url);
    }

    #[test]
    fn modes_of_tls_are_those_of_libpq() {
        let tls = |query: &str| parse(&format!("postgres://a@b/c?{query}")).map(|url| url.tls);
        let file = || PathBuf::from("/etc/ca.pem");
        assert_eq!(tls(""), Ok(PostgresTls::Prefer));
        assert_eq!(tls("sslmode=disable"), Ok(PostgresTls::Disable));
        assert_eq!(tls("sslmode=require"), Ok(PostgresTls::Require));
        assert_eq!(tls("sslmode=require&sslrootcert=/etc/ca.pem"), Ok(PostgresTls::VerifyCa(file())));
        assert_eq!(tls("sslmode=verify-ca&sslrootcert=/etc/ca.pem"), Ok(PostgresTls::VerifyCa(file())));
        assert!(tls("sslmode=verify-ca").unwrap_err().contains("sslrootcert=FILE"));
        assert_eq!(
            tls("sslmode=verify-full&sslrootcert=system"),
            Ok(PostgresTls::VerifyFull(PostgresRoots::System))
        );
        assert!(
            tls("sslmode=allow").unwrap_err().starts_with("found sslmode=\"allow\", expected \"disable\"")
        );
    }

    #[test]
    fn errors_name_what_is_wrong_and_no_secret() {
        for (url, why) in [
            ("postgres:x", "without \"//\""),
            ("postgres://hunter2/shop", "found no user"),
            ("postgres://me:hun/ter2@db/shop", "expected them as %2F"),
            ("postgres://me:hun?ter2@db/shop", "expected them as %2F"),
            ("postgres://me:hun#ter2@db/shop", "expected them as %2F"),
            ("postgres://me:hunt@er2@db/shop", "expected them as %2F"),
            ("postgres://me:hunter2%@db/shop", "found a password with a \"%\" that escapes nothing"),
            ("postgres://:hunter2@db/shop", "found an empty user"),
            ("postgres://me:hunter2@/shop", "expected a host"),
            ("postgres://me:hunter2@db:0/shop", "found \"db:0\", expected HOST:PORT"),
            ("postgres://me:hunter2@[::g]/shop", "expected an IPv6 address"),
            ("postgres://me:hunter2@db", "found no database"),
            ("postgres://me:hunter2@db/", "found no database"),
            ("postgres://me:hunter2@db/shop?sslmod=require", "(did you mean \"sslmode\"?)"),
            ("postgres://me:hunter2@db/shop?schema=", "found the parameter \"schema\" without a value"),
            ("postgres://me:hunter2@db/shop?schema=a&schema=b", "twice"),
            ("postgres://me:hunter2@db/shop?schema=public", "expected a schema of wasmhost's own"),
            (
                "postgres://me:hunter2@db/shop?target_session_attrs=standby",
                "expected \"read-write\" or \"any\"",
            ),
        ] {
            let message = parse(url).unwrap_err();
            assert!(message.contains(why), "{url}: {message}");
            assert!(!message.contains("hun") && !message.contains("er2"), "{message}");
        }
        let long = PostgresUrl::parse("postgres://a@b/c", &"x".repeat(55), Path::new("/"));
        assert!(long.unwrap_err().contains("?schema="));
    }
}
