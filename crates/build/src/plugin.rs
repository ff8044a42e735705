//! `protoc-gen-trunkline`, the plugin for protoc and buf.
//!
//! Its output equals that of a build script byte for byte, except for the descriptors of files with
//! options that protoc leaves out of descriptors (source retention) or with features of other
//! languages.
//!
//! plugin.proto: a plugin reads a `CodeGeneratorRequest` from standard input and writes a
//! `CodeGeneratorResponse` to standard output. Errors in files and in the parameter are part of the
//! response; the program fails only if the request cannot be decoded.

use std::env;
use std::io::{self, Read, Write};
use std::process::ExitCode;

use prost::Message;

use crate::config::Config;
use crate::descriptors::Loaded;
use crate::error::CompileError;
use crate::generate::Layout;
use crate::source::Edition;

const USAGE: &str = "\
protoc-gen-trunkline is started by protoc or buf, with a request on its standard input:

    protoc --trunkline_out=src/gen --trunkline_opt=include_file=mod.rs shop/v1/orders.proto

or in buf.gen.yaml:

    version: v2
    plugins:
      - local: protoc-gen-trunkline
        out: src/gen
        strategy: all
        opt: [include_file=mod.rs]
";

/// Runs `protoc-gen-trunkline`: reads protoc's request from standard input and writes the response to
/// standard output. Returns the exit code for `main`.
///
/// `cargo install trunkline-build` installs the program. It writes one file for each package that
/// contains a file named on protoc's command line: `shop.v1.rs` for `shop.v1`. buf runs a plugin once
/// per directory by default. Set `strategy: all` if you use `include_file`, or if the files of one
/// package are in several directories.
///
/// # Parameters
///
/// Each parameter corresponds to a method of [`Config`], as in
/// `--trunkline_opt=client_only,vec_bytes=.`:
///
/// | parameter | method |
/// | --- | --- |
/// | `client_only`, `server_only`, `messages_only`, `default_bodies` | of the same name |
/// | `retain_enum_prefix` | of the same name |
/// | `vec_bytes=PATH`, `btree_map=PATH` | of the same name |
/// | `extern_path=PATH=RUST` | of the same name |
/// | `rename=PATH=NAME` | of the same name |
/// | `type_attribute=PATH=ATTRIBUTE`, and `message_`, `enum_` and `field_attribute` | of the same name |
/// | `include_file=NAME` | of the same name; the file includes the others from its own directory |
///
/// Commas inside brackets or quotes do not separate parameters.
pub fn protoc_plugin() -> ExitCode {
    if let Some(argument) = env::args().nth(1) {
        return match argument.as_str() {
            "--version" => print(concat!(
                "protoc-gen-trunkline ",
                env!("CARGO_PKG_VERSION"),
                "\n"
            )),
            "--help" | "-h" => print(USAGE),
            _ => failed(&format!("{argument} is not known; {USAGE}")),
        };
    }
    let mut request = Vec::new();
    if let Err(error) = io::stdin().lock().read_to_end(&mut request) {
        return failed(&format!("cannot read the request: {error}"));
    }
    let response = match answer(&request) {
        Ok(response) => response,
        Err(error) => return failed(&error.to_string()),
    };
    match io::stdout().lock().write_all(&response) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&format!("cannot write the response: {error}")),
    }
}

