//! What users read when their files are wrong: one line with the place, the cause and a way out.

mod common;

use std::fs;

use common::{directory, root};
use trunkline_build::{CompileError, Config, Generated};

/// Compiles `a.proto` among `files` and compares the error, in which `~` is their directory.
fn check(name: &str, files: &[(&str, &str)], expected: &str) {
    let dir = directory(name, files);
    let result = Config::new().base_dir(&dir).generate(["a.proto"]);
    check_result(name, result.map(|_| ()), expected);
}

fn check_result(name: &str, result: Result<(), CompileError>, expected: &str) {
    let Err(error) = result else {
        panic!("{name}: no error, instead of: {expected}");
    };
    let dir = root().join(name);
    let line = error.to_string();
    let line = line.replace(dir.to_str().expect("test names are ASCII"), "~");
    assert_eq!(line, expected, "{name}");
    assert_eq!(
        format!("{error:?}"),
        error.to_string(),
        "{name}: Debug is readable too"
    );
}

#[test]
fn what_is_wrong_in_a_file_is_told_with_line_and_column() {
    // Name, the file after its syntax line, the error.
    let cases = [
        (
            "no_proto",
            "hello",
            "~/a.proto:2:1: expected 'enum', 'extend', 'import', 'message', 'option', 'service', \
             'package' or ';', but found 'hello'",
        ),
        (
            "no_closing_brace",
            "message A {\n  string a = 1;\n",
            "~/a.proto:3:16: expected a message field, oneof, reserved range, enum, message, \
             option or '}', but reached end of file",
        ),
        (
            "no_number",
            "message A {\n  string a;\n}\n",
            "~/a.proto:3:11: expected '=', but found ';'",
        ),
        (
            "number_zero",
            "message A { string a = 0; }\n",
            "~/a.proto:2:24: message numbers must be between 1 and 536870911",
        ),
        (
            "import_upwards",
            "import \"../b.proto\";\n",
            "~/a.proto:2:8: invalid import; imports may not contain backslashes, repeated forward \
             slashes, '.' or '..' components",
        ),
        (
            "open_string",
            "import \"b.proto\n;",
            "~/a.proto:2:16: unterminated string",
        ),
        (
            "two_packages",
            "package a;\npackage b;\n",
            "~/a.proto:3:1: multiple package names specified; defined here, at 2:1",
        ),
        (
            "unknown_type",
            "message A {\n  B b = 1;\n}\n",
            "~/a.proto:3:3: name 'B' is not defined; define it, or import the file that does",
        ),
        (
            "unknown_method_type",
            "service S { rpc Get(A) returns (A); }\n",
            "~/a.proto:2:21: name 'A' is not defined; define it, or import the file that does",
        ),
        (
            "unknown_option",
            "message A { option nonsense = 5; }\n",
            "~/a.proto:2:13: option field 'nonsense' is not defined; define it, or import the file \
             that does",
        ),
        (
            "name_twice",
            "message A {}\nservice A {}\n",
            "~/a.proto:3:9: name 'A' is defined twice; first defined here, at 2:9; rename one",
        ),
        (
            "number_twice",
            "message A {\n  string a = 1;\n  string b = 1;\n}\n",
            "~/a.proto:4:14: field number '1' is already used; first defined here, at 3:14; choose \
             another number",
        ),
        (
            "number_reserved",
            "message A { reserved 4 to 6; string a = 5; }\n",
            "~/a.proto:2:41: field number '5' conflicts with reserved range '4 to 6'; reserved \
             range defined here, at 2:22; choose another number",
        ),
        (
            "field_case",
            "message A {\n  string foo_bar = 1;\n  string fooBar = 2;\n}\n",
            "~/a.proto:4:10: field 'fooBar' has the JSON name of field 'foo_bar' at 3:10; rename one",
        ),
        (
            "first_value",
            "enum E { A = 1; }\n",
            "~/a.proto:2:14: the first value for proto3 enums must be 0",
        ),
        (
            "required",
            "message A { required string a = 1; }\n",
            "~/a.proto:2:13: required fields are not allowed in proto3 syntax",
        ),
        (
            "import_twice",
            "import \"google/protobuf/any.proto\";\nimport \"google/protobuf/any.proto\";\n",
            "~/a.proto:3:1: import 'google/protobuf/any.proto' was listed twice; remove one",
        ),
    ];
    for (name, text, expected) in cases {
        let text = format!("syntax = \"proto3\";\n{text}");
        check(name, &[("a.proto", &text)], expected);
    }
}

