//! The tables "The way of a unary call" of `docs/ARCHITECTURE.md` are made from marks in the code: a comment
//!
//! ```text
//! // Way of a unary call, client 3: the whole call, within its deadline.
//! ```
//!
//! above a function is the third row of the client's table. With `TRUNKLINE_BLESS=1` in the environment the tables are
//! written into the page.

use std::collections::BTreeMap;
use std::fs;

use crate::house::{PUBLISHED, root, rust_files, without_tests};

const MARK: &str = "// Way of a unary call, ";
/// Steps that no file of ours has.
const ELSEWHERE: [(&str, usize, Step<&str>); 2] = [
    (
        "client",
        1,
        Step {
            function: "`GreeterClient::say_hello`",
            file: "generated",
            does: "names the method",
        },
    ),
    (
        "server",
        11,
        Step {
            function: "the handler",
            file: "user",
            does: "",
        },
    ),
];
/// The steps at which the walk comes back to a file that it has left. One may leave this list, and none may come in.
const COMES_BACK: [(&str, usize); 1] = [("server", 15)];

#[derive(Clone, Debug)]
struct Step<S> {
    function: S,
    file: S,
    does: S,
}

type Way = BTreeMap<usize, Step<String>>;

#[test]
fn the_way_of_a_call_is_in_the_page_as_it_is_in_the_code() {
    let ways = ways();
    let path = root().join("docs/ARCHITECTURE.md");
    let page = fs::read_to_string(&path).expect("the page");
    let mut written = page.clone();
    for (end, way) in &ways {
        let (first, rest) = end.split_at(1);
        let heading = format!("\n{}{rest}:\n\n", first.to_uppercase());
        let start = written.find(&heading).expect(end) + heading.len();
        let length = written[start..]
            .find("\n\n")
            .expect("a paragraph behind it")
            + 1;
        written.replace_range(start..start + length, &table(way));
    }
    if std::env::var_os("TRUNKLINE_BLESS").is_some() {
        fs::write(&path, &written).expect("the page");
        return;
    }
    for (shown, wanted) in page.lines().zip(written.lines()) {
        assert_eq!(shown, wanted, "TRUNKLINE_BLESS=1 writes the tables");
    }
    assert_eq!(page, written, "TRUNKLINE_BLESS=1 writes the tables");
}

#[test]
fn the_way_of_a_call_does_not_come_back_to_a_file_that_it_has_left() {
    let mut returns = Vec::new();
    let ways = ways();
    for (end, way) in &ways {
        let mut left: Vec<&str> = Vec::new();
        let mut before = "";
        for (number, step) in way {
            if step.file != before {
                if left.contains(&step.file.as_str()) {
                    returns.push((end.as_str(), *number));
                }
                left.push(before);
                before = &step.file;
            }
        }
    }
    assert_eq!(returns, COMES_BACK, "the steps that come back");
}

fn table(way: &Way) -> String {
    let mut table = "| function | in | does |\n| --- | --- | --- |\n".to_owned();
    for step in way.values() {
        table += format!("| {} | {} | {}", step.function, step.file, step.does).trim_end();
        table += " |\n";
    }
    table
}

/// The steps of the client and of the server, which are numbered from 1 on.
fn ways() -> BTreeMap<String, Way> {
    let mut ways: BTreeMap<String, Way> = BTreeMap::new();
    for (end, number, step) in ELSEWHERE {
        let step = Step {
            function: step.function.to_owned(),
            file: step.file.to_owned(),
            does: step.does.to_owned(),
        };
        ways.entry(end.to_owned()).or_default().insert(number, step);
    }
    for name in PUBLISHED {
        let source = root().join("crates").join(name).join("src");
        for path in rust_files(&source) {
            let text = fs::read_to_string(&path).expect("a source file");
            let file = path.strip_prefix(&source).expect("it is below");
            let file = format!("{name}/{}", file.display());
            for (end, number, step) in marks(&file, without_tests(&text)) {
                let before = ways.entry(end.clone()).or_default().insert(number, step);
                assert!(before.is_none(), "{file}: {end} {number} is there twice");
            }
        }
    }
    for (end, way) in &ways {
        let numbers: Vec<usize> = way.keys().copied().collect();
        let wanted: Vec<usize> = (1..=way.len()).collect();
        assert_eq!(numbers, wanted, "the steps of the {end}");
    }
    assert_eq!(ways.keys().collect::<Vec<_>>(), ["client", "server"]);
    ways
}

