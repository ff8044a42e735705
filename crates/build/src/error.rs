//! Errors of code generation, each on one line.

use std::fmt;
use std::path::{Path, PathBuf};

use miette::{Diagnostic, LabeledSpan};
use prost_types::FileDescriptorProto;

/// An error of code generation: one line with the position, the cause and a way to fix it.
///
/// Both `Display` and `Debug` print `file:line:column: message`, so a build script can return this
/// error from `main` and the output stays readable. Lines and columns count from one. A file below
/// the current directory is shown with its relative path.
///
/// ```no_run
/// if let Err(error) = trunkline_build::Config::new().compile(["proto/helloworld.proto"]) {
///     println!("line {:?} of {:?}: {}", error.line(), error.file(), error.message());
/// }
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct CompileError {
    file: Option<PathBuf>,
    position: Option<Position>,
    message: String,
}

/// A place in a file, counted from one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

impl Position {
    /// The place of what `path` leads to in a descriptor, as in `google.protobuf.SourceCodeInfo`.
    pub(crate) fn of(file: &FileDescriptorProto, path: &[i32]) -> Option<Self> {
        let mut locations = file.source_code_info.as_ref()?.location.iter();
        let span = &locations.find(|location| location.path == path)?.span;
        let one_based = |number: Option<&i32>| Some(usize::try_from(*number?).ok()? + 1);
        Some(Self {
            line: one_based(span.first())?,
            column: one_based(span.get(1))?,
        })
    }
}

impl Position {
    /// The place of a byte of a text.
    pub(crate) fn in_text(text: &str, place: usize) -> Self {
        let before = text.get(..place).unwrap_or(text);
        let line = before.rsplit('\n').next().unwrap_or_default();
        Self {
            line: before.matches('\n').count() + 1,
            column: line.chars().count() + 1,
        }
    }
}

impl CompileError {
    /// Returns the file that caused the error, or `None` if no single file did.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Returns the line, counted from one, or `None` if the error concerns the whole file.
    pub fn line(&self) -> Option<usize> {
        self.position.map(|position| position.line)
    }

    /// Returns the column, counted from one, or `None` if the error concerns the whole file.
    pub fn column(&self) -> Option<usize> {
        self.position.map(|position| position.column)
    }

    /// Returns the message without file, line and column.
    pub fn message(&self) -> &str {
        &self.message
    }

    pub(crate) fn new(message: impl AsRef<str>) -> Self {
        // Whoever prints this error gets one line, whatever a library put into its text.
        let words: Vec<&str> = message.as_ref().split_whitespace().collect();
        Self {
            file: None,
            position: None,
            message: words.join(" "),
        }
    }

    pub(crate) fn in_file(mut self, file: &Path) -> Self {
        self.file = Some(shown(file));
        self
    }

    pub(crate) fn at(mut self, position: Option<Position>) -> Self {
        self.position = position;
        self
    }

    /// Adds to the message: a cause or a way out.
    pub(crate) fn add(&mut self, more: &str) {
        self.message = Self::new(format!("{}; {more}", self.message)).message;
    }

    /// What the compiler said about the contents of a file.
    ///
    /// `original` leads from a place in what the compiler read to that in `source`.
    pub(crate) fn from_diagnostic(
        error: &dyn Diagnostic,
        source: &str,
        original: impl Fn(usize) -> usize,
    ) -> Self {
        let position = |label: &LabeledSpan| Position::in_text(source, original(label.offset()));
        let labels: Vec<LabeledSpan> = error.labels().into_iter().flatten().collect();
        let main = main_label(&labels);
        let mut message = error.to_string();
        for (at, label) in labels.iter().enumerate() {
            if let (false, Some(text)) = (Some(at) == main, label.label()) {
                let place = position(label);
                let text = text.trim_end_matches('…');
                message.push_str(&format!("; {text}, at {}:{}", place.line, place.column));
            }
        }
        if let Some(cause) = std::error::Error::source(error) {
            message.push_str(&format!(": {cause}"));
        }
        if let Some(help) = error.help() {
            message.push_str(&format!("; {help}"));
        }
        // The compiler has the words of another error here.
        let message = message.replace("invalid group name; imports", "invalid import; imports");
        let position = match main {
            Some(main) => Some(position(&labels[main])),
            None if message.contains("end of file") => Some(end(source)),
            None => None,
        };
        let mut error = Self::new(message).at(position);
        let ways = WAYS_OUT
            .iter()
            .filter(|(cause, _)| error.message.contains(cause));
        let ways: Vec<&str> = ways.map(|(_, way)| *way).collect();
        ways.iter().for_each(|way| error.add(way));
        error
    }
}

/// What to do about causes for which the compiler does not say it.
const WAYS_OUT: [(&str, &str); 10] = [
    (
        " for option '",
        "if protoc accepts it, pass its output to Config::compile_descriptor_set",
    ),
    (
        "' is not defined",
        "define it, or import the file that does",
    ),
    ("' is defined twice", "rename one"),
    ("camel-case name of", "rename one"),
    ("is already used", "choose another number"),
    ("conflicts with reserved range", "choose another number"),
    (
        "import cycle detected",
        "move the shared definitions into a separate file",
    ),
    ("was listed twice", "remove one"),
    ("is not valid utf-8", "save it as UTF-8"),
    (
        "found 'edition'",
        "the edition must be the first statement of a file",
    ),
];

/// The label for the place itself; the others tell what it is in conflict with.
fn main_label(labels: &[LabeledSpan]) -> Option<usize> {
    let found = labels
        .iter()
        .position(|label| label.label() == Some("found here"));
    found.or_else(|| labels.len().checked_sub(1))
}

fn end(source: &str) -> Position {
    let last = source.lines().last().unwrap_or_default();
    Position {
        line: source.lines().count().max(1),
        column: last.chars().count() + 1,
    }
}

/// A path as compilers show it: without `.` and `..`, from the current directory.
pub(crate) fn shown(path: &Path) -> PathBuf {
    use std::path::Component;

    let mut clean = PathBuf::new();
    for component in path.components() {
        let goes_up = component == Component::ParentDir;
        let goes_back = matches!(clean.components().next_back(), Some(Component::Normal(_)));
        match component {
            Component::CurDir => {}
            _ if goes_up && goes_back => {
                clean.pop();
            }
            other => clean.push(other),
        }
    }
    let current = std::env::current_dir().unwrap_or_default();
    let clean = match clean.strip_prefix(&current) {
        Ok(below) => below.to_owned(),
        Err(_) => clean,
    };
    if clean.as_os_str().is_empty() {
        PathBuf::from(".")
    } else {
        clean
    }
}

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}:", file.display())?;
            if let Some(Position { line, column }) = self.position {
                write!(f, "{line}:{column}:")?;
            }
            f.write_str(" ")?;
        }
        f.write_str(&self.message)
    }
}

impl fmt::Debug for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for CompileError {}
