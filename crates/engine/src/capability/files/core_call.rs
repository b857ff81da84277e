//! A core module's call of a function for files.

use std::fs::File;
use std::io;
use std::sync::Arc;

use wasmtime::component::{Resource, ResourceTable};
use wasmtime::{AsContextMut, Caller, Extern};
use wasmtime_wasi::WasiView;
use wasmtime_wasi::filesystem::Descriptor;
use wasmtime_wasi::p1::types::{Errno, Error, Fd, Fdflags, Filetype, Lookupflags, Oflags, Rights, Whence};
use wasmtime_wasi::p1::wasi_snapshot_preview1::WasiSnapshotPreview1;
use wasmtime_wasi::p2::bindings::filesystem::types::{DescriptorFlags, ErrorCode, OpenFlags, PathFlags};
use wiggle::{GuestMemory, GuestPtr};

use super::PATH_BYTES_MAX;
use super::apart::Place;
use super::bounded::Bounded;
use super::opening::{self, Opening};
use crate::capability::state::State;
use crate::sandbox::descriptors::Permit;
use crate::sandbox::holdings::Holding;
use crate::sandbox::usage::length_of;

/// The functions that call the library's tell nothing else but that they went well.
pub(super) const SUCCESS: i32 = Errno::Success as i32;

/// As its specification has them: the directory, how links are followed, the path and its length, how to open, rights,
/// rights to inherit, flags, and where the descriptor goes.
pub(super) type Asked = (i32, i32, i32, i32, i32, i64, i64, i32, i32);

/// How a file is opened, beside whether it must be there.
struct Way {
    dir: Fd,
    lookup: Lookupflags,
    path: GuestPtr<str>,
    /// Its own, and those to inherit.
    rights: (Rights, Rights),
    flags: Fdflags,
}

/// A call of a guest's.
pub(super) struct Call<'a> {
    pub(super) state: &'a mut State,
    pub(super) memory: GuestMemory<'a>,
    /// Bytes that it may have copied out of its memory.
    bytes_max: usize,
}

