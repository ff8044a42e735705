//! The files of a server, each once and with a name of its own.
//!
//! The crates of a program know nothing of one another, so what they bring may have one name and be
//! two files, or be one file twice. A client puts all files into one pool, where a name has one file
//! and a symbol one definition. So files are told apart by new names, and files that share a symbol
//! become one: that which has all that the others have. If there is none, that is an error. Nothing
//! depends on the order in which files are added.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ptr;

use prost::{DecodeError, Message};
use prost_types::FileDescriptorProto;
use trunkline::FileDescriptors;
use trunkline::bytes::Bytes;

use crate::circles;
use crate::versions::{self, references, symbols};

/// Field numbers of `google.protobuf.FileDescriptorProto`.
const NAME: u8 = 1;
const DEPENDENCY: u8 = 3;
const PUBLIC_DEPENDENCY: u8 = 10;
const WEAK_DEPENDENCY: u8 = 11;

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
    /// Files that share a symbol, and none of which can stand for the others; files that would import
    /// one another once one stands for others.
    pub(crate) fn serve(mut self) -> Result<Vec<File>, String> {
        self.resolve();
        let (chosen, served_as) = self.merge()?;
        let names = names(chosen.iter().map(|&at| &self.all[at].file));
        let imports = chosen.iter().map(|&at| {
            let imports = self.all[at].imports.iter();
            imports.map(|it| it.map(|it| served_as[it])).collect()
        });
        let imports: Vec<Vec<Option<usize>>> = imports.collect();
        let brought: Vec<&[Option<usize>]> = self.all.iter().map(|it| &it.imports[..]).collect();
        circles::check(&brought, &imports, &chosen, &names)?;
        let files = chosen.iter().zip(&names).zip(imports);
        let files = files.map(|((&at, name), imports)| {
            let brought = &self.all[at];
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

    /// Finds imports that were not brought together with what imports them: of files of that name the
    /// one that defines most of the types referred to.
    fn resolve(&mut self) {
        let mut names: HashMap<&str, Vec<usize>> = HashMap::new();
        for (at, brought) in self.all.iter().enumerate() {
            names.entry(brought.file.name()).or_default().push(at);
        }
        let mut found = Vec::new();
        for (at, brought) in self.all.iter().enumerate() {
            let imports = brought.imports.iter().zip(&brought.file.dependency);
            let missing = imports.enumerate().filter(|(_, (it, _))| it.is_none());
            for (place, (_, name)) in missing {
                // What nobody has cannot be sent. The client says what it lacks, better than we could.
                let known = names.get(name.as_str()).map_or(&[][..], Vec::as_slice);
                let meant = match known {
                    [one] => Some(*one),
                    _ => known.iter().copied().max_by_key(|&it| {
                        let file = &self.all[it].file;
                        let referred = references(&brought.file, &symbols(file));
                        (referred, Reverse(&self.all[it].encoded))
                    }),
                };
                found.extend(meant.map(|meant| (at, place, meant)));
            }
        }
        for (at, place, meant) in found {
            self.all[at].imports[place] = Some(meant);
        }
    }

    /// Chooses one of the files that share symbols; says which files stay, and for each file the place
    /// among them of that which stands for it.
    fn merge(&self) -> Result<(Vec<usize>, Vec<usize>), String> {
        let defined = self.all.iter().map(|it| symbols(&it.file));
        let defined: Vec<BTreeSet<String>> = defined.collect();
        let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (at, group) in self.groups(&defined).into_iter().enumerate() {
            groups.entry(group).or_default().push(at);
        }
        let mut errors = Vec::new();
        let mut chosen = Vec::with_capacity(groups.len());
        let mut stands_for = vec![0; self.all.len()];
        for group in groups.into_values() {
            let largest = group.iter().copied().max_by_key(|&at| {
                let Brought { encoded, file, .. } = &self.all[at];
                (versions::size(file), encoded.len(), encoded)
            });
            let Some(largest) = largest else { continue };
            for &at in &group {
                stands_for[at] = largest;
                // If it has all of those with which it shares a symbol, the group has no others.
                let shared = defined[largest].intersection(&defined[at]).next();
                let is_other = self.all[at].encoded != self.all[largest].encoded;
                if let Some(shared) = shared.filter(|_| is_other) {
                    let (larger, smaller) = (&self.all[largest].file, &self.all[at].file);
                    errors.extend(versions::check(larger, smaller, shared).err());
                }
            }
            chosen.push(largest);
        }
        if let Some(error) = errors.into_iter().min() {
            return Err(error);
        }
        chosen.sort_by_cached_key(|&at| {
            let Brought { encoded, file, .. } = &self.all[at];
            let told_by = self.told_by(at, &defined, &stands_for);
            (file.package(), told_by, encoded)
        });
        let places = chosen.iter().enumerate().map(|(place, &at)| (at, place));
        let places: HashMap<usize, usize> = places.collect();
        let served_as = stands_for.iter().map(|at| places[at]).collect();
        Ok((chosen, served_as))
    }

    /// What no other file has: the symbols that a file defines, or else those of all that it imports.
    fn told_by<'a>(
        &self,
        at: usize,
        defined: &'a [BTreeSet<String>],
        stands_for: &[usize],
    ) -> BTreeSet<&'a str> {
        let mut seen = HashSet::from([at]);
        let mut left = vec![at];
        let mut symbols = BTreeSet::new();
        while let Some(file) = left.pop() {
            symbols.extend(defined[file].iter().map(String::as_str));
            if defined[at].is_empty() {
                let imports = self.all[file].imports.iter().flatten();
                let imports = imports.map(|&it| stands_for[it]);
                left.extend(imports.filter(|&it| seen.insert(it)));
            }
        }
        symbols
    }

    /// For each file its group: those that share a symbol with it or with one of its group. Files that
    /// define nothing are one if their bytes and the groups of their imports are the same.
    fn groups(&self, defined: &[BTreeSet<String>]) -> Vec<usize> {
        let mut groups = Groups((0..self.all.len()).collect());
        let mut owners: HashMap<&str, usize> = HashMap::new();
        for (at, symbols) in defined.iter().enumerate() {
            for symbol in symbols {
                let owner = *owners.entry(symbol).or_insert(at);
                groups.join(owner, at);
            }
        }
        let empty = (0..defined.len()).filter(|&at| defined[at].is_empty());
        let empty: Vec<usize> = empty.collect();
        let mut has_changed = true;
        while has_changed {
            has_changed = false;
            let mut same: HashMap<(&[u8], Vec<Option<usize>>), usize> = HashMap::new();
            for &at in &empty {
                let brought = &self.all[at];
                let imports = brought.imports.iter().map(|it| it.map(|it| groups.of(it)));
                let key = (&brought.encoded[..], imports.collect());
                let first = *same.entry(key).or_insert(at);
                has_changed |= groups.join(first, at);
            }
        }
        (0..self.all.len()).map(|at| groups.of(at)).collect()
    }
}

