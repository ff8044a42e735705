//! `.proto` files in, descriptors out.

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::error::Error as _;
use std::ffi::OsStr;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use protox::Compiler;
use protox::file::{File, FileResolver, GoogleFileResolver};

use crate::descriptors::{Loaded, Loading, split};
use crate::error::{CompileError, Position, shown};
use crate::raw;
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

    let mut compiler = Compiler::with_file_resolver(search.clone());
    compiler.include_imports(true).include_source_info(true);
    for path in &paths {
        let name = search.name(path, &imported)?;
        compiler
            .open_file(&name)
            .map_err(|error| search.explain(&error))?;
    }
    let descriptors = compiler.file_descriptor_set().file;
    let encoded = split(
        &compiler
            .include_source_info(false)
            .encode_file_descriptor_set(),
    );

    let files = descriptors.into_iter().zip(encoded).zip(compiler.files());
    let files = files.map(|((mut descriptor, mut encoded), file)| {
        if let Some(source) = search.sources.borrow().get(file.name()) {
            source.restore_places(&mut descriptor);
            let for_options = &source.option_imports;
            descriptor.dependency.retain(|it| !for_options.contains(it));
            encoded = of_edition(&encoded, source);
        }
        // The compiler has no path for a file that was edited before it saw it.
        let path = search.find(file.name());
        Loading::new(descriptor, encoded, path, !file.is_import())
    });
    Loaded::new(files.collect::<Result<_, _>>()?)
}

/// The descriptor of a file of an edition, from that of the file as proto2.
fn of_edition(encoded: &[u8], source: &Source) -> Vec<u8> {
    let imports: Vec<&[u8]> = source
        .option_imports
        .iter()
        .map(|it| it.as_bytes())
        .collect();
    let mut encoded = raw::without(encoded, |field| {
        field.number == raw::DEPENDENCY && imports.contains(&field.content)
            || field.number == raw::SYNTAX
    });
    for visibility in &source.visibilities {
        let mut field = Vec::new();
        raw::push_number(&mut field, visibility.field, visibility.value);
        encoded = raw::appended(&encoded, &visibility.path, &field);
    }
    // In order of their numbers, as protoc writes them.
    raw::push_bytes(&mut encoded, raw::SYNTAX, b"editions");
    let edition = source.edition.number().unsigned_abs();
    raw::push_number(&mut encoded, raw::EDITION, edition.into());
    for import in imports {
        raw::push_bytes(&mut encoded, raw::OPTION_DEPENDENCY, import);
    }
    encoded
}

/// Where imports are looked for, in order.
#[derive(Clone, Debug)]
struct Search {
    includes: Vec<PathBuf>,
    /// `includes`, then the directories of the named files and those above them.
    directories: Vec<PathBuf>,
    /// The opened files that are of an edition, by their names.
    sources: Rc<RefCell<HashMap<String, Source>>>,
    /// What is wrong with a file that the compiler was not shown.
    refused: Rc<RefCell<Option<CompileError>>>,
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
            let above = path.ancestors().skip(1);
            // Of a file elsewhere only its own directory counts: what lies above is not ours.
            let above = above.enumerate();
            let above = above.take_while(|(depth, dir)| *depth == 0 || dir.starts_with(base));
            for (_, dir) in above {
                if dir.is_dir() && !directories.iter().any(|known| known == dir) {
                    directories.push(dir.to_owned());
                }
            }
        }
        Ok(Self {
            includes,
            directories,
            sources: Rc::default(),
            refused: Rc::default(),
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

    fn find(&self, name: &str) -> Option<PathBuf> {
        let mut paths = self.directories.iter().map(|dir| dir.join(name));
        paths.find(|path| path.is_file())
    }

    /// Reads a file, by itself or as proto2 if it is of an edition.
    fn open(&self, name: &str, path: &Path) -> Result<File, protox::Error> {
        let text = fs::read_to_string(path).unwrap_or_default();
        match Source::read(&text) {
            Ok(None) => File::open(name, path),
            Ok(Some(source)) => {
                // Kept before the compiler reads it, which may fail at a place in it.
                let text = source.text.clone();
                self.sources.borrow_mut().insert(name.to_owned(), source);
                File::from_source(name, &text)
            }
            Err(error) => {
                let error = error.in_file(path);
                let refused = protox::Error::new(error.to_string());
                *self.refused.borrow_mut() = Some(error);
                Err(refused)
            }
        }
    }

    /// The names by which `files`, and all that they import, import others.
    ///
    /// A file must have one name, or all that it defines is defined twice; and since any of several
    /// directories may be meant as the root of names, only an import can tell the right one.
    fn imported(&self, files: &[PathBuf]) -> Result<HashMap<PathBuf, String>, CompileError> {
        let mut names = HashMap::new();
        let mut queue = files.to_vec();
        while let Some(path) = queue.pop() {
            // The compiler opens the same file again and says what is wrong with it.
            let Ok(file) = self.open("", &path) else {
                continue;
            };
            let descriptor = file.file_descriptor_proto();
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
    /// itself suggests, or else the shortest that leads to it.
    fn name(
        &self,
        path: &Path,
        imported: &HashMap<PathBuf, String>,
    ) -> Result<String, CompileError> {
        let file = identity(path);
        if let Some(name) = imported.get(&file) {
            return Ok(name.clone());
        }
        let includes = self.includes.iter().filter_map(|dir| name_below(dir, path));
        let count = path.components().count();
        let ends = (1..count).filter_map(|length| joined(path.components().skip(count - length)));
        let names: Vec<String> = includes.chain(self.suggested(path)).chain(ends).collect();
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
        let Ok(file) = self.open("", path) else {
            return Vec::new();
        };
        let descriptor = file.file_descriptor_proto();
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

    /// The compiler's error as one line.
    fn explain(&self, error: &protox::Error) -> CompileError {
        let refused = || self.refused.borrow_mut().take();
        if let Some(refused) = error.file().is_none().then(refused).flatten() {
            return refused;
        }
        let Some(path) = error.file().and_then(|name| self.find(name)) else {
            return CompileError::new(error.to_string());
        };
        let source = fs::read_to_string(&path).unwrap_or_default();
        let sources = self.sources.borrow();
        let edited = error.file().and_then(|name| sources.get(name));
        let place = |place| edited.map_or(place, |it| it.original_place(place));
        let mut explained = CompileError::from_diagnostic(error, &source, place).in_file(&path);
        if source.starts_with('\u{feff}') {
            explained.add("the file begins with a byte order mark; save it without one");
        }
        if error.is_file_not_found() {
            let directories: Vec<&Path> = self.directories.iter().map(PathBuf::as_path).collect();
            let directories = list(&directories);
            explained.add(&format!(
                "looked in {directories}; move it there, or give Config::include in a build script"
            ));
        } else if error.is_io()
            && let Some(cause) = error.source()
        {
            explained.add(&cause.to_string());
        }
        explained
    }
}

impl FileResolver for Search {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        match self.find(name) {
            Some(path) => self.open(name, &path),
            None => GoogleFileResolver::new().open_file(name),
        }
    }
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

fn list(paths: &[&Path]) -> String {
    let paths: Vec<String> = paths
        .iter()
        .map(|path| shown(path).display().to_string())
        .collect();
    paths.join(", ")
}
