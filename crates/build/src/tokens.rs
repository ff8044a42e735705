//! The tokens of a `.proto` file, in the detail needed to distinguish its statements.

use std::ops::Range;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Name,
    Text,
    Number,
    Mark,
}

/// One token and its place, in bytes.
#[derive(Clone, Debug)]
pub(crate) struct Token<'a> {
    pub(crate) kind: Kind,
    pub(crate) text: &'a str,
    pub(crate) at: usize,
}

impl Token<'_> {
    pub(crate) fn end(&self) -> usize {
        self.at + self.text.len()
    }

    pub(crate) fn range(&self) -> Range<usize> {
        self.at..self.end()
    }

    /// What a text says, without its quotes. Escapes stay: no name has any.
    pub(crate) fn quoted(&self) -> Option<&str> {
        let quote = self.text.chars().next()?;
        let inside = self.text.strip_prefix(quote)?.strip_suffix(quote)?;
        (self.kind == Kind::Text).then_some(inside)
    }
}

/// All tokens of `source`, without white space and comments.
///
/// Nothing is an error here: the compiler reads the file as well, and says what is wrong.
pub(crate) fn tokens(source: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(first) = source[at..].chars().next() {
        let rest = &source[at..];
        let (kind, length) = match first {
            _ if first.is_whitespace() => (None, first.len_utf8()),
            '/' if rest.starts_with("//") => (None, rest.find('\n').unwrap_or(rest.len())),
            '/' if rest.starts_with("/*") => {
                let end = rest[2..].find("*/").map(|end| end + 4);
                (None, end.unwrap_or(rest.len()))
            }
            '"' | '\'' => (Some(Kind::Text), text_length(rest, first)),
            _ if is_word(first) => {
                let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
                let number = first.is_ascii_digit();
                let kind = if number { Kind::Number } else { Kind::Name };
                (Some(kind), end)
            }
            _ => (Some(Kind::Mark), first.len_utf8()),
        };
        if let Some(kind) = kind {
            let text = &rest[..length];
            tokens.push(Token { kind, text, at });
        }
        at += length;
    }
    tokens
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// The length of a text with its quotes; one that does not end, ends with its line.
fn text_length(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            '\n' => return at,
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(source: &str, expected: &[&str]) {
        let found = tokens(source);
        let texts: Vec<&str> = found.iter().map(|token| token.text).collect();
        assert_eq!(texts, expected, "{source:?}");
        assert!(found.iter().all(|it| &source[it.range()] == it.text));
    }

    #[test]
    fn a_file_is_cut_into_its_tokens() {
        check("", &[]);
        check("a.b=1;", &["a", ".", "b", "=", "1", ";"]);
        check("// a\nb /* c\n */ d /", &["b", "d", "/"]);
        check("/* never ends", &[]);
        check(r#"'a"\'' "b'" "#, &[r#"'a"\''"#, r#""b'""#]);
        check("'open\nnext", &["'open", "next"]);
        check("'open\\", &["'open\\"]);
        check("-0x1F 1e5 é", &["-", "0x1F", "1e5", "é"]);
    }
}
