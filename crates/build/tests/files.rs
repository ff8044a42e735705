//! Which files are read, which are written, and what choices change.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use common::directory;
use prost::Message;
use prost_types::FileDescriptorSet;
use trunkline_build::{Config, Generated};

/// A file of package `package` that imports `imports` and has a message for each of them.
fn file(package: &str, imports: &[&str]) -> String {
    let mut text = format!("syntax = \"proto3\";\npackage {package};\n");
    for import in imports {
        text.push_str(&format!("import \"{import}\";\n"));
    }
    text
}

fn names(set: &[u8]) -> Vec<String> {
    let set = FileDescriptorSet::decode(set).expect("the set is right");
    set.file.iter().map(|file| file.name().to_owned()).collect()
}

fn packages(generated: &Generated) -> Vec<&str> {
    generated.packages().map(|(name, _)| name).collect()
}

#[test]
fn imports_are_found_from_any_directory_above() {
    let files = [
        (
            "proto/shop/v1/a.proto",
            file("shop.v1", &["shop/v1/b.proto", "proto/c.proto", "d.proto"]),
        ),
        ("proto/shop/v1/b.proto", file("shop.v1", &[])),
        ("proto/c.proto", file("shop.c", &[])),
        ("proto/shop/v1/d.proto", file("shop.d", &[])),
    ];
    let files: Vec<_> = files
        .iter()
        .map(|(path, text)| (*path, text.as_str()))
        .collect();
    let dir = directory("above", &files);
    let generated = Config::new()
        .base_dir(&dir)
        .generate(["proto/shop/v1/a.proto"]);
    let generated = generated.expect("all imports are there");
    let read = [
        "proto/shop/v1/b.proto",
        "proto/c.proto",
        "proto/shop/v1/d.proto",
    ];
    let read = read
        .iter()
        .chain(&["proto/shop/v1/a.proto"])
        .map(|path| dir.join(path));
    assert_eq!(
        generated.sources().collect::<Vec<_>>(),
        read.collect::<Vec<_>>()
    );
    assert_eq!(
        names(generated.descriptor_set()),
        [
            "shop/v1/b.proto",
            "proto/c.proto",
            "d.proto",
            "shop/v1/a.proto"
        ]
    );
}

#[test]
fn files_may_be_named_in_any_order_whatever_they_import() {
    let (a, b) = (file("shop", &["shop/b.proto"]), file("shop", &[]));
    let dir = directory(
        "order",
        &[("proto/shop/a.proto", &a), ("proto/shop/b.proto", &b)],
    );
    for named in [
        ["proto/shop/a.proto", "proto/shop/b.proto"],
        ["proto/shop/b.proto", "proto/shop/a.proto"],
    ] {
        let generated = Config::new()
            .base_dir(&dir)
            .generate(named)
            .expect("both are there");
        assert_eq!(
            names(generated.descriptor_set()),
            ["shop/b.proto", "shop/a.proto"]
        );
    }
}

#[test]
fn a_file_is_named_by_its_imports_or_its_package_if_its_place_agrees() {
    let cases = [
        (
            "by_import",
            "proto/a/b/c.proto",
            file("p", &["a/x.proto"]),
            "a/b/c.proto",
        ),
        (
            "by_package",
            "proto/a/b/c.proto",
            file("a.b", &[]),
            "a/b/c.proto",
        ),
        ("by_root", "proto/b/c.proto", file("a.b", &[]), "b/c.proto"),
        (
            "by_nearest_root",
            "proto/a/protos/b/c.proto",
            file("p", &[]),
            "b/c.proto",
        ),
        ("by_base", "a/b/c.proto", file("p", &[]), "a/b/c.proto"),
        (
            "without_package",
            "c.proto",
            "syntax = \"proto3\";".to_owned(),
            "c.proto",
        ),
    ];
    for (name, path, text, expected) in cases {
        let dir = directory(name, &[(path, &text), ("proto/a/x.proto", &file("x", &[]))]);
        let generated = Config::new()
            .base_dir(dir)
            .generate([path])
            .expect("it is right");
        let names = names(generated.descriptor_set());
        assert_eq!(names.last().map(String::as_str), Some(expected), "{name}");
    }
}

