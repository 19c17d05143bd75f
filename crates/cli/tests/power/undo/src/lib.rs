//! A disk that loses its power, for a process that is started with this library in `LD_PRELOAD`. docs/testing.md says what for.
//!
//! It stands before the functions of the C library that change files and remembers, for one directory, what each change replaced until
//! it is synced. On SIGPWR it undoes some of what was not, by a seeded choice, and kills the process. `disk` has the rules, `hooks`
//! the functions, `sys` the system calls. Linux only; elsewhere the library is empty.
//!
//! | variable | |
//! |---|---|
//! | `RINGRAFT_UNDO_DIR` | the directory, an absolute path; without it nothing is done |
//! | `RINGRAFT_UNDO_SCRATCH` | a directory on the same file system for what was removed, and for `report`: one line for each loss |
//! | `RINGRAFT_UNDO_SEED` | of the choices |
//! | `RINGRAFT_UNDO_SYNC_US` | longest time in µs that a sync takes (0) |
//! | `RINGRAFT_UNDO_LIE` | set: a sync does nothing and reports success |
#![cfg(target_os = "linux")]

mod disk;
mod hooks;
mod sys;
