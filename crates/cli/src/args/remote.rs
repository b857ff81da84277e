//! Options that name a host by its address instead of its formation.

use std::path::PathBuf;

use clap::Args;

#[derive(Args, Debug, Clone, Default)]
#[command(next_help_heading = "Options for a host elsewhere")]
pub(crate) struct RemoteFlags {
    /// Ask the host at this URL, such as `https://shop.example:9443`, instead of the formation's; unix:PATH is the socket of
    /// one on this machine [env: WASMHOST_HOST]
    #[arg(short = 'H', long, global = true, value_name = "URL")]
    pub(crate) host: Option<String>,
    /// The file with its token [env: WASMHOST_TOKEN_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Trust the certificates in this PEM file, and no public authorities [env: WASMHOST_CA]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
}
