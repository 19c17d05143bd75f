//! Generates the messages of `/proto` with the pure-Rust parser; no `protoc` is needed.

use std::path::PathBuf;

use protobuf_codegen::{Codegen, Customize};

const FILES: [&str; 9] = [
    "atomic.proto",
    "cli.proto",
    "enum.proto",
    "group_state.proto",
    "local_file_meta.proto",
    "local_storage.proto",
    "log.proto",
    "raft.proto",
    "rpc.proto",
];

fn main() {
    let folder = PathBuf::from("../../proto");
    let inputs = FILES.map(|file| folder.join(file));
    for input in &inputs {
        println!("cargo:rerun-if-changed={}", input.display());
    }
    println!("cargo:rerun-if-changed=build.rs");
    Codegen::new()
        .pure()
        .include(&folder)
        .inputs(&inputs)
        .customize(Customize::default().tokio_bytes(true).lite_runtime(true))
        .cargo_out_dir("generated")
        .run_from_script();

    // The generator calls the module of enum.proto `enum_`, but lists it under the keyword.
    let list =
        PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("generated/mod.rs");
    let text = std::fs::read_to_string(&list).expect("the generator wrote its module list");
    std::fs::write(&list, text.replace("pub mod enum;", "pub mod enum_;")).expect("OUT_DIR is writable");
}
