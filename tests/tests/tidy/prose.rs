//! Prose that a native reader does not notice: words and turns that give away a translation are counted, by area.
//!
//! What is counted: in Markdown the text outside of code blocks, quotes and released parts of the changelog; doc comments
//! of the published crates, those of public items apart from the rest; the string literals of these crates that have a
//! space; comments of the examples. Inline code and addresses are left out.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use crate::house::{PUBLISHED, root, rust_files, without_tests};

/// How many findings each area may have. These numbers go down only: who mends findings lowers them.
const CEILINGS: [(Area, usize); 5] = [
    (Area::Guides, 0),
    (Area::PublicDocs, 0),
    (Area::Messages, 0),
    (Area::PrivateDocs, 105),
    (Area::Examples, 0),
];

/// No doc comment and no paragraph begins with one of these; a heading may.
const BEGINNINGS: [&[&str]; 7] = [
    &["What"],
    &["How"],
    &["Whether"],
    &["Who"],
    &["By"],
    &["From"],
    &["After", "how"],
];
/// Nothing says this; `*` is any word. "there is no" and "no longer" are good English, and not counted.
const TURNS: [&[&str]; 15] = [
    &["gives"],
    &["is", "no", "*"],
    &["are", "no", "*"],
    &["was", "no", "*"],
    &["who", "has"],
    &["who", "is"],
    &["who", "wants"],
    &["who", "calls"],
    &["who", "asks"],
    &["who", "reads"],
    &["in", "the", "place", "of"],
    &["anew"],
    &["sees", "to", "it"],
    &["as", "far", "as"],
    &["beside"],
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Area {
    /// README, docs, and the other pages of Markdown.
    Guides,
    PublicDocs,
    Messages,
    PrivateDocs,
    Examples,
}

/// Lines that belong together, each with its number.
type Paragraph<'a> = Vec<(usize, &'a str)>;

#[test]
fn prose_says_nothing_that_a_native_reader_would_not() {
    let mut findings: BTreeMap<Area, Vec<String>> = BTreeMap::new();
    let mut look = |area: Area, file: &str, paragraph: &Paragraph<'_>| {
        let found = found(paragraph, area != Area::Messages).into_iter();
        let found = found.map(|(line, what)| format!("{file}:{line}: {what}"));
        findings.entry(area).or_default().extend(found);
    };
    for file in pages() {
        let text = fs::read_to_string(root().join(&file)).expect("a page");
        for paragraph in markdown(&file, &text) {
            look(Area::Guides, &file, &paragraph);
        }
    }
    for name in PUBLISHED {
        for (file, text) in sources(&format!("crates/{name}/src")) {
            let text = without_tests(&text);
            for (is_public, paragraph) in doc_comments(text) {
                let area = match is_public {
                    true => Area::PublicDocs,
                    false => Area::PrivateDocs,
                };
                look(area, &file, &paragraph);
            }
            for literal in literals(text) {
                look(Area::Messages, &file, &vec![literal]);
            }
        }
    }
    for (file, text) in sources("examples") {
        for paragraph in comments(&text) {
            look(Area::Examples, &file, &paragraph);
        }
    }
    let mut too_many = Vec::new();
    for (area, ceiling) in CEILINGS {
        let found = findings.remove(&area).unwrap_or_default();
        println!("{area:?}: {} of {ceiling}", found.len());
        for finding in &found {
            println!("    {finding}");
        }
        if found.len() > ceiling {
            too_many.push(format!(
                "{area:?}: {} findings, and not {ceiling}",
                found.len()
            ));
        }
    }
    assert!(too_many.is_empty(), "{too_many:?}; they are printed above");
}

/// The Markdown of the repository, outside of what tests compare or others have written.
fn pages() -> Vec<String> {
    let listed = Command::new("git")
        .args(["ls-files", "-z", "*.md"])
        .current_dir(root())
        .output()
        .expect("git runs");
    let listed = String::from_utf8(listed.stdout).expect("names in UTF-8");
    let names = listed.split_terminator('\0').map(str::to_owned);
    // A template is made of questions; what was removed may still be in the index.
    let is_page = |name: &String| !name.starts_with(".github/") && root().join(name).exists();
    names.filter(is_page).collect()
}

fn sources(below: &str) -> Vec<(String, String)> {
    let files = rust_files(&root().join(below)).into_iter().map(|path| {
        let text = fs::read_to_string(&path).expect("a source file");
        let file = path.strip_prefix(root()).expect("it is below");
        (file.display().to_string(), text)
    });
    files.collect()
}

