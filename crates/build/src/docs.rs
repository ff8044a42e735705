//! Comments of a `.proto` file as Rust documentation.
//!
//! Such comments are plain text with a habit of Markdown. Taken over as they are, they break
//! rustdoc: an indented example becomes a doctest, `[Foo]` a link to nowhere, `<id>` a tag that is
//! never closed. Here they become text that every rustdoc lint accepts and that holds no test.
//!
//! prost-build edits the comments that it prints, so it is given [markers](Docs::take) to print,
//! and the text takes their place [afterwards](Docs::expand).

use prost_types::FileDescriptorProto;

/// Starts each marker; letters and digits only, which no rule of prost-build touches.
const MARKER: &str = "TRUNKLINEDOC";

/// The comments taken out of descriptors, by the number in their marker.
#[derive(Debug, Default)]
pub(crate) struct Docs(Vec<Vec<String>>);

impl Docs {
    /// Takes the comments of `file` out and leaves a marker for each commented item.
    pub(crate) fn take(&mut self, file: &mut FileDescriptorProto) {
        let Some(info) = &mut file.source_code_info else {
            return;
        };
        for location in &mut info.location {
            location.leading_detached_comments.clear();
            let mut lines = Vec::new();
            for comment in [
                location.leading_comments.take(),
                location.trailing_comments.take(),
            ] {
                let more = to_rustdoc(&comment.unwrap_or_default());
                if !lines.is_empty() && !more.is_empty() {
                    lines.push(String::new());
                }
                lines.extend(more);
            }
            if !lines.is_empty() {
                location.leading_comments = Some(format!(" {MARKER}{}", self.0.len()));
                self.0.push(lines);
            }
        }
    }

    /// Puts the comments back where generated text holds their markers.
    pub(crate) fn expand(&self, text: &str) -> String {
        let mut expanded = String::with_capacity(text.len());
        for line in text.lines() {
            let code = line.trim_start();
            match self.marked(code) {
                None => push_line(&mut expanded, "", line),
                Some(lines) => {
                    let indent = &line[..line.len() - code.len()];
                    for line in lines {
                        let space = if line.is_empty() { "" } else { " " };
                        push_line(&mut expanded, indent, &format!("///{space}{line}"));
                    }
                }
            }
        }
        expanded
    }

    fn marked(&self, line: &str) -> Option<&[String]> {
        let number = line.strip_prefix("///")?.trim().strip_prefix(MARKER)?;
        self.0.get(number.parse::<usize>().ok()?).map(Vec::as_slice)
    }
}

fn push_line(text: &mut String, indent: &str, line: &str) {
    text.push_str(indent);
    text.push_str(line);
    text.push('\n');
}

/// The lines of a comment as Markdown; empty for a comment of white space only.
fn to_rustdoc(comment: &str) -> Vec<String> {
    // What is left of `/**`.
    let comment = comment.strip_prefix('*').unwrap_or(comment);
    let lines = dedent(comment.lines().map(clean).collect());
    let mut docs = Vec::new();
    let mut previous = "";
    let mut rest = lines.as_slice();
    while let Some((line, after)) = rest.split_first() {
        if let Some(fence) = Fence::open(line) {
            let end = after.iter().position(|line| fence.closes(line));
            push_code(&mut docs, &after[..end.unwrap_or(after.len())]);
            rest = end.map_or(&[], |end| &after[end + 1..]);
            previous = "";
        } else if indent(line) >= 4 && !continues_text(previous) {
            let end = rest
                .iter()
                .position(|line| !line.is_empty() && indent(line) < 4);
            let (code, after) = rest.split_at(end.unwrap_or(rest.len()));
            push_code(&mut docs, code);
            rest = after;
            previous = "";
        } else {
            if !line.is_empty() || docs.last().is_some_and(|last| !last.is_empty()) {
                docs.push(text_line(line));
            }
            rest = after;
            previous = line;
        }
    }
    while docs.last().is_some_and(String::is_empty) {
        docs.pop();
    }
    docs
}

/// Removes what may not stand in a Rust comment and spells tabs as spaces.
///
/// rustc refuses a carriage return in a doc comment, and the characters that change the direction
/// of text anywhere.
fn clean(line: &str) -> String {
    // What is left of `///`.
    let line = line.trim_start_matches('/').replace('\t', "    ");
    let kept = line.chars().filter(|c| {
        !c.is_control() && !matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    });
    kept.collect::<String>().trim_end().to_owned()
}

