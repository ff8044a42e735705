//! The generated text, whole. `TRUNKLINE_BLESS=1` writes what there is now.

mod common;

use std::env;
use std::fs;
use std::path::Path;

use common::directory;
use trunkline_build::Config;

fn check(proto: &str, golden: &str) {
    check_with(Config::new(), proto, golden);
}

fn check_with(config: Config, proto: &str, golden: &str) {
    let generated = config.generate([proto]);
    let text = generated.expect("the file is right").nested();
    let path = Path::new("tests/golden").join(golden);
    if env::var_os("TRUNKLINE_BLESS").is_some() {
        fs::write(&path, &text).expect("the source is writable for who blesses");
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    let difference = text
        .lines()
        .zip(expected.lines())
        .position(|(is, was)| is != was);
    if text != expected {
        let line = difference.unwrap_or_else(|| text.lines().count().min(expected.lines().count()));
        panic!(
            "{} differs at line {}; is: {:?}; if that is right, set TRUNKLINE_BLESS=1",
            path.display(),
            line + 1,
            text.lines().nth(line)
        );
    }
}

#[test]
fn helloworld_is_as_stored() {
    check("../../proto/helloworld.proto", "helloworld.rs");
}

#[test]
fn route_guide_is_as_stored() {
    check("../../proto/route_guide.proto", "route_guide.rs");
}

#[test]
fn handlers_with_bodies_are_as_stored() {
    let config = Config::new().default_bodies();
    check_with(config, "../../proto/route_guide.proto", "default_bodies.rs");
}

#[test]
fn what_is_hard_to_turn_into_rust_is_as_stored() {
    check("tests/proto/nasty/nasty.proto", "nasty.rs");
}

#[test]
fn names_that_are_one_in_rust_are_as_stored() {
    check("tests/proto/names/names.proto", "names.rs");
}

#[test]
fn files_of_editions_and_of_proto2_are_as_stored() {
    check(
        "../../tests/proto/schema/edition_2024.proto",
        "edition_2024.rs",
    );
}

#[test]
fn generated_code_names_no_crate_but_trunkline_and_those_of_rust() {
    let text = fs::read_to_string("tests/golden/nasty.rs").expect("the file is stored");
    let code = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("///"));
    for line in code {
        for (at, _) in line.match_indices("::") {
            let before = line[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '>' | '*')) {
                continue;
            }
            let path = &line[at..];
            let known = ["::trunkline::", "::core::", "::std::"];
            assert!(known.iter().any(|start| path.starts_with(start)), "{line}");
        }
    }
}

#[test]
fn services_have_no_logic() {
    let text = fs::read_to_string("tests/golden/route_guide.rs").expect("the file is stored");
    let start = text
        .find("const ROUTE_GUIDE_GET_FEATURE")
        .expect("there is a service");
    let end = text
        .find("/// The descriptors of")
        .expect("there are descriptors");
    let code = text[start..end].lines();
    for line in code.filter(|line| !line.trim_start().starts_with("///")) {
        for word in line.split(|c: char| !c.is_alphanumeric() && c != '_') {
            let logic = ["if", "else", "match", "for", "while", "loop", "return"];
            // `impl Trait for Type` is the one use of such a word.
            let harmless = word == "for" && line.starts_with("impl");
            assert!(harmless || !logic.contains(&word), "{line}");
        }
    }
}

#[test]
fn a_method_takes_fewer_than_twenty_lines() {
    let kinds = [
        "rpc GetTheFeature(Request) returns (Reply);",
        "rpc ListTheFeatures(Request) returns (stream Reply);",
        "rpc RecordTheRoute(stream Request) returns (Reply);",
        "rpc ChatAboutTheRoute(stream Request) returns (stream Reply);",
    ];
    let lines = |name: &str, methods: &str| {
        let text = format!(
            "syntax = \"proto3\";
             package package.of.usual.length.v1;
             message Request {{}}
             message Reply {{}}
             service ServiceOfUsualLength {{
                 rpc First(Request) returns (Reply);
                 {methods}
             }}"
        );
        let dir = directory(name, &[("a.proto", &text)]);
        let generated = Config::new().base_dir(dir).generate(["a.proto"]);
        let text = generated.expect("the file is right").nested();
        // The descriptors of a method are data.
        let (code, _) = text
            .split_once("/// The descriptors of")
            .expect("there are descriptors");
        code.lines().count()
    };
    let without = lines("without", "");
    for (index, kind) in kinds.iter().enumerate() {
        let method = format!("// A line about the method.\n{kind}");
        let with = lines(&format!("with_{index}"), &method);
        assert!(with - without < 20, "{} lines for {kind}", with - without);
    }
}
