//! One name stands for one type.

use std::collections::BTreeMap;
use std::fs;

use crate::house::{root, rust_files, without_tests};

/// How many types share their name with one before them, over the four crates of the runtime. This number goes down only.
const CEILING: usize = 18;

#[test]
fn a_type_shares_its_name_with_no_other() {
    let mut named: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for name in ["codec", "transport", "channel", "trunkline"] {
        let source = root().join("crates").join(name).join("src");
        for path in rust_files(&source) {
            let text = fs::read_to_string(&path).expect("a source file");
            let file = path.strip_prefix(&source).expect("it is below");
            for defined in without_tests(&text).lines().filter_map(defined) {
                let places = named.entry(defined.to_owned()).or_default();
                places.push(format!("{name}/{}", file.display()));
            }
        }
    }
    let types: usize = named.values().map(Vec::len).sum();
    println!("{} names stand for {types} types", named.len());
    for (name, places) in named.iter().filter(|(_, places)| places.len() > 1) {
        println!("    {name}: {}", places.join(", "));
    }
    let shared = types - named.len();
    assert!(
        shared <= CEILING,
        "{shared} types share a name, printed above"
    );
}

/// The type that a line defines, inside of macros too.
fn defined(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace();
    let mut word = words.next()?;
    if word.starts_with("pub") {
        word = words.next()?;
    }
    if !["struct", "enum", "trait", "union"].contains(&word) {
        return None;
    }
    let name = words.next()?;
    let end = name.find(|it: char| !it.is_alphanumeric() && it != '_');
    Some(&name[..end.unwrap_or(name.len())]).filter(|name| !name.is_empty())
}
