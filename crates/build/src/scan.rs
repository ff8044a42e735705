//! The statements of a file, and what has to be edited in them.

use std::ops::Range;

use crate::descriptors::is_foreign;
use crate::error::{CompileError, Position};
use crate::numbers::LargeNumbers;
use crate::source::{Edition, Visibility};
use crate::tokens::{Kind, Token, tokens};

/// What there is to know about a file before it is edited.
pub(crate) struct Found {
    /// `None` for a file with a syntax.
    pub(crate) edition: Option<Edition>,
    /// Places and what is to stand there, in order. None adds or takes a line.
    pub(crate) replacements: Vec<(Range<usize>, String)>,
    /// What is imported for options only.
    pub(crate) option_imports: Vec<String>,
    pub(crate) visibilities: Vec<Visibility>,
    /// The methods that have a body, each as the index of its service and its own.
    pub(crate) bodies: Vec<(usize, usize)>,
    /// Numbers that only a message set may have.
    pub(crate) large_numbers: LargeNumbers,
}

impl Found {
    /// Goes through `original`.
    ///
    /// # Errors
    ///
    /// An edition that is not known, or syntax that editions do not have.
    pub(crate) fn scan(original: &str) -> Result<Self, CompileError> {
        let tokens = tokens(original);
        let mut scan = Scan {
            original,
            tokens: &tokens,
            at: 0,
            blocks: vec![Open::new(Block::File, Vec::new())],
            has_option_import: false,
            found: Self {
                edition: None,
                replacements: Vec::new(),
                option_imports: Vec::new(),
                visibilities: Vec::new(),
                bodies: Vec::new(),
                large_numbers: LargeNumbers::default(),
            },
        };
        scan.file()?;
        scan.numbers();
        let mut found = scan.found;
        found.replacements.sort_by_key(|(range, _)| range.start);
        Ok(found)
    }
}

/// What a statement lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Block {
    File,
    Message,
    Enum,
    Oneof,
    Extend,
    Service,
    Method,
}

/// A block whose end is to come.
#[derive(Clone, Debug)]
struct Open {
    block: Block,
    /// Where its descriptor is; see [`Visibility`].
    path: Vec<(u64, usize)>,
    /// How many of these it has had.
    messages: usize,
    enums: usize,
    services: usize,
    methods: usize,
}

impl Open {
    fn new(block: Block, path: Vec<(u64, usize)>) -> Self {
        Self {
            block,
            path,
            messages: 0,
            enums: 0,
            services: 0,
            methods: 0,
        }
    }

    /// The path of the next block of that kind in this one, which it counts.
    fn next(&mut self, what: Block) -> Vec<(u64, usize)> {
        let is_file = self.block == Block::File;
        // descriptor.proto: fields of a file, of a message, and of a service.
        let (field, count) = match what {
            Block::Enum => (if is_file { 5 } else { 4 }, &mut self.enums),
            Block::Service => (6, &mut self.services),
            Block::Method => (2, &mut self.methods),
            Block::Message => (if is_file { 4 } else { 3 }, &mut self.messages),
            Block::File | Block::Oneof | Block::Extend => return Vec::new(),
        };
        let step = (field, *count);
        *count += 1;
        self.path.iter().copied().chain([step]).collect()
    }
}

/// Goes through the statements of a file and collects the edits.
struct Scan<'a> {
    original: &'a str,
    tokens: &'a [Token<'a>],
    at: usize,
    /// Those around the statement; the file comes first, and stays.
    blocks: Vec<Open>,
    has_option_import: bool,
    found: Found,
}

impl<'a> Scan<'a> {
    fn file(&mut self) -> Result<(), CompileError> {
        if self.says(0, "edition") {
            self.head()?;
        }
        while let Some(token) = self.token(0) {
            match token.text {
                "}" => {
                    self.blocks
                        .truncate(self.blocks.len().saturating_sub(1).max(1));
                    self.at += 1;
                }
                ";" => self.at += 1,
                "import" if self.block() == Block::File && self.is_of_edition() => self.import()?,
                _ => self.statement(token)?,
            }
        }
        Ok(())
    }

