//! Generated code compiles without a warning, however hard its `.proto` file makes that, both where
//! the macro is and as the stored text; and its names lead to the right handlers.

#![deny(
    dead_code,
    deprecated,
    missing_debug_implementations,
    missing_docs,
    unreachable_pub,
    unused,
    clippy::all,
    clippy::nursery,
    clippy::pedantic
)]

use nasty::nasty::legacy::{Old, old};
use nasty::nasty::other::r#type::{Thing, thing};
use nasty::outer::inner::Deepest;
use nasty::{Foo, Keywords, KeywordsClient, KeywordsServer};
use trunkline::{Channel, Request, Result, Sender, Server, Streaming, prost_types};

/// By the macro, in a module that others see, where documentation would be missing.
pub mod nasty {
    trunkline::include_proto!("../build/tests/proto/nasty/nasty.proto");
}

/// The text that a build script writes.
pub mod nasty_text {
    include!("../../build/tests/golden/nasty.rs");
}

/// The same for files of one package.
pub mod route_guide {
    trunkline::include_proto!("../../proto/route_guide.proto");
}

/// The same for files of one package.
pub mod route_guide_text {
    include!("../../build/tests/golden/route_guide.rs");
}

/// Two files in one place.
mod both {
    trunkline::include_proto!(
        "../../proto/helloworld.proto",
        "../../proto/route_guide.proto"
    );
}

/// A file whose import lies in a directory of its own.
mod apart {
    trunkline::include_proto!(
        "tests/trees/app/app.proto",
        includes = ["tests/trees/app", "tests/trees/vendor"]
    );
}

/// Types that prost-types lacks.
mod editions {
    trunkline::include_proto!("tests/trees/app/editions.proto");
}

/// Nobody uses anything of it.
mod unused {
    include!("../../build/tests/golden/helloworld.rs");
}

struct Echo;

impl Keywords for Echo {
    async fn r#type(&self, request: Request<nasty::outer::Inner>) -> Result<Deepest> {
        Ok(request.into_inner().deepest.unwrap_or_default())
    }

    async fn self_(&self, _: Request<nasty::Self_>) -> Result<nasty::Option> {
        Ok(nasty::Option {})
    }

    async fn super_(
        &self,
        _: Request<nasty::Result>,
        responses: &mut Sender<nasty::Request>,
    ) -> Result<()> {
        responses.send(nasty::Request {}).await
    }

    async fn r#async(
        &self,
        mut requests: Request<Streaming<nasty::Send>>,
        responses: &mut Sender<nasty::Future>,
    ) -> Result<()> {
        while requests.message().await?.is_some() {
            responses.send(nasty::Future {}).await?;
        }
        Ok(())
    }

    async fn new(&self, mut requests: Request<Streaming<nasty::String>>) -> Result<nasty::S> {
        while requests.message().await?.is_some() {}
        Ok(nasty::S {})
    }

    async fn connect(&self, _: Request<()>) -> Result<String> {
        Ok("connected".to_owned())
    }

    async fn clone(&self, request: Request<Vec<u8>>) -> Result<prost_types::Timestamp> {
        let seconds = i64::from(request[0]);
        Ok(prost_types::Timestamp { seconds, nanos: 0 })
    }

    async fn into(&self, _: Request<prost_types::Any>, responses: &mut Sender<()>) -> Result<()> {
        responses.send(()).await
    }

    async fn try_into(&self, request: Request<Foo>) -> Result<Foo> {
        Ok(request.into_inner())
    }

    async fn drop(
        &self,
        mut requests: Request<Streaming<bool>>,
        responses: &mut Sender<prost_types::Duration>,
    ) -> Result<()> {
        while let Some(request) = requests.message().await? {
            let seconds = i64::from(request);
            responses
                .send(prost_types::Duration { seconds, nanos: 0 })
                .await?;
        }
        Ok(())
    }

    async fn fmt(&self, _: Request<prost_types::Struct>) -> Result<prost_types::FieldMask> {
        Ok(prost_types::FieldMask::default())
    }

    async fn eq(&self, request: Request<Thing>) -> Result<thing::Part> {
        Ok(request.into_inner().parts.remove(0))
    }

    async fn as_ref(&self, request: Request<Old>) -> Result<old::Group> {
        Ok(request.into_inner().group.remove(0))
    }

    async fn to_string(
        &self,
        _: Request<Streaming<Thing>>,
        responses: &mut Sender<Old>,
    ) -> Result<()> {
        responses.send(Old::default()).await
    }

    async fn lower_case(&self, request: Request<Foo>) -> Result<Foo> {
        Ok(request.into_inner())
    }

    async fn http_get2_url(&self, request: Request<Foo>) -> Result<Foo> {
        Ok(request.into_inner())
    }
}

