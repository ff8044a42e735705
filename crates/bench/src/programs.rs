//! The programs that are compared: ours, and those of `peers/`, each built by itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::options::Options;

/// A program that is built.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub(crate) name: String,
    /// Of the framework; empty for what is built from this repository.
    pub(crate) version: String,
    /// Where it runs.
    pub(crate) directory: PathBuf,
    /// What is run, with its first arguments.
    pub(crate) command: Vec<String>,
    /// Arguments behind the mode.
    pub(crate) switches: Vec<String>,
    kinds: Vec<String>,
    families: Option<Vec<String>>,
    /// Seconds until it is as fast as it gets.
    pub(crate) warmup: f64,
}

impl Program {
    /// Whether it is a server that has the methods of a workload.
    pub(crate) fn serves(&self, family: &str) -> bool {
        let families = self.families.as_ref();
        let family = plain(family);
        self.kinds.iter().any(|it| it == "server") && families.is_none_or(|it| it.contains(&family))
    }

    /// Whether it has a client; one that reads streams, if `reads_streams`.
    pub(crate) fn calls(&self, reads_streams: bool) -> bool {
        let kind = match reads_streams {
            true => "stream client",
            false => "client",
        };
        self.kinds.iter().any(|it| it == kind)
    }
}

/// A name as it is compared: `server_stream` and `server-stream` are `server stream`.
fn plain(name: &str) -> String {
    name.to_lowercase().replace(['_', '-'], " ")
}

/// What there is, and what was left out and why.
pub(crate) struct Programs {
    pub(crate) ready: Vec<Program>,
    pub(crate) skipped: Vec<(String, String)>,
}

/// Builds all programs that are wanted, one at a time, so that none gets another's features.
///
/// # Errors
///
/// If our own do not build.
pub(crate) fn build(options: &Options, logs: &Path) -> Result<Programs, String> {
    let mut programs = Programs {
        ready: Vec::new(),
        skipped: Vec::new(),
    };
    for name in ["ours", "bare"] {
        if options.wants_program(name) {
            programs.ready.push(own(name, options, logs)?);
        }
    }
    let peers = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers");
    let mut manifests: Vec<PathBuf> = fs::read_dir(peers)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("program.json"))
        .filter(|path| path.is_file())
        .collect();
    manifests.sort_by_key(|path| (!path.ends_with("tonic/program.json"), path.clone()));
    for manifest in manifests {
        peer(&manifest, options, logs, &mut programs);
    }
    Ok(programs)
}

fn own(name: &str, options: &Options, logs: &Path) -> Result<Program, String> {
    let exe = std::env::current_exe().map_err(|error| format!("who are we: {error}"))?;
    let directory = exe.parent().ok_or("a program outside of any directory")?;
    if options.builds {
        let target = directory.parent().ok_or("no target directory")?;
        let mut build = cargo();
        build
            .args(["build", "-p", "trunkline-bench", "--bin", name])
            .arg("--target-dir")
            .arg(target)
            .current_dir(env!("CARGO_MANIFEST_DIR"));
        if directory.ends_with("release") {
            build.arg("--release");
        }
        run(build, name, logs).map_err(|why| format!("{name} does not build: {why}"))?;
    }
    Ok(Program {
        name: name.to_owned(),
        version: String::new(),
        directory: directory.to_owned(),
        command: vec![directory.join(name).to_string_lossy().into_owned()],
        switches: Vec::new(),
        kinds: match name {
            "ours" => strings(&json!(["server", "client", "stream client"])),
            _ => strings(&json!(["server", "client"])),
        },
        families: None,
        warmup: 0.0,
    })
}

/// The cargo that runs us, or the one that is there.
fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

fn peer(manifest: &Path, options: &Options, logs: &Path, programs: &mut Programs) {
    let directory = manifest.parent().unwrap_or_else(|| Path::new("."));
    let text = fs::read_to_string(manifest).unwrap_or_default();
    let Ok(said) = serde_json::from_str::<Value>(&text) else {
        let name = directory.to_string_lossy().into_owned();
        return programs
            .skipped
            .push((name, "its program.json cannot be read".to_owned()));
    };
    let name = said["name"].as_str().unwrap_or("no name").to_owned();
    let variants: Vec<(String, Vec<String>)> = said["variants"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, switches)| (name.clone(), strings(switches)))
        .collect();
    let wanted: Vec<(String, Vec<String>)> = std::iter::once((name.clone(), Vec::new()))
        .chain(variants)
        .filter(|(name, _)| options.wants_program(name))
        .collect();
    if wanted.is_empty() {
        return;
    }
    if let Err(why) = build_peer(&said, &name, directory, options, logs) {
        return programs.skipped.push((name, why));
    }
    let mut command = strings(&said["run"]);
    if let Some(first) = command.first_mut().filter(|it| it.contains('/')) {
        *first = directory.join(&*first).to_string_lossy().into_owned();
    }
    for (name, switches) in wanted {
        let families = said["workloads"].is_array();
        let families = families.then(|| strings(&said["workloads"]));
        programs.ready.push(Program {
            version: version(&said, directory),
            directory: directory.to_owned(),
            command: command.clone(),
            switches,
            kinds: strings(&said["kinds"]),
            families: families.map(|all| all.iter().map(|it| plain(it)).collect()),
            warmup: said["warmup_seconds"].as_f64().unwrap_or(0.0),
            name,
        });
    }
}

