//! Linux: opening without blocking, direct I/O, page-cache residency, and the advice that the kernel takes.

mod gpus;
mod memory;
mod pages;

pub use gpus::*;
pub use memory::*;
pub use pages::*;

use std::ffi::{CStr, CString, OsStr};
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use memmap2::{Advice, Mmap, MmapOptions, UncheckedAdvice};

/// Whether a file is one that can be read at any offset; else what it is.
pub enum FileKind {
    /// A regular file.
    Regular,
    /// Anything else, in words.
    Other(&'static str),
}

/// Opens a file for reading. Never blocks, also where the path names a FIFO without a writer.
pub fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open(path)
}

/// Opens a regular file for writing, and with `create` makes it where nothing is. Never blocks, follows no link in its place, and
/// refuses whatever else is there.
pub fn open_to_write(path: &Path, create: bool) -> io::Result<File> {
    let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    let file = OpenOptions::new().write(true).create(create).truncate(false).custom_flags(flags).open(path)?;
    match file_kind(&file)? {
        FileKind::Regular => Ok(file),
        FileKind::Other(found) => Err(io::Error::new(io::ErrorKind::InvalidInput, format!("it is {found}"))),
    }
}

/// Has two paths change places at once, so that nobody ever finds one of them missing. Not every file system can.
pub fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    let [one, other] = [one, other].map(|path| CString::new(path.as_os_str().as_bytes()));
    let (one, other) = (one?, other?);
    // SAFETY: both paths end in NUL and live until the call is over.
    let status = unsafe {
        libc::syscall(
            libc::SYS_renameat2,
            libc::AT_FDCWD,
            one.as_ptr(),
            libc::AT_FDCWD,
            other.as_ptr(),
            libc::RENAME_EXCHANGE,
        )
    };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What kind of file this is.
pub fn file_kind(file: &File) -> io::Result<FileKind> {
    let kind = file.metadata()?.file_type();
    Ok(if kind.is_file() {
        FileKind::Regular
    } else if kind.is_dir() {
        FileKind::Other("a directory")
    } else if kind.is_fifo() {
        FileKind::Other("a FIFO")
    } else if kind.is_socket() {
        FileKind::Other("a socket")
    } else {
        FileKind::Other("a device")
    })
}

/// Reads from `offset` until `into` is full or the file ends; the number of bytes read.
pub fn read_at(file: &File, into: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < into.len() {
        match read_once(file, &mut into[done..], offset + done as u64)? {
            0 => break,
            count => done += count,
        }
    }
    Ok(done)
}

/// Reads once from `offset`; the number of bytes read, which may be fewer than asked for.
pub fn read_once(file: &File, into: &mut [u8], offset: u64) -> io::Result<usize> {
    loop {
        match file.read_at(into, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// Writes all of `bytes` from `offset` on.
pub fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    file.write_all_at(bytes, offset)
}

/// What tells a file from another, and from itself before it was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The device that it is on.
    pub device: u64,
    /// Its number there.
    pub inode: u64,
    /// Its size in bytes.
    pub size: u64,
    /// When its bytes were changed last, in nanoseconds since 1970: anybody may set it.
    pub modified: i128,
    /// When anything of it was changed last, its times too, in nanoseconds since 1970: nobody can set it.
    pub changed: i128,
    /// Who may do what with it.
    pub mode: u32,
    /// How many names it has; none where it was deleted.
    pub names: u64,
}

/// The identity of an open file.
pub fn identity(file: &File) -> io::Result<Identity> {
    let metadata = file.metadata()?;
    let time = |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
    Ok(Identity {
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.len(),
        modified: time(metadata.mtime(), metadata.mtime_nsec()),
        changed: time(metadata.ctime(), metadata.ctime_nsec()),
        mode: metadata.mode(),
        names: metadata.nlink(),
    })
}

/// Where an open file is now, from the root on; `None` where the system does not tell.
pub fn path_of(file: &File) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()
}

/// The folder for what can be made again: `$XDG_CACHE_HOME`, or `~/.cache`.
pub fn cache_folder() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|home| home.join(".cache")))
}

/// Opens the same file once more for direct I/O: its descriptor, not its path, which may name another file by now.
pub fn open_direct(file: &File) -> io::Result<File> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    OpenOptions::new().read(true).custom_flags(libc::O_DIRECT | libc::O_CLOEXEC).open(path)
}

