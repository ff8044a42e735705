//! Files of proto2 and of editions: what is generated from them speaks with others, and is the same whoever compiles them.

#![cfg(unix)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use trunkline::{Channel, Request, Result, Server, Status};
use trunkline_build::Config;
use trunkline_tests::peers::{Peer, peer, skipped};
use trunkline_tests::prepare::{
    Toolkit, peers_directory, proto_directory, schema_directory, source_directory,
};
use trunkline_tests::process::Process;

mod proto {
    trunkline::include_proto!(
        "proto/schema/legacy.proto",
        "proto/schema/edition_2023.proto",
        "proto/schema/edition_2024.proto"
    );
}

use proto::schema::edition2023::{Edition2023, Edition2023Client, Edition2023Server};
use proto::schema::edition2024::right::Of;
use proto::schema::edition2024::{Edition2024, Edition2024Client, Edition2024Server};
use proto::schema::legacy::{Legacy, LegacyClient, LegacyServer};
use proto::schema::{edition2023, edition2024, legacy};

/// How long one run of a foreign program may take.
const LIMIT: Duration = Duration::from_secs(120);
/// The files, by their names for compilers: all that the tests and the examples have.
const FILES: [&str; 13] = [
    "booking.proto",
    "chat.proto",
    "grpc/testing/empty.proto",
    "grpc/testing/messages.proto",
    "grpc/testing/test.proto",
    "helloworld.proto",
    "route_guide.proto",
    "schema/edition_2023.proto",
    "schema/edition_2024.proto",
    "schema/legacy.proto",
    "shop/customers/v1/customers.proto",
    "shop/v1/orders.proto",
    "ticker.proto",
];

/// The messages of `peers/python/echo.py`.
fn legacy_message() -> legacy::Everything {
    legacy::Everything {
        name: "legacy".to_owned(),
        number: Some(0),
        text: None,
        raw: Some([0x00, 0xff][..].into()),
        colour: Some(legacy::Colour::Red.into()),
        packed: vec![1, -2, 300],
        expanded: vec![1, -2, 300],
        single: Some(Box::new(legacy::everything::Single {
            member: Some("single".to_owned()),
            inner: Some(legacy::Everything {
                name: "inner".to_owned(),
                ..Default::default()
            }),
        })),
        many: [1, 2]
            .map(|member| legacy::everything::Many {
                member: Some(member),
            })
            .to_vec(),
        choice: Some(legacy::everything::Choice::Chosen(
            legacy::everything::Chosen { ratio: Some(0.25) },
        )),
        counts: [("a".to_owned(), -1)].into(),
        children: [(
            7,
            legacy::Everything {
                name: "child".to_owned(),
                ..Default::default()
            },
        )]
        .into(),
    }
}

fn part(text: &str) -> edition2023::everything::Part {
    edition2023::everything::Part {
        text: Some(text.to_owned()),
        next: None,
    }
}

fn edition_2023_message() -> edition2023::Everything {
    edition2023::Everything {
        explicit: Some(String::new()),
        implicit: String::new(),
        required: 3,
        with_default: Some(0),
        expanded: vec![1, 2],
        packed: vec![-1, 1],
        prefixed: Some(part("prefixed")),
        delimited: Some(edition2023::everything::Part {
            next: Some(Box::new(part("next"))),
            ..part("delimited")
        }),
        parts: vec![part("one"), edition2023::everything::Part::default()],
        choice: Some(edition2023::everything::Choice::Chosen(part("chosen"))),
        map: [("key".to_owned(), part("value"))].into(),
        closed: Some(edition2023::Closed::Green.into()),
        open: edition2023::Open::Something.into(),
        when: Some(trunkline::prost_types::Timestamp {
            seconds: 5,
            nanos: 6,
        }),
        legacy: Some(legacy_message()),
        data: [1, 2][..].into(),
    }
}

fn left(of: Of) -> edition2024::Left {
    let right = edition2024::Right { of: Some(of) };
    edition2024::Left {
        right: Some(Box::new(right)),
    }
}

