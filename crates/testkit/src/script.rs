//! Scripts of a server: the steps of its response to each attempt of each call, in a short notation.

use std::collections::VecDeque;
use std::time::Duration;

use crate::frame::error;

/// A step of the response on one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Waits for END_STREAM of the request.
    HalfClose,
    Wait(Duration),
    Head,
    /// A message, after the head if none was sent.
    Message,
    /// The end of the stream; Trailers-Only if no head was sent.
    Status {
        code: String,
        pushback: Vec<String>,
    },
    /// A head with END_STREAM, this HTTP status and no `grpc-status`.
    Http(String),
    Reset(u32),
    /// GOAWAY whose last stream is 0.
    GoAway,
    /// Closes the connection.
    Close,
}

/// The steps for each attempt of one call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Call {
    attempts: Vec<VecDeque<Step>>,
    /// The last of them stands for all later ones.
    repeats: bool,
}

/// A parsed script; see [`ScriptedServer`](crate::ScriptedServer) for the notation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Script(Vec<Call>);

impl Script {
    /// # Panics
    ///
    /// When the text is not a script.
    pub(crate) fn parse(text: &str) -> Self {
        Self(text.split(';').map(parse_call).collect())
    }

    /// The steps for an attempt of a call; `None` if the script foresees no such attempt.
    pub(crate) fn steps(&self, call: usize, attempt: usize) -> Option<VecDeque<Step>> {
        let call = self.0.get(call).or_else(|| self.0.last())?;
        let last = call.attempts.last().filter(|_| call.repeats);
        call.attempts.get(attempt).or(last).cloned()
    }
}

fn parse_call(text: &str) -> Call {
    let mut call = Call::default();
    for word in text.split_whitespace() {
        assert!(!call.repeats, "{text:?}: something follows what repeats");
        let (word, repeats) = match word.strip_suffix('*') {
            Some(word) => (word, true),
            None => (word, false),
        };
        call.repeats = repeats;
        call.attempts.push(parse_attempt(word));
    }
    call
}

fn parse_attempt(word: &str) -> VecDeque<Step> {
    let (parts, early) = match word.strip_prefix('!') {
        Some(parts) => (parts, true),
        None => (word, false),
    };
    let mut steps = VecDeque::new();
    if !early {
        steps.push_back(Step::HalfClose);
    }
    steps.extend(parts.split('.').flat_map(parse_part));
    steps
}

fn parse_part(part: &str) -> Vec<Step> {
    if let Some(millis) = part.strip_prefix('~') {
        let millis = millis.parse().expect("a number of milliseconds");
        return vec![Step::Wait(Duration::from_millis(millis))];
    }
    let (name, argument) = match part.split_once('(') {
        Some((name, rest)) => (name, rest.strip_suffix(')')),
        None => (part, None),
    };
    match (name, argument) {
        ("-", None) => Vec::new(),
        ("E", None) => vec![Step::HalfClose],
        ("H", None) => vec![Step::Head],
        ("M", None) => vec![Step::Message],
        ("K", None) => vec![Step::Message, status("0", None)],
        ("C", _) => vec![status("1", argument)],
        ("D", _) => vec![status("4", argument)],
        ("I", _) => vec![status("13", argument)],
        ("U", _) => vec![status("14", argument)],
        ("S", Some(code)) => vec![status(code, None)],
        ("R", Some(code)) => vec![Step::Reset(error_code(code))],
        ("G0", None) => vec![Step::GoAway],
        ("X", None) => vec![Step::Close],
        (http, None) if http.parse::<u16>().is_ok() => vec![Step::Http(http.to_owned())],
        _ => panic!("{part:?} is not part of a script"),
    }
}

fn status(code: &str, pushback: Option<&str>) -> Step {
    let pushback = pushback.into_iter().flat_map(|values| values.split(','));
    Step::Status {
        code: code.to_owned(),
        pushback: pushback.map(str::to_owned).collect(),
    }
}

fn error_code(name: &str) -> u32 {
    match name {
        "NO_ERROR" => error::NO_ERROR,
        "INTERNAL_ERROR" => error::INTERNAL_ERROR,
        "REFUSED" => error::REFUSED_STREAM,
        "CANCEL" => error::CANCEL,
        _ => panic!("{name:?} is not an error code of a script"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_has_steps_for_each_attempt_of_each_call() {
        let script = Script::parse("U(300,900) !H.~5.E.K; R(REFUSED) -*");
        let pushback = Step::Status {
            code: "14".into(),
            pushback: vec!["300".into(), "900".into()],
        };
        let steps = |call, attempt| script.steps(call, attempt).map(Vec::from);
        assert_eq!(steps(0, 0), Some(vec![Step::HalfClose, pushback]));
        let second = vec![
            Step::Head,
            Step::Wait(Duration::from_millis(5)),
            Step::HalfClose,
            Step::Message,
            status("0", None),
        ];
        assert_eq!(steps(0, 1), Some(second));
        assert_eq!(steps(0, 2), None);
        let refused = vec![Step::HalfClose, Step::Reset(error::REFUSED_STREAM)];
        assert_eq!(steps(1, 0), Some(refused.clone()));
        assert_eq!(steps(1, 9), Some(vec![Step::HalfClose]));
        assert_eq!(
            steps(7, 0),
            Some(refused),
            "the last call stands for later ones"
        );
    }

    #[test]
    fn an_empty_pushback_is_a_field_without_text() {
        let Step::Status { pushback, .. } = &parse_part("U()")[0] else {
            panic!("a status");
        };
        assert_eq!(pushback, &[""]);
    }
}
