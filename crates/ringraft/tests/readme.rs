//! The program of README.md: the example is what the page shows, and it does what the page says.

#[allow(dead_code)] // its `main` is for people
#[path = "../examples/counter.rs"]
mod counter;

use std::net::TcpListener;

const README: &str = include_str!("../../../README.md");
const EXAMPLE: &str = include_str!("../examples/counter.rs");

#[test]
fn the_page_shows_the_example() {
    let blocks: Vec<&str> = README.split("```").skip(1).step_by(2).collect();
    let program = blocks.iter().find_map(|block| block.strip_prefix("rust\n")).expect("a block of Rust");
    assert!(program == EXAMPLE, "README.md and examples/counter.rs differ");
}

#[test]
fn the_program_counts_and_goes_on_counting() {
    let dir = tempfile::tempdir().expect("a directory");
    let port =
        TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port();
    for count in 1..=3 {
        let counted = counter::run(&format!("127.0.0.1:{port}"), dir.path()).expect("runs");
        assert_eq!(counted, count);
    }
}