fn edition_2024_message() -> edition2024::Everything {
    edition2024::Everything {
        text: "text".to_owned(),
        explicit: Some(0),
        inside: Some(edition2024::Local {
            squares: [(3, 9)].into(),
            text: "inside".to_owned(),
        }),
        packed: vec![1, 2, 3],
        older: Some(edition_2023_message()),
        kind: edition2024::everything::Kind::Known.into(),
        left: Some(left(Of::Left(Box::new(left(Of::End("end".to_owned())))))),
    }
}

/// Sends back what it is sent, if that is the message.
struct Echo;

fn same<T: PartialEq + std::fmt::Debug>(message: T, expected: &T) -> Result<T> {
    if message == *expected {
        return Ok(message);
    }
    let message = format!("expected {expected:?}, got {message:?}");
    Err(Status::invalid_argument(message))
}

impl Legacy for Echo {
    async fn echo(&self, request: Request<legacy::Everything>) -> Result<legacy::Everything> {
        same(request.into_inner(), &legacy_message())
    }
}

impl Edition2023 for Echo {
    async fn echo(
        &self,
        request: Request<edition2023::Everything>,
    ) -> Result<edition2023::Everything> {
        same(request.into_inner(), &edition_2023_message())
    }
}

impl Edition2024 for Echo {
    async fn echo(
        &self,
        request: Request<edition2024::Everything>,
    ) -> Result<edition2024::Everything> {
        same(request.into_inner(), &edition_2024_message())
    }
}

/// Calls all three services, and expects the messages back.
async fn call_all(channel: Channel) -> Result<()> {
    let message = legacy_message();
    let response = LegacyClient::new(channel.clone())
        .echo(message.clone())
        .await?;
    assert_eq!(response.into_inner(), message);
    let message = edition_2023_message();
    let response = Edition2023Client::new(channel.clone())
        .echo(message.clone())
        .await?;
    assert_eq!(response.into_inner(), message);
    let message = edition_2024_message();
    let response = Edition2024Client::new(channel)
        .echo(message.clone())
        .await?;
    assert_eq!(response.into_inner(), message);
    Ok(())
}

fn server() -> Server {
    Server::new()
        .add_service(LegacyServer::new(Echo))
        .add_service(Edition2023Server::new(Echo))
        .add_service(Edition2024Server::new(Echo))
}

/// The directory of a toolkit; `None`, and a line on standard error, when this machine lacks it.
fn prepared(toolkit: Toolkit) -> Option<PathBuf> {
    let prepared = toolkit.prepared();
    prepared
        .map_err(|failure| skipped(toolkit.name(), &failure, toolkit.remedy()))
        .ok()
}

fn python() -> Option<Command> {
    let directory = prepared(Toolkit::Python)?;
    let mut command = Command::new(directory.join("venv/bin/python"));
    command
        .env("TRUNKLINE_STUBS", directory.join("stubs"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("NO_PROXY", "127.0.0.1")
        .env("no_proxy", "127.0.0.1");
    Some(command)
}

fn echo() -> Option<Command> {
    let mut command = python()?;
    command.arg(source_directory("python").join("echo.py"));
    Some(command)
}

#[tokio::test]
async fn messages_of_proto2_and_of_editions_come_back_as_they_were_sent() {
    call_all(Channel::in_process(server()))
        .await
        .expect("the server is there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_client_and_our_server_agree_on_every_byte() {
    let Some(mut command) = echo() else {
        return;
    };
    let bound = server().bind("127.0.0.1:0").await.expect("a port is free");
    let address = bound.local_addr().to_string();
    let serving = tokio::spawn(async move { bound.serve().await });
    command.args(["client", &address]);
    let ran =
        tokio::task::spawn_blocking(move || Process::start("echo.py", command, LIMIT)?.finish());
    let lines = ran
        .await
        .expect("it does not panic")
        .unwrap_or_else(|failure| panic!("{failure}"));
    assert_eq!(
        lines.iter().filter(|line| line.starts_with("ok ")).count(),
        3,
        "{lines:?}"
    );
    serving.abort();
}

#[tokio::test]
async fn our_client_and_a_python_server_agree_on_every_byte() {
    let Some(mut command) = echo() else {
        return;
    };
    command.arg("server");
    let process = Process::start("echo.py", command, LIMIT).expect("python starts");
    let port = process
        .wait_for_line("port ", LIMIT)
        .unwrap_or_else(|failure| panic!("{failure}"));
    let channel = Channel::connect(&format!("127.0.0.1:{port}"))
        .await
        .expect("it listens");
    call_all(channel)
        .await
        .expect("the messages are as it expects");
}

/// The files in a directory, by their names.
fn files(directory: &Path) -> BTreeMap<String, String> {
    let entries = fs::read_dir(directory).expect("the directory is there");
    let files = entries.map(|entry| {
        let entry = entry.expect("the directory is readable");
        let name = entry
            .file_name()
            .into_string()
            .expect("names of packages are ASCII");
        let text = fs::read_to_string(entry.path()).expect("it is Rust");
        (name, text)
    });
    files.collect()
}

/// One directory with `FILES` and what they import, which lie in two.
fn all_files() -> &'static Path {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| {
        let directory = fresh("protos");
        for file in FILES.into_iter().chain(["schema/options.proto"]) {
            let from = match file.starts_with("schema/") {
                true => schema_directory(),
                false => proto_directory(),
            };
            let to = directory.join(file);
            let parent = to.parent().expect("it lies in the directory");
            fs::create_dir_all(parent).expect("the target directory is writable");
            fs::copy(from.join(file), &to).expect("the file is there");
        }
        directory
    })
}

