//! Service configs: the choice of a method config, printing, and texts at random.
#![allow(missing_docs, reason = "a test")]

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};
use trunkline_channel::{ChannelLimits, Policies, ServiceConfig};
use trunkline_codec::Status;

const VALID: &str = r#"{
    "loadBalancingConfig": [{"unknown": 5}, {"random_subsetting_experimental": {
        "subsetSize": 2, "childPolicy": [{"ring_hash_experimental": {"minRingSize": 5, "requestHashHeader": "key"}}]
    }}],
    "methodConfig": [
        {
            "name": [{"service": "pkg.Service", "method": "Method"}, {"service": "pkg.Other"}],
            "waitForReady": true, "timeout": "1.000000001s",
            "maxRequestMessageBytes": "10", "max_response_message_bytes": 5000000000,
            "retryPolicy": {
                "maxAttempts": 4, "initialBackoff": "0.2s", "maxBackoff": "1s", "backoffMultiplier": 1.6,
                "retryableStatusCodes": ["UNAVAILABLE", "aborted", 4]
            }
        },
        {"name": [{}], "hedgingPolicy": {"maxAttempts": 3, "hedgingDelay": "0.5s", "nonFatalStatusCodes": []}}
    ],
    "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1259},
    "healthCheckConfig": {"serviceName": ""},
    "connectionScaling": {"maxConnectionsPerSubchannel": 11}
}"#;

fn parse(json: &str) -> Result<Arc<ServiceConfig>, Status> {
    ServiceConfig::parse(json, &Policies::builtin(), &ChannelLimits::default())
}

/// Holds that what a config prints has the same effects, and prints the same.
fn reparsed(config: &ServiceConfig, paths: &[&str]) {
    let printed = config.to_string();
    let again = parse(&printed).unwrap_or_else(|status| panic!("{printed}: {status}"));
    assert_eq!(again.to_string(), printed);
    for path in paths {
        assert_eq!(
            again.method(path),
            config.method(path),
            "{path} of {printed}"
        );
    }
    let name = |config: &ServiceConfig| config.balancer().map(|it| it.name().to_owned());
    assert_eq!(name(&again), name(config));
    assert_eq!(again.retry_throttling(), config.retry_throttling());
    assert_eq!(again.health_check_service(), config.health_check_service());
    assert_eq!(again.max_connections(), config.max_connections());
}

#[test]
fn a_printed_config_is_canonical() {
    let config = parse(VALID).unwrap();
    reparsed(
        &config,
        &["/pkg.Service/Method", "/pkg.Other/Method", "/any/Method"],
    );
    let first = json!({
        "waitForReady": true, "timeout": "1.000000001s",
        "maxRequestMessageBytes": 10, "maxResponseMessageBytes": 4_294_967_295_u32,
        "retryPolicy": {
            "maxAttempts": 4, "initialBackoff": "0.2s", "maxBackoff": "1s", "backoffMultiplier": 1.6,
            "retryableStatusCodes": ["DEADLINE_EXCEEDED", "ABORTED", "UNAVAILABLE"],
        },
    });
    let named = |name: Value| {
        let mut entry = first.clone();
        entry["name"] = json!([name]);
        entry
    };
    let expected = json!({
        "connectionScaling": {"maxConnectionsPerSubchannel": 10},
        "healthCheckConfig": {"serviceName": ""},
        "loadBalancingConfig": [{"random_subsetting_experimental": {
            "subsetSize": 2,
            "childPolicy": [{"ring_hash_experimental": {"minRingSize": 5, "requestHashHeader": "key"}}],
        }}],
        "methodConfig": [
            {
                "name": [{}],
                "hedgingPolicy": {"maxAttempts": 3, "hedgingDelay": "0.5s", "nonFatalStatusCodes": []},
            },
            named(json!({"service": "pkg.Other"})),
            named(json!({"service": "pkg.Service", "method": "Method"})),
        ],
        "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.125},
    });
    assert_eq!(config.to_string(), expected.to_string());
}

