//! System calls as safe functions. They go to the kernel directly: the functions of the C library are the hooks.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_int, c_long};

/// What a system call came to, or its `errno`.
pub(crate) type Answer = Result<i64, c_int>;

/// What every name of a file is relative to.
const HERE: c_int = libc::AT_FDCWD;

pub(crate) fn answer(result: c_long) -> Answer {
    // SAFETY: it returns the place of this thread's errno, which lives as long as the thread.
    if result < 0 { Err(unsafe { *libc::__errno_location() }) } else { Ok(result) }
}

/// Gives an answer to who called a function of the C library.
pub(crate) fn give(answer: Answer) -> i64 {
    answer.unwrap_or_else(|errno| {
        // SAFETY: as in `answer`.
        unsafe { *libc::__errno_location() = errno };
        -1
    })
}

pub(crate) fn open(path: &CStr, flags: c_int, mode: libc::mode_t) -> Answer {
    // SAFETY: the path ends with a zero and outlives the call.
    answer(unsafe { libc::syscall(libc::SYS_openat, HERE, path.as_ptr(), flags, mode) })
}

pub(crate) fn close(file: c_int) -> Answer {
    // SAFETY: a number. Whose it is the caller knows.
    answer(unsafe { libc::syscall(libc::SYS_close, file) })
}

pub(crate) fn sync(file: c_int, number: c_long) -> Answer {
    // SAFETY: fsync and fdatasync take a number.
    answer(unsafe { libc::syscall(number, file) })
}

pub(crate) fn resize(file: c_int, bytes: i64) -> Answer {
    // SAFETY: numbers.
    answer(unsafe { libc::syscall(libc::SYS_ftruncate, file, bytes) })
}

/// Where the next `write` goes.
pub(crate) fn position(file: c_int) -> Answer {
    // SAFETY: numbers.
    answer(unsafe { libc::syscall(libc::SYS_lseek, file, 0i64, libc::SEEK_CUR) })
}

/// Reads until `buffer` is full or the file ends; the bytes that were read.
pub(crate) fn read_at(file: c_int, buffer: &mut [u8], at: u64) -> usize {
    let mut done = 0;
    while done < buffer.len() {
        let rest = &mut buffer[done..];
        let at = at + done as u64;
        // SAFETY: the kernel writes into `rest`, and no more than its length.
        let read =
            answer(unsafe { libc::syscall(libc::SYS_pread64, file, rest.as_mut_ptr(), rest.len(), at) });
        match read {
            Ok(0) | Err(_) => break,
            Ok(bytes) => done += bytes as usize,
        }
    }
    done
}

pub(crate) fn write_at(file: c_int, bytes: &[u8], at: u64) -> Answer {
    // SAFETY: the kernel reads `bytes`, and no more than its length.
    answer(unsafe { libc::syscall(libc::SYS_pwrite64, file, bytes.as_ptr(), bytes.len(), at) })
}

/// Adds to the end of a file.
pub(crate) fn append(path: &CStr, bytes: &[u8]) {
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_APPEND | libc::O_CLOEXEC;
    if let Ok(file) = open(path, flags, 0o644) {
        // SAFETY: as in `write_at`. A report that is missing is missed by who reads it.
        let _ = answer(unsafe { libc::syscall(libc::SYS_write, file, bytes.as_ptr(), bytes.len()) });
        let _ = close(file as c_int);
    }
}

pub(crate) fn rename(from: &CStr, to: &CStr) -> Answer {
    // SAFETY: both paths end with a zero and outlive the call.
    answer(unsafe { libc::syscall(libc::SYS_renameat2, HERE, from.as_ptr(), HERE, to.as_ptr(), 0) })
}

pub(crate) fn link(from: &CStr, to: &CStr) -> Answer {
    // SAFETY: as in `rename`.
    answer(unsafe { libc::syscall(libc::SYS_linkat, HERE, from.as_ptr(), HERE, to.as_ptr(), 0) })
}

pub(crate) fn unlink(path: &CStr) -> Answer {
    // SAFETY: as in `open`.
    answer(unsafe { libc::syscall(libc::SYS_unlinkat, HERE, path.as_ptr(), 0) })
}

/// What a file is.
pub(crate) struct Stat {
    pub(crate) inode: u64,
    pub(crate) bytes: u64,
    pub(crate) is_directory: bool,
}

pub(crate) fn stat(file: c_int) -> Option<Stat> {
    // SAFETY: a structure of numbers, for which zeros are values; the kernel fills it.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: `stat` outlives the call. The library does not stand before fstat.
    let result = unsafe { libc::fstat(file, &mut stat) };
    let is_directory = stat.st_mode & libc::S_IFMT == libc::S_IFDIR;
    (result == 0).then_some(Stat { inode: stat.st_ino, bytes: stat.st_size as u64, is_directory })
}

pub(crate) fn exists(path: &CStr) -> bool {
    // SAFETY: as in `open`.
    answer(unsafe { libc::syscall(libc::SYS_faccessat, HERE, path.as_ptr(), libc::F_OK) }).is_ok()
}

/// The set of signals that a loss of power is: SIGPWR alone.
fn power() -> libc::sigset_t {
    // SAFETY: zeros are a value of the set, both functions get a set that lives, and the signal exists.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGPWR);
        set
    }
}

/// Keeps SIGPWR from this thread and those that it starts, so that it waits for [`wait_for_signal`].
pub(crate) fn hold_signal() {
    // SAFETY: the set outlives the call, and the old mask is not asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &power(), std::ptr::null_mut()) };
}

/// Returns when SIGPWR has come.
pub(crate) fn wait_for_signal() {
    let mut signal = 0;
    // SAFETY: both outlive the call.
    while unsafe { libc::sigwait(&power(), &mut signal) } != 0 {}
}

/// Ends the process as SIGKILL does.
pub(crate) fn die() -> ! {
    loop {
        // SAFETY: numbers. The process does not live on.
        unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    }
}

/// A path for the kernel; what stands behind a zero is cut off.
pub(crate) fn path(mut bytes: Vec<u8>) -> CString {
    bytes.retain(|byte| *byte != 0);
    CString::new(bytes).unwrap_or_default()
}