/// What offsets, lengths and addresses of direct I/O on this file must be multiples of, in bytes.
pub fn direct_alignment(file: &File) -> usize {
    let mut information = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: the descriptor is open, the path is an empty C string, and the result has room for one statx.
    let status = unsafe {
        libc::statx(file.as_raw_fd(), c"".as_ptr(), libc::AT_EMPTY_PATH, libc::STATX_DIOALIGN, information.as_mut_ptr())
    };
    // SAFETY: all-zero bytes are a valid statx, and on success the kernel has filled it.
    let information = unsafe { information.assume_init() };
    let known = status == 0 && information.stx_mask & libc::STATX_DIOALIGN != 0;
    let alignment = information.stx_dio_offset_align.max(information.stx_dio_mem_align) as usize;
    // A kernel or file system that does not say takes pages.
    if known && alignment.is_power_of_two() { alignment } else { page_size() }
}

/// Whether the file lies behind a network or a user-space file system, where a page fault can hang.
pub fn is_network(file: &File) -> bool {
    const NETWORK: [u64; 14] = [
        0x6969,      // NFS
        0x517B,      // SMB
        0xFE53_4D42, // SMB2
        0xFF53_4D42, // CIFS
        0x564C,      // NCP
        0x7375_7245, // Coda
        0x5346_414F, // AFS
        0x6B41_4653, // kAFS
        0x00C3_6400, // Ceph
        0x0102_1997, // 9P
        0x6573_5546, // FUSE
        0x0BD0_0BD0, // Lustre
        0x4750_4653, // GPFS
        0x1983_0326, // BeeGFS
    ];
    let mut information = MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: the descriptor is open and the result has room for one statfs.
    let status = unsafe { libc::fstatfs(file.as_raw_fd(), information.as_mut_ptr()) };
    // SAFETY: all-zero bytes are a valid statfs, and on success the kernel has filled it.
    let information = unsafe { information.assume_init() };
    // The magic numbers are 32 bits wide; the field's own width and sign differ from one C library to the next.
    status == 0 && NETWORK.contains(&(information.f_type as u64 & 0xFFFF_FFFF))
}

/// How many of the pages under `range` are in the page cache, and how many pages there are. `None` when the system
/// does not tell. Reads nothing and maps nothing in.
pub fn cached_pages(file: &File, range: Range<u64>) -> Option<(usize, usize)> {
    let page = page_size() as u64;
    let start = range.start / page * page;
    let length = usize::try_from(range.end.checked_sub(start)?).ok()?;
    if length == 0 {
        return None;
    }
    if let Some(cached) = cached_pages_by_statistics(file, start, length as u64) {
        return Some((cached, length.div_ceil(page as usize)));
    }
    let mut pages = vec![0_u8; length.div_ceil(page as usize)];
    // SAFETY: a new mapping at an address of the kernel's choice; no byte of it is ever accessed.
    let address = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            length,
            libc::PROT_READ,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            libc::off_t::try_from(start).ok()?,
        )
    };
    if address == libc::MAP_FAILED {
        return None;
    }
    // SAFETY: the range is the mapping just made, and `pages` has one byte for each of its pages.
    let status = unsafe { libc::mincore(address, length, pages.as_mut_ptr()) };
    // SAFETY: the mapping was made above and nothing points into it.
    unsafe { libc::munmap(address, length) };
    (status == 0).then(|| (pages.iter().filter(|flags| **flags & 1 != 0).count(), pages.len()))
}

/// What `cachestat(2)` says, which kernels have from 6.5 on: several times quicker, for it maps nothing.
fn cached_pages_by_statistics(file: &File, start: u64, length: u64) -> Option<usize> {
    // The number is the same on every architecture that Rust knows (include/uapi/asm-generic/unistd.h).
    const SYS_CACHESTAT: libc::c_long = 451;
    // As in the kernel's include/uapi/linux/mman.h: offset and length; then cached pages and four other counts.
    let range = [start, length];
    let mut statistics = [0_u64; 5];
    // SAFETY: the descriptor is open, and both structs are as the call expects them.
    let status = unsafe { libc::syscall(SYS_CACHESTAT, file.as_raw_fd(), range.as_ptr(), statistics.as_mut_ptr(), 0) };
    (status == 0).then_some(statistics[0] as usize)
}