/// What a build script writes that names `FILES` and `more`, with the sources of protobuf if they are
/// given.
fn built(more: &[&str], sources: Option<&Path>) -> BTreeMap<String, String> {
    let directory = fresh(&format!("build{}", more.len()));
    let config = Config::new().base_dir(all_files()).out_dir(&directory);
    let config = sources.into_iter().fold(config, |it, dir| it.include(dir));
    config
        .include_file("mod.rs")
        .compile(FILES.iter().chain(more))
        .expect("the files are right");
    files(&directory)
}

fn fresh(name: &str) -> PathBuf {
    let directory = peers_directory().join("schema").join(name);
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).expect("the target directory is writable");
    directory
}

fn run(name: &str, command: Command) {
    let ran = Process::start(name, command, LIMIT).and_then(Process::finish);
    ran.unwrap_or_else(|failure| panic!("{failure}"));
}

fn check_same(found: &BTreeMap<String, String>, expected: &BTreeMap<String, String>, who: &str) {
    assert_eq!(
        found.keys().collect::<Vec<_>>(),
        expected.keys().collect::<Vec<_>>(),
        "{who}"
    );
    for (name, text) in expected {
        let differing = text
            .lines()
            .zip(found[name].lines())
            .find(|(is, was)| is != was);
        assert_eq!(differing, None, "{who}: {name}");
        assert_eq!(text, &found[name], "{who}: {name}");
    }
}

const PLUGIN: &str = env!("CARGO_BIN_EXE_protoc_plugin");

#[test]
fn protoc_with_our_plugin_writes_what_a_build_script_writes() {
    let Some(mut command) = python() else {
        return;
    };
    let directory = fresh("protoc");
    command
        .args(["-m", "grpc_tools.protoc", "--proto_path=."])
        .arg(format!("--plugin=protoc-gen-trunkline={PLUGIN}"))
        .arg(format!("--trunkline_out={}", directory.display()))
        .arg("--trunkline_opt=include_file=mod.rs")
        .args(FILES)
        .current_dir(all_files());
    run("protoc", command);
    check_same(&files(&directory), &built(&[], None), "protoc");
}

#[test]
fn descriptor_sets_of_protoc_give_what_a_build_script_writes() {
    let Some(mut command) = python() else {
        return;
    };
    let directory = fresh("set");
    let set = peers_directory().join("schema/set.binpb");
    command
        .args(["-m", "grpc_tools.protoc", "--proto_path=."])
        .args(["--include_imports", "--include_source_info"])
        .arg(format!("--descriptor_set_out={}", set.display()))
        .args(FILES)
        .current_dir(all_files());
    run("protoc", command);
    let config = Config::new().out_dir(&directory).include_file("mod.rs");
    config
        .compile_descriptor_set(&set)
        .expect("the set is right");
    // A set does not tell which of its files were named, so that all count as such.
    let sources = protobuf_sources();
    let expected = built(&["schema/options.proto"], sources.as_deref());
    check_same(&files(&directory), &expected, "descriptor set");
}

