//! SQLite's own way to the file system, with a recorder in it.
//!
//! The unix VFS is copied and made the default, with `xOpen` and `xDelete` replaced; and each file that it opens gets
//! a copy of its table of methods, with `xWrite`, `xTruncate`, `xSync` and `xClose` replaced. All else, locks and shared
//! memory too, is SQLite's. Only folders that a [`Disk`] was made for are recorded.

#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, Once, OnceLock};

use rusqlite::ffi;

use crate::disk::Disk;

/// The disks, by their folders.
static DISKS: LazyLock<Mutex<HashMap<PathBuf, Arc<Disk>>>> = LazyLock::new(Mutex::default);

/// The open files, by the address of SQLite's `sqlite3_file`.
static OPEN: LazyLock<Mutex<HashMap<usize, Open>>> = LazyLock::new(Mutex::default);

/// The VFS that was the default before.
static UNIX: OnceLock<Unix> = OnceLock::new();

struct Unix(*mut ffi::sqlite3_vfs);

// SAFETY: SQLite's built-in VFS objects are never freed or changed once registered, and SQLite calls them from any
// thread itself.
unsafe impl Send for Unix {}
// SAFETY: as above.
unsafe impl Sync for Unix {}

#[derive(Clone)]
struct Open {
    disk: Arc<Disk>,
    path: PathBuf,
    methods: &'static ffi::sqlite3_io_methods,
}

/// Records what is written to files in this folder from now on.
pub(crate) fn record(disk: &Arc<Disk>) {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(register);
    DISKS.lock().unwrap().insert(disk.folder().to_path_buf(), Arc::clone(disk));
}

fn register() {
    // SAFETY: `sqlite3_vfs_find` may be called at any time and gives the default VFS, which is valid for ever. It is
    // copied bit by bit (it is plain data and function pointers), and the copy is leaked, as SQLite demands of what
    // it registers.
    unsafe {
        let unix = ffi::sqlite3_vfs_find(std::ptr::null());
        assert!(!unix.is_null(), "SQLite has a default VFS");
        assert!(UNIX.set(Unix(unix)).is_ok());
        let ours = Box::leak(Box::new(*unix));
        ours.pNext = std::ptr::null_mut();
        ours.zName = c"recorded".as_ptr();
        ours.xOpen = Some(open);
        ours.xDelete = Some(delete);
        assert_eq!(ffi::sqlite3_vfs_register(ours, 1), ffi::SQLITE_OK);
    }
}

/// # Safety
///
/// `name` is null or a C string.
unsafe fn path_of(name: *const c_char) -> Option<PathBuf> {
    if name.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    let name = unsafe { CStr::from_ptr(name) };
    Some(PathBuf::from(OsStr::from_bytes(name.to_bytes())))
}

fn disk_of(path: &Path) -> Option<Arc<Disk>> {
    DISKS.lock().unwrap().get(path.parent()?).cloned()
}

unsafe extern "C" fn open(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    let unix = UNIX.get().expect("registered").0;
    // SAFETY: the arguments are those that SQLite passed for this very call. `vfs` is our copy of the unix VFS, and
    // holds all that its `xOpen` reads of it.
    let code = unsafe { (*unix).xOpen.expect("xOpen")(vfs, name, file, flags, out) };
    // SAFETY: SQLite passes null or a path.
    let path = unsafe { path_of(name) };
    let Some((path, disk)) = path.and_then(|path| Some((path.clone(), disk_of(&path)?))) else { return code };
    if code != ffi::SQLITE_OK {
        return code;
    }
    disk.opened(&path);
    // SAFETY: after a successful `xOpen`, `pMethods` points at one of the unix VFS's constant tables. Its methods are
    // called with the same `file` as before, whatever table they were found in.
    unsafe {
        let methods: &'static ffi::sqlite3_io_methods = &*(*file).pMethods;
        let ours = Box::leak(Box::new(*methods));
        ours.xWrite = Some(write);
        ours.xTruncate = Some(truncate);
        ours.xSync = Some(sync);
        ours.xClose = Some(close);
        (*file).pMethods = ours;
        OPEN.lock().unwrap().insert(file as usize, Open { disk, path, methods });
    }
    code
}

unsafe extern "C" fn delete(vfs: *mut ffi::sqlite3_vfs, name: *const c_char, sync_folder: c_int) -> c_int {
    let unix = UNIX.get().expect("registered").0;
    // SAFETY: as in `open`.
    let code = unsafe { (*unix).xDelete.expect("xDelete")(vfs, name, sync_folder) };
    // SAFETY: as in `open`.
    let path = unsafe { path_of(name) };
    if code == ffi::SQLITE_OK
        && let Some(path) = path
        && let Some(disk) = disk_of(&path)
    {
        disk.deleted(&path, sync_folder != 0);
    }
    code
}

fn opened(file: *mut ffi::sqlite3_file) -> Open {
    OPEN.lock().unwrap()[&(file as usize)].clone()
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    data: *const c_void,
    length: c_int,
    at: ffi::sqlite3_int64,
) -> c_int {
    let open = opened(file);
    // SAFETY: SQLite passes `length` readable bytes.
    let bytes = unsafe { std::slice::from_raw_parts(data.cast::<u8>(), length as usize) };
    open.disk.wrote(&open.path, at as usize, bytes);
    // SAFETY: the same call on the same file, by the method that the file was opened with.
    unsafe { open.methods.xWrite.expect("xWrite")(file, data, length, at) }
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, length: ffi::sqlite3_int64) -> c_int {
    let open = opened(file);
    open.disk.truncated(&open.path, length as usize);
    // SAFETY: as in `write`.
    unsafe { open.methods.xTruncate.expect("xTruncate")(file, length) }
}

/// The real file isn't synced: nobody looks at it after a crash, and it would take most of the time.
unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _flags: c_int) -> c_int {
    let open = opened(file);
    open.disk.synced(&open.path);
    ffi::SQLITE_OK
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    let open = opened(file);
    OPEN.lock().unwrap().remove(&(file as usize));
    // SAFETY: as in `write`; the file isn't used any more afterwards.
    unsafe { open.methods.xClose.expect("xClose")(file) }
}