impl<'a> Call<'a> {
    pub(super) fn new(
        export: &'a Option<Extern>,
        caller: &'a mut Caller<'_, State>,
    ) -> wasmtime::Result<Call<'a>> {
        let bytes_max = caller.as_context_mut().hostcall_fuel();
        let (memory, state) = match export {
            Some(Extern::Memory(memory)) => {
                let (bytes, state) = memory.data_and_store_mut(caller);
                (GuestMemory::Unshared(bytes), state)
            }
            Some(Extern::SharedMemory(memory)) => (GuestMemory::Shared(memory.data()), caller.data_mut()),
            _ => wasmtime::bail!("the module exports no memory"),
        };
        WasiSnapshotPreview1::set_hostcall_fuel(state.p1(), bytes_max);
        Ok(Call { state, memory, bytes_max })
    }

    pub(super) fn text(&self, text: i32, len: i32) -> Result<String, Error> {
        let (text, len) = (text.cast_unsigned(), len.cast_unsigned());
        if len as usize > PATH_BYTES_MAX {
            return Err(Errno::Nametoolong.into());
        }
        Ok(self.memory.as_cow_str(GuestPtr::new((text, len)))?.into_owned())
    }

    /// The directory that a descriptor is of.
    pub(super) fn directory(&self, fd: i32) -> Option<Arc<File>> {
        match self.state.holdings.opened(fd.cast_unsigned())? {
            Descriptor::File(_) => None,
            Descriptor::Dir(directory) => Some(directory.dir.clone()),
        }
    }

    fn place(&self, dir: i32) -> Option<Place> {
        let dir = dir.cast_unsigned();
        match self.state.holdings.opened(dir)? {
            Descriptor::File(_) => None,
            directory => Some(self.state.place_of(dir, directory.clone())),
        }
    }

    /// The two directories of a change, where the second has a bound. The library says what is wrong with others.
    pub(super) fn bounded_places(&self, from: i32, to: i32) -> Option<(Place, Place)> {
        self.state.bounded(to.cast_unsigned())?;
        Some((self.place(from)?, self.place(to)?))
    }

    pub(super) fn bounded_file(&self, fd: i32) -> Option<(Bounded, Arc<File>)> {
        let fd = fd.cast_unsigned();
        match self.state.holdings.opened(fd)? {
            Descriptor::File(file) => Some((self.state.bounded(fd)?.clone(), file.file.clone())),
            Descriptor::Dir(_) => None,
        }
    }

    pub(super) fn note_refusal(&self, code: i32, dir: i32) {
        if [Errno::Perm as i32, Errno::Rofs as i32].contains(&code) {
            self.state.refuse_change(dir.cast_unsigned());
        }
    }

    /// Writes as the library does: the first piece that isn't empty.
    pub(super) async fn write(
        &mut self,
        fd: i32,
        (bounded, file): (Bounded, Arc<File>),
        pieces: (i32, i32),
        given: Option<u64>,
        written: i32,
    ) -> Result<(), Error> {
        let data = self.first_piece(pieces)?;
        let bytes = u32::try_from(data.len())?;
        let position = self.position(fd, given).await?;
        bounded.write(file.clone(), position, data.into()).await.map_err(of_system)?;
        if given.is_none() {
            let end = match position {
                Some(position) => position.saturating_add(bytes.into()),
                None => length_of(&file).map_err(of_system)?,
            };
            let (fd, end) = (Fd::from(fd), i64::try_from(end)?);
            self.state.p1().fd_seek(&mut self.memory, fd, end, Whence::Set).await?;
        }
        Ok(self.memory.write(GuestPtr::new(written.cast_unsigned()), bytes)?)
    }

    fn first_piece(&self, (pieces, count): (i32, i32)) -> Result<Vec<u8>, Error> {
        let count = count.cast_unsigned();
        if count as usize > self.bytes_max / 8 {
            return Err(Errno::Nomem.into());
        }
        for piece in 0..count {
            let at = pieces.cast_unsigned().checked_add(piece.saturating_mul(8)).ok_or(Errno::Fault)?;
            let data: u32 = self.memory.read(GuestPtr::new(at))?;
            let len: u32 = self.memory.read(GuestPtr::new(at.checked_add(4).ok_or(Errno::Fault)?))?;
            if len as usize > self.bytes_max {
                return Err(Errno::Nomem.into());
            }
            if len > 0 {
                return Ok(self.memory.to_vec(GuestPtr::<[u8]>::new((data, len)))?);
            }
        }
        Ok(Vec::new())
    }

    /// Where a write goes; `None` is the end.
    async fn position(&mut self, fd: i32, given: Option<u64>) -> Result<Option<u64>, Error> {
        let (fd, p1) = (Fd::from(fd), self.state.p1());
        if p1.fd_fdstat_get(&mut self.memory, fd).await?.fs_flags.contains(Fdflags::APPEND) {
            return Ok(None);
        }
        match given {
            Some(position) => Ok(Some(position)),
            None => Ok(Some(p1.fd_tell(&mut self.memory, fd)?)),
        }
    }

    /// Opens a regular file or a directory.
    pub(super) async fn path_open(
        &mut self,
        (dir, lookup, path, len, how, rights, inherited, flags, to): Asked,
    ) -> Result<(), Error> {
        let permit = self.admit_opening(dir, lookup, (path, len)).await?;
        let way = Way {
            dir: Fd::from(dir),
            lookup: Lookupflags::try_from(lookup)?,
            path: GuestPtr::new((path.cast_unsigned(), len.cast_unsigned())),
            rights: (Rights::try_from(rights)?, Rights::try_from(inherited)?),
            flags: Fdflags::try_from(flags)?,
        };
        let how = Oflags::try_from(how)?;
        let opened = match self.place(dir).filter(|place| place.bounded.is_some() && way.may_create(how)) {
            None => self.open_once(&way, how).await,
            Some(within) => self.open_or_create(&way, how, within).await,
        };
        if let Err(code) = &opened
            && let Some(code) = code.downcast_ref()
        {
            self.note_refusal(*code as i32, dir);
        }
        let (fd, opened) = opened?;
        let Place { directory: opened, device, .. } = self.state.place_of(dir.cast_unsigned(), opened);
        if opening::is_of_processes(&opened, device).await {
            self.state.p1().fd_close(&mut self.memory, fd).await?;
            return Err(Errno::Acces.into());
        }
        let grant = self.state.holdings.grant_of(dir.cast_unsigned());
        let holding = Holding { descriptor: Some(permit), grant, opened: Some(opened), ..Holding::default() };
        self.state.holdings.keep(fd.into(), holding);
        Ok(self.memory.write(GuestPtr::new(to.cast_unsigned()), fd)?)
    }

    async fn open_once(&mut self, way: &Way, how: Oflags) -> Result<(Fd, Descriptor), Error> {
        let p1 = self.state.p1();
        let next = next_of(p1.ctx().table)?;
        let (lookup, path, (rights, inherited)) = (way.lookup, way.path, way.rights);
        let opened = p1.path_open(&mut self.memory, way.dir, lookup, path, how, rights, inherited, way.flags);
        let fd = opened.await?;
        let opened = p1.ctx().table.get(&Resource::<Descriptor>::new_borrow(next))?;
        Ok((fd, opened.clone()))
    }

    /// Opens a file that may have to be created, for which there must be room. The file is opened as if it were there first,
    /// then created as components create it, and opened.
    async fn open_or_create(
        &mut self,
        way: &Way,
        how: Oflags,
        within: Place,
    ) -> Result<(Fd, Descriptor), Error> {
        let (is_exclusive, existing) = (how.contains(Oflags::EXCL), how & !(Oflags::CREAT | Oflags::EXCL));
        if !is_exclusive {
            match self.open_once(way, existing).await {
                Err(err) if matches!(err.downcast_ref(), Some(Errno::Noent)) => {}
                opened => return opened,
            }
        }
        let exclusive = if is_exclusive { OpenFlags::EXCLUSIVE } else { OpenFlags::empty() };
        let opening = Opening {
            path_flags: path_flags(u32::from(way.lookup).cast_signed()),
            path: self.memory.as_cow_str(way.path)?.into_owned(),
            open_flags: OpenFlags::CREATE | exclusive,
            flags: DescriptorFlags::WRITE,
        };
        opening::create(within, opening).await?;
        self.open_once(way, existing).await
    }

    /// A descriptor more, for a regular file or a directory. A FIFO could hold one of the host's threads for ever.
    async fn admit_opening(
        &mut self,
        dir: i32,
        lookup: i32,
        (path, len): (i32, i32),
    ) -> Result<Permit, Errno> {
        let (path, len) = (path.cast_unsigned(), len.cast_unsigned());
        if len as usize > PATH_BYTES_MAX {
            return Err(Errno::Nametoolong);
        }
        let permit = self.state.holdings.descriptors.take().ok_or(Errno::Mfile)?;
        let lookup = Lookupflags::try_from(lookup).map_err(|_| Errno::Inval)?;
        let (dir, path) = (Fd::from(dir), GuestPtr::<str>::new((path, len)));
        let found = self.state.p1().path_filestat_get(&mut self.memory, dir, lookup, path).await;
        // A link is for the library, which doesn't follow it where the guest says so.
        let can_be_opened =
            |kind| matches!(kind, Filetype::RegularFile | Filetype::Directory | Filetype::SymbolicLink);
        match found {
            Ok(found) if !can_be_opened(found.filetype) => Err(Errno::Notsup),
            // The library says what is wrong.
            Ok(_) | Err(_) => Ok(permit),
        }
    }
}