/// The paragraphs, list items and rows of tables of a page.
fn markdown<'a>(file: &str, text: &'a str) -> Vec<Paragraph<'a>> {
    let mut found: Vec<Paragraph<'_>> = Vec::new();
    let mut fence: Option<&str> = None;
    let mut is_open = false;
    let mut is_released = false;
    for (number, line) in (1..).zip(text.lines()) {
        let trimmed = line.trim_start();
        let marker = ["```", "~~~"]
            .into_iter()
            .find(|it| trimmed.starts_with(it));
        match (fence, marker) {
            (None, Some(marker)) => fence = Some(marker),
            (Some(open), Some(marker)) if open == marker => fence = None,
            _ if fence.is_some() => {}
            _ => {
                if file.ends_with("CHANGELOG.md") && line.starts_with("## ") {
                    is_released = !line.contains("Unreleased");
                }
                let is_empty = trimmed.is_empty() || trimmed.starts_with('>') || is_released;
                let item = trimmed
                    .trim_start_matches(|it: char| it.is_ascii_digit() || "-*+".contains(it))
                    .trim_start_matches(['.', ' ']);
                let is_item = item.len() < trimmed.len() && trimmed.contains(' ');
                let item = item.trim_start_matches(['|', ' ']);
                let is_alone = trimmed.starts_with(['#', '|']);
                if is_empty {
                    is_open = false;
                } else if is_open && !is_item && !is_alone {
                    found
                        .last_mut()
                        .expect("it is open")
                        .push((number, trimmed));
                } else {
                    found.push(vec![(
                        number,
                        if is_item || is_alone { item } else { trimmed },
                    )]);
                    is_open = !is_alone;
                }
                continue;
            }
        }
        is_open = false;
    }
    found
}

/// The paragraphs of doc comments, with whether users see them.
fn doc_comments(text: &str) -> Vec<(bool, Paragraph<'_>)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    let mut at = 0;
    // Whether what is indented belongs to something that is public.
    let mut is_inside_public = false;
    while at < lines.len() {
        let begun = at;
        while at < lines.len() && doc(lines[at]).is_some() {
            at += 1;
        }
        let block = &lines[begun..at];
        let item = lines[at..]
            .iter()
            .find(|line| !line.trim_start().starts_with("#["));
        let item = item.copied().unwrap_or_default();
        if !block.is_empty() {
            let is_public = match block[0].trim_start().starts_with("//!") {
                true => begun == 0,
                false => is_public(item, is_inside_public),
            };
            let block = (begun + 1..)
                .zip(block)
                .map(|(at, line)| (at, doc(line).unwrap_or_default()));
            let paragraphs = paragraphs(block).into_iter();
            found.extend(paragraphs.map(|paragraph| (is_public, paragraph)));
        } else {
            let line = lines[at];
            let kinds = ["enum ", "trait ", "struct "];
            if kinds.iter().any(|kind| line.contains(kind)) && !line.starts_with(' ') {
                is_inside_public = line.starts_with("pub ");
            } else if line.starts_with("impl") {
                is_inside_public = false;
            }
            at += 1;
        }
    }
    found
}

/// The text of a doc comment's line.
fn doc(line: &str) -> Option<&str> {
    let line = line.trim_start();
    line.strip_prefix("///")
        .or_else(|| line.strip_prefix("//!"))
}

/// Whether a documented item is seen by users: it says so, or it is a variant or a method of what is.
fn is_public(item: &str, is_inside_public: bool) -> bool {
    let word = item.trim_start();
    if word.starts_with("pub ") || word.starts_with("macro_rules!") {
        return true;
    }
    let is_field = word
        .split_once(':')
        .is_some_and(|(name, _)| !name.contains(['(', ' ', '{']));
    item.starts_with(' ') && is_inside_public && !word.starts_with("pub(") && !is_field
}

/// What stands between empty lines and blocks of code.
fn paragraphs<'a>(lines: impl Iterator<Item = (usize, &'a str)>) -> Vec<Paragraph<'a>> {
    let mut found: Vec<Paragraph<'_>> = vec![Vec::new()];
    let mut is_code = false;
    for (number, line) in lines {
        let line = line.trim();
        let is_fence = line.starts_with("```");
        is_code ^= is_fence;
        let is_item = line.starts_with(['-', '*', '|', '#']);
        if line.is_empty() || is_fence || is_code || is_item {
            found.push(Vec::new());
        }
        if !line.is_empty() && !is_fence && !is_code {
            let line = line.trim_start_matches(['-', '*', '#']).trim_start();
            found.last_mut().expect("there is one").push((number, line));
        }
    }
    found.retain(|paragraph| !paragraph.is_empty());
    found
}

