//! The token that clients of the admin API show where it is served by TCP. Its holder may do everything, so it is
//! never shown, and its file is for the host's user alone to write.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use http::HeaderValue;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::state_dir::is_trusted_user;

/// Fewer can be guessed.
const CHARACTERS_MIN: usize = 32;

/// Longer ones are another kind of file.
const FILE_BYTES_MAX: u64 = 4 << 10;

/// The token, for one who shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct AdminToken(String);

/// The token, for one who compares: its digest alone.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Expected([u8; 32]);

impl AdminToken {
    /// Reads the file. A warning for a person is returned too, where others may read it.
    ///
    /// # Errors
    ///
    /// It can't be read, others may write to it, or it has no token that is good enough: a line for a person, without
    /// anything of what is in the file.
    pub fn read(path: &Path) -> Result<(AdminToken, Option<String>), String> {
        let shown = path.display();
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(|err| cannot_read(path, &err))?;
        let warning = check_access(path, &file)?;
        let read = file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes);
        read.map_err(|err| cannot_read(path, &err))?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(format!(
                "{shown} has more than {FILE_BYTES_MAX} bytes, expected a token and nothing else"
            ));
        }
        Ok((AdminToken(token(bytes.trim_ascii()).map_err(|why| why.told(path))?), warning))
    }

    /// The field `authorization` of a request that shows it.
    pub fn header(&self) -> HeaderValue {
        // It has only characters that a header may have.
        let value = HeaderValue::from_str(&format!("Bearer {}", self.0));
        let mut value = value.unwrap_or(HeaderValue::from_static("Bearer"));
        value.set_sensitive(true);
        value
    }

    pub(super) fn expected(&self) -> Expected {
        Expected(Sha256::digest(&self.0).into())
    }
}

impl Expected {
    /// Compares in a time that says nothing about the token.
    pub(super) fn is(&self, shown: &[u8]) -> bool {
        let shown: [u8; 32] = Sha256::digest(shown).into();
        self.0.ct_eq(&shown).into()
    }
}

/// It is never shown.
impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken(not shown)")
    }
}

impl fmt::Debug for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Expected(not shown)")
    }
}

fn cannot_read(path: &Path, err: &std::io::Error) -> String {
    format!("can't read the token file {}: {err}", path.display())
}

/// Refuses a file that another user decides on. A warning is for one that others may read: containers are given secrets
/// so.
fn check_access(path: &Path, file: &File) -> Result<Option<String>, String> {
    let shown = path.display();
    let found = file.metadata().map_err(|err| cannot_read(path, &err))?;
    if found.is_dir() {
        return Err(format!("{shown} is a directory, expected a file with the token"));
    }
    if !found.is_file() {
        // A pipe of a shell, say.
        return Ok(None);
    }
    let mode = found.mode() & 0o777;
    if !is_trusted_user(found.uid()) {
        return Err(format!(
            "the token file {shown} belongs to the user {}, expected our own ({}) or root: whoever can write it can do what its token can",
            found.uid(),
            rustix::process::geteuid().as_raw()
        ));
    }
    if mode & 0o022 != 0 {
        return Err(format!(
            "the token file {shown} may be written by other users (mode {mode:03o}), expected 600: see that its token is yours, and `chmod 600 {shown}`"
        ));
    }
    Ok((mode & 0o004 != 0).then(|| {
        format!("the token file {shown} may be read by every user (mode {mode:03o}): `chmod 600 {shown}` keeps the token secret")
    }))
}

/// Why a text is no token. None of it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NoToken {
    Empty,
    Short(usize),
    /// A character that RFC 6750 has in no token.
    Character,
}

impl NoToken {
    fn told(self, path: &Path) -> String {
        let path = path.display();
        let make = format!("`openssl rand -hex 32 > {path}` makes one");
        match self {
            NoToken::Empty => format!("the token file {path} is empty: {make}"),
            NoToken::Short(characters) => format!(
                "the token in {path} has {characters} characters, expected at least {CHARACTERS_MIN}: {make}"
            ),
            NoToken::Character => format!(
                "the token in {path} has characters that no token may have, expected one line of letters, digits and - . _ ~ + / =: {make}"
            ),
        }
    }
}

/// A text as a token, as RFC 6750, section 2.1, has it.
fn token(text: &[u8]) -> Result<String, NoToken> {
    if text.is_empty() {
        return Err(NoToken::Empty);
    }
    let is_of_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(byte);
    if !text.iter().all(is_of_token) {
        return Err(NoToken::Character);
    }
    match text.len() {
        short if short < CHARACTERS_MIN => Err(NoToken::Short(short)),
        _ => Ok(text.iter().copied().map(char::from).collect()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const TOKEN: &str = "0123456789abcdef0123456789ABCDEF";

    fn read(text: &str, mode: u32) -> Result<(AdminToken, Option<String>), String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        AdminToken::read(&file)
    }

    #[test]
    fn a_token_is_one_word_of_32_characters_or_more() {
        let (token, warning) = read(&format!("\n{TOKEN}\r\n"), 0o600).unwrap();
        assert_eq!((token.0.as_str(), warning), (TOKEN, None));
        assert_eq!(token.header(), format!("Bearer {TOKEN}"));
        for (text, why) in [
            ("", "is empty"),
            ("  \n", "is empty"),
            (&TOKEN[1..], "has 31 characters, expected at least 32"),
            (&format!("{TOKEN}\n{TOKEN}"), "characters that no token may have"),
            (&format!("{TOKEN}ü"), "characters that no token may have"),
            (&"x".repeat(5000), "more than 4096 bytes"),
        ] {
            let told = read(text, 0o600).unwrap_err();
            assert!(told.contains(why), "{told}");
            assert!(!told.contains(&TOKEN[..8]), "{told}");
        }
    }

    #[test]
    fn nothing_shows_a_token() {
        let (token, _) = read(TOKEN, 0o600).unwrap();
        let shown = format!("{token:?} {:?} {:?}", token.expected(), token.header());
        assert!(!shown.contains(&TOKEN[..4]), "{shown}");
    }

    #[test]
    fn a_file_that_others_may_write_is_refused_and_one_that_they_may_read_is_told_of() {
        for mode in [0o620, 0o602, 0o666] {
            let told = read(TOKEN, mode).unwrap_err();
            assert!(told.contains("may be written by other users") && told.contains("chmod 600"), "{told}");
        }
        for (mode, is_told) in [(0o600, false), (0o400, false), (0o640, false), (0o644, true), (0o444, true)]
        {
            let (_, warning) = read(TOKEN, mode).unwrap();
            assert_eq!(warning.is_some(), is_told, "{mode:o} {warning:?}");
        }
        let folder = tempfile::tempdir().unwrap();
        assert!(AdminToken::read(folder.path()).unwrap_err().contains("is a directory"));
        assert!(
            AdminToken::read(&folder.path().join("no")).unwrap_err().contains("can't read the token file")
        );
    }

    #[test]
    fn the_right_token_is_told_from_others() {
        let expected = AdminToken(TOKEN.to_owned()).expected();
        assert!(expected.is(TOKEN.as_bytes()));
        for other in ["", &TOKEN[1..], &TOKEN.to_lowercase(), &format!("{TOKEN}0"), &format!("{TOKEN} ")] {
            assert!(!expected.is(other.as_bytes()), "{other}");
        }
    }
}
