use super::*;

const GOOD: &str = r#"
    group_id = "atomic"
    data_path = "/tmp/x"
    conf = "127.0.0.1:8081, 127.0.0.1:8082,127.0.0.1:8083"
    server_address = "127.0.0.1:8082"
"#;

/// The good file with one key set to another value, or (`""`) left out.
fn with(key: &str, value: &str) -> Result<AtomicConfig, ConfigError> {
    let mut lines: Vec<String> =
        GOOD.lines().filter(|l| !l.trim().starts_with(key)).map(str::to_owned).collect();
    if !value.is_empty() {
        lines.push(format!("{key} = {value}"));
    }
    AtomicConfig::parse(&lines.join("\n"))
}

fn error(key: &str, value: &str) -> ConfigError {
    with(key, value).unwrap_err()
}

#[test]
fn a_file_with_the_required_keys_gets_sofajrafts_defaults() {
    let config = AtomicConfig::parse(GOOD).unwrap();
    assert_eq!((config.min_slot, config.max_slot, config.total_slots), (0, i64::MAX, 1));
    assert_eq!(config.election_timeout_ms, 1000);
    assert_eq!(config.conf.to_string(), "127.0.0.1:8081,127.0.0.1:8082,127.0.0.1:8083");
    assert_eq!(config.group_name(0), "atomic_0");
    assert_eq!(config.host_options(StartMode::Existing).endpoint, "127.0.0.1:8082");
}

#[test]
fn what_is_written_is_what_is_read() {
    let mut config = with("total_slots", "8").unwrap();
    (config.lanes, config.max_election_delay_ms, config.segment_file_bytes) = (Some(2), 77, Some(1 << 24));
    config.lease_reads = true;
    (config.cluster_id, config.require_cluster_id, config.bootstrap_ask_ms) = (Some("c".to_owned()), true, 0);
    config.listen = Some("0.0.0.0:9000".parse().unwrap());
    assert_eq!(AtomicConfig::parse(&config.to_toml()), Ok(config));
}

#[test]
fn a_server_may_listen_elsewhere_than_others_reach_it() {
    let named = GOOD.replace("127.0.0.1:8082", "two.example:8082");
    let refusal = AtomicConfig::parse(&named).unwrap_err();
    assert!(matches!(refusal, ConfigError::NameWithoutListen { .. }), "{refusal}");
    assert!(refusal.to_string().contains("listen = \"0.0.0.0:8082\""), "{refusal}");
    let config = AtomicConfig::parse(&format!("{named}\nlisten = \"0.0.0.0:8082\"")).unwrap();
    let options = config.host_options(StartMode::Existing);
    assert_eq!(options.endpoint, "two.example:8082");
    assert!(
        matches!(options.transport, TransportOptions::Tcp { listen: Some(at) } if at.to_string() == "0.0.0.0:8082")
    );
    let translated = with("listen", "\"10.0.0.7:9000\"").unwrap();
    assert_eq!(translated.host_options(StartMode::Existing).endpoint, "127.0.0.1:8082");
    for wrong in ["\"two.example:8082\"", "\"0.0.0.0\"", "\"0.0.0.0:0\"", "\"8082\""] {
        assert!(matches!(error("listen", wrong), ConfigError::Listen(_)), "{wrong}");
    }
    let ipv6 = GOOD.replace("127.0.0.1:8082", "[::1]:8082");
    assert!(AtomicConfig::parse(&ipv6).is_ok(), "digits are no name");
}

#[test]
fn the_host_is_told_whose_it_is() {
    let options = |key: &str, value: &str| with(key, value).unwrap().host_options(StartMode::Bootstrap);
    let plain = options("lanes", "1");
    assert_eq!((plain.cluster_id, plain.require_cluster_id, plain.bootstrap_ask_ms), (None, false, 2000));
    let id = plain.initial_cluster_id.unwrap();
    assert_eq!(
        options("total_slots", "4").initial_cluster_id,
        Some(id.clone()),
        "slots say nothing of whose it is"
    );
    assert_ne!(options("group_id", "\"other\"").initial_cluster_id, Some(id.clone()));
    let conf = "\"127.0.0.1:8082,127.0.0.1:8083\"";
    assert_ne!(options("conf", conf).initial_cluster_id, Some(id));
    assert_eq!(options("cluster_id", "\"c1\"").cluster_id.as_deref(), Some("c1"));
    assert!(options("require_cluster_id", "true").require_cluster_id);
    assert_eq!(options("bootstrap_ask_ms", "0").bootstrap_ask_ms, 0);
    assert!(matches!(error("cluster_id", &format!("{:?}", "x".repeat(256))), ConfigError::Options(_)));
    let facts = options("total_slots", "4").facts;
    let facts: Vec<(&str, &str)> = facts.iter().map(|(name, value)| (&**name, &**value)).collect();
    let max = i64::MAX.to_string();
    let expected = [
        ("atomic.group_id", "atomic"),
        ("atomic.max_slot", &*max),
        ("atomic.min_slot", "0"),
        ("atomic.total_slots", "4"),
    ];
    assert_eq!(facts, expected);
}

#[test]
fn a_file_that_is_not_there() {
    let error = AtomicConfig::load(Path::new("/nowhere/x.toml")).unwrap_err();
    assert!(error.to_string().contains("/nowhere/x.toml"), "{error}");
}

#[test]
fn syntax_errors_name_the_line() {
    let error = AtomicConfig::parse("group_id = \"atomic\"\nconf = ").unwrap_err();
    assert!(matches!(&error, ConfigError::Syntax(text) if text.contains("line 2")), "{error}");
}