/// The marks of a file, each with the function that stands below it.
fn marks(file: &str, text: &str) -> Vec<(String, usize, Step<String>)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some(mark) = line.trim_start().strip_prefix(MARK) else {
            continue;
        };
        let (step, does) = mark.split_once(": ").expect("a step and what it does");
        let (end, number) = step.split_once(' ').expect("an end and a number");
        let more = lines[at + 1..].iter().map_while(|line| {
            let line = line.trim_start();
            line.strip_prefix("// ").filter(|_| !line.starts_with(MARK))
        });
        let does: Vec<&str> = [does].into_iter().chain(more).collect();
        let does = does.join(" ").trim_end_matches('.').to_owned();
        let (below, name) = lines[at + 1..]
            .iter()
            .find_map(|line| line.split_once("fn ").map(|(_, name)| (*line, name)))
            .expect("a function below the mark");
        let name = name.split(['(', '<']).next().unwrap_or_default();
        let owner = match below.starts_with(' ') {
            true => owner(&lines[..at]),
            false => file
                .rsplit('/')
                .next()
                .unwrap_or(file)
                .trim_end_matches(".rs")
                .to_owned(),
        };
        let step = Step {
            function: format!("`{owner}::{name}`"),
            file: file.to_owned(),
            does,
        };
        found.push((end.to_owned(), number.parse().expect("a number"), step));
    }
    found
}

/// The type or the trait of the `impl` or `trait` around the line below.
fn owner(above: &[&str]) -> String {
    let line = above
        .iter()
        .rfind(|line| {
            line.starts_with("impl") || line.contains("trait ") && line.starts_with("pub")
        })
        .expect("a method has an owner");
    let behind = line
        .rsplit_once(" for ")
        .or_else(|| line.rsplit_once("trait "));
    let name = behind.map_or_else(
        || without_parameters(line.trim_start_matches("impl")),
        |it| it.1,
    );
    let end = name.find([' ', '<', ':', '{']).unwrap_or(name.len());
    name[..end].to_owned()
}

/// ` Name` behind `<T: Into<String>>`.
fn without_parameters(text: &str) -> &str {
    let mut depth = 0;
    let end = text.find(|it: char| {
        depth += i32::from(it == '<') - i32::from(it == '>');
        depth == 0
    });
    let text = text
        .strip_prefix('<')
        .map_or(text, |_| &text[end.map_or(0, |it| it + 1)..]);
    text.trim_start()
}

#[test]
fn a_mark_names_the_function_below_it_by_its_owner() {
    let text = "\
// Way of a unary call, client 2: first,
// then second.
/// Documentation.
#[must_use]
pub async fn alone<T>(
impl<T: Into<String>> Future for Unary<T> {
    // Way of a unary call, server 1: third.
    fn poll(
impl<T> Client<T> {
    // Way of a unary call, server 2: fourth.
    pub(crate) fn unary(
pub trait Message: Sized {
    // Way of a unary call, server 3: fifth.
    fn decode(
impl Plain {
    // Way of a unary call, server 4: sixth.
    fn call(
";
    let found = marks("a/b/file.rs", text).into_iter();
    let found: Vec<String> = found
        .map(|(end, number, step)| format!("{end} {number} {}: {}", step.function, step.does))
        .collect();
    let wanted = [
        "client 2 `file::alone`: first, then second",
        "server 1 `Unary::poll`: third",
        "server 2 `Client::unary`: fourth",
        "server 3 `Message::decode`: fifth",
        "server 4 `Plain::call`: sixth",
    ];
    assert_eq!(found, wanted);
}
