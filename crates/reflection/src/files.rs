//! The files of a server, each once and with a name of its own.
//!
//! The crates of a program know nothing of one another, so what they bring may have one name and be
//! two files, or be one file twice. A client puts all files into one pool, where a name has one file
//! and a symbol one definition. So files are told apart by new names, and versions of one file become
//! one: that which has more. Versions that contradict one another are an error.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ptr;

use prost::{DecodeError, Message};
use prost_types::FileDescriptorProto;
use trunkline::{Bytes, FileDescriptors};

use crate::versions::{self, symbols};

/// Field numbers of `google.protobuf.FileDescriptorProto`.
const NAME: u8 = 1;
const DEPENDENCY: u8 = 3;

/// What all services of a server bring.
#[derive(Debug, Default)]
pub(crate) struct Files {
    all: Vec<Brought>,
    known: HashMap<*const FileDescriptors, Vec<usize>>,
}

/// One file, as somebody brought it.
#[derive(Debug)]
struct Brought {
    /// As it came: options and fields that nobody here knows are in it.
    encoded: Bytes,
    file: FileDescriptorProto,
    /// For each import the file that is meant, if it is there.
    imports: Vec<Option<usize>>,
}

/// One file, as it is served.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) name: String,
    pub(crate) encoded: Bytes,
    pub(crate) file: FileDescriptorProto,
    /// Those of its imports that are there.
    pub(crate) imports: Vec<usize>,
}

/// `google.protobuf.FileDescriptorSet` with its files left as bytes.
#[derive(Clone, PartialEq, Message)]
struct EncodedSet {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    file: Vec<Bytes>,
}

/// The files of a serialized set, each as it came and read.
pub(crate) fn files_of(set: &Bytes) -> Result<Vec<(Bytes, FileDescriptorProto)>, DecodeError> {
    let set = EncodedSet::decode(set.clone())?;
    let files = set.file.into_iter();
    let files = files.map(|encoded| {
        let read = FileDescriptorProto::decode(encoded.clone())?;
        Ok((encoded, read))
    });
    files.collect()
}

impl Files {
    /// Adds what a service brings, and says which files these are.
    ///
    /// # Errors
    ///
    /// Bytes that are no set of descriptors.
    pub(crate) fn add(
        &mut self,
        descriptors: &'static FileDescriptors,
    ) -> Result<Vec<usize>, DecodeError> {
        let key = ptr::from_ref(descriptors);
        if let Some(known) = self.known.get(&key) {
            return Ok(known.clone());
        }
        // Statics may refer to one another in a circle.
        self.known.insert(key, Vec::new());
        let mut near = Vec::new();
        for import in descriptors.imports() {
            near.extend(self.add(import)?);
        }
        let set = Bytes::from_static(descriptors.set());
        let added = self.add_set(&set, &near)?;
        // What has no set of its own stands for what it refers to.
        let added = if added.is_empty() { near } else { added };
        self.known.insert(key, added.clone());
        Ok(added)
    }

    /// Adds the files of a serialized set, whose imports are there or among the files `near`.
    ///
    /// # Errors
    ///
    /// Bytes that are no set of descriptors.
    pub(crate) fn add_set(
        &mut self,
        set: &Bytes,
        near: &[usize],
    ) -> Result<Vec<usize>, DecodeError> {
        let start = self.all.len();
        for (encoded, file) in files_of(set)? {
            self.all.push(Brought {
                encoded,
                imports: vec![None; file.dependency.len()],
                file,
            });
        }
        let added: Vec<usize> = (start..self.all.len()).collect();
        // What was brought together belongs together.
        let near = near.iter().chain(&added);
        let names = near.map(|&at| (self.all[at].file.name().to_owned(), at));
        let names: HashMap<String, usize> = names.collect();
        for brought in &mut self.all[start..] {
            let meant = brought.file.dependency.iter().map(|name| names.get(name));
            brought.imports = meant.map(Option::<&usize>::copied).collect();
        }
        Ok(added)
    }

    /// The files to serve.
    ///
    /// # Errors
    ///
    /// Two files that define a symbol in different ways: what they are and which it is.
    pub(crate) fn serve(mut self) -> Result<Vec<File>, String> {
        self.resolve();
        let (chosen, served_as) = self.merge()?;
        let names = names(chosen.iter().map(|&at| &self.all[at].file));
        let files = chosen.iter().zip(&names).map(|(&at, name)| {
            let brought = &self.all[at];
            let imports = brought.imports.iter();
            let imports: Vec<Option<usize>> =
                imports.map(|it| it.map(|it| served_as[it])).collect();
            let called = brought.file.dependency.iter().zip(&imports);
            let called = called.map(|(old, it)| it.map_or(old.as_str(), |it| names[it].as_str()));
            File {
                name: name.clone(),
                encoded: renamed(brought, name, &called.collect::<Vec<_>>()),
                file: brought.file.clone(),
                imports: imports.into_iter().flatten().collect(),
            }
        });
        Ok(files.collect())
    }

    /// Finds imports that were not brought together with what imports them.
    fn resolve(&mut self) {
        let mut names = HashMap::new();
        for (at, brought) in self.all.iter().enumerate() {
            names.entry(brought.file.name().to_owned()).or_insert(at);
        }
        for brought in &mut self.all {
            let imports = brought.imports.iter_mut().zip(&brought.file.dependency);
            for (import, name) in imports.filter(|(import, _)| import.is_none()) {
                // What nobody has cannot be sent. The client says what it lacks, better than we could.
                *import = names.get(name).copied();
            }
        }
    }

