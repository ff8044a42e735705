//! Files that protoc accepts: names, options and numbers mean here what they mean there.

mod common;

use common::directory;
use trunkline_build::{Config, Generated};

/// Compiles the files of those names, in this order.
fn generate(name: &str, files: &[(&str, &str)], named: &[&str]) -> Generated {
    let dir = directory(name, files);
    let result = Config::new().base_dir(&dir).include(".").generate(named);
    result.unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The line that a failure is told on, in which `~` is the directory.
fn failure(name: &str, files: &[(&str, &str)], named: &[&str]) -> String {
    let dir = directory(name, files);
    let result = Config::new().base_dir(&dir).include(".").generate(named);
    let error = result.expect_err("it is wrong").to_string();
    error.replace(dir.to_str().expect("test names are ASCII"), "~")
}

/// As in the API of Envoy: a package that is not imported begins as a relative name does.
const SHADOWING: [(&str, &str); 3] = [
    (
        "tls.proto",
        "syntax = \"proto3\"; package mesh.extensions.tls; import \"core.proto\";\n\
         message Tls { config.core.Data data = 1; mesh.extensions.tls.Tls inner = 2; }\n\
         service Tlss { rpc Get(config.core.Data) returns (tls.Tls); }",
    ),
    (
        "core.proto",
        "syntax = \"proto3\"; package mesh.config.core; message Data {}",
    ),
    (
        "other.proto",
        "syntax = \"proto3\"; package mesh.extensions.config.core; message Other {}",
    ),
];

#[test]
fn a_relative_name_is_looked_up_only_among_what_a_file_imports() {
    let orders = [["tls.proto", "other.proto"], ["other.proto", "tls.proto"]];
    let [first, second] = orders.map(|named| {
        let generated = generate("shadowing", &SHADOWING, &named);
        let text = generated.nested();
        assert!(
            text.contains("Option<super::super::config::core::Data>"),
            "{text}"
        );
        text
    });
    assert_eq!(first, second, "whatever the order");
}

#[test]
fn a_file_sees_what_public_imports_of_its_imports_lead_to() {
    let files = [
        (
            "a.proto",
            "syntax = \"proto3\"; package p; import \"b.proto\"; message A { q.D d = 1; C c = 2; }",
        ),
        ("b.proto", "syntax = \"proto3\"; import public \"c.proto\";"),
        (
            "c.proto",
            "syntax = \"proto3\"; package p; import public \"d.proto\"; import \"e.proto\"; message C {}",
        ),
        ("d.proto", "syntax = \"proto3\"; package p.q; message D {}"),
        (
            "e.proto",
            "syntax = \"proto3\"; package p.p.q; message D {}",
        ),
    ];
    let generated = generate("public", &files, &["a.proto"]);
    let set = generated.descriptor_set();
    // The file imports one other itself.
    let imports = b"\x0a\x07a.proto\x12\x01p\x1a\x07b.proto\"";
    assert!(set.windows(imports.len()).any(|it| it == imports));
    let again = Config::new().generate_descriptor_set(set);
    assert_eq!(again.expect("a set is the same").descriptor_set(), set);
}

#[test]
fn a_name_that_an_inner_scope_hides_is_told_with_the_way_out() {
    let [tls, core, other] = SHADOWING;
    let imports = tls.1.replace("import", "import \"other.proto\"; import");
    let line = failure(
        "hidden",
        &[("tls.proto", &imports), core, other],
        &["tls.proto"],
    );
    assert_eq!(
        line,
        "~/tls.proto:2:15: name 'config.core.Data' is 'mesh.extensions.config.core.Data' here, which \
         is not defined: the innermost scope comes first; write '.config.core.Data' to start from the \
         outermost"
    );
}

#[test]
fn a_name_of_a_file_that_is_not_imported_is_told_with_that_file_in_any_order() {
    let files = [
        (
            "a.proto",
            "syntax = \"proto3\"; package p;\nmessage A { q.B b = 1; }",
        ),
        ("b.proto", "syntax = \"proto3\"; package p.q; message B {}"),
    ];
    let expected = "~/a.proto:2:13: name 'q.B' is not defined; 'p.q.B' is defined in 'b.proto', which \
                    is not imported";
    for named in [["a.proto", "b.proto"], ["b.proto", "a.proto"]] {
        assert_eq!(
            failure("not_imported", &files, &named),
            expected,
            "{named:?}"
        );
    }
}

#[test]
fn names_pass_over_what_is_not_meant() {
    // A field, a method and a value have the first part of a name, or all of it.
    let text = "syntax = \"proto3\"; package p;\n\
                message A { message q { B q = 1; } B B = 2; q C = 3; }\n\
                message B {} enum E { q = 0; D = 1; } message C { A.q q = 1; }\n\
                service S { rpc B(.p.B) returns (p.B); rpc Q(C) returns (A.q); }\n\
                message D2 { C C = 1; }";
    generate("passed_over", &[("a.proto", text)], &["a.proto"]);
}

#[test]
fn ranges_for_extensions_have_options() {
    let text = "syntax = \"proto2\"; package p; import \"google/protobuf/descriptor.proto\";\n\
                extend google.protobuf.ExtensionRangeOptions { optional int32 x = 5000; }\n\
                message A { extensions 1000 [verification = UNVERIFIED]; extensions 4, 20 to 30\n\
                [(x) = 3, declaration = {number: 4, full_name: \".p.a\", type: \"int32\"},\n\
                declaration = {number: 20, reserved: true}]; optional int32 a = 1; }\n\
                message B { extensions 7 [ verification = DECLARATION ]; }";
    let generated = generate("ranges", &[("a.proto", text)], &["a.proto"]);
    // Start, end, and the option that is not for protoc alone.
    let range = b"\x08\x04\x10\x05\x1a\x04\xc0\xb8\x02\x03";
    let set = generated.descriptor_set();
    assert!(set.windows(range.len()).any(|it| it == range));
}

#[test]
fn options_may_be_infinite_or_not_a_number() {
    let text = "syntax = \"proto2\"; package p; import \"google/protobuf/descriptor.proto\";\n\
                enum E { inf = 0; nan = 1; }\n\
                message M { optional double d = 1; optional E e = 2; }\n\
                extend google.protobuf.FieldOptions { optional double d = 5000; optional M m = 5001;\n\
                  repeated float f = 5002; optional E e = 5003; optional string s = 5004; }\n\
                message A { optional double a = 1 [(d) = -inf, (m).d = nan, (m).e = nan, (f) = -nan,\n\
                  (f) = inf, (e) = inf, (s) = \"= -inf\", default = -inf];\n\
                  optional float b = 2 [default = nan, (m) = {d: -inf e: inf}];\n\
                  optional double c = 3 [default = 340282346638528859811704183484516925440,\n\
                  (d) = 100000000000000000000, (m) = { d: 100000000000000000000 }]; }";
    generate("infinite", &[("a.proto", text)], &["a.proto"]);
}

#[test]
fn values_of_options_name_extensions_by_relative_names() {
    let files = [
        (
            "a.proto",
            "syntax = \"proto2\"; package p.q; import \"b.proto\"; import \"google/protobuf/any.proto\";\n\
             message A { option (b) = { [inner] { i: [1, 2] n: <[inner]: {}> } [x.deep]: 3 list: [X]\n\
               any: { [type.googleapis.com/p.x.B]: { [inner]: {} } } }; }",
        ),
        (
            "b.proto",
            "syntax = \"proto2\"; package p.x; import \"google/protobuf/descriptor.proto\";\n\
             import public \"google/protobuf/any.proto\";\n\
             message B { extensions 100 to max; optional B n = 1; repeated E list = 2;\n\
               repeated int32 i = 4; optional google.protobuf.Any any = 3; enum E { X = 0; } }\n\
             extend B { optional B inner = 100; optional int32 deep = 101; }\n\
             extend google.protobuf.MessageOptions { optional B b = 5000; }",
        ),
    ];
    let files = files.map(|(name, text)| (name, text.replace("(b)", "(p.x.b)")));
    let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
    generate("aggregate", &files, &["a.proto"]);
}

#[test]
fn maps_in_options_are_in_order_and_the_same_each_time() {
    let text = "syntax = \"proto3\"; package p; import \"google/protobuf/descriptor.proto\";\n\
                message M { map<string, M> a = 1; map<sint32, string> b = 2; }\n\
                extend google.protobuf.MessageOptions { M m = 5000; }\n\
                message A { option (m) = { a { key: \"z\" } a { key: \"k\" value { b { key: 2 value: \"x\" }\n\
                b { key: -3 } b {} } } a { value {} } }; }";
    let files = [("a.proto", text)];
    let first = generate("maps", &files, &["a.proto"]);
    let set = first.descriptor_set();
    let expected = b"\x0a\x04\x0a\x00\x12\x00\
                     \x0a\x18\x0a\x01k\x12\x13\
                     \x12\x04\x08\x05\x12\x00\x12\x04\x08\x00\x12\x00\x12\x05\x08\x04\x12\x01x\
                     \x0a\x05\x0a\x01z\x12\x00";
    assert!(
        set.windows(expected.len()).any(|it| it == expected),
        "{set:?}"
    );
    for _ in 0..8 {
        let again = generate("maps", &files, &["a.proto"]);
        assert!(again.descriptor_set() == set, "it depends on nothing else");
    }
}

#[test]
fn a_value_that_the_compiler_refuses_is_told_with_its_cause_and_the_way_round() {
    // The name of a message for the extension of a message set that it holds: only protoc knows it.
    let text = "syntax = \"proto2\"; package p; import \"google/protobuf/descriptor.proto\";\n\
                message Set { option message_set_wire_format = true; extensions 4 to max; }\n\
                message Own { extend Set { optional Own own = 4; } }\n\
                extend google.protobuf.MessageOptions { optional Set set = 5000; }\n\
                message A { option (set) = { [p.Own] {} }; }";
    assert_eq!(
        failure("refused", &[("a.proto", text)], &["a.proto"]),
        "~/a.proto:5:13: invalid value of type 'p.Set' for option '(.p.set)': extension 'p.Own' not found \
         for message 'p.Set'; if protoc accepts it, pass its output to \
         Config::compile_descriptor_set"
    );
}

#[test]
fn options_may_be_set_where_they_are_defined() {
    let text = "syntax = \"proto2\"; package p; import \"google/protobuf/descriptor.proto\";\n\
                option (file) = { note: \"a\" };\n\
                message Note { option (kept) = true; optional string note = 1 [(of) = { note: \"b\" }]; }\n\
                extend google.protobuf.FileOptions { optional Note file = 5000 [(of) = { note: \"c\" }]; }\n\
                extend google.protobuf.FieldOptions { optional Note of = 5000 [(of) = { note: \"d\" }]; }\n\
                extend google.protobuf.MessageOptions { optional bool kept = 5000 [(of).note = \"e\"]; }";
    generate("own_options", &[("a.proto", text)], &["a.proto"]);
}

#[test]
fn message_sets_have_numbers_up_to_the_last() {
    let text = "syntax = \"proto2\"; package p;\n\
                message Set { option message_set_wire_format = true; extensions 4 to 0x7ffffffe; }\n\
                message All { option message_set_wire_format = true; extensions 4 to max; }\n\
                message A { extend Set { optional A a = 1547769536; } optional int32 b = 1; }\n\
                extend All { optional A a = 2147483646; optional A b = 536870911; }";
    let generated = generate("message_set", &[("a.proto", text)], &["a.proto"]);
    let set = generated.descriptor_set();
    for number in [1_547_769_536_u32, 2_147_483_646, 536_870_911] {
        // descriptor.proto: `FieldDescriptorProto.number`.
        let mut field = vec![0x18];
        let mut rest = number;
        while rest >= 0x80 {
            field.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        field.push(rest as u8);
        let found = set.windows(field.len()).filter(|it| *it == field).count();
        assert_eq!(found, 1, "{number}");
    }
    let again = Config::new().generate_descriptor_set(set);
    let again = again.expect("a set has them as well");
    assert_eq!(again.descriptor_set(), set);
}

#[test]
fn numbers_of_message_sets_are_for_message_sets() {
    let head = "syntax = \"proto2\"; package p;\n";
    let cases = [
        (
            "message A { extensions 4 to 536870912; }",
            "~/a.proto:2:24: message numbers must be between 1 and 536870911",
        ),
        (
            "message A { extensions 4 to max; } extend A { optional A a = 536870912; }",
            "~/a.proto:2:62: message 'p.A' does not define '536870912' as an extension number",
        ),
        (
            "message A { optional A a = 536870912; }",
            "~/a.proto:2:28: message numbers must be between 1 and 536870911",
        ),
    ];
    for (text, expected) in cases {
        let text = format!("{head}{text}");
        let line = failure("numbers", &[("a.proto", &text)], &["a.proto"]);
        assert_eq!(line, expected);
    }
}

#[test]
fn an_include_path_may_have_its_own_descriptor_proto() {
    let files = [
        (
            "google/protobuf/descriptor.proto",
            "syntax = \"proto2\"; package google.protobuf;\n\
             message FileOptions { optional FeatureSet features = 50; extensions 1000 to max; }\n\
             message FieldOptions { optional bool later = 77; repeated UninterpretedOption\n\
               uninterpreted_option = 999; extensions 1000 to max [verification = UNVERIFIED]; }\n\
             message ExtensionRangeOptions { extensions 1000; }\n\
             message FeatureSet { enum Utf8Validation { UNKNOWN = 0; NONE = 3; reserved 1; }\n\
               optional Utf8Validation utf8_validation = 4 [later = true]; }\n\
             message UninterpretedOption { optional string identifier_value = 3; }",
        ),
        (
            "a.proto",
            "edition = \"2023\"; package p; option features.utf8_validation = NONE;\n\
             message A { string a = 1 [later = true]; }",
        ),
    ];
    let generated = generate("own_descriptor", &files, &["a.proto"]);
    let set = generated.descriptor_set();
    // `FileOptions.features.utf8_validation`, and the option that only that file defines.
    for part in [&[0x92, 0x03, 0x02, 0x20, 0x03][..], &[0xe8, 0x04, 0x01]] {
        assert!(set.windows(part.len()).any(|it| it == part), "{part:?}");
    }
    assert!(
        !set.windows(10).any(|it| it == b"descriptor"),
        "it is not imported"
    );
}

#[test]
fn strings_that_are_not_checked_say_so_as_protoc_does() {
    let text = "edition = \"2023\"; package p; option features.utf8_validation = NONE;\n\
                message A { string a = 1 [features = { utf8_validation: NONE }]; }";
    let generated = generate("utf8", &[("a.proto", text)], &["a.proto"]);
    let set = generated.descriptor_set();
    // `features.utf8_validation`, in the options of the file and of the field.
    for part in [
        &[0x92, 0x03, 0x02, 0x20, 0x03][..],
        &[0xaa, 0x01, 0x02, 0x20, 0x03],
    ] {
        assert!(set.windows(part.len()).any(|it| it == part), "{part:?}");
    }
}

#[test]
fn a_type_within_one_of_prost_types_that_lacks_it_is_told_with_the_way_out() {
    let text = "syntax = \"proto3\"; import \"google/protobuf/descriptor.proto\";\nmessage A {\n  \
                optional google.protobuf.FieldOptions.OptionRetention a = 1;\n}\n";
    let files = [("a.proto", text)];
    let name = "google.protobuf.FieldOptions.OptionRetention";
    assert_eq!(
        failure("lacking", &files, &["a.proto"]),
        format!(
            "~/a.proto:3:12: {name} is not in prost-types; give a type of yours with \
             Config::extern_path(\".{name}\", ..)"
        )
    );
    let config = Config::new().base_dir(directory("lacking", &files));
    let config = config.extern_path(&format!(".{name}"), "::retention::Retention");
    let generated = config.generate(["a.proto"]).expect("there is a type");
    assert!(generated.nested().contains("::retention::Retention"));
}

#[test]
fn a_descriptor_proto_may_have_another_name() {
    let text = "syntax = \"proto2\"; package google.protobuf; message FieldOptions {}\n\
                message FileOptions {} message MessageOptions {}";
    let files = [
        ("vendor/google/protobuf/descriptor.proto", text),
        ("a.proto", "syntax = \"proto3\"; package p; message A {}"),
    ];
    let named = ["vendor/google/protobuf/descriptor.proto", "a.proto"];
    generate("vendored", &files, &named);
}

#[test]
fn what_protoc_refuses_is_told_at_its_place_as_it_stands_in_the_file() {
    let cases = [
        (
            "map_twice",
            "message A {\n  map<int32, int32> foo_bar = 1; map<int32, int32> fooBar = 2;\n}",
            "~/a.proto:3:52: the type of the entries of map 'fooBar' would be 'FooBarEntry', which is the \
             name of something else in the message; rename one",
        ),
        (
            "map_and_type",
            "message A {\n  message FooEntry {}\n  message B { map<int32, A> foo = 1; oneof FooEntry { A \
             a = 2; } }\n}",
            "~/a.proto:4:29: the type of the entries of map 'foo' would be 'FooEntry', which is the \
             name of something else in the message; rename one",
        ),
        (
            "method_as_type",
            "message Get {}\nservice S {\n  rpc Get(.p.Get) returns (Get);\n}",
            "~/a.proto:4:28: 'p.S.Get' is not a message type; defined here, at 4:7",
        ),
        (
            "field_as_extended",
            "message A {\n  int32 FieldOptions = 1;\n  extend FieldOptions { string a = 1000; }\n}",
            "~/a.proto:4:10: 'p.A.FieldOptions' is not a message type; defined here, at 3:9",
        ),
        (
            "large_number",
            "message A {\n  int32 a = 99999999999999999999;\n}",
            "~/a.proto:3:13: integer is too large",
        ),
        (
            "large_number_of_a_value",
            "enum A {\n  B = 0; C = 99999999999999999999 [deprecated = true];\n}",
            "~/a.proto:3:14: integer is too large",
        ),
    ];
    for (name, text, expected) in cases {
        let text = format!("syntax = \"proto3\"; package p;\n{text}\n");
        let told = failure(name, &[("a.proto", &text)], &["a.proto"]);
        assert_eq!(told, expected, "{name}");
    }
    let text = "\u{feff}\u{feff}syntax = \"proto3\";";
    let told = failure("two_marks", &[("a.proto", text)], &["a.proto"]);
    assert!(told.starts_with("~/a.proto:1:1: "), "{told}");
}
