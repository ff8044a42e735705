//! Reflection, asked by our own client, in this process.

use std::collections::BTreeMap;
use std::time::Duration;

use prost::Message;
use prost_types::FileDescriptorProto;
use trunkline::FileDescriptors;
use trunkline::server::Methods;
use trunkline::{Channel, Client, Code, Method, Raw, Request, Result, Server, Service};
use trunkline_reflection::Reflection;
use trunkline_reflection::v1::server_reflection_request::MessageRequest;
use trunkline_reflection::v1::server_reflection_response::MessageResponse;
use trunkline_reflection::v1::{
    ErrorResponse, ExtensionRequest, ServerReflectionClient, ServerReflectionRequest,
    ServerReflectionResponse,
};
use trunkline_reflection::v1alpha;

mod hello {
    trunkline::include_proto!("../../proto/helloworld.proto");
}

mod guide {
    trunkline::include_proto!("../../proto/route_guide.proto");
}

mod shelf {
    trunkline::include_proto!("tests/proto/shelf/shelf.proto");
}

struct Shelf;

impl shelf::Shelf for Shelf {
    async fn find(&self, request: Request<shelf::Item>) -> Result<shelf::Item> {
        Ok(request.into_inner())
    }
}

struct MyGreeter;

impl hello::Greeter for MyGreeter {
    async fn say_hello(&self, _: Request<hello::HelloRequest>) -> Result<hello::HelloReply> {
        Ok(hello::HelloReply::default())
    }
}

fn with_shelf() -> Server {
    Server::new()
        .add_service(Reflection::new())
        .add_service(shelf::ShelfServer::new(Shelf))
}

fn request(request: MessageRequest) -> ServerReflectionRequest {
    ServerReflectionRequest {
        host: "shelf.example.com".to_owned(),
        message_request: Some(request),
    }
}

fn file(name: &str) -> MessageRequest {
    MessageRequest::FileByFilename(name.to_owned())
}

fn symbol(name: &str) -> MessageRequest {
    MessageRequest::FileContainingSymbol(name.to_owned())
}

fn extension(message: &str, extension_number: i32) -> MessageRequest {
    MessageRequest::FileContainingExtension(ExtensionRequest {
        containing_type: message.to_owned(),
        extension_number,
    })
}

fn numbers(message: &str) -> MessageRequest {
    MessageRequest::AllExtensionNumbersOfType(message.to_owned())
}

fn list() -> MessageRequest {
    MessageRequest::ListServices(String::new())
}

/// Asks on one stream and gives all answers.
async fn ask(
    server: Server,
    requests: Vec<ServerReflectionRequest>,
) -> Result<Vec<ServerReflectionResponse>> {
    let client = ServerReflectionClient::new(Channel::in_process(server));
    let (mut questions, mut answers) = client.server_reflection_info().await?;
    let mut all = Vec::new();
    for request in requests {
        questions.send(request).await?;
        all.extend(answers.message().await?);
    }
    questions.finish();
    assert_eq!(answers.message().await?, None);
    Ok(all)
}

async fn answers(server: Server, requests: Vec<MessageRequest>) -> Vec<MessageResponse> {
    let requests: Vec<_> = requests.into_iter().map(request).collect();
    let answers = ask(server, requests.clone()).await.unwrap();
    assert_eq!(answers.len(), requests.len());
    let answers = answers.into_iter().zip(requests);
    let answers = answers.map(|(answer, request)| {
        assert_eq!(answer.valid_host, request.host);
        assert_eq!(answer.original_request, Some(request));
        answer.message_response.unwrap()
    });
    answers.collect()
}