    fn token(&self, ahead: usize) -> Option<&'a Token<'a>> {
        self.tokens.get(self.at + ahead)
    }

    fn says(&self, ahead: usize, text: &str) -> bool {
        self.token(ahead).is_some_and(|it| it.text == text)
    }

    fn is_of_edition(&self) -> bool {
        self.found.edition.is_some()
    }

    fn block(&self) -> Block {
        self.blocks.last().map_or(Block::File, |open| open.block)
    }

    /// `edition = "2023";`
    fn head(&mut self) -> Result<(), CompileError> {
        let first = &self.tokens[0];
        let value = self.token(2).filter(|_| self.says(1, "="));
        let Some((value, name)) = value.and_then(|it| Some((it, it.quoted()?))) else {
            return Err(self.error(first.at, "write the edition as edition = \"2023\";"));
        };
        let known = Edition::ALL.into_iter().find(|it| it.name() == name);
        let Some(edition) = known else {
            let message = format!(
                "edition \"{name}\" is not known, but \"2023\" and \"2024\" are; for older files say \
                 syntax = \"proto3\" or \"proto2\""
            );
            return Err(self.error(value.at, &message));
        };
        self.found.edition = Some(edition);
        self.replace(first.range(), "syntax");
        self.replace(value.range(), "\"proto2\"");
        self.at = 3;
        Ok(())
    }

    /// Leaves out imports of the features of other languages: they come with protoc, say nothing about
    /// Rust, and extend a descriptor.proto that is newer than that of the compiler.
    fn import(&mut self) -> Result<(), CompileError> {
        let first = self.at;
        let for_options = self.says(1, "option");
        if for_options && self.found.edition < Some(Edition::Of2024) {
            let message = "`import option` needs edition = \"2024\"; say import";
            return Err(self.error(self.tokens[first + 1].at, message));
        }
        // parser.cc, "ParseImport": imports should precede any option imports.
        if self.has_option_import && !for_options {
            let message = "imports must come before `import option`; move this one up";
            return Err(self.error(self.tokens[first].at, message));
        }
        self.has_option_import |= for_options;
        let path = (1..4).find_map(|ahead| self.token(ahead)?.quoted().map(|path| (ahead, path)));
        if let Some((ahead, path)) = path {
            let path = path.to_owned();
            if is_foreign(&path) {
                self.remove(self.tokens[first].at..self.tokens[first + ahead].end());
            } else if for_options {
                self.remove(self.tokens[first + 1].range());
                self.found.option_imports.push(path);
            }
        }
        self.skip();
        Ok(())
    }

    fn statement(&mut self, first: &Token<'_>) -> Result<(), CompileError> {
        let block = self.block();
        let holds_types = matches!(block, Block::File | Block::Message);
        let holds_fields = matches!(block, Block::Message | Block::Extend | Block::Oneof);
        match first.text {
            "export" | "local"
                if self.is_of_edition()
                    && holds_types
                    && (self.says(1, "message") || self.says(1, "enum")) =>
            {
                self.visibility(first)?;
            }
            "message" if holds_types => self.open(Block::Message),
            "enum" if holds_types => self.open(Block::Enum),
            "extend" if holds_types => self.open(Block::Extend),
            "oneof" if block == Block::Message => self.open(Block::Oneof),
            "service" if block == Block::File => self.open(Block::Service),
            "rpc" if block == Block::Service => self.open(Block::Method),
            "reserved" if matches!(block, Block::Message | Block::Enum) && self.is_of_edition() => {
                self.reserved()?;
            }
            "option" => self.option(),
            "extensions" if block == Block::Message => self.extensions(),
            _ if holds_fields => self.field(first)?,
            _ => self.skip(),
        }
        Ok(())
    }

