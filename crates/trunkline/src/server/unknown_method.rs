//! The status for an unknown path, which suggests a similar name.

use trunkline_codec::{Path, Status};

/// The length up to which names are compared, in bytes, and repeated in a status, in characters.
const NAME_MAX: usize = 100;

/// The maximum number of names that are compared with an unknown name.
const COMPARED_MAX: usize = 100;

/// The maximum number of byte pairs that are compared for an unknown name: two names of `NAME_MAX`, or
/// about forty names of the usual length. A connection is blocked meanwhile, and a peer can send
/// arbitrary paths.
const PAIRS_MAX: usize = 2 * NAME_MAX * NAME_MAX;

/// Returns the status for an unknown path, with a similar name if one exists.
///
/// `services` are the names of all services, and `paths` the paths of all methods.
#[cold]
pub(crate) fn unknown<'a>(
    path: &str,
    services: &[&'a str],
    paths: impl Iterator<Item = &'a str>,
) -> Status {
    let Some(parsed) = Path::parse(path) else {
        return malformed(path);
    };
    let (service, method) = (parsed.service(), parsed.method());
    let mut methods = paths
        .filter_map(|path| path.strip_prefix('/')?.split_once('/'))
        .filter_map(|(of, method)| (of == service).then_some(method))
        .peekable();
    Status::unimplemented(
        match services.contains(&service) || methods.peek().is_some() {
            true => {
                let what = format!("unknown method {} of {service}", cut(method));
                match similar(method, methods) {
                    Some(near) => format!("{what}; did you mean {near}?"),
                    None => {
                        format!("{what}: is the server older than the client's .proto file?")
                    }
                }
            }
            false => {
                let what = format!("unknown service {}", cut(service));
                match similar(service, services.iter().copied())
                    .or_else(|| of_another_package(service, services))
                {
                    Some(near) => format!("{what}; this server has {near}"),
                    None => format!(
                        "{what}: was it added to this server, and is this the right server?"
                    ),
                }
            }
        },
    )
}

/// Returns the status for an unknown path without disclosing names of methods or services, or whether
/// the service exists.
#[cold]
pub(crate) fn unknown_unnamed(path: &str) -> Status {
    match Path::parse(path) {
        None => malformed(path),
        Some(parsed) => Status::unimplemented(format!(
            "unknown method {} of {}",
            cut(parsed.method()),
            cut(parsed.service())
        )),
    }
}

fn malformed(path: &str) -> Status {
    let path = cut(path);
    Status::unimplemented(format!(
        "{path:?} is not of the form /package.Service/Method"
    ))
}

/// Returns the name that `name` probably misspells: at most a third of its characters are wrong, missing
/// or transposed. Case and underscores are ignored.
fn similar<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > NAME_MAX {
        return None;
    }
    let (normalized, distance_max) = (normalized(name), (name.len() / 3).max(1));
    let mut pairs = 0;
    names
        .filter(|other| other.len().abs_diff(name.len()) <= distance_max)
        .take(COMPARED_MAX)
        .take_while(|other| {
            pairs += other.len() * name.len();
            pairs <= PAIRS_MAX
        })
        .map(|other| {
            (
                edit_distance(normalized.as_bytes(), self::normalized(other).as_bytes()),
                other,
            )
        })
        .filter(|(distance, _)| *distance <= distance_max)
        // Equally similar names are ordered by name, because a hash map provides the methods in random
        // order.
        .min()
        .map(|(_, other)| other)
}

/// Returns the number of edits that turn `a` into `b`, where an edit replaces, inserts or removes a byte,
/// or swaps two adjacent bytes. This is the optimal string alignment distance, computed row by row.
fn edit_distance(a: &[u8], b: &[u8]) -> usize {
    let (mut row_before, mut row): (Vec<usize>, Vec<usize>) = (Vec::new(), (0..=b.len()).collect());
    for (i, x) in a.iter().enumerate() {
        let mut next = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let best = (row[j] + usize::from(x != y))
                .min(row[j + 1] + 1)
                .min(next[j] + 1);
            let is_swap = i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y;
            next.push(if is_swap {
                best.min(row_before[j - 1] + 1)
            } else {
                best
            });
        }
        row_before = std::mem::replace(&mut row, next);
    }
    row[b.len()]
}

fn normalized(name: &str) -> String {
    name.chars()
        .filter(|character| *character != '_')
        .map(|character| character.to_ascii_lowercase())
        .collect()
}

/// Returns the service of the same name in another package, or without a package.
fn of_another_package<'a>(service: &str, services: &[&'a str]) -> Option<&'a str> {
    let mut services = services.iter().copied();
    services.find(|other| last(other) == last(service))
}

fn last(name: &str) -> Option<&str> {
    name.rsplit('.').next()
}

