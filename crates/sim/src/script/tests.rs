use super::*;

const HELLO: &str = "add-nodes 1\n\npropose 1 a\n\nexpect 1 state=LEADER data=a\n";

#[test]
fn a_rewritten_script_passes() {
    let outcome = run(HELLO).unwrap();
    assert!(outcome.difference.is_some(), "traces are missing");
    let again = check(&outcome.rewritten).unwrap();
    assert_eq!(again.rewritten, outcome.rewritten);
    assert_eq!(again.commands, 3);
}

#[test]
fn a_changed_trace_line_fails_and_is_shown() {
    let good = run(HELLO).unwrap().rewritten;
    let bad = good.replace("apply 2/1 \"a\"", "apply 2/1 \"b\"");
    assert_ne!(good, bad);
    let error = check(&bad).unwrap_err();
    assert_eq!(error.exit_code(), 1);
    let text = error.to_string();
    assert!(text.contains("- 1 fsm apply 2/1 \"b\"") && text.contains("+ 1 fsm apply 2/1 \"a\""), "{text}");
}

#[test]
fn a_false_expectation_says_what_is() {
    let error = run("add-nodes 1\nexpect 1 term=7 state=LEADER\n").unwrap_err();
    assert_eq!(error.exit_code(), 1);
    assert!(error.to_string().contains("term is 1, expected 7"), "{error}");
    assert!(!error.to_string().contains("state is"), "{error}");
}

#[test]
fn what_cannot_be_run_is_a_usage_error() {
    for bad in [
        "fly 1",
        "add-nodes",
        "add-nodes one",
        "tick 1 10",
        "add-nodes 1\nadd-nodes 1",
        "add-nodes 1\nexpect 1 colour=red",
        "add-nodes 1\nrestart 1",
        "add-nodes 1 2\ndeliver 1->2 gossip",
        "add-nodes 1 2\ndeliver",
        "change 1 2,3",
        "transfer 1 2",
        "read 1",
        "snapshot 1",
        "  1 is indented",
        "add-nodes 1 2 3\ninject append from=2 to=1",
        "add-nodes 1\npersist 1 ok",
        "options colour=red",
    ] {
        let error = run(bad).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{bad}: {error}");
    }
    assert!(run("snapshot 1").unwrap_err().to_string().contains("snapshot is not supported yet"));
}

#[test]
fn a_broken_rule_fails_the_script() {
    // A made-up leader of term 1 beside the real one: entry 1/1 has two contents.
    let text = "add-nodes 1 2 3\ncampaign 1\nstabilize\npause 3 5000\n\
                add-nodes 9 conf=none\ninject append from=8 to=9 term=1 entries=1:x\n";
    let error = run(text).unwrap_err();
    assert_eq!(error.exit_code(), 1);
    assert!(error.to_string().contains("log matching"), "{error}");
}

#[test]
fn comments_stay() {
    let text = "# a title\n#\n# more\n\nadd-nodes 1\n# why\nexpect 1 state=LEADER\n# the end\n";
    let rewritten = run(text).unwrap().rewritten;
    assert!(rewritten.starts_with("# a title\n#\n# more\n\nadd-nodes 1\n"), "{rewritten}");
    assert!(rewritten.contains("\n# why\nexpect 1 state=LEADER\n\n# the end\n"), "{rewritten}");
}
