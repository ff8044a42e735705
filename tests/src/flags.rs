//! Command lines of the interop programs, which are the same for every implementation.

use std::collections::BTreeMap;

/// The values of a program's flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flags(BTreeMap<&'static str, String>);

impl Flags {
    /// Reads arguments of the forms `--name=value`, `--name value` and `--name`, which is `true`; one dash does as well.
    /// `known` has the names and their defaults.
    ///
    /// # Errors
    ///
    /// A sentence for the user: a name that is not known, or an argument that is no flag.
    pub fn parse(
        arguments: impl IntoIterator<Item = String>,
        known: &[(&'static str, &str)],
    ) -> Result<Self, String> {
        let mut values: BTreeMap<_, _> = known
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()))
            .collect();
        let mut arguments = arguments.into_iter().peekable();
        while let Some(argument) = arguments.next() {
            let Some(flag) = argument
                .strip_prefix("--")
                .or_else(|| argument.strip_prefix('-'))
            else {
                return Err(format!("{argument:?} is no flag"));
            };
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (flag, None),
            };
            let Some(slot) = values.get_mut(name) else {
                let names: Vec<_> = known.iter().map(|(name, _)| *name).collect();
                return Err(format!(
                    "there is no flag {name:?}; there are: {}",
                    names.join(", ")
                ));
            };
            *slot = match value {
                Some(value) => value,
                None => arguments
                    .next_if(|next| !next.starts_with('-'))
                    .unwrap_or_else(|| "true".to_owned()),
            };
        }
        Ok(Self(values))
    }

    /// The value of a flag.
    ///
    /// # Panics
    ///
    /// When the program does not know the flag.
    pub fn text(&self, name: &str) -> &str {
        &self.0[name]
    }

    /// The value of a flag, as a number.
    ///
    /// # Errors
    ///
    /// A sentence for the user.
    pub fn number(&self, name: &str) -> Result<u32, String> {
        self.text(name)
            .parse()
            .map_err(|_| format!("--{name} takes a number, not {:?}", self.text(name)))
    }

    /// Whether a flag that is `true` or `false` is on.
    ///
    /// # Errors
    ///
    /// A sentence for the user.
    pub fn is_on(&self, name: &str) -> Result<bool, String> {
        match self.text(name) {
            "" | "false" => Ok(false),
            "true" => Ok(true),
            other => Err(format!("--{name} is true or false, not {other:?}")),
        }
    }

    /// Refuses flags of the common contract that this program cannot honour.
    ///
    /// # Errors
    ///
    /// A sentence for the user, when one of them asks for something.
    pub fn refuse(&self, names: &[&str]) -> Result<(), String> {
        match names
            .iter()
            .find(|name| !matches!(self.text(name), "" | "false"))
        {
            Some(name) => Err(format!("--{name} is not supported")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[(&str, &str)] = &[("port", "10000"), ("use_tls", "false"), ("test_case", "")];

    fn parse(line: &str) -> Result<Flags, String> {
        Flags::parse(line.split_whitespace().map(str::to_owned), KNOWN)
    }

    #[test]
    fn every_form_of_a_flag_is_read() {
        for line in [
            "--port=7 --use_tls",
            "-port 7 -use_tls=true",
            "--use_tls --port 7",
            "--use_tls true -port=7",
        ] {
            let flags = parse(line).unwrap();
            assert_eq!(
                (
                    flags.number("port"),
                    flags.text("use_tls"),
                    flags.text("test_case")
                ),
                (Ok(7), "true", ""),
                "{line}"
            );
        }
        assert_eq!(parse("").unwrap().number("port"), Ok(10000));
        assert_eq!(parse("--test_case=a=b").unwrap().text("test_case"), "a=b");
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert_eq!(parse("port").unwrap_err(), "\"port\" is no flag");
        assert!(
            parse("--prot=1")
                .unwrap_err()
                .starts_with("there is no flag \"prot\"; there are: port,")
        );
        assert_eq!(
            parse("--port=x").unwrap().number("port").unwrap_err(),
            "--port takes a number, not \"x\""
        );
        assert_eq!(
            parse("--use_tls=yes")
                .unwrap()
                .is_on("use_tls")
                .unwrap_err(),
            "--use_tls is true or false, not \"yes\""
        );
        assert_eq!(parse("--use_tls").unwrap().is_on("use_tls"), Ok(true));
        let names = ["use_tls", "test_case"];
        assert_eq!(
            parse("--use_tls").unwrap().refuse(&names).unwrap_err(),
            "--use_tls is not supported"
        );
        assert_eq!(parse("--use_tls=false").unwrap().refuse(&names), Ok(()));
    }
}