/// The names of the files of an answer, in order; of an error its code.
fn told(answer: &MessageResponse) -> Vec<String> {
    match answer {
        MessageResponse::FileDescriptorResponse(files) => {
            let files = files.file_descriptor_proto.iter();
            let files = files.map(|file| FileDescriptorProto::decode(file.clone()).unwrap());
            files.map(|file| file.name().to_owned()).collect()
        }
        MessageResponse::AllExtensionNumbersResponse(numbers) => {
            let numbers = numbers.extension_number.iter();
            numbers.map(ToString::to_string).collect()
        }
        MessageResponse::ListServicesResponse(list) => {
            let names = list.service.iter().map(|service| service.name.clone());
            names.collect()
        }
        MessageResponse::ErrorResponse(ErrorResponse { error_code, .. }) => {
            vec![format!("error {error_code}")]
        }
    }
}

const ITEM: &[&str] = &[
    "shelf/item.proto",
    "google/protobuf/timestamp.proto",
    "shelf/labels.proto",
    "google/protobuf/descriptor.proto",
];
const LABELS: &[&str] = &["shelf/labels.proto", "google/protobuf/descriptor.proto"];
const SHELF: &[&str] = &[
    "shelf/shelf.proto",
    "shelf/item.proto",
    "shelf/labels.proto",
    "google/protobuf/timestamp.proto",
    "google/protobuf/descriptor.proto",
];
const NOT_FOUND: &[&str] = &["error 5"];

#[tokio::test]
async fn each_kind_of_request_has_its_answer_and_what_is_not_there_is_not_found() {
    let timestamp = &["google/protobuf/timestamp.proto"][..];
    let table = [
        (file("shelf/shelf.proto"), SHELF),
        (file("google/protobuf/timestamp.proto"), timestamp),
        (file("shelf.proto"), NOT_FOUND),
        (file(""), NOT_FOUND),
        (symbol("shelf.v1.Shelf"), SHELF),
        (symbol("shelf.v1.Shelf.Find"), SHELF),
        (symbol("shelf.v1.Item"), ITEM),
        (symbol("shelf.v1.Item.Size"), ITEM),
        (symbol("shelf.v1.Item.Size.height"), ITEM),
        (symbol("shelf.v1.Item.Kind"), ITEM),
        (symbol("shelf.v1.Item.KIND_BOOK"), ITEM),
        (symbol("shelf.v1.Item.cover"), ITEM),
        (symbol("shelf.v1.Item.linen"), ITEM),
        (symbol("shelf.v1.ORDER_BY_NAME"), ITEM),
        (symbol("shelf.labels.Sticker.sticker"), LABELS),
        (symbol("shelf.labels.colour"), LABELS),
        (symbol("google.protobuf.Timestamp"), timestamp),
        (symbol("shelf.v1"), NOT_FOUND),
        (symbol("shelf.v1.Order.ORDER_BY_NAME"), NOT_FOUND),
        (symbol(".shelf.v1.Item"), NOT_FOUND),
        (symbol(""), NOT_FOUND),
        (extension("shelf.labels.Label", 100), LABELS),
        (extension("shelf.labels.Label", 120), LABELS),
        (extension("google.protobuf.MethodOptions", 50001), LABELS),
        (extension("shelf.labels.Label", 102), NOT_FOUND),
        (extension("shelf.labels.Label", -1), NOT_FOUND),
        (extension("shelf.v1.Item", 1), NOT_FOUND),
        (extension("", 0), NOT_FOUND),
        (numbers("shelf.labels.Label"), &["100", "101", "120"]),
        (numbers("google.protobuf.MethodOptions"), &["50001"]),
        (numbers("shelf.labels.Sticker"), &[]),
        (numbers("shelf.v1.Item.Size"), &[]),
        (numbers("shelf.v1.Order"), NOT_FOUND),
        (numbers(""), NOT_FOUND),
        (
            list(),
            &[
                "grpc.reflection.v1.ServerReflection",
                "grpc.reflection.v1alpha.ServerReflection",
                "shelf.v1.Shelf",
            ],
        ),
    ];
    for (request, expected) in table {
        // A stream each: what one has been sent already is another subject.
        let answer = answers(with_shelf(), vec![request.clone()]).await;
        assert_eq!(told(&answer[0]), expected, "{request:?}");
    }
}