/// What prost-reflect and protox refuse when they are left to themselves.
const ONLY_PROTOC: &str = r#"
syntax = "proto2";
package only.protoc;
import "google/protobuf/descriptor.proto";
message A {
  extensions 1000 [verification = UNVERIFIED]; extensions 30, 31 [verification = UNVERIFIED];
  extensions 5 to 9 [(x) = 3, declaration = { number: 5 full_name: ".a.b" type: "int32" }];
}
message Set { option message_set_wire_format = true; extensions 4 to max; }
message Some { option message_set_wire_format = true; extensions 4 to 2147483646; }
message Own { extend Set { optional Own o = 1547769536; } extend Some { optional Own p = 2147483646; } }
extend google.protobuf.ExtensionRangeOptions { optional int32 x = 5000; }
extend google.protobuf.FieldOptions {
  optional double d = 5000 [(d) = -inf, (f) = nan, (g) = { in: -inf, [protoc.h]: -nan [i]: inf }];
  optional float f = 5001 [(d) = -nan, default = -inf];
  optional G g = 5002 [(g).in = inf]; }
message G {
  optional double in = 1 [(G.in2) = 4];
  extensions 5 to 10; extend google.protobuf.FieldOptions { optional int32 in2 = 5005; }
}
extend G { optional double h = 5; optional float i = 6; }
message Defaults {
  optional float a = 1 [default = 9e9]; optional double b = 2 [default = 7e22];
  optional float c = 3 [default = -0.00000015]; optional double d = 4 [default = 0.333333333333333333];
  optional float e = 5 [default = 340282346638528859811704183484516925440];
  optional int32 g = 7 [default = 1000000]; optional float h = 8 [default = 16777217];
}
"#;

/// Values of options that are packed or not, and methods with a body or without.
const PACKED: &str = r#"
syntax = "proto3";
package packed;
import "google/protobuf/descriptor.proto";
extend google.protobuf.FieldOptions {
  repeated int32 single = 5000 [deprecated = true, packed = false, (joined) = 5];
  repeated int32 joined = 5001;
}
message A { int32 a = 1 [(single) = 1, (joined) = 3, (single) = 2, (joined) = 4]; }
service S {
  rpc Go(A) returns (A) {} rpc Do(A) returns (A);
  rpc Be(A) returns (A) { option deprecated = true; } rpc No(A) returns (A) { ; }
}
"#;

const UNCHECKED: &str = r#"
edition = "2023";
package unchecked;
option features.utf8_validation = NONE;
message A {
  string a = 1 [features.utf8_validation = NONE]; map<string, string> f = 8;
  string b = 2 [features = { utf8_validation: NONE field_presence: IMPLICIT }];
  repeated string c = 3 [features.utf8_validation = VERIFY];
  extensions 5 [verification = UNVERIFIED];
  map<string, string> d = 6 [features.utf8_validation = NONE, deprecated = true];
}
"#;

#[test]
fn options_and_numbers_that_only_protoc_takes_are_written_as_protoc_writes_them() {
    for (file, text) in [
        ("only_protoc.proto", ONLY_PROTOC),
        ("packed.proto", PACKED),
        ("unchecked.proto", UNCHECKED),
    ] {
        let Some(mut command) = python() else {
            return;
        };
        let directory = fresh(file.trim_end_matches(".proto"));
        fs::write(directory.join(file), text).expect("the target directory is writable");
        command
            .args(["-m", "grpc_tools.protoc", "--proto_path=."])
            .args(["--descriptor_set_out=set.binpb", file])
            .current_dir(&directory);
        run("protoc", command);
        let expected = fs::read(directory.join("set.binpb")).expect("protoc has written it");
        let generated = Config::new().base_dir(&directory).generate([file]);
        let generated = generated.expect("protoc takes it");
        // It has imports too, which come first.
        let found = generated.descriptor_set();
        assert!(found.ends_with(&expected), "{file}: {found:?} {expected:?}");
    }
}