#[tokio::test]
async fn methods_named_like_those_of_rust_are_called_all_the_same() -> Result<()> {
    let channel = Channel::in_process(Server::new().add_service(KeywordsServer::new(Echo)));
    let client = KeywordsClient::new(channel);

    let deepest = Deepest {
        raw: vec![1, 2].into(),
    };
    let inner = nasty::outer::Inner {
        deepest: Some(deepest.clone()),
        back: None,
    };
    assert_eq!(client.r#type(inner).await?.into_inner(), deepest);
    client.self_(nasty::Self_ {}).await?;
    assert!(
        client
            .super_(nasty::Result {})
            .await?
            .message()
            .await?
            .is_some()
    );

    let (mut requests, mut responses) = client.r#async().await?;
    requests.send(nasty::Send {}).await?;
    assert!(responses.message().await?.is_some());
    requests.finish();
    assert!(responses.message().await?.is_none());

    let requests = client.new_().await?;
    requests.finish().await?;
    assert_eq!(client.connect_(()).await?.into_inner(), "connected");
    assert_eq!(client.clone_(vec![7]).await?.seconds, 7);
    assert!(client.try_into_(Foo { again: None }).await?.again.is_none());
    assert!(
        client
            .into_(prost_types::Any::default())
            .await?
            .message()
            .await?
            .is_some()
    );

    let old = Old {
        group: vec![old::Group {
            member: Some("m".to_owned()),
        }],
        ..Old::default()
    };
    assert_eq!(client.as_ref(old).await?.member(), "m");
    assert_eq!(
        client
            .http_get2_url(Foo { again: None })
            .await?
            .into_inner(),
        Foo::default()
    );
    Ok(())
}

#[test]
fn clients_and_servers_of_one_service_agree_on_its_name() {
    use trunkline::Service;

    assert_eq!(KeywordsServer::<Echo>::NAME, "nasty.v1.Keywords");
}

#[test]
fn a_message_knows_its_name_and_packs_into_any() {
    let any = prost_types::Any::from_msg(&Foo { again: None }).expect("it encodes");
    assert_eq!(any.type_url, "type.googleapis.com/nasty.v1.Foo");
}

#[test]
fn the_descriptors_are_those_of_the_named_file_and_its_imports() {
    let set = nasty::FILE_DESCRIPTORS.with_imports();
    assert_eq!(set, nasty_text::FILE_DESCRIPTORS.with_imports());
    let set = set.concat();
    let names = [
        "google/protobuf/any.proto",
        "nasty/legacy.proto",
        "nasty/nasty.proto",
    ];
    for name in names {
        // As the first field of a file, not as an import.
        let length = char::from_u32(name.len().try_into().expect("it is short"));
        let name = format!("\n{}{name}", length.expect("it is ASCII"));
        let parts = set.windows(name.len());
        let times = parts.filter(|part| *part == name.as_bytes()).count();
        assert_eq!(times, 1, "{name:?}");
    }
}

#[test]
fn an_import_is_found_in_an_include_path() {
    let part = Some(apart::parts::Part::default());
    assert!(apart::App { part }.part.is_some());
}

#[test]
fn types_of_google_protobuf_that_prost_types_lacks_are_generated() {
    use editions::google::protobuf::{Edition, FeatureSet, feature_set::FieldPresence};

    let message = editions::Known {
        edition: Some(Edition::Edition2023.into()),
        features: Some(FeatureSet::default()),
        presence: Some(FieldPresence::Implicit.into()),
        time: Some(prost_types::Timestamp::default()),
        text: Some(String::new()),
        file: Some(prost_types::FileDescriptorProto::default()),
        ..editions::Known::default()
    };
    assert_eq!(message.edition(), Edition::Edition2023);
    assert_eq!(message.presence(), FieldPresence::Implicit);
}
