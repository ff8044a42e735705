//! Service configs that grpcio (C-core), grpc-go and `trunkline` accept and reject. What `trunkline` makes of those that it
//! accepts, and why it differs, is in crates/channel/tests/vectors.rs, by the same numbers.

#![cfg(unix)]

use serde_json::{Value, json};
use trunkline::Channel;
use trunkline_tests::peers::{Peer, run_jobs};

/// The number, what C-core, grpc-go and `trunkline` make of it (`+` accepted, `-` rejected), and the config: `w` whole, `m` a part of a
/// method config for all methods (`RETRY` is a valid retryPolicy), `r` a field of an otherwise valid retryPolicy and its value, if it is there, `l` a
/// loadBalancingConfig, `o` the config of outlier_detection_experimental, `t` a retryThrottling.
///
/// C-core has no least_request_experimental, and looks at the next one (22c).
const CONFIGS: &str = r#"
1     - - -  w {
2a    - - -  w []
2b    - - -  w "x"
3a    - - -  w {} // a comment
3b    - - -  w {"methodConfig": [],}
3c    - - -  w BOM{}
4     - - -  w {"methodConfig": {}}
5     - - -  w {"methodConfig": [{"name": [{"method": "M"}], "timeout": "1s"}]}
6     - - -  w {"methodConfig": [{"name": [{"service": 5}], "timeout": "1s"}]}
7a    - - -  w {"methodConfig": [{"name": [{"service": "s", "method": "m"}, {"service": "s", "method": "m"}]}]}
7b    - - -  w {"methodConfig": [{"name": [{"service": "s"}, {"service": "s", "method": ""}]}]}
7c    - - -  w {"methodConfig": [{"name": [{}, {}]}]}
7d    - - -  w {"methodConfig": [{"name": [{"service": "s"}]}, {"name": [{"service": "s"}]}]}
8a    - - -  m "timeout": "1"
8b    - - -  m "timeout": 1
8c    - - -  m "timeout": "100ms"
8d    - - -  m "timeout": "1e1s"
8e    - - -  m "timeout": "1.0000000001s"
8f    - - -  m "timeout": "315576000001s"
9a    - - -  m "waitForReady": "true"
9b    - - -  m "waitForReady": 1
10    - - -  m "maxRequestMessageBytes": 1.5
11    - - -  m "retryPolicy": {}
12a   - - -  r maxAttempts 1
12b   - - -  r maxAttempts -1
12c   - - -  r maxAttempts 2.5
13a   - - -  r initialBackoff "0s"
13b   - - -  r initialBackoff "-1s"
14    - - -  r maxBackoff
15a   - - -  r backoffMultiplier 0
15b   - - -  r backoffMultiplier -1
16a   - - -  r retryableStatusCodes
16b   - - -  r retryableStatusCodes []
16c   - - -  r retryableStatusCodes ["14"]
16d   - - -  r retryableStatusCodes [17]
16e   - - -  r retryableStatusCodes ["CANCELED"]
16f   - - -  r retryableStatusCodes ["NOPE"]
17a   - - -  l [{"foo": {}}, {"bar": {}}]
17b   - - -  w {"loadBalancingConfig": [{"foo": {}}], "loadBalancingPolicy": "round_robin"}
18a   - - -  l [{}]
18b   - - -  l [{"round_robin": {}, "pick_first": {}}]
18c   - - -  l {"round_robin": {}}
18d   - - -  l [{"ROUND_ROBIN": {}}]
19    - - -  l [{"pick_first": {"shuffleAddressList": "true"}}]
20    - - -  w {"loadBalancingPolicy": 5}
21    - - -  w {"healthCheckConfig": {"serviceName": 5}}
22a   - - -  o {"maxEjectionPercent": 101, "childPolicy": [{"round_robin": {}}]}
22b   - - -  l [{"ring_hash_experimental": {"minRingSize": 9, "maxRingSize": 8}}, {"round_robin": {}}]
22c   + - -  l [{"least_request_experimental": {"choiceCount": 1}}, {"round_robin": {}}]
22d   - - -  l [{"weighted_round_robin": {"errorUtilizationPenalty": -1}}, {"round_robin": {}}]
23    + + +  w {}
24    + + +  w {"a": 1, "methodConfig": [{"name": [{"b": 2}], "c": [3]}]}
25a   + + +  w {"methodConfig": [{"timeout": "1s"}]}
25b   + + +  w {"methodConfig": [{"name": [], "timeout": "1s"}]}
26    + + +  w {"methodConfig": [{"name": [{}], "timeout": "1s"}]}
27    + + +  w {"methodConfig": [{"name": [{"service": "s", "method": "m"}]}, {"name": [{"service": "s"}]}]}
28a   + + +  m "timeout": "1s"
28b   + + +  m "timeout": "1.5s"
28c   + + +  m "timeout": "+1s"
28d   + + +  m "timeout": "1.000000001s"
28e   + + +  m "timeout": "315576000000s"
28f   + + +  m "timeout": null
30    + + +  m "waitForReady": true
31    + + +  m "maxRequestMessageBytes": 10, "maxResponseMessageBytes": 11
32    + + +  m "maxResponseMessageBytes": 0
34    + + +  m "retryPolicy": null
35    + + +  r maxAttempts 10
36    + + +  r backoffMultiplier 0.5
37    + + +  r retryableStatusCodes ["CANCELLED", "ABORTED", "ABORTED"]
38    + + +  w {"loadBalancingPolicy": "ROUND_ROBIN"}
39    + + +  l [{"foo": {}}, {"round_robin": {}}]
40    + - +  l [{"round_robin": {}}, 5]
41    + + +  l [{"round_robin": {"unknown": 1}}]
42a   + + +  w {"healthCheckConfig": {}}
42b   + + +  w {"healthCheckConfig": {"serviceName": null}}
42c   + + +  w {"healthCheckConfig": {"serviceName": ""}}
43    + + +  w {"retryThrottling": null}
44    - + -  w null
45    - + -  m "timeout": "1s", "timeout": "2s"
46    - + +  w {"methodConfig": null}
47    + - -  w {"methodConfig": [{"name": [{"service": "", "method": "M"}]}]}
48a   - + -  m "timeout": "-1s"
48b   + + +  m "timeout": "0s"
49a   - + -  m "timeout": ".5s"
49b   - + -  m "timeout": "1.s"
49c   + - -  m "timeout": " 1s"
50a   + - +  m "maxRequestMessageBytes": "10"
50b   - + -  m "maxRequestMessageBytes": -1
50c   - + +  m "maxRequestMessageBytes": 5000000000
51a   - - +  r maxAttempts 2.0
51b   + - +  r maxAttempts "3"
52    + - +  r backoffMultiplier "2"
53a   - + +  r retryableStatusCodes [14]
53b   - - +  r retryableStatusCodes ["unavailable"]
54    + + -  r retryableStatusCodes ["OK"]
55    + + -  m RETRY, "hedgingPolicy": {"maxAttempts": 2}
56    + + +  m "hedgingPolicy": {"maxAttempts": 4}
57a   + + -  m "hedgingPolicy": {"maxAttempts": 1}
57b   + + -  m "hedgingPolicy": {"maxAttempts": 2, "hedgingDelay": "x"}
58a   - - -  t {"maxTokens": 0, "tokenRatio": 1}
58b   - - -  t {"maxTokens": -1, "tokenRatio": 1}
58c   - + -  w {"retryThrottling": {"maxTokens": 0, "tokenRatio": 1}}
59a   + - -  t {"maxTokens": 1001, "tokenRatio": 1}
59b   - + -  t {"maxTokens": 1.5, "tokenRatio": 1}
60a   - - -  t {"maxTokens": 10, "tokenRatio": 0}
60b   - - -  t {"maxTokens": 10}
60c   - + -  t {"maxTokens": 10, "tokenRatio": 0.0004}
61a   + + +  t {"maxTokens": 10, "tokenRatio": 1}
61b   + + +  t {"maxTokens": 10, "tokenRatio": 1.0}
61c   + + +  t {"maxTokens": 10, "tokenRatio": 0.1259}
62a   + - +  t {"maxTokens": 10, "tokenRatio": "0.1"}
62b   - + +  t {"maxTokens": 10, "tokenRatio": 1e-1}
63    - + -  w {"loadBalancingPolicy": "foo"}
64    - - -  l []
65a   - + -  l [{"round_robin": null}]
65b   - + -  l [{"round_robin": 5}]
66    - + +  w {"loadBalancingConfig": [{"round_robin": {}}], "loadBalancingPolicy": "foo"}
67    + - -  l [{"ring_hash_experimental": {"requestHashHeader": "x-bin"}}]
"#;

/// Fields of a retryPolicy that is valid.
const RETRY: [(&str, &str); 5] = [
    ("maxAttempts", "4"),
    ("initialBackoff", r#""0.01s""#),
    ("maxBackoff", r#""0.01s""#),
    ("backoffMultiplier", "2"),
    ("retryableStatusCodes", r#"["ABORTED"]"#),
];

struct Row {
    number: &'static str,
    c: &'static str,
    go: &'static str,
    trunkline: &'static str,
    config: String,
}

fn rows() -> Vec<Row> {
    let lines = CONFIGS.lines().filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let (columns, config) = line.split_at(13);
            let mut columns = columns.split_whitespace();
            let mut column = || columns.next().expect("four columns");
            Row {
                number: column(),
                c: column(),
                go: column(),
                trunkline: column(),
                config: config_of(config),
            }
        })
        .collect()
}

fn config_of(text: &str) -> String {
    let (kind, text) = text.split_once(' ').expect("a kind and a config");
    let of_all_methods =
        |text: &str| format!(r#"{{"methodConfig": [{{"name": [{{}}], {text}}}]}}"#);
    match kind {
        "w" => text.replace("BOM", "\u{feff}"),
        "m" => {
            let retry = format!(r#""retryPolicy": {{{}}}"#, retry_with("none"));
            of_all_methods(&text.replace("RETRY", &retry))
        }
        "r" => of_all_methods(&format!(r#""retryPolicy": {{{}}}"#, retry_with(text))),
        "l" => format!(r#"{{"loadBalancingConfig": {text}}}"#),
        "o" => format!(
            r#"{{"loadBalancingConfig": [{{"outlier_detection_experimental": {text}}}, {{"round_robin": {{}}}}]}}"#
        ),
        "t" => format!(r#"{{"methodConfig": [], "retryThrottling": {text}}}"#),
        kind => panic!("{kind:?} is not a kind of config"),
    }
}

fn retry_with(text: &str) -> String {
    let (changed, value) = match text.split_once(' ') {
        Some((field, value)) => (field, Some(value)),
        None => (text, None),
    };
    let fields = RETRY.into_iter().filter_map(|(name, valid)| {
        let value = if name == changed { value? } else { valid };
        Some(format!("{name:?}: {value}"))
    });
    fields.collect::<Vec<_>>().join(", ")
}

fn agrees(peer: Peer, column: impl Fn(&Row) -> &'static str) {
    let rows = rows();
    let job = |row: &Row| {
        json!({
            "name": row.number,
            // Nothing listens there.
            "target": "127.0.0.1:1",
            "config": row.config,
            "kind": "unary",
            "messages": 1,
            "size": 0,
            "calls": 0,
            "timeout": 20_000,
            "retries": true,
            "connected": false,
        })
    };
    let jobs: Vec<_> = rows.iter().map(job).collect();
    let Some(lines) = run_jobs(peer, &Value::from(jobs).to_string()) else {
        return;
    };
    let mut failures = Vec::new();
    for row in &rows {
        let prefix = format!("config {} ", row.number);
        let line = lines.iter().find_map(|line| line.strip_prefix(&prefix));
        let line = line.unwrap_or_else(|| panic!("v{}: not done: {lines:#?}", row.number));
        let expected = match column(row) {
            "+" => "accepted",
            _ => "rejected",
        };
        if !line.starts_with(expected) {
            failures.push(format!("v{} {}: {line}", row.number, row.config));
        }
    }
    assert!(
        failures.is_empty(),
        "{}:\n{}",
        peer.name(),
        failures.join("\n")
    );
}

#[test]
fn grpcio_accepts_and_rejects_configs_as_its_column_says() {
    agrees(Peer::PythonScenarios, |row| row.c);
}

#[test]
fn grpc_go_accepts_and_rejects_configs_as_its_column_says() {
    agrees(Peer::GoScenarios, |row| row.go);
}

#[tokio::test]
async fn trunkline_accepts_and_rejects_configs_as_its_column_says() {
    for row in rows() {
        let builder = Channel::to("127.0.0.1:1").service_config(&row.config);
        let is_accepted = builder.connect_lazy().is_ok();
        assert_eq!(
            is_accepted,
            row.trunkline == "+",
            "v{} {}",
            row.number,
            row.config
        );
    }
}