#[test]
fn files_of_the_same_name_in_two_directories_are_two() {
    let (x, y) = (file("one", &[]), file("two", &[]));
    let dir = directory("same", &[("x/a.proto", &x), ("y/a.proto", &y)]);
    let generated = Config::new()
        .base_dir(dir)
        .generate(["x/a.proto", "y/a.proto"]);
    let generated = generated.expect("both are there");
    assert_eq!(packages(&generated), ["one", "two"]);
    assert_eq!(
        names(generated.descriptor_set()),
        ["x/a.proto", "y/a.proto"]
    );
}

#[test]
fn files_of_one_name_have_two_names_also_where_each_is_compiled_by_itself() {
    let (users, orders) = (file("p", &[]), file("p", &[]));
    for (directories, root) in [("proto/", ""), ("", ""), ("api/", "api/")] {
        let path = |name: &str| format!("{directories}{name}/service.proto");
        let files = [(path("users"), &users), (path("orders"), &orders)];
        let files: Vec<_> = files
            .iter()
            .map(|(path, text)| (path.as_str(), text.as_str()))
            .collect();
        let dir = directory("alone", &files);
        let generate = |base: &Path, path: &Path| {
            let generated = Config::new().base_dir(base).generate([path]);
            names(generated.expect("it is there").descriptor_set())
        };
        for name in ["users", "orders"] {
            let expected = [format!("{root}{name}/service.proto")];
            assert_eq!(generate(&dir, Path::new(&path(name))), expected);
            // From a crate next to the directory, where only a root that is called so is known.
            let elsewhere = Path::new("..").join(path(name));
            let expected = match directories {
                "proto/" => expected,
                _ => ["service.proto".to_owned()],
            };
            fs::create_dir_all(dir.join("crate")).expect("the directory is writable");
            assert_eq!(generate(&dir.join("crate"), &elsewhere), expected);
        }
    }
}

#[test]
fn include_paths_come_first_and_name_files() {
    let a = file("shop", &["b.proto"]);
    let files = [
        ("proto/shop/a.proto", a.as_str()),
        ("proto/shop/b.proto", &file("wrong", &[])),
        ("vendor/b.proto", &file("vendor", &[])),
    ];
    let dir = directory("include", &files);
    let config = Config::new()
        .base_dir(&dir)
        .include("vendor")
        .include("proto");
    let generated = config.generate(["shop/a.proto"]).expect("all are there");
    assert_eq!(
        names(generated.descriptor_set()),
        ["b.proto", "shop/a.proto"]
    );
    let read: Vec<_> = generated.sources().collect();
    assert_eq!(
        read,
        [dir.join("vendor/b.proto"), dir.join("proto/shop/a.proto")]
    );
}

#[test]
fn the_files_of_google_protobuf_are_always_there() {
    let a = file("a", &["google/protobuf/timestamp.proto"]);
    let dir = directory("google", &[("a.proto", &a)]);
    let generated = Config::new()
        .base_dir(&dir)
        .generate(["a.proto"])
        .expect("it is there");
    assert_eq!(packages(&generated), ["a"]);
    assert_eq!(
        generated.sources().collect::<Vec<_>>(),
        [dir.join("a.proto")]
    );
    let set = names(generated.descriptor_set());
    assert_eq!(set, ["google/protobuf/timestamp.proto", "a.proto"]);
}