#[test]
fn an_unknown_syntax_is_told_with_those_that_are_known() {
    let cases = [
        (
            "syntax",
            "syntax = \"proto4\";\n",
            "~/a.proto:1:10: unknown syntax 'proto4'; possible values are 'proto2' and 'proto3'",
        ),
        (
            "edition",
            "edition = \"2025\";\n",
            "~/a.proto:1:11: edition \"2025\" is not known, but \"2023\" and \"2024\" are; for older \
             files say syntax = \"proto3\" or \"proto2\"",
        ),
        (
            "edition_late",
            "package p;\nedition = \"2023\";\n",
            "~/a.proto:2:1: expected 'enum', 'extend', 'import', 'message', 'option', 'service', \
             'package' or ';', but found 'edition'; the edition must be the first statement of a file",
        ),
        (
            "no_syntax",
            "message A {\n  string a = 1;\n}\n",
            "~/a.proto:2:3: fields must have a label with proto2 syntax (expected one of \
             'optional', 'repeated' or 'required')",
        ),
    ];
    for (name, text, expected) in cases {
        check(name, &[("a.proto", text)], expected);
    }
}

#[test]
fn a_byte_order_mark_changes_nothing() {
    let text = "\u{feff}syntax = \"proto3\"; message A {\n}\n";
    let dir = directory("byte_order_mark", &[("a.proto", text)]);
    let marked = Config::new().base_dir(&dir).generate(["a.proto"]);
    fs::write(dir.join("a.proto"), text.trim_start_matches('\u{feff}')).expect("it is writable");
    let plain = Config::new().base_dir(&dir).generate(["a.proto"]);
    let text = |generated: Result<Generated, _>| generated.expect("it is right").nested();
    assert_eq!(text(marked), text(plain));

    let text = "\u{feff}syntax = \"proto3\"; message A { B b = 1; }\n";
    let error = "~/a.proto:1:32: name 'B' is not defined; define it, or import the file that does";
    check("byte_order_mark", &[("a.proto", text)], error);
}

#[test]
fn a_missing_import_is_told_with_the_places_searched() {
    let way = "name the directory that its path starts at: Config::include in a build script, \
               includes = [..] in include_proto!";
    let check = |name, files: &[(&str, &str)], expected: &str| {
        check(name, files, &format!("{expected}; {way}"));
    };
    check(
        "missing_import",
        &[("a.proto", "syntax = \"proto3\";\n\nimport \"x/b.proto\";\n")],
        "~/a.proto:3:1: import 'x/b.proto' not found; looked in ~",
    );
    check(
        "missing_in_import",
        &[
            ("a.proto", "syntax = \"proto3\";\nimport \"b.proto\";\n"),
            ("b.proto", "syntax = \"proto3\";\nimport \"c.proto\";\n"),
        ],
        "~/b.proto:2:1: import 'c.proto' not found; looked in ~",
    );
    let files = [
        ("x/y/a.proto", "syntax = \"proto3\";\nimport \"b.proto\";\n"),
        ("z/c.proto", ""),
    ];
    let dir = directory("missing_below", &files);
    let config = Config::new().base_dir(&dir).include("z");
    check_result(
        "missing_below",
        config.generate(["x/y/a.proto"]).map(|_| ()),
        &format!(
            "~/x/y/a.proto:2:1: import 'b.proto' not found; looked in ~/z, ~/x/y, ~/x and 1 more; \
             {way}"
        ),
    );
}

#[test]
fn an_error_in_an_import_names_that_file() {
    check(
        "error_in_import",
        &[
            ("a.proto", "syntax = \"proto3\";\nimport \"b/c.proto\";\n"),
            (
                "b/c.proto",
                "syntax = \"proto3\";\nmessage A {\n  Nothing here = 1;\n}\n",
            ),
        ],
        "~/b/c.proto:3:3: name 'Nothing' is not defined; define it, or import the file that does",
    );
}

#[test]
fn imports_in_a_circle_are_told_in_order() {
    check(
        "circle",
        &[
            ("a.proto", "syntax = \"proto3\";\nimport \"b.proto\";\n"),
            ("b.proto", "syntax = \"proto3\";\nimport \"a.proto\";\n"),
        ],
        "~/b.proto:2:1: import cycle detected: a.proto -> b.proto -> a.proto; move the shared \
         definitions into a separate file",
    );
}

