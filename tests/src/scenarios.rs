//! The scenarios of retry and hedging: calls under a service config, the script of their server, and how they end. One
//! table for `trunkline`, under a stopped clock, and for other implementations, in real time.
//!
//! A call ends as a text: for each attempt its `grpc-previous-rpc-attempts` (`n` if there is none), and then the status:
//! `n 1 2 OK`. Semicolons separate the calls of a scenario.

use std::time::Duration;

use serde_json::{Value, json};
use trunkline::Code;
use trunkline_testkit::{Attempt, message};

/// A row of the table.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The number of the scenario, with a letter if there are several of the number.
    pub number: &'static str,
    /// The script of the server, for [`trunkline_testkit::ScriptedServer`]; empty if nothing listens.
    pub script: &'static str,
    /// What `methodConfig` has for all methods: one policy, or none.
    policy: Option<(&'static str, Value)>,
    throttling: Option<Value>,
    /// The kind of its calls, as the foreign clients name it.
    pub kind: &'static str,
    /// How many messages a request has, of how many bytes.
    pub messages: (usize, usize),
    /// How many calls are made, one after another.
    pub calls: usize,
    /// The timeout of each call.
    pub timeout: Duration,
    /// False if retries are switched off.
    pub retries: bool,
    /// How the calls end with `trunkline`, and with all that do not differ.
    pub ends: &'static str,
    /// How they end with C-core, if differently.
    c: Option<&'static str>,
    /// False if other implementations have no such policy.
    pub is_common: bool,
    /// The least and most milliseconds between the heads of attempts; none are looked at if empty.
    pub gaps: &'static [(u64, u64)],
    /// The least and most milliseconds that the calls take.
    pub takes: Option<(u64, u64)>,
    /// Part of the message of the last status.
    pub message: &'static str,
    /// The attempts that the client resets with CANCEL, if they are looked at.
    pub cancelled: Option<&'static [usize]>,
}

/// An implementation of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// This one.
    Trunkline,
    /// C-core.
    C,
    /// grpc-go.
    Go,
}

fn scenario(number: &'static str, script: &'static str, ends: &'static str) -> Scenario {
    Scenario {
        number,
        script,
        policy: None,
        throttling: None,
        kind: "unary",
        messages: (1, 5),
        calls: 1,
        timeout: Duration::from_secs(20),
        retries: true,
        ends,
        c: None,
        is_common: true,
        gaps: &[],
        takes: None,
        message: "",
        cancelled: None,
    }
}

