//! Names that prost-build would get wrong, and what stands for them while it works.
//!
//! prost-build derives the names of Rust from those in the descriptors. Where another name has been
//! chosen, the descriptor gets a marker in its place, which no rule of prost-build changes, and the
//! chosen name takes the marker's place in the text.

use std::collections::HashMap;

use prost_types::{DescriptorProto, FileDescriptorProto};

/// Starts each marker. One capital letter, so that no name of an enum is a prefix of it.
const CAMEL: &str = "Xtrunklinename";
const SNAKE: &str = "xtrunklinename";
/// Digits of a marker: no other digit follows, so that none is the start of another.
const DIGITS: usize = 8;

/// What has got another name, and what is known by its marker.
#[derive(Debug, Default)]
pub(crate) struct Markers {
    names: Vec<Marked>,
    /// Full names, as they were and as they are, the outer ones first.
    changed: Vec<(String, String)>,
}

#[derive(Debug)]
struct Marked {
    /// As the file has it.
    proto: String,
    /// Where prost-build says it in capitals: types, variants.
    camel: String,
    /// Where it does not: fields, modules.
    snake: String,
}

impl Markers {
    /// A marker for `proto`, which becomes `camel` or `snake`.
    pub(crate) fn mark(&mut self, proto: &str, camel: &str, snake: &str) -> String {
        let marker = format!("{CAMEL}{:0DIGITS$}", self.names.len());
        self.names.push(Marked {
            proto: proto.to_owned(),
            camel: camel.to_owned(),
            snake: snake.to_owned(),
        });
        marker
    }

    /// Notes that the full name `old` is `new` in the descriptors.
    pub(crate) fn changed(&mut self, old: &str, new: &str) {
        if old != new {
            self.changed.push((old.to_owned(), new.to_owned()));
        }
    }

    /// The paths that name in the descriptors what `path` names in the files.
    pub(crate) fn paths(&self, path: &str) -> Vec<String> {
        let mut paths = vec![path.to_owned()];
        for (old, new) in &self.changed {
            let is_known = |it: &String| is_named(it, new);
            if is_named(path, old) && !paths.iter().any(is_known) {
                paths.push(new.clone());
            }
        }
        paths
    }

    /// Changes what refers to types that have got other names.
    pub(crate) fn refer(&self, file: &mut FileDescriptorProto) {
        let changed: HashMap<&str, &str> = self
            .changed
            .iter()
            .map(|(old, new)| (old.as_str(), new.as_str()))
            .collect();
        let refer = |name: &mut Option<String>| {
            if let Some(name) = name
                && let Some(new) = changed.get(name.as_str())
            {
                *name = (*new).to_owned();
            }
        };
        fn fields(message: &mut DescriptorProto, refer: &impl Fn(&mut Option<String>)) {
            for field in &mut message.field {
                refer(&mut field.type_name);
            }
            for nested in &mut message.nested_type {
                fields(nested, refer);
            }
        }
        for message in &mut file.message_type {
            fields(message, &refer);
        }
        for method in file.service.iter_mut().flat_map(|it| &mut it.method) {
            refer(&mut method.input_type);
            refer(&mut method.output_type);
        }
    }

    /// A name of the descriptors as the files have it.
    pub(crate) fn proto(&self, name: &str) -> String {
        self.replaced(name, |marked, _| &marked.proto)
    }

    /// A name of Rust with the chosen names.
    pub(crate) fn rust(&self, text: &str) -> String {
        self.replaced(text, |marked, is_camel| match is_camel {
            true => &marked.camel,
            false => &marked.snake,
        })
    }

    /// The text of prost-build with the chosen names. Names in documentation and in strings are
    /// those of the files, but for the strings of attributes, which are paths of Rust.
    pub(crate) fn expand(&self, text: &str) -> String {
        if self.names.is_empty() {
            return text.to_owned();
        }
        let mut expanded = String::with_capacity(text.len());
        for line in text.split_inclusive('\n') {
            let code = line.trim_start();
            if code.starts_with("///") {
                expanded.push_str(&self.proto(line));
            } else if code.starts_with("#[") {
                expanded.push_str(&self.rust(line));
            } else {
                for (at, part) in line.split('"').enumerate() {
                    if at > 0 {
                        expanded.push('"');
                    }
                    let is_string = at % 2 == 1;
                    expanded.push_str(&if is_string {
                        self.proto(part)
                    } else {
                        self.rust(part)
                    });
                }
            }
        }
        expanded
    }