#[test]
fn a_path_has_the_config_of_its_method_else_of_its_service_else_the_default() {
    let entry = |name: &str, size: usize| {
        format!(r#"{{"name": [{name}], "maxRequestMessageBytes": {size}}}"#)
    };
    let entries = [
        entry(r#"{"service": "a.B", "method": "C"}"#, 1),
        entry(r#"{"service": "a.B"}"#, 2),
        entry(r#"{"service": "a/B"}"#, 3),
    ];
    let size = |path: &str, entries: &[String]| {
        let json = format!(r#"{{"methodConfig": [{}]}}"#, entries.join(", "));
        parse(&json).unwrap().method(path)?.max_request_size
    };
    let table = [
        ("/a.B/C", Some(1)),
        ("/a.B/D", Some(2)),
        ("/a.B/", Some(2)),
        ("/a/B/C", Some(3)),
        ("/a.B", None),
        ("/a.B/C/", None),
        ("/a.b/C", None),
        ("a.B/C", None),
        ("/A", None),
        ("/", None),
        ("", None),
    ];
    let with_default = [&entries[..], &[entry("{}", 4)]].concat();
    for (path, expected) in table {
        assert_eq!(size(path, &entries), expected, "{path}");
        assert_eq!(size(path, &with_default), expected.or(Some(4)), "{path}");
    }
    assert!(ServiceConfig::default().method("/a.B/C").is_none());
}

#[test]
fn the_limit_of_attempts_is_that_of_the_channel() {
    let mut limits = ChannelLimits::default();
    limits.max_attempts = 7;
    let json = r#"{"methodConfig": [{"name": [{}], "hedgingPolicy": {"maxAttempts": 10}}]}"#;
    let config = ServiceConfig::parse(json, &Policies::default(), &limits).unwrap();
    assert!(
        config.to_string().contains(r#""maxAttempts":7"#),
        "{config}"
    );
}

/// The configs of `docs/service-config.md`, and the messages that it shows.
#[test]
fn the_guide_shows_valid_configs_and_the_messages_of_invalid_ones() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/service-config.md");
    let page = std::fs::read_to_string(page).unwrap();
    let blocks = page
        .split("```json\n")
        .skip(1)
        .map(|it| it.split("```").next().unwrap());
    assert_eq!(blocks.clone().count(), 5);
    for block in blocks {
        parse(block).unwrap_or_else(|status| panic!("{block}: {status}"));
    }
    let rows = page.lines().filter(|line| line.starts_with("| `{"));
    assert_eq!(rows.clone().count(), 3);
    for row in rows {
        let code: Vec<&str> = row.split('`').skip(1).step_by(2).collect();
        assert_eq!(parse(code[0]).unwrap_err().message(), code[1]);
    }
    let first = page
        .split("r#\"")
        .nth(1)
        .unwrap()
        .split("\"#")
        .next()
        .unwrap();
    assert_eq!(
        parse(first).unwrap().balancer().unwrap().name(),
        "round_robin"
    );
    let shown = page
        .split("```console\n")
        .nth(1)
        .unwrap()
        .lines()
        .next()
        .unwrap();
    let status = parse(&first.replace("0.1s", "5")).unwrap_err();
    assert_eq!(status.message(), shown);
}

#[test]
fn connections_are_at_most_10_and_0_is_not_set() {
    for (set, expected) in [(0, None), (1, Some(1)), (10, Some(10)), (11, Some(10))] {
        let json = json!({"connectionScaling": {"maxConnectionsPerSubchannel": set}});
        let config = parse(&json.to_string()).unwrap();
        assert_eq!(config.max_connections(), expected);
    }
}

fn duration() -> impl Strategy<Value = String> {
    (1..315_576_000_000_u64, 0..1_000_000_000_u32)
        .prop_map(|(seconds, nanos)| format!("{seconds}.{nanos:09}s"))
}

/// Settings of a method: each may be absent.
fn settings() -> impl Strategy<Value = Value> {
    let retry = (
        2_u32..20,
        duration(),
        duration(),
        1e-300_f64..1e300,
        1_u8..17,
    )
        .prop_map(|(attempts, initial, max, multiplier, code)| {
            json!({
                "maxAttempts": attempts, "initialBackoff": initial, "maxBackoff": max,
                "backoffMultiplier": multiplier, "retryableStatusCodes": [code],
            })
        });
    use prop::option::of;
    let fields = (
        of(any::<bool>()),
        of(duration()),
        of(any::<u64>()),
        of(any::<u32>()),
        of(retry),
    );
    fields.prop_map(|(wait, timeout, request, response, retry)| {
        json!({
            "waitForReady": wait, "timeout": timeout, "maxRequestMessageBytes": request,
            "maxResponseMessageBytes": response, "retryPolicy": retry,
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..Default::default() })]

    #[test]
    fn printing_and_parsing_again_changes_nothing(
        methods in prop::collection::btree_map(("[a-c/\"\u{e4}]{0,2}", "[a-c/]{0,2}"), settings(), 0..5),
        tokens in 1_u32..=1_000,
        ratio in 0.001_f64..1e10,
        service in prop::option::of(".{0,5}"),
    ) {
        let named = methods.iter().filter(|((service, method), _)| !service.is_empty() || method.is_empty());
        let entries: Vec<Value> = named.map(|((service, method), settings)| {
            let mut entry = settings.clone();
            entry["name"] = json!([{"service": service, "method": method}]);
            entry
        }).collect();
        let json = json!({
            "methodConfig": entries,
            "retryThrottling": {"maxTokens": tokens, "tokenRatio": ratio},
            "healthCheckConfig": {"serviceName": service},
        });
        // Names with slashes can be equal.
        if let Ok(config) = parse(&json.to_string()) {
            reparsed(&config, &["/a/b", "/a/c", "/b/", "/c/a", "/a//", "", "/"]);
        } else {
            prop_assert!(json.to_string().contains('/'), "{json}");
        }
    }

    #[test]
    fn text_at_random_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), text in ".{0,100}") {
        let _ = parse(&String::from_utf8_lossy(&bytes));
        let _ = parse(&text);
        let _ = ServiceConfig::choose(&[format!("grpc_config={text}")], 50, "");
    }

    #[test]
    fn a_mutated_config_is_rejected_or_prints_what_it_is(
        mutations in prop::collection::vec(
            (any::<prop::sample::Index>(), 0_usize..8, prop::sample::select(vec![
                "", "\"", "{", "}", "[", "]", ",", ":", "-", "0", "9", "1e9", ".", "null", "{}", "[]", "\"s\"", "\\", "\u{e4}",
            ])),
            1..6,
        ),
    ) {
        let mut text = VALID.to_owned();
        for (index, length, inserted) in mutations {
            let ends: Vec<usize> = text.char_indices().map(|it| it.0).chain([text.len()]).collect();
            let at = index.index(ends.len());
            let end = ends[(at + length).min(ends.len() - 1)];
            text.replace_range(ends[at]..end, inserted);
        }
        match parse(&text) {
            Ok(config) => reparsed(&config, &["/pkg.Service/Method", "/pkg.Other/Method", "/any/Method"]),
            Err(status) => prop_assert!(status.message().len() < 2_000, "{}", status),
        }
    }
}
