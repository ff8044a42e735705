//! Which module carries the descriptor of which file.
//!
//! A file's descriptor is a static in one module, and what imports the file refers to it there. The
//! reference is a path through modules, so it has to lead where there is a module. The module of
//! another package is sure to be there only if types are referred to in the same way, or if all
//! modules are written as one tree: packages that are tied together so are a group. A file whose own
//! package is not written in the group, such as those of `google.protobuf`, is carried by the first
//! package that needs it, of those with a named file if there is one.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use prost_build::Module;
use prost_types::DescriptorProto;

use crate::descriptors::{Loading, join};
use crate::names::DESCRIPTORS;

/// A module that is written, and how it is tied to others.
#[derive(Debug)]
pub(crate) struct Written {
    /// Whether it is the package of a file that the user named.
    pub(crate) named: bool,
    /// Whether services in it show descriptors.
    pub(crate) serves: bool,
}

/// The descriptors that each module carries.
#[derive(Default)]
pub(crate) struct Carried<'a> {
    modules: BTreeMap<Module, Vec<&'a Loading>>,
    /// By the group of the one who asks, and the name of the file.
    places: HashMap<(usize, &'a str), (Module, usize)>,
    groups: BTreeMap<Module, usize>,
}

/// Where a file belongs by its package.
pub(crate) type ModuleOf<'m> = &'m dyn Fn(&Loading) -> Module;

impl<'a> Carried<'a> {
    /// Distributes the descriptors of `files` over the modules that are `written`, which are one tree
    /// or are included wherever the user likes.
    pub(crate) fn of(
        files: &'a [Loading],
        written: &BTreeMap<Module, Written>,
        module_of: ModuleOf<'_>,
        is_extern: &dyn Fn(&str) -> bool,
        is_tree: bool,
    ) -> Self {
        let mut carried = Self {
            groups: groups(files, written, module_of, is_extern, is_tree),
            ..Self::default()
        };
        let needs = |module: &Module| {
            let written = written.get(module);
            written.is_some_and(|it| it.named || it.serves)
        };
        let all: BTreeSet<usize> = carried.groups.values().copied().collect();
        for group in all {
            let members = carried.groups.iter().filter(|(_, of)| **of == group);
            let members: BTreeSet<Module> = members.map(|(module, _)| module.clone()).collect();
            let needy = || members.iter().filter(|module| needs(module));
            let named = needy().filter(|module| written[*module].named);
            let others = needy().filter(|module| !written[*module].named);
            let mut homes = BTreeMap::new();
            for module in named.chain(others) {
                for file in closure(files, |file| module_of(file) == *module) {
                    let own = module_of(file);
                    let is_own = file.used && members.contains(&own);
                    let home = if is_own { own } else { module.clone() };
                    // Those of the package itself come first, and keep their numbers when imports change.
                    let key = (!is_own, file.descriptor.name());
                    homes.entry(key).or_insert((home, file));
                }
            }
            for ((_, name), (module, file)) in homes {
                let carries = carried.modules.entry(module.clone()).or_default();
                let place = (module, carries.len());
                carries.push(file);
                carried.places.insert((group, name), place);
            }
        }
        carried
    }