#[tokio::test]
async fn a_file_that_was_asked_for_is_sent_again_and_an_import_is_not() {
    let requests = vec![
        file("shelf/labels.proto"),
        file("shelf/shelf.proto"),
        file("shelf/shelf.proto"),
        file("shelf/labels.proto"),
        file("shelf/item.proto"),
    ];
    let answers = answers(with_shelf(), requests).await;
    let told: Vec<_> = answers.iter().map(told).collect();
    let rest = [
        "shelf/shelf.proto",
        "shelf/item.proto",
        "google/protobuf/timestamp.proto",
    ];
    assert_eq!(told[0], LABELS);
    assert_eq!(told[1], rest);
    assert_eq!(told[2], rest[..1]);
    assert_eq!(told[3], LABELS[..1]);
    assert_eq!(told[4], ITEM[..1]);
}

#[tokio::test]
async fn both_versions_answer_the_same_and_describe_themselves() {
    let client = v1alpha::ServerReflectionClient::new(Channel::in_process(with_shelf()));
    let (mut questions, mut answers) = client.server_reflection_info().await.unwrap();
    let mut asked = Vec::new();
    for name in [
        "shelf.v1.Shelf",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    ] {
        use v1alpha::server_reflection_request::MessageRequest::FileContainingSymbol;
        let request = v1alpha::ServerReflectionRequest {
            host: String::new(),
            message_request: Some(FileContainingSymbol(name.to_owned())),
        };
        questions.send(request).await.unwrap();
        let answer = answers.message().await.unwrap().unwrap();
        // The same messages under another name.
        let answer = ServerReflectionResponse::decode(&answer.encode_to_vec()[..]).unwrap();
        asked.push(told(&answer.message_response.unwrap()));
    }
    assert_eq!(asked[0], SHELF);
    assert_eq!(asked[1], ["grpc/reflection/v1/reflection.proto"]);
    assert_eq!(asked[2], ["grpc/reflection/v1alpha/reflection.proto"]);
}

#[tokio::test]
async fn the_bytes_of_a_file_are_those_of_the_compiler_options_that_are_extensions_included() {
    let answer = answers(with_shelf(), vec![symbol("shelf.v1.Shelf")]).await;
    let MessageResponse::FileDescriptorResponse(files) = &answer[0] else {
        panic!("{answer:?}");
    };
    let file = &files.file_descriptor_proto[0];
    let set = shelf::shelf::v1::FILE_DESCRIPTORS.with_imports().concat();
    assert!(set.windows(file.len()).any(|window| window == file));
    // The option (shelf.labels.audience), which no type of prost has: field 50001, 7 bytes.
    let option = [&[0x8a, 0xb5, 0x18, 7][..], b"readers"].concat();
    assert!(file.windows(option.len()).any(|window| window == option));
}

#[tokio::test]
async fn services_are_listed_whether_they_are_added_before_or_after() {
    let (greeter, shelf) = ("helloworld.Greeter", "shelf.v1.Shelf");
    let before = Server::new().add_service(hello::GreeterServer::new(MyGreeter));
    let both = before.add_service(Reflection::new());
    let after = both.clone().add_service(shelf::ShelfServer::new(Shelf));
    let twice = after
        .clone()
        .add_service(shelf::ShelfServer::new(Shelf))
        .add_service(Reflection::new());
    for (server, expected) in [
        (both, vec![greeter]),
        (after, vec![greeter, shelf]),
        (twice, vec![greeter, shelf]),
    ] {
        let mut told = told(&answers(server.clone(), vec![list()]).await[0]);
        told.retain(|name| !name.starts_with("grpc.reflection."));
        assert_eq!(told, expected);
        for name in [greeter, shelf] {
            let found = answers(server.clone(), vec![symbol(name)]).await;
            let is_found = matches!(found[0], MessageResponse::FileDescriptorResponse(_));
            assert_eq!(is_found, expected.contains(&name), "{name}");
        }
    }
}

/// A service without generated code, and so without descriptors.
struct ByHand;

impl Service for ByHand {
    const NAME: &'static str = "routeguide.RouteGuide";

