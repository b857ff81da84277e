//! The releases of a store's file, for one who isn't its host, whether a host has the file open or not.

use std::fs::File;
use std::path::Path;

use rusqlite::Connection;

use super::ids::beside;
use super::{errors, releases, resolved, schema};
use crate::StoreError;
use crate::releases::Release;

/// See the module. Nothing is changed, and the file need not be writable. Each answer blocks until it is read.
pub struct ReleasesInFile {
    connection: Connection,
    /// As long as this is held no host opens the store.
    _host: Option<File>,
}

impl ReleasesInFile {
    /// Opens a store's file. None where there is no file, or one of a version without releases.
    ///
    /// # Errors
    ///
    /// [`StoreError::Open`], [`StoreError::NewerSchema`] and the like where it can't be read.
    pub fn open(path: &Path) -> Result<Option<ReleasesInFile>, StoreError> {
        let path = &resolved(path);
        if !path.exists() {
            return Ok(None);
        }
        let host = File::open(beside(path, "-host")).ok().filter(|host| host.try_lock_shared().is_ok());
        let is_whole = std::fs::metadata(beside(path, "-wal")).map_or(true, |log| log.len() == 0);
        let connection = match host.is_some() && is_whole {
            true => schema::open_still(path)?,
            false => schema::open_reader(path)?,
        };
        let has_releases = schema::version_of(&connection, path)? >= schema::WITH_RELEASES;
        Ok(has_releases.then_some(ReleasesInFile { connection, _host: host }))
    }

    /// As [`Releases::live`](crate::Releases::live).
    ///
    /// # Errors
    ///
    /// It can't be read.
    pub fn live(&self) -> Result<Option<Release>, StoreError> {
        self.read(releases::live)
    }

    /// As [`Releases::numbers`](crate::Releases::numbers).
    ///
    /// # Errors
    ///
    /// They can't be read.
    pub fn numbers(&self, limit: u32) -> Result<Vec<u64>, StoreError> {
        self.read(|connection| releases::numbers(connection, limit))
    }

    /// As [`Releases::release`](crate::Releases::release).
    ///
    /// # Errors
    ///
    /// It can't be read.
    pub fn release(&self, number: u64) -> Result<Option<Release>, StoreError> {
        let Ok(number) = i64::try_from(number) else { return Ok(None) };
        self.read(|connection| releases::of_number(connection, number))
    }

    /// As [`Releases::live_before`](crate::Releases::live_before).
    ///
    /// # Errors
    ///
    /// It can't be read.
    pub fn live_before(&self, number: u64) -> Result<Option<Release>, StoreError> {
        let number = i64::try_from(number).unwrap_or(i64::MAX);
        self.read(|connection| releases::live_before(connection, number))
    }

    fn read<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        read(&self.connection).map_err(|error| errors::from_sqlite(&self.connection, &error))
    }
}
