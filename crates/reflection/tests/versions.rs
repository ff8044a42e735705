//! What crates of one program bring without knowing of one another: files of one name, and versions of one
//! file.

use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, EnumValueDescriptorProto, FieldDescriptorProto,
    FileDescriptorProto, FileDescriptorSet, FileOptions, MethodDescriptorProto,
    OneofDescriptorProto, ServiceDescriptorProto,
};
use trunkline::{Channel, Code, Result, Server};
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

/// A server with reflection of these sets.
fn server(sets: &[&[FileDescriptorProto]]) -> Server {
    let reflection = sets.iter().fold(Reflection::new(), |reflection, files| {
        let set = FileDescriptorSet {
            file: files.to_vec(),
        };
        let reflection = reflection.with_file_descriptor_set(set.encode_to_vec());
        reflection.expect("it is a set")
    });
    Server::new().add_service(reflection)
}

/// The files that are sent for a symbol.
async fn files(server: Server, symbol: &str) -> Result<Vec<FileDescriptorProto>> {
    let client = ServerReflectionClient::new(Channel::in_process(server));
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
    match server(sets).bind("127.0.0.1:0").await {
        Ok(_) => None,
        Err(status) => {
            assert_eq!(status.code(), Code::INTERNAL, "{status}");
            Some(status.message().to_owned())
        }
    }
}

/// All orders of `0..count`.
fn orders(count: usize) -> Vec<Vec<usize>> {
    let mut orders = vec![Vec::new()];
    for at in 0..count {
        let longer = orders.iter().flat_map(|order: &Vec<usize>| {
            (0..=order.len()).map(move |place| {
                let mut order = order.clone();
                order.insert(place, at);
                order
            })
        });
        orders = longer.collect();
    }
    orders
}

/// The files sent for each symbol, or why a server does not start, which are the same whatever the
/// order of the sets.
async fn outcome(
    sets: &[Vec<FileDescriptorProto>],
    symbols: &[&str],
) -> std::result::Result<Vec<Vec<FileDescriptorProto>>, String> {
    let mut first = None;
    for order in orders(sets.len()) {
        let sets: Vec<&[FileDescriptorProto]> = order.iter().map(|&at| &sets[at][..]).collect();
        let outcome = match refused(&sets).await {
            Some(text) => Err(text),
            None => {
                let mut sent = Vec::new();
                for symbol in symbols {
                    let files = files(server(&sets), symbol).await;
                    sent.push(files.expect("reflection answers"));
                }
                Ok(sent)
            }
        };
        let expected = first.get_or_insert_with(|| outcome.clone());
        assert_eq!(*expected, outcome, "in the order {order:?}");
    }
    first.expect("there is an order")
}

#[tokio::test]
async fn two_versions_neither_of_which_has_all_are_an_error_in_any_order() {
    let fields = |fields: &[i32]| vec![file("t.proto", "p", vec![message("A", fields)])];
    let values = |names: &[&str]| {
        let value = |(number, name): (usize, &&str)| EnumValueDescriptorProto {
            name: Some((*name).to_owned()),
            number: i32::try_from(number).ok(),
            options: None,
        };
        let mut file = file("t.proto", "p", Vec::new());
        file.enum_type = vec![EnumDescriptorProto {
            name: Some("E".to_owned()),
            value: names.iter().enumerate().map(value).collect(),
            ..EnumDescriptorProto::default()
        }];
        vec![file]
    };
    for (sets, symbol, one, other) in [
        ([fields(&[1, 2]), fields(&[1, 3])], "A", "A.a2", "A.a3"),
        ([fields(&[1, 2]), fields(&[1, 3, 4])], "A", "A.a2", "A.a3"),
        (
            [values(&["U", "V"]), values(&["U", "W"])],
            "E",
            "E.V",
            "E.W",
        ),
    ] {
        let error = outcome(&sets, &[]).await.expect_err("something is lost");
        assert_eq!(
            error,
            format!(
                "reflection cannot read the descriptors: two files called t.proto define p.{symbol}, and \
                 neither has all that the other has: one lacks p.{one}, the other p.{other}; compile \
                 both from one version of the file, or give them packages of their own"
            )
        );
    }
}

