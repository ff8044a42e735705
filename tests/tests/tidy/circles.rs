//! No two modules of a crate need each other, directly or through others: whoever reads one reads below it, and never
//! comes back to it.
//!
//! An edge leads from a file to each file of its crate whose items it names, by `use` or in its code. A `pub use` is a
//! door, and no edge: a name that comes through it counts for the file that defines the name. Unit tests count for nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::house::{PUBLISHED, root, rust_files, without_tests};

/// The files that are in a circle today. A file may leave this list, and none may come in.
const IN_CIRCLES: &[&str] = &[
    "transport/body.rs",
    "transport/client_send.rs",
    "transport/connection_shared.rs",
    "transport/incoming.rs",
    "transport/send.rs",
    "trunkline/observe/call.rs",
    "trunkline/observe/event.rs",
    "trunkline/observe/mod.rs",
    "trunkline/observe/recorder.rs",
    "trunkline/observe/span.rs",
    "build/descriptors.rs",
    "build/enums.rs",
    "build/features.rs",
    "build/generate.rs",
    "build/link.rs",
    "build/load.rs",
    "build/modules.rs",
    "build/names.rs",
    "build/scan.rs",
    "build/source.rs",
    "build/symbols.rs",
];

/// How many doors a name may pass until it is at home.
const MAX_DOORS: usize = 16;

type Names = Vec<String>;

/// A module: what its file says.
#[derive(Debug, Default)]
struct Module {
    file: String,
    /// What its code names, from the root of the crate on; what `pub use` names is left out.
    named: BTreeSet<Names>,
    /// What `use` brings in, by the name it has here.
    imported: BTreeMap<String, Names>,
}

type Crate = BTreeMap<Names, Module>;

#[test]
fn no_file_needs_one_that_needs_it() {
    let listed: BTreeSet<&str> = IN_CIRCLES.iter().copied().collect();
    let mut in_circles = BTreeSet::new();
    for name in PUBLISHED {
        let modules = modules(files(&root().join("crates").join(name).join("src")));
        let edges = edges(&modules);
        for circle in circles(&edges) {
            println!("{name}: a circle of {}", circle.len());
            for file in &circle {
                let others = edges[file].intersection(&circle).copied();
                println!("    {file} needs {}", others.collect::<Vec<_>>().join(", "));
                in_circles.insert(format!("{name}/{file}"));
            }
        }
    }
    let in_circles: BTreeSet<&str> = in_circles.iter().map(String::as_str).collect();
    let new: Vec<_> = in_circles.difference(&listed).collect();
    let gone: Vec<_> = listed.difference(&in_circles).collect();
    assert!(
        new.is_empty(),
        "in a circle, which is printed above: {new:#?}"
    );
    assert!(
        gone.is_empty(),
        "in no circle any more, to be taken off the list: {gone:#?}"
    );
}

#[test]
fn a_name_that_comes_through_a_door_counts_for_the_file_that_defines_it() {
    let files = [
        (
            "lib.rs",
            "mod a;\nmod b;\nmod c;\npub use c::inner::{Deep as Shallow, Other};",
        ),
        (
            "a.rs",
            "use crate::{b::{self, One}, Shallow};\nfn f() { std::mem::drop(\"crate::c\") }",
        ),
        (
            "b.rs",
            "// crate::c\nfn f(it: super::a::A) { println!(\"\\\"\") }\n#[cfg(test)]\nmod tests { use crate::c; }",
        ),
        (
            "c/mod.rs",
            "pub(crate) mod inner;\npub use inner::Deep;\nfn f() -> Deep {}",
        ),
        (
            "c/inner.rs",
            "use super::super::a;\npub struct Deep; impl Deep { fn c() { self::g() } }",
        ),
    ];
    let files = files.map(|(file, text)| (file.to_owned(), text.to_owned()));
    let modules = modules(files.into());
    let edges = edges(&modules);
    let of = |file| edges[file].iter().copied().collect::<Vec<_>>();
    assert_eq!(of("lib.rs"), [""; 0]);
    assert_eq!(of("a.rs"), ["b.rs", "c/inner.rs"]);
    assert_eq!(of("b.rs"), ["a.rs"]);
    assert_eq!(of("c/mod.rs"), ["c/inner.rs"]);
    assert_eq!(of("c/inner.rs"), ["a.rs"]);
    assert_eq!(
        circles(&edges),
        [BTreeSet::from(["a.rs", "b.rs", "c/inner.rs"])]
    );
}

