//! What crates of one program bring without knowing of one another: files of one name, and versions of one
//! file.

use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, EnumValueDescriptorProto, FieldDescriptorProto,
    FileDescriptorProto, FileDescriptorSet, FileOptions, MethodDescriptorProto,
    ServiceDescriptorProto,
};
use trunkline::{Channel, Code, Result, Router, Server};
use trunkline_reflection::Reflection;
use trunkline_reflection::v1::server_reflection_request::MessageRequest;
use trunkline_reflection::v1::server_reflection_response::MessageResponse;
use trunkline_reflection::v1::{ServerReflectionClient, ServerReflectionRequest};

/// A message with fields `a1`, `a2` and so on of these numbers.
fn message(name: &str, fields: &[i32]) -> DescriptorProto {
    let field = |number: &i32| FieldDescriptorProto {
        name: Some(format!("a{number}")),
        number: Some(*number),
        label: Some(Label::Optional.into()),
        r#type: Some(Type::Int32.into()),
        ..FieldDescriptorProto::default()
    };
    DescriptorProto {
        name: Some(name.to_owned()),
        field: fields.iter().map(field).collect(),
        ..DescriptorProto::default()
    }
}

fn file(name: &str, package: &str, messages: Vec<DescriptorProto>) -> FileDescriptorProto {
    FileDescriptorProto {
        name: Some(name.to_owned()),
        package: Some(package.to_owned()),
        message_type: messages,
        ..FileDescriptorProto::default()
    }
}

fn importing(mut file: FileDescriptorProto, imports: &[&str]) -> FileDescriptorProto {
    file.dependency = imports.iter().map(|&it| it.to_owned()).collect();
    file
}

/// A router with reflection of these sets.
fn router(sets: &[&[FileDescriptorProto]]) -> Router {
    let reflection = sets.iter().fold(Reflection::new(), |reflection, files| {
        let set = FileDescriptorSet {
            file: files.to_vec(),
        };
        let reflection = reflection.with_file_descriptor_set(set.encode_to_vec());
        reflection.expect("it is a set")
    });
    Router::new().add(reflection)
}

/// The files that are sent for a symbol.
async fn files(router: Router, symbol: &str) -> Result<Vec<FileDescriptorProto>> {
    let client = ServerReflectionClient::new(Channel::in_process(router));
    let (mut questions, mut answers) = client.server_reflection_info().await?;
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::FileContainingSymbol(symbol.to_owned())),
    };
    questions.send(request).await?;
    let answer = answers.message().await?.expect("there is an answer");
    let Some(MessageResponse::FileDescriptorResponse(files)) = answer.message_response else {
        panic!("{symbol}: {answer:?}");
    };
    let files = files.file_descriptor_proto.iter();
    let files = files.map(|file| FileDescriptorProto::decode(file.clone()).expect("a descriptor"));
    Ok(files.collect())
}

/// Why a server with these sets does not start; `None` if it does.
async fn refused(sets: &[&[FileDescriptorProto]]) -> Option<String> {
    match Server::from(router(sets)).bind("127.0.0.1:0").await {
        Ok(_) => None,
        Err(status) => {
            assert_eq!(status.code(), Code::INTERNAL, "{status}");
            Some(status.message().to_owned())
        }
    }
}

#[tokio::test]
async fn files_of_one_name_are_told_apart_and_imports_lead_to_the_right_one() {
    let bring = |package: &str| {
        let common = file("common.proto", package, vec![message("Common", &[1])]);
        let service = file("service.proto", package, vec![message("Request", &[1])]);
        [common, importing(service, &["common.proto"])]
    };
    let (one, two, three) = (bring("one"), bring("two.v1"), bring("two.v1.more"));
    // Somebody has the name that would be taken.
    let taken = [file(
        "two/v1/common.proto",
        "other",
        vec![message("M", &[])],
    )];
    let sets: [&[FileDescriptorProto]; 4] = [&one, &two, &taken, &three];
    assert_eq!(refused(&sets).await, None);
    for (package, service, common) in [
        ("one", "service.proto", "common.proto"),
        ("two.v1", "two/v1/service.proto", "two/v1/common_2.proto"),
        (
            "two.v1.more",
            "two/v1/more/service.proto",
            "two/v1/more/common.proto",
        ),
        ("other", "two/v1/common.proto", ""),
    ] {
        let symbol = if package == "other" { "M" } else { "Request" };
        let files = files(router(&sets), &format!("{package}.{symbol}")).await;
        let files = files.expect("reflection answers");
        assert_eq!(files[0].name(), service);
        assert!(
            files.iter().all(|file| file.package() == package),
            "{files:?}"
        );
        if let Some(import) = files.get(1) {
            assert_eq!(import.name(), common);
            assert_eq!(files[0].dependency, [common]);
        }
    }
}