#[tokio::test]
async fn a_field_in_a_oneof_or_with_another_default_is_another_definition() {
    let plain = || file("a.proto", "p", vec![message("M", &[1])]);
    let mut in_oneof = plain();
    in_oneof.message_type[0].field[0].oneof_index = Some(0);
    in_oneof.message_type[0].oneof_decl = vec![OneofDescriptorProto {
        name: Some("choice".to_owned()),
        options: None,
    }];
    let mut with_default = plain();
    with_default.message_type[0].field[0].default_value = Some("7".to_owned());
    for changed in [in_oneof, with_default] {
        let error = outcome(&[vec![plain()], vec![changed]], &[]).await;
        let error = error.expect_err("they contradict one another");
        assert!(
            error.contains("two files called a.proto define p.M.a1 in different ways"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn the_version_that_has_all_is_served_in_any_order() {
    let types = |messages: &[&str]| {
        let messages = messages.iter().map(|name| message(name, &[1])).collect();
        vec![file("types.proto", "p", messages)]
    };
    let all = types(&["A", "B", "C"]);
    for sets in [
        vec![types(&["A", "B"]), types(&["A", "C"]), all.clone()],
        vec![
            types(&["A"]),
            types(&["A", "B"]),
            types(&["A", "C"]),
            all.clone(),
        ],
    ] {
        let served = outcome(&sets, &["p.B", "p.C"]).await;
        assert_eq!(served, Ok(vec![all.clone(), all.clone()]));
    }
    // Nobody has all, and two have nothing in common.
    let named = |name: &str, messages: &[&str]| {
        let mut files = types(messages);
        files[0].name = Some(name.to_owned());
        files
    };
    let sets = [
        named("a.proto", &["A", "B", "C"]),
        named("b.proto", &["C", "D"]),
        named("c.proto", &["D", "E"]),
    ];
    let error = outcome(&sets, &[]).await.expect_err("nobody has all");
    assert!(
        error.contains(
            "a.proto and b.proto define p.C, and neither has all that the other has: a.proto lacks p.D, \
             b.proto p.A;"
        ),
        "{error}"
    );
}

#[tokio::test]
async fn a_file_that_one_crate_has_split_is_served_whole_and_imported_once() {
    let part = |name: &str, messages: &[&str]| {
        let messages = messages.iter().map(|name| message(name, &[1])).collect();
        file(name, "p", messages)
    };
    let whole = part("types.proto", &["A", "B"]);
    let mut user = importing(
        part("user.proto", &["U"]),
        &["a.proto", "other.proto", "b.proto", "more.proto"],
    );
    user.public_dependency = vec![2, 3];
    let split = vec![
        part("a.proto", &["A"]),
        part("b.proto", &["B"]),
        part("other.proto", &["O"]),
        part("more.proto", &["M"]),
        user.clone(),
    ];
    let sent = outcome(&[vec![whole.clone()], split], &["p.U", "p.B"]).await;
    let sent = sent.expect("the whole file can stand for its parts");
    user.dependency = ["types.proto", "other.proto", "more.proto"]
        .map(str::to_owned)
        .to_vec();
    user.public_dependency = vec![0, 2];
    assert_eq!(sent[0][0], user);
    assert_eq!(sent[0].len(), 4);
    assert_eq!(sent[1], [whole]);
}

#[tokio::test]
async fn a_circle_that_comes_of_putting_versions_together_is_an_error_that_says_so() {
    let part = |name: &str, messages: &[&str]| {
        let messages = messages.iter().map(|name| message(name, &[1])).collect();
        file(name, "p", messages)
    };
    let one = vec![
        part("q.proto", &["Q"]),
        importing(part("types.proto", &["A", "B"]), &["q.proto"]),
    ];
    let other = vec![
        part("b.proto", &["B"]),
        importing(part("q.proto", &["Q", "R"]), &["b.proto"]),
    ];
    let error = outcome(&[one, other], &[]).await;
    assert_eq!(
        error.expect_err("no pool takes files that import one another"),
        "reflection cannot read the descriptors: q.proto and types.proto would import one another, since \
         crates bring versions of them whose definitions are spread over files in different ways; compile \
         both from one version of the schema"
    );
}

#[tokio::test]
async fn files_without_definitions_are_one_only_if_their_imports_are() {
    let bring = |package: &str| {
        let common = file("common.proto", package, vec![message("Common", &[1])]);
        let all = importing(file("all.proto", "", Vec::new()), &["common.proto"]);
        let service = file("service.proto", package, vec![message("Request", &[1])]);
        vec![common, all, importing(service, &["all.proto"])]
    };
    let sets = [bring("one"), bring("two"), bring("one")];
    let sent = outcome(&sets, &["one.Request", "two.Request"]).await;
    for (files, package) in sent
        .expect("they can be told apart")
        .iter()
        .zip(["one", "two"])
    {
        assert_eq!(files.len(), 3);
        assert_eq!(files[2].package(), package);
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
        let files = files(server(&sets), &format!("{package}.{symbol}")).await;
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
        vec![message("M", &[1, 2, 4]), message("N", &[1])],
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
        let files = files(server(&sets), "p.A").await.expect("it answers");
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
    let served = outcome(&[vec![plain], vec![with_options.clone()]], &["p.M"]).await;
    assert_eq!(served, Ok(vec![vec![with_options]]));
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
    let files = files(server(&sets), "google.protobuf.FileOptions").await;
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
            "two files called a.proto define p.M, and neither has all that the other has: one lacks p.N, \
             the other p.O",
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
        let status = files(server(&sets), "p.M").await.expect_err("it cannot");
        assert_eq!(status.message(), expected);
    }
}

#[tokio::test]
async fn an_import_from_elsewhere_leads_to_the_file_that_defines_what_is_used() {
    let common = |package: &str| vec![file("common.proto", package, vec![message("Common", &[1])])];
    let mut uses = message("Uses", &[1]);
    uses.field[0].set_type(Type::Message);
    uses.field[0].type_name = Some(".two.Common".to_owned());
    let user = importing(file("user.proto", "", vec![uses]), &["common.proto"]);
    let sets = [common("one"), common("two"), common("three"), vec![user]];
    let sent = outcome(&sets, &["Uses"]).await.expect("all is there");
    assert_eq!(sent[0][1].package(), "two");
    assert_eq!(sent[0][0].dependency, [sent[0][1].name()]);
}