/// The files that each file needs.
fn edges(modules: &Crate) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut edges = BTreeMap::new();
    for module in modules.values() {
        let homes = module.named.iter().filter_map(|path| home(modules, path));
        let others = homes.filter(|it| *it != module.file);
        edges.insert(module.file.as_str(), others.collect());
    }
    edges
}

/// The file that defines what a path leads to.
fn home<'a>(modules: &'a Crate, path: &[String]) -> Option<&'a str> {
    let mut path = path.to_vec();
    for _ in 0..MAX_DOORS {
        let depth = (0..=path.len())
            .rev()
            .find(|depth| modules.contains_key(&path[..*depth]))?;
        let module = &modules[&path[..depth]];
        let next = path.get(depth).and_then(|name| module.imported.get(name));
        match next {
            Some(behind) if *behind != path => {
                path = behind.iter().chain(&path[depth + 1..]).cloned().collect();
            }
            _ => return Some(&module.file),
        }
    }
    None
}

/// Each largest set of files that all lead to one another.
fn circles<'a>(edges: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> Vec<BTreeSet<&'a str>> {
    let reached: BTreeMap<&str, BTreeSet<&str>> = edges
        .keys()
        .map(|from| (*from, reached(edges, from)))
        .collect();
    let mut found: Vec<BTreeSet<&str>> = Vec::new();
    for (from, below) in &reached {
        if below.contains(from) && !found.iter().any(|circle| circle.contains(from)) {
            let back = below.iter().filter(|it| reached[*it].contains(from));
            found.push(back.copied().collect());
        }
    }
    found
}

fn reached<'a>(edges: &BTreeMap<&'a str, BTreeSet<&'a str>>, from: &str) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    let mut left: Vec<&str> = edges[from].iter().copied().collect();
    while let Some(next) = left.pop() {
        if found.insert(next) {
            left.extend(edges[next].iter().copied());
        }
    }
    found
}

/// The text of each file, by its path below `source`.
fn files(source: &Path) -> Vec<(String, String)> {
    let files = rust_files(source).into_iter().map(|path| {
        let text = fs::read_to_string(&path).expect("a source file");
        let file = path.strip_prefix(source).expect("it is below");
        (file.to_str().expect("UTF-8").to_owned(), text)
    });
    files.collect()
}

fn modules(files: Vec<(String, String)>) -> Crate {
    let path = |file: &str| -> Names {
        match file.trim_end_matches(".rs").trim_end_matches("/mod") {
            "lib" => Vec::new(),
            path => path.split('/').map(str::to_owned).collect(),
        }
    };
    let paths: BTreeSet<Names> = files.iter().map(|(file, _)| path(file)).collect();
    let modules = files.into_iter().map(|(file, text)| {
        let path = path(&file);
        let module = module(&paths, &path, file, &text);
        (path, module)
    });
    modules.collect()
}

