//! Packages as modules within one another.
//!
//! Generated code names the types of another package by a path such as `super::other::Type`, which
//! holds only if packages are modules in the way their names say.

use std::collections::BTreeMap;

use prost_build::Module;

use crate::generate::Package;
use crate::service::ALLOW;

/// The name of the file for `.proto` files without a package.
const NO_PACKAGE: &str = "_";

/// The name of the file for a package.
pub(crate) fn file_name(module: &Module) -> String {
    module.to_file_name_or(NO_PACKAGE)
}

/// A file with a module for each package, which includes that of the package.
pub(crate) fn includes<'a>(packages: impl Iterator<Item = (&'a Module, &'a Package)>) -> String {
    tree(packages, |module, _| {
        format!("include!(\"{}\");", file_name(module))
    })
}

/// All packages as one text for one place; see `Generated::nested`.
pub(crate) fn nested(packages: &BTreeMap<Module, Package>) -> String {
    let mut values = packages.values();
    if let (Some(only), None) = (values.next(), values.next()) {
        return only.text.clone();
    }
    let mut text = tree(packages, |_, package| package.text.clone());
    let mut named = packages.iter().filter(|(_, package)| package.named);
    if let (Some((module, _)), None) = (named.next(), named.next())
        && !module.is_empty()
    {
        text.push_str(&format!(
            "#[allow(unreachable_pub, unused_imports)]\npub use self::{module}::*;\n"
        ));
    }
    text
}

/// Modules with what `leaf` gives for each package.
fn tree<'a>(
    packages: impl IntoIterator<Item = (&'a Module, &'a Package)>,
    leaf: impl Fn(&Module, &Package) -> String,
) -> String {
    let mut root = Node::default();
    for (module, package) in packages {
        let mut node = &mut root;
        for part in module.parts() {
            node = node.children.entry(part.to_owned()).or_default();
        }
        // Packages that differ only in case are one module.
        node.text.push_str(&leaf(module, package));
    }
    let mut text = String::new();
    root.write(0, "", &mut text);
    text
}

#[derive(Default)]
struct Node {
    text: String,
    children: BTreeMap<String, Self>,
}

impl Node {
    fn write(&self, depth: usize, path: &str, text: &mut String) {
        let indent = "    ".repeat(depth);
        for line in self.text.lines() {
            if !line.is_empty() {
                text.push_str(&indent);
                text.push_str(line);
            }
            text.push('\n');
        }
        for (name, child) in &self.children {
            let path = format!("{path}{}{name}", if path.is_empty() { "" } else { "::" });
            text.push_str(&format!("{indent}/// Package `{path}`.\n"));
            if depth == 0 {
                text.push_str(ALLOW);
                text.push('\n');
            }
            text.push_str(&format!("{indent}pub mod {name} {{\n"));
            child.write(depth + 1, &path, text);
            text.push_str(&format!("{indent}}}\n"));
        }
    }
}
