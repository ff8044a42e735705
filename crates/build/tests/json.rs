//! Fields with one name in JSON: refused and accepted as protoc does.

mod common;

use common::directory;
use prost::Message;
use prost_types::FileDescriptorSet;
use trunkline_build::Config;

const LEGACY: &str = "option features.json_format = LEGACY_BEST_EFFORT;";

#[test]
fn fields_with_one_json_name_are_refused_where_protoc_refuses_them() {
    // As libprotoc 35.1 has it. Name, syntax, statements before and in the message, fields, and the place
    // and the names in the error if there is one.
    let second = "of field 'fooBar'";
    let same = "int32 fooBar = 1; int32 foo_bar = 2;";
    let one_custom = "int32 x = 1; int32 b = 2 [json_name = \"x\"];";
    let two_custom = "int32 a = 1 [json_name = \"x\"]; int32 b = 2 [json_name = \"x\"];";
    let old = "option deprecated_legacy_json_field_conflicts = true;";
    let cases = [
        (
            "by_case",
            "syntax='proto3'",
            "",
            "",
            "int32 foobar = 1; int32 foo_bar = 2; int32 FooBar = 3;",
            None,
        ),
        ("proto3", "syntax='proto3'", "", "", same, Some(second)),
        (
            "of_a_oneof",
            "syntax='proto3'",
            "",
            "",
            "oneof o { int32 fooBar = 1; int32 foo_bar = 2; }",
            Some(second),
        ),
        (
            "in_spite_of_a_name",
            "syntax='proto3'",
            "",
            "",
            "int32 fooBar = 1; int32 foo_bar = 2 [json_name = \"x\"];",
            Some(second),
        ),
        (
            "one_custom",
            "syntax='proto3'",
            "",
            "",
            one_custom,
            Some("of field 'x'"),
        ),
        (
            "two_custom",
            "syntax='proto3'",
            "",
            "",
            two_custom,
            Some("of field 'a'"),
        ),
        ("old", "syntax='proto3'", "", old, same, None),
        ("old_custom", "syntax='proto3'", "", old, two_custom, None),
        ("proto2", "syntax='proto2'", "", "", same, None),
        (
            "proto2_one_custom",
            "syntax='proto2'",
            "",
            "",
            one_custom,
            None,
        ),
        (
            "proto2_two_custom",
            "syntax='proto2'",
            "",
            "",
            two_custom,
            Some("of field 'a'"),
        ),
        ("edition", "edition='2023'", "", "", same, Some(second)),
        ("edition_file", "edition='2023'", LEGACY, "", same, None),
        ("edition_message", "edition='2024'", "", LEGACY, same, None),
        (
            "edition_two_custom",
            "edition='2023'",
            LEGACY,
            "",
            two_custom,
            Some("of field 'a'"),
        ),
    ];
    for (name, syntax, before, inside, fields, error) in cases {
        let fields = match syntax {
            "syntax='proto2'" => fields.replace("int32", "optional int32"),
            _ => fields.to_owned(),
        };
        let text = format!(
            "{syntax}; package p; {before}\nmessage M {{ {inside}\nmessage N {{ {inside} {fields} }} }}\n"
        );
        let dir = directory(name, &[("a.proto", &text)]);
        let result = Config::new().base_dir(&dir).generate(["a.proto"]);
        match (result, error) {
            (Ok(generated), None) => {
                let nested = generated.nested();
                let set = generated.descriptor_set();
                let again = Config::new().generate_descriptor_set(set);
                assert_eq!(again.expect("it is right").nested(), nested, "{name}");
            }
            (Err(wrong), Some(error)) => {
                let message = wrong.to_string();
                assert!(message.contains(error), "{name}: {message}");
                assert!(message.contains("a.proto:3:"), "{name}: {message}");
            }
            (result, _) => panic!("{name}: {result:?}"),
        }
    }
}

#[test]
fn descriptors_have_the_names_and_the_syntax_of_the_file() {
    let text = "syntax = 'proto3'; message M { int32 foobar = 1; int32 foo_bar = 2; message N {
        option deprecated_legacy_json_field_conflicts = true;
        int32 fooBar = 1; int32 foo_bar = 2; int32 x = 3 [json_name = \"fooBar\"]; } }";
    let dir = directory("descriptors", &[("a.proto", text)]);
    let generated = Config::new().base_dir(dir).generate(["a.proto"]);
    let set = generated.expect("it is right").descriptor_set().to_vec();
    let set = FileDescriptorSet::decode(set.as_slice()).expect("it is a set");
    let file = &set.file[0];
    assert_eq!(file.syntax(), "proto3");
    let message = &file.message_type[0];
    let names = |message: &prost_types::DescriptorProto| -> Vec<String> {
        message
            .field
            .iter()
            .map(|it| it.json_name().to_owned())
            .collect()
    };
    assert_eq!(names(message), ["foobar", "fooBar"]);
    assert_eq!(names(&message.nested_type[0]), ["fooBar"; 3]);
}

#[test]
fn names_alike_change_nothing_else_about_a_file_of_proto3() {
    let alike = "message Alike { int32 foobar = 1; int32 foo_bar = 2; repeated int32 FooBar = 3; }";
    let generate = |name: &str, statements: &str| {
        let text = format!("syntax = 'proto3'; package p;\n{alike}\n{statements}\n");
        let dir = directory(name, &[("a.proto", &text)]);
        Config::new().base_dir(dir).generate(["a.proto"])
    };
    let wrong = generate("first_value", "enum E { A = 1; }").expect_err("it is not zero");
    let wrong = wrong.to_string();
    assert!(wrong.contains("a.proto:3:"), "{wrong}");
    let twice = generate(
        "twice",
        "message M { int32 a = 1; int32 a = 2; int32 A = 3; }",
    );
    let twice = twice.expect_err("there are two").to_string();
    assert!(twice.contains("name 'p.M.a' is defined twice"), "{twice}");

    // As libprotoc 35.1 has it: elements of proto3 are packed, and its fields that are zero left out
    // only where nothing sets them. The fields have their names in values of options.
    let generated = generate(
        "values",
        "import 'google/protobuf/descriptor.proto';
         extend google.protobuf.MessageOptions { Alike o = 50000; Alike in_parts = 50001; }
         message M { option (o) = { foobar: 1 foo_bar: 2 FooBar: [3, 4] };
         option (in_parts).foo_bar = 5; option (in_parts).FooBar = 6; }",
    );
    let generated = generated.expect("it is right");
    let set = generated.descriptor_set();
    let holds = |bytes: &[u8]| set.windows(bytes.len()).any(|it| it == bytes);
    assert!(holds(b"\x82\xb5\x18\x08\x08\x01\x10\x02\x1a\x02\x03\x04"));
    assert!(holds(b"\x8a\xb5\x18\x05\x10\x05\x1a\x01\x06"));
    let set = FileDescriptorSet::decode(set).expect("it is a set");
    let file = set.file.iter().find(|it| it.package() == "p");
    let message = &file.expect("it is there").message_type[0];
    let names: Vec<&str> = message.field.iter().map(|it| it.name()).collect();
    assert_eq!(names, ["foobar", "foo_bar", "FooBar"]);
}