#[tokio::test]
async fn of_versions_of_one_file_that_with_more_is_served_under_whatever_names() {
    let old = file("types.proto", "p", vec![message("M", &[1, 2])]);
    let new = file(
        "p/types.proto",
        "p",
        vec![message("M", &[1, 3, 4]), message("N", &[1])],
    );
    let uses = importing(
        file("a.proto", "p", vec![message("A", &[])]),
        &["types.proto"],
    );
    let one = [old, uses];
    let other = [new.clone()];
    let orders: [[&[FileDescriptorProto]; 2]; 2] = [[&one, &other], [&other, &one]];
    for sets in orders {
        assert_eq!(refused(&sets).await, None);
        let files = files(router(&sets), "p.A").await.expect("it answers");
        assert_eq!(files[0].dependency, ["p/types.proto"]);
        assert_eq!(files[1], new);
    }
}

#[tokio::test]
async fn options_and_comments_make_no_other_version() {
    let plain = file("types.proto", "p", vec![message("M", &[1])]);
    let mut with_options = plain.clone();
    with_options.options = Some(FileOptions {
        go_package: Some("example.com/p".to_owned()),
        ..FileOptions::default()
    });
    with_options.message_type[0].field[0].json_name = Some("a1".to_owned());
    let sets: [&[FileDescriptorProto]; 2] = [std::slice::from_ref(&plain), &[with_options]];
    assert_eq!(refused(&sets).await, None);
    assert_eq!(
        files(router(&sets), "p.M").await.expect("it answers"),
        [plain]
    );
}

#[tokio::test]
async fn the_files_of_protobuf_may_be_of_any_two_versions() {
    let name = "google/protobuf/descriptor.proto";
    let set = |messages| file(name, "google.protobuf", messages);
    let mut contradicting = message("FileOptions", &[1, 42]);
    contradicting.field[0].set_type(Type::String);
    let old = set(vec![message("FileOptions", &[1]), message("Gone", &[])]);
    let new = set(vec![contradicting, message("FeatureSet", &[1])]);
    let sets: [&[FileDescriptorProto]; 2] = [&[old], std::slice::from_ref(&new)];
    assert_eq!(refused(&sets).await, None);
    let files = files(router(&sets), "google.protobuf.FileOptions").await;
    assert_eq!(files.expect("it answers"), [new]);
}

#[tokio::test]
async fn files_that_contradict_one_another_are_an_error_when_the_server_starts() {
    let plain = || file("a.proto", "p", vec![message("M", &[1])]);
    let changed = |change: &dyn Fn(&mut FileDescriptorProto)| {
        let mut file = plain();
        change(&mut file);
        file
    };
    let service = |output: &str| ServiceDescriptorProto {
        name: Some("S".to_owned()),
        method: vec![MethodDescriptorProto {
            name: Some("Get".to_owned()),
            output_type: Some(output.to_owned()),
            ..MethodDescriptorProto::default()
        }],
        options: None,
    };
    let value = |number: i32| EnumDescriptorProto {
        name: Some("E".to_owned()),
        value: vec![EnumValueDescriptorProto {
            name: Some("V".to_owned()),
            number: Some(number),
            options: None,
        }],
        ..EnumDescriptorProto::default()
    };
    let with_service = |output| changed(&|it| it.service.push(service(output)));
    let with_value = |number| changed(&|it| it.enum_type.push(value(number)));
    let cases = [
        (
            plain(),
            changed(&|it| it.message_type[0].field[0].set_type(Type::String)),
            "two files called a.proto define p.M.a1 in different ways",
        ),
        (
            plain(),
            changed(&|it| {
                it.name = Some("b.proto".to_owned());
                it.message_type[0].field[0].number = Some(2);
            }),
            "a.proto and b.proto define p.M.a1 in different ways",
        ),
        (
            changed(&|it| it.message_type.push(message("N", &[]))),
            changed(&|it| it.message_type.push(message("O", &[1]))),
            "two files called a.proto define p.N in different ways",
        ),
        (
            with_service(".p.M"),
            with_service(".p.N"),
            "two files called a.proto define p.S.Get in different ways",
        ),
        (
            with_value(1),
            with_value(2),
            "two files called a.proto define p.E.V in different ways",
        ),
    ];
    for (one, other, error) in cases {
        let sets: [&[FileDescriptorProto]; 2] = [&[one], &[other]];
        let message = refused(&sets).await.expect("they contradict one another");
        let expected = format!(
            "reflection cannot read the descriptors: {error}; compile both from one version of the file, \
             or give them packages of their own"
        );
        assert_eq!(message, expected);
        // Without a start, the calls say so.
        let status = files(router(&sets), "p.M").await.expect_err("it cannot");
        assert_eq!(status.message(), expected);
    }
}