/// A tree of packages: each of `a`, `b` and `c` imports `shared` for a type, and `marks`, which has
/// only options, and a file of protobuf.
fn tree(name: &str) -> PathBuf {
    let marks = "syntax = \"proto3\"; package marks;
        import \"google/protobuf/descriptor.proto\";
        extend google.protobuf.MessageOptions { string mark = 50000; }
        message Unused {}";
    let shared = "syntax = \"proto3\"; package shared; message M {}";
    let of = |package: &str, field: &str| {
        format!(
            "syntax = \"proto3\"; package {package};
             import \"shared.proto\"; import \"marks.proto\"; import \"google/protobuf/any.proto\";
             message A {{ option (marks.mark) = \"x\"; {field} google.protobuf.Any any = 2; }}
             service S {{ rpc Get(A) returns (A); }}"
        )
    };
    let (a, b) = (of("a", "shared.M m = 1;"), of("b", "shared.M m = 1;"));
    let files = [
        ("a.proto", a.as_str()),
        ("b.proto", &b),
        ("c.proto", &of("c", "")),
        ("shared.proto", shared),
        ("marks.proto", marks),
    ];
    directory(name, &files)
}

/// The names of all files that a text has descriptors of, in order.
fn carried(text: &str) -> Vec<String> {
    let sets = descriptor_sets(text);
    let mut files: Vec<_> = sets.iter().flat_map(|set| names(set)).collect();
    files.sort();
    files
}

#[test]
fn a_tree_of_packages_has_each_descriptor_once_whatever_is_generated() {
    let dir = tree("tree");
    let choices: [fn(Config) -> Config; 3] = [|it| it, Config::client_only, Config::messages_only];
    for choose in choices {
        let config = choose(Config::new().base_dir(&dir));
        let generated = config.generate(["a.proto", "b.proto", "c.proto"]);
        let generated = generated.expect("all are right");
        let mut expected = names(generated.descriptor_set());
        expected.sort();
        assert_eq!(expected.len(), 7);
        assert_eq!(carried(&generated.nested()), expected);
    }
}

#[test]
fn packages_that_are_included_apart_refer_only_to_those_whose_types_they_name() {
    let dir = tree("apart");
    let out = dir.join("out");
    fs::create_dir_all(&out).expect("the directory is writable");
    let config = Config::new().base_dir(&dir).out_dir(&out);
    config
        .compile(["a.proto", "b.proto", "c.proto"])
        .expect("all are right");
    let of = |name: &str| {
        let text = fs::read_to_string(out.join(name)).expect("it was written");
        (carried(&text), text)
    };
    let well_known = [
        "google/protobuf/any.proto",
        "google/protobuf/descriptor.proto",
    ];
    let with = |name: &'static str| {
        let mut names = [&well_known[..], &["marks.proto", name]].concat();
        names.sort_unstable();
        names
    };
    let (a, text) = of("a.rs");
    assert_eq!(a, with("a.proto"));
    assert!(
        text.contains("&super::shared::FILE_DESCRIPTORS_0"),
        "{text}"
    );
    let (b, text) = of("b.rs");
    assert_eq!(b, ["b.proto"]);
    assert!(text.contains("&super::a::FILE_DESCRIPTORS_"), "{text}");
    let (c, text) = of("c.rs");
    // It imports `shared` too, but has none of its types.
    let mut expected = with("c.proto");
    expected.push("shared.proto");
    assert_eq!(c, expected);
    assert!(
        !text.contains("super::a::") && !text.contains("super::marks::"),
        "{text}"
    );
    assert_eq!(of("shared.rs").0, ["shared.proto"]);
    assert!(of("marks.rs").0.is_empty());
}

/// The bytes of the sets of descriptors in a text.
fn descriptor_sets(text: &str) -> Vec<Vec<u8>> {
    fn collect(items: &[syn::Item], sets: &mut Vec<Vec<u8>>) {
        for item in items {
            match item {
                syn::Item::Mod(item) => {
                    let items = item.content.as_ref().map(|(_, items)| items.as_slice());
                    collect(items.unwrap_or_default(), sets);
                }
                syn::Item::Static(item) => {
                    if let syn::Expr::Call(call) = &*item.expr
                        && let Some(syn::Expr::Lit(set)) = call.args.first()
                        && let syn::Lit::ByteStr(set) = &set.lit
                        && !set.value().is_empty()
                    {
                        sets.push(set.value());
                    }
                }
                _ => {}
            }
        }
    }
    let file = syn::parse_file(text).expect("generated code is Rust");
    let mut sets = Vec::new();
    collect(&file.items, &mut sets);
    sets
}

#[test]
fn descriptors_keep_options_of_extensions_and_drop_comments() {
    let text = "syntax = \"proto3\";
        import \"google/protobuf/descriptor.proto\";
        extend google.protobuf.MessageOptions { string owner = 50000; }
        // A comment that no peer should read.
        message M { option (owner) = \"  the owner  \"; }";
    let dir = directory("options", &[("a.proto", text)]);
    let generated = Config::new()
        .base_dir(dir)
        .generate(["a.proto"])
        .expect("it is right");
    let sets = descriptor_sets(&generated.nested());
    let set = sets
        .iter()
        .find(|set| names(set) == ["a.proto"])
        .expect("there is one");
    assert!(generated.descriptor_set().ends_with(set));
    let holds = |text: &str| set.windows(text.len()).any(|part| part == text.as_bytes());
    assert!(
        holds("  the owner  "),
        "white space in a literal is not layout"
    );
    assert!(!holds("no peer"));
}

#[test]
fn a_file_is_written_for_each_package_and_only_if_it_changed() {
    let a = file("a.type", &["b.proto"]);
    let b = "syntax = \"proto3\"; message B {}";
    let dir = directory(
        "written",
        &[("a.proto", &a), ("b.proto", b), ("out/keep", "")],
    );
    let config = || {
        Config::new()
            .base_dir(&dir)
            .out_dir(dir.join("out"))
            .include_file("all.rs")
            .file_descriptor_set(dir.join("set.bin"))
    };
    config().compile(["a.proto"]).expect("all are there");
    let read = |name: &str| fs::read_to_string(dir.join(name)).expect("the file was written");
    let generated = config().generate(["a.proto"]).expect("all are there");
    let written = [read("out/_.rs"), read("out/a.r#type.rs")];
    assert_eq!(
        written.each_ref().map(String::as_str),
        [0, 1].map(|at| { generated.packages().nth(at).expect("there are two").1 })
    );
    assert!(read("out/all.rs").ends_with("        include!(\"a.r#type.rs\");\n    }\n}\n"));
    assert_eq!(
        fs::read(dir.join("set.bin")).expect("written"),
        generated.descriptor_set()
    );

    let path = dir.join("out/_.rs");
    let open = || {
        fs::File::options()
            .write(true)
            .open(&path)
            .expect("the file was written")
    };
    open()
        .set_modified(SystemTime::UNIX_EPOCH)
        .expect("times can be set");
    config().compile(["a.proto"]).expect("all are there");
    let modified = fs::metadata(&path).and_then(|file| file.modified());
    assert_eq!(modified.expect("there is a time"), SystemTime::UNIX_EPOCH);
}

#[test]
fn fields_of_bytes_share_memory_except_for_those_that_are_named() {
    let text = "syntax = \"proto3\";
        package p;
        message M {
            bytes one = 1;
            repeated bytes many = 2;
            map<string, bytes> by_name = 3;
            oneof kind { bytes other = 4; string text = 5; }
            message Inside { bytes one = 1; optional bytes two = 2; }
        }";
    let dir = directory("bytes", &[("a.proto", text)]);
    let counts = |paths: &[&str]| {
        let config = paths
            .iter()
            .fold(Config::new().base_dir(&dir), |config, path| {
                config.vec_bytes(path)
            });
        let generated = config.generate(["a.proto"]).expect("the file is right");
        let text = generated.nested();
        // Once in the attribute of each field but that of the map, and once as its type.
        let shared = text.matches("bytes::Bytes").count();
        let vec = text.matches("Vec<u8>").count();
        (shared, vec)
    };
    for (paths, vec) in [
        (&[][..], 0),
        (&["."], 6),
        (&[".p"], 6),
        (&[".p.M"], 6),
        (&[".p.M.Inside"], 2),
        (&[".p.M.one"], 1),
        (&["one"], 2),
        (&["Inside.one", "many"], 2),
        (&["other"], 1),
        (&[".p.M.by_name"], 1),
        (&["on", ".p.N", "M"], 0),
    ] {
        assert_eq!(counts(paths), (6 - vec, vec), "{paths:?}");
    }
}

#[test]
fn a_field_called_value_has_its_own_type_beside_a_map() {
    let text = "syntax = 'proto3'; package p;
        message M { bytes value = 1; map<string, string> labels = 2; }";
    let dir = directory("value", &[("a.proto", text)]);
    for (path, is_vec) in [(".p.M.value", true), (".p.M.labels", false)] {
        let config = Config::new().base_dir(&dir).vec_bytes(path);
        let generated = config.generate(["a.proto"]).expect("the file is right");
        let text = generated.nested();
        assert_eq!(text.contains("Vec<u8>"), is_vec, "{path}");
        assert_eq!(text.contains("Bytes"), !is_vec, "{path}");
    }
}

#[test]
fn choices_change_what_is_generated() {
    let text = "syntax = \"proto3\";
        package p;
        import \"google/protobuf/timestamp.proto\";
        message M { bytes raw = 1; map<string, string> by_name = 2; Kind kind = 3; }
        message Shared { google.protobuf.Timestamp at = 1; }
        enum Kind { KIND_NONE = 0; }
        service S { rpc Get(M) returns (Shared); }";
    let dir = directory("choices", &[("a.proto", text)]);
    let shared = "::shared::Shared";
    // What to choose, what is there then, what is not.
    let cases: [(Config, &[&str], &[&str]); 13] = [
        (
            Config::new(),
            &["SClient", "trait S:", "SServer", "bytes::Bytes", "HashMap"],
            &["Vec<u8>"],
        ),
        (
            Config::new().client_only(),
            &["SClient", "S_GET"],
            &["trait S:", "SServer"],
        ),
        (
            Config::new().client_feature("call"),
            &["#[cfg(feature = \"call\")]", "SClient", "SServer"],
            &[],
        ),
        (
            Config::new().server_only(),
            &["trait S:", "SServer", "S_GET"],
            &["SClient"],
        ),
        (
            Config::new().messages_only(),
            &["struct M"],
            &["SClient", "SServer", "S_GET"],
        ),
        (
            Config::new().vec_bytes(".p.M.raw"),
            &["Vec<u8>"],
            &["bytes::Bytes"],
        ),
        (Config::new().btree_map("."), &["BTreeMap"], &["HashMap"]),
        (
            Config::new().extern_path(".p.Shared", shared),
            &[shared],
            &["struct Shared"],
        ),
        (
            Config::new().extern_path(".p", "::shared"),
            &["FILE_DESCRIPTORS"],
            &["struct M", "SClient"],
        ),
        (
            Config::new().type_attribute("M", "#[a]"),
            &["#[a]\n#[derive(Clone, PartialEq,"],
            &[],
        ),
        (
            Config::new().message_attribute(".p.M", "#[a]"),
            &["#[a]"],
            &[],
        ),
        (
            Config::new()
                .enum_attribute(".", "#[a]")
                .field_attribute("raw", "#[b]"),
            &["#[a]", "#[b]"],
            &[],
        ),
        (
            Config::new().prost(|prost| {
                prost.skip_debug(["."]);
            }),
            &["skip_debug"],
            &[],
        ),
    ];
    for (number, (config, present, absent)) in cases.into_iter().enumerate() {
        let generated = config.base_dir(&dir).generate(["a.proto"]);
        let text = generated.expect("the file is right").nested();
        for part in present {
            assert!(
                text.contains(part),
                "case {number}: {part} is missing in:\n{text}"
            );
        }
        for part in absent {
            assert!(!text.contains(part), "case {number}: {part} is in:\n{text}");
        }
    }
}

#[test]
fn a_package_may_hold_a_service_only() {
    let service = "syntax = \"proto3\";
        package only;
        import \"google/protobuf/empty.proto\";
        service S { rpc Ping(google.protobuf.Empty) returns (google.protobuf.Empty); }";
    let importing = file("importing", &["a.proto"]);
    let dir = directory(
        "service_only",
        &[("a.proto", service), ("b.proto", &importing)],
    );
    let generate = |config: Config, file: &str| config.base_dir(&dir).generate([file]);
    let generated = generate(Config::new(), "a.proto").expect("it is right");
    assert!(
        generated
            .nested()
            .contains("pub fn ping(&self, request: ())")
    );

    let generated = generate(Config::new().messages_only(), "b.proto").expect("it is right");
    assert_eq!(
        packages(&generated),
        ["importing"],
        "nothing is left of the other"
    );
}

#[test]
fn packages_are_modules_by_their_names_where_there_are_several() {
    let a = file("a.b", &["b.proto"]);
    let b = "syntax = \"proto3\"; package b.type; message B {}";
    let dir = directory("modules", &[("a.proto", &a), ("b.proto", b)]);
    let generate = |files: &[&str]| {
        let generated = Config::new().base_dir(&dir).generate(files);
        generated.expect("all are there").nested()
    };
    let of_one = generate(&["a.proto"]);
    assert!(of_one.contains("pub mod a {") && of_one.contains("    pub mod r#type {"));
    assert!(of_one.ends_with("pub use self::a::b::*;\n"));
    let of_two = generate(&["a.proto", "b.proto"]);
    assert!(
        !of_two.contains("pub use"),
        "neither package is more than the other"
    );
    let alone = generate(&["b.proto"]);
    assert!(!alone.contains("pub mod") && alone.contains("\npub struct B {}\n"));
}

#[test]
fn a_file_may_lie_outside_of_the_base_directory() {
    let (a, b) = (file("a", &["b.proto"]), file("b", &[]));
    let dir = directory(
        "outside",
        &[("proto/a.proto", &a), ("proto/b.proto", &b), ("x/y", "")],
    );
    let absolute = dir.join("proto/a.proto");
    for path in [Path::new("../proto/a.proto"), &absolute] {
        let generated = Config::new().base_dir(dir.join("x")).generate([path]);
        assert_eq!(packages(&generated.expect("all are there")), ["a"]);
    }
}

#[test]
fn a_service_has_the_descriptors_of_its_package_also_where_that_is_only_imported() {
    let other = "syntax = \"proto3\"; package other;
        message M {} service Other { rpc Get(M) returns (M); }";
    let named = "syntax = \"proto3\"; package named; import \"other.proto\";
        service Named { rpc Get(other.M) returns (other.M); }";
    let dir = directory(
        "imported_service",
        &[("other.proto", other), ("named.proto", named)],
    );
    let generated = Config::new()
        .base_dir(dir)
        .generate(["named.proto"])
        .expect("it is right");
    let packages: Vec<_> = generated.packages().collect();
    assert_eq!(packages.len(), 2);
    for (package, text) in packages {
        let own =
            "const FILE_DESCRIPTORS: &'static ::trunkline::FileDescriptors = &FILE_DESCRIPTORS;";
        assert!(text.contains(own), "{package} lacks it");
        assert_eq!(carried(text), [format!("{package}.proto")]);
    }
}

#[test]
fn features_of_other_languages_and_rules_for_protoc_are_left_out() {
    let text = "edition = \"2023\";
        package shop;
        import \"google/protobuf/go_features.proto\";
        option features.(pb.go).api_level = API_OPAQUE;
        option features.enforce_naming_style = STYLE_LEGACY;
        message A {
          string a = 1 [features.(pb.go).x = {y: [1, 2]}];
          string b = 2 [deprecated = true, features.(pb.go).x = Y];
          string c = 3 [features.(pb.go).x = Y, deprecated = true,
                        features.(pb.cpp).z = \"]\" ];
          string d = 4 [features.field_presence = IMPLICIT,
                        features.(pb.go).x = Y, deprecated = true];
        }";
    let dir = directory("foreign", &[("a.proto", text)]);
    let generated = Config::new()
        .base_dir(dir)
        .generate(["a.proto"])
        .expect("it is right");
    let text = generated.nested();
    assert_eq!(text.matches("#[deprecated]").count(), 3, "{text}");
    assert!(
        text.contains("pub d: ::trunkline::prost::alloc::string::String,"),
        "{text}"
    );
    assert_eq!(names(generated.descriptor_set()), ["a.proto"]);
    assert_eq!(packages(&generated), ["shop"]);
}

#[test]
fn nothing_is_generated_from_what_is_imported_for_its_options() {
    let options = "syntax = \"proto2\";
        package options;
        import \"google/protobuf/descriptor.proto\";
        extend google.protobuf.MessageOptions { optional string table = 50000; }
        message Unused {}";
    let text = "edition = \"2024\";
        package shop;
        import option \"options.proto\";
        message Order { option (options.table) = \"orders\"; }";
    let dir = directory("options", &[("options.proto", options), ("a.proto", text)]);
    let generate = |files: &[&str]| {
        let generated = Config::new().base_dir(&dir).generate(files);
        generated.expect("both are right")
    };
    let generated = generate(&["a.proto"]);
    assert_eq!(packages(&generated), ["shop"]);
    assert!(!generated.nested().contains("Unused"));
    assert_eq!(generated.sources().count(), 2);
    assert_eq!(
        packages(&generate(&["a.proto", "options.proto"])),
        ["options", "shop"]
    );
}

#[test]
fn types_of_a_public_import_and_of_editions_are_found_whatever_the_syntax() {
    let files = [
        (
            "a.proto",
            "syntax = \"proto3\"; package a; import \"b.proto\"; message A { c.C c = 1; }",
        ),
        (
            "b.proto",
            "edition = \"2023\"; package b; import public \"c.proto\";",
        ),
        (
            "c.proto",
            "edition = \"2024\"; package c; export message C { D d = 1; } enum D { E = 0; }",
        ),
    ];
    let dir = directory("public", &files);
    let generated = Config::new()
        .base_dir(dir)
        .generate(["a.proto"])
        .expect("it is right");
    let text = generated.nested();
    assert!(text.contains("Option<super::c::C>"), "{text}");
    assert!(text.contains("enumeration = \"D\", optional"), "{text}");
}

#[test]
fn the_order_in_which_files_are_named_changes_nothing() {
    let dir = directory(
        "named_order",
        &[
            ("a.proto", "syntax = \"proto3\"; package p; message A {}"),
            ("b.proto", "syntax = \"proto3\"; package p; message B {}"),
        ],
    );
    let generate = |files: [&str; 2]| {
        let generated = Config::new().base_dir(&dir).generate(files);
        let generated = generated.expect("both are right");
        (generated.nested(), generated.descriptor_set().to_vec())
    };
    assert_eq!(
        generate(["a.proto", "b.proto"]),
        generate(["b.proto", "a.proto"])
    );
}

#[test]
fn the_files_of_a_descriptor_set_are_named_but_for_imports_of_buf_and_those_of_protobuf() {
    let text = "syntax = \"proto3\"; package a; import \"google/protobuf/any.proto\";
        message A { google.protobuf.Any any = 1; }";
    let dir = directory(
        "image",
        &[
            ("a.proto", text),
            ("b.proto", "syntax = \"proto3\"; package b;"),
        ],
    );
    let generated = Config::new().base_dir(dir).generate(["a.proto", "b.proto"]);
    let set = generated.expect("both are right").descriptor_set().to_vec();
    let generated = Config::new()
        .generate_descriptor_set(&set)
        .expect("it is whole");
    assert_eq!(packages(&generated), ["a", "b"]);
    // The last file is that of `b`; buf adds field 8042 with `is_import`, field 1.
    let at = set.len() - b"\x0a\x07b.proto\x12\x01bb\x06proto3".len() - 1;
    let mark = [0xd2, 0xf6, 0x03, 0x02, 0x08, 0x01];
    let mut image = set.clone();
    image[at] += mark.len() as u8;
    image.extend(mark);
    let generated = Config::new()
        .generate_descriptor_set(&image)
        .expect("it is whole");
    assert_eq!(packages(&generated), ["a"]);
    assert_eq!(
        generated.descriptor_set(),
        set,
        "the mark is not part of the file"
    );
}

#[test]
fn messages_of_maps_are_not_delimited() {
    let text = "edition = \"2023\";
        package p;
        option features.message_encoding = DELIMITED;
        message A { map<string, A> map = 1; A one = 2; repeated A many = 3; oneof o { A of = 4; } }
        message B { A a = 1; }
        message C { map<string, A> map = 1; message MapEntry2 {} MapEntry2 other = 2; }";
    let dir = directory("delimited", &[("a.proto", text)]);
    let generated = Config::new()
        .base_dir(dir)
        .generate(["a.proto"])
        .expect("it is right");
    let text = generated.nested();
    assert_eq!(
        text.matches("map = \"string, message\"").count(),
        2,
        "{text}"
    );
    for field in [
        "#[prost(group, optional, boxed, tag = \"2\")]",
        "#[prost(group, repeated, tag = \"3\")]",
        "#[prost(group, tag = \"4\")]",
        "Of(::trunkline::prost::alloc::boxed::Box<super::A>)",
        "#[prost(group, optional, tag = \"1\")]",
        "#[prost(group, optional, tag = \"2\")]",
    ] {
        assert!(text.contains(field), "{field}: {text}");
    }
}
