//! The macro `trunkline::include_proto!`.
//!
//! The macro is a thin layer over `trunkline_build` and expands to the text that a build script would
//! write. Use it through the crate `trunkline`, because generated code refers to `::trunkline`.
//!
//! | function | does |
//! | --- | --- |
//! | [`include_proto!`] | from file names to tokens, or to an error at the name |
//! | `expand` | from file names to text |
//! | `located` | from the place of the macro to that of the name |
//!
//! This crate does not depend on the runtime.

#![cfg_attr(docsrs, feature(doc_cfg))]

use std::env;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use proc_macro::TokenStream;
use proc_macro2::{Group, Span, TokenStream as TokenStream2, TokenTree};
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Ident, LitStr, Token, bracketed, parse_macro_input};
use trunkline_build::{CompileError, Config};

/// Generates the messages, clients and servers of one or more `.proto` files.
///
/// ```no_run
/// # /*
/// mod hello {
///     trunkline::include_proto!("proto/helloworld.proto");
/// }
/// # */
/// # mod hello { trunkline::include_proto!("../../proto/helloworld.proto"); }
///
/// use hello::{Greeter, GreeterClient, GreeterServer, HelloReply, HelloRequest};
/// use trunkline::{Request, Result, Server};
///
/// struct MyGreeter;
///
/// impl Greeter for MyGreeter {
///     async fn say_hello(&self, request: Request<HelloRequest>) -> Result<HelloReply> {
///         Ok(HelloReply { message: format!("Hello {}!", request.name) })
///     }
/// }
///
/// # async fn serve() -> Result<()> {
/// // The server's program:
/// Server::new().add_service(GreeterServer::new(MyGreeter)).serve("127.0.0.1:50051").await
/// # }
///
/// # async fn call() -> Result<()> {
/// // The client's program:
/// let client = GreeterClient::connect("127.0.0.1:50051").await?;
/// let response = client.say_hello(HelloRequest { name: "you".into() }).await?;
/// # drop(response); Ok(()) }
/// ```
///
/// The macro needs no `protoc`, no build script and no dependency other than `trunkline`. It reads
/// proto2, proto3, and editions 2023 and 2024.
///
/// # Paths
///
/// Paths are relative to the directory of `Cargo.toml`. Imports are searched in the directory of the file
/// and its parents, up to the directory of `Cargo.toml`; the files of `google/protobuf` are built in.
/// Cargo compiles the program again if one of the files changes.
///
/// List additional include directories after the files. They are relative to the directory of
/// `Cargo.toml` and are searched first, in order, like those of `Config::include` in a build script.
///
/// ```
/// # /*
/// mod shop {
///     trunkline::include_proto!("proto/shop/orders.proto", includes = ["proto", "vendor/googleapis"]);
/// }
/// # */
/// # fn main() {}
/// ```
///
/// # Generated items
///
/// | in the file | in Rust |
/// | --- | --- |
/// | `message HelloRequest` | a struct with the same fields |
/// | `enum Colour`, `oneof kind` | an enum; items nested in `message Car` are in the module `car` |
/// | `service Greeter` | `GreeterClient`, which makes calls; the trait `Greeter`, whose functions are the handlers; `GreeterServer`, a service for `Server::add_service` that is created from a value with that trait; `GreeterMethods`, which programs rarely name: `GreeterServer<S>` is an alias of `ServiceServer<GreeterMethods, S>` |
/// | each package | `FILE_DESCRIPTORS`, the descriptors of all its files, for server reflection |
/// | a comment | documentation |
///
/// In addition to its calls, a client has the constructors `new(channel)` and `connect(targets).await`, and the
/// methods `channel()`, which returns its channel, and `with_channel(change)`, which replaces the channel, for
/// example by one with an interceptor. It is cheap to clone.
///
/// A method has one of four types, depending on the word `stream`:
///
/// | method | handler | call |
/// | --- | --- | --- |
/// | `rpc A(Q) returns (R)` | `async fn a(&self, request: Request<Q>) -> Result<R>` | `client.a(q).await?` is a `Response<R>` |
/// | `rpc A(Q) returns (stream R)` | `async fn a(&self, request: Request<Q>, responses: &mut Sender<R>) -> Result<()>` | `client.a(q).await?` is a `Streaming<R>` |
/// | `rpc A(stream Q) returns (R)` | `async fn a(&self, requests: Request<Streaming<Q>>) -> Result<R>` | `client.a().await?` is a `ClientStream<Q, R>` |
/// | `rpc A(stream Q) returns (stream R)` | `async fn a(&self, requests: Request<Streaming<Q>>, responses: &mut Sender<R>) -> Result<()>` | `client.a().await?` is a `(Sender<Q>, Streaming<R>)` |
///
/// `google.protobuf.Empty` is `()`, and wrappers such as `google.protobuf.StringValue` are `String` and
/// so on; the other types of that package are in `trunkline::prost_types`.
///
/// # Names
///
/// Names follow Rust's conventions: `say_hello` for the method `SayHello`. Names that Rust or Trunkline
/// itself uses are changed:
///
/// - A Rust keyword becomes a raw identifier, such as `r#type`, or gets a trailing underscore where Rust
///   does not allow a raw identifier, such as `self_`.
/// - A method of a client gets a trailing underscore if it would be called `new`, `connect`, `channel`,
///   `with_channel`, `clone`, `into` or `try_into`.
/// - If a message is called `Greeter`, `GreeterClient`, `GreeterServer` or `GreeterMethods`, the items of
///   the service `Greeter` are called `GreeterService`, `GreeterServiceClient`, `GreeterServiceServer` and
///   `GreeterServiceMethods`.
/// - If several names become the same name in Rust, such as `FooBar` and `foo_bar`, the first keeps it,
///   and the others get a trailing underscore.
///
/// # Several packages, several files
///
/// If the file imports files of another package, each package becomes a module with its name, and the
/// items of the file's own package are re-exported: `hello::Greeter` is also
/// `hello::helloworld::Greeter`, and an imported status is `hello::google::rpc::Status`.
///
/// Each use of the macro creates distinct types. List files that share types in one use:
///
/// ```
/// # /*
/// mod shop {
///     trunkline::include_proto!("proto/shop/orders.proto", "proto/shop/customers.proto");
/// }
/// # */
/// # fn main() {}
/// ```
///
/// Files of the same package share one module. If the files belong to several packages, all items are in
/// modules named after their packages: `shop::orders::v1::Order`.
///
/// # Errors
///
/// An error in a `.proto` file becomes a compiler error with the file, the line and the column.
///
/// # Options
///
/// The macro has no options other than include paths. To use `Vec<u8>` instead of `Bytes`, to add
/// attributes to types, to generate only clients or only servers, or to use types of other crates, use
/// `trunkline_build::Config` in a build script. It generates the same code.
#[proc_macro]
pub fn include_proto(input: TokenStream) -> TokenStream {
    let Input { files, includes } = parse_macro_input!(input as Input);
    let place = files.first().map_or_else(Span::call_site, LitStr::span);
    let base = env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from("."), PathBuf::from);
    let values = |texts: Vec<LitStr>| texts.iter().map(LitStr::value).collect::<Vec<String>>();
    let expanded = expand(&base, &values(files), &values(includes));
    let expanded = expanded.map_err(|error| error.to_string());
    let parsed = expanded.and_then(|text| {
        let tokens = TokenStream2::from_str(&text);
        tokens.map_err(|error| error.to_string())
    });
    match parsed {
        Ok(tokens) => located(tokens, place).into(),
        Err(message) => syn::Error::new(place, message).into_compile_error().into(),
    }
}