    /// `export` or `local` before a message or an enum.
    fn visibility(&mut self, word: &Token<'_>) -> Result<(), CompileError> {
        if self.found.edition < Some(Edition::Of2024) {
            let message = format!("`{}` needs edition = \"2024\"", word.text);
            return Err(self.error(word.at, &message));
        }
        // descriptor.proto: `DescriptorProto.visibility` and `EnumDescriptorProto.visibility`.
        let (what, field) = match self.says(1, "enum") {
            true => (Block::Enum, 6),
            false => (Block::Message, 11),
        };
        // It is counted when the block itself comes.
        let path = self.blocks.last().map(|open| open.clone().next(what));
        self.found.visibilities.push(Visibility {
            path: path.unwrap_or_default(),
            field,
            value: if word.text == "local" { 1 } else { 2 },
        });
        self.remove(word.range());
        self.at += 1;
        Ok(())
    }

    /// Goes to the inside of a block, or to the end of a method without one.
    fn open(&mut self, block: Block) {
        let path = self.blocks.last_mut().map(|open| open.next(block));
        let path = path.unwrap_or_default();
        while let Some(token) = self.token(0) {
            match token.text {
                "{" => {
                    if let (Block::Method, [(_, service), (_, method)]) = (block, path.as_slice()) {
                        self.found.bodies.push((*service, *method));
                    }
                    self.blocks.push(Open::new(block, path));
                    self.at += 1;
                    return;
                }
                ";" | "}" => return,
                _ => self.at += 1,
            }
        }
    }

    fn reserved(&mut self) -> Result<(), CompileError> {
        let names = self.token(1).is_some_and(|it| it.kind == Kind::Name);
        if let Some(text) = self.token(1).filter(|it| it.kind == Kind::Text) {
            let message = "reserved names have no quotes in editions; remove them";
            return Err(self.error(text.at, message));
        }
        self.at += 1;
        while let Some(token) = self.token(0)
            && !matches!(token.text, ";" | "}")
        {
            if names && token.kind == Kind::Name {
                self.replace(token.at..token.at, "\"");
                self.replace(token.end()..token.end(), "\"");
            }
            self.at += 1;
        }
        Ok(())
    }

    fn option(&mut self) {
        let start = self.at;
        self.skip();
        if self.is_left_out(start + 1) {
            let end = self.tokens[self.at - 1].end();
            self.remove(self.tokens[start].at..end);
        }
    }

    /// `extensions 4, 1000 to max [verification = UNVERIFIED];`
    fn extensions(&mut self) {
        self.at += 1;
        while let Some(token) = self.token(0)
            && !matches!(token.text, ";" | "[" | "}")
        {
            if token.kind == Kind::Number {
                let number = self.number(token);
                // The compiler expects a range before a list.
                let is_range = self.tokens[self.at - 1].text == "to";
                if self.says(1, "[") && !is_range {
                    let number = number.unwrap_or_else(|| token.text.to_owned());
                    self.replace(token.end()..token.end(), &format!(" to {number}"));
                }
            }
            self.at += 1;
        }
        if self.says(0, "[") {
            self.list(Self::is_declaration);
        }
        self.skip();
    }

    /// Puts a number in the place of one that the compiler refuses, because it has no message sets.
    fn number(&mut self, token: &Token<'_>) -> Option<String> {
        let stand_in = self
            .found
            .large_numbers
            .stand_in(token.text, self.original)?;
        self.replace(token.range(), &stand_in);
        Some(stand_in)
    }