/// A scenario under a policy that is valid.
fn retry(number: &'static str, script: &'static str, ends: &'static str) -> Scenario {
    let policy = json!({
        "maxAttempts": 4,
        "initialBackoff": "0.2s",
        "maxBackoff": "1s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    });
    let mut scenario = scenario(number, script, ends);
    scenario.policy = Some(("retryPolicy", policy));
    scenario
}

fn hedge(number: &'static str, script: &'static str, ends: &'static str) -> Scenario {
    let policy = json!({
        "maxAttempts": 4,
        "hedgingDelay": "0.3s",
        "nonFatalStatusCodes": ["UNAVAILABLE"],
    });
    let mut scenario = scenario(number, script, ends);
    scenario.policy = Some(("hedgingPolicy", policy));
    scenario.is_common = false;
    scenario
}

impl Scenario {
    fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        if let Some((_, policy)) = &mut self.policy {
            policy[field] = value.into();
        }
        self
    }

    fn codes(self, code: &str) -> Self {
        self.with("retryableStatusCodes", json!([code]))
    }

    fn throttled(mut self, tokens: u32, ratio: Value) -> Self {
        self.throttling = Some(json!({ "maxTokens": tokens, "tokenRatio": ratio }));
        self
    }

    fn requests(mut self, kind: &'static str, messages: usize, size: usize) -> Self {
        self.kind = kind;
        self.messages = (messages, size);
        self
    }

    fn calls(mut self, calls: usize) -> Self {
        self.calls = calls;
        self
    }

    fn within(mut self, millis: u64) -> Self {
        self.timeout = Duration::from_millis(millis);
        self
    }

    /// The calls end when their time is over.
    fn timeout(self, millis: u64) -> Self {
        self.within(millis).takes(millis, millis + 20)
    }

    fn c(mut self, ends: &'static str) -> Self {
        self.c = Some(ends);
        self
    }

    fn gaps(mut self, gaps: &'static [(u64, u64)]) -> Self {
        self.gaps = gaps;
        self
    }

    fn takes(mut self, least: u64, most: u64) -> Self {
        self.takes = Some((least, most));
        self
    }

    fn says(mut self, message: &'static str) -> Self {
        self.message = message;
        self
    }

    fn cancelled(mut self, attempts: &'static [usize]) -> Self {
        self.cancelled = Some(attempts);
        self
    }

    fn switched_off(mut self) -> Self {
        self.retries = false;
        self
    }

    /// The service config, in JSON.
    pub fn config(&self) -> String {
        let mut config = json!({});
        if let Some((name, policy)) = &self.policy {
            config["methodConfig"] = json!([{ "name": [{}], *name: policy }]);
        }
        if let Some(throttling) = &self.throttling {
            config["retryThrottling"] = throttling.clone();
        }
        config.to_string()
    }

    /// How the calls end with a client.
    pub fn ends_with(&self, client: Client) -> &'static str {
        match client {
            Client::C => self.c.unwrap_or(self.ends),
            Client::Trunkline | Client::Go => self.ends,
        }
    }

    /// The text of how the calls have ended.
    pub fn ended(&self, attempts: &[Attempt], codes: &[Code]) -> String {
        let calls = codes.iter().enumerate().map(|(call, code)| {
            let of_call = attempts.iter().filter(|it| it.call == call);
            let headers =
                of_call.map(|it| it.previous_attempts().unwrap_or_else(|| "n".to_owned()));
            let mut words: Vec<_> = headers.collect();
            words.push(code.name().unwrap_or("?").to_owned());
            words.join(" ")
        });
        calls.collect::<Vec<_>>().join("; ")
    }

    /// What is wrong with the requests of the attempts: each that has ended is complete, and no attempt has more time
    /// left than the one before.
    pub fn wrong_requests(&self, attempts: &[Attempt]) -> Vec<String> {
        let (messages, size) = self.messages;
        let expected = message(&vec![0; size]).repeat(messages);
        let mut wrong = Vec::new();
        for (at, attempt) in attempts.iter().enumerate() {
            if attempt.is_half_closed && attempt.data[..] != expected[..] {
                wrong.push(format!("attempt {at} has {} bytes", attempt.data.len()));
            }
            let before = attempts[..at].iter().rfind(|it| it.call == attempt.call);
            let before = before.and_then(|it| milliseconds(&it.timeout()?));
            let now = attempt.timeout().and_then(|it| milliseconds(&it));
            if before.is_some_and(|before| now.is_none_or(|now| now > before)) {
                wrong.push(format!(
                    "attempt {at} has the timeout {now:?} after {before:?}"
                ));
            }
        }
        wrong
    }
}

/// The value of a `grpc-timeout`.
fn milliseconds(timeout: &str) -> Option<f64> {
    let (number, unit) = timeout.split_at_checked(timeout.len().checked_sub(1)?)?;
    let factor = match unit {
        "H" => 3_600_000.0,
        "M" => 60_000.0,
        "S" => 1_000.0,
        "m" => 1.0,
        "u" => 0.001,
        "n" => 0.000_001,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * factor)
}

/// All scenarios that consist of calls, a script and a config.
pub fn all() -> Vec<Scenario> {
    [
        retries(),
        pushbacks(),
        refusals(),
        throttles(),
        bodies(),
        hedges(),
    ]
    .concat()
}