/// The arguments of the macro.
struct Input {
    files: Vec<LitStr>,
    includes: Vec<LitStr>,
}

impl Parse for Input {
    /// `"a.proto", "b.proto", includes = ["proto"]`
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let (mut files, mut includes) = (Vec::new(), Vec::new());
        while !input.is_empty() {
            if input.peek(Ident) {
                let name: Ident = input.parse()?;
                if name != "includes" {
                    let message = format!("`{name}` is not known; say includes = [\"..\"]");
                    return Err(syn::Error::new(name.span(), message));
                }
                input.parse::<Token![=]>()?;
                let list;
                bracketed!(list in input);
                let list = Punctuated::<LitStr, Token![,]>::parse_terminated(&list)?;
                includes.extend(list);
            } else {
                files.push(input.parse()?);
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(Self { files, includes })
    }
}

/// Returns the Rust of `files`, with the text that makes rustc read them again if they change.
fn expand(base: &Path, files: &[String], includes: &[String]) -> Result<String, CompileError> {
    let config = Config::new().base_dir(base).unformatted();
    // What the runtime has: its features `client` and `server` are passed on.
    let config = match (cfg!(feature = "client"), cfg!(feature = "server")) {
        (true, false) => config.client_only(),
        (false, true) => config.server_only(),
        (true, true) | (false, false) => config,
    };
    let config = includes
        .iter()
        .fold(config, |config, dir| config.include(dir));
    let generated = config.generate(files)?;
    let mut text = generated.nested();
    for source in generated.sources() {
        // A macro has no other way on stable Rust to tell what it has read.
        text.push_str(&format!(
            "const _: &[u8] = ::core::include_bytes!({source:?});\n"
        ));
    }
    Ok(text)
}

/// Moves all tokens to the span of the file name.
///
/// So they are the user's own code for every lint, as those of an included file are. At the place of
/// the macro, rustc would take the use of a deprecated field in a derived `impl` for the user's.
fn located(tokens: TokenStream2, place: Span) -> TokenStream2 {
    let tokens = tokens.into_iter().map(|mut token| {
        if let TokenTree::Group(group) = &token {
            token = Group::new(group.delimiter(), located(group.stream(), place)).into();
        }
        token.set_span(place);
        token
    });
    tokens.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The directory of the workspace, from that of this crate, where its tests run.
    const WORKSPACE: &str = "../..";

    #[test]
    fn the_macro_and_a_build_script_give_the_same_code() {
        for file in ["proto/helloworld.proto", "proto/route_guide.proto"] {
            let text = expand(Path::new(WORKSPACE), &[file.to_owned()], &[]).expect("it is right");
            let generated = Config::new().base_dir(WORKSPACE).generate([file]);
            let generated = generated.expect("it is right");
            let (_, written) = generated.packages().next().expect("there is a package");
            let tracked = text.find("const _: &[u8] = ::core::include_bytes!(\"");
            let (text, tracked) = text.split_at(tracked.expect("the file is tracked"));
            assert_eq!(tracked.lines().count(), 1, "one file was read");
            let laid_out = |text| {
                let file = syn::parse_file(text).expect("it is Rust");
                prettyplease::unparse(&file)
            };
            assert_eq!(laid_out(text), laid_out(written));
        }
    }

    #[test]
    fn every_file_that_is_read_is_tracked() {
        let base = Path::new("../build/tests/proto");
        let text = expand(base, &["nasty/nasty.proto".to_owned()], &[]).expect("it is right");
        for file in ["nasty.proto", "legacy.proto", "other/type.proto"] {
            let tracked = text.lines().filter(|line| line.contains("include_bytes!"));
            let end = format!("/nasty/{file}\");");
            assert_eq!(
                tracked.filter(|line| line.ends_with(&end)).count(),
                1,
                "{file}"
            );
        }
    }

    #[test]
    fn an_error_is_that_of_the_compiler() {
        let error = expand(
            Path::new(WORKSPACE),
            &["proto/nothing.proto".to_owned()],
            &[],
        );
        let error = error.expect_err("there is no such file").to_string();
        assert!(
            error.starts_with("proto/nothing.proto: no such file in "),
            "{error}"
        );
    }

    #[test]
    fn include_paths_come_behind_the_files() {
        let parse = |text: &str| syn::parse_str::<Input>(text);
        let values = |texts: &[LitStr]| texts.iter().map(LitStr::value).collect::<Vec<_>>();
        for (text, files, includes) in [
            ("\"a\"", &["a"][..], &[][..]),
            ("\"a\", \"b\",", &["a", "b"], &[]),
            ("\"a\", includes = [\"c\", \"d\"]", &["a"], &["c", "d"]),
            ("\"a\", includes = [\"c\",],", &["a"], &["c"]),
        ] {
            let input = parse(text).expect("it is right");
            assert_eq!(values(&input.files), files, "{text}");
            assert_eq!(values(&input.includes), includes, "{text}");
        }
        let error = parse("\"a\", include = [\"c\"]").map(|_| ());
        let error = error.expect_err("the name is another").to_string();
        assert_eq!(error, "`include` is not known; say includes = [\"..\"]");
    }

    #[test]
    fn an_include_path_is_searched_as_in_a_build_script() {
        let files = ["trees/app/app.proto".to_owned()];
        let base = Path::new("tests");
        let error = expand(base, &files, &[]).expect_err("the import lies elsewhere");
        assert!(
            error
                .message()
                .starts_with("import 'parts/part.proto' not found; looked in "),
            "{error}"
        );
        let text = expand(base, &files, &["trees/vendor".to_owned()]).expect("it is found");
        assert!(text.contains("pub struct Part"), "{text}");
        let nowhere = expand(base, &files, &["nowhere".to_owned()]);
        let error = nowhere.expect_err("there is no such directory");
        assert_eq!(error.message(), "include path is not a directory");
    }
}
