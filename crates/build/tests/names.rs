//! What things are called in Rust where their names in a file are not enough.

mod common;

use common::directory;
use trunkline_build::{CompileError, Config};

/// Generates from `a.proto` with these statements, in package `p`.
fn generate(name: &str, statements: &str, config: Config) -> Result<String, CompileError> {
    let text = format!("{statements}\n");
    let text = match statements.starts_with("syntax") || statements.starts_with("edition") {
        true => text,
        false => format!("syntax = \"proto3\"; package p; {text}"),
    };
    let dir = directory(name, &[("a.proto", &text)]);
    let generated = config.base_dir(dir).generate(["a.proto"])?;
    Ok(generated.nested())
}

/// Generates from `statements` and looks for `expected` in the text.
fn check(name: &str, statements: &str, config: Config, expected: &[&str]) {
    let text = generate(name, statements, config).expect("the file is right");
    syn::parse_file(&text).expect("it is Rust");
    for part in expected {
        assert!(text.contains(part), "{name}: {part} is missing in:\n{text}");
    }
    assert!(!text.contains("trunklinename"), "{name}: {text}");
}

#[test]
fn of_names_that_are_one_in_rust_all_but_the_first_end_in_an_underscore() {
    let cases: [(&str, &str, &[&str]); 23] = [
        (
            "constant_of_the_name_of_the_descriptors",
            "message M {} service File { rpc Descriptors(M) returns (M); }",
            &["const FILE_DESCRIPTORS_: ", "pub static FILE_DESCRIPTORS: "],
        ),
        (
            "oneof_called_self",
            "message M { enum Self { A = 0; } oneof self { Self b = 1; } }",
            &[
                "pub enum SelfOneOf {",
                "Option<m::SelfOneOf>",
                "pub enum Self_ {",
            ],
        ),
        (
            "types",
            "message FooBar { string a = 1; } message foo_bar { FooBar a = 1; foo_bar b = 2; }",
            &[
                "pub struct FooBar {",
                "pub struct FooBar_ {",
                "Option<FooBar>",
                "Box<FooBar_>",
            ],
        ),
        (
            "names_of_types",
            "message FooBar {} message foo_bar { message Baz {} } service S { rpc A(foo_bar) returns \
             (foo_bar.Baz); }",
            &[
                "\"p.foo_bar\".into()",
                "\"type.googleapis.com/p.foo_bar.Baz\"",
                "request: FooBar_)",
                "foo_bar_::Baz>",
                "const NAME: &'static str = \"foo_bar\";",
            ],
        ),
        (
            "nested_types",
            "message M { message Foo {} enum foo { A = 0; } foo f = 1; }",
            &["pub enum Foo_ {", "enumeration = \"m::Foo_\""],
        ),
        (
            "values",
            "enum State { STATE_OPEN = 0; OPEN = 1; }",
            &[
                "Open = 0",
                "Open_ = 1",
                "Self::Open_ => \"OPEN\"",
                "\"OPEN\" => Some(Self::Open_)",
            ],
        ),
        (
            "fields",
            "syntax = \"proto2\"; message M { optional int32 foo_bar = 1; optional int32 FooBar = 2; }",
            &["pub foo_bar:", "pub foo_bar_:"],
        ),
        (
            "oneof_and_field",
            "message M { string Kind = 1; oneof kind { string a = 2; } }",
            &[
                "pub kind: ::trunkline",
                "pub kind_: ::core::option::Option<m::Kind>",
            ],
        ),
        (
            "variants",
            "syntax = \"proto2\"; message M { oneof kind { string a_b = 1; string aB = 2; } }",
            &["AB(", "AB_("],
        ),
        (
            "methods",
            "message M {} service S { rpc GetFoo(M) returns (M); rpc getFoo(M) returns (M); }",
            &[
                "fn get_foo(",
                "fn get_foo_(",
                "\"/p.S/GetFoo\"",
                "\"/p.S/getFoo\"",
                "const S_GET_FOO_:",
            ],
        ),
        (
            "methods_of_a_client",
            "message M {} service S { rpc New(M) returns (M); rpc new_(M) returns (M); }",
            &[
                "pub fn new_(",
                "pub fn new__(",
                "fn new_(&self",
                "T::new(&service",
                "T::new_(&service",
            ],
        ),
        (
            "setters",
            "enum E { A = 0; } message M { E foo = 1; E set_foo = 2; }",
            &["pub foo:", "pub set_foo_:"],
        ),
        (
            "setters_the_other_way",
            "enum E { A = 0; } message M { E set_foo = 1; E foo = 2; }",
            &["pub set_foo:", "pub foo_:"],
        ),
        (
            "pushers",
            "enum E { A = 0; } message M { repeated E foo = 1; optional string push_foo = 2; }",
            &["pub push_foo_:"],
        ),
        (
            "getters",
            "enum E { A = 0; } message M { map<string, E> foo = 1; optional int32 get_foo = 2; E \
             insert_foo = 3; }",
            &["pub foo:", "pub get_foo_:", "pub insert_foo_:"],
        ),
        (
            "no_accessors",
            "enum E { A = 0; } message M { E foo = 1; string set_foo = 2; message push_foo {} }",
            &["pub foo:", "pub set_foo:"],
        ),
        (
            "keyword_of_a_map",
            "enum E { A = 0; } message M { map<string, E> type = 1; }",
            &["pub type_:"],
        ),
        (
            "oneof_and_nested",
            "message M { message Pay {} message PayOneOf {} oneof pay { Pay a = 1; PayOneOf b = 2; } }",
            &[
                "Option<m::PayOneOf_>",
                "pub enum PayOneOf_",
                "pub pay:",
                "B(PayOneOf)",
            ],
        ),
        (
            "two_oneofs",
            "syntax = \"proto2\"; message M { message A {} oneof a { string b = 1; } oneof a_one_of { \
             string c = 2; } }",
            &[
                "Option<m::AOneOf>",
                "Option<m::AOneOfOneOf>",
                "pub a_one_of:",
            ],
        ),
        (
            "default_alias",
            "syntax = \"proto2\"; enum E { option allow_alias = true; E_A = 1; E_B = 2; E_C = 2; } \
             message M { optional E e = 1 [default = E_C]; }",
            &["default = \"B\""],
        ),
        (
            "default_of_a_renamed_value",
            "syntax = \"proto2\"; enum E { E_A = 1; A = 2; } message M { optional E e = 1 [default = A]; }",
            &["default = \"A_\""],
        ),
        (
            "digits",
            "message _1 { message A {} } enum E { _0 = 0; _0_ = 1; }",
            &["pub struct _1 {", "pub mod _1_ {", " _0 = 0", " _0_ = 1"],
        ),
        (
            "nothing",
            "message __ { string _ = 1; } enum ___ { ____ = 0; } service _____ { rpc ______(__) \
             returns (__); }",
            &[
                "pub struct Unnamed {",
                "pub unnamed:",
                "pub enum Unnamed_ {",
                "Unnamed = 0",
            ],
        ),
    ];
    for (name, statements, expected) in cases {
        check(name, statements, Config::new(), expected);
    }
}