    /// Writes `-inf` and `-nan` as values of options so that the compiler takes them, which it does for
    /// defaults only, and integers that are too large as the floating-point numbers that they are.
    fn numbers(&mut self) {
        let (mut is_statement, mut open) = (false, 0_usize);
        for (at, token) in self.tokens.iter().enumerate() {
            let starts = at == 0 || matches!(self.tokens[at - 1].text, ";" | "{" | "}");
            match token.text {
                "option" if starts && open == 0 => is_statement = true,
                ";" if open == 0 => is_statement = false,
                // The brackets of options in a list, and whatever opens within values.
                "[" => open += 1,
                "{" if is_statement || open > 0 => open += 1,
                "]" | "}" => open = open.saturating_sub(1),
                _ => {}
            }
            if !is_statement && open == 0 {
                continue;
            }
            if token.kind == Kind::Number && self.is_beyond_integers(token) {
                self.replace(token.end()..token.end(), ".0");
            }
            let says = |ahead: usize, text: &str| {
                let token = self.tokens.get(at + ahead);
                token.is_some_and(|it| it.text == text)
            };
            let before = |back: usize| at.checked_sub(back).map(|at| self.tokens[at].text);
            let is_default = before(1) == Some("default") && matches!(before(2), Some("[" | ","));
            if token.text != "=" || !says(1, "-") || is_default {
                continue;
            }
            let new = match self.tokens.get(at + 2) {
                Some(name) if name.text == "inf" => "-1e999",
                // protoc writes the same for both.
                Some(name) if name.text == "nan" => "nan",
                _ => continue,
            };
            self.replace(self.tokens[at + 1].at..self.tokens[at + 2].end(), new);
        }
    }

    fn is_beyond_integers(&self, token: &Token<'_>) -> bool {
        let around = [
            self.original[..token.at].ends_with('.'),
            self.original[token.end()..].starts_with('.'),
        ];
        let is_decimal = token.text.bytes().all(|it| it.is_ascii_digit());
        is_decimal && around == [false, false] && token.text.parse::<u64>().is_err()
    }

    fn field(&mut self, first: &Token<'_>) -> Result<(), CompileError> {
        let labelled = matches!(first.text, "optional" | "required" | "repeated");
        let is_group = usize::from(labelled);
        let is_group_field = self.says(is_group, "group")
            && self.says(is_group + 2, "=")
            && self.says(is_group + 4, "{");
        if !self.is_of_edition() {
            self.numbered_field();
            return Ok(());
        }
        if is_group_field {
            let message = "editions have no groups; name a message, and give the field \
                           [features.message_encoding = DELIMITED]";
            return Err(self.error(self.tokens[self.at + is_group].at, message));
        }
        let more = self
            .token(1)
            .is_some_and(|it| it.kind == Kind::Name || it.text == ".");
        match first.text {
            "optional" if more => {
                let message = "editions have no label `optional`; remove it, because fields have explicit \
                               presence unless features.field_presence changes it";
                return Err(self.error(first.at, message));
            }
            "required" if more => {
                let message = "editions have no label `required`; set on the field \
                               [features.field_presence = LEGACY_REQUIRED]";
                return Err(self.error(first.at, message));
            }
            "repeated" => {}
            "map" if self.says(1, "<") => {
                // Its entry is a message.
                if let Some(open) = self.blocks.last_mut() {
                    open.messages += 1;
                }
            }
            _ if self.block() == Block::Oneof => {}
            _ if first.kind == Kind::Name || first.text == "." => {
                self.replace(first.at..first.at, "optional ");
            }
            _ => {}
        }
        self.numbered_field();
        Ok(())
    }

    /// Goes to the end of a field. That of a group is a block, in which the scan goes on.
    fn numbered_field(&mut self) {
        while let Some(token) = self.token(0) {
            match token.text {
                "=" => {
                    if let Some(number) = self.token(1).filter(|_| self.block() == Block::Extend) {
                        self.number(number);
                    }
                    self.at += 2;
                    if self.says(0, "[") {
                        self.list(Self::is_left_out);
                    }
                    match self.says(0, "{") {
                        true => self.open(Block::Message),
                        false => self.skip(),
                    }
                    return;
                }
                ";" | "}" => return,
                _ => self.at += 1,
            }
        }
    }