#[test]
fn a_file_imported_by_two_names_is_told_rather_than_all_that_it_defines() {
    let files = [
        (
            "x/a.proto",
            "syntax = \"proto3\";\nimport \"b.proto\";\nimport \"x/c.proto\";\n",
        ),
        ("x/b.proto", "syntax = \"proto3\";\nimport \"c.proto\";\n"),
        ("x/c.proto", "syntax = \"proto3\";\n"),
    ];
    let dir = directory("two_names", &files);
    check_result(
        "two_names",
        Config::new()
            .base_dir(&dir)
            .generate(["x/a.proto"])
            .map(|_| ()),
        "~/x/b.proto:2:1: \"c.proto\" and \"x/c.proto\" are the same file; import it by one name",
    );
}

#[test]
fn a_missing_file_is_told_with_the_places_searched() {
    let dir = directory("missing", &[("protos/b.proto", "")]);
    let config = Config::new().base_dir(&dir).include("protos");
    check_result(
        "missing",
        config.generate(["a.proto"]).map(|_| ()),
        "a.proto: no such file in ~, ~/protos; a path starts at the directory of Cargo.toml or at \
         an include path",
    );
    let more = ["1", "2", "3"].map(|name| (format!("{name}/b.proto"), ""));
    let more = more.each_ref().map(|(name, text)| (name.as_str(), *text));
    let dir = directory("missing_among_many", &more);
    let config = ["1", "2", "3"]
        .iter()
        .fold(Config::new().base_dir(&dir), |it, dir| it.include(*dir));
    check_result(
        "missing_among_many",
        config.generate(["a.proto"]).map(|_| ()),
        "a.proto: no such file in ~, ~/1, ~/2 and 1 more; a path starts at the directory of Cargo.toml \
         or at an include path",
    );
}

#[test]
fn an_include_path_must_be_a_directory() {
    let dir = directory("include", &[("a.proto", "")]);
    let config = Config::new().base_dir(&dir).include("nowhere");
    check_result(
        "include",
        config.generate(["a.proto"]).map(|_| ()),
        "~/nowhere: include path is not a directory",
    );
}

#[test]
fn a_file_that_an_include_path_hides_is_told_with_the_other() {
    let dir = directory("hidden", &[("a.proto", ""), ("first/a.proto", "")]);
    let config = Config::new().base_dir(&dir).include("first");
    check_result(
        "hidden",
        config.generate(["a.proto"]).map(|_| ()),
        "~/a.proto: hidden by ~/first/a.proto, which an include path finds first; change their \
         order",
    );
}

#[test]
fn at_least_one_file_must_be_named() {
    let none: [&str; 0] = [];
    let result = Config::new().generate(none).map(|_| ());
    check_result(
        "none",
        result,
        "the list of .proto files is empty; name at least one",
    );
}

#[test]
fn an_attribute_that_is_no_rust_is_told() {
    let text = "syntax = \"proto3\";\npackage p;\nmessage A {}\n";
    let dir = directory("attribute", &[("a.proto", text)]);
    let config = Config::new().base_dir(dir).type_attribute(".", "#[derive(");
    check_result(
        "attribute",
        config.generate(["a.proto"]).map(|_| ()),
        "the Rust of package p is not valid: cannot parse string into token stream; look at the \
         attributes and paths given to Config",
    );
}

#[test]
fn a_file_that_is_not_utf8_is_told() {
    let dir = directory("latin1", &[]);
    fs::write(dir.join("a.proto"), b"// \xe4\n").expect("the directory for tests is writable");
    let result = Config::new().base_dir(dir).generate(["a.proto"]);
    check_result(
        "latin1",
        result.map(|_| ()),
        "~/a.proto: not valid UTF-8; save it as UTF-8",
    );
}

#[test]
fn an_output_directory_that_is_not_there_is_told() {
    let text = "syntax = \"proto3\";\npackage p;\nmessage A {}\n";
    let dir = directory("output", &[("a.proto", text)]);
    let config = Config::new().base_dir(&dir).out_dir(dir.join("nowhere"));
    let error = config
        .compile(["a.proto"])
        .expect_err("there is no such directory");
    assert_eq!(error.file(), Some(dir.join("nowhere/p.rs").as_path()));
    // The rest is in the words of the system.
    assert!(error.message().starts_with("cannot write: "), "{error}");
}

#[test]
fn the_parts_of_an_error_can_be_had_apart() {
    let text = "syntax = \"proto3\";\nmessage A {\n  B b = 1;\n}\n";
    let dir = directory("parts", &[("a.proto", text)]);
    let result = Config::new().base_dir(&dir).generate(["a.proto"]);
    let error = result.expect_err("B is not defined");
    assert_eq!(error.file(), Some(dir.join("a.proto").as_path()));
    assert_eq!((error.line(), error.column()), (Some(3), Some(3)));
    assert!(error.message().starts_with("name 'B'"));
}

