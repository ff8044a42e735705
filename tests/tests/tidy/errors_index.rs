//! The page `docs/errors-index.md`: what it says must be what a user sees.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A mistake, and what was said about it.
pub(crate) struct Mistake {
    /// As in the heading of its entry, which begins with the number.
    pub(crate) title: &'static str,
    /// The code and the message of each form that it comes in.
    pub(crate) says: Vec<String>,
}

pub(crate) fn print(mistakes: &[Mistake]) {
    for (number, mistake) in (1..).zip(mistakes) {
        for says in &mistake.says {
            println!("{number:>2} | {} | {}", mistake.title, says.trim_end());
        }
    }
}

/// Every entry of the page is a mistake that was made, with what was said; in this order.
/// `TRUNKLINE_BLESS=1` writes what was said into the page.
pub(crate) fn hold(mistakes: &[Mistake]) {
    let page = fs::read_to_string(path()).expect("the page");
    let mut entries = page.split("\n## ");
    let mut written = entries.next().unwrap_or_default().to_owned();
    let mut titles = Vec::new();
    for (at, entry) in entries.enumerate() {
        let (title, _) = entry.split_once('\n').expect("a heading and its text");
        titles.push(title);
        let says = mistakes.get(at).map(|it| it.says.join("\n"));
        let says = says.unwrap_or_default();
        let (before, rest) = entry.split_once("```console\n").expect(title);
        let (_, after) = rest.split_once("\n```\n").expect(title);
        written += &format!("\n## {before}```console\n{says}\n```\n{after}");
    }
    let made: Vec<String> = (1..)
        .zip(mistakes)
        .map(|(number, it): (u32, _)| format!("{number}. {}", it.title))
        .collect();
    assert_eq!(titles, made, "the entries of the page");
    if std::env::var_os("TRUNKLINE_BLESS").is_some() {
        fs::write(path(), &written).expect("the page");
    }
    let page = fs::read_to_string(path()).expect("the page");
    for (shown, said) in page.lines().zip(written.lines()) {
        assert_eq!(shown, said, "TRUNKLINE_BLESS=1 writes the page anew");
    }
    assert_eq!(page, written);
    let wanted: BTreeSet<_> = titles.iter().map(|it| anchor(it)).collect();
    let linked = page
        .split("](#")
        .skip(1)
        .filter_map(|it| it.split_once(')'));
    let linked: BTreeSet<_> = linked.map(|(anchor, _)| anchor.to_owned()).collect();
    assert_eq!(linked, wanted, "the links to the entries");
}

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/errors-index.md")
}

/// What renderers of Markdown make of a heading.
fn anchor(title: &str) -> String {
    let kept = title
        .chars()
        .filter(|it| it.is_alphanumeric() || matches!(it, ' ' | '-' | '_'));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}
