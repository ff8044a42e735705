//! The choice of a service config among those in DNS (gRFC A2).

use trunkline_codec::Status;

use super::json::{self, JsonField};
use super::service_config::ServiceConfig;

/// The attribute of a TXT record that has choices (gRFC A2, "Encoding in DNS TXT Records").
const ATTRIBUTE: &str = "grpc_config=";
/// The name of this implementation in `clientLanguage`.
const LANGUAGE: &str = "rust";
/// The fields of a choice. Any other one rejects all choices.
const FIELDS: [&str; 4] = [
    "clientLanguage",
    "percentage",
    "clientHostname",
    "serviceConfig",
];

impl ServiceConfig {
    /// Chooses the service config for this client among those in the TXT records of `_grpc_config.HOST`, where HOST is
    /// the name of the server (gRFC A2). A channel does this itself with `ChannelBuilder::dns_service_config`; this
    /// function is for resolvers of your own.
    ///
    /// `records` are the texts of the records, each with its strings joined. Those without `grpc_config=` are
    /// ignored. The first choice that matches wins; DNS does not keep the order of several records, so they are
    /// taken in the order of their texts. A choice matches if `clientLanguage` contains "rust", in upper or lower case,
    /// `percentage` is above `number`, and `clientHostname` contains `host_name`; absent fields match.
    ///
    /// `number` is a random number from 0 to 99. A client that keeps its number gets the same choice each time.
    ///
    /// Returns the JSON for [`parse`](Self::parse), or `None` if no choice matches.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT if any choice is not an object with a `serviceConfig` and valid criteria, or has an unknown
    /// field.
    ///
    /// ```
    /// # mod trunkline { pub use trunkline_channel as channel; }
    /// use trunkline::channel::ServiceConfig;
    ///
    /// let record = r#"grpc_config=[
    ///     {"percentage": 10, "serviceConfig": {"loadBalancingPolicy": "round_robin"}},
    ///     {"serviceConfig": {}}
    /// ]"#;
    /// let chosen = |number| ServiceConfig::choose(&[record], number, "host").unwrap().unwrap();
    /// assert_eq!(chosen(9), r#"{"loadBalancingPolicy":"round_robin"}"#);
    /// assert_eq!(chosen(10), "{}");
    /// ```
    pub fn choose<T: AsRef<str>>(
        records: &[T],
        number: u8,
        host_name: &str,
    ) -> Result<Option<String>, Status> {
        let records = records.iter().map(AsRef::as_ref);
        let mut lists: Vec<&str> = records
            .filter_map(|it| it.strip_prefix(ATTRIBUTE))
            .collect();
        lists.sort_unstable();
        let mut chosen = None;
        for list in lists {
            let value = &json::parse("list of service configs", list)?;
            let path = "grpc_config".to_owned();
            for choice in (JsonField { path, value }).list()? {
                let (matches, config) = read(&choice, number, host_name)?;
                if matches && chosen.is_none() {
                    chosen = Some(config);
                }
            }
        }
        Ok(chosen)
    }
}

/// Reads a choice: whether it matches, and its service config.
fn read(choice: &JsonField<'_>, number: u8, host_name: &str) -> Result<(bool, String), Status> {
    let fields = choice.object()?;
    let mut keys = choice
        .value
        .as_object()
        .into_iter()
        .flat_map(|it| it.keys());
    if let Some(unknown) = keys.find(|key| !FIELDS.contains(&key.as_str())) {
        return Err(Status::invalid_argument(format!(
            "{}.{unknown}: the field is unknown; known are {}",
            choice.path,
            FIELDS.join(", ")
        )));
    }
    let languages = fields.optional("clientLanguage", strings)?;
    let hosts = fields.optional("clientHostname", strings)?;
    let percentage = fields.optional("percentage", |field| {
        let percentage = field.value.as_u64().filter(|it| *it <= 100);
        percentage.ok_or_else(|| field.invalid("a whole number from 0 to 100"))
    })?;
    let config = fields.required("serviceConfig", |field| {
        field.object()?;
        Ok(field.value.to_string())
    })?;
    let is_listed = |list: Option<Vec<&str>>, is_it: &dyn Fn(&str) -> bool| {
        list.is_none_or(|it| it.is_empty() || it.into_iter().any(is_it))
    };
    let matches = is_listed(languages, &|it| it.eq_ignore_ascii_case(LANGUAGE))
        && is_listed(hosts, &|it| it == host_name)
        && percentage.is_none_or(|it| u64::from(number) < it);
    Ok((matches, config))
}