fn retries() -> Vec<Scenario> {
    vec![
        retry("1", "U U K", "n 1 2 OK").gaps(&[(160, 240), (320, 480)]),
        retry("2 a", "U*", "n 1 2 3 UNAVAILABLE").says("attempt 4"),
        // The limit of the client is 5 as well.
        retry("2 b", "U*", "n 1 2 3 4 UNAVAILABLE")
            .with("maxAttempts", 10)
            .says("attempt 5"),
        retry("3 a", "I K", "n INTERNAL"),
        scenario("3 b", "U", "n UNAVAILABLE"),
        retry("3 c", "H.U", "n UNAVAILABLE"),
        retry("3 d", "H.M.U", "n UNAVAILABLE"),
        retry("18 a", "X K", "n 1 OK"),
        scenario("18 b", "X", "n UNAVAILABLE"),
        retry("19 a", "R(INTERNAL_ERROR) K", "n 1 OK").codes("INTERNAL"),
        retry("19 b", "R(CANCEL) K", "n 1 OK").codes("CANCELLED"),
        retry("19 c", "503 K", "n 1 OK"),
        // C-core makes INTERNAL of a status that is not a number.
        retry("20", "S(x) K", "n 1 OK")
            .codes("UNKNOWN")
            .c("n INTERNAL"),
        // The server's statuses, not the client's own.
        retry("21 a", "D K", "n 1 OK").codes("DEADLINE_EXCEEDED"),
        retry("21 b", "C K", "n 1 OK").codes("CANCELLED"),
        retry("22", "U -", "n 1 DEADLINE_EXCEEDED")
            .timeout(2_000)
            .cancelled(&[1]),
        retry("23", "U", "n DEADLINE_EXCEEDED")
            .with("initialBackoff", "5s")
            .with("maxBackoff", "5s")
            .timeout(1_000)
            .says("attempt 1"),
        retry("24 a", "U K", "n 1 OK")
            .with("initialBackoff", "2s")
            .with("maxBackoff", "0.3s")
            .gaps(&[(240, 360)]),
        retry("24 b", "U U U K", "n 1 2 3 OK")
            .with("backoffMultiplier", 0.5)
            .gaps(&[(160, 240), (80, 120), (40, 60)]),
        // Four picks: 0.2, 0.4 and 0.8 s between them.
        retry("36", "", "UNAVAILABLE").takes(1_120, 1_700),
    ]
}

fn pushbacks() -> Vec<Scenario> {
    vec![
        // The retry of C-core never comes.
        retry("4", "U(0) K", "n 1 OK")
            .within(3_000)
            .gaps(&[(0, 0)])
            .c("n DEADLINE_EXCEEDED"),
        retry("5 a", "U(700) K", "n 1 OK").gaps(&[(700, 700)]),
        retry("5 b", "U(0100) K", "n 1 OK").gaps(&[(100, 100)]),
        retry("5 c", "U(+100) K", "n 1 OK").gaps(&[(100, 100)]),
        retry("6", "U(-1)", "n UNAVAILABLE").says("attempt 1"),
        // C-core makes INTERNAL of a pushback that is not a number.
        retry("7 a", "U(soon)", "n UNAVAILABLE")
            .says("attempt 1")
            .c("n INTERNAL"),
        retry("7 b", "U()", "n UNAVAILABLE")
            .says("attempt 1")
            .c("n INTERNAL"),
        // Which of the two is meant is not known; C-core takes the last.
        retry("8", "U(300,900) K", "n UNAVAILABLE")
            .says("attempt 1")
            .c("n 1 OK"),
        retry("9", "U(2147483648)", "n DEADLINE_EXCEEDED").timeout(1_000),
        retry("10", "I(100)", "n INTERNAL"),
        // The backoff begins again behind the pushback.
        retry("11", "U U U(50) U K", "n 1 2 3 4 OK")
            .with("maxAttempts", 5)
            .gaps(&[(160, 240), (320, 480), (50, 50), (160, 240)]),
        retry("12", "U U U U(10)", "n 1 2 3 UNAVAILABLE"),
    ]
}

fn refusals() -> Vec<Scenario> {
    vec![
        // C-core makes transparent retries only of calls that it has not written.
        scenario("13 a", "R(REFUSED) K", "n n OK")
            .gaps(&[(0, 0)])
            .c("n UNAVAILABLE"),
        scenario("13 b", "R(REFUSED)*", "n n UNAVAILABLE").c("n UNAVAILABLE"),
        retry("14", "R(REFUSED) R(REFUSED) K", "n n 1 OK").c("n 1 2 OK"),
        retry("15", "R(REFUSED) U K", "n n 1 OK").c("n 1 2 OK"),
        retry("16", "U R(REFUSED) K", "n 1 2 OK"),
        scenario("17 a", "G0 K", "n n OK"),
        scenario("17 b", "G0 G0", "n n UNAVAILABLE"),
        // C-core makes no transparent retries then.
        retry("38", "R(REFUSED) K", "n n OK")
            .switched_off()
            .c("n UNAVAILABLE"),
    ]
}

