//! Files of an edition, written so that a compiler that knows proto2 only can read them.
//!
//! Editions changed little in the grammar: fields have no `optional`, reserved names have no quotes,
//! edition 2024 has `export`, `local` and `import option`. So the text is edited in these places and
//! nowhere else, and every place in what comes out leads back to one in the file. What the file
//! *means* is not decided here but by its features, in `features`.

use std::ops::Range;

use prost_types::FileDescriptorProto;

use crate::descriptors::is_foreign;
use crate::error::{CompileError, Position};
use crate::tokens::{Kind, Token, tokens};

/// An edition of the language that protobuf files are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Edition {
    Of2023,
    Of2024,
}

impl Edition {
    pub(crate) const ALL: [Self; 2] = [Self::Of2023, Self::Of2024];

    /// As it stands in a file.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Of2023 => "2023",
            Self::Of2024 => "2024",
        }
    }

    /// descriptor.proto, `Edition`.
    pub(crate) fn number(self) -> i32 {
        match self {
            Self::Of2023 => 1000,
            Self::Of2024 => 1001,
        }
    }
}

/// A file of an edition.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) edition: Edition,
    /// What it says as proto2.
    pub(crate) text: String,
    /// What is imported for options only.
    pub(crate) option_imports: Vec<String>,
    /// Where it says `export` and `local`.
    pub(crate) visibilities: Vec<Visibility>,
    original: String,
    edits: Vec<Edit>,
}

/// One `export` or `local`, as it stands in a descriptor.
#[derive(Clone, Debug)]
pub(crate) struct Visibility {
    /// From the file to the message or enum: the number of a field, and which of those that have it.
    pub(crate) path: Vec<(u64, usize)>,
    /// The number of its field there.
    pub(crate) field: u64,
    /// descriptor.proto, `SymbolVisibility`.
    pub(crate) value: u64,
}

/// One replacement: where it is in the original, and how long the new text is.
#[derive(Clone, Debug)]
struct Edit {
    original: Range<usize>,
    length: usize,
}

impl Source {
    /// The edited file; `None` if it is of no edition and needs no edits.
    ///
    /// # Errors
    ///
    /// An edition that is not known, or what editions have no place for.
    pub(crate) fn read(original: &str) -> Result<Option<Self>, CompileError> {
        let tokens = tokens(original);
        if tokens.first().is_none_or(|it| it.text != "edition") {
            return Ok(None);
        }
        let mut scan = Scan {
            original,
            tokens: &tokens,
            at: 0,
            edition: Edition::Of2023,
            blocks: vec![Open::new(Block::File, Vec::new())],
            edits: Vec::new(),
            option_imports: Vec::new(),
            visibilities: Vec::new(),
        };
        scan.file()?;
        let (edition, option_imports) = (scan.edition, scan.option_imports);
        let visibilities = scan.visibilities;
        let mut replacements = scan.edits;
        replacements.sort_by_key(|(range, _)| range.start);

        let mut text = String::with_capacity(original.len());
        let mut end = 0;
        let mut edits = Vec::new();
        for (range, new) in replacements {
            text.push_str(&original[end..range.start]);
            text.push_str(&new);
            end = range.end;
            edits.push(Edit {
                original: range,
                length: new.len(),
            });
        }
        text.push_str(&original[end..]);
        Ok(Some(Self {
            edition,
            text,
            option_imports,
            visibilities,
            original: original.to_owned(),
            edits,
        }))
    }

    /// The place in the file of a place in the edited text.
    pub(crate) fn original_place(&self, edited: usize) -> usize {
        // What was taken away, less what was put in, before the place.
        let mut place = edited;
        for edit in &self.edits {
            if place < edit.original.start {
                break;
            }
            if place < edit.original.start + edit.length {
                return edit.original.start;
            }
            place = place + edit.original.len() - edit.length;
        }
        place
    }