/// Returns the beginning of a name, whose length the peer chooses.
fn cut(name: &str) -> String {
    name.chars().take(NAME_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(path: &str) -> String {
        let services = ["helloworld.Greeter", "routeguide.RouteGuide", "a.b.Empty"];
        let paths = [
            "/helloworld.Greeter/SayHello",
            "/helloworld.Greeter/SayBye",
            "/routeguide.RouteGuide/GetFeature",
            "/by.Hand/Alone",
        ];
        let status = unknown(path, &services, paths.into_iter());
        assert_eq!(status.code(), trunkline_codec::Code::UNIMPLEMENTED);
        status.message().to_owned()
    }

    #[test]
    fn a_similar_name_is_named_and_no_other() {
        let long = "x".repeat(16_000);
        let beginning = &long[..NAME_MAX];
        let table = [
            (
                "/helloworld.Greeter/SayHelo",
                "unknown method SayHelo of helloworld.Greeter; did you mean SayHello?",
            ),
            (
                "/helloworld.Greeter/say_hello",
                "unknown method say_hello of helloworld.Greeter; did you mean SayHello?",
            ),
            (
                "/helloworld.Greeter/SyaBye",
                "unknown method SyaBye of helloworld.Greeter; did you mean SayBye?",
            ),
            (
                "/helloworld.Greeter/GetFeature",
                "unknown method GetFeature of helloworld.Greeter: is the server older than the client's .proto file?",
            ),
            (
                "/helloworld.Greeter/X",
                "unknown method X of helloworld.Greeter: is the server older than the client's .proto file?",
            ),
            (
                "/a.b.Empty/X",
                "unknown method X of a.b.Empty: is the server older than the client's .proto file?",
            ),
            (
                "/by.Hand/Alnoe",
                "unknown method Alnoe of by.Hand; did you mean Alone?",
            ),
            (
                "/helloworld.Greter/SayHello",
                "unknown service helloworld.Greter; this server has helloworld.Greeter",
            ),
            (
                "/Greeter/SayHello",
                "unknown service Greeter; this server has helloworld.Greeter",
            ),
            (
                "/other.v2.Greeter/SayHello",
                "unknown service other.v2.Greeter; this server has helloworld.Greeter",
            ),
            (
                "/admin/login",
                "unknown service admin: was it added to this server, and is this the right server?",
            ),
            (
                "/grpc.health.v1.Health/Check",
                "unknown service grpc.health.v1.Health: was it added to this server, and is this the right server?",
            ),
            (
                "/health",
                "\"/health\" is not of the form /package.Service/Method",
            ),
            ("", "\"\" is not of the form /package.Service/Method"),
            (
                "/\u{e9}/\u{e9}",
                "\"/\u{e9}/\u{e9}\" is not of the form /package.Service/Method",
            ),
            (
                &format!("/{long}/{long}"),
                &format!(
                    "unknown service {beginning}: was it added to this server, and is this the right server?"
                ),
            ),
            (
                &format!("/by.Hand/{long}"),
                &format!(
                    "unknown method {beginning} of by.Hand: is the server older than the client's .proto file?"
                ),
            ),
            (
                &long,
                &format!("{beginning:?} is not of the form /package.Service/Method"),
            ),
        ];
        for (path, expected) in table {
            assert_eq!(said(path), expected);
        }
    }

    #[test]
    fn differences_are_counted_once_each() {
        for (a, b, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("abc", "abc", 0),
            ("abc", "abd", 1),
            ("abc", "ab", 1),
            ("abc", "xabc", 1),
            ("abc", "acb", 1),
            ("abcd", "badc", 2),
            ("ab", "bca", 3),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(
                edit_distance(a.as_bytes(), b.as_bytes()),
                expected,
                "{a} {b}"
            );
            assert_eq!(
                edit_distance(b.as_bytes(), a.as_bytes()),
                expected,
                "{b} {a}"
            );
        }
    }

    #[test]
    fn a_third_of_a_name_may_be_wrong_and_no_more() {
        for (name, is_near) in [
            ("abcdefghi", true),
            ("Xbcdefghi", true),
            ("XXXdefghi", true),
            ("XXXXefghi", false),
            ("abcdefg", true),
            ("abcdef", false),
        ] {
            let found = similar(name, ["abcdefghi"].into_iter());
            assert_eq!(found.is_some(), is_near, "{name}");
        }
        let [below, at, above] = [99, 100, 101].map(|len| "a".repeat(len));
        for (name, is_near) in [(below, true), (at, true), (above, false)] {
            assert_eq!(similar(&name, [&*name].into_iter()).is_some(), is_near);
        }
    }

    #[test]
    fn only_so_many_names_are_compared() {
        for (before, is_found) in [(98, true), (99, true), (100, false)] {
            let names = std::iter::repeat_n("xyz", before).chain(["abc"]);
            assert_eq!(similar("abd", names).is_some(), is_found, "{before}");
        }
    }

    #[test]
    fn long_names_are_compared_only_until_it_is_enough() {
        let (wanted, other) = ("a".repeat(NAME_MAX), "b".repeat(NAME_MAX));
        let [shorter_wanted, shorter] = [&wanted, &other].map(|name| &name[..NAME_MAX / 2]);
        for (before, is_found) in [(0, true), (1, true), (2, false)] {
            let names = std::iter::repeat_n(&*other, before).chain([&*wanted]);
            assert_eq!(similar(&wanted, names).is_some(), is_found, "{before}");
        }
        for (before, is_found) in [(6, true), (7, true), (8, false)] {
            let names = std::iter::repeat_n(shorter, before).chain([shorter_wanted]);
            let found = similar(shorter_wanted, names);
            assert_eq!(found.is_some(), is_found, "{before}");
        }
    }

    #[test]
    fn a_server_that_hides_its_names_says_the_same_of_each() {
        for (path, expected) in [
            (
                "/helloworld.Greeter/SayHelo",
                "unknown method SayHelo of helloworld.Greeter",
            ),
            ("/Greeter/SayHello", "unknown method SayHello of Greeter"),
            (
                "/health",
                "\"/health\" is not of the form /package.Service/Method",
            ),
        ] {
            let status = unknown_unnamed(path);
            assert_eq!(status.code(), trunkline_codec::Code::UNIMPLEMENTED);
            assert_eq!(status.message(), expected);
        }
        let long = "x".repeat(16_000);
        assert!(unknown_unnamed(&format!("/{long}/{long}")).message().len() < 300);
    }
}