#[test]
fn what_is_wrong_in_a_file_of_an_edition_is_told_at_its_place_in_the_file() {
    // Name, edition, the file after that line, the error.
    let cases = [
        (
            "edition_optional",
            "2023",
            "message A { optional string a = 1; }\n",
            "~/a.proto:2:13: editions have no label `optional`; remove it, because fields have explicit \
             presence unless features.field_presence changes it",
        ),
        (
            "edition_required",
            "2023",
            "message A { required string a = 1; }\n",
            "~/a.proto:2:13: editions have no label `required`; set on the field \
             [features.field_presence = LEGACY_REQUIRED]",
        ),
        (
            "edition_group",
            "2023",
            "message A { repeated group B = 1 {} }\n",
            "~/a.proto:2:22: editions have no groups; name a message, and give the field \
             [features.message_encoding = DELIMITED]",
        ),
        (
            "edition_quotes",
            "2023",
            "message A { reserved \"a\"; }\n",
            "~/a.proto:2:22: reserved names have no quotes in editions; remove them",
        ),
        (
            "edition_export",
            "2023",
            "export message A {}\n",
            "~/a.proto:2:1: `export` needs edition = \"2024\"",
        ),
        (
            "edition_import_option",
            "2023",
            "import option \"b.proto\";\n",
            "~/a.proto:2:8: `import option` needs edition = \"2024\"; say import",
        ),
        (
            "edition_import_late",
            "2024",
            "import option \"b.proto\";\nimport \"b.proto\";\n",
            "~/a.proto:3:1: imports must come before `import option`; move this one up",
        ),
        (
            "edition_implicit_enum",
            "2023",
            "message A {\n  enum B { option features.enum_type = CLOSED; C = 0; }\n  \
             B b = 1 [features.field_presence = IMPLICIT];\n}\n",
            "~/a.proto:4:5: a closed enum needs a field that tells whether it is set; give the field \
             explicit presence, or make the enum open",
        ),
        (
            "edition_map",
            "2023",
            "option features.enum_type = CLOSED;\nenum B { C = 1; }\nmessage A {\n  message D {\n    \
             map<int32, B> b = 1;\n  }\n}\n",
            "~/a.proto:6:19: the first value of an enum in a map must be 0; change it, or use another type",
        ),
        (
            "edition_packed",
            "2023",
            "message A {\n  repeated int32 a = 1 [packed = true];\n}\n",
            "~/a.proto:3:18: editions have no option `packed`; say features.repeated_field_encoding = \
             PACKED or EXPANDED",
        ),
        (
            "edition_default",
            "2023",
            "option features.field_presence = IMPLICIT;\nmessage A {\n  int32 a = 1 [default = 2];\n}\n",
            "~/a.proto:4:9: a field with a default tells whether it is set; give it \
             [features.field_presence = EXPLICIT], or no default",
        ),
        (
            "edition_oneof",
            "2023",
            "message A {\n  oneof b {\n    int32 a = 1 [features.field_presence = IMPLICIT];\n  }\n}\n",
            "~/a.proto:4:11: features.field_presence does not apply to fields of a oneof; remove it",
        ),
        (
            "edition_repeated",
            "2023",
            "message A { repeated int32 a = 1 [features.field_presence = IMPLICIT]; }\n",
            "~/a.proto:2:28: features.field_presence does not apply to repeated fields; remove it",
        ),
        (
            "edition_message",
            "2023",
            "message A { A a = 1 [features.field_presence = IMPLICIT]; }\n",
            "~/a.proto:2:15: message fields always track presence; remove features.field_presence",
        ),
        (
            "edition_misplaced",
            "2023",
            "message A { option features.field_presence = IMPLICIT; }\n",
            "~/a.proto:2:9: features.field_presence does not apply here; set it on the file or on fields",
        ),
        (
            "edition_all_required",
            "2023",
            "option features.field_presence = LEGACY_REQUIRED;\n",
            "~/a.proto: LEGACY_REQUIRED does not apply to a whole file; set it on fields",
        ),
        (
            "edition_enum",
            "2023",
            "message A {\n  enum B { C = 1; }\n}\n",
            "~/a.proto:3:12: the first value of an open enum is 0; make it so, or say option \
             features.enum_type = CLOSED",
        ),
        (
            "edition_feature",
            "2023",
            "message A { string a = 1 [features.colour = RED]; }\n",
            "~/a.proto:2:27: option field 'features.colour' is not defined; define it, or import the file that \
             does",
        ),
        (
            "edition_type",
            "2024",
            "message A {\n  reserved b, c; /* e */ local enum D { E = 0; } F a = 1;\n}\n",
            "~/a.proto:3:50: name 'F' is not defined; define it, or import the file that does",
        ),
        (
            "edition_syntax",
            "2024",
            "local message A {\n  string a 1;\n}\n",
            "~/a.proto:3:12: expected '=', but found '1'",
        ),
        (
            "edition_twice",
            "2024",
            "message A { int32 a = 1; int32 b = 1; }\n",
            "~/a.proto:2:36: field number '1' is already used; first defined here, at 2:23; choose \
             another number",
        ),
    ];
    for (name, edition, text, expected) in cases {
        let file = format!("edition = \"{edition}\";\n{text}");
        check(name, &[("a.proto", &file), ("b.proto", "")], expected);
    }
    let import = [
        ("a.proto", "syntax = \"proto3\"; import \"b.proto\";"),
        ("b.proto", "edition = \"2030\";"),
    ];
    let expected = "~/b.proto:1:11: edition \"2030\" is not known, but \"2023\" and \"2024\" are; for \
                    older files say syntax = \"proto3\" or \"proto2\"";
    check("edition_imported", &import, expected);
    let expected = "~/a.proto:1:1: write the edition as edition = \"2023\";";
    check("edition_bare", &[("a.proto", "edition 2023;")], expected);
}

