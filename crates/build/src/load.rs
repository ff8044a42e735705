//! `.proto` files in, descriptors out.

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::OsStr;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use prost_types::FileDescriptorProto;
use protox::file::{File, FileResolver, GoogleFileResolver};

use crate::defaults::write_defaults;
use crate::descriptors::Loaded;
use crate::error::{CompileError, Position, shown};
use crate::link::Linker;
use crate::options::{set_packed, share_features};
use crate::source::Source;

/// Compiles `files`, whose paths start at `base` or at one of `includes`.
pub(crate) fn load(
    base: &Path,
    includes: &[PathBuf],
    files: &[PathBuf],
) -> Result<Loaded, CompileError> {
    let base = std::path::absolute(base).map_err(|error| CompileError::new(error.to_string()))?;
    let search = Search::new(&base, includes, files)?;
    let paths = files
        .iter()
        .map(|file| search.named(&base, file))
        .collect::<Result<Vec<_>, _>>()?;
    let imported = search.imported(&paths)?;

    let mut linker = Linker::new(&search);
    let mut names = Vec::with_capacity(paths.len());
    for (path, file) in paths.iter().zip(files) {
        let name = search.name(path, &root_of(&base, file), &imported)?;
        linker.read(&name)?;
        names.push(name);
    }
    Loaded::new(linker.link(&names)?)
}

/// Where imports are looked for, in order.
#[derive(Debug)]
pub(crate) struct Search {
    includes: Vec<PathBuf>,
    /// `includes`, then the directories of the named files and those above them.
    directories: Vec<PathBuf>,
    /// The files that have been read, by their paths.
    parsed: RefCell<HashMap<PathBuf, Result<Rc<Parsed>, CompileError>>>,
    /// Where names have been found, which is asked for each import.
    found: RefCell<HashMap<String, Option<PathBuf>>>,
}

/// A file that has been read, but not yet linked with those it imports.
#[derive(Debug)]
pub(crate) struct Parsed {
    /// Without the name of the file; its places are those in the text as it is.
    pub(crate) descriptor: FileDescriptorProto,
    pub(crate) source: Source,
}

impl Search {
    fn new(base: &Path, includes: &[PathBuf], files: &[PathBuf]) -> Result<Self, CompileError> {
        let includes: Vec<PathBuf> = includes.iter().map(|dir| base.join(dir)).collect();
        if let Some(missing) = includes.iter().find(|dir| !dir.is_dir()) {
            return Err(CompileError::new("include path is not a directory").in_file(missing));
        }
        let mut directories = includes.clone();
        for file in files {
            let path = base.join(file);
            let root = root_of(base, file);
            let above = path.ancestors().skip(1);
            // Of a file elsewhere only what is below its root counts: what lies above is not ours.
            let ours = |dir: &Path| dir.starts_with(base) || dir.starts_with(&root);
            for dir in above.take_while(|dir| ours(dir)) {
                if dir.is_dir() && !directories.iter().any(|known| known == dir) {
                    directories.push(dir.to_owned());
                }
            }
        }
        Ok(Self {
            includes,
            directories,
            parsed: RefCell::default(),
            found: RefCell::default(),
        })
    }

    /// The path of a file that the user named.
    fn named(&self, base: &Path, file: &Path) -> Result<PathBuf, CompileError> {
        let mut starts = vec![base];
        starts.extend(self.includes.iter().map(PathBuf::as_path));
        let mut paths = starts.iter().map(|start| start.join(file));
        paths.find(|path| path.is_file()).ok_or_else(|| {
            let starts = list(&starts);
            CompileError::new(format!(
                "no such file in {starts}; a path starts at the directory of Cargo.toml or at an \
                 include path"
            ))
            .in_file(file)
        })
    }

    /// The path of the file that is imported by a name.
    pub(crate) fn find(&self, name: &str) -> Option<PathBuf> {
        let mut found = self.found.borrow_mut();
        let look = || {
            let mut paths = self.directories.iter().map(|dir| dir.join(name));
            paths.find(|path| path.is_file())
        };
        found.entry(name.to_owned()).or_insert_with(look).clone()
    }