/// Starts reading a range into the page cache. The kernel takes only a little at a time: ask for 1 to 4 MiB.
pub fn will_need(file: &File, range: Range<u64>) {
    let length = (range.end - range.start) as libc::off_t;
    // SAFETY: the descriptor is open; this is advice, and its failure changes nothing.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), range.start as libc::off_t, length, libc::POSIX_FADV_WILLNEED) };
}

/// Maps the first `length` bytes of a file, to be read; also where the file has become shorter since it was asked.
pub fn map(file: &File, length: usize) -> io::Result<Mmap> {
    // SAFETY: the mapping is only handed out as raw pointers, whose readers are told that the file may change; this
    // library reads through it only after `populate` has said that the pages are there.
    unsafe { MmapOptions::new().len(length).map(file) }
}

/// Faults pages in ahead of use. A range past the end of a file that was cut is an error, not a signal.
pub fn populate(mapping: &Mmap, range: Range<usize>) -> io::Result<()> {
    loop {
        match mapping.advise_range(Advice::PopulateRead, range.start, range.len()) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// Takes whole pages out of the process; the page cache keeps them, so the next use is cheap.
pub fn give_back(mapping: &Mmap, range: Range<usize>) -> io::Result<()> {
    // SAFETY: the mapping is read-only and shared, so a page that is accessed again comes back from the file unchanged.
    unsafe { mapping.unchecked_advise_range(UncheckedAdvice::DontNeed, range.start, range.len()) }
}

/// Takes whole pages out of the process and asks the system to drop them from the page cache too. For want of memory only:
/// the next use reads the disk.
pub fn page_out(file: &File, mapping: &Mmap, range: Range<usize>) -> io::Result<()> {
    give_back(mapping, range.clone())?;
    let (start, length) = (range.start as libc::off_t, range.len() as libc::off_t);
    // SAFETY: the descriptor is open; this is advice, and its failure changes nothing.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), start, length, libc::POSIX_FADV_DONTNEED) };
    Ok(())
}

/// Bytes in a page.
pub fn page_size() -> usize {
    // SAFETY: asks for a constant.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(4096)
}

/// Makes a folder, and those above it, that nobody else sees into. One that is there stays as it is.
pub fn create_private_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// What a new file allows that is made of others of these modes, less the process's umask: nobody more than they do, and its
/// owner to read and write it.
pub fn permissions_of_copy(modes: impl Iterator<Item = u32>) -> Permissions {
    Permissions::from_mode(modes.reduce(|all, mode| all & mode).unwrap_or(0) & 0o666 | 0o600)
}

/// What a new file allows, less the process's umask.
pub fn new_file_permissions() -> Permissions {
    Permissions::from_mode(0o666)
}

/// A path as C has it: any bytes but NUL.
pub fn path_from_c(path: &CStr) -> &Path {
    Path::new(OsStr::from_bytes(path.to_bytes()))
}

/// Runs `start`, so that threads it starts take no signal: signals are the host application's, and its handlers expect
/// its own threads. Faults of a thread's own still reach the application's crash reporter.
pub fn without_signals<T>(start: impl FnOnce() -> T) -> T {
    with_blocked([], start)
}

/// As [`without_signals`], for a thread that calls the application. Runtimes that collect garbage stop such a thread with
/// these signals (Mono even before it has attached it), and they reach it where they reach the thread that starts it.
pub fn without_signals_but_stops<T>(start: impl FnOnce() -> T) -> T {
    with_blocked([libc::SIGPWR, libc::SIGXCPU].into_iter().chain(libc::SIGRTMIN()..=libc::SIGRTMAX()), start)
}

/// Runs `start` with all signals blocked but faults and these, which stay as they are.
fn with_blocked<T>(open: impl IntoIterator<Item = libc::c_int>, start: impl FnOnce() -> T) -> T {
    const FAULTS: [libc::c_int; 6] =
        [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGABRT];
    let mut blocked = MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: both sets have room, and the first is filled before it is changed and used.
    unsafe {
        libc::sigfillset(blocked.as_mut_ptr());
        for signal in FAULTS.into_iter().chain(open) {
            libc::sigdelset(blocked.as_mut_ptr(), signal);
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, blocked.as_ptr(), before.as_mut_ptr());
    }
    let started = start();
    // SAFETY: `before` was filled by the call above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut()) };
    started
}
