//! Which directory something is, by whatever path it was found.

use std::io;
use std::path::Path;

use rustix::fd::AsFd;

/// The device that an open file is on.
pub(crate) fn device_of(found: impl AsFd) -> rustix::io::Result<u64> {
    Identity::of_opened(found).map(|identity| identity.device)
}

/// Whether the system shows its processes there, as in /proc.
#[cfg(target_os = "linux")]
pub(crate) fn shows_processes(found: impl AsFd) -> rustix::io::Result<bool> {
    rustix::fs::fstatfs(found).map(|found| found.f_type == rustix::fs::PROC_SUPER_MAGIC)
}

/// The same where there is no /proc.
#[cfg(not(target_os = "linux"))]
pub(crate) fn shows_processes(_found: impl AsFd) -> rustix::io::Result<bool> {
    Ok(false)
}

/// The device and the inode, which is the same by whatever path a directory was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    /// The identity of what is at this path, once links have been followed.
    ///
    /// # Errors
    ///
    /// Nothing is there, or it can't be reached.
    pub fn of(path: &Path) -> io::Result<Identity> {
        Ok(Identity::from_stat(&rustix::fs::stat(path)?))
    }

    /// The number of the device that it is on.
    pub(crate) fn device(self) -> u64 {
        self.device
    }

    pub(super) fn of_opened(found: impl AsFd) -> rustix::io::Result<Identity> {
        rustix::fs::fstat(found).map(|stat| Identity::from_stat(&stat))
    }

    pub(super) fn from_stat(stat: &rustix::fs::Stat) -> Identity {
        // Their types differ between architectures.
        #[allow(clippy::unnecessary_cast, clippy::useless_conversion)]
        Identity { device: stat.st_dev as u64, inode: stat.st_ino as u64 }
    }
}
