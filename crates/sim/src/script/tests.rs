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
    let error = check("add-nodes 1\nexpect 1 term=7 state=LEADER\n").unwrap_err();
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

#[test]
fn what_show_prints_can_be_written_down_and_run_again() {
    let text = "add-nodes 1 2 3\n\nshow 1\n\ncampaign 1\n\nstabilize\n\npropose 1 a x*40\n\nshow 1\n\nlog 1\n\nqueue\n\n\
                stabilize\n\nshow 1\n\nshow 2\n\ncrash 3\n";
    let rewritten = run(text).unwrap().rewritten;
    assert!(rewritten.contains("\n    conf 1,2,3"), "nested lines stay nested: {rewritten}");
    assert!(rewritten.lines().all(|line| line == line.trim_end()), "{rewritten:?}");
    assert_eq!(check(&rewritten).unwrap().rewritten, rewritten);
    // By whatever indentation.
    check(&rewritten.replace("\n    ", "\n  ")).unwrap();
}

#[test]
fn a_false_expectation_shows_what_led_to_it() {
    let text = "add-nodes 1\nexpect 1 state=LEADER\nquiet propose 1 a\npropose 1 b\nexpect 1 data=a,c\npropose 1 d\n";
    let error = check(text).unwrap_err().to_string();
    assert!(error.contains("line 5") && error.contains("data is a,b, expected a,c"), "{error}");
    assert!(error.contains("quiet propose 1 a\n      1 proposed 2..=2"), "also of quiet commands: {error}");
    assert!(error.contains("propose 1 b\n      1 proposed 3..=3"), "{error}");
    assert!(
        !error.contains("add-nodes") && !error.contains("propose 1 d"),
        "since the last one that held: {error}"
    );

    let long = format!("add-nodes 1\n{}expect 1 term=7\n", "propose 1 a\n".repeat(100));
    let error = check(&long).unwrap_err().to_string();
    assert!(error.contains("lines before") && error.lines().count() < error::History::MOST + 10, "{error}");
}

#[test]
fn the_first_difference_is_shown_with_what_failed_behind_it() {
    let good = run(HELLO).unwrap().rewritten;
    let bad = good.replace("apply 2/1 \"a\"", "apply 2/1 \"b\"");
    for (end, exit_code) in [("expect 1 data=b\n", 1), ("restart 1\n", 2), ("fly 1\n", 2)] {
        let error = check(&format!("{bad}\n{end}")).unwrap_err();
        assert_eq!(error.exit_code(), exit_code, "{error}");
        assert!(error.to_string().contains("- 1 fsm apply 2/1 \"b\""), "{error}");
    }
    // Traces that are not written yet are no clue.
    let error = check(&format!("{HELLO}\nexpect 1 data=b\n")).unwrap_err().to_string();
    assert!(!error.contains("differs"), "{error}");
}

#[test]
fn traces_are_rewritten_past_a_false_expectation() {
    let path = std::env::temp_dir().join(format!("ringraft-script-{}.txt", std::process::id()));
    fs::write(&path, "add-nodes 1\nexpect 1 term=7\npropose 1 a\n").unwrap();
    let error = rewrite(&path).unwrap_err();
    let written = fs::read_to_string(&path).unwrap();
    fs::remove_file(&path).unwrap();
    assert!(matches!(error, ScriptError::Expectation(_)), "{error}");
    assert!(written.ends_with("  1 fsm apply 2/1 \"a\"\n"), "{written}");
}

/// Two followers; an append to each is under way, that to 2 is held.
const HELD: &str =
    "add-nodes 1 2 3\nquiet campaign 1\nquiet stabilize\nhold 1->2 append\nquiet propose 1 a\n";

fn traces(text: &str) -> String {
    run(text).unwrap_or_else(|error| panic!("{error}\n{text}")).rewritten
}

fn refusal(text: &str) -> String {
    let error = run(text).unwrap_err();
    assert_eq!(error.exit_code(), 2, "{error}");
    error.to_string()
}

#[test]
fn held_messages_are_seen_and_stay() {
    let text = traces(&format!("{HELD}queue\nstabilize\nqueue\n"));
    assert_eq!(text.matches("append term=1 prev=1/1 commit=1 [2/1 \"a\"] (held)").count(), 2, "{text}");
    assert!(text.contains("1->3 #") && !text.contains("2 gets #"), "{text}");
    let error = refusal(&format!("{HELD}deliver 1->2\n"));
    assert!(error.contains("1->2: 1 held; `release`"), "{error}");
    let text = traces(&format!("{HELD}release 1->2 append\ndeliver 1->2\n"));
    assert!(text.contains("2 gets #"), "{text}");
}

#[test]
fn held_messages_can_be_lost_doubled_and_broken_off() {
    let text = traces(&format!("{HELD}drop 1->2\nqueue\n"));
    assert!(text.contains("append is lost") && !text.contains("(held)"), "{text}");
    let text = traces(&format!("{HELD}dup 1->2\nqueue\n"));
    assert_eq!(text.matches("(held)").count(), 2, "{text}");
    let text = traces(&format!("{HELD}break 1->2\n"));
    assert!(text.contains("append is lost, 1 gets an error"), "{text}");
    // But only by who names the link.
    for sweep in ["drop", "dup", "break", "deliver"] {
        let text = traces(&format!("{HELD}quiet {sweep}\nqueue\n"));
        assert_eq!(text.matches("(held)").count(), 1, "{sweep}: {text}");
    }
}

