//! The program of README.md: the example is what the page shows, and it does what the page says.

#[test]
fn the_page_shows_the_example() {
    let readme = include_str!("../../../README.md");
    let blocks: Vec<&str> = readme.split("```").skip(1).step_by(2).collect();
    let program = blocks.iter().find_map(|block| block.strip_prefix("rust\n")).expect("a block of Rust");
    assert!(program == include_str!("../examples/counter.rs"), "README.md and examples/counter.rs differ");
}

mod counter {
    include!("../examples/counter.rs");

    #[test]
    fn the_program_counts_and_goes_on_counting() {
        let _for_people = main;
        let dir = tempfile::tempdir().expect("a directory");
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let endpoint = socket.local_addr().expect("bound").to_string();
        drop(socket);
        for count in 1..=3 {
            assert_eq!(run(&endpoint, dir.path()).expect("runs"), count);
        }
    }
}