    fn add_to(self, _: &mut Methods) {}
}

#[tokio::test]
async fn a_service_without_descriptors_is_listed_and_descriptors_can_be_given_for_it() {
    let wanted = vec![list(), symbol("routeguide.RouteGuide")];
    let without = Server::new()
        .add_service(ByHand)
        .add_service(Reflection::new());
    let without = answers(without, wanted.clone()).await;
    assert!(told(&without[0]).contains(&"routeguide.RouteGuide".to_owned()));
    assert_eq!(told(&without[1]), NOT_FOUND);

    let reflection = Reflection::new().with_file_descriptors(&guide::FILE_DESCRIPTORS);
    let with = Server::new().add_service(ByHand).add_service(reflection);
    let with = answers(with, wanted).await;
    assert_eq!(told(&with[0]), told(&without[0]));
    assert_eq!(told(&with[1]), ["route_guide.proto"]);
}

#[test]
fn what_is_no_set_of_descriptors_is_refused_when_it_is_given() {
    for bytes in [&b"\x0a\x05abc"[..], b"\xff", b"\x0a\x02\x0a\x09"] {
        let status = Reflection::new().with_file_descriptor_set(bytes);
        let status = status.unwrap_err();
        assert_eq!(status.code(), Code::INVALID_ARGUMENT, "{status}");
    }
    let empty = Reflection::new().with_file_descriptor_set(&b""[..]);
    assert!(empty.is_ok());
}

/// A service whose descriptors somebody has written by hand, and wrongly.
struct Broken;

impl Service for Broken {
    const NAME: &'static str = "broken.Broken";
    const FILE_DESCRIPTORS: &'static FileDescriptors = &FileDescriptors::new(b"\xff", &[]);

    fn add_to(self, _: &mut Methods) {}
}

#[tokio::test]
async fn descriptors_that_cannot_be_read_are_internal_and_say_so() {
    let server = Server::new()
        .add_service(Reflection::new())
        .add_service(Broken);
    let status = ask(server, vec![request(list())]).await.unwrap_err();
    assert_eq!(status.code(), Code::INTERNAL);
    assert!(status.message().contains("descriptors"), "{status}");
}

/// A serialized set of files with these names, imports and messages.
fn set(files: &[(&str, &[&str], &str)]) -> Vec<u8> {
    let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    let file = files
        .iter()
        .map(|(name, imports, message)| FileDescriptorProto {
            name: Some((*name).to_owned()),
            dependency: owned(imports),
            message_type: vec![prost_types::DescriptorProto {
                name: Some((*message).to_owned()),
                ..Default::default()
            }],
            ..Default::default()
        });
    let file = file.collect();
    prost_types::FileDescriptorSet { file }.encode_to_vec()
}

async fn of_sets(sets: &[Vec<u8>], requests: Vec<MessageRequest>) -> Vec<Vec<String>> {
    let mut reflection = Reflection::new();
    for set in sets {
        reflection = reflection.with_file_descriptor_set(set.clone()).unwrap();
    }
    let answers = answers(Server::new().add_service(reflection), requests).await;
    answers.iter().map(told).collect()
}

#[tokio::test]
async fn imports_may_be_missing_or_in_another_set_or_in_a_circle() {
    let first = set(&[("a", &["b", "nowhere"], "A")]);
    let second = set(&[("b", &["c"], "B"), ("c", &["b", "c"], "C")]);
    let told = of_sets(&[first, second], vec![symbol("A")]).await;
    assert_eq!(told, [["a", "b", "c"]]);
}

#[tokio::test]
async fn of_two_files_with_one_name_each_symbol_leads_to_its_own() {
    let first = set(&[("common", &[], "First"), ("a", &["common"], "A")]);
    let second = set(&[
        ("common", &["more"], "Second"),
        ("b", &["common"], "B"),
        ("more", &[], "More"),
    ]);
    let requests = vec![symbol("A"), symbol("B"), symbol("Second"), file("common")];
    let told = of_sets(&[first.clone(), second, first], requests).await;
    assert_eq!(told[0], ["a", "common"]);
    assert_eq!(told[1], ["b", "common_2", "more"]);
    assert_eq!(told[2], ["common_2"]);
    assert_eq!(told[3], ["common"]);
}