/// Sets of files without a file in common: each file leads to one of its set, and that to itself.
struct Groups(Vec<usize>);

impl Groups {
    fn of(&mut self, mut at: usize) -> usize {
        while self.0[at] != at {
            self.0[at] = self.0[self.0[at]];
            at = self.0[at];
        }
        at
    }

    /// Makes the groups of both one, and returns whether they were two.
    fn join(&mut self, one: usize, other: usize) -> bool {
        let (one, other) = (self.of(one), self.of(other));
        self.0[other] = one;
        one != other
    }
}

/// A name for each file that no other has: its own for the first of that name, for others one with the
/// package.
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

/// The bytes of a file with its name and those of its imports changed, each import once; as they came if
/// the names stay.
fn renamed(brought: &Brought, name: &str, imports: &[&str]) -> Bytes {
    let own = brought.file.dependency.iter().map(String::as_str);
    if brought.file.name() == name && own.eq(imports.iter().copied()) {
        return brought.encoded.clone();
    }
    let mut kept: Vec<&str> = Vec::with_capacity(imports.len());
    let places = imports.iter().map(|import| {
        let known = kept.iter().position(|it| it == import);
        known.unwrap_or_else(|| {
            kept.push(import);
            kept.len() - 1
        })
    });
    let places: Vec<usize> = places.collect();
    let is_shorter = kept.len() < imports.len();
    let mut bytes = Vec::with_capacity(brought.encoded.len() + name.len());
    // What comes later in a message counts if a field is there twice, so that its place is free.
    let mut rest = &brought.encoded[..];
    let mut left = kept.iter();
    while let Some((number, whole, after)) = field(rest) {
        match number {
            NAME => push(&mut bytes, NAME, name),
            DEPENDENCY => {
                if let Some(import) = left.next() {
                    push(&mut bytes, DEPENDENCY, import);
                }
            }
            PUBLIC_DEPENDENCY | WEAK_DEPENDENCY if is_shorter => {}
            _ => bytes.extend_from_slice(whole),
        }
        rest = after;
    }
    if is_shorter {
        let FileDescriptorProto {
            public_dependency,
            weak_dependency,
            ..
        } = &brought.file;
        let public = renumbered(public_dependency, &places);
        push_numbers(&mut bytes, PUBLIC_DEPENDENCY, &public);
        // Of imports that are one now, one that is not weak makes it so.
        let strong = (0..).take(places.len());
        let strong: Vec<i32> = strong.filter(|it| !weak_dependency.contains(it)).collect();
        let strong = renumbered(&strong, &places);
        let weak = renumbered(weak_dependency, &places);
        let weak: Vec<i32> = weak.into_iter().filter(|it| !strong.contains(it)).collect();
        push_numbers(&mut bytes, WEAK_DEPENDENCY, &weak);
    }
    bytes.into()
}

/// The new places of imports, each once.
fn renumbered(old: &[i32], places: &[usize]) -> Vec<i32> {
    let new = old.iter().filter_map(|&at| {
        let place = places.get(usize::try_from(at).ok()?)?;
        i32::try_from(*place).ok()
    });
    new.collect::<BTreeSet<i32>>().into_iter().collect()
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

fn push_numbers(bytes: &mut Vec<u8>, number: u8, values: &[i32]) {
    prost::encoding::int32::encode_repeated(u32::from(number), values, bytes);
}