    /// Chooses one of several versions of a file; says which files stay, and for each file the place
    /// among them of that which stands for it.
    fn merge(&self) -> Result<(Vec<usize>, Vec<usize>), String> {
        let mut chosen: Vec<usize> = Vec::new();
        let mut served_as = Vec::with_capacity(self.all.len());
        let mut owners: HashMap<String, usize> = HashMap::new();
        let mut without_symbols: HashMap<&Bytes, usize> = HashMap::new();
        for (at, brought) in self.all.iter().enumerate() {
            let defined = symbols(&brought.file);
            let known = defined.iter().filter_map(|name| owners.get(name).copied());
            let mut known: BTreeSet<usize> = known.collect();
            if defined.is_empty() {
                known.extend(without_symbols.get(&brought.encoded));
            }
            let mut known = known.into_iter();
            let place = known.next().unwrap_or(chosen.len());
            if place == chosen.len() {
                chosen.push(at);
            } else if self.all[chosen[place]].encoded != brought.encoded {
                let other = &self.all[chosen[place]].file;
                let larger = versions::larger(other, &brought.file);
                let contradiction = |name: String| contradiction(other, &brought.file, &name);
                if known.next().is_some() {
                    let both = defined.iter().find(|it| owners.get(*it) == Some(&place));
                    return Err(contradiction(both.cloned().unwrap_or_default()));
                }
                if larger.map_err(contradiction)? {
                    chosen[place] = at;
                }
            }
            if defined.is_empty() {
                without_symbols.insert(&brought.encoded, place);
            }
            owners.extend(defined.into_iter().map(|name| (name, place)));
            served_as.push(place);
        }
        Ok((chosen, served_as))
    }
}

fn contradiction(one: &FileDescriptorProto, other: &FileDescriptorProto, symbol: &str) -> String {
    let (one, other) = (one.name(), other.name());
    let files = match one == other {
        true => format!("two files called {one}"),
        false => format!("{one} and {other}"),
    };
    format!(
        "{files} define {symbol} in different ways; compile both from one version of the file, or \
         give them packages of their own"
    )
}

/// A name for each file that no other has: its own for the first, for others one with the package.
fn names<'a>(files: impl Iterator<Item = &'a FileDescriptorProto>) -> Vec<String> {
    let files: Vec<&FileDescriptorProto> = files.collect();
    let all: HashSet<&str> = files.iter().map(|file| file.name()).collect();
    let mut taken = HashSet::new();
    let mut named = Vec::with_capacity(files.len());
    for file in files {
        let mut name = file.name().to_owned();
        if !taken.insert(name.clone()) {
            let base = file.name().rsplit('/').next().unwrap_or_default();
            let (stem, end) = match base.rsplit_once('.') {
                Some((stem, end)) => (stem, format!(".{end}")),
                None => (base, String::new()),
            };
            let mut directory = file.package().replace('.', "/");
            if !directory.is_empty() {
                directory.push('/');
            }
            name = format!("{directory}{base}");
            let mut number = 1;
            while all.contains(name.as_str()) || taken.contains(&name) {
                number += 1;
                name = format!("{directory}{stem}_{number}{end}");
            }
            taken.insert(name.clone());
        }
        named.push(name);
    }
    named
}

/// The bytes of a file with its name and those of its imports changed; as they came if they stay.
fn renamed(brought: &Brought, name: &str, imports: &[&str]) -> Bytes {
    let own = brought.file.dependency.iter().map(String::as_str);
    if brought.file.name() == name && own.eq(imports.iter().copied()) {
        return brought.encoded.clone();
    }
    let mut bytes = Vec::with_capacity(brought.encoded.len() + name.len());
    // What comes later in a message counts if a field is there twice, so that its place is free.
    let mut rest = &brought.encoded[..];
    let mut left = imports.iter();
    while let Some((number, whole, after)) = field(rest) {
        match number {
            NAME => push(&mut bytes, NAME, name),
            DEPENDENCY => {
                if let Some(import) = left.next() {
                    push(&mut bytes, DEPENDENCY, import);
                }
            }
            _ => bytes.extend_from_slice(whole),
        }
        rest = after;
    }
    bytes.into()
}

/// The first field of a message, which has been read before: its number, if that is below 16, its
/// bytes, and what follows.
fn field(message: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let mut after = message;
    let key = prost::encoding::decode_varint(&mut after).ok()?;
    let length = match key & 7 {
        0 => {
            prost::encoding::decode_varint(&mut after).ok()?;
            0
        }
        1 => 8,
        2 => usize::try_from(prost::encoding::decode_varint(&mut after).ok()?).ok()?,
        5 => 4,
        // encoding.mdx, "Message Structure": groups, 3 and 4, are in no descriptor.
        _ => return None,
    };
    let after = after.get(length..)?;
    let whole = &message[..message.len() - after.len()];
    let number = u8::try_from(key >> 3).unwrap_or(u8::MAX);
    Some((number, whole, after))
}

fn push(bytes: &mut Vec<u8>, number: u8, value: &str) {
    prost::encoding::string::encode(u32::from(number), &value.to_owned(), bytes);
}
