//! Compiles `.proto` files into Rust for trunkline, without `protoc`.
//!
//! Most programs need none of this: `trunkline::include_proto!("proto/helloworld.proto")` puts the
//! same code into a module. A build script is for choices that a macro does not offer, and for
//! files that you want to look at. It needs this crate under `[build-dependencies]`:
//!
//! ```no_run
//! // build.rs
//! fn main() -> Result<(), trunkline_build::CompileError> {
//!     trunkline_build::compile(["proto/helloworld.proto"])
//! }
//! ```
//!
//! This writes a file for each package, here `helloworld.rs`, to be included in a module:
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
//! Packages that use one another's types must be modules by their names, since generated code says
//! `super::other::Type`. [`Config::include_file`] writes a file that holds them all in this way.
//!
//! # What is generated
//!
//! Messages, enums and oneofs as prost has them. For a service `Greeter`:
//!
//! | item | is |
//! | --- | --- |
//! | `GreeterClient` | a client: `connect`, `new`, and a method for each of the service |
//! | `Greeter` | a trait for handlers, to be implemented with `async fn` |
//! | `GreeterServer(handlers)` | what a server or a router adds |
//!
//! And for each package of a named file, or with a service, `FILE_DESCRIPTORS`: its descriptors, which
//! the services take along for reflection. Each file's are there once; other packages refer to them. All paths begin with `::trunkline`, `::core` or
//! `::std`: users need no other crate.
//!
//! Comments become documentation. They are not trusted to be Markdown: code in them is never a
//! doctest, and what looks like a link or a tag is text.
//!
//! A name that is a keyword becomes `r#type`, or `self_` where Rust allows no such thing. A client's
//! methods end in `_` if they would be `new`, `connect`, `clone`, `into` or `try_into`. Where `Greeter`,
//! `GreeterClient` or `GreeterServer` is the name of a message too, the three begin with
//! `GreeterService`. Of names that are one in Rust, such as `FooBar` and `foo_bar`, all but the first
//! end in `_`; [`Config::rename`] chooses others.
//!
//! # proto2 and editions
//!
//! Files of proto2, proto3 and the editions 2023 and 2024 may import one another. Of an edition,
//! the features that decide what is sent are obeyed: presence, packing, groups. Those of other
//! languages are left out, and what only protoc checks (`enforce_naming_style`, `export`, `local`) is
//! not checked. `FILE_DESCRIPTORS` has such a file as one of its edition. Extensions are not
//! generated; a closed enum keeps numbers that have no name, as an open one does.
//!
//! # protoc and buf
//!
//! Who has them in place gets the same Rust from [`protoc-gen-trunkline`](protoc_plugin), or from what
//! they write: [`Config::compile_descriptor_set`].
//!
//! # Modules
//!
//! | module | holds |
//! | --- | --- |
//! | `config` | what users choose; files written |
//! | `bytes` | which fields are `Bytes`, which `Vec<u8>` |
//! | `boxes` | which groups lead back to the message that they are in |
//! | `load` | where imports are found, how files are named, and their texts read |
//! | `tokens`, `scan`, `source` | the text of a file, edited so that the compiler can read it |
//! | `link` | files and their imports to descriptors |
//! | `symbols`, `absolute`, `options` | the names in descriptors made absolute, by the rules of protoc |
//! | `defaults` | defaults of floating-point fields |
//! | `maps` | the maps in values of options, in order |
//! | `numbers` | the extensions of message sets |
//! | `descriptors` | the files to generate from, and those of a set of descriptors |
//! | `features` | what such a file means, as prost-build understands it |
//! | `enums` | which enums fields may have, across files |
//! | `well_known` | types of `google.protobuf` that prost-types lacks |
//! | `raw` | serialized descriptors, changed without a loss |
//! | `generate` | descriptors to the text of each package |
//! | `service` | the text of a service |
//! | `names`, `accessors`, `markers` | the names in Rust, and of the methods of fields; how prost-build is made to use them |
//! | `json` | names of fields that are one in JSON |
//! | `carried` | which module has the descriptor of which file |
//! | `docs` | comments to documentation |
//! | `modules` | packages as modules within one another |
//! | `plugin` | the program for protoc and buf |
//! | `error` | what went wrong, on one line |
//!
//! This crate does not know the runtime: it prints the path `::trunkline` and depends on none of
//! its crates. It generates data, signatures and calls of one line, never a loop or a decision.

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

/// Generates Rust from `files` and writes a file for each package to `OUT_DIR`, for `build.rs`.
///
/// Paths start at the directory of `Cargo.toml`. [`Config`] is for everything else.
///
/// # Errors
///
/// A file that is missing or wrong, or one that cannot be written.
pub fn compile<P: AsRef<Path>>(files: impl IntoIterator<Item = P>) -> Result<(), CompileError> {
    Config::new().compile(files)
}