fn build_peer(
    said: &Value,
    name: &str,
    directory: &Path,
    options: &Options,
    logs: &Path,
) -> Result<(), String> {
    for tool in strings(&said["needs"]) {
        if !is_on_path(&tool) {
            return Err(format!("{tool} is not on PATH"));
        }
    }
    if !options.builds {
        let first = strings(&said["run"]).first().cloned().unwrap_or_default();
        return match first.contains('/') && !directory.join(&first).exists() {
            true => Err("not built".to_owned()),
            false => Ok(()),
        };
    }
    for step in said["build"].as_array().into_iter().flatten() {
        let words = strings(step);
        let Some((first, rest)) = words.split_first() else {
            continue;
        };
        let mut build = match first.as_str() {
            "cargo" => cargo(),
            _ => Command::new(first),
        };
        // What is set for this workspace is not for the peers: they have directories of their own.
        build
            .args(rest)
            .current_dir(directory)
            .env_remove("CARGO_TARGET_DIR");
        run(build, name, logs)?;
    }
    Ok(())
}

/// Runs one step of a build; what it says goes to a file.
fn run(mut command: Command, name: &str, logs: &Path) -> Result<(), String> {
    eprintln!("building {name}");
    let path = logs.join(format!("build-{name}.log"));
    let log = fs::File::create(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let both = log.try_clone().map_err(|error| error.to_string())?;
    let status = command
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(both)
        .status()
        .map_err(|error| format!("{}: {error}", command.get_program().display()))?;
    match status.success() {
        true => Ok(()),
        false => {
            let text = fs::read_to_string(&path).unwrap_or_default();
            let cause = text.lines().find(|line| line.starts_with("error"));
            Err(format!(
                "the build failed: {} (all of it: {})",
                cause.or_else(|| text.lines().last()).unwrap_or("no word"),
                path.display()
            ))
        }
    }
}

/// Whether a program of this name can be started.
pub(crate) fn is_on_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(name).is_file())
}

fn strings(value: &Value) -> Vec<String> {
    let items = value.as_array().into_iter().flatten();
    items
        .filter_map(|it| it.as_str().map(str::to_owned))
        .collect()
}

/// What `program.json` says, or what the files that pin the peer's dependencies say.
fn version(said: &Value, directory: &Path) -> String {
    if let Some(version) = said["version"].as_str() {
        return version.to_owned();
    }
    let read = |file: &str| fs::read_to_string(directory.join(file)).unwrap_or_default();
    let name = said["name"].as_str().unwrap_or_default();
    let found = locked(&read("Cargo.lock"), &format!("{name}-grpc"))
        .or_else(|| locked(&read("Cargo.lock"), name))
        .or_else(|| {
            let modules = read("go.mod");
            let version = modules.split_once("google.golang.org/grpc v")?.1;
            version.split_whitespace().next().map(str::to_owned)
        })
        .or_else(|| {
            let project = read("pom.xml");
            let version = project.split_once("<grpc.version>")?.1;
            version.split('<').next().map(str::to_owned)
        });
    found.unwrap_or_default()
}

fn locked(lock: &str, name: &str) -> Option<String> {
    let entry = lock
        .split_once(&format!("name = \"{name}\"\nversion = \""))?
        .1;
    entry.split('"').next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_from_a_lock_file() {
        let lock = "[[package]]\nname = \"tonic-prost\"\nversion = \"1.0.0\"\n\n\
                    [[package]]\nname = \"tonic\"\nversion = \"0.14.9\"\n";
        assert_eq!(locked(lock, "tonic").as_deref(), Some("0.14.9"));
        assert_eq!(locked(lock, "toni"), None);
    }

    #[test]
    fn a_program_that_says_nothing_of_workloads_serves_all() {
        let mut program = Program {
            name: "x".to_owned(),
            version: String::new(),
            directory: PathBuf::new(),
            command: Vec::new(),
            switches: Vec::new(),
            kinds: vec!["server".to_owned()],
            families: None,
            warmup: 0.0,
        };
        assert!(program.serves("echo") && !program.calls(false));
        program.families = Some(vec![plain("Server_Stream")]);
        assert!(program.serves("server stream") && !program.serves("unary"));
    }
}
