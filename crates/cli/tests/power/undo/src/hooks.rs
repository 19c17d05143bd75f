//! The functions of the C library that the process calls in their place, and the signal.
//!
//! A change of a file and the note of what it replaced are one step under the lock, and so is the loss of power: nothing happens in between.
#![allow(unsafe_code)]

use std::env;
use std::ffi::{CStr, c_char, c_int};
use std::os::unix::ffi::OsStringExt;
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use libc::{iovec, mode_t, off_t, size_t, ssize_t};

use crate::disk::Disk;
use crate::sys::{self, Answer, give};

struct Power {
    disk: Mutex<Disk>,
    /// Longest time of a sync, in µs.
    sync_us: u64,
    lies: bool,
}

static POWER: OnceLock<Option<Power>> = OnceLock::new();

/// Runs before `main`, and before there are threads: each of them inherits that it does not get the signal.
#[used]
#[unsafe(link_section = ".init_array")]
static BEGIN: extern "C" fn() = begin;

extern "C" fn begin() {
    if power().is_some() {
        sys::hold_signal();
        std::thread::spawn(|| {
            sys::wait_for_signal();
            let Some(power) = power() else { return };
            let mut disk = lock(power);
            let report = disk.lose_power();
            let mut path = disk.scratch.clone();
            path.extend_from_slice(b"/report");
            sys::append(&sys::path(path), report.as_bytes());
            // The lock is never given back: nobody writes, and nobody learns that a sync is over.
            sys::die();
        });
    }
}

fn power() -> Option<&'static Power> {
    let make = || {
        let bytes = |name| env::var_os(name).map(OsStringExt::into_vec);
        let number = |name| env::var(name).ok()?.parse().ok();
        let (directory, scratch) = (bytes("RINGRAFT_UNDO_DIR")?, bytes("RINGRAFT_UNDO_SCRATCH")?);
        Some(Power {
            disk: Mutex::new(Disk::new(directory, scratch, number("RINGRAFT_UNDO_SEED").unwrap_or(0))),
            sync_us: number("RINGRAFT_UNDO_SYNC_US").unwrap_or(0),
            lies: env::var_os("RINGRAFT_UNDO_LIE").is_some(),
        })
    };
    POWER.get_or_init(make).as_ref()
}

fn lock(power: &Power) -> MutexGuard<'_, Disk> {
    power.disk.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The disk, if the descriptor is of a file of it.
fn disk_of(file: c_int) -> Option<MutexGuard<'static, Disk>> {
    power().map(lock).filter(|disk| disk.is_ours(file))
}

/// The disk, if the path is of it.
fn disk_at(path: &CStr) -> Option<MutexGuard<'static, Disk>> {
    power().map(lock).filter(|disk| disk.has(path))
}

/// # Safety
/// The path ends with a zero.
unsafe fn opened(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: the caller's word.
    let path = unsafe { CStr::from_ptr(path) };
    let opened = match disk_at(path) {
        Some(mut disk) => disk.open(path, flags, mode),
        None => sys::open(path, flags, mode),
    };
    give(opened) as c_int
}

fn resized(file: c_int, bytes: off_t) -> c_int {
    let disk = disk_of(file).map(|mut disk| {
        disk.before_resize(file, bytes.max(0) as u64);
        disk
    });
    let answer = sys::resize(file, bytes);
    drop(disk);
    give(answer) as c_int
}

/// Carries out a write of `bytes` at `at`, or where the descriptor stands.
fn written(file: c_int, at: Option<off_t>, bytes: usize, write: impl FnOnce() -> Answer) -> ssize_t {
    let disk = disk_of(file).map(|mut disk| {
        let at = at.or_else(|| sys::position(file).ok()).unwrap_or(0);
        disk.before_write(file, at.max(0) as u64, bytes as u64);
        disk
    });
    let answer = write();
    drop(disk);
    give(answer) as ssize_t
}

fn synced(file: c_int, number: libc::c_long) -> c_int {
    let Some(power) = power() else { return give(sys::sync(file, number)) as c_int };
    let Some(mut disk) = disk_of(file) else { return give(sys::sync(file, number)) as c_int };
    let (began, time) = (disk.begin_sync(), disk.below(power.sync_us + 1));
    drop(disk);
    // This is the disk: what the one below it does does not count, since only the process ends.
    std::thread::sleep(Duration::from_micros(time));
    if !power.lies {
        lock(power).end_sync(file, began);
    }
    0
}