#[test]
fn a_delivery_moves_only_what_was_under_way() {
    // The answer of 2 enters the link on which one is held already.
    let text = "add-nodes 1 2 3\nquiet campaign 1\nquiet stabilize\nhold 2->1 append-reply\nquiet propose 1 a\n\
                quiet deliver 1->2\nquiet tick 1 100\ndeliver\nqueue\n";
    let text = traces(text);
    let delivered = text.split("\ndeliver\n").nth(1).unwrap().split("\n\n").next().unwrap();
    assert!(delivered.contains("2 gets #") && !delivered.contains("1 gets #"), "{text}");
}

#[test]
fn what_waits_for_a_write_is_named_when_nothing_matches() {
    let text = "add-nodes 1 2 3\nquiet campaign 1\nquiet stabilize\nmanual-persist 2\nquiet propose 1 a\n\
                quiet deliver 1->2\ndrop 2->1\n";
    let error = refusal(text);
    assert!(error.contains("2->1: 1 not sent before a write of 2 is durable"), "{error}");
}

#[test]
fn holds_and_cuts_that_do_nothing_are_mistakes() {
    for (command, hint) in [
        ("hold 1->4", "there is no node 4"),
        ("cut 4", "there is no node 4"),
        ("cut 4->1", "there is no node 4"),
        ("cut", "a link A->B or a node number is missing"),
        ("release 1->3", "nothing of the kind is held on 1->3"),
        ("release 1->2 heartbeat", "nothing of the kind is held on 1->2"),
        ("hold 1->3\nrelease 1->3 append", "every kind is held on 1->3"),
        ("heal 1->2", "nothing is cut at 1->2"),
        ("heal 2", "nothing is cut at 2"),
        ("cut 2\nheal 1->2", "heal 2"),
    ] {
        let error = refusal(&format!("{HELD}{command}\n"));
        assert!(error.contains(hint), "{command}: {error}");
    }
    traces(&format!("{HELD}heal\ncut 1->2\nheal 2\ncut 1->2\nheal 1->2\n"));
}

#[test]
fn a_cut_node_is_cut_from_later_nodes_and_until_it_is_healed_itself() {
    let text = "add-nodes 1 2 3\nquiet campaign 1\nquiet stabilize\ncut 1\ncut 2\nheal 1\npropose 1 a\n";
    let text = traces(text);
    let lost: Vec<&str> = text.lines().filter(|l| l.ends_with("is lost: the link is cut")).collect();
    assert!(matches!(lost[..], [one] if one.starts_with("  1->2 ")), "{text}");
    let text = "add-nodes 1 2 3\nquiet campaign 1\nquiet stabilize\ncut 1\nadd-nodes 4 conf=none\nchange 1 learner 4\n";
    let text = traces(text);
    assert!(text.contains("1->4") && text.contains("is lost: the link is cut"), "{text}");
}

/// `docs/scripts.md` and all code in it.
fn documented() -> (String, Vec<String>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/scripts.md");
    let text = fs::read_to_string(&path).unwrap();
    let spans = text.split('`').skip(1).step_by(2).map(|span| span.replace("\\|", "|")).collect();
    (text, spans)
}

#[test]
fn every_command_is_documented() {
    let (text, spans) = documented();
    for name in commands::names() {
        let described = spans.iter().any(|span| span.split_whitespace().next() == Some(name));
        assert!(described, "docs/scripts.md does not describe `{name}`");
    }
    // And the other way round: in the tables of commands nothing else begins a row.
    let (_, commands) = text.split_once("\n## Commands\n").unwrap();
    let (commands, _) = commands.split_once("\n### Options\n").unwrap();
    let mut rows = 0;
    for table in commands.split("\n\n").filter(|t| t.starts_with("| command |")) {
        for row in table.lines().skip(2) {
            let name = row.trim_start_matches("| `").split([' ', '`']).next().unwrap();
            assert!(commands::names().any(|known| known == name), "there is no command `{name}`: {row}");
            rows += 1;
        }
    }
    assert!(rows > 30, "{rows}");
}

#[test]
fn every_kind_key_and_option_is_documented() {
    let (text, spans) = documented();
    for kind in What::ALL {
        assert!(spans.contains(&Kind { what: kind, reply: false }.to_string()), "{kind:?}");
    }
    // The message of a wrong key lists the right ones.
    let error = run("add-nodes 1\nexpect 1 colour=red\n").unwrap_err().to_string();
    let (_, keys) = error.split_once("there are ").unwrap();
    for key in keys.split([',', ' ', '|']).filter(|key| !matches!(*key, "" | "and" | "on" | "a" | "leader")) {
        let key = key.rsplit('.').next().unwrap();
        let known = spans.iter().any(|span| span == key || span == &format!("peer2.{key}"));
        assert!(known, "docs/scripts.md does not describe the key `{key}` of expect");
    }
    let (_, options) = text.split_once("\n### Options\n").unwrap();
    let (options, _) = options.split_once("those of `CoreOptions`").unwrap();
    for option in options.split('`').skip(1).step_by(2) {
        let error = run(&format!("options {option}=x\n")).unwrap_err().to_string();
        assert!(error.contains(&format!("is not a value for {option}")), "{option}: {error}");
    }
}
