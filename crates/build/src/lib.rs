//! Compiles `.proto` files into Rust for trunkline, without `protoc`.
//!
//! Most programs do not need this crate: `trunkline::include_proto!("proto/helloworld.proto")`
//! expands to the same code. Use a build script for options that the macro does not offer, or to
//! keep the generated files where you can read them. Add this crate to `[build-dependencies]`:
//!
//! ```no_run
//! // build.rs
//! fn main() -> Result<(), trunkline_build::CompileError> {
//!     trunkline_build::compile(["proto/helloworld.proto"])
//! }
//! ```
//!
//! This writes one file per package, here `helloworld.rs`. Include it in a module:
//!
//! ```
//! # /*
//! mod hello {
//!     include!(concat!(env!("OUT_DIR"), "/helloworld.rs"));
//! }
//! # */
//! # fn main() {}
//! ```
//!
//! Generated code refers to the types of another package as `super::other::Type`, so packages that
//! use each other's types must be modules named after them. [`Config::include_file`] writes a file
//! that declares these modules.
//!
//! # Generated code
//!
//! Messages, enums and oneofs are those of prost. A service `Greeter` becomes:
//!
//! | item | description |
//! | --- | --- |
//! | `GreeterClient` | a client with the constructors `connect` and `new`, `channel` and `with_channel` for its channel, and one method per RPC |
//! | `Greeter` | a trait for handlers; implement its methods as `async fn` |
//! | `GreeterServer::new(handlers)` | the service, to be added to a server |
//! | `GreeterMethods` | a type that programs rarely name: `GreeterServer<S>` is an alias of `ServiceServer<GreeterMethods, S>` |
//!
//! Each package with a service, and each package of a file that you name, also gets `FILE_DESCRIPTORS`:
//! the serialized definitions of its files and their imports, which server reflection uses. A program
//! contains the descriptor of each file only once. All paths in generated code begin with `::trunkline`,
//! `::core` or `::std`, so your crate needs no dependency except `trunkline`.
//!
//! Comments become documentation. They are escaped rather than interpreted as Markdown: code in a
//! comment never runs as a doctest, and links and tags appear as text.
//!
//! Names that are Rust keywords become raw identifiers (`r#type`), or get a trailing underscore (`self_`) where
//! Rust does not allow a raw identifier. A client method gets a trailing underscore if it would be called
//! `new`, `connect`, `channel`, `with_channel`, `clone`, `into` or `try_into`. If a message has the name of an
//! item of the service (`Greeter`, `GreeterClient`, `GreeterServer` or `GreeterMethods`), the items of the
//! service begin with `GreeterService` instead. If several names become the same Rust name, as `FooBar` and
//! `foo_bar` do, all but the first get a trailing underscore; [`Config::rename`] sets other names.
//!
//! # proto2 and editions
//!
//! Files of proto2, proto3 and the editions 2023 and 2024 can import each other. The features of an
//! edition that affect the encoding are supported: presence, packing and delimited (group) encoding.
//! Features for other languages are ignored, and rules that only protoc enforces
//! (`enforce_naming_style`, `export`, `local`) are not checked. `FILE_DESCRIPTORS` keeps the edition
//! of a file. No code is generated for extensions. Fields of a closed enum keep unknown values, as those of
//! an open enum do.
//!
//! # protoc and buf
//!
//! If your build already uses protoc or buf, [`protoc-gen-trunkline`](protoc_plugin) generates the
//! same Rust, and [`Config::compile_descriptor_set`] reads the descriptors that they write.
//!
//! # Modules
//!
//! | module | holds |
//! | --- | --- |
//! | `config` | the options, and the files that are written |
//! | `bytes` | which fields are `Bytes` and which are `Vec<u8>` |
//! | `boxes` | recursive groups, which need a `Box` |
//! | `load` | resolution of imports, names of files, reading of files |
//! | `tokens`, `scan`, `source` | the text of a file, edited so that the compiler can read it |
//! | `link` | from files and their imports to descriptors |
//! | `symbols`, `absolute`, `options` | names in descriptors, made absolute by the rules of protoc |
//! | `defaults` | default values of floating-point fields |
//! | `maps` | maps in option values, in order |
//! | `numbers` | the extensions of message sets |
//! | `descriptors` | the files to generate from, and those of a descriptor set |
//! | `features` | the features of editions, translated for prost-build |
//! | `enums` | checks of enum fields across files |
//! | `well_known` | types of `google.protobuf` that prost-types lacks |
//! | `raw` | lossless edits of serialized descriptors |
//! | `generate` | from descriptors to the text of each package |
//! | `service` | the text of a service |
//! | `names`, `accessors`, `markers` | Rust names of items and of field accessors, and how prost-build is made to use them |
//! | `json` | fields that share a JSON name |
//! | `carried` | the module that holds the descriptor of each file |
//! | `docs` | from comments to documentation |
//! | `modules` | packages as nested modules |
//! | `plugin` | the plugin for protoc and buf |
//! | `error` | errors, each on one line |
//!
//! This crate does not depend on the runtime: it prints the path `::trunkline`. It generates data,
//! signatures and one-line calls, never a loop or a decision.

#![cfg_attr(docsrs, feature(doc_cfg))]

/// Compiles the examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadMe;

mod absolute;
mod accessors;
mod boxes;
mod bytes;
mod carried;
mod config;
mod defaults;
mod descriptors;
mod docs;
mod enums;
mod error;
mod features;
mod generate;
mod json;
mod link;
mod load;
mod maps;
mod markers;
mod modules;
mod names;
mod numbers;
mod options;
mod plugin;
mod raw;
mod scan;
mod service;
mod source;
mod symbols;
mod tokens;
mod well_known;

pub use config::Config;
pub use error::CompileError;
pub use generate::Generated;
pub use plugin::protoc_plugin;
/// The generator of messages; see [`Config::prost`].
pub use prost_build;

use std::path::Path;

/// Generates Rust from `files` and writes one file per package to `OUT_DIR`. Call it from `build.rs`.
///
/// Relative paths start at the directory of `Cargo.toml`. Use [`Config`] to set options.
///
/// ```no_run
/// // build.rs
/// fn main() -> Result<(), trunkline_build::CompileError> {
///     trunkline_build::compile(["proto/helloworld.proto"])
/// }
/// ```
///
/// # Errors
///
/// Returns an error if a file cannot be found, read or compiled, or if the output cannot be written.
pub fn compile<P: AsRef<Path>>(files: impl IntoIterator<Item = P>) -> Result<(), CompileError> {
    Config::new().compile(files)
}