fn module(paths: &BTreeSet<Names>, path: &Names, file: String, text: &str) -> Module {
    let mut module = Module {
        file,
        ..Module::default()
    };
    let tokens = tokens(without_tests(text));
    let is_child = |name: &str| paths.contains(&[&path[..], &[name.to_owned()]].concat());
    let mut at = 0;
    let mut doors = BTreeMap::new();
    let mut used = BTreeSet::new();
    while at < tokens.len() {
        let end = match tokens[at].as_str() {
            "use" => {
                let is_door = at > 0 && (tokens[at - 1] == "pub" || tokens[at - 1] == ")");
                let end = (at..tokens.len())
                    .find(|end| tokens[*end] == ";")
                    .unwrap_or(tokens.len());
                for (name, names) in tree(&tokens[at + 1..end]) {
                    let Some(names) = absolute(path, &names, is_child) else {
                        continue;
                    };
                    module.imported.insert(name.clone(), names.clone());
                    if is_door {
                        doors.insert(name, names);
                    } else {
                        module.named.insert(names);
                    }
                }
                end
            }
            first
                if is_name(first)
                    && (at == 0 || !["::", ".", "$", "mod"].contains(&tokens[at - 1].as_str())) =>
            {
                used.insert(first.to_owned());
                let names = names(&tokens[at..]);
                let end = at + 2 * names.len() - 1;
                if names.len() > 1
                    && let Some(names) = absolute(path, &names, is_child)
                {
                    module.named.insert(names);
                }
                end
            }
            _ => at + 1,
        };
        at = end;
    }
    // What comes through a door and is used here as well.
    module.named.extend(
        doors
            .into_iter()
            .filter(|(name, _)| used.contains(name))
            .map(|it| it.1),
    );
    module
}

/// A path from the root of the crate on; `None` if it begins in another crate.
fn absolute(at: &[String], names: &[String], is_child: impl Fn(&str) -> bool) -> Option<Names> {
    let (first, rest) = names.split_first()?;
    let supers = names.iter().take_while(|name| *name == "super").count();
    match first.as_str() {
        "crate" => Some(rest.to_vec()),
        "self" => Some([at, rest].concat()),
        "super" => Some([&at[..at.len().checked_sub(supers)?], &names[supers..]].concat()),
        name if is_child(name) => Some([at, names].concat()),
        _ => None,
    }
}

/// `a::b::c` at the start of `tokens`.
fn names(tokens: &[String]) -> Names {
    let mut found = vec![tokens[0].clone()];
    while tokens.get(2 * found.len() - 1).is_some_and(|it| it == "::")
        && let Some(next) = tokens.get(2 * found.len()).filter(|it| is_name(it))
    {
        found.push(next.clone());
    }
    found
}

/// What a `use` brings in: each name, and its path.
fn tree(tokens: &[String]) -> Vec<(String, Names)> {
    let mut found = Vec::new();
    let mut prefixes: Vec<Names> = vec![Vec::new()];
    let mut path: Names = Vec::new();
    let mut alias = None;
    let mut at = 0;
    let mut close = |path: &mut Names, alias: &mut Option<String>, prefixes: &[Names]| {
        if !path.is_empty() {
            let mut names = prefixes.concat();
            names.append(path);
            let last = names.pop_if(|it| ["self", "*"].contains(&it.as_str()));
            let star = last.filter(|it| it == "*");
            let name = alias.take().or(star).or_else(|| names.last().cloned());
            found.push((name.unwrap_or_default(), names));
        }
    };
    while at < tokens.len() {
        match tokens[at].as_str() {
            "{" => prefixes.push(std::mem::take(&mut path)),
            "}" => {
                close(&mut path, &mut alias, &prefixes);
                prefixes.pop();
            }
            "," => close(&mut path, &mut alias, &prefixes),
            "as" => {
                alias = tokens.get(at + 1).cloned();
                at += 1;
            }
            "::" => {}
            name => path.push(name.to_owned()),
        }
        at += 1;
    }
    close(&mut path, &mut alias, &prefixes);
    found
}

fn is_name(token: &str) -> bool {
    token.starts_with(|it: char| it.is_alphabetic() || it == '_')
}

/// Names, `::`, and single characters of all else, without comments and what is in quotes.
fn tokens(text: &str) -> Names {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if first == '"' {
            quoted(rest)
        } else if rest.starts_with("'\"'") {
            3
        } else if rest.starts_with("'\\\"'") {
            4
        } else if rest.starts_with("::") {
            2
        } else if is_name(rest) {
            rest.find(|it: char| !it.is_alphanumeric() && it != '_')
                .unwrap_or(rest.len())
        } else {
            first.len_utf8()
        };
        let token = &rest[..length];
        if !token.starts_with("//") && !token.trim().is_empty() {
            found.push(token.to_owned());
        }
        rest = &rest[length..];
    }
    found
}

/// The length of a string with its quotes.
fn quoted(text: &str) -> usize {
    let mut is_escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}
