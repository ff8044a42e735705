//! The interop client of `trunkline`, with the flags that every implementation's has. `--test_case=all` runs every case.

use std::process::ExitCode;
use std::time::Duration;

use trunkline::{Call, Channel, Next};
use trunkline_tests::cases::{self, CASES, Soak};
use trunkline_tests::flags::Flags;

const FLAGS: &[(&str, &str)] = &[
    ("server_host", "localhost"),
    ("server_host_override", ""),
    ("server_port", "10000"),
    ("test_case", "large_unary"),
    ("use_tls", "false"),
    ("use_test_ca", "false"),
    ("ca_file", ""),
    ("use_alts", "false"),
    ("custom_credentials_type", ""),
    ("default_service_account", ""),
    ("oauth_scope", ""),
    ("service_account_key_file", ""),
    ("service_config_json", ""),
    ("additional_metadata", ""),
    ("google_c2p_universe_domain", ""),
    ("soak_iterations", "10"),
    ("soak_max_failures", "0"),
    ("soak_per_iteration_max_acceptable_latency_ms", "1000"),
    ("soak_overall_timeout_seconds", "10"),
];

/// Flags of the common contract that need credentials or balancing.
const REFUSED: &[&str] = &[
    "use_tls",
    "use_alts",
    "custom_credentials_type",
    "default_service_account",
    "oauth_scope",
    "service_account_key_file",
    "service_config_json",
    "google_c2p_universe_domain",
];

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), String> {
    let flags = Flags::parse(std::env::args().skip(1), FLAGS)?;
    flags.refuse(REFUSED)?;
    let soak = Soak {
        iterations: flags.number("soak_iterations")?,
        max_failures: flags.number("soak_max_failures")?,
        max_latency: Duration::from_millis(
            flags
                .number("soak_per_iteration_max_acceptable_latency_ms")?
                .into(),
        ),
        overall_timeout: Duration::from_secs(flags.number("soak_overall_timeout_seconds")?.into()),
    };
    let target = format!(
        "{}:{}",
        flags.text("server_host"),
        flags.number("server_port")?
    );
    let channel = channel(&flags, &target)?;
    let names = match flags.text("test_case") {
        "all" => CASES.to_vec(),
        name => vec![name],
    };
    for name in names {
        let outcome = match name {
            "channel_soak" => cases::channel_soak(&target, &soak).await,
            _ => cases::run(name, &channel, &soak).await,
        };
        outcome.map_err(|mismatch| format!("FAILED: {name}: {mismatch}"))?;
        println!("ok {name}");
    }
    Ok(())
}

fn channel(flags: &Flags, target: &str) -> Result<Channel, String> {
    let mut builder = Channel::to(target);
    if !flags.text("server_host_override").is_empty() {
        builder = builder.authority(flags.text("server_host_override"));
    }
    let channel = builder
        .connect_lazy()
        .map_err(|status| status.message().to_owned())?;
    let mut pairs = Vec::new();
    // `key:value;key:value`
    for pair in flags
        .text("additional_metadata")
        .split(';')
        .filter(|pair| !pair.is_empty())
    {
        let (key, value) = pair
            .split_once(':')
            .ok_or_else(|| format!("{pair:?} is not of the form key:value"))?;
        pairs.push((key.to_owned(), value.to_owned()));
    }
    Ok(channel.intercept(move |mut call: Call, next: Next| {
        for (key, value) in &pairs {
            call = call.metadata(key, value);
        }
        next.run(call)
    }))
}