#[test]
fn unknown_keys_are_refused_and_the_near_one_is_named() {
    let hint = |key: &str| match error(key, "1") {
        ConfigError::UnknownKey { hint, .. } => hint,
        other => panic!("{other}"),
    };
    assert_eq!(hint("totalSlots"), "did you mean total_slots?");
    assert_eq!(hint("total_slot"), "did you mean total_slots?");
    assert!(hint("colour").starts_with("the keys are group_id,"));
}

#[test]
fn required_keys() {
    for key in ["group_id", "data_path", "conf", "server_address"] {
        assert!(matches!(error(key, ""), ConfigError::Missing { key: k, .. } if k == key));
    }
    let in_memory = format!("{}\nstore = \"memory\"", GOOD.replace("data_path = \"/tmp/x\"", ""));
    assert_eq!(AtomicConfig::parse(&in_memory).unwrap().store, Store::Memory);
}

#[test]
fn blank_texts() {
    for key in ["group_id", "data_path", "conf", "server_address"] {
        assert!(matches!(error(key, "\"  \""), ConfigError::Blank { key: k, .. } if k == key));
    }
}

#[test]
fn wrong_types_name_both() {
    let expected = "total_slots is \"8\", which is a text; write a whole number, for example total_slots = 8";
    assert_eq!(error("total_slots", "\"8\"").to_string(), expected);
    assert!(matches!(error("conf", "[\"127.0.0.1:1\"]"), ConfigError::Type { found: "a list", .. }));
    assert!(matches!(error("lease_reads", "\"true\""), ConfigError::Type { found: "a text", .. }));
}

#[test]
fn numbers_have_a_range() {
    for (key, value) in [
        ("min_slot", -1),
        ("max_slot", -1),
        ("total_slots", 0),
        ("total_slots", 100_001),
        ("election_timeout_ms", 9),
        ("max_election_delay_ms", 0),
        ("segment_file_bytes", 4096),
        ("lanes", 0),
        ("fsm_workers", 257),
    ] {
        let found = error(key, &value.to_string());
        assert!(
            matches!(found, ConfigError::Range { key: k, value: v, .. } if k == key && v == value),
            "{found}"
        );
    }
}

#[test]
fn slots_must_fit_their_bounds() {
    let file = |extra: &str| AtomicConfig::parse(&format!("{GOOD}\n{extra}")).unwrap_err();
    assert_eq!(file("min_slot = 5\nmax_slot = 4"), ConfigError::SlotBounds { min: 5, max: 4 });
    let crowded = file("max_slot = 10\ntotal_slots = 11");
    assert_eq!(crowded, ConfigError::SlotCount { total: 11, min: 0, max: 10 });
}

#[test]
fn group_names_must_be_valid() {
    assert!(matches!(error("group_id", "\"1 group\""), ConfigError::GroupId { .. }));
}

#[test]
fn addresses_must_be_addresses() {
    for bad in ["host", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:70000", ":80"] {
        let server = error("server_address", &format!("{bad:?}"));
        assert_eq!(server, ConfigError::Address { key: "server_address", value: bad.into() });
        let conf = error("conf", &format!("\"127.0.0.1:8082,{bad}\""));
        assert_eq!(conf, ConfigError::Address { key: "conf", value: bad.into() });
    }
}

#[test]
fn members_stand_once() {
    let found = error("conf", "\"127.0.0.1:8082,127.0.0.1:8082\"");
    assert_eq!(found, ConfigError::Duplicate("127.0.0.1:8082".parse().unwrap()));
}

#[test]
fn somebody_must_vote() {
    assert!(matches!(error("conf", "\"127.0.0.1:8082/learner\""), ConfigError::NoVoter(_)));
    assert!(matches!(error("conf", "\",\""), ConfigError::NoVoter(_)));
}

#[test]
fn the_server_must_be_a_member() {
    let found = error("server_address", "\"127.0.0.1:9\"");
    assert!(matches!(found, ConfigError::NotMember { .. }));
    assert!(found.to_string().contains("127.0.0.1:9 is not in conf (127.0.0.1:8081,"));
}

#[test]
fn files_of_the_log_end_with_a_sector() {
    assert_eq!(error("segment_file_bytes", "2000001"), ConfigError::FileBytes(2_000_001));
}

#[test]
fn stores_have_names() {
    assert!(matches!(error("store", "\"rocksdb\""), ConfigError::Word { key: "store", .. }));
}

#[test]
fn rules_of_the_engine_hold_too() {
    // The heartbeat period is at least 10 ms, so that 10 ms of patience are too few.
    assert!(matches!(error("election_timeout_ms", "10"), ConfigError::Options(_)));
}

#[test]
fn addresses_are_those_under_which_others_reach_a_server() {
    for any in ["0.0.0.0:8082", "[::]:8082"] {
        let text = GOOD.replace("127.0.0.1:8082", any);
        let error = AtomicConfig::parse(&text).unwrap_err();
        assert!(matches!(&error, ConfigError::Unspecified { value, .. } if value == any), "{error}");
    }
    let error = error("server_address", "\"0.0.0.0:8082\"").to_string();
    assert!(error.contains("server_address holds 0.0.0.0:8082"), "{error}");
}

#[test]
fn a_path_is_not_a_shells() {
    for path in ["~/data", "~", "~me/data"] {
        let error = error("data_path", &format!("{path:?}"));
        assert_eq!(error, ConfigError::Home { key: "data_path", value: path.to_owned() });
    }
    assert!(with("data_path", "\"/data/~old\"").is_ok());
}
