//! Makes the names in a file absolute, those in values of options too.

use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    ServiceDescriptorProto, UninterpretedOption,
};

use crate::error::{CompileError, Position};
use crate::names::joined;
use crate::options;
use crate::symbols::{Missing, Symbols, View, Wanted};

/// Makes the names in `file`, which has been declared, absolute.
///
/// # Errors
///
/// A name that is not defined, or not imported.
pub(crate) fn make_absolute(
    file: &mut FileDescriptorProto,
    symbols: &mut Symbols,
) -> Result<(), CompileError> {
    let view = View::of(symbols, file.name());
    let named = walk(file, &mut |item, inside| {
        let Item::Type(name, wanted) = item else {
            return Ok(());
        };
        let Some(name) = name.as_mut().filter(|it| !it.is_empty()) else {
            return Ok(());
        };
        match view.resolve(symbols, name, inside, wanted) {
            Ok(full) => *name = format!(".{full}"),
            Err(missing) => return Err(described(name, missing)),
        }
        Ok(())
    });
    named.map_err(|wrong| wrong.in_file(file))?;
    symbols.learn(file);
    let symbols = &*symbols;
    let set = walk(file, &mut |item, inside| {
        let Item::Option(of, option) = item else {
            return Ok(());
        };
        for part in option.name.iter_mut().filter(|it| it.is_extension) {
            match view.resolve(symbols, &part.name_part, inside, Wanted::Extension) {
                Ok(full) => part.name_part = format!(".{full}"),
                Err(missing) => return Err(described(&part.name_part, missing)),
            }
        }
        options::prepare(option, of, symbols, &view);
        Ok(())
    });
    set.map_err(|wrong| wrong.in_file(file))
}

fn described(name: &str, missing: Missing) -> String {
    match missing {
        Missing::Inner(full) => format!(
            "name '{name}' is '{full}' here, which is not defined: the innermost scope comes first; \
             write '.{name}' to start from the outermost"
        ),
        Missing::NotImported { full, file } => format!(
            "name '{name}' is not defined; '{full}' is defined in '{file}', which is not imported"
        ),
        Missing::Unknown => {
            format!("name '{name}' is not defined; define it, or import the file that does")
        }
    }
}

/// One thing in a file that holds names.
enum Item<'a> {
    /// A reference to a type, and what it is looked up for.
    Type(&'a mut Option<String>, Wanted),
    /// An option and the message that the options lie in.
    Option(&'static str, &'a mut UninterpretedOption),
}

/// What is wrong, and where, as in `google.protobuf.SourceCodeInfo`.
struct Wrong {
    message: String,
    path: Vec<i32>,
}

impl Wrong {
    fn in_file(&self, file: &FileDescriptorProto) -> CompileError {
        CompileError::new(&self.message).at(Position::of(file, &self.path))
    }
}

/// Calls `visit` for each item in a file, with the full name that the item is looked up from.
fn walk(
    file: &mut FileDescriptorProto,
    visit: &mut dyn FnMut(Item<'_>, &str) -> Result<(), String>,
) -> Result<(), Wrong> {
    let package = file.package().to_owned();
    let mut walk = Walk {
        path: Vec::new(),
        visit,
    };
    // Any name will do: the last part is taken off.
    let inside = joined(&package, "_");
    walk.options(
        8,
        "FileOptions",
        &inside,
        file.options.as_mut().map(|it| &mut it.uninterpreted_option),
    )?;
    for (index, message) in (0..).zip(&mut file.message_type) {
        walk.within([4, index], |walk| walk.message(&package, message))?;
    }
    for (index, it) in (0..).zip(&mut file.enum_type) {
        walk.within([5, index], |walk| walk.enumeration(&package, it))?;
    }
    for (index, service) in (0..).zip(&mut file.service) {
        walk.within([6, index], |walk| walk.service(&package, service))?;
    }
    for (index, extension) in (0..).zip(&mut file.extension) {
        walk.within([7, index], |walk| walk.field(&package, extension))?;
    }
    Ok(())
}

struct Walk<'a> {
    path: Vec<i32>,
    visit: &'a mut dyn FnMut(Item<'_>, &str) -> Result<(), String>,
}