    /// Sets the places in `file`, which tell of the edited text, to those in the file itself.
    pub(crate) fn restore_places(&self, file: &mut FileDescriptorProto) {
        let lines = |text: &str| -> Vec<usize> {
            let starts = text.match_indices('\n').map(|(at, _)| at + 1);
            [0].into_iter().chain(starts).collect()
        };
        // No edit adds or takes a line.
        let (edited, original) = (lines(&self.text), lines(&self.original));
        let column = |line: i32, column: i32| -> Option<i32> {
            let line = usize::try_from(line).ok()?;
            let place = edited.get(line)? + usize::try_from(column).ok()?;
            let column = self
                .original_place(place)
                .saturating_sub(*original.get(line)?);
            i32::try_from(column).ok()
        };
        let Some(info) = &mut file.source_code_info else {
            return;
        };
        for location in &mut info.location {
            match location.span.as_mut_slice() {
                [line, start, end] => {
                    *start = column(*line, *start).unwrap_or(*start);
                    *end = column(*line, *end).unwrap_or(*end);
                }
                [first, start, last, end] => {
                    *start = column(*first, *start).unwrap_or(*start);
                    *end = column(*last, *end).unwrap_or(*end);
                }
                _ => {}
            }
        }
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
#[derive(Debug)]
struct Open {
    block: Block,
    /// Where its descriptor is; see [`Visibility`].
    path: Vec<(u64, usize)>,
    /// How many of these it has had.
    messages: usize,
    enums: usize,
}

impl Open {
    fn new(block: Block, path: Vec<(u64, usize)>) -> Self {
        Self {
            block,
            path,
            messages: 0,
            enums: 0,
        }
    }

    /// The path of the next message, or enum, in this block.
    fn next(&self, what: Block) -> Vec<(u64, usize)> {
        // descriptor.proto: `message_type` and `enum_type` of a file, `nested_type` and `enum_type`
        // of a message.
        let step = match (self.block, what) {
            (Block::File, Block::Enum) => (5, self.enums),
            (Block::File, _) => (4, self.messages),
            (_, Block::Enum) => (4, self.enums),
            _ => (3, self.messages),
        };
        self.path.iter().copied().chain([step]).collect()
    }
}

/// Goes through the statements of a file and collects the edits.
struct Scan<'a> {
    original: &'a str,
    tokens: &'a [Token<'a>],
    at: usize,
    edition: Edition,
    /// Those around the statement; the file comes first, and stays.
    blocks: Vec<Open>,
    edits: Vec<(Range<usize>, String)>,
    option_imports: Vec<String>,
    visibilities: Vec<Visibility>,
}

