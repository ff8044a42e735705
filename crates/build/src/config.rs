//! The options of code generation.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use crate::boxes;
use crate::bytes;
use crate::descriptors::Loaded;
use crate::error::CompileError;
use crate::generate::{Choices, Generated, Layout, generate};
use crate::load::load;
use crate::modules;
use crate::names::{EnumPrefix, Names, Wishes};
use crate::service::{Bodies, Sides};
use crate::well_known;

/// Options for generating Rust from `.proto` files; [`compile`](crate::compile) uses the defaults.
///
/// Methods that take the path of a type or a field expect its protobuf name: `.package.Message.field` is
/// one item, `.package` is everything in a package, and `.` is everything. A path without a leading dot,
/// such as `Message.field` or `field`, matches every name that ends with it.
///
/// The *named files* are those that are passed to [`compile`](Self::compile), as opposed to their imports.
///
/// ```no_run
/// # fn main() -> Result<(), trunkline_build::CompileError> {
/// trunkline_build::Config::new()
///     .include("vendor/googleapis")
///     .vec_bytes(".shop.v1.Order.signature")
///     .client_only()
///     .compile(["proto/shop/v1/orders.proto"])
/// # }
/// ```
#[derive(Debug)]
pub struct Config {
    prost: prost_build::Config,
    base: PathBuf,
    includes: Vec<PathBuf>,
    out_dir: Option<PathBuf>,
    include_file: Option<PathBuf>,
    descriptor_set: Option<PathBuf>,
    vec_bytes: Vec<String>,
    btree_maps: Vec<String>,
    extern_paths: Vec<(String, String)>,
    attributes: Vec<(AttributeOf, String, String)>,
    renames: Vec<(String, String)>,
    sides: Sides,
    bodies: Bodies,
    client_feature: Option<String>,
    prefix: EnumPrefix,
    layout: Layout,
}

/// The items that an attribute applies to.
#[derive(Clone, Copy, Debug)]
enum AttributeOf {
    Types,
    Messages,
    Enums,
    Fields,
}

impl Default for Config {
    fn default() -> Self {
        Self::new()
    }
}

impl Config {
    /// Creates the default options: clients and servers, the types of prost with `Bytes` for fields of
    /// type `bytes`, and paths relative to the current directory.
    pub fn new() -> Self {
        let mut prost = prost_build::Config::new();
        prost
            .prost_path("::trunkline::prost")
            .prost_types_path("::trunkline::prost_types")
            // Packing a message into `google.protobuf.Any`, as error details are, needs its name.
            .enable_type_names()
            .type_name_domain(["."], "type.googleapis.com");
        Self {
            prost,
            base: PathBuf::from("."),
            includes: Vec::new(),
            out_dir: None,
            include_file: None,
            descriptor_set: None,
            vec_bytes: Vec::new(),
            btree_maps: Vec::new(),
            extern_paths: Vec::new(),
            attributes: Vec::new(),
            renames: Vec::new(),
            sides: Sides::Both,
            bodies: Bodies::Required,
            client_feature: None,
            prefix: EnumPrefix::Strip,
            layout: Layout {
                is_tree: true,
                only_named: false,
                is_unformatted: false,
            },
        }
    }

    /// Adds a directory to search for imports, before the directories of the named files.
    ///
    /// If several of these directories contain a file, the first one added wins. By default, imports
    /// are searched in the directory of each named file and its parents, up to the directory of
    /// `Cargo.toml`. The files of `google/protobuf` are built in.
    pub fn include(mut self, dir: impl Into<PathBuf>) -> Self {
        self.includes.push(dir.into());
        self
    }