    /// The statics of a module: one for each file that it carries, and one for its package.
    pub(crate) fn text(&self, module: &Module, module_of: ModuleOf<'_>) -> String {
        const TYPE: &str = "::trunkline::FileDescriptors";
        let files = self.modules.get(module).map_or(&[][..], Vec::as_slice);
        let own = (0..)
            .zip(files)
            .filter(|(_, file)| module_of(file) == *module);
        let own: Vec<String> = own.map(|(at, _)| format!("&{DESCRIPTORS}_{at}")).collect();
        let mut text = format!(
            "
/// The descriptors of the files of this package, with all that they import, for reflection.
#[allow(dead_code, unreachable_pub)]
pub static {DESCRIPTORS}: {TYPE} =
    {TYPE}::new(b\"\", &[{}]);
",
            own.join(", ")
        );
        for (at, file) in files.iter().enumerate() {
            let imports = file.descriptor.dependency.iter();
            let imports: Vec<String> = imports
                .filter_map(|name| self.path(module, name))
                .map(|path| format!("\n        &{path},"))
                .collect();
            let end = if imports.is_empty() { "" } else { "\n    " };
            let set = byte_string(&join([file.encoded.as_slice()].into_iter()));
            text.push_str(&format!(
                "
// {}
#[doc(hidden)]
#[allow(dead_code, unreachable_pub)]
pub static {DESCRIPTORS}_{at}: {TYPE} = {TYPE}::new(
    {set},
    &[{}{end}],
);
",
                file.descriptor.name(),
                imports.concat(),
            ));
        }
        text
    }

    /// The path that leads from a module to the static of a file.
    fn path(&self, from: &Module, file: &str) -> Option<String> {
        let group = *self.groups.get(from)?;
        let (module, at) = self.places.get(&(group, file))?;
        let (from, to): (Vec<&str>, Vec<&str>) = (from.parts().collect(), module.parts().collect());
        let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
        let up = from[common..].iter().map(|_| "super");
        let path: Vec<&str> = up.chain(to[common..].iter().copied()).collect();
        let separator = if path.is_empty() { "" } else { "::" };
        Some(format!("{}{separator}{DESCRIPTORS}_{at}", path.join("::")))
    }

    pub(crate) fn is_carrier(&self, module: &Module) -> bool {
        self.modules.contains_key(module)
    }
}

/// The files for which `is_root` holds, and all that they import, in the order of `files`.
fn closure(files: &[Loading], is_root: impl Fn(&Loading) -> bool) -> Vec<&Loading> {
    let by_name: HashMap<&str, &Loading> = files
        .iter()
        .map(|file| (file.descriptor.name(), file))
        .collect();
    let roots = files.iter().filter(|file| file.used && is_root(file));
    let mut queue: Vec<&str> = roots.map(|file| file.descriptor.name()).collect();
    let mut needed = HashSet::new();
    while let Some(name) = queue.pop() {
        if needed.insert(name)
            && let Some(file) = by_name.get(name)
        {
            queue.extend(file.descriptor.dependency.iter().map(String::as_str));
        }
    }
    let files = files.iter();
    files
        .filter(|file| needed.contains(file.descriptor.name()))
        .collect()
}

/// The group of each written module.
fn groups(
    files: &[Loading],
    written: &BTreeMap<Module, Written>,
    module_of: ModuleOf<'_>,
    is_extern: &dyn Fn(&str) -> bool,
    is_tree: bool,
) -> BTreeMap<Module, usize> {
    let numbers = (0..).zip(written.keys());
    let mut groups: BTreeMap<Module, usize> =
        numbers.map(|(at, module)| (module.clone(), at)).collect();
    let mut tie = |one: &Module, other: &Module| {
        if let (Some(&one), Some(&other)) = (groups.get(one), groups.get(other)) {
            let (low, high) = (one.min(other), one.max(other));
            let members = groups.values_mut().filter(|group| **group == high);
            members.for_each(|group| *group = low);
        }
    };
    let mut defined = HashMap::new();
    for file in files {
        let module = module_of(file);
        let package = match file.descriptor.package() {
            "" => String::new(),
            package => format!(".{package}"),
        };
        let messages = file.descriptor.message_type.iter().map(|it| it.name());
        let enums = file.descriptor.enum_type.iter().map(|it| it.name());
        for name in messages.chain(enums) {
            defined.insert(format!("{package}.{name}"), module.clone());
        }
    }
    for file in files.iter().filter(|file| file.used) {
        let module = module_of(file);
        for name in references(file) {
            let mut names = name.match_indices('.').map(|(at, _)| &name[..at]);
            let other = names.find_map(|outer| defined.get(outer));
            let other = other.or_else(|| defined.get(name));
            if let Some(other) = other.filter(|_| !is_extern(name)) {
                tie(&module, other);
            }
        }
    }
    if is_tree {
        let needy = written.iter().filter(|(_, it)| it.named || it.serves);
        let needy: Vec<&Module> = needy.map(|(module, _)| module).collect();
        needy.windows(2).for_each(|pair| tie(pair[0], pair[1]));
    }
    groups
}

/// The full names of the types that a file refers to.
fn references(file: &Loading) -> HashSet<&str> {
    fn fields<'a>(message: &'a DescriptorProto, names: &mut HashSet<&'a str>) {
        names.extend(
            message
                .field
                .iter()
                .filter_map(|it| it.type_name.as_deref()),
        );
        message.nested_type.iter().for_each(|it| fields(it, names));
    }
    let mut names = HashSet::new();
    let messages = file.descriptor.message_type.iter();
    messages.for_each(|message| fields(message, &mut names));
    let methods = file.descriptor.service.iter().flat_map(|it| &it.method);
    names.extend(methods.flat_map(|it| [it.input_type(), it.output_type()]));
    names
}

/// A byte string literal over several lines.
fn byte_string(bytes: &[u8]) -> String {
    const WIDTH: usize = 96;
    let mut literal = String::from("b\"");
    let mut line = String::new();
    for byte in bytes {
        match byte {
            // White space at the start of a line belongs to the layout of the literal.
            b' ' if line.is_empty() => line.push_str("\\x20"),
            b'\'' => line.push('\''),
            0 => line.push_str("\\0"),
            _ => line.push_str(&byte.escape_ascii().to_string()),
        }
        if line.len() >= WIDTH {
            literal.push_str("\\\n    ");
            literal.push_str(&line);
            line.clear();
        }
    }
    if !line.is_empty() {
        literal.push_str("\\\n    ");
        literal.push_str(&line);
    }
    literal.push('"');
    literal
}
