//! The words of WASI 0.3 in those of 0.2, and back. The library knows both, and does the same for both.

use wasmtime::component::Resource;
use wasmtime_wasi::TrappableError;
use wasmtime_wasi::filesystem::Descriptor;
use wasmtime_wasi::p2::FsResult;
use wasmtime_wasi::p2::bindings::filesystem::types as plain;
use wasmtime_wasi::p3::bindings::filesystem::types as concurrent;

/// An argument of a function of WASI 0.3.
pub(super) trait Plain {
    /// The same in 0.2.
    type Plain;

    fn plain(self) -> Self::Plain;
}

impl Plain for String {
    type Plain = String;

    fn plain(self) -> String {
        self
    }
}

impl Plain for Resource<Descriptor> {
    type Plain = Resource<Descriptor>;

    fn plain(self) -> Resource<Descriptor> {
        self
    }
}

/// Flags have one name in both versions.
macro_rules! flags {
    ($flags:ident: $($flag:ident)*) => {
        impl Plain for concurrent::$flags {
            type Plain = plain::$flags;

            fn plain(self) -> plain::$flags {
                let mut flags = plain::$flags::empty();
                $(if self.contains(concurrent::$flags::$flag) {
                    flags |= plain::$flags::$flag;
                })*
                flags
            }
        }
    };
}

flags!(PathFlags: SYMLINK_FOLLOW);
flags!(OpenFlags: CREATE DIRECTORY EXCLUSIVE TRUNCATE);
flags!(DescriptorFlags: READ WRITE FILE_INTEGRITY_SYNC DATA_INTEGRITY_SYNC REQUESTED_WRITE_SYNC MUTATE_DIRECTORY);

/// The result of a function of WASI 0.2, as 0.3 says it.
pub(super) fn concurrent<T>(result: FsResult<T>) -> Result<T, TrappableError<concurrent::ErrorCode>> {
    result.map_err(|err| match err.downcast() {
        Ok(code) => concurrent_code(code).into(),
        Err(trap) => TrappableError::trap(trap),
    })
}

macro_rules! codes {
    ($($code:ident)*) => {
        fn concurrent_code(code: plain::ErrorCode) -> concurrent::ErrorCode {
            match code {
                $(plain::ErrorCode::$code => concurrent::ErrorCode::$code,)*
                // Nothing waits there that would have to be told so.
                plain::ErrorCode::WouldBlock => concurrent::ErrorCode::Io,
            }
        }
    };
}

codes!(
    Access Already BadDescriptor Busy Deadlock Quota Exist FileTooLarge IllegalByteSequence InProgress Interrupted Invalid
    Io IsDirectory Loop TooManyLinks MessageSize NameTooLong NoDevice NoEntry NoLock InsufficientMemory InsufficientSpace
    NotDirectory NotEmpty NotRecoverable Unsupported NoTty NoSuchDevice Overflow NotPermitted Pipe ReadOnly InvalidSeek
    TextFileBusy CrossDevice
);