    /// Sets the directory at which relative paths start. Default: the current directory, which for a build
    /// script is that of `Cargo.toml`.
    pub fn base_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.base = dir.into();
        self
    }

    /// Sets the directory for generated files. Default: the value of the environment variable `OUT_DIR`.
    pub fn out_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.out_dir = Some(dir.into());
        self
    }

    /// Writes an additional file, `name` in the output directory, that declares a module for each
    /// package. Include this file if packages use each other's types.
    pub fn include_file(mut self, name: impl Into<PathBuf>) -> Self {
        self.include_file = Some(name.into());
        self
    }

    /// Writes a serialized `google.protobuf.FileDescriptorSet` of all files, without comments, to
    /// `path`. Generated code contains the static `FILE_DESCRIPTORS` of each package with or without
    /// this option.
    pub fn file_descriptor_set(mut self, path: impl Into<PathBuf>) -> Self {
        self.descriptor_set = Some(path.into());
        self
    }

    /// Uses the existing Rust item `rust_path`, such as `::shared::google::rpc`, for the type or
    /// package `proto_path`, such as `.google.rpc`, instead of generating it. The services of such a
    /// package are not generated either.
    pub fn extern_path(mut self, proto_path: &str, rust_path: &str) -> Self {
        let path = (proto_path.to_owned(), rust_path.to_owned());
        self.extern_paths.push(path);
        self
    }

    /// Adds an attribute, such as `#[derive(serde::Serialize)]`, to messages, enums and oneofs.
    pub fn type_attribute(self, path: &str, attribute: &str) -> Self {
        self.attribute(AttributeOf::Types, path, attribute)
    }

    /// Adds an attribute to messages.
    pub fn message_attribute(self, path: &str, attribute: &str) -> Self {
        self.attribute(AttributeOf::Messages, path, attribute)
    }

    /// Adds an attribute to enums and oneofs.
    pub fn enum_attribute(self, path: &str, attribute: &str) -> Self {
        self.attribute(AttributeOf::Enums, path, attribute)
    }

    /// Adds an attribute to fields.
    pub fn field_attribute(self, path: &str, attribute: &str) -> Self {
        self.attribute(AttributeOf::Fields, path, attribute)
    }

    fn attribute(mut self, of: AttributeOf, path: &str, attribute: &str) -> Self {
        let attribute = (of, path.to_owned(), attribute.to_owned());
        self.attributes.push(attribute);
        self
    }

    /// Generates the Rust name of an item as if its name in the `.proto` file were `name`.
    ///
    /// The item can be a message, an enum or one of its values, a field, a oneof, a service, a method
    /// or a package. `path` is its full name with a leading dot; `name` is written as in a `.proto`
    /// file. A path that does not exist is ignored.
    ///
    /// Only Rust names change; descriptors and the encoding do not. Names that collide in Rust compile
    /// without this option, because all but the first get a trailing underscore. Use it to choose
    /// better names, or names that stay the same if the file gains items.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), trunkline_build::CompileError> {
    /// trunkline_build::Config::new()
    ///     .rename(".shop.v1.order_state", "StateOfOrder")
    ///     .compile(["proto/shop/v1/orders.proto"])
    /// # }
    /// ```
    pub fn rename(mut self, path: &str, name: &str) -> Self {
        self.renames.push((path.to_owned(), name.to_owned()));
        self
    }

    /// Uses `Vec<u8>` instead of `Bytes` for fields of type `bytes`.
    ///
    /// Clients and servers pass a large `Bytes` on without copying it; a `Vec<u8>` is copied in both
    /// directions. The types of `google.protobuf` always use `Vec<u8>`. The choice for one map field
    /// applies to all map fields of its message.
    pub fn vec_bytes(mut self, path: &str) -> Self {
        self.vec_bytes.push(path.to_owned());
        self
    }

    /// Uses `BTreeMap`, which is ordered, instead of `HashMap` for map fields.
    ///
    /// The `Debug` output of a message with such a field shows enum values as numbers.
    pub fn btree_map(mut self, path: &str) -> Self {
        self.btree_maps.push(path.to_owned());
        self
    }

    /// Keeps the name of an enum in the names of its values: `STATE_OPEN` becomes `State::StateOpen`
    /// instead of `State::Open`.
    pub fn retain_enum_prefix(mut self) -> Self {
        self.prost.retain_enum_prefix();
        self.prefix = EnumPrefix::Retain;
        self
    }

    /// Generates clients only.
    pub fn client_only(mut self) -> Self {
        self.sides = Sides::Client;
        self
    }

    /// Compiles clients only if the feature `feature` is enabled in the crate that contains the generated
    /// code. Default: clients are always compiled.
    ///
    /// Use it for a crate that servers and clients share, so that servers do not compile the clients. The
    /// feature must enable `client` of trunkline: `client = ["trunkline/client"]`.
    #[must_use]
    pub fn client_feature(mut self, feature: &str) -> Self {
        self.client_feature = Some(feature.to_owned());
        self
    }

    /// Generates servers only.
    pub fn server_only(mut self) -> Self {
        self.sides = Sides::Server;
        self
    }

    /// Generates messages only, and neither clients nor servers.
    pub fn messages_only(mut self) -> Self {
        self.sides = Sides::Neither;
        self
    }

    /// Adds a default implementation to every handler method, so that a service can implement only some of
    /// its methods. It returns UNIMPLEMENTED with the name of the method. Default: a service must implement
    /// all methods.
    #[must_use]
    pub fn default_bodies(mut self) -> Self {
        self.bodies = Bodies::Default;
        self
    }

    /// Changes other options of message generation through the configuration of prost-build.
    ///
    /// Options about inputs and outputs have no effect: directories, files, the service generator and protoc.
    pub fn prost(mut self, change: impl FnOnce(&mut prost_build::Config)) -> Self {
        change(&mut self.prost);
        self
    }

    /// Generates Rust from `files` and writes one file per package: `shop.v1.rs` for `shop.v1`, and
    /// `_.rs` for files without a package.
    ///
    /// Files whose content would not change are not written. Cargo runs the build script again if one
    /// of the files that were read changes.
    ///
    /// # Errors
    ///
    /// Returns an error if a file cannot be found, read or compiled, or if the output cannot be written.
    pub fn compile<P: AsRef<Path>>(
        mut self,
        files: impl IntoIterator<Item = P>,
    ) -> Result<(), CompileError> {
        let outputs = self.take_outputs();
        let generated = self.generate(files)?;
        for source in generated.sources() {
            println!("cargo:rerun-if-changed={}", source.display());
        }
        outputs.write(&generated)
    }

    /// Generates Rust from the files in `set` and writes what [`compile`](Self::compile) writes.
    ///
    /// Use it if your build compiles `.proto` files with protoc or buf. `set` is the path of a serialized
    /// `google.protobuf.FileDescriptorSet` with all imports, as `buf build -o` or
    /// `protoc --include_imports --include_source_info -o` writes it. Without `--include_source_info`, the
    /// generated code has no documentation. All files in the set count as named files, except those in
    /// `google/protobuf` and those that buf marks as imports.
    ///
    /// # Errors
    ///
    /// Returns an error if the set cannot be read or decoded, if it lacks an import, or if the output
    /// cannot be written.
    pub fn compile_descriptor_set(mut self, set: impl AsRef<Path>) -> Result<(), CompileError> {
        let outputs = self.take_outputs();
        let path = self.base.join(set);
        println!("cargo:rerun-if-changed={}", path.display());
        let set = fs::read(&path)
            .map_err(|error| CompileError::new(format!("cannot read: {error}")).in_file(&path))?;
        let generated = self.generate_descriptor_set(&set)?;
        outputs.write(&generated)
    }

    /// Generates Rust from `files` without writing it to disk.
    ///
    /// # Errors
    ///
    /// Returns an error if a file cannot be found, read or compiled.
    pub fn generate<P: AsRef<Path>>(
        self,
        files: impl IntoIterator<Item = P>,
    ) -> Result<Generated, CompileError> {
        let files = files.into_iter().map(|file| file.as_ref().to_owned());
        let files: Vec<PathBuf> = files.collect();
        if files.is_empty() {
            return Err(CompileError::new(
                "the list of .proto files is empty; name at least one",
            ));
        }
        let loaded = load(&self.base, &self.includes, &files)?;
        self.generate_loaded(loaded)
    }

    /// Generates Rust from a serialized `google.protobuf.FileDescriptorSet` without writing it to
    /// disk; see [`compile_descriptor_set`](Self::compile_descriptor_set).
    ///
    /// # Errors
    ///
    /// Returns an error if the set cannot be decoded or lacks an import.
    pub fn generate_descriptor_set(self, set: &[u8]) -> Result<Generated, CompileError> {
        let loaded = Loaded::from_set(set)?;
        self.generate_loaded(loaded)
    }

    pub(crate) fn generate_loaded(mut self, mut loaded: Loaded) -> Result<Generated, CompileError> {
        for (path, name) in &self.renames {
            check_rename(path, name)?;
        }
        let chosen: Vec<String> = self.extern_paths.iter().map(|it| it.0.clone()).collect();
        let extern_paths = [&chosen[..], &[WELL_KNOWN.to_owned()]].concat();
        let wishes = Wishes {
            prefix: self.prefix,
            extern_paths: &extern_paths,
            renames: &self.renames,
        };
        let names = Names::choose(&mut loaded.files, &wishes);
        let marked = |path: &String| names.markers.paths(path);
        // prost-build forgets the paths of an earlier call, so it gets all of them in one.
        if !self.btree_maps.is_empty() {
            let paths: Vec<String> = self.btree_maps.iter().flat_map(marked).collect();
            self.prost.btree_map(paths);
        }
        for (path, rust) in &self.extern_paths {
            for path in marked(path) {
                self.prost.extern_path(path, rust);
            }
        }
        for (of, path, attribute) in &self.attributes {
            for path in marked(path) {
                match of {
                    AttributeOf::Types => self.prost.type_attribute(path, attribute),
                    AttributeOf::Messages => self.prost.message_attribute(path, attribute),
                    AttributeOf::Enums => self.prost.enum_attribute(path, attribute),
                    AttributeOf::Fields => self.prost.field_attribute(path, attribute),
                };
            }
        }
        let descriptors = || loaded.files.iter().map(|file| &file.descriptor);
        let vec_bytes: Vec<String> = self.vec_bytes.iter().flat_map(marked).collect();
        self.prost
            .bytes(bytes::shared_fields(descriptors(), &vec_bytes));
        for path in boxes::boxed_groups(descriptors()) {
            self.prost.boxed(path);
        }
        well_known::generate_missing(&mut self.prost, &loaded.files, &chosen)?;
        let choices = Choices {
            prost: self.prost,
            names,
            wishes,
            sides: self.sides,
            bodies: self.bodies,
            client_feature: self.client_feature,
            layout: self.layout,
        };
        generate(loaded, choices)
    }

    /// Skips the formatting of messages, for the macro, whose text is not read by people.
    #[doc(hidden)]
    pub fn unformatted(mut self) -> Self {
        self.layout.is_unformatted = true;
        self
    }

    /// Sets the modules that exist where the text is used.
    pub(crate) fn layout(mut self, layout: Layout) -> Self {
        self.layout = layout;
        self
    }

    fn take_outputs(&mut self) -> Outputs {
        self.layout.is_tree = self.include_file.is_some();
        Outputs {
            dir: self.out_dir.take(),
            include_file: self.include_file.take(),
            descriptor_set: self.descriptor_set.take(),
        }
    }
}

