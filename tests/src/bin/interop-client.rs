//! The interop client of `trunkline`, with the flags that every implementation's has. `--test_case=all` runs every case.
//!
//! With `--use_tls` it trusts the system's authorities, or with `--use_test_ca` those in `--ca_file`. The secrets of its
//! connections go to the file that `SSLKEYLOGFILE` names, if it is set.

use std::process::ExitCode;
use std::time::Duration;

use trunkline::tls::ClientTls;
use trunkline::{Channel, Context, Next};
use trunkline_tests::backend_metrics::{BackendMetrics, LoadLog};
use trunkline_tests::cases::{self, CASES, InteropClient, Soak};
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
    ("alts_handshaker_service_address", ""),
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
    ("soak_min_time_ms_between_rpcs", "0"),
    ("soak_request_size", "271828"),
    ("soak_response_size", "314159"),
    ("soak_num_threads", "1"),
];

/// Flags of the common contract that need credentials.
const REFUSED: &[&str] = &[
    "use_alts",
    "alts_handshaker_service_address",
    "custom_credentials_type",
    "default_service_account",
    "oauth_scope",
    "service_account_key_file",
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
    let target = format!(
        "{}:{}",
        flags.text("server_host"),
        flags.number("server_port")?
    );
    let tls = tls(&flags)?;
    let soak = soak(&flags, &target, tls.clone())?;
    let loads = LoadLog::default();
    let client = InteropClient {
        channel: channel(&flags, &target, tls, loads.clone())?,
        loads,
        soak,
    };
    let names = match flags.text("test_case") {
        "all" => CASES.to_vec(),
        name => vec![name],
    };
    for name in names {
        let outcome = cases::run(name, &client).await;
        outcome.map_err(|mismatch| format!("FAILED: {name}: {mismatch}"))?;
        println!("ok {name}");
    }
    Ok(())
}

fn soak(flags: &Flags, target: &str, tls: Option<ClientTls>) -> Result<Soak, String> {
    let millis = |name| Ok::<_, String>(Duration::from_millis(flags.number(name)?.into()));
    // An int32 in the messages, too.
    let size = |name| Ok::<_, String>(flags.number(name)?.min(i32::MAX as u32) as usize);
    Ok(Soak {
        target: target.to_owned(),
        tls,
        iterations: flags.number("soak_iterations")?,
        max_failures: flags.number("soak_max_failures")?,
        max_latency: millis("soak_per_iteration_max_acceptable_latency_ms")?,
        overall_timeout: Duration::from_secs(flags.number("soak_overall_timeout_seconds")?.into()),
        min_time_between_calls: millis("soak_min_time_ms_between_rpcs")?,
        request_size: size("soak_request_size")?,
        response_size: size("soak_response_size")?,
        threads: flags.number("soak_num_threads")?,
    })
}

fn tls(flags: &Flags) -> Result<Option<ClientTls>, String> {
    if !flags.is_on("use_tls")? {
        return Ok(None);
    }
    let mut tls = ClientTls::new().key_log();
    if flags.is_on("use_test_ca")? {
        match flags.text("ca_file") {
            "" => return Err("--use_test_ca needs --ca_file".to_owned()),
            file => tls = tls.ca_file(file),
        }
    }
    let name = flags.text("server_host_override");
    if !name.is_empty() {
        tls = tls.server_name(name);
    }
    Ok(Some(tls))
}

fn channel(
    flags: &Flags,
    target: &str,
    tls: Option<ClientTls>,
    loads: LoadLog,
) -> Result<Channel, String> {
    let mut builder = Channel::to(target).policy(BackendMetrics(loads));
    if let Some(tls) = tls {
        builder = builder.tls(tls);
    }
    if !flags.text("service_config_json").is_empty() {
        builder = builder.service_config(flags.text("service_config_json"));
    }
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
    Ok(channel.intercept(move |mut cx: Context, next: Next| {
        let added = pairs
            .iter()
            .try_for_each(|(key, value)| cx.metadata_mut().append(key, value));
        async move {
            added?;
            next.run(&mut cx).await
        }
    }))
}