/// # Safety
/// `count` of them follow each other.
unsafe fn total(parts: *const iovec, count: c_int) -> usize {
    // SAFETY: the caller's word.
    let parts = unsafe { std::slice::from_raw_parts(parts, count.max(0) as usize) };
    parts.iter().map(|part| part.iov_len).sum()
}

/// Functions of the C library, each under all its names. What they are given is what the kernel would be given, and goes there.
macro_rules! hooks {
    ($([$($name:ident)+] $arguments:tt -> $result:ty $body:block)+) => { $(hooks!(each $arguments $result $body $($name)+);)+ };
    (each $arguments:tt $result:ty $body:block $($name:ident)+) => { $(hooks!(one $name $arguments $result $body);)+ };
    (one $name:ident ($($argument:ident: $kind:ty),*) $result:ty $body:block) => {
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name($($argument: $kind),*) -> $result $body
    };
}

// SAFETY of all of them: arguments are as the C library wants them, which is the word of who calls it. `open` takes its mode as a variable
// argument, which Linux passes as a third one; without O_CREAT nobody looks at it.
hooks! {
    [open open64] (path: *const c_char, flags: c_int, mode: mode_t) -> c_int { unsafe { opened(path, flags, mode) } }
    [openat openat64] (at: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
        // A path that begins elsewhere is not one of ours.
        if unsafe { *path } == b'/' as c_char || at == libc::AT_FDCWD {
            return unsafe { opened(path, flags, mode) };
        }
        unsafe { libc::syscall(libc::SYS_openat, at, path, flags, mode) as c_int }
    }
    [close] (file: c_int) -> c_int {
        let disk = disk_of(file).map(|mut disk| {
            disk.close(file);
            disk
        });
        let answer = sys::close(file);
        drop(disk);
        give(answer) as c_int
    }
    [write] (file: c_int, bytes: *const u8, count: size_t) -> ssize_t {
        written(file, None, count, || sys::answer(unsafe { libc::syscall(libc::SYS_write, file, bytes, count) }))
    }
    [writev] (file: c_int, parts: *const iovec, count: c_int) -> ssize_t {
        let bytes = unsafe { total(parts, count) };
        written(file, None, bytes, || sys::answer(unsafe { libc::syscall(libc::SYS_writev, file, parts, count) }))
    }
    [pwrite pwrite64] (file: c_int, bytes: *const u8, count: size_t, at: off_t) -> ssize_t {
        let write = || sys::answer(unsafe { libc::syscall(libc::SYS_pwrite64, file, bytes, count, at) });
        written(file, Some(at), count, write)
    }
    [pwritev pwritev64] (file: c_int, parts: *const iovec, count: c_int, at: off_t) -> ssize_t {
        // The upper half of the place comes by itself, and counts where registers are narrow.
        let write = || sys::answer(unsafe { libc::syscall(libc::SYS_pwritev, file, parts, count, at, 0) });
        written(file, Some(at), unsafe { total(parts, count) }, write)
    }
    [ftruncate ftruncate64] (file: c_int, bytes: off_t) -> c_int { resized(file, bytes) }
    [fsync] (file: c_int) -> c_int { synced(file, libc::SYS_fsync) }
    [fdatasync] (file: c_int) -> c_int { synced(file, libc::SYS_fdatasync) }
    [rename] (from: *const c_char, to: *const c_char) -> c_int {
        let (from, to) = unsafe { (CStr::from_ptr(from), CStr::from_ptr(to)) };
        let renamed = match disk_at(to) {
            Some(mut disk) => disk.rename(from, to),
            None => sys::rename(from, to),
        };
        give(renamed) as c_int
    }
    [unlink] (path: *const c_char) -> c_int {
        let path = unsafe { CStr::from_ptr(path) };
        let removed = match disk_at(path) {
            Some(mut disk) => disk.unlink(path),
            None => sys::unlink(path),
        };
        give(removed) as c_int
    }
}
