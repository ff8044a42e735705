//! The forms of targets (grpc/doc/naming.md), as one table.

use super::targets::Targets;

/// A target, and what it means: the targets with their `:authority`, or a part of the error.
const TABLE: &[(&str, Result<&str, &str>)] = &[
    // Names in DNS, with 443 as the default port.
    ("host", Ok("host:443 host")),
    ("host:80", Ok("host:80 host:80")),
    ("Example.COM:80", Ok("Example.COM:80 Example.COM:80")),
    ("a.b-c.d_e:1", Ok("a.b-c.d_e:1 a.b-c.d_e:1")),
    ("localhost:1234", Ok("localhost:1234 localhost:1234")),
    ("dns:host", Ok("host:443 host")),
    ("dns:host:80", Ok("host:80 host:80")),
    ("dns:///host", Ok("host:443 host")),
    ("dns:///host:80", Ok("host:80 host:80")),
    ("DNS:///host:80", Ok("host:80 host:80")),
    ("dns:1234", Ok("1234:443 1234")),
    ("dns:///%68ost:80", Ok("host:80 host:80")),
    ("foo:80", Ok("foo:80 foo:80")),
    ("xds:80", Ok("xds:80 xds:80")),
    ("", Err("the host is missing")),
    (":80", Err("the host is missing")),
    ("host:", Err("the port behind the colon is missing")),
    ("host:http", Err("the port \"http\" is not a number")),
    ("host:65536", Err("the port 65536 is out of range")),
    ("dns:", Err("the host is missing")),
    ("dns:///", Err("the host is missing")),
    ("dns:///host:x", Err("the port \"x\" is not a number")),
    ("dns:///100%", Err("two hexadecimal digits")),
    ("dns:///a%2", Err("two hexadecimal digits")),
    ("dns://host", Err("DNS server")),
    ("dns://name/host", Err("DNS server")),
    ("user@host:1", Err("user names")),
    ("a b:1", Err("it is not of the form host:port")),
    // IP addresses.
    ("1.2.3.4", Ok("1.2.3.4:443 1.2.3.4")),
    ("1.2.3.4:5", Ok("1.2.3.4:5 1.2.3.4:5")),
    ("[::1]:5", Ok("[::1]:5 [::1]:5")),
    ("[fe80::1%25lo]:5", Ok("[fe80::1%lo]:5 [fe80::1]:5")),
    ("dns:///[::1]", Ok("[::1]:443 [::1]")),
    ("dns:///[fe80::1%25lo]", Ok("[fe80::1%lo]:443 [fe80::1]")),
    ("::1", Err("has to be in brackets")),
    ("[::1", Err("the ] is missing")),
    ("[host]:1", Err("is not an IPv6 address")),
    ("ipv4:1.2.3.4", Ok("1.2.3.4:443 1.2.3.4")),
    (
        "ipv4:1.2.3.4:80,5.6.7.8",
        Ok("1.2.3.4:80 1.2.3.4:80, 5.6.7.8:443 5.6.7.8"),
    ),
    ("IPv4:///1.2.3.4:80", Ok("1.2.3.4:80 1.2.3.4:80")),
    (
        "ipv6:[::1]:80,[::2]",
        Ok("[::1]:80 [::1]:80, [::2]:443 [::2]"),
    ),
    ("ipv6:::1", Ok("[::1]:443 [::1]")),
    ("ipv4:host:80", Err("ipv4")),
    ("ipv4:", Err("the host is missing")),
    ("ipv4:1.2.3.4,", Err("the host is missing")),
    ("ipv4:[::1]:80", Err("ipv4")),
    ("ipv6:1.2.3.4:80", Err("ipv6")),
    // Sockets of this machine.
    ("unix:rel/path", Ok("unix:rel/path localhost")),
    ("unix:/abs", Ok("unix:/abs localhost")),
    ("unix:///abs", Ok("unix:/abs localhost")),
    ("UNIX:///run/a%20b", Ok("unix:/run/a b localhost")),
    (
        "unix://authority/abs",
        Err("a path behind // has to begin with /"),
    ),
    ("unix:", Err("the path is empty")),
    ("unix:/100%", Err("two hexadecimal digits")),
    ("unix:%00a", Err("a NUL byte")),
    // For connectors.
    ("passthrough:///any", Ok("passthrough:///any any")),
    ("passthrough:any", Ok("passthrough:///any any")),
    (
        "passthrough:///a%2Fb%20c",
        Ok("passthrough:///a/b%20c localhost"),
    ),
    ("passthrough:///1.2.3.4:5", Ok("1.2.3.4:5 1.2.3.4:5")),
    ("passthrough:", Err("the text is empty")),
    ("passthrough://any", Err("has to begin with /")),
    // Ours, for users of other frameworks.
    ("http://host", Ok("host:80 host")),
    ("HTTP://host:1/", Ok("host:1 host:1")),
    ("http://host/path", Err("it is not of the form host:port")),
    // Unknown schemes: both attempts are named.
    (
        "xds:///service",
        Err("the scheme \"xds\" is unknown, and a name in DNS is of the form host:port"),
    ),
    (
        "vsock://1:2",
        Err("the scheme \"vsock\" is unknown, and a name in DNS is of the form host:port"),
    ),
];