/// The package whose types come from prost-types.
const WELL_KNOWN: &str = ".google.protobuf";

/// Rejects a path or a name that cannot be valid.
fn check_rename(path: &str, name: &str) -> Result<(), CompileError> {
    let mut letters = name.chars();
    let is_name = letters
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && letters.all(|c| c.is_ascii_alphanumeric() || c == '_')
        && name.contains(|c: char| c != '_');
    let message = match (path.starts_with('.'), is_name) {
        (true, true) => return Ok(()),
        (false, _) => {
            format!("rename: {path} is not a full name; begin with a dot, as in .shop.v1.Order")
        }
        (true, false) => format!(
            "rename: {name:?} is not a name for {path}; use letters, digits and underscores"
        ),
    };
    Err(CompileError::new(message))
}

/// The files that are written, and their directory.
struct Outputs {
    dir: Option<PathBuf>,
    include_file: Option<PathBuf>,
    descriptor_set: Option<PathBuf>,
}

impl Outputs {
    fn write(self, generated: &Generated) -> Result<(), CompileError> {
        let set_by_cargo = || env::var_os("OUT_DIR").map(PathBuf::from);
        let dir = self.dir.or_else(set_by_cargo).ok_or_else(|| {
            CompileError::new("OUT_DIR is not set; call this from build.rs or set Config::out_dir")
        })?;
        for (module, package) in generated.modules() {
            let name = modules::file_name(module);
            write(&dir.join(name), package.text.as_bytes())?;
        }
        if let Some(name) = self.include_file {
            let tree = modules::includes(generated.modules().iter());
            write(&dir.join(name), tree.as_bytes())?;
        }
        if let Some(path) = self.descriptor_set {
            write(&path, generated.descriptor_set())?;
        }
        Ok(())
    }
}

/// Writes a file unless its content is the same already: a new modification time makes rustc run again.
fn write(path: &Path, contents: &[u8]) -> Result<(), CompileError> {
    if fs::read(path).is_ok_and(|present| present == contents) {
        return Ok(());
    }
    fs::write(path, contents)
        .map_err(|error| CompileError::new(format!("cannot write: {error}")).in_file(path))
}