impl<'a> Scan<'a> {
    fn file(&mut self) -> Result<(), CompileError> {
        self.head()?;
        while let Some(token) = self.token(0) {
            match token.text {
                "}" => {
                    self.blocks
                        .truncate(self.blocks.len().saturating_sub(1).max(1));
                    self.at += 1;
                }
                ";" => self.at += 1,
                "import" if self.block() == Block::File => self.import()?,
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

    fn block(&self) -> Block {
        self.blocks.last().map_or(Block::File, |open| open.block)
    }

    /// `edition = "2023";`
    fn head(&mut self) -> Result<(), CompileError> {
        let first = &self.tokens[0];
        let value = self.token(2).filter(|_| self.says(1, "="));
        let Some((value, name)) = value.and_then(|it| Some((it, it.quoted()?))) else {
            return Err(self.error(first.at, "an edition is written edition = \"2023\";"));
        };
        let known = Edition::ALL.into_iter().find(|it| it.name() == name);
        let Some(edition) = known else {
            let message = format!(
                "edition \"{name}\" is not known, but \"2023\" and \"2024\" are; for older files say \
                 syntax = \"proto3\" or \"proto2\""
            );
            return Err(self.error(value.at, &message));
        };
        self.edition = edition;
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
        if for_options && self.edition < Edition::Of2024 {
            let message = "`import option` needs edition = \"2024\"; say import";
            return Err(self.error(self.tokens[first + 1].at, message));
        }
        let path = (1..4).find_map(|ahead| self.token(ahead)?.quoted().map(|path| (ahead, path)));
        if let Some((ahead, path)) = path {
            let path = path.to_owned();
            if is_foreign(&path) {
                self.remove(self.tokens[first].at..self.tokens[first + ahead].end());
            } else if for_options {
                self.remove(self.tokens[first + 1].range());
                self.option_imports.push(path);
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
                if holds_types && (self.says(1, "message") || self.says(1, "enum")) =>
            {
                self.visibility(first)?;
            }
            "message" if holds_types => self.open(Block::Message),
            "enum" if holds_types => self.open(Block::Enum),
            "extend" if holds_types => self.open(Block::Extend),
            "oneof" if block == Block::Message => self.open(Block::Oneof),
            "service" if block == Block::File => self.open(Block::Service),
            "rpc" if block == Block::Service => self.open(Block::Method),
            "reserved" if matches!(block, Block::Message | Block::Enum) => self.reserved()?,
            "option" => self.option(),
            "extensions" if block == Block::Message => self.skip(),
            _ if holds_fields => self.field(first)?,
            _ => self.skip(),
        }
        Ok(())
    }

    /// `export` or `local` before a message or an enum.
    fn visibility(&mut self, word: &Token<'_>) -> Result<(), CompileError> {
        if self.edition < Edition::Of2024 {
            let message = format!("`{}` needs edition = \"2024\"", word.text);
            return Err(self.error(word.at, &message));
        }
        // descriptor.proto: `DescriptorProto.visibility` and `EnumDescriptorProto.visibility`.
        let (what, field) = match self.says(1, "enum") {
            true => (Block::Enum, 6),
            false => (Block::Message, 11),
        };
        let path = self.blocks.last().map(|open| open.next(what));
        self.visibilities.push(Visibility {
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
        while let Some(token) = self.token(0) {
            match token.text {
                "{" => {
                    let path = self.blocks.last_mut().map(|open| {
                        let path = open.next(block);
                        open.messages += usize::from(block == Block::Message);
                        open.enums += usize::from(block == Block::Enum);
                        path
                    });
                    self.blocks.push(Open::new(block, path.unwrap_or_default()));
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
            let message = "a reserved name has no quotes in editions; take them away";
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

    fn field(&mut self, first: &Token<'_>) -> Result<(), CompileError> {
        let labelled = matches!(first.text, "optional" | "required" | "repeated");
        let is_group = usize::from(labelled);
        if self.says(is_group, "group")
            && self.says(is_group + 2, "=")
            && self.says(is_group + 4, "{")
        {
            let message = "editions have no groups; name a message, and give the field \
                           [features.message_encoding = DELIMITED]";
            return Err(self.error(self.tokens[self.at + is_group].at, message));
        }
        let more = self
            .token(1)
            .is_some_and(|it| it.kind == Kind::Name || it.text == ".");
        match first.text {
            "optional" if more => {
                let message = "editions have no label `optional`; take it away, a field tells whether \
                               it is set unless features.field_presence says otherwise";
                return Err(self.error(first.at, message));
            }
            "required" if more => {
                let message = "editions have no label `required`; give the field \
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
        self.skip();
        Ok(())
    }

    /// Goes to the end of a statement: a semicolon, or what closes the block around it.
    fn skip(&mut self) {
        let mut depth = 0_usize;
        while let Some(token) = self.token(0) {
            match token.text {
                ";" if depth == 0 => return,
                "[" if depth == 0 => {
                    self.list();
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
    fn list(&mut self) {
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
        let is_kept = |entry: &&(usize, usize)| !self.is_left_out(entry.0);
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
            .filter(|(_, entry)| self.is_left_out(entry.0))
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
        let says = |ahead: usize, text: &str| {
            let token = self.tokens.get(start + ahead);
            token.is_some_and(|it| it.text == text)
        };
        let rules_of_protoc = ["enforce_naming_style", "default_symbol_visibility"];
        says(0, "features")
            && says(1, ".")
            && (rules_of_protoc.iter().any(|it| says(2, it)) || says(2, "("))
    }

    fn replace(&mut self, range: Range<usize>, new: &str) {
        self.edits.push((range, new.to_owned()));
    }

    /// Takes text away, but for the ends of lines.
    fn remove(&mut self, range: Range<usize>) {
        let lines: String = self.original[range.clone()]
            .chars()
            .filter(|c| *c == '\n')
            .collect();
        self.edits.push((range, lines));
    }

    fn error(&self, place: usize, message: &str) -> CompileError {
        CompileError::new(message).at(Some(Position::in_text(self.original, place)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(original: &str) -> Source {
        let source = Source::read(original);
        let source = source.expect("it is right");
        source.expect("it is of an edition")
    }

    /// Reads the statements in a file of edition 2024, and those as proto2.
    fn check(statements: &str, expected: &str) {
        let source = read(&format!("edition = \"2024\";{statements}"));
        let text = source.text.strip_prefix("syntax = \"proto2\";");
        assert_eq!(text, Some(expected), "{statements:?}");
        let lines = |text: &str| text.matches('\n').count();
        assert_eq!(lines(statements), lines(expected), "the lines stay");
    }

    #[test]
    fn a_file_of_no_edition_is_none() {
        for text in [
            "",
            "syntax = \"proto3\";",
            "message edition {}",
            "// edition = \"2023\";",
        ] {
            assert!(Source::read(text).expect("it is read").is_none(), "{text}");
        }
    }

    #[test]
    fn fields_get_a_label_unless_they_have_one_or_need_none() {
        check(
            "message A{int32 a=1;repeated B b=2;.c.D d=3;map<int32,E>e=4;map f=5;}",
            "message A{optional int32 a=1;repeated B b=2;optional .c.D d=3;map<int32,E>e=4;optional \
             map f=5;}",
        );
        check(
            "message A{oneof a{B b=1;}extensions 5 to 9[verification=DECLARATION];C c=2;}",
            "message A{oneof a{B b=1;}extensions 5 to 9[verification=DECLARATION];optional C c=2;}",
        );
        check(
            "extend A{B b=1;repeated C c=2;}",
            "extend A{optional B b=1;repeated C c=2;}",
        );
        check(
            "message A{message B{C c=1;}enum D{E=0;}D d=2[(f)={g:1 h{i:2}}];J j=3;}",
            "message A{message B{optional C c=1;}enum D{E=0;}optional D d=2[(f)={g:1 \
             h{i:2}}];optional J j=3;}",
        );
    }

    #[test]
    fn what_is_no_field_stays_as_it_is() {
        for text in [
            "",
            "package a.b;option c=\"d;}\";import public 'e';",
            "service A{option b=1;rpc C(stream D)returns(E){option f={g:{}};}rpc H(I)returns(J);}",
            "enum A{option allow_alias=true;B=0[deprecated=true];C=-1;reserved 2 to max;}",
            "message A{reserved 1,3 to max;option (b).c={d:[1,2]};;}",
        ] {
            check(text, text);
        }
    }

    #[test]
    fn reserved_names_get_quotes() {
        check(
            "message A{reserved b, c;}",
            "message A{reserved \"b\", \"c\";}",
        );
        check("enum A{B=0;reserved max;}", "enum A{B=0;reserved \"max\";}");
    }

    #[test]
    fn what_edition_2024_added_is_left_out_and_kept_in_mind() {
        let text = "edition = \"2024\"; import option \"a.proto\"; export message B { map<int32, C> c = 1; \
                    local enum D { E = 0; } message F {} export message G {} } local enum H { I = 0; }";
        let source = read(text);
        assert_eq!(source.option_imports, ["a.proto"]);
        let found = source.visibilities.iter();
        let found: Vec<_> = found
            .map(|it| (it.path.clone(), it.field, it.value))
            .collect();
        // The entry of the map is the first message in B.
        let expected = [
            (vec![(4, 0)], 11, 2),
            (vec![(4, 0), (4, 0)], 6, 1),
            (vec![(4, 0), (3, 2)], 11, 2),
            (vec![(5, 0)], 6, 1),
        ];
        assert_eq!(found, expected);
        assert!(
            !["option \"", "export", "local"]
                .iter()
                .any(|it| source.text.contains(it))
        );
        // A type of this name is none of it.
        check("message A{export b=1;}", "message A{optional export b=1;}");
    }

    #[test]
    fn options_that_say_nothing_about_messages_are_left_out() {
        let import = "import \"google/protobuf/go_features.proto\";";
        check(import, ";");
        check("option features.enforce_naming_style=A;", ";");
        check("option features.(pb.go)=A;", ";");
        for (list, expected) in [
            ("[features.(a).b=c]", ""),
            ("[d=1,features.(a).b=c]", "[d=1]"),
            ("[features.(a).b=c,d=1]", "[d=1]"),
            ("[d=1,features.(a).b={e:[1,2]},f=2]", "[d=1,f=2]"),
            ("[features.(a).b=c\n,features.(a).e=f]", "\n"),
            ("[d=1,features.(a).b=c,features.(a).e=f]", "[d=1]"),
            (
                "[features.field_presence=IMPLICIT]",
                "[features.field_presence=IMPLICIT]",
            ),
        ] {
            check(
                &format!("enum A{{B=0{list};}}"),
                &format!("enum A{{B=0{expected};}}"),
            );
        }
    }

    #[test]
    fn every_place_in_what_is_read_leads_back_to_one_in_the_file() {
        let text = "edition = \"2024\";\nexport message Aé {\n  string b = 1; int32 c = 2;\n  reserved d;\n}";
        let source = read(text);
        for word in ["Aé", "string", "b =", "int32", "c =", "d", "}"] {
            let place = |text: &str| text.rfind(word).expect("it is there");
            let (edited, original) = (place(&source.text), place(text));
            assert_eq!(source.original_place(edited), original, "{word}");
        }
        // What was put in leads to what it stands before.
        let label = source.text.find("optional").expect("there is one");
        for within in 0.."optional ".len() {
            assert_eq!(
                Some(source.original_place(label + within)),
                text.find("string")
            );
        }
    }

    #[test]
    fn files_that_are_cut_off_anywhere_are_read_to_their_ends() {
        let text = "edition = \"2024\"; import option \"a\"; export message B { reserved c, d; map<e, f> g = 1 \
                    [features.(h).i = {j: [1, 2]}, k = 1]; extend l { m n = 2; } } ] } service o { rpc p(q) \
                    returns (r) { option features.enforce_naming_style = s; } }";
        let head = text.find(';').expect("there is a head");
        for end in head..text.len() {
            read(&text[..end]);
        }
    }
}