#[test]
fn each_form_of_a_target_means_what_the_naming_document_says() {
    for (text, expected) in TABLE {
        let parsed = Targets::from(*text).parse();
        let shown = parsed.as_ref().map(|parsed| {
            let shown = parsed
                .iter()
                .map(|it| format!("{} {}", it.target, it.target.authority()));
            shown.collect::<Vec<_>>().join(", ")
        });
        match (shown, expected) {
            (Ok(shown), Ok(expected)) => assert_eq!(shown, *expected, "{text}"),
            (Err(status), Err(why)) => {
                let message = status.message();
                assert!(
                    message.starts_with("cannot connect to "),
                    "{text}: {message}"
                );
                assert!(message.contains(why), "{text}: {message}");
                assert!(message.contains(text), "{text}: {message}");
            }
            (found, _) => panic!("{text}: {found:?}"),
        }
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
#[test]
fn abstract_sockets_of_linux_are_targets() {
    let parsed = Targets::from("unix-abstract:a%00b")
        .parse()
        .expect("a target");
    assert_eq!(parsed[0].target.to_string(), "unix-abstract:a%00b");
    assert!(Targets::from("unix-abstract:").parse().is_err());
}

#[test]
fn a_target_can_name_the_dns_server_that_knows_it() {
    for (text, server) in [
        ("dns://10.0.0.2/host", "10.0.0.2:53"),
        ("dns://10.0.0.2:54/host", "10.0.0.2:54"),
        ("dns://[::1]/host", "[::1]:53"),
        ("dns://[::1]:54/host", "[::1]:54"),
    ] {
        match (cfg!(feature = "hickory"), Targets::from(text).parse()) {
            (true, parsed) => {
                let parsed = parsed.expect("a target");
                assert_eq!(
                    parsed[0].dns_server.map(|it| it.to_string()).as_deref(),
                    Some(server)
                );
                assert_eq!(parsed[0].target.to_string(), "host:443");
            }
            (false, parsed) => {
                let status = parsed.expect_err("no DNS of our own");
                assert!(
                    status.message().contains("enable the feature `hickory`"),
                    "{status}"
                );
            }
        }
    }
}

#[test]
fn no_text_makes_the_parser_panic() {
    let pieces = [
        "dns:",
        "unix:",
        "ipv6:",
        "passthrough:",
        "//",
        "/",
        ":",
        "[",
        "]",
        "%",
        "%2",
        "é",
        "a",
        "\0",
        ",",
    ];
    for first in pieces {
        for second in pieces {
            for third in pieces {
                for fourth in pieces {
                    let _ = Targets::from(format!("{first}{second}{third}{fourth}")).parse();
                }
            }
        }
    }
}
