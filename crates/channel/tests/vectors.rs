//! The vectors of service configs: what gRPC implementations accept and reject, and what Trunkline does where they
//! differ. C is C-core, G grpc-go, J grpc-java.
#![allow(missing_docs, reason = "a test")]

use std::sync::Arc;
use std::time::Duration;

use trunkline_channel::{
    AttemptPolicy, ChannelLimits, HedgingPolicy, MethodConfig, Policies, RetryPolicy, ServiceConfig,
};
use trunkline_codec::{Code, Status};

fn parse(json: &str) -> Result<Arc<ServiceConfig>, Status> {
    ServiceConfig::parse(json, &Policies::builtin(), &ChannelLimits::default())
}

struct Row {
    /// The number of the vector, with the place of the row in it.
    number: &'static str,
    json: String,
    expected: Expected,
}

enum Expected {
    /// A part of the message: the field and its value.
    Rejected(&'static str),
    Accepted(fn(&ServiceConfig) -> bool),
}

use Expected::{Accepted, Rejected};

/// A row of a fragment: of a method config that applies to all methods, or of the top level.
fn row(number: &'static str, fragment: &str, expected: Expected) -> Row {
    let top = [
        "loadBalancing",
        "methodConfig",
        "retryThrottling",
        "healthCheckConfig",
    ];
    let is_top = top
        .iter()
        .any(|name| fragment.starts_with(&format!("\"{name}")));
    let json = match is_top {
        true => format!("{{{fragment}}}"),
        false => format!(r#"{{"methodConfig": [{{"name": [{{}}], {fragment}}}]}}"#),
    };
    whole(number, &json, expected)
}

fn whole(number: &'static str, json: &str, expected: Expected) -> Row {
    let json = json.to_owned();
    Row {
        number,
        json,
        expected,
    }
}

/// A row of a retryPolicy that is valid except for one field; without a value, the field is missing.
fn retry(number: &'static str, field: &str, value: Option<&str>, expected: Expected) -> Row {
    let valid = [
        ("maxAttempts", "4"),
        ("initialBackoff", r#""0.2s""#),
        ("maxBackoff", r#""1s""#),
        ("backoffMultiplier", "2"),
        ("retryableStatusCodes", r#"["UNAVAILABLE"]"#),
    ];
    let fields = valid.into_iter().filter_map(|(name, valid)| {
        let value = if name == field { value? } else { valid };
        Some(format!("{name:?}: {value}"))
    });
    let fields = fields.collect::<Vec<_>>().join(", ");
    row(number, &format!(r#""retryPolicy": {{{fields}}}"#), expected)
}

fn names(number: &'static str, names: &str, expected: Expected) -> Row {
    let json = format!(r#"{{"methodConfig": [{{"name": {names}, "timeout": "1s"}}]}}"#);
    whole(number, &json, expected)
}

fn of_any(config: &ServiceConfig) -> &MethodConfig {
    config
        .method("/any.Service/Method")
        .expect("a method config")
}

fn retry_of(config: &ServiceConfig) -> &RetryPolicy {
    match &of_any(config).attempts {
        Some(AttemptPolicy::Retry(policy)) => policy,
        other => panic!("{other:?}"),
    }
}

fn hedging_of(config: &ServiceConfig) -> &HedgingPolicy {
    match &of_any(config).attempts {
        Some(AttemptPolicy::Hedging(policy)) => policy,
        other => panic!("{other:?}"),
    }
}

fn policy_of(config: &ServiceConfig) -> Option<&str> {
    config.balancer().map(|balancer| balancer.name())
}

fn milli(config: &ServiceConfig) -> Option<(u32, u32)> {
    let throttling = config.retry_throttling()?;
    Some((throttling.max_tokens, throttling.token_ratio))
}

fn is_empty(config: &ServiceConfig) -> bool {
    config.to_string() == "{}"
}

/// Rejected by C, G and J, and by Trunkline.
fn rejected_by_all() -> Vec<Row> {
    let document = Rejected("the service config is");
    let list = |number, value, part| {
        row(
            number,
            &format!(r#""loadBalancingConfig": {value}"#),
            Rejected(part),
        )
    };
    let timeout =
        |number, value, part| row(number, &format!(r#""timeout": {value}"#), Rejected(part));
    vec![
        whole("1", "{", Rejected("not valid JSON: EOF")),
        whole("2 a", "[]", document),
        whole("2 b", r#""x""#, Rejected(r#"is "x", not an object"#)),
        whole("3 a", "{} // a comment", Rejected("not valid JSON")),
        whole(
            "3 b",
            r#"{"methodConfig": [],}"#,
            Rejected("not valid JSON: trailing comma"),
        ),
        whole("3 c", "\u{feff}{}", Rejected("not valid JSON")),
        row(
            "4",
            r#""methodConfig": {}"#,
            Rejected("methodConfig: {} is not a list"),
        ),
        names(
            "5",
            r#"[{"method": "M"}]"#,
            Rejected(r#"methodConfig[0].name[0]: {"method":"M"} is not"#),
        ),
        names(
            "6",
            r#"[{"service": 5}]"#,
            Rejected("methodConfig[0].name[0].service: 5 is not a string"),
        ),
        names(
            "7 a",
            r#"[{"service": "s", "method": "m"}, {"service": "s", "method": "m"}]"#,
            Rejected("methodConfig[0].name[1]"),
        ),
        names(
            "7 b",
            r#"[{"service": "s"}, {"service": "s", "method": ""}]"#,
            Rejected("already named"),
        ),
        names(
            "7 c",
            "[{}, {}]",
            Rejected("methodConfig[0].name[1]: {} is already named"),
        ),
        whole(
            "7 d",
            r#"{"methodConfig": [{"name": [{"service": "s"}]}, {"name": [{"service": "s"}]}]}"#,
            Rejected(r#"methodConfig[1].name[0]: {"service":"s"} is already named"#),
        ),
        timeout(
            "8 a",
            r#""1""#,
            r#"methodConfig[0].timeout: "1" is not a duration; write seconds with an s"#,
        ),
        timeout("8 b", "1", "timeout: 1 is not a duration"),
        timeout("8 c", r#""100ms""#, "is not a duration"),
        timeout("8 d", r#""1e1s""#, "is not a duration"),
        timeout("8 e", r#""1.0000000001s""#, "is not a duration"),
        timeout("8 f", r#""315576000001s""#, "is not a duration"),
        row(
            "9 a",
            r#""waitForReady": "true""#,
            Rejected(r#"waitForReady: "true" is not a boolean"#),
        ),
        row(
            "9 b",
            r#""waitForReady": 1"#,
            Rejected("waitForReady: 1 is not a boolean"),
        ),
        row(
            "10",
            r#""maxRequestMessageBytes": 1.5"#,
            Rejected("maxRequestMessageBytes: 1.5 is not"),
        ),
        row(
            "11",
            r#""retryPolicy": {}"#,
            Rejected("methodConfig[0].retryPolicy.maxAttempts: the field is missing"),
        ),
        retry(
            "12 a",
            "maxAttempts",
            Some("1"),
            Rejected("retryPolicy.maxAttempts: 1 is not"),
        ),
        retry(
            "12 b",
            "maxAttempts",
            Some("-1"),
            Rejected("retryPolicy.maxAttempts: -1 is not"),
        ),
        retry(
            "12 c",
            "maxAttempts",
            Some("2.5"),
            Rejected("retryPolicy.maxAttempts: 2.5 is not"),
        ),
        retry(
            "13 a",
            "initialBackoff",
            Some(r#""0s""#),
            Rejected(r#"initialBackoff: "0s" is not"#),
        ),
        retry(
            "13 b",
            "initialBackoff",
            Some(r#""-1s""#),
            Rejected(r#"initialBackoff: "-1s" is not"#),
        ),
        retry(
            "14",
            "maxBackoff",
            None,
            Rejected("retryPolicy.maxBackoff: the field is missing"),
        ),
        retry(
            "15 a",
            "backoffMultiplier",
            Some("0"),
            Rejected("backoffMultiplier: 0 is not"),
        ),
        retry(
            "15 b",
            "backoffMultiplier",
            Some("-1"),
            Rejected("backoffMultiplier: -1 is not"),
        ),
        retry(
            "16 a",
            "retryableStatusCodes",
            None,
            Rejected("retryableStatusCodes: the field is missing"),
        ),
        retry(
            "16 b",
            "retryableStatusCodes",
            Some("[]"),
            Rejected("retryableStatusCodes: [] is not"),
        ),
        retry(
            "16 c",
            "retryableStatusCodes",
            Some(r#"["14"]"#),
            Rejected(r#"retryableStatusCodes[0]: "14" is not"#),
        ),
        retry(
            "16 d",
            "retryableStatusCodes",
            Some("[17]"),
            Rejected("retryableStatusCodes[0]: 17 is not"),
        ),
        retry(
            "16 e",
            "retryableStatusCodes",
            Some(r#"["CANCELED"]"#),
            Rejected(r#""CANCELED" is not"#),
        ),
        retry(
            "16 f",
            "retryableStatusCodes",
            Some(r#"[14, "NOPE"]"#),
            Rejected(r#"Codes[1]: "NOPE" is not"#),
        ),
        list(
            "17 a",
            r#"[{"foo": {}}, {"bar": {}}]"#,
            "loadBalancingConfig: [{\"foo\":{}},{\"bar\":{}}] names no known",
        ),
        row(
            "17 b",
            r#""loadBalancingConfig": [{"foo": {}}], "loadBalancingPolicy": "round_robin""#,
            Rejected("loadBalancingConfig: "),
        ),
        list(
            "18 a",
            "[{}]",
            "loadBalancingConfig: {} is not an object with one key",
        ),
        list(
            "18 b",
            r#"[{"round_robin": {}, "pick_first": {}}]"#,
            "is not an object with one key",
        ),
        list(
            "18 c",
            r#"{"round_robin": {}}"#,
            "is not a list of policies",
        ),
        list("18 d", r#"[{"ROUND_ROBIN": {}}]"#, "names no known policy"),
        list(
            "19",
            r#"[{"pick_first": {"shuffleAddressList": "true"}}]"#,
            r#"loadBalancingConfig.pick_first: shuffleAddressList: "true" is not"#,
        ),
        row(
            "20",
            r#""loadBalancingPolicy": 5"#,
            Rejected("loadBalancingPolicy: 5 is not a string"),
        ),
        row(
            "21",
            r#""healthCheckConfig": {"serviceName": 5}"#,
            Rejected("healthCheckConfig.serviceName: 5 is not"),
        ),
    ]
}

/// v22: a known policy with an invalid configuration rejects all, also before a valid policy.
fn rejected_policies() -> Vec<Row> {
    let policies = [
        (
            r#""outlier_detection_experimental": {"maxEjectionPercent": 101, "childPolicy": [{"round_robin": {}}]}"#,
            "outlier_detection_experimental: maxEjectionPercent: 101",
        ),
        (
            r#""ring_hash_experimental": {"minRingSize": 5, "maxRingSize": 4}"#,
            "ring_hash_experimental: minRingSize: 5",
        ),
        (
            r#""least_request_experimental": {"choiceCount": 1}"#,
            "least_request_experimental: choiceCount: 1",
        ),
        (
            r#""weighted_round_robin": {"errorUtilizationPenalty": -1}"#,
            "weighted_round_robin: errorUtilizationPenalty: -1",
        ),
    ];
    let rows = policies.into_iter().flat_map(|(policy, part)| {
        let alone = format!(r#""loadBalancingConfig": [{{{policy}}}]"#);
        let before = format!(r#""loadBalancingConfig": [{{{policy}}}, {{"round_robin": {{}}}}]"#);
        [alone, before].map(|fragment| row("22", &fragment, Rejected(part)))
    });
    rows.collect()
}

/// Accepted by C, G and J, and by Trunkline.
fn accepted_by_all() -> Vec<Row> {
    vec![
        whole("23", "{}", Accepted(is_empty)),
        whole(
            "24",
            r#"{"a": 1, "methodConfig": [{"name": [{"b": 2}], "c": [3]}]}"#,
            Accepted(|it| *of_any(it) == MethodConfig::default()),
        ),
        whole(
            "25 a",
            r#"{"methodConfig": [{"timeout": "1s"}]}"#,
            Accepted(is_empty),
        ),
        names("25 b", "[]", Accepted(is_empty)),
        names(
            "26",
            "[{}]",
            Accepted(|it| of_any(it).timeout == Some(Duration::from_secs(1))),
        ),
        whole(
            "27",
            r#"{"methodConfig": [
                {"name": [{"service": "s", "method": "m"}], "timeout": "1s"},
                {"name": [{"service": "s"}], "waitForReady": true},
                {"name": [{}], "maxRequestMessageBytes": 1}
            ]}"#,
            Accepted(|it| {
                let (exact, service, any) =
                    (it.method("/s/m"), it.method("/s/n"), it.method("/t/m"));
                let settings = |it: Option<&Arc<MethodConfig>>| {
                    let it = it.expect("a method config");
                    (
                        it.timeout.is_some(),
                        it.wait_for_ready.is_some(),
                        it.max_request_size.is_some(),
                    )
                };
                settings(exact) == (true, false, false)
                    && settings(service) == (false, true, false)
                    && settings(any) == (false, false, true)
            }),
        ),
        row(
            "28 a",
            r#""timeout": "1s""#,
            Accepted(|it| of_any(it).timeout == Some(Duration::from_secs(1))),
        ),
        row(
            "28 b",
            r#""timeout": "1.5s""#,
            Accepted(|it| of_any(it).timeout == Some(Duration::from_millis(1_500))),
        ),
        row(
            "28 c",
            r#""timeout": "+1s""#,
            Accepted(|it| of_any(it).timeout == Some(Duration::from_secs(1))),
        ),
        row(
            "28 d",
            r#""timeout": "1.000000001s""#,
            Accepted(|it| of_any(it).timeout == Some(Duration::new(1, 1))),
        ),
        row(
            "28 e",
            r#""timeout": "315576000000s""#,
            Accepted(|it| of_any(it).timeout == Some(Duration::from_secs(315_576_000_000))),
        ),
        row(
            "28 f",
            r#""timeout": null"#,
            Accepted(|it| of_any(it).timeout.is_none()),
        ),
        row(
            "29",
            r#""timeout": "5s""#,
            Accepted(|it| {
                let timeout = |call: u64| of_any(it).timeout_of(Some(Duration::from_secs(call)));
                let five = Some(Duration::from_secs(5));
                timeout(10) == five && of_any(it).timeout_of(None) == five && timeout(3) < five
            }),
        ),
        row(
            "30",
            r#""waitForReady": true"#,
            Accepted(|it| {
                !of_any(it).waits_for_ready(Some(false)) && of_any(it).waits_for_ready(None)
            }),
        ),
        row(
            "31",
            r#""maxRequestMessageBytes": 10, "maxResponseMessageBytes": 11"#,
            Accepted(|it| {
                of_any(it).request_size_limit(50) == 10 && of_any(it).response_size_limit(50) == 11
            }),
        ),
        row(
            "32",
            r#""maxResponseMessageBytes": 0"#,
            Accepted(|it| of_any(it).response_size_limit(50) == 0),
        ),
        row(
            "33",
            r#""maxRequestMessageBytes": 100"#,
            Accepted(|it| of_any(it).request_size_limit(50) == 50),
        ),
        row(
            "34",
            r#""retryPolicy": null"#,
            Accepted(|it| of_any(it).attempts.is_none()),
        ),
        retry(
            "35",
            "maxAttempts",
            Some("10"),
            Accepted(|it| retry_of(it).max_attempts == 5),
        ),
        retry(
            "36",
            "backoffMultiplier",
            Some("0.5"),
            Accepted(|it| retry_of(it).backoff_multiplier == 0.5),
        ),
        retry(
            "37",
            "retryableStatusCodes",
            Some(r#"["CANCELLED", "ABORTED", "ABORTED"]"#),
            Accepted(|it| {
                retry_of(it)
                    .retryable_codes
                    .iter()
                    .eq([Code::CANCELLED, Code::ABORTED])
            }),
        ),
        row(
            "38",
            r#""loadBalancingPolicy": "ROUND_ROBIN""#,
            Accepted(|it| policy_of(it) == Some("round_robin")),
        ),
        row(
            "39",
            r#""loadBalancingConfig": [{"foo": {}}, {"round_robin": {}}]"#,
            Accepted(|it| policy_of(it) == Some("round_robin")),
        ),
        row(
            "40",
            r#""loadBalancingConfig": [{"round_robin": {}}, 5]"#,
            Accepted(|it| policy_of(it) == Some("round_robin")),
        ),
        row(
            "41",
            r#""loadBalancingConfig": [{"round_robin": {"foo": 1}}]"#,
            Accepted(|it| policy_of(it) == Some("round_robin")),
        ),
        row(
            "42 a",
            r#""healthCheckConfig": {}"#,
            Accepted(|it| it.health_check_service().is_none()),
        ),
        row(
            "42 b",
            r#""healthCheckConfig": {"serviceName": null}"#,
            Accepted(|it| it.health_check_service().is_none()),
        ),
        row(
            "42 c",
            r#""healthCheckConfig": {"serviceName": ""}"#,
            Accepted(|it| it.health_check_service() == Some("")),
        ),
        row(
            "43",
            r#""retryThrottling": null"#,
            Accepted(|it| it.retry_throttling().is_none()),
        ),
    ]
}

/// C and G differ. The comments are reasons.
fn they_differ() -> Vec<Row> {
    let timeout =
        |number, value, expected| row(number, &format!(r#""timeout": {value}"#), expected);
    let size = |number, value, expected| {
        row(
            number,
            &format!(r#""maxRequestMessageBytes": {value}"#),
            expected,
        )
    };
    let throttling = |number, max_tokens: &str, token_ratio: &str, expected| {
        let fields = format!(r#"{{"maxTokens": {max_tokens}, "tokenRatio": {token_ratio}}}"#);
        row(number, &format!(r#""retryThrottling": {fields}"#), expected)
    };
    let hedging = |number, fields: &str, expected| {
        row(
            number,
            &format!(r#""hedgingPolicy": {{{fields}}}"#),
            expected,
        )
    };
    let list = |number, value, part| {
        row(
            number,
            &format!(r#""loadBalancingConfig": {value}"#),
            Rejected(part),
        )
    };
    vec![
        // The top level must be an object.
        whole(
            "44",
            "null",
            Rejected("the service config is null, not an object"),
        ),
        // Which of the two is meant is not known.
        row(
            "45",
            r#""timeout": "1s", "timeout": "2s""#,
            Rejected(r#"the key "timeout" is set twice"#),
        ),
        // null is absent.
        row("46", r#""methodConfig": null"#, Accepted(is_empty)),
        // A method needs a service; C makes it the default.
        names(
            "47",
            r#"[{"service": "", "method": "M"}]"#,
            Rejected("methodConfig[0].name[0]: "),
        ),
        timeout("48 a", r#""-1s""#, Rejected(r#"timeout: "-1s" is not"#)),
        // A timeout of nothing is a mistake, and ending all calls the worst way to say so.
        timeout(
            "48 b",
            r#""0s""#,
            Accepted(|it| of_any(it).timeout.is_none()),
        ),
        // Durations have digits on both sides of the point, and no spaces.
        timeout("49 a", r#"".5s""#, Rejected(r#"".5s" is not"#)),
        timeout("49 b", r#""1.s""#, Rejected(r#""1.s" is not"#)),
        timeout("49 c", r#"" 1s""#, Rejected(r#"" 1s" is not"#)),
        // The JSON of protobuf accepts numbers in strings.
        size(
            "50 a",
            r#""10""#,
            Accepted(|it| of_any(it).max_request_size == Some(10)),
        ),
        size("50 b", "-1", Rejected("maxRequestMessageBytes: -1 is not")),
        // A message of gRPC has no more than four bytes for its length.
        size(
            "50 c",
            "5000000000",
            Accepted(|it| of_any(it).max_request_size == Some(u32::MAX as usize)),
        ),
        retry(
            "51 a",
            "maxAttempts",
            Some("2.0"),
            Accepted(|it| retry_of(it).max_attempts == 2),
        ),
        retry(
            "51 b",
            "maxAttempts",
            Some(r#""3""#),
            Accepted(|it| retry_of(it).max_attempts == 3),
        ),
        retry(
            "52",
            "backoffMultiplier",
            Some(r#""2""#),
            Accepted(|it| retry_of(it).backoff_multiplier == 2.0),
        ),
        // gRFC A6 allows numbers and names in letters of any case.
        retry(
            "53 a",
            "retryableStatusCodes",
            Some("[14]"),
            Accepted(|it| retry_of(it).retryable_codes.iter().eq([Code::UNAVAILABLE])),
        ),
        retry(
            "53 b",
            "retryableStatusCodes",
            Some(r#"["unavailable"]"#),
            Accepted(|it| retry_of(it).retryable_codes.iter().eq([Code::UNAVAILABLE])),
        ),
        // A success is not retried; J rejects it as well.
        retry(
            "54",
            "retryableStatusCodes",
            Some(r#"["OK"]"#),
            Rejected(r#"retryableStatusCodes[0]: "OK" is not"#),
        ),
        // They are a oneof; with both, the calls of J never end.
        row(
            "55",
            r#""hedgingPolicy": {"maxAttempts": 2}, "retryPolicy": {"maxAttempts": 2, "initialBackoff": "1s",
                "maxBackoff": "1s", "backoffMultiplier": 1, "retryableStatusCodes": [14]}"#,
            Rejected("methodConfig[0].retryPolicy: the method also has a hedgingPolicy"),
        ),
        // C and G do not hedge; the delay is optional in gRFC A6.
        hedging(
            "56",
            r#""maxAttempts": 4"#,
            Accepted(|it| {
                let policy = hedging_of(it);
                policy.hedging_delay.is_zero()
                    && policy.max_attempts == 4
                    && policy.non_fatal_codes.is_empty()
            }),
        ),
        hedging(
            "57 a",
            r#""maxAttempts": 1"#,
            Rejected("hedgingPolicy.maxAttempts: 1 is not"),
        ),
        hedging(
            "57 b",
            r#""maxAttempts": 2, "hedgingDelay": "x""#,
            Rejected(r#"hedgingPolicy.hedgingDelay: "x" is not"#),
        ),
        // G looks at it only with a methodConfig.
        throttling(
            "58 a",
            "0",
            "1",
            Rejected("retryThrottling.maxTokens: 0 is not a whole number from 1 to 1000"),
        ),
        throttling(
            "58 b",
            "-1",
            "1",
            Rejected("retryThrottling.maxTokens: -1 is not"),
        ),
        // gRFC A6: an integer of at most 1,000.
        throttling(
            "59 a",
            "1001",
            "1",
            Rejected("retryThrottling.maxTokens: 1001 is not"),
        ),
        throttling(
            "59 b",
            "1.5",
            "1",
            Rejected("retryThrottling.maxTokens: 1.5 is not"),
        ),
        throttling(
            "60 a",
            "10",
            "0",
            Rejected("retryThrottling.tokenRatio: 0 is not"),
        ),
        row(
            "60 b",
            r#""retryThrottling": {"maxTokens": 10}"#,
            Rejected("tokenRatio: the field is missing"),
        ),
        // Less than a thousandth is nothing.
        throttling(
            "60 c",
            "10",
            "0.0004",
            Rejected("retryThrottling.tokenRatio: 0.0004 is not"),
        ),
        // C reads an integer as thousandths.
        throttling(
            "61 a",
            "10",
            "1",
            Accepted(|it| milli(it) == Some((10_000, 1_000))),
        ),
        throttling(
            "61 b",
            "10",
            "1.0",
            Accepted(|it| milli(it) == Some((10_000, 1_000))),
        ),
        throttling(
            "61 c",
            "10",
            "0.1259",
            Accepted(|it| milli(it) == Some((10_000, 125))),
        ),
        throttling(
            "62 a",
            "10",
            r#""0.1""#,
            Accepted(|it| milli(it) == Some((10_000, 100))),
        ),
        throttling(
            "62 b",
            "10",
            "1e-1",
            Accepted(|it| milli(it) == Some((10_000, 100))),
        ),
        // gRFC A21: an invalid value rejects the config.
        row(
            "63",
            r#""loadBalancingPolicy": "foo""#,
            Rejected(r#"loadBalancingPolicy: "foo" is not"#),
        ),
        // J takes the loadBalancingPolicy then.
        list("64", "[]", "loadBalancingConfig: [] names no known policy"),
        list(
            "65 a",
            r#"[{"round_robin": null}]"#,
            "the configuration of round_robin is null",
        ),
        list(
            "65 b",
            r#"[{"round_robin": 5}]"#,
            "the configuration of round_robin is 5",
        ),
        // The deprecated field is not looked at.
        row(
            "66",
            r#""loadBalancingConfig": [{"round_robin": {}}], "loadBalancingPolicy": "foo""#,
            Accepted(|it| policy_of(it) == Some("round_robin")),
        ),
        // gRFC A76; C ignores the field unless a variable of the environment is set.
        list(
            "67",
            r#"[{"ring_hash_experimental": {"requestHashHeader": "x-bin"}}]"#,
            r#"ring_hash_experimental: requestHashHeader: "x-bin" is not"#,
        ),
    ]
}

#[test]
fn vectors() {
    let rows = [
        rejected_by_all(),
        rejected_policies(),
        accepted_by_all(),
        they_differ(),
    ];
    for Row {
        number,
        json,
        expected,
    } in rows.into_iter().flatten()
    {
        match (parse(&json), expected) {
            (Ok(config), Accepted(is_expected)) => {
                assert!(is_expected(&config), "v{number} {json}: {config}");
                let printed = config.to_string();
                let again = parse(&printed)
                    .unwrap_or_else(|status| panic!("v{number} {printed}: {status}"));
                assert!(is_expected(&again), "v{number} {json}, printed: {printed}");
                assert_eq!(again.to_string(), printed, "v{number} {json}");
            }
            (Err(status), Rejected(part)) => {
                assert_eq!(status.code(), Code::INVALID_ARGUMENT, "v{number} {json}");
                assert!(
                    status.message().contains(part),
                    "v{number} {json}: {status}"
                );
            }
            (Ok(config), Rejected(_)) => panic!("v{number} {json} is accepted: {config}"),
            (Err(status), Accepted(_)) => panic!("v{number} {json}: {status}"),
        }
    }
}