    fn replaced<'a>(&'a self, text: &str, with: impl Fn(&'a Marked, bool) -> &'a str) -> String {
        const _: () = assert!(CAMEL.len() == SNAKE.len(), "one length for both");
        let (mut replaced, mut rest) = (String::with_capacity(text.len()), text);
        while let Some(at) = rest.find(&SNAKE[1..]).and_then(|at| at.checked_sub(1)) {
            let (before, marker) = rest.split_at(at);
            let end = SNAKE.len() + DIGITS;
            let number = marker.get(SNAKE.len()..end);
            let marked = number.and_then(|it| self.names.get(it.parse::<usize>().ok()?));
            replaced.push_str(before);
            match marked {
                Some(marked) => replaced.push_str(with(marked, marker.starts_with(CAMEL))),
                None => replaced.push_str(&marker[..SNAKE.len()]),
            }
            rest = &marker[marked.map_or(SNAKE.len(), |_| end)..];
        }
        replaced.push_str(rest);
        replaced
    }
}

/// Whether `path`, as users write one, names `full`, which is a full name.
pub(crate) fn is_named(path: &str, full: &str) -> bool {
    if path == "." || path == full {
        return true;
    }
    match path.starts_with('.') {
        true => full
            .strip_prefix(path)
            .is_some_and(|rest| rest.starts_with('.')),
        false => full
            .strip_suffix(path)
            .is_some_and(|rest| rest.ends_with('.')),
    }
}

#[cfg(test)]
mod tests {
    use heck::{ToSnakeCase, ToUpperCamelCase};

    use super::*;

    #[test]
    fn a_path_names_what_prost_build_would_take_it_for() {
        let field = ".shop.v1.Order.signature";
        for path in [
            ".",
            ".shop",
            ".shop.v1",
            ".shop.v1.Order",
            ".shop.v1.Order.signature",
            "shop.v1.Order.signature",
            "Order.signature",
            "signature",
        ] {
            assert!(is_named(path, field), "{path}");
        }
        for path in [
            "",
            ".sho",
            ".shop.v",
            "shop",
            "nature",
            "rder.signature",
            ".Order.signature",
            ".shop.v1.Order.signature.x",
        ] {
            assert!(!is_named(path, field), "{path}");
        }
    }

    #[test]
    fn no_rule_of_prost_build_changes_a_marker() {
        let mut markers = Markers::default();
        for _ in 0..11 {
            let marker = markers.mark("proto", "Camel_", "snake_");
            assert_eq!(marker.to_upper_camel_case(), marker);
            assert_eq!(markers.rust(&marker.to_snake_case()), "snake_");
            assert_eq!(markers.rust(&format!("a::{marker}, b")), "a::Camel_, b");
        }
    }

    #[test]
    fn each_place_of_a_marker_gets_its_kind_of_name() {
        let mut markers = Markers::default();
        let marker = markers.mark("foo_bar", "FooBar_", "foo_bar_");
        let snake = marker.to_snake_case();
        let text = format!(
            "/// Nested in `{marker}`.\n#[prost(oneof = \"{snake}::{marker}\")]\npub {snake}: \
             {marker},\nconst NAME: &str = \"p.{marker}\"; Self::{marker} => \"{marker}\",\n"
        );
        assert_eq!(
            markers.expand(&text),
            "/// Nested in `foo_bar`.\n#[prost(oneof = \"foo_bar_::FooBar_\")]\npub foo_bar_: \
             FooBar_,\nconst NAME: &str = \"p.foo_bar\"; Self::FooBar_ => \"foo_bar\",\n"
        );
        // What only looks like one stays.
        for text in ["xtrunklinename", "Xtrunklinename00000009", "trunklinename"] {
            assert_eq!(markers.expand(text), text);
        }
    }

    #[test]
    fn a_path_leads_to_what_has_another_name_once() {
        let mut markers = Markers::default();
        markers.changed(".p.A", ".p.X");
        markers.changed(".p.A.B", ".p.X.B");
        markers.changed(".p.A.c", ".p.X.c");
        for (path, paths) in [
            (".", &["."][..]),
            (".p", &[".p"]),
            (".p.A", &[".p.A", ".p.X"]),
            (".p.A.c", &[".p.A.c", ".p.X.c"]),
            ("c", &["c"]),
            ("A.c", &["A.c", ".p.X.c"]),
        ] {
            assert_eq!(markers.paths(path), paths, "{path}");
        }
    }
}