    /// Whether there is a file of that name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.find(name).is_some() || GoogleFileResolver::new().open_file(name).is_ok()
    }

    /// The error for a name that no file has.
    pub(crate) fn not_found(&self, name: &str) -> CompileError {
        let directories: Vec<&Path> = self.directories.iter().map(PathBuf::as_path).collect();
        let directories = list(&directories);
        CompileError::new(format!(
            "import '{name}' not found; looked in {directories}; name the directory that its path \
             starts at: Config::include in a build script, includes = [..] in include_proto!"
        ))
    }

    /// Reads a file, unless it has been read before.
    pub(crate) fn parsed(&self, path: &Path) -> Result<Rc<Parsed>, CompileError> {
        let mut parsed = self.parsed.borrow_mut();
        let parsed = parsed.entry(path.to_owned());
        let parsed = parsed.or_insert_with(|| Parsed::read(path).map(Rc::new));
        parsed.clone().map_err(|error| error.in_file(path))
    }

    /// The names by which `files`, and all that they import, import others.
    ///
    /// A file must have one name, or all that it defines is defined twice; and since any of several
    /// directories may be meant as the root of names, only an import can tell the right one.
    fn imported(&self, files: &[PathBuf]) -> Result<HashMap<PathBuf, String>, CompileError> {
        let mut names = HashMap::new();
        let mut queue = files.to_vec();
        while let Some(path) = queue.pop() {
            // What is wrong with it is told when it is linked.
            let Ok(file) = self.parsed(&path) else {
                continue;
            };
            let descriptor = &file.descriptor;
            for (index, name) in (0..).zip(&descriptor.dependency) {
                let Some(found) = self.find(name) else {
                    continue;
                };
                match names.entry(identity(&found)) {
                    Entry::Vacant(entry) => {
                        entry.insert(name.clone());
                        queue.push(found);
                    }
                    Entry::Occupied(entry) if entry.get() != name => {
                        let other = entry.get();
                        let message = format!(
                            "\"{name}\" and \"{other}\" are the same file; import it by one name"
                        );
                        return Err(CompileError::new(message)
                            .in_file(&path)
                            .at(Position::of(descriptor, &[3, index])));
                    }
                    Entry::Occupied(_) => {}
                }
            }
        }
        Ok(names)
    }

    /// The name of a file: as others import it, or else from an include path, or else as the file
    /// itself suggests, or else from its root, or else the shortest that leads to it.
    fn name(
        &self,
        path: &Path,
        root: &Path,
        imported: &HashMap<PathBuf, String>,
    ) -> Result<String, CompileError> {
        let file = identity(path);
        if let Some(name) = imported.get(&file) {
            return Ok(name.clone());
        }
        let includes = self.includes.iter().filter_map(|dir| name_below(dir, path));
        let count = path.components().count();
        let ends = (1..count).filter_map(|length| joined(path.components().skip(count - length)));
        let from_root = name_below(root, path);
        let names = includes.chain(self.suggested(path)).chain(from_root);
        let names: Vec<String> = names.chain(ends).collect();
        let leads_here = |name: &&String| self.find(name).is_some_and(|it| identity(&it) == file);
        names.iter().find(leads_here).cloned().ok_or_else(|| {
            let hiding = names.iter().find_map(|name| self.find(name));
            let message = match hiding {
                Some(other) => format!(
                    "hidden by {}, which an include path finds first; change their order",
                    shown(&other).display()
                ),
                None => "the name of the file is not UTF-8; rename it".to_owned(),
            };
            CompileError::new(message).in_file(path)
        })
    }

    /// The names of a file that go with the names of its imports, and with its package.
    ///
    /// Two files called `service.proto` can be in one set of descriptors only if their names tell
    /// them apart.
    fn suggested(&self, path: &Path) -> Vec<String> {
        let Ok(file) = self.parsed(path) else {
            return Vec::new();
        };
        let descriptor = &file.descriptor;
        let mut names = Vec::new();
        for import in &descriptor.dependency {
            let holds = |dir: &&PathBuf| dir.join(import).is_file();
            let root = self.directories.iter().find(holds);
            names.extend(root.and_then(|root| name_below(root, path)));
        }
        if let Some(name) = path.file_name().and_then(OsStr::to_str) {
            let package = descriptor.package().replace('.', "/");
            let name = format!("{package}/{name}");
            names.extend(path.ends_with(&name).then_some(name));
        }
        names
    }
}

impl Parsed {
    fn read(path: &Path) -> Result<Self, CompileError> {
        let bytes =
            fs::read(path).map_err(|error| CompileError::new(format!("cannot read: {error}")))?;
        let text = String::from_utf8(bytes)
            .map_err(|_| CompileError::new("not valid UTF-8; save it as UTF-8"))?;
        let source = Source::read(&text)?;
        let file = File::from_source("", &source.text).map_err(|error| {
            let place = |place| source.original_place(place);
            CompileError::from_diagnostic(&error, &source.original, place)
        })?;
        let mut descriptor = FileDescriptorProto::from(file);
        source.restore_places(&mut descriptor);
        source.restore_bodies(&mut descriptor);
        set_packed(&mut descriptor);
        share_features(&mut descriptor);
        write_defaults(&mut descriptor);
        source.large_numbers.restore(&mut descriptor)?;
        Ok(Self { descriptor, source })
    }
}

/// Where the name of a file starts if nothing else says so: at the nearest directory above it that
/// is called `proto` or `protos`, or else at `base`, or for a file elsewhere at its own directory.
fn root_of(base: &Path, file: &Path) -> PathBuf {
    let path = base.join(file);
    let mut above = path.ancestors().skip(1);
    let own = path.parent().unwrap_or(base);
    let is_root = |dir: &&Path| {
        let is_called = |name: &str| dir.file_name() == Some(OsStr::new(name));
        *dir != base && (is_called("proto") || is_called("protos"))
    };
    // The directories above `base` are not ours to look at.
    let named = above.by_ref().take_while(|dir| *dir != base).find(is_root);
    let is_below =
        path.starts_with(base) && !file.components().any(|it| it == Component::ParentDir);
    let default = if is_below { base } else { own };
    named.unwrap_or(default).to_owned()
}

/// What tells two files apart, whatever path leads there.
fn identity(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// The name of a file by its place below a directory.
fn name_below(dir: &Path, file: &Path) -> Option<String> {
    let (dir, file) = (identity(dir), identity(file));
    joined(file.strip_prefix(dir).ok()?.components())
}

/// A path as a name of protobuf; `None` where it is not made of plain names.
fn joined<'a>(components: impl Iterator<Item = Component<'a>>) -> Option<String> {
    let mut names = Vec::new();
    for component in components {
        match component {
            Component::Normal(name) => names.push(name.to_str()?),
            _ => return None,
        }
    }
    Some(names.join("/"))
}

/// The first few paths, and how many follow.
fn list(paths: &[&Path]) -> String {
    const SHOWN: usize = 3;
    let first = paths.iter().take(SHOWN);
    let first: Vec<String> = first
        .map(|path| shown(path).display().to_string())
        .collect();
    let first = first.join(", ");
    match paths.len().saturating_sub(SHOWN) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}