fn strings<'a>(field: &JsonField<'a>) -> Result<Vec<&'a str>, Status> {
    field.list()?.iter().map(JsonField::string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(list: &str) -> Option<String> {
        let record = format!("grpc_config={list}");
        ServiceConfig::choose(&[record], 50, "Host").unwrap()
    }

    #[test]
    fn a_choice_matches_by_language_percentage_and_host_name() {
        let table = [
            ("", true),
            (r#""clientLanguage": ["go", "Rust"],"#, true),
            (r#""clientLanguage": ["go"],"#, false),
            (r#""clientLanguage": [],"#, true),
            (r#""clientLanguage": null,"#, true),
            (r#""percentage": 100,"#, true),
            (r#""percentage": 51,"#, true),
            (r#""percentage": 50,"#, false),
            (r#""percentage": 0,"#, false),
            (r#""clientHostname": ["other", "Host"],"#, true),
            (r#""clientHostname": ["host"],"#, false),
            (r#""clientHostname": [],"#, true),
            (
                r#""clientLanguage": ["RUST"], "percentage": 0, "clientHostname": ["Host"],"#,
                false,
            ),
        ];
        for (criteria, matches) in table {
            let list = format!(r#"[{{{criteria} "serviceConfig": {{}}}}]"#);
            assert_eq!(chosen(&list).is_some(), matches, "{list}");
        }
    }

    #[test]
    fn the_percentages_0_and_100_select_none_and_all() {
        for number in 0..100 {
            let choose = |percentage: u8| {
                let record = format!(
                    r#"grpc_config=[{{"percentage": {percentage}, "serviceConfig": {{}}}}]"#
                );
                ServiceConfig::choose(&[record], number, "")
                    .unwrap()
                    .is_some()
            };
            assert_eq!((choose(0), choose(100)), (false, true), "{number}");
        }
    }

    #[test]
    fn the_first_choice_that_matches_wins_over_all_records_in_any_order() {
        let first = r#"grpc_config=[{"percentage": 1, "serviceConfig": {"a": 1}}, {"serviceConfig": {"b": 2}}]"#;
        let second = r#"grpc_config=[{"serviceConfig": {"c": 3}}]"#;
        let other = "v=spf1 -all";
        for records in [[first, second, other], [other, second, first]] {
            let config = ServiceConfig::choose(&records, 50, "").unwrap();
            assert_eq!(config.as_deref(), Some(r#"{"b":2}"#));
        }
        assert_eq!(ServiceConfig::choose(&[other], 50, "").unwrap(), None);
        assert_eq!(ServiceConfig::choose::<&str>(&[], 50, "").unwrap(), None);
        assert_eq!(chosen("[]"), None);
    }

    #[test]
    fn an_invalid_choice_rejects_all_even_behind_one_that_matches() {
        let table = [
            (
                r#"{"serviceConfig": {}, "color": 1}"#,
                "grpc_config[1].color: the field is unknown",
            ),
            (
                r#"{"serviceConfig": {}, "client_language": []}"#,
                "grpc_config[1].client_language: ",
            ),
            ("{}", "grpc_config[1].serviceConfig: the field is missing"),
            (
                r#"{"serviceConfig": []}"#,
                "grpc_config[1].serviceConfig: [] is not an object",
            ),
            (
                r#"{"serviceConfig": {}, "percentage": 101}"#,
                "grpc_config[1].percentage: 101 is not",
            ),
            (
                r#"{"serviceConfig": {}, "percentage": -1}"#,
                "percentage: -1 is not",
            ),
            (
                r#"{"serviceConfig": {}, "percentage": 1.5}"#,
                "percentage: 1.5 is not",
            ),
            (
                r#"{"serviceConfig": {}, "percentage": "1"}"#,
                r#"percentage: "1" is not"#,
            ),
            (
                r#"{"serviceConfig": {}, "clientLanguage": "rust"}"#,
                r#"clientLanguage: "rust" is not a list"#,
            ),
            (
                r#"{"serviceConfig": {}, "clientHostname": [1]}"#,
                "clientHostname[0]: 1 is not a string",
            ),
            ("5", "grpc_config[1]: 5 is not an object"),
            (
                r#"{"serviceConfig": {}, "serviceConfig": {}}"#,
                "the list of service configs is not valid JSON",
            ),
        ];
        for (choice, part) in table {
            let record = format!(r#"grpc_config=[{{"serviceConfig": {{}}}}, {choice}]"#);
            let status = ServiceConfig::choose(&[record], 50, "").unwrap_err();
            assert!(status.message().contains(part), "{choice}: {status}");
        }
        for record in ["grpc_config=", "grpc_config={}", "grpc_config=null"] {
            assert!(
                ServiceConfig::choose(&[record], 50, "").is_err(),
                "{record}"
            );
        }
    }
}
