//! formation.toml, Procfile and .env -> [`Formation`].
//!
//! [`load`] reads the file and what it refers to, and [`restore`] the texts that it had at another time; [`parse`] does
//! the same to a text, with its surroundings passed in. All of them report every problem at once, each with its line and
//! column. [`Changes`] says how one formation differs from another.
//!
//! ```text
//! load -> parse -> read::formation -> read::process -> { trigger, grants }
//!                        each value passes through `reader`, which expands ${VAR} and checks types
//! ```
//!
//! A Procfile becomes a [`Draft`], whose text is read as any formation's.
//!
//! Nothing here starts, opens or compiles anything: no tokio, no wasmtime.

mod address;
mod admin;
mod changes;
mod cron;
mod dotenv;
mod draft;
mod error;
mod expand;
mod files;
mod foreign;
mod formation;
mod http;
mod load;
mod normal;
mod postgres_url;
mod procfile;
mod read;
mod reader;
mod report;
mod route;
mod scale;
mod show;
pub mod shown;
mod spelling;
mod timetable;
pub mod units;
mod unworked;
mod written;

pub use address::AddressError;
pub use admin::{Admin, AdminTls};
pub use changes::{Changes, How, TypeChange};
pub use draft::{Draft, DraftType, EnvSource};
pub use error::{LoadError, Problem};
pub use files::read_file;
pub use formation::*;
pub use http::{AccessLog, CertificateFiles, Health, Http, Listen, Tls, TrustedProxies};
pub use load::{
    Origin, default_state_dir, environment, load, load_procfile, load_with, parse, procfile_lines, restore,
};
pub use normal::{has_whole_escapes, normal_host, normal_path};
pub use postgres_url::{Password, PostgresAddress, PostgresRoots, PostgresSession, PostgresTls, PostgresUrl};
pub use procfile::{Procfile, is_procfile};
pub use route::RouteError;
pub use scale::{ScaleChange, ScaleError, ScaleTo};
pub use spelling::{name_problem, nearest};
pub use unworked::UnworkedQueue;