#[test]
fn the_module_of_a_message_steps_aside_for_that_of_a_package() {
    let files = [
        (
            "a.proto",
            "syntax = \"proto3\"; package shop; import \"b.proto\";
             message Order { message Item {} enum State { A = 0; } State state = 1;
               oneof kind { shop.order.Total total = 2; Item item = 3; } map<string, Item> items = 4; }
             message Uses { Order.Item item = 1; Order.State state = 2; }",
        ),
        (
            "b.proto",
            "syntax = \"proto3\"; package shop.order; message Total { message Item {} }",
        ),
    ];
    let dir = directory("package", &files);
    let generated = Config::new().base_dir(&dir).generate(["a.proto"]);
    let text = generated.expect("both are right").nested();
    for part in [
        "pub mod order_ {",
        "Option<order_::Item>",
        "enumeration = \"order_::State\"",
        "Total(super::order::Total)",
        "oneof = \"order_::Kind\"",
    ] {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
    // A package from elsewhere has no module here.
    let config = Config::new()
        .base_dir(dir)
        .extern_path(".shop.order", "::elsewhere");
    let text = config
        .generate(["a.proto"])
        .expect("both are right")
        .nested();
    assert!(text.contains("pub mod order {"), "{text}");
}

#[test]
fn packages_that_are_one_module_keep_all_that_is_in_them() {
    let files = [
        (
            "a.proto",
            "syntax = \"proto3\"; package shop.fooBar; import \"b.proto\"; message A { \
             shop.foo_bar.a b = 1; } service S { rpc Get(A) returns (A); }",
        ),
        (
            "b.proto",
            "syntax = \"proto3\"; package shop.foo_bar; message a {} service S { rpc Get(a) returns \
             (a); }",
        ),
        (
            "c.proto",
            "syntax = \"proto3\"; package shop.__; message C { bool b = 1; }",
        ),
    ];
    let dir = directory("packages", &files);
    let generated = Config::new()
        .base_dir(dir)
        .generate(["a.proto", "b.proto", "c.proto"]);
    let text = generated.expect("all are right").nested();
    for part in [
        "pub struct A {",
        "pub struct A_ {",
        "\"shop.foo_bar.a\".into()",
        "\"/shop.fooBar.S/Get\"",
        "\"/shop.foo_bar.S/Get\"",
        "pub mod unnamed {",
        "const PACKAGE: &'static str = \"shop.__\";",
    ] {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
}

#[test]
fn what_comes_from_elsewhere_takes_no_name() {
    let statements = "message Config {} message config { message Inside {} } message Uses { Config a = 1; \
                      config b = 2; config.Inside c = 3; }";
    let config = Config::new().extern_path(".p.Config", "::elsewhere::Config");
    check(
        "extern",
        statements,
        config,
        &[
            "pub struct Config {",
            "Option<::elsewhere::Config>",
            "Option<Config>",
        ],
    );
    let config = Config::new()
        .extern_path(".p.config.Inside", "::elsewhere::Inside")
        .rename(".p.config", "Settings");
    check(
        "extern_inside",
        statements,
        config,
        &["Option<::elsewhere::Inside>", "pub struct Settings {"],
    );
}

#[test]
fn names_may_be_chosen_and_paths_of_other_choices_stay_those_of_the_file() {
    let statements = "message Config { bytes raw = 1; map<string, bytes> maps = 2; } message config { \
                      message Inner { bytes raw = 1; } oneof kind { Inner inner = 1; } Inner more = 2; \
                      map<string, Inner> inners = 3; } enum State { STATE_OPEN = 0; OPEN = 1; } service \
                      Calls { rpc Call(Config) returns (config); }";
    let config = Config::new()
        .rename(".p.config", "Settings")
        .rename(".p.config.kind", "choice")
        .rename(".p.config.more", "others")
        .rename(".p.State.OPEN", "ALREADY_OPEN")
        .rename(".p.Calls", "Phone")
        .rename(".p.Calls.Call", "Ring")
        .rename(".q.Nothing", "Ignored")
        .message_attribute(".p.config", "#[on_config]")
        .field_attribute("config.more", "#[on_more]")
        .field_attribute(".p.config.kind.inner", "#[on_inner]")
        .enum_attribute(".p.config.kind", "#[on_kind]")
        .vec_bytes(".p.config.Inner.raw")
        .btree_map(".p.config.inners");
    check(
        "chosen",
        statements,
        config,
        &[
            "#[on_config]\n#[derive(Clone, PartialEq, ::trunkline::prost::Message)]",
            "pub struct Settings {",
            "pub mod settings {",
            "pub choice: ::core::option::Option<settings::Choice>",
            "#[on_more]\n    pub others:",
            "#[on_inner]\n        Inner(",
            "#[on_kind]\n    #[derive",
            "AlreadyOpen = 1",
            "Self::AlreadyOpen => \"OPEN\"",
            "Vec<u8>",
            "BTreeMap<",
            "\"p.config.Inner\".into()",
            "pub struct PhoneClient(",
            "pub fn ring(",
            "\"/p.Calls/Call\"",
        ],
    );
    for (path, name, error) in [
        (
            "p.config",
            "A",
            "rename: p.config is not a full name; begin with a dot, as in .shop.v1.Order",
        ),
        (
            ".p.config",
            "a-b",
            "rename: \"a-b\" is not a name for .p.config; use letters, digits and underscores",
        ),
    ] {
        let result = generate("not_chosen", statements, Config::new().rename(path, name));
        assert_eq!(result.expect_err("it is no name").to_string(), error);
    }
}

#[test]
fn the_prefix_of_values_may_be_retained() {
    let text = "enum State { STATE_OPEN = 0; OPEN = 1; }";
    let config = Config::new().retain_enum_prefix();
    check("retained", text, config, &["StateOpen = 0", " Open = 1"]);
}

#[test]
fn more_at_the_end_of_a_file_changes_no_name_before_it() {
    let before = "message fooBar { string a = 1; } enum E { e_a = 0; }";
    let after = "message FooBar {} enum e { EA = 0; }";
    let text = |name: &str, statements: &str| {
        let text = generate(name, statements, Config::new()).expect("it is right");
        let (code, _) = text
            .split_once("/// The descriptors of")
            .expect("there are some");
        code.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let short = text("short", before);
    let long = text("long", &format!("{before} {after}"));
    assert!(
        short.iter().all(|line| long.contains(line)),
        "{short:?} {long:?}"
    );
}

/// Numbers that look random and are the same in each run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        usize::try_from(self.0 >> 33).expect("31 bits fit") % sides
    }
}

/// Names that are one in Rust, or that lie where others of these put something.
const NASTY: [&str; 30] = [
    "foo",
    "Foo",
    "FOO",
    "foo_bar",
    "FooBar",
    "fooBar",
    "foo__bar",
    "_foo",
    "foo_",
    "set_foo",
    "push_foo",
    "get_foo",
    "insert_foo",
    "setFoo",
    "set_set_foo",
    "foo_one_of",
    "FooOneOf",
    "self",
    "Self",
    "type",
    "Type",
    "_1",
    "_1_",
    "__",
    "trunkline",
    "ScalarWrapper",
    "new",
    "clone",
    "Option",
    "foo_client",
];

/// A message whose names, and those within it, are rolled; names of one scope of protobuf differ.
fn nasty_message(dice: &mut Dice, name: &str, depth: usize) -> String {
    let mut taken: Vec<&str> = Vec::new();
    let mut free = |dice: &mut Dice| {
        let name = NASTY[dice.roll(NASTY.len())];
        let is_free = !taken.contains(&name);
        taken.push(name);
        is_free.then_some(name)
    };
    let mut text = format!("message {name} {{\n");
    let mut entries = Vec::new();
    for number in 1..9 {
        let Some(name) = free(dice) else { continue };
        let at = number * 10;
        // The message of a map has a name too.
        let entry = name.replace('_', "").to_lowercase();
        let kinds = if entries.contains(&entry) { 5 } else { 6 };
        text.push_str(&match dice.roll(kinds) {
            0 => format!("optional .p.Kind {name} = {at};\n"),
            1 => format!("repeated .p.Kind {name} = {at};\n"),
            2 => format!("optional string {name} = {at};\n"),
            3 if depth > 0 => nasty_message(dice, name, depth - 1),
            3 | 4 => match (free(dice), free(dice)) {
                (Some(one), Some(other)) => format!(
                    "oneof {name} {{ string {one} = {at}; .p.Kind {other} = {}; }}\n",
                    at + 1
                ),
                _ => String::new(),
            },
            _ => {
                entries.push(entry);
                format!("map<string, .p.Kind> {name} = {at};\n")
            }
        });
    }
    text + "}\n"
}

/// The methods that prost-derive writes for a field.
fn accessors(field: &syn::Ident, attributes: &[syn::Attribute]) -> Vec<String> {
    let prost = attributes.iter().find_map(|it| match &it.meta {
        syn::Meta::List(list) if list.path.is_ident("prost") => Some(list.tokens.to_string()),
        _ => None,
    });
    let prost = prost.expect("each field has one");
    let is = |word: &str| prost.split([',', ' ']).any(|it| it == word);
    let name = field.to_string();
    let name = name.trim_start_matches("r#");
    match prost.contains("enumeration") {
        true if is("map") => vec![format!("get_{name}"), format!("insert_{name}")],
        true if is("repeated") => vec![name.to_owned(), format!("push_{name}")],
        true => vec![name.to_owned(), format!("set_{name}")],
        false if is("optional") => vec![name.to_owned()],
        false => Vec::new(),
    }
}

/// The names in a module, each with its kind; those of fields with their accessors.
fn names_in(items: &[syn::Item], found: &mut Vec<String>) {
    for item in items {
        let mut inside = Vec::new();
        match item {
            syn::Item::Struct(item) => {
                found.push(format!("type {}", item.ident));
                let mut methods = Vec::new();
                for field in &item.fields {
                    let Some(name) = &field.ident else { continue };
                    inside.push(name.to_string());
                    methods.extend(accessors(name, &field.attrs));
                }
                inside.extend(methods.iter().map(|it| format!("method {it}")));
            }
            syn::Item::Enum(item) => {
                found.push(format!("type {}", item.ident));
                inside.extend(item.variants.iter().map(|it| it.ident.to_string()));
            }
            syn::Item::Trait(item) => {
                found.push(format!("type {}", item.ident));
                inside.extend(item.items.iter().filter_map(|it| match it {
                    syn::TraitItem::Fn(it) => Some(it.sig.ident.to_string()),
                    _ => None,
                }));
            }
            syn::Item::Mod(item) => {
                found.push(format!("type {}", item.ident));
                let items = item.content.as_ref().map(|(_, items)| items.as_slice());
                names_in(items.unwrap_or_default(), &mut inside);
            }
            syn::Item::Const(item) => found.push(format!("value {}", item.ident)),
            syn::Item::Static(item) => found.push(format!("value {}", item.ident)),
            _ => {}
        }
        let mut once = inside.clone();
        once.sort();
        once.dedup();
        assert_eq!(
            once.len(),
            inside.len(),
            "a name is there twice: {inside:?}"
        );
    }
}

#[test]
fn no_name_is_there_twice_whatever_a_file_calls_things() {
    let mut dice = Dice(7);
    for round in 0..150 {
        let mut text = "syntax = \"proto2\"; package p;\n\
                        enum Kind { option allow_alias = true; KIND_A = 0; KIND_B = 0; }\n"
            .to_owned();
        let mut taken = vec![""];
        for _ in 0..6 {
            let name = NASTY[dice.roll(NASTY.len())];
            if taken.contains(&name) {
                continue;
            }
            taken.push(name);
            match dice.roll(3) {
                0 => {
                    let mut methods = Vec::new();
                    for _ in 0..6 {
                        let method = NASTY[dice.roll(NASTY.len())];
                        if !methods.contains(&method) {
                            methods.push(method);
                        }
                    }
                    let methods = methods.iter();
                    let methods = methods.map(|it| format!("rpc {it}(.p.M) returns (.p.M);"));
                    let methods = methods.collect::<String>();
                    text.push_str(&format!("service {name} {{ {methods} }}\n"));
                }
                _ => text.push_str(&nasty_message(&mut dice, name, 2)),
            }
        }
        text.push_str("message M {}\n");
        let generated = generate(&format!("nasty_{round}"), &text, Config::new());
        let generated = generated.unwrap_or_else(|error| panic!("{error}: {text}"));
        let file = syn::parse_file(&generated);
        let file = file.unwrap_or_else(|error| panic!("{error}: {generated}"));
        let mut names = Vec::new();
        names_in(&file.items, &mut names);
        let mut once = names.clone();
        once.sort();
        once.dedup();
        assert_eq!(once.len(), names.len(), "{names:?}: {text}");
    }
}
