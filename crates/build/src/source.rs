//! Files, edited so that a compiler that knows less of the language can read them.
//!
//! Editions changed little in the grammar: fields have no `optional`, reserved names have no quotes,
//! edition 2024 has `export`, `local` and `import option`. A few things that protoc takes in any file
//! are edited too. The text is edited in these places and nowhere else, and every place in the edited
//! text leads back to one in the file. The *meaning* of a file of an edition is not decided here but by
//! its features, in `features`.

use std::ops::Range;

use prost_types::FileDescriptorProto;

use crate::error::CompileError;
use crate::numbers::LargeNumbers;
use crate::scan::Found;

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

/// The text of a file, and the same text edited.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// `None` for a file with a syntax.
    pub(crate) edition: Option<Edition>,
    /// The text for the compiler; that of a file of an edition is proto2.
    pub(crate) text: String,
    /// What is imported for options only.
    pub(crate) option_imports: Vec<String>,
    /// Where it says `export` and `local`.
    pub(crate) visibilities: Vec<Visibility>,
    /// The methods that have a body, each as the index of its service and its own.
    pub(crate) bodies: Vec<(usize, usize)>,
    /// Numbers in it that only a message set may have.
    pub(crate) large_numbers: LargeNumbers,
    /// The text of the file, without a byte order mark.
    pub(crate) original: String,
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
    /// Edits a file.
    ///
    /// # Errors
    ///
    /// An edition that is not known, or syntax that editions do not have.
    pub(crate) fn read(original: &str) -> Result<Self, CompileError> {
        let original = original.strip_prefix('\u{feff}').unwrap_or(original);
        let found = Found::scan(original)?;
        let mut text = String::with_capacity(original.len());
        let mut end = 0;
        let mut edits = Vec::new();
        for (range, new) in found.replacements {
            // What is within text that has been taken away is gone with it.
            if range.start < end {
                continue;
            }
            text.push_str(&original[end..range.start]);
            text.push_str(&new);
            end = range.end;
            edits.push(Edit {
                original: range,
                length: new.len(),
            });
        }
        text.push_str(&original[end..]);
        Ok(Self {
            edition: found.edition,
            text,
            option_imports: found.option_imports,
            visibilities: found.visibilities,
            bodies: found.bodies,
            large_numbers: found.large_numbers,
            original: original.to_owned(),
            edits,
        })
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

    /// Gives methods with a body options, if only empty ones, as protoc does.
    pub(crate) fn restore_bodies(&self, file: &mut FileDescriptorProto) {
        for (service, method) in &self.bodies {
            let service = file.service.get_mut(*service);
            if let Some(method) = service.and_then(|it| it.method.get_mut(*method)) {
                method.options.get_or_insert_default();
            }
        }
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
        let info = file.source_code_info.as_mut();
        let Some(info) = info.filter(|_| !self.edits.is_empty()) else {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn read(original: &str) -> Source {
        Source::read(original).expect("it is right")
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
    fn a_file_of_no_edition_stays_as_it_is() {
        for text in [
            "",
            "syntax = \"proto3\";",
            "message edition {}",
            "// edition = \"2023\";",
        ] {
            let source = read(text);
            assert_eq!((source.edition, source.text.as_str()), (None, text));
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
            "message A{oneof a{B b=1;}extensions 5 to 9;optional C c=2;}",
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
    fn files_that_are_cut_off_or_spoilt_anywhere_are_read_to_their_ends() {
        let text = "edition = \"2024\"; import option \"a\"; export message B { reserved c, d; map<e, f> g = 1 \
                    [features.(h).i = {j: [1, 2]}, k = 1]; extend l { m n = 2; } } ] } service o { rpc p(q) \
                    returns (r) { option features.enforce_naming_style = s; } }";
        let head = text.find(';').expect("there is a head") + 1;
        for end in head..text.len() {
            read(&text[..end]);
            let missing = format!("{}{}", &text[..end], &text[end + 1..]);
            let _ = Source::read(&missing);
            for more in ["{", "}", "[", "]", ";", "\"", ",", " features.(a) "] {
                let _ = Source::read(&format!("{}{more}{}", &text[..end], &text[end..]));
            }
        }
        read("edition = \"2024\"; option features.(a) = [features.(b) = c];");
    }
}