#[tokio::test]
async fn many_ways_to_one_import_are_gone_once() {
    // Each imports all that follow: 2^39 ways, unless a file that was seen is passed over.
    let names: Vec<String> = (0..40).map(|at| format!("file{at}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let files = (0..names.len()).map(|at| (names[at], &names[at + 1..], names[at]));
    let files: Vec<_> = files.collect();
    let told = of_sets(&[set(&files)], vec![file("file0")]).await;
    assert_eq!(told[0], names);
}

const METHOD: Method = Method::new("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo");

#[tokio::test]
async fn a_request_for_nothing_or_of_a_kind_to_come_is_an_invalid_argument_and_the_stream_goes_on()
{
    let client = Client::new(Channel::in_process(with_shelf()));
    let (mut questions, mut answers) = client
        .bidi_streaming::<Raw, ServerReflectionResponse>(METHOD)
        .await
        .unwrap();
    // Nothing; field 8, which there is not; after them one that is right.
    for (bytes, code) in [(&b""[..], 3), (b"\x42\x01x", 3), (b"\x1a\x01x", 5)] {
        questions.send(Raw(bytes.into())).await.unwrap();
        let answer = answers.message().await.unwrap().unwrap();
        let told = told(&answer.message_response.unwrap());
        assert_eq!(told, [format!("error {code}")]);
    }
    // What is no message at all ends the call.
    questions.send(Raw(b"\x1a\xff"[..].into())).await.unwrap();
    let status = answers.message().await.unwrap_err();
    assert_eq!(status.code(), Code::INTERNAL);
}

#[tokio::test]
async fn a_huge_name_is_not_found_and_is_not_repeated_in_the_error() {
    let name = "\u{e9}".repeat(1_000_000);
    for request in [
        file(&name),
        symbol(&name),
        numbers(&name),
        extension(&name, 1),
    ] {
        let answer = answers(with_shelf(), vec![request]).await;
        let MessageResponse::ErrorResponse(error) = &answer[0] else {
            panic!("{answer:?}");
        };
        assert_eq!(error.error_code, 5);
        assert!(error.error_message.len() < 500, "{}", error.error_message);
    }
}

#[tokio::test]
async fn thousands_of_requests_on_a_stream_are_answered_one_by_one() {
    let kinds = [
        list(),
        symbol("shelf.v1.Item"),
        file("nowhere"),
        numbers("shelf.labels.Label"),
        extension("shelf.labels.Label", 120),
    ];
    let requests = kinds.iter().cycle().take(5_000).cloned().collect();
    let answers = answers(with_shelf(), requests).await;
    let mut counts = BTreeMap::new();
    for answer in &answers {
        *counts.entry(told(answer).len()).or_insert(0) += 1;
    }
    // Three services or numbers; one file or error; all four files, and once the two of the last.
    assert_eq!(counts.values().sum::<i32>(), 5_000);
    assert_eq!((counts[&3], counts[&1], counts[&4]), (2_000, 2_999, 1));
}

#[tokio::test(start_paused = true)]
async fn who_never_reads_is_answered_only_as_far_as_there_is_room() {
    let client = ServerReflectionClient::new(Channel::in_process(with_shelf()));
    let (mut questions, answers) = client.server_reflection_info().await.unwrap();
    let question = request(symbol("google.protobuf.FileDescriptorSet"));
    let mut sent = 0;
    // The clock stands still until nobody has anything to do.
    while let Ok(taken) =
        tokio::time::timeout(Duration::from_secs(1), questions.send(question.clone())).await
    {
        taken.unwrap();
        sent += 1;
        assert!(sent < 10_000, "it takes questions without end");
    }
    assert!(sent > 1, "{sent}");
    drop(answers);
}
