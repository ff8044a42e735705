//! What valgrind counts of this same program, in processes of their own.

use std::io::ErrorKind;
use std::process::Command;
use std::thread;

use crate::figures::Figures;
use crate::run::Workload;

const INSTRUCTIONS: [&str; 2] = ["--tool=callgrind", "--callgrind-out-file=/dev/null"];
const ALLOCATIONS: [&str; 2] = ["--tool=memcheck", "--leak-check=no"];

/// Of the C library: no copies with `rep movsb`, each byte of which valgrind counts as an instruction.
/// A large message would be nothing but its copies.
const PLAIN_COPIES: (&str, &str) = ("GLIBC_TUNABLES", "glibc.cpu.hwcaps=-ERMS,-FSRM");

/// What one operation of a workload costs: the difference between few and many operations, so that
/// what the program does once is not in it.
///
/// # Errors
///
/// If valgrind is not there, or its program fails.
pub(crate) fn count(workload: &Workload) -> Result<Figures, String> {
    let of = |options: &'static [&str], n| move || valgrind(options, workload, n);
    // What other programs do at the same time changes no figure.
    let runs = thread::scope(|scope| {
        let runs = [
            scope.spawn(of(&INSTRUCTIONS, workload.few)),
            scope.spawn(of(&INSTRUCTIONS, workload.many)),
            scope.spawn(of(&ALLOCATIONS, workload.few)),
            scope.spawn(of(&ALLOCATIONS, workload.many)),
        ];
        runs.map(|run| run.join().expect("a run does not panic"))
    });
    let [few, many, few_checked, many_checked] = runs;
    let before = counts(&few?, &few_checked?)?;
    let after = counts(&many?, &many_checked?)?;
    let operations = workload.many - workload.few;
    Ok(Figures::of_each(before, after, operations as u64))
}

/// What a run has said: valgrind, and the program under it.
struct Said {
    valgrind: String,
    program: String,
}

/// Instructions, allocations, reads and writes of a run and of the program around it.
fn counts(counted: &Said, checked: &Said) -> Result<[u64; 3], String> {
    let found = [
        number_behind(&counted.valgrind, "Collected : "),
        number_behind(&checked.valgrind, "total heap usage: "),
        number_behind(&counted.program, "reads ")
            .zip(number_behind(&counted.program, "writes "))
            .map(|(reads, writes)| reads + writes),
    ];
    match found {
        [Some(instructions), Some(allocations), Some(io)] => Ok([instructions, allocations, io]),
        _ => Err(format!(
            "valgrind gives no figures: {}{}{}",
            counted.valgrind, checked.valgrind, counted.program
        )),
    }
}

fn valgrind(options: &[&str], workload: &Workload, n: usize) -> Result<Said, String> {
    let program = std::env::current_exe().map_err(|error| format!("who are we: {error}"))?;
    let mut command = Command::new("valgrind");
    command
        .args(options)
        .arg(program)
        .args(["run", workload.name, &n.to_string()]);
    if workload.plain_copies {
        command.env(PLAIN_COPIES.0, PLAIN_COPIES.1);
    }
    let output = command.output().map_err(|error| match error.kind() {
        ErrorKind::NotFound => "counted needs valgrind, which is not installed; on Debian and \
                                Ubuntu: apt-get install valgrind"
            .to_owned(),
        _ => format!("valgrind: {error}"),
    })?;
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(Said {
            valgrind: text(&output.stderr),
            program: text(&output.stdout),
        }),
        false => Err(format!("{} {n}: {}", workload.name, text(&output.stderr))),
    }
}

/// The number behind `label`, without the commas between its digits.
fn number_behind(text: &str, label: &str) -> Option<u64> {
    let (_, rest) = text.split_once(label)?;
    let digits = rest
        .split(|it: char| !it.is_ascii_digit() && it != ',')
        .next()?;
    digits.replace(',', "").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_both_tools_write_them() {
        for (text, label, expected) in [
            (
                "==1== Collected : 36521449\n",
                "Collected : ",
                Some(36_521_449),
            ),
            (
                "==1==   total heap usage: 10,228 allocs, 9 frees",
                "total heap usage: ",
                Some(10_228),
            ),
            ("reads 12 writes 7\n", "writes ", Some(7)),
            ("==1== Collected : \n", "Collected : ", None),
            ("reads 12\n", "writes ", None),
        ] {
            assert_eq!(number_behind(text, label), expected, "{text}");
        }
    }
}