/// Removes the indentation that all lines share, and empty lines at both ends.
fn dedent(mut lines: Vec<String>) -> Vec<String> {
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    let start = lines.iter().take_while(|line| line.is_empty()).count();
    lines.drain(..start);
    let shared = lines.iter().filter(|line| !line.is_empty());
    let shared = shared.map(|line| indent(line)).min().unwrap_or(0);
    for line in &mut lines {
        line.drain(..shared.min(line.len()));
    }
    lines
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

/// Whether an indented line after `previous` is the same paragraph; otherwise it is code.
fn continues_text(previous: &str) -> bool {
    let (_, text) = split_containers(previous);
    let rule = text
        .chars()
        .all(|c| matches!(c, '-' | '*' | '_' | '=' | '+' | ' '));
    !rule && !text.starts_with(['#', '<', '|'])
}

/// A fence of backticks or tildes that opens a block of code.
struct Fence {
    mark: char,
    length: usize,
}

impl Fence {
    /// A fence counts in a list or a quotation too: a renderer would see it there.
    fn open(line: &str) -> Option<Self> {
        let (_, text) = split_containers(line);
        let mark = text.chars().next().filter(|c| matches!(c, '`' | '~'))?;
        let info = text.trim_start_matches(mark);
        let length = text.len() - info.len();
        // Three backticks and text and more backticks is a code span.
        let is_span = mark == '`' && info.contains('`');
        (length >= 3 && !is_span).then_some(Self { mark, length })
    }

    fn closes(&self, line: &str) -> bool {
        let (_, text) = split_containers(line);
        text.len() >= self.length && text.chars().all(|c| c == self.mark)
    }
}

/// Writes a block of code at the left margin, where nothing around it can end it early.
fn push_code(docs: &mut Vec<String>, lines: &[String]) {
    let lines = dedent(lines.to_vec());
    if lines.is_empty() {
        return;
    }
    let longest = lines.iter().map(|line| longest_run(line, '`')).max();
    let fence = "`".repeat(longest.map_or(3, |run| run.saturating_add(1).max(3)));
    // Anything but a foreign language would make rustdoc compile and run the block.
    docs.push(format!("{fence}text"));
    docs.extend(lines);
    docs.push(fence);
    docs.push(String::new());
}

fn longest_run(line: &str, mark: char) -> usize {
    line.split(|c| c != mark).map(str::len).max().unwrap_or(0)
}

/// One line outside code.
fn text_line(line: &str) -> String {
    let (containers, rest) = split_containers(line);
    // Indentation means nothing within a paragraph, but four spaces could start a block of code
    // after a line that only looks like text here.
    let depth = if containers.is_empty() { 3 } else { usize::MAX };
    let mut docs = " ".repeat(indent(line).min(depth));
    docs.push_str(&containers);
    push_inline(&mut docs, rest);
    docs.trim_end().to_owned()
}

/// Splits a line into its marks of quotations and list items, one space after each, and the text.
///
/// More than one space would make the text of an item a block of code.
fn split_containers(line: &str) -> (String, &str) {
    let mut containers = String::new();
    let mut text = line.trim_start();
    while let Some(length) = container(text) {
        containers.push_str(&text[..length]);
        containers.push(' ');
        text = text[length..].trim_start();
    }
    (containers, text)
}

fn container(text: &str) -> Option<usize> {
    let digits = text.chars().take_while(char::is_ascii_digit).count();
    let mark = match text[digits..].chars().next()? {
        '.' | ')' => (1..=9).contains(&digits),
        '-' | '*' | '+' | '>' => digits == 0,
        _ => false,
    };
    let after = &text[digits..].get(1..)?;
    (mark && (after.is_empty() || after.starts_with(' '))).then_some(digits + 1)
}

/// Escapes what Markdown would read as a link or a tag, and marks URLs as such.
fn push_inline(docs: &mut String, text: &str) {
    let mut rest = text;
    if rest.starts_with('>') {
        // A comparison, not a quotation: that has a space behind its mark.
        docs.push('\\');
    }
    while let Some(c) = rest.chars().next() {
        let length = match c {
            '`' => push_span(docs, rest),
            '\\' => push_escape(docs, rest),
            '<' => push_or_escape(docs, rest, autolink(rest)),
            '[' => push_or_escape(docs, rest, link(rest)),
            ']' => push_or_escape(docs, rest, None),
            // An image would be loaded by whoever reads the documentation.
            '!' if rest.starts_with("![") => push_or_escape(docs, rest, None),
            'h' => push_url(docs, rest),
            _ => push_plain(docs, c),
        };
        rest = &rest[length..];
    }
}

fn push_plain(docs: &mut String, c: char) -> usize {
    docs.push(c);
    c.len_utf8()
}

/// Copies the first `length` bytes; if there are none, escapes the first character.
fn push_or_escape(docs: &mut String, rest: &str, length: Option<usize>) -> usize {
    let length = length.unwrap_or_else(|| {
        docs.push('\\');
        1
    });
    docs.push_str(&rest[..length]);
    length
}

/// A code span goes over untouched; backticks without their like on the same line are only that.
fn push_span(docs: &mut String, rest: &str) -> usize {
    let open = rest.len() - rest.trim_start_matches('`').len();
    let mut at = open;
    while let Some(start) = rest[at..].find('`') {
        let from = at + start;
        let run = rest.len() - from - rest[from..].trim_start_matches('`').len();
        at = from + run;
        if run == open {
            docs.push_str(&rest[..at]);
            return at;
        }
    }
    docs.push_str(&"\\`".repeat(open));
    open
}

fn push_escape(docs: &mut String, rest: &str) -> usize {
    let escaped = rest[1..].chars().next().filter(char::is_ascii_punctuation);
    let Some(escaped) = escaped else {
        // It must not escape what is put before the next word.
        docs.push_str("\\\\");
        return 1;
    };
    docs.push('\\');
    docs.push(escaped);
    2
}

fn push_url(docs: &mut String, rest: &str) -> usize {
    let Some(length) = url(rest) else {
        return push_plain(docs, 'h');
    };
    docs.push('<');
    docs.push_str(&rest[..length]);
    docs.push('>');
    length
}

/// The length of the URL at the start of `text`, without the punctuation of the sentence.
fn url(text: &str) -> Option<usize> {
    let scheme = ["https://", "http://"]
        .into_iter()
        .find(|scheme| text.starts_with(scheme))?;
    let end =
        text.find(|c: char| c.is_whitespace() || matches!(c, '<' | '>' | '"' | '`' | '\\' | '|'));
    let mut url = &text[..end.unwrap_or(text.len())];
    loop {
        let trimmed = url.trim_end_matches(['.', ',', ';', ':', '!', '?', '\'', '*', '_', ']']);
        let trimmed = match trimmed.strip_suffix(')') {
            Some(inside) if inside.matches('(').count() <= inside.matches(')').count() => inside,
            _ => trimmed,
        };
        if trimmed.len() == url.len() {
            break;
        }
        url = trimmed;
    }
    (url.len() > scheme.len()).then_some(url.len())
}

/// The length of `<https://...>` at the start of `text`.
fn autolink(text: &str) -> Option<usize> {
    let end = text.find('>')?;
    let inside = &text[1..end];
    let plain = !inside.contains(|c: char| c.is_whitespace() || c == '<');
    (plain && url(inside).is_some()).then_some(end + 1)
}

/// The length of `[text](https://...)` at the start of `text`; any other target is not ours.
fn link(text: &str) -> Option<usize> {
    let label = text.find(']')?;
    let plain = !text[1..label].contains(['[', '<', '`', '\\']);
    let target = text[label + 1..].strip_prefix('(')?;
    let end = target.find(')')?;
    let inside = &target[..end];
    let is_url = url(inside) == Some(inside.len()) && !inside.contains('(');
    (plain && is_url && url(&text[1..label]).is_none()).then_some(label + 2 + end + 1)
}

#[cfg(test)]
mod tests {
    use prost_types::SourceCodeInfo;
    use prost_types::source_code_info::Location;

    use super::*;

    fn check(comment: &str, expected: &[&str]) {
        assert_eq!(to_rustdoc(comment), expected, "{comment:?}");
    }

    #[test]
    fn text_stays_text() {
        check("", &[]);
        check(" \n\t\n", &[]);
        check(" One.\n Two.\n", &["One.", "Two."]);
        check(
            "No space.\n\n\n  More space.\n",
            &["No space.", "", "  More space."],
        );
        check("* Of two stars. ", &["Of two stars."]);
        check(
            "/ Of three slashes.\n/ Again.",
            &["Of three slashes.", "Again."],
        );
        check("\tA tab.\n\t\tTwo.", &["A tab.", "   Two."]);
        check(" a\r\n b\u{202e}c\u{7}", &["a", "bc"]);
        check(
            " *emphasis*, **more**, `code`",
            &["*emphasis*, **more**, `code`"],
        );
    }

    #[test]
    fn lists_and_quotations_stay_what_they_are() {
        check(" - a\n   b\n   - c", &["- a", "  b", "  - c"]);
        check(" 1. a\n 22) b\n > c", &["1. a", "22) b", "> c"]);
        check(" >= 5 and > 4", &["\\>= 5 and > 4"]);
        check(" 1234567890. not in a list", &["1234567890. not in a list"]);
    }

    #[test]
    fn code_is_marked_as_text_wherever_it_is() {
        let fenced = ["```text", "f();", "```"];
        check(" ```\n f();\n ```", &fenced);
        check(" ```rust,no_run\n f();\n ```", &fenced);
        check(" ~~~~\n f();\n ~~~~", &fenced);
        check(" - ```\n   f();\n   ```", &fenced);
        check(" > ~~~ rust\n f();\n > ~~~", &fenced);
        check(" ```\n f();", &fenced);
    }

    #[test]
    fn code_by_indentation_becomes_a_fenced_block() {
        let code = [
            "a", "", "```text", "f();", "  g();", "", "h();", "```", "", "b",
        ];
        check(" a\n\n     f();\n       g();\n\n     h();\n\n b", &code);
        // Within a paragraph, indentation means nothing.
        check(" a\n       b", &["a", "   b"]);
        // After these there is no paragraph to go on with.
        for line in ["# a", "---", "| a |", "- ", "<a>"] {
            let docs = to_rustdoc(&format!(" {line}\n     f();"));
            assert_eq!(docs[1..], ["```text", "f();", "```"], "{line}");
        }
        // More than one space after a mark would start a block within the item.
        check(" a\n -      b", &["a", "- b"]);
        check(" a\n >      b", &["a", "> b"]);
    }

    #[test]
    fn a_fence_is_longer_than_any_in_its_block() {
        check(
            " ~~~\n ````\n f();\n ~~~",
            &["`````text", "````", "f();", "`````"],
        );
    }

    #[test]
    fn what_looks_like_a_link_or_a_tag_is_escaped() {
        check(" Vec<u8> and <b>", &["Vec\\<u8> and \\<b>"]);
        check(
            " [Foo], [`Foo`], a[0]",
            &["\\[Foo\\], \\[`Foo`\\], a\\[0\\]"],
        );
        check(" [text][pkg.Foo]", &["\\[text\\]\\[pkg.Foo\\]"]);
        check(" [text](pkg.html)", &["\\[text\\](pkg.html)"]);
        check(" [a]: b", &["\\[a\\]: b"]);
        check(" ![an image](https://a.b)", &["\\![an image](https://a.b)"]);
        check(
            " \\[escaped\\] and C:\\dir",
            &["\\[escaped\\] and C:\\\\dir"],
        );
    }

    #[test]
    fn what_is_code_or_a_link_already_is_not_escaped() {
        check(" `a[0] <b>` ``a ` [b]``", &["`a[0] <b>` ``a ` [b]``"]);
        check(
            " a ` alone, [b] `` alone",
            &["a \\` alone, \\[b\\] \\`\\` alone"],
        );
        check(" [text](https://a.b/c)", &["[text](https://a.b/c)"]);
        check(" <https://a.b/c>", &["<https://a.b/c>"]);
    }

    #[test]
    fn urls_are_marked_without_the_punctuation_around_them() {
        let cases = [
            ("https://a.b", "<https://a.b>"),
            ("(see http://a.b/c?d=e#f).", "(see <http://a.b/c?d=e#f>)."),
            ("https://a.b/c_(d), and", "<https://a.b/c_(d)>, and"),
            ("\"https://a.b\"", "\"<https://a.b>\""),
            ("http:// and https://.", "http:// and https://."),
            ("| https://a.b|c |", "| <https://a.b>|c |"),
        ];
        for (text, expected) in cases {
            check(&format!(" {text}"), &[expected]);
        }
    }

    #[test]
    fn comments_return_to_where_their_markers_are_printed() {
        let location = |leading: Option<&str>, trailing: Option<&str>| Location {
            leading_comments: leading.map(str::to_owned),
            trailing_comments: trailing.map(str::to_owned),
            leading_detached_comments: vec![" Detached.".to_owned()],
            ..Location::default()
        };
        let mut file = FileDescriptorProto {
            source_code_info: Some(SourceCodeInfo {
                location: vec![
                    location(Some(" Before.\n\n More."), Some(" Behind.")),
                    location(None, Some(" Only behind.")),
                    location(Some(" "), None),
                ],
            }),
            ..FileDescriptorProto::default()
        };
        let mut docs = Docs::default();
        docs.take(&mut file);
        let locations = file.source_code_info.expect("it is there still").location;
        assert!(locations.iter().all(|it| it.trailing_comments.is_none()));
        assert!(
            locations
                .iter()
                .all(|it| it.leading_detached_comments.is_empty())
        );
        let mut text = String::new();
        for location in &locations {
            if let Some(comment) = &location.leading_comments {
                text.push_str(&format!("    ///{comment}\n"));
            }
            text.push_str("    item,\n");
        }
        assert_eq!(
            docs.expand(&text),
            "    /// Before.\n    ///\n    /// More.\n    ///\n    /// Behind.\n    item,\n    \
             /// Only behind.\n    item,\n    item,\n"
        );
    }
}
