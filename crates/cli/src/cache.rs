//! Where compiled components are kept, as the environment says.

use std::ffi::OsString;
use std::path::PathBuf;

use tracing::warn;
use wasmhost_config::units::parse_size;
use wasmhost_engine::{Cache, Compiler};

use crate::exit::{Exit, Failed};

const BYTES_MAX_DEFAULT: u64 = 1 << 30;

/// Opens the cache, unless WASMHOST_CACHE turns it off.
pub(crate) fn from_environment() -> Result<Cache, Failed> {
    match text("WASMHOST_CACHE")?.as_deref() {
        None | Some("on") => {}
        Some("off") => return Ok(Cache::off().compiled_by(compiler()?)),
        Some(found) => {
            let message = format!("WASMHOST_CACHE: found {found:?}, expected \"on\" or \"off\"");
            return Err(Failed::new(Exit::Usage, message));
        }
    }
    let bytes_max = match text("WASMHOST_CACHE_SIZE")? {
        None => BYTES_MAX_DEFAULT,
        Some(size) => parse_size(&size)
            .map_err(|err| Failed::new(Exit::Usage, format!("WASMHOST_CACHE_SIZE: {err}")))?,
    };
    let Some(directory) = directory() else {
        warn!(
            "compiled components are not kept, and each start compiles them again: neither HOME nor XDG_CACHE_HOME is set; WASMHOST_CACHE_DIR names a directory, WASMHOST_CACHE=off does without one"
        );
        return Ok(Cache::off().compiled_by(compiler()?));
    };
    Ok(Cache::open(&directory, bytes_max).compiled_by(compiler()?))
}

/// Components are compiled in processes of their own, which `main` knows by their first argument.
pub(crate) fn compiler() -> Result<Compiler, Failed> {
    let failed = |err| Failed::new(Exit::NotStarted, format!("can't find this program's own file: {err}"));
    Compiler::of_this_program().map_err(failed)
}

fn text(name: &str) -> Result<Option<String>, Failed> {
    let Some(value) = std::env::var_os(name).filter(|value| !value.is_empty()) else { return Ok(None) };
    let value = value.into_string();
    value.map(Some).map_err(|_| Failed::new(Exit::Usage, format!("{name}: its value isn't UTF-8 text")))
}

/// Where compiled components are kept, unless they aren't.
pub(crate) fn directory() -> Option<PathBuf> {
    let is_off = std::env::var_os("WASMHOST_CACHE").is_some_and(|value| value == "off");
    let directory = directory_in(|name| std::env::var_os(name)).filter(|_| !is_off)?;
    std::path::absolute(directory).ok()
}

/// By the XDG Base Directory Specification, which ignores relative paths.
fn directory_in(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    if let Some(ours) = variable("WASMHOST_CACHE_DIR").filter(|path| !path.is_empty()) {
        return Some(ours.into());
    }
    let absolute = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let caches = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
    caches.map(|caches| caches.join("wasmhost/compiled"))
}

#[cfg(test)]
mod tests {
    use super::directory_in;
    use std::path::Path;

    #[track_caller]
    fn is(variables: &[(&str, &str)], expected: Option<&str>) {
        let found = directory_in(|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).into())
        });
        assert_eq!(found.as_deref(), expected.map(Path::new), "{variables:?}");
    }

    #[test]
    fn the_most_particular_variable_says_where() {
        is(&[("HOME", "/home/a")], Some("/home/a/.cache/wasmhost/compiled"));
        is(&[("HOME", "/home/a"), ("XDG_CACHE_HOME", "/c")], Some("/c/wasmhost/compiled"));
        is(&[("XDG_CACHE_HOME", "/c"), ("WASMHOST_CACHE_DIR", "mine")], Some("mine"));
    }

    #[test]
    fn what_says_nothing_is_passed_over() {
        is(&[], None);
        is(&[("HOME", "")], None);
        is(
            &[("HOME", "/home/a"), ("XDG_CACHE_HOME", "relative"), ("WASMHOST_CACHE_DIR", "")],
            Some("/home/a/.cache/wasmhost/compiled"),
        );
    }
}