    /// Goes to the end of a statement: a semicolon, or what closes the block around it.
    fn skip(&mut self) {
        let mut depth = 0_usize;
        while let Some(token) = self.token(0) {
            match token.text {
                ";" if depth == 0 => return,
                "[" if depth == 0 => {
                    self.list(Self::is_left_out);
                    continue;
                }
                "{" | "[" => depth += 1,
                "}" | "]" if depth == 0 => {
                    // A bracket that nothing opened must not hold up the scan.
                    self.at += usize::from(token.text == "]");
                    return;
                }
                "}" | "]" => depth -= 1,
                _ => {}
            }
            self.at += 1;
        }
    }

    /// Goes past `[a = b, c = d]`, without the entries that are left out.
    fn list(&mut self, is_left_out: fn(&Self, usize) -> bool) {
        let open = self.at;
        // The first token of each entry, then the closing bracket.
        let mut starts = vec![open + 1];
        let mut depth = 0_usize;
        while let Some(token) = self.token(0) {
            self.at += 1;
            match token.text {
                "{" | "[" => depth += 1,
                "}" | "]" if depth <= 1 => break,
                "}" | "]" => depth -= 1,
                "," if depth == 1 => starts.push(self.at),
                _ => {}
            }
        }
        let close = self.at - 1;
        let entries: Vec<(usize, usize)> = starts
            .iter()
            .zip(starts[1..].iter().copied().chain([close + 1]))
            .map(|(start, next)| (*start, next - 1))
            .collect();
        let is_kept = |entry: &&(usize, usize)| !is_left_out(self, entry.0);
        let kept = entries.iter().filter(is_kept).count();
        if kept == entries.len() {
            return;
        }
        if kept == 0 {
            self.remove(self.tokens[open].at..self.tokens[close].end());
            return;
        }
        // An entry goes with the comma behind it, or that before it if only such are behind.
        let last_kept = entries.iter().rposition(|it| is_kept(&it)).unwrap_or(0);
        let ranges: Vec<Range<usize>> = (entries.iter().enumerate())
            .filter(|(_, entry)| is_left_out(self, entry.0))
            .map(|(at, (start, end))| match at > last_kept {
                true => self.tokens[start - 1].at..self.tokens[end - 1].end(),
                false => self.tokens[*start].at..self.tokens[*end].end(),
            })
            .collect();
        ranges.into_iter().for_each(|range| self.remove(range));
    }

    /// Whether the option that begins at a token is one that the compiler has no definition of, and
    /// that says nothing about messages.
    fn is_left_out(&self, start: usize) -> bool {
        if !self.is_of_edition() {
            return false;
        }
        let says = |ahead: usize, text: &str| {
            let token = self.tokens.get(start + ahead);
            token.is_some_and(|it| it.text == text)
        };
        let rules_of_protoc = ["enforce_naming_style", "default_symbol_visibility"];
        says(0, "features")
            && says(1, ".")
            && (rules_of_protoc.iter().any(|it| says(2, it)) || says(2, "("))
    }

    /// Whether the option that begins at a token is for protoc alone, which does not write it either:
    /// descriptor.proto, `ExtensionRangeOptions`, `retention`.
    fn is_declaration(&self, start: usize) -> bool {
        let name = self.tokens.get(start).map(|it| it.text);
        matches!(name, Some("verification" | "declaration"))
    }

    fn replace(&mut self, range: Range<usize>, new: &str) {
        self.found.replacements.push((range, new.to_owned()));
    }

    /// Takes text away, but for the ends of lines.
    fn remove(&mut self, range: Range<usize>) {
        let lines: String = self.original[range.clone()]
            .chars()
            .filter(|c| *c == '\n')
            .collect();
        self.found.replacements.push((range, lines));
    }

    fn error(&self, place: usize, message: &str) -> CompileError {
        CompileError::new(message).at(Some(Position::in_text(self.original, place)))
    }
}