fn throttles() -> Vec<Scenario> {
    vec![
        // One failure leaves half of the tokens.
        retry("25", "U*", "n UNAVAILABLE").throttled(2, json!(0.5)),
        // 6, 5 and 4 tokens are left.
        retry(
            "26",
            "U*",
            "n 1 2 3 UNAVAILABLE; n UNAVAILABLE; n UNAVAILABLE",
        )
        .throttled(10, json!(0.1))
        .calls(3),
        // C-core reads the integer 1 as a thousandth.
        retry("27", "U K", "n 1 OK; n 1 OK; n 1 OK; n 1 OK")
            .throttled(4, json!(1))
            .calls(4)
            .c("n 1 OK; n 1 OK; n UNAVAILABLE; n UNAVAILABLE"),
        retry(
            "28",
            "I; I; I; I; I; U K",
            "n INTERNAL; n INTERNAL; n INTERNAL; n INTERNAL; n INTERNAL; n 1 OK",
        )
        .throttled(4, json!(1.0))
        .calls(6),
        // C-core counts the pushback only with a retryable status.
        retry(
            "29",
            "I(-1); I(-1); U K",
            "n INTERNAL; n INTERNAL; n UNAVAILABLE",
        )
        .throttled(4, json!(1.0))
        .calls(3)
        .c("n INTERNAL; n INTERNAL; n 1 OK"),
        // What was not processed does not count; for C-core, it is a failure as any other.
        retry("30", "R(REFUSED) K", "n n OK; n n OK; n n OK; n n OK")
            .throttled(2, json!(1.0))
            .calls(4)
            .c("n UNAVAILABLE; n UNAVAILABLE; n UNAVAILABLE; n UNAVAILABLE"),
    ]
}

fn bodies() -> Vec<Scenario> {
    vec![
        // 256 KiB are kept for a retry.
        retry("32 a", "U K", "n 1 OK").requests("unary", 1, 200 << 10),
        retry("32 b", "U K", "n UNAVAILABLE").requests("unary", 1, 300 << 10),
        retry("33 a", "U K", "n 1 OK").requests("client_streaming", 3, 1_000),
        retry("33 b", "U K", "n UNAVAILABLE").requests("client_streaming", 300, 1_000),
        retry("34 a", "U K", "n 1 OK").requests("server_streaming", 1, 5),
        // The client sends its second message once it has a response from the second attempt.
        retry("34 b", "!U !H.M.E.K", "n 1 OK").requests("bidi", 3, 5),
    ]
}

/// Neither C-core nor grpc-go hedges.
fn hedges() -> Vec<Scenario> {
    vec![
        hedge("39 a", "- - - K", "n 1 2 3 OK")
            .gaps(&[(300, 300), (300, 300), (300, 300)])
            .cancelled(&[0, 1, 2]),
        hedge("39 b", "- - - K", "n 1 2 3 OK")
            .with("hedgingDelay", "0s")
            .gaps(&[(0, 0), (0, 0), (0, 0)]),
        hedge("40", "U U U K", "n 1 2 3 OK").gaps(&[(0, 0), (0, 0), (0, 0)]),
        // INTERNAL is fatal.
        hedge("41", "- I", "n 1 INTERNAL")
            .gaps(&[(300, 300)])
            .cancelled(&[0]),
        hedge("42", "U(700) K", "n 1 OK").gaps(&[(700, 700)]),
        hedge("43", "~2000.K U(-1)", "n 1 OK").takes(2_000, 2_010),
        hedge("44", "- H.~500.U", "n 1 UNAVAILABLE")
            .takes(800, 810)
            .cancelled(&[0]),
        hedge("45", "- R(REFUSED) K", "n 1 1 OK")
            .gaps(&[(300, 300), (0, 0)])
            .cancelled(&[0]),
        // The first attempt is committed once it has sent more than is kept.
        hedge("46 a", "~1000.K", "n OK").requests("unary", 1, 300 << 10),
        hedge("46 b", "U*", "n UNAVAILABLE").throttled(2, json!(0.5)),
    ]
}
