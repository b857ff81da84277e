//! The host that a verb asks: that of a formation, or one at an address. An option wins over a variable, and `-H` over
//! `WASMHOST_FILE`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use wasmhost_host::AdminToken;

use super::local::Local;
use super::remote::Remote;
use super::url::Address;
use super::{Client, Way};
use crate::args::RemoteFlags;
use crate::exit::{Exit, Failed};
use crate::formation_file::FormationFile;
use crate::print;

const HOST: &str = "WASMHOST_HOST";
const TOKEN_FILE: &str = "WASMHOST_TOKEN_FILE";
const CA: &str = "WASMHOST_CA";

/// See the module.
pub(crate) enum Target {
    Formation(FormationFile),
    At(At),
}

/// An address, and the files that belong to it.
pub(crate) struct At {
    address: Address,
    token_file: Option<PathBuf>,
    ca: Option<PathBuf>,
}

impl Target {
    /// The host that these options, or the environment, name.
    pub(crate) fn find(file: Option<PathBuf>, flags: &RemoteFlags) -> Result<Target, Failed> {
        Target::find_with(file, flags, &|name| std::env::var_os(name))
    }

    fn find_with(
        file: Option<PathBuf>,
        flags: &RemoteFlags,
        variable: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<Target, Failed> {
        let usage = |message: String| Failed::new(Exit::Usage, message);
        // As in a shell, an empty variable is as good as none.
        let variable = |name| variable(name).filter(|value| !value.is_empty());
        let of_variable = || match (&file, variable(HOST)) {
            (None, Some(host)) => {
                host.into_string().map(Some).map_err(|_| usage(format!("{HOST} is no text")))
            }
            _ => Ok(None),
        };
        let (host, named_by) = match &flags.host {
            Some(_) if file.is_some() => {
                return Err(usage(
                    "-H names a host, and so does a formation's file: leave one of the two out".into(),
                ));
            }
            Some(host) => (Some(host.clone()), "-H"),
            None => (of_variable()?, HOST),
        };
        let Some(host) = host else {
            let alone = [("--token-file", flags.token_file.is_some()), ("--ca", flags.ca.is_some())];
            return match alone.iter().find(|(_, is_given)| *is_given) {
                Some((option, _)) => {
                    Err(usage(format!("{option} belongs to a host that -H or {HOST} names: add -H URL")))
                }
                None => Ok(Target::Formation(FormationFile::find(file))),
            };
        };
        let address = Address::parse(&host).map_err(|why| usage(format!("{named_by}: {why}")))?;
        let token_file = flags.token_file.clone().or_else(|| variable(TOKEN_FILE).map(PathBuf::from));
        let ca = flags.ca.clone().or_else(|| variable(CA).map(PathBuf::from));
        Ok(Target::At(At { address, token_file, ca }))
    }

    /// The formation's file, where that is what names the host.
    pub(crate) fn file(&self) -> Option<&FormationFile> {
        match self {
            Target::Formation(file) => Some(file),
            Target::At(_) => None,
        }
    }

    /// The client of this host, whether it is there or not.
    pub(crate) fn client(self) -> Result<Client, Failed> {
        let way = match self {
            Target::Formation(file) => Way::Local(Local::of_file(file)?),
            Target::At(at) => at.way()?,
        };
        Ok(Client { way })
    }
}

impl At {
    fn way(self) -> Result<Way, Failed> {
        let At { address, token_file, ca } = self;
        let token = token_file.as_deref().map(read_token).transpose()?;
        match address {
            Address::Unix(path) => Ok(Way::Local(Local::at(path, token.as_ref()))),
            Address::Url(url) => {
                let Some(token) = token.zip(token_file) else {
                    let message = format!(
                        "a host at {url} asks for the token of its [admin]: name a file that has it by --token-file or {TOKEN_FILE}"
                    );
                    return Err(Failed::new(Exit::Usage, message));
                };
                Ok(Way::Remote(Box::new(Remote::new(url, token, ca.as_deref())?)))
            }
        }
    }
}

fn read_token(file: &Path) -> Result<AdminToken, Failed> {
    let (token, warning) = AdminToken::read(file).map_err(|why| Failed::new(Exit::Usage, why))?;
    if let Some(warning) = warning {
        print::note(format_args!("warning: {warning}"));
    }
    Ok(token)
}

/// Refuses options that name a host elsewhere, for a verb that works on this machine alone.
pub(crate) fn refuse_remote(verb: &str, flags: &RemoteFlags) -> Result<(), Failed> {
    match flags {
        RemoteFlags { host: None, token_file: None, ca: None } => Ok(()),
        _ => {
            let message = format!(
                "`{verb}` works on files of this machine, and asks no host elsewhere: leave -H, --token-file and --ca out, or run it there"
            );
            Err(Failed::new(Exit::Usage, message))
        }
    }
}

/// The same for `exec`, which a person may mean for the host that the environment names.
pub(crate) fn refuse_remote_exec(file: Option<&PathBuf>, flags: &RemoteFlags) -> Result<(), Failed> {
    match Target::find(file.cloned(), flags)? {
        Target::Formation(_) => Ok(()),
        Target::At(at) => {
            let address = at.address;
            let message = format!(
                "`exec` runs a command on the machine that it is called on, with the files that its type is granted, and not at {address}: \
                 call it on that machine, or put a job on a queue by `enqueue`; for a formation of this machine name its file by -f"
            );
            Err(Failed::new(Exit::Usage, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(file: Option<&str>, host: Option<&str>, variables: &[(&str, &str)]) -> Result<String, String> {
        let flags = RemoteFlags { host: host.map(str::to_owned), ..RemoteFlags::default() };
        let variable =
            |name: &str| variables.iter().find(|(of, _)| *of == name).map(|(_, value)| OsString::from(value));
        match Target::find_with(file.map(PathBuf::from), &flags, &variable) {
            Ok(Target::Formation(file)) => Ok(file.path().display().to_string()),
            Ok(Target::At(at)) => Ok(at.address.to_string()),
            Err(failed) => Err(failed.message),
        }
    }

    #[test]
    fn an_option_wins_over_a_variable_and_a_host_over_a_file() {
        let both = [("WASMHOST_HOST", "https://a.example"), ("WASMHOST_FILE", "b.toml")];
        assert_eq!(find(None, None, &both).unwrap(), "https://a.example");
        assert_eq!(find(Some("c.toml"), None, &both).unwrap(), "c.toml");
        assert_eq!(find(None, Some("https://d.example:1"), &both).unwrap(), "https://d.example:1");
        assert_eq!(find(None, None, &[("WASMHOST_HOST", "")]).unwrap(), "formation.toml");
        let twice = find(Some("c.toml"), Some("https://d.example"), &[]).unwrap_err();
        assert!(twice.contains("leave one of the two out"), "{twice}");
        let wrong = find(None, None, &[("WASMHOST_HOST", "ftp://a")]).unwrap_err();
        assert!(wrong.starts_with("WASMHOST_HOST: found"), "{wrong}");
    }

    #[test]
    fn files_for_a_host_elsewhere_need_one() {
        let flags = RemoteFlags { ca: Some("ca.pem".into()), ..RemoteFlags::default() };
        let failed = Target::find_with(None, &flags, &|_| None).err().unwrap();
        assert!(failed.exit == Exit::Usage && failed.message.starts_with("--ca belongs to a host"));
    }
}