impl Walk<'_> {
    fn message(&mut self, outer: &str, message: &mut DescriptorProto) -> Result<(), Wrong> {
        let name = joined(outer, message.name());
        let set = message.options.as_mut();
        self.options(
            7,
            "MessageOptions",
            &name,
            set.map(|it| &mut it.uninterpreted_option),
        )?;
        for (index, field) in (0..).zip(&mut message.field) {
            self.within([2, index], |walk| walk.field(&name, field))?;
        }
        for (index, nested) in (0..).zip(&mut message.nested_type) {
            self.within([3, index], |walk| walk.message(&name, nested))?;
        }
        for (index, it) in (0..).zip(&mut message.enum_type) {
            self.within([4, index], |walk| walk.enumeration(&name, it))?;
        }
        for (index, range) in (0..).zip(&mut message.extension_range) {
            let set = range
                .options
                .as_mut()
                .map(|it| &mut it.uninterpreted_option);
            self.within([5, index], |walk| {
                walk.options(3, "ExtensionRangeOptions", &name, set)
            })?;
        }
        for (index, extension) in (0..).zip(&mut message.extension) {
            self.within([6, index], |walk| walk.field(&name, extension))?;
        }
        for (index, oneof) in (0..).zip(&mut message.oneof_decl) {
            let inside = joined(&name, oneof.name());
            let set = oneof
                .options
                .as_mut()
                .map(|it| &mut it.uninterpreted_option);
            self.within([8, index], |walk| {
                walk.options(2, "OneofOptions", &inside, set)
            })?;
        }
        Ok(())
    }

    fn field(&mut self, outer: &str, field: &mut FieldDescriptorProto) -> Result<(), Wrong> {
        let name = joined(outer, field.name());
        self.name(6, &mut field.type_name, &name, Wanted::Type)?;
        self.name(2, &mut field.extendee, &name, Wanted::Any)?;
        let set = field
            .options
            .as_mut()
            .map(|it| &mut it.uninterpreted_option);
        self.options(8, "FieldOptions", &name, set)
    }

    fn enumeration(&mut self, outer: &str, it: &mut EnumDescriptorProto) -> Result<(), Wrong> {
        let name = joined(outer, it.name());
        let set = it.options.as_mut().map(|it| &mut it.uninterpreted_option);
        self.options(3, "EnumOptions", &name, set)?;
        for (index, value) in (0..).zip(&mut it.value) {
            let inside = joined(outer, value.name());
            let set = value
                .options
                .as_mut()
                .map(|it| &mut it.uninterpreted_option);
            self.within([2, index], |walk| {
                walk.options(3, "EnumValueOptions", &inside, set)
            })?;
        }
        Ok(())
    }

    fn service(&mut self, outer: &str, service: &mut ServiceDescriptorProto) -> Result<(), Wrong> {
        let name = joined(outer, service.name());
        let set = service
            .options
            .as_mut()
            .map(|it| &mut it.uninterpreted_option);
        self.options(3, "ServiceOptions", &name, set)?;
        for (index, method) in (0..).zip(&mut service.method) {
            let inside = joined(&name, method.name());
            self.within([2, index], |walk| {
                walk.name(2, &mut method.input_type, &inside, Wanted::Any)?;
                walk.name(3, &mut method.output_type, &inside, Wanted::Any)?;
                let set = method
                    .options
                    .as_mut()
                    .map(|it| &mut it.uninterpreted_option);
                walk.options(4, "MethodOptions", &inside, set)
            })?;
        }
        Ok(())
    }

    fn name(
        &mut self,
        field: i32,
        name: &mut Option<String>,
        inside: &str,
        wanted: Wanted,
    ) -> Result<(), Wrong> {
        let result = (self.visit)(Item::Type(name, wanted), inside);
        result.map_err(|message| self.wrong(message, &[field]))
    }

    fn options(
        &mut self,
        field: i32,
        of: &'static str,
        inside: &str,
        set: Option<&mut Vec<UninterpretedOption>>,
    ) -> Result<(), Wrong> {
        for (index, option) in (0..).zip(set.into_iter().flatten()) {
            let result = (self.visit)(Item::Option(of, option), inside);
            // descriptor.proto: all kinds of options have `uninterpreted_option` as 999.
            result.map_err(|message| self.wrong(message, &[field, 999, index]))?;
        }
        Ok(())
    }

    fn wrong(&self, message: String, path: &[i32]) -> Wrong {
        let path = [&self.path, path].concat();
        Wrong { message, path }
    }

    fn within(
        &mut self,
        step: [i32; 2],
        walk: impl FnOnce(&mut Self) -> Result<(), Wrong>,
    ) -> Result<(), Wrong> {
        self.path.extend(step);
        let result = walk(self);
        self.path.truncate(self.path.len() - step.len());
        result
    }
}
