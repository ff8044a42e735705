//! Rules for examples.

use std::fs;
use std::path::Path;

/// Words that examples must not contain, because they distract beginners.
const MACHINERY: [&str; 5] = ["Pin", "Box", "dyn", "async_trait", "unwrap"];

/// An example that contains some of them, because its subject does.
const WITH_MACHINERY: &str = "custom_policy";

/// The maximum number of code lines, without blank lines and comments.
const MAX_CODE_LINES: usize = 80;

/// Examples with a different limit.
const CODE_LINES: [(&str, usize); 6] = [
    ("custom_policy", 100),
    ("custom_resolver", 100),
    ("helloworld", 35),
    ("interceptor", 85),
    ("observability", 105),
    ("route_guide", 115),
];

#[test]
fn no_example_needs_pins_boxes_or_trait_objects() {
    for (name, text) in examples() {
        if name == WITH_MACHINERY {
            continue;
        }
        for (number, line) in (1..).zip(text.lines()) {
            let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
            let found = words.find(|word| MACHINERY.contains(word));
            assert_eq!(found, None, "{name}.rs:{number}: {line}");
        }
    }
}

#[test]
fn examples_are_short() {
    for (name, text) in examples() {
        let own = CODE_LINES.iter().find(|(it, _)| *it == name);
        let max = own.map_or(MAX_CODE_LINES, |(_, max)| *max);
        let lines = text.lines().filter(|line| is_code(line)).count();
        assert!(lines <= max, "{name} has {lines} code lines of {max}");
    }
}

#[test]
fn an_example_begins_with_its_subject_and_the_command_that_runs_it() {
    for (name, text) in examples() {
        let docs = text.lines().take_while(|line| line.starts_with("//!"));
        let docs: Vec<&str> = docs.collect();
        assert!((2..=5).contains(&docs.len()), "{name}: {docs:?}");
        let command = format!("//! Run it with `cargo run --example {name}`.");
        assert_eq!(docs.last(), Some(&command.as_str()), "{name}");
    }
}

#[test]
fn every_example_is_built_and_tested() {
    let (manifest, tests) = (read("Cargo.toml"), read("tests/output.rs"));
    for (name, _) in examples() {
        let built = format!("name = \"{name}\"\npath = \"{name}.rs\"");
        assert!(manifest.contains(&built), "Cargo.toml lacks {name}");
        let tested = format!("check(\"{name}\")");
        assert!(tests.contains(&tested), "tests/output.rs lacks {name}");
    }
}

/// Returns the names of the examples and their texts.
fn examples() -> Vec<(String, String)> {
    let files = fs::read_dir(env!("CARGO_MANIFEST_DIR")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let names = names.filter_map(|name| name.strip_suffix(".rs").map(str::to_owned));
    let names = names.filter(|name| name != "build");
    let examples = names.map(|name| {
        let text = read(&format!("{name}.rs"));
        (name, text)
    });
    let examples: Vec<_> = examples.collect();
    assert!(examples.len() >= 12, "the examples are somewhere else");
    examples
}

fn read(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
}

fn is_code(line: &str) -> bool {
    let line = line.trim();
    !line.is_empty() && !line.starts_with("//")
}