#[test]
fn a_set_of_protoc_is_the_way_round_for_a_value_that_is_refused() {
    let text = "syntax = \"proto2\"; import \"google/protobuf/descriptor.proto\";\n\
                message Set { option message_set_wire_format = true; extensions 4 to max; }\n\
                message Own { extend Set { optional Own own = 1547769536; } }\n\
                extend google.protobuf.MessageOptions { optional Set set = 5000; }\n\
                message A { option (set) = { [Own] {} }; }";
    let Some(mut command) = python() else {
        return;
    };
    let directory = fresh("refused");
    fs::write(directory.join("a.proto"), text).expect("the target directory is writable");
    let refused = Config::new().base_dir(&directory).generate(["a.proto"]);
    let message = refused.expect_err("its libraries refuse it").to_string();
    assert!(
        message.ends_with("to Config::compile_descriptor_set"),
        "{message}"
    );
    command
        .args(["-m", "grpc_tools.protoc", "--proto_path=.", "a.proto"])
        .args(["--include_imports", "--descriptor_set_out=set.binpb"])
        .current_dir(&directory);
    run("protoc", command);
    let config = Config::new().base_dir(&directory).out_dir(&directory);
    let compiled = config.compile_descriptor_set("set.binpb");
    compiled.expect("the set is right");
    assert!(directory.join("_.rs").is_file());
}

/// The sources of protobuf that the protoc of these tests has.
fn protobuf_sources() -> Option<PathBuf> {
    let mut command = python()?;
    command.args(["-c", "import grpc_tools; print(grpc_tools.__path__[0])"]);
    let ran = Process::start("python", command, LIMIT).and_then(Process::finish);
    let lines = ran.unwrap_or_else(|failure| panic!("{failure}"));
    let package = lines.first().expect("it has printed a path");
    Some(Path::new(package).join("_proto"))
}

#[test]
fn an_include_path_may_have_the_sources_of_protobuf() {
    let Some(sources) = protobuf_sources() else {
        return;
    };
    let descriptor = sources.join("google/protobuf/descriptor.proto");
    let text = fs::read_to_string(&descriptor).expect("grpcio-tools brings the sources");
    assert!(text.contains("[declaration = {"), "{text}");
    for named in [
        vec![descriptor],
        vec![sources.join("google/protobuf/compiler/plugin.proto")],
        vec![all_files().join("schema/edition_2024.proto")],
        vec![
            sources.join("google/protobuf/cpp_features.proto"),
            all_files().join("schema/options.proto"),
        ],
    ] {
        let config = Config::new().include(&sources).include(all_files());
        let generated = config.generate(&named);
        generated.unwrap_or_else(|error| panic!("{named:?}: {error}"));
    }
}

#[test]
fn an_error_of_the_plugin_is_told_by_protoc() {
    let Some(mut command) = python() else {
        return;
    };
    command
        .args(["-m", "grpc_tools.protoc", "--proto_path=."])
        .arg(format!("--plugin=protoc-gen-trunkline={PLUGIN}"))
        .arg(format!("--trunkline_out={}", fresh("error").display()))
        .arg("--trunkline_opt=everything")
        .arg("helloworld.proto")
        .current_dir(all_files());
    let ran = Process::start("protoc", command, LIMIT).and_then(Process::finish);
    let failure = ran.expect_err("there is no such parameter").to_string();
    assert!(
        failure.contains("--trunkline_out: parameter everything is not known"),
        "{failure}"
    );
}

#[test]
fn buf_with_our_plugin_writes_what_a_build_script_writes() {
    let Some(buf) = peer(Peer::Buf) else {
        return;
    };
    let directory = fresh("buf");
    let template = peers_directory().join("schema/buf.gen.yaml");
    let guide = proto_directory().join("../docs/codegen.md");
    let guide = fs::read_to_string(guide).expect("there is a guide");
    let block = guide
        .split("```yaml\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next());
    let text = block
        .expect("the guide shows a template")
        .replace("local: protoc-gen-trunkline", &format!("local: {PLUGIN}"))
        .replace("out: src/gen", &format!("out: {}", directory.display()));
    assert!(
        text.contains(PLUGIN) && text.contains("schema/buf"),
        "{text}"
    );
    fs::write(&template, text).expect("the target directory is writable");
    let mut command = buf.command();
    command
        .args(["generate", "--template"])
        .arg(&template)
        .current_dir(all_files());
    for file in FILES {
        command.args(["--path", file]);
    }
    run("buf generate", command);
    check_same(&files(&directory), &built(&[], None), "buf");
}