#[test]
fn an_enum_of_another_file_is_as_wrong_and_a_right_one_is_taken() {
    let enums = (
        "b.proto",
        "syntax = \"proto2\"; enum One { C = 1; } enum Zero { D = 0; }",
    );
    let closed = "a closed enum needs a field that tells whether it is set; give the field explicit \
                  presence, or make the enum open";
    let first = "the first value of an enum in a map must be 0; change it, or use another type";
    let cases = [
        (
            "enum_implicit",
            "Zero a = 1 [features.field_presence = IMPLICIT];",
            Some((20, closed)),
        ),
        ("enum_map", "map<string, One> a = 1;", Some((32, first))),
        ("enum_explicit", "One a = 1;", None),
        ("enum_oneof", "oneof b { One a = 1; }", None),
        ("enum_repeated", "repeated One a = 1;", None),
        ("enum_map_zero", "map<string, Zero> a = 1;", None),
    ];
    for (name, field, error) in cases {
        let text = format!("edition = \"2023\"; import \"b.proto\";\nmessage A {{   {field} }}\n");
        let files = [("a.proto", text.as_str()), enums];
        match error {
            Some((column, cause)) => check(name, &files, &format!("~/a.proto:2:{column}: {cause}")),
            None => {
                let dir = directory(name, &files);
                let result = Config::new().base_dir(dir).generate(["a.proto"]);
                assert!(result.is_ok(), "{name}: {result:?}");
            }
        }
    }
}

#[test]
fn what_is_wrong_with_a_descriptor_set_is_told() {
    let dir = directory(
        "set",
        &[
            (
                "a.proto",
                "edition = \"2023\"; import \"b.proto\"; message A { B b = 1; }",
            ),
            ("b.proto", "edition = \"2023\"; message B {}"),
        ],
    );
    let generated = Config::new()
        .base_dir(&dir)
        .generate(["a.proto"])
        .expect("it is right");
    let set = generated.descriptor_set();
    let again = Config::new()
        .generate_descriptor_set(set)
        .expect("it is whole");
    assert_eq!(again.descriptor_set(), set);

    let name = "a.proto";
    let last = set.windows(name.len()).position(|it| it == name.as_bytes());
    // Before the name are its key and length, and those of the file.
    let without_import = &set[last.expect("it is there") - 4..];
    let cases: [(&[u8], &str); 3] = [
        (b"no set", "not a descriptor set: "),
        (
            without_import,
            "imported file 'b.proto' has not been added; the set must contain all imports",
        ),
        (&set[..set.len() - 1], "not a descriptor set: "),
    ];
    for (set, expected) in cases {
        let error = Config::new()
            .generate_descriptor_set(set)
            .expect_err("it is wrong");
        assert!(error.to_string().starts_with(expected), "{error}");
    }
    let path = dir.join("none.binpb");
    let error = Config::new()
        .compile_descriptor_set(&path)
        .expect_err("there is none");
    assert!(
        error.to_string().contains("none.binpb: cannot read: "),
        "{error}"
    );
}