impl Way {
    /// Whether the file may have to be created. The library says what is wrong with what it can't do.
    fn may_create(&self, how: Oflags) -> bool {
        let synchronized = Fdflags::DSYNC | Fdflags::RSYNC | Fdflags::SYNC;
        how.contains(Oflags::CREAT)
            && !how.contains(Oflags::DIRECTORY)
            && !self.flags.intersects(synchronized)
    }
}

/// The handle that the next thing of a table gets. The library doesn't tell which one a descriptor's file has.
fn next_of(table: &mut ResourceTable) -> Result<u32, Error> {
    let next = table.push(())?;
    let handle = next.rep();
    table.delete(next)?;
    Ok(handle)
}

/// The result of a function for the guest: an error number that it knows, or a trap.
pub(super) fn code(result: Result<(), Error>) -> wasmtime::Result<i32> {
    match result {
        Ok(()) => Ok(SUCCESS),
        Err(err) => Ok(err.downcast()? as i32),
    }
}

/// As the library tells errors of the system.
pub(super) fn of_system(err: io::Error) -> Error {
    Errno::from(ErrorCode::from(&err)).into()
}

/// How links are followed.
pub(super) fn path_flags(lookup: i32) -> PathFlags {
    let follows = lookup.cast_unsigned() & u32::from(Lookupflags::SYMLINK_FOLLOW) != 0;
    if follows { PathFlags::SYMLINK_FOLLOW } else { PathFlags::empty() }
}