fn print(text: &str) -> ExitCode {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn failed(message: &str) -> ExitCode {
    eprintln!("protoc-gen-trunkline: {message}");
    ExitCode::FAILURE
}

/// The serialized response to a serialized request.
fn answer(request: &[u8]) -> Result<Vec<u8>, CompileError> {
    let request = Request::decode(request)
        .map_err(|error| CompileError::new(format!("not a request of protoc: {error}")))?;
    let mut response = Response {
        supported_features: Some(PROTO3_OPTIONAL | SUPPORTS_EDITIONS),
        minimum_edition: Some(EDITION_PROTO2),
        maximum_edition: Edition::ALL.iter().map(|it| it.number()).max(),
        ..Response::default()
    };
    match generated(request) {
        Ok(files) => response.file = files,
        Err(error) => response.error = Some(error.to_string()),
    }
    Ok(response.encode_to_vec())
}

fn generated(request: Request) -> Result<Vec<ResponseFile>, CompileError> {
    let (config, include_file) = configured(&request.parameter)?;
    let named = request.file_to_generate;
    let loaded = Loaded::from_encoded(request.proto_file, |_, name| {
        named.iter().any(|it| it == name)
    })?;
    let layout = Layout {
        is_tree: include_file.is_some(),
        only_named: true,
        is_unformatted: false,
    };
    let generated = config.layout(layout).generate_loaded(loaded)?;
    let mut files: Vec<ResponseFile> = generated
        .named_files()
        .map(|(name, content)| ResponseFile { name, content })
        .collect();
    files.extend(include_file.map(|name| ResponseFile {
        name,
        content: generated.tree_of_named(),
    }));
    Ok(files)
}

/// What the parameter says, and the name of the file that includes the others.
fn configured(parameter: &str) -> Result<(Config, Option<String>), CompileError> {
    let mut config = Config::new();
    let mut include_file = None;
    for parameter in split(parameter) {
        let (key, value) = match parameter.split_once('=') {
            Some((key, value)) => (key.trim(), Some(value.trim())),
            None => (parameter, None),
        };
        let one = || value.ok_or_else(|| misused(key, "=VALUE"));
        let two = || {
            let pair = value.and_then(|value| value.split_once('='));
            pair.ok_or_else(|| misused(key, "=PATH=VALUE"))
        };
        let none = || match value {
            None => Ok(()),
            Some(_) => Err(misused(key, "")),
        };
        config = match key {
            "client_only" => none().map(|()| config.client_only())?,
            "server_only" => none().map(|()| config.server_only())?,
            "messages_only" => none().map(|()| config.messages_only())?,
            "default_bodies" => none().map(|()| config.default_bodies())?,
            "retain_enum_prefix" => none().map(|()| config.retain_enum_prefix())?,
            "vec_bytes" => config.vec_bytes(one()?),
            "btree_map" => config.btree_map(one()?),
            "rename" => two().map(|(path, name)| config.rename(path, name))?,
            "extern_path" => two().map(|(path, rust)| config.extern_path(path, rust))?,
            "type_attribute" => two().map(|(path, it)| config.type_attribute(path, it))?,
            "message_attribute" => two().map(|(path, it)| config.message_attribute(path, it))?,
            "enum_attribute" => two().map(|(path, it)| config.enum_attribute(path, it))?,
            "field_attribute" => two().map(|(path, it)| config.field_attribute(path, it))?,
            "include_file" => {
                include_file = Some(one()?.to_owned());
                config
            }
            _ => return Err(unknown(key)),
        };
    }
    Ok((config, include_file))
}

fn misused(key: &str, value: &str) -> CompileError {
    CompileError::new(format!("parameter {key} is written {key}{value}"))
}

fn unknown(key: &str) -> CompileError {
    CompileError::new(match key {
        "file_descriptor_set" => {
            "parameter file_descriptor_set is not for plugins, which write text; \
                                  give protoc --descriptor_set_out, or buf build -o"
                .to_owned()
        }
        _ => format!(
            "parameter {key} is not known; there are client_only, server_only, messages_only, default_bodies, \
             retain_enum_prefix, vec_bytes, btree_map, rename, extern_path, type_attribute, \
             message_attribute, enum_attribute, field_attribute and include_file"
        ),
    })
}

/// The parts of a parameter between commas, but for those within brackets and quotes.
fn split(parameter: &str) -> Vec<&str> {
    let (mut depth, mut quoted, mut start) = (0_usize, false, 0);
    let mut parts = Vec::new();
    for (at, c) in parameter.char_indices() {
        match c {
            '"' => quoted = !quoted,
            _ if quoted => {}
            '(' | '[' | '{' | '<' => depth += 1,
            ')' | ']' | '}' | '>' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&parameter[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&parameter[start..]);
    let parts = parts.into_iter().map(str::trim);
    parts.filter(|part| !part.is_empty()).collect()
}

/// plugin.proto, `CodeGeneratorResponse.Feature`.
const PROTO3_OPTIONAL: u64 = 1;
const SUPPORTS_EDITIONS: u64 = 2;
/// descriptor.proto, `Edition`: the oldest syntax counts as one.
const EDITION_PROTO2: i32 = 998;

/// `google.protobuf.compiler.CodeGeneratorRequest`, with its files left as bytes.
#[derive(Clone, PartialEq, Message)]
struct Request {
    #[prost(string, repeated, tag = "1")]
    file_to_generate: Vec<String>,
    #[prost(string, tag = "2")]
    parameter: String,
    #[prost(bytes = "vec", repeated, tag = "15")]
    proto_file: Vec<Vec<u8>>,
}

/// `google.protobuf.compiler.CodeGeneratorResponse`; that of prost-types has no editions.
#[derive(Clone, PartialEq, Message)]
struct Response {
    #[prost(string, optional, tag = "1")]
    error: Option<String>,
    #[prost(uint64, optional, tag = "2")]
    supported_features: Option<u64>,
    #[prost(int32, optional, tag = "3")]
    minimum_edition: Option<i32>,
    #[prost(int32, optional, tag = "4")]
    maximum_edition: Option<i32>,
    #[prost(message, repeated, tag = "15")]
    file: Vec<ResponseFile>,
}

#[derive(Clone, PartialEq, Message)]
struct ResponseFile {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "15")]
    content: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_split_at_commas_outside_of_brackets_and_quotes() {
        let cases: [(&str, &[&str]); 5] = [
            ("", &[]),
            ("a", &["a"]),
            ("a=b, c,,d=e", &["a=b", "c", "d=e"]),
            (
                "t=.A=#[derive(Eq, Hash)],f=.b=#[x(y = \"a,)\")],z",
                &["t=.A=#[derive(Eq, Hash)]", "f=.b=#[x(y = \"a,)\")]", "z"],
            ),
            ("p=.a=::b::C<D, E>,q", &["p=.a=::b::C<D, E>", "q"]),
        ];
        for (parameter, parts) in cases {
            assert_eq!(split(parameter), parts, "{parameter}");
        }
    }

    #[test]
    fn a_parameter_that_is_wrong_is_told_with_what_is_right() {
        let cases = [
            (
                "vec_bytes",
                "parameter vec_bytes is written vec_bytes=VALUE",
            ),
            (
                "client_only=x",
                "parameter client_only is written client_only",
            ),
            (
                "extern_path=.a",
                "parameter extern_path is written extern_path=PATH=VALUE",
            ),
            (
                "vec_byte=.",
                "parameter vec_byte is not known; there are client_only, server_only, messages_only, default_bodies, \
                 retain_enum_prefix, vec_bytes, btree_map, rename, extern_path, type_attribute, \
                 message_attribute, enum_attribute, field_attribute and include_file",
            ),
            (
                "file_descriptor_set=a",
                "parameter file_descriptor_set is not for plugins, which write text; give protoc \
                 --descriptor_set_out, or buf build -o",
            ),
        ];
        for (parameter, message) in cases {
            let error = configured(parameter).expect_err("it is wrong");
            assert_eq!(error.to_string(), message);
        }
    }

    #[test]
    fn a_response_tells_which_editions_are_known() {
        let response = answer(&Request::default().encode_to_vec()).expect("it is a request");
        let response = Response::decode(response.as_slice()).expect("it is a response");
        assert_eq!(response.error, None);
        assert_eq!(response.supported_features, Some(3));
        assert_eq!(response.minimum_edition, Some(998));
        assert_eq!(response.maximum_edition, Some(1001));
        assert!(answer(b"\xff").is_err());
    }
}
