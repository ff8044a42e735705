//! Which groups have to be in a `Box`, because they lead back to the message that they are in.
//!
//! prost-build finds the messages that contain themselves, but follows no group on its way.

use std::collections::{HashMap, HashSet};

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FileDescriptorProto};

/// The paths of these fields, as prost-build takes them.
pub(crate) fn boxed_groups<'a>(
    files: impl Iterator<Item = &'a FileDescriptorProto>,
) -> Vec<String> {
    let mut graph = Graph::default();
    for file in files {
        let package = match file.package() {
            "" => String::new(),
            package => format!(".{package}"),
        };
        for message in &file.message_type {
            graph.add(message, &package);
        }
    }
    let groups = graph.groups.iter();
    let looping = groups.filter(|group| graph.leads(group.of, &group.within));
    looping.map(|group| group.path.clone()).collect()
}

/// The messages, and what each of them holds once.
#[derive(Default)]
struct Graph<'a> {
    held: HashMap<String, Vec<&'a str>>,
    groups: Vec<Group<'a>>,
}

/// A field that is a group.
struct Group<'a> {
    within: String,
    path: String,
    of: &'a str,
}

impl<'a> Graph<'a> {
    /// Adds `message`, which lies in `scope`, and those inside.
    fn add(&mut self, message: &'a DescriptorProto, scope: &str) {
        let name = format!("{scope}.{}", message.name());
        let mut held = Vec::new();
        for field in &message.field {
            let is_group = field.r#type() == Type::Group;
            if field.label() == Label::Repeated || !(is_group || field.r#type() == Type::Message) {
                continue;
            }
            held.push(field.type_name());
            if is_group {
                let oneof = field.oneof_index.and_then(|it| usize::try_from(it).ok());
                let oneof = oneof.and_then(|it| message.oneof_decl.get(it));
                let oneof = oneof.map_or(String::new(), |it| format!(".{}", it.name()));
                self.groups.push(Group {
                    within: name.clone(),
                    path: format!("{name}{oneof}.{}", field.name()),
                    of: field.type_name(),
                });
            }
        }
        for nested in &message.nested_type {
            self.add(nested, &name);
        }
        self.held.insert(name, held);
    }

    fn leads(&self, from: &str, to: &str) -> bool {
        let mut queue = vec![from];
        let mut seen = HashSet::new();
        while let Some(name) = queue.pop() {
            if name == to {
                return true;
            }
            if seen.insert(name) {
                queue.extend(self.held.get(name).into_iter().flatten());
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use prost_types::{FieldDescriptorProto, OneofDescriptorProto};

    use super::*;

    fn field(name: &str, of: Type, type_name: &str) -> FieldDescriptorProto {
        FieldDescriptorProto {
            name: Some(name.to_owned()),
            r#type: Some(of.into()),
            type_name: Some(type_name.to_owned()),
            label: Some(Label::Optional.into()),
            ..FieldDescriptorProto::default()
        }
    }

    #[test]
    fn groups_that_lead_back_are_boxed_and_no_others() {
        let message = |name: &str, field: Vec<FieldDescriptorProto>| DescriptorProto {
            name: Some(name.to_owned()),
            field,
            ..DescriptorProto::default()
        };
        let mut of_oneof = field("c", Type::Group, ".p.A");
        of_oneof.oneof_index = Some(0);
        let mut many = field("d", Type::Group, ".p.A");
        many.set_label(Label::Repeated);
        let mut back = message("B", vec![of_oneof, many, field("e", Type::Group, ".p.C")]);
        back.oneof_decl.push(OneofDescriptorProto {
            name: Some("o".to_owned()),
            options: None,
        });
        let file = FileDescriptorProto {
            package: Some("p".to_owned()),
            message_type: vec![
                message(
                    "A",
                    vec![
                        field("b", Type::Group, ".p.B"),
                        field("f", Type::String, ""),
                    ],
                ),
                back,
                message("C", vec![field("g", Type::Message, ".p.C")]),
            ],
            ..FileDescriptorProto::default()
        };
        assert_eq!(boxed_groups([&file].into_iter()), [".p.A.b", ".p.B.o.c"]);
    }
}
