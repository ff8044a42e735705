//! The command line of the runner.

use std::path::PathBuf;

/// What there is to say to it.
pub(crate) const USAGE: &str = "\
usage: cargo run --release -p trunkline-bench -- [OPTIONS]

  --rounds N                visits of every program to every workload (5)
  --seconds S               measured in each visit (2)
  --only WORKLOAD[,..]      workloads (\"unary 1x100\") or families (unary, server stream, client stream,
                            bidi, echo, client); also: idle, traced, neighbours, cores
  --programs NAME[,..]      only these programs
  --seed N                  of the orders in which programs are visited (printed)
  --quick                   one round, half a second, no memory, system calls, neighbours or cores
  --no-build                measures what was built before
  --json FILE, --svg FILE, --markdown FILE
                            where results go (bench/ in the target directory)";

/// What was said.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Options {
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
    pub(crate) only: Vec<String>,
    pub(crate) programs: Vec<String>,
    pub(crate) seed: Option<u64>,
    pub(crate) is_quick: bool,
    pub(crate) builds: bool,
    pub(crate) json: Option<PathBuf>,
    pub(crate) svg: Option<PathBuf>,
    pub(crate) markdown: Option<PathBuf>,
}

impl Options {
    /// Reads the arguments.
    ///
    /// # Errors
    ///
    /// The one that is not understood.
    pub(crate) fn read(arguments: &[String]) -> Result<Self, String> {
        let mut options = Self {
            rounds: 0,
            seconds: 0.0,
            only: Vec::new(),
            programs: Vec::new(),
            seed: None,
            is_quick: false,
            builds: true,
            json: None,
            svg: None,
            markdown: None,
        };
        let mut arguments = arguments.iter();
        while let Some(name) = arguments.next() {
            let mut value = || {
                let next = arguments.next();
                next.ok_or_else(|| format!("{name}: value missing"))
            };
            match name.as_str() {
                "--rounds" => options.rounds = positive(name, value()?)?,
                "--seconds" => options.seconds = positive(name, value()?)?,
                "--only" => options.only = list(value()?),
                "--programs" => options.programs = list(value()?),
                "--seed" => options.seed = Some(positive(name, value()?)?),
                "--quick" => options.is_quick = true,
                "--no-build" => options.builds = false,
                "--json" => options.json = Some(value()?.into()),
                "--svg" => options.svg = Some(value()?.into()),
                "--markdown" => options.markdown = Some(value()?.into()),
                _ => return Err(format!("{name}: not understood")),
            }
        }
        let (rounds, seconds) = if options.is_quick { (1, 0.5) } else { (5, 2.0) };
        if options.rounds == 0 {
            options.rounds = rounds;
        }
        if options.seconds == 0.0 {
            options.seconds = seconds;
        }
        Ok(options)
    }

    /// Whether a workload of this name, or of this family, is wanted.
    pub(crate) fn wants(&self, name: &str, family: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|it| it == name || it == family)
    }

    /// Whether what takes long beside the workloads is wanted: it is left out of a quick run unless
    /// it is named.
    pub(crate) fn wants_extra(&self, name: &str) -> bool {
        match self.only.is_empty() {
            true => !self.is_quick,
            false => self.wants(name, name),
        }
    }

    /// Whether a program of this name is wanted.
    pub(crate) fn wants_program(&self, name: &str) -> bool {
        self.programs.is_empty() || self.programs.iter().any(|it| it == name)
    }
}

fn positive<T: std::str::FromStr + PartialOrd + Default>(
    name: &str,
    value: &str,
) -> Result<T, String> {
    let parsed = value.parse().ok();
    parsed
        .filter(|it| *it > T::default())
        .ok_or_else(|| format!("{name} {value}: not understood"))
}

fn list(value: &str) -> Vec<String> {
    value.split(',').map(|it| it.trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Options, String> {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Options::read(&arguments)
    }

    #[test]
    fn what_is_given_goes_before_what_quick_means() {
        let options = read("--quick --rounds 3 --only unary,idle,echo").expect("understood");
        assert_eq!((options.rounds, options.seconds), (3, 0.5));
        assert!(options.wants("unary 1x1", "unary") && options.wants_extra("idle"));
        assert!(!options.wants("client 1x100", "client") && !options.wants_extra("cores"));
        let exact = read("--only echo").map(|it| Options {
            only: vec!["echo 1 MiB".to_owned()],
            ..it
        });
        let exact = exact.expect("understood");
        assert!(exact.wants("echo 1 MiB", "echo") && !exact.wants("echo 16 MiB", "echo"));
        let options = read("").expect("understood");
        assert_eq!((options.rounds, options.seconds), (5, 2.0));
        assert!(options.wants("anything", "any") && options.wants_extra("cores"));
        assert!(!read("--quick").expect("understood").wants_extra("cores"));
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for line in [
            "--rounds",
            "--rounds 0",
            "--rounds x",
            "--seconds -1",
            "rounds",
        ] {
            let said = read(line).expect_err(line);
            assert!(
                said.starts_with(line.split(' ').next().unwrap_or_default()),
                "{said}"
            );
        }
    }
}