/// The paragraphs of comments of all kinds.
fn comments(text: &str) -> Vec<Paragraph<'_>> {
    let lines = (1..).zip(text.lines()).map(|(number, line)| {
        let line = line.trim_start();
        let comment = ["///", "//!", "//"]
            .iter()
            .find_map(|it| line.strip_prefix(it));
        (number, comment.unwrap_or_default())
    });
    paragraphs(lines)
}

/// The string literals of more than one word.
fn literals(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim_start().starts_with("//") || line.trim_start().starts_with("#[") {
            continue;
        }
        let parts = line.replace("\\\"", "\u{0}\u{0}");
        let mut at = 0;
        for (count, part) in parts.split('"').enumerate() {
            if count % 2 == 1 && part.contains(' ') {
                found.push((number, &line[at..at + part.len()]));
            }
            at += part.len() + 1;
        }
    }
    found
}

/// What is found in a paragraph: the number of the line, and its text.
fn found(paragraph: &Paragraph<'_>, has_beginning: bool) -> Vec<(usize, String)> {
    // Each word with its line; a word of no letters separates what stands before it from what comes behind.
    let mut words: Vec<(usize, &str)> = Vec::new();
    for (at, (_, line)) in paragraph.iter().enumerate() {
        for (count, part) in line.split('`').enumerate() {
            if count % 2 == 1 {
                words.push((at, ""));
                continue;
            }
            for word in part.split_whitespace().filter(|word| !word.contains("://")) {
                let is_letter = |it: char| it.is_alphanumeric() || it == '_' || it == '\'';
                let mut rest = word;
                while let Some(start) = rest.find(is_letter) {
                    if start > 0 {
                        words.push((at, ""));
                    }
                    let end = rest[start..]
                        .find(|it| !is_letter(it))
                        .map_or(rest.len(), |it| start + it);
                    words.push((at, &rest[start..end]));
                    rest = &rest[end..];
                }
                if !rest.is_empty() {
                    words.push((at, ""));
                }
            }
        }
    }
    let is_there = |turn: &[&str], at: usize| {
        let here = words.get(at..at + turn.len());
        here.is_some_and(|here| {
            here.iter()
                .zip(turn)
                .all(|((_, word), wanted)| match *wanted {
                    "*" => !word.is_empty() && *word != "longer",
                    wanted => word.eq_ignore_ascii_case(wanted),
                })
        })
    };
    let mut found = Vec::new();
    let mut report = |at: usize, turn: &[&str]| {
        let (number, line) = paragraph[words[at].0];
        found.push((number, format!("{}: {line}", turn.join(" "))));
    };
    let first = words.iter().position(|(_, word)| !word.is_empty());
    if let Some(first) = first.filter(|first| has_beginning && *first == 0) {
        let begins = |turn: &&[&str]| is_there(turn, first) && words[first].1 == turn[0];
        BEGINNINGS
            .iter()
            .copied()
            .filter(begins)
            .for_each(|turn| report(first, turn));
    }
    for at in 0..words.len() {
        let is_behind_there = at > 0 && words[at - 1].1.eq_ignore_ascii_case("there");
        let turns = TURNS.iter().copied().filter(|turn| is_there(turn, at));
        let turns = turns.filter(|turn| !(is_behind_there && turn.contains(&"*")));
        turns.for_each(|turn| report(at, turn));
    }
    found
}

#[test]
fn prose_is_told_from_code_and_quotes_and_over_the_ends_of_lines() {
    let page = "\
# What it is
It `gives` nothing (http://gives.example), is no longer here, and stands in the
place of another.

> gives
```text
anew
```
- Whether it is: there is no
  doubt; that is no
  doubt. Besides, who, is
1. as far as \"anew\".
";
    let all = markdown("README.md", page);
    let lines: Vec<usize> = all
        .iter()
        .flat_map(|it| found(it, true))
        .map(|it| it.0)
        .collect();
    assert_eq!(lines, [2, 9, 10, 12, 12]);

    let text = "\
//! By a module.

/// Gives back.
/// ```
/// beside();
/// ```
pub(crate) fn it() -> &'static str {
    // anew
    \"a \\\"good\\\" text beside it\"
}

/// What it is.
#[derive(Debug)]
pub enum It {
    /// By it.
    One,
}
";
    let docs = doc_comments(text);
    let lines = |wanted: bool| -> Vec<usize> {
        let docs = docs.iter().filter(|it| it.0 == wanted);
        docs.flat_map(|it| found(&it.1, true))
            .map(|it| it.0)
            .collect()
    };
    assert_eq!((lines(true), lines(false)), (vec![1, 12, 15], vec![3]));
    let [literal] = literals(text)[..] else {
        panic!("{:?}", literals(text));
    };
    assert_eq!(literal.0, 9);
    assert_eq!(found(&vec![literal], false).len(), 1);
}
