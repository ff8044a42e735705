//! A test that needs a process of its own, because it sets what the whole process has: its environment, the subscriber
//! of `tracing`, what a signal does.

use std::process::Command;

/// Set in the child: the full name of its test.
const CHILD: &str = "TRUNKLINE_OWN_PROCESS";

/// The program that runs this test alone; `None` inside that program, where the test goes on.
///
/// `module` is the `module_path!()` of the test.
pub fn own_process(module: &str, test: &str) -> Option<Command> {
    let (_, within) = module.split_once("::").unwrap_or_default();
    let name = [within, test].join("::");
    if std::env::var(CHILD).is_ok_and(|child| child == name) {
        return None;
    }
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command
        .args(["--exact", &name, "--nocapture"])
        .env(CHILD, name);
    Some(command)
}

/// Waits for a program of [`own_process`], and blocks the thread meanwhile.
///
/// # Panics
///
/// If its test fails.
pub fn passes(mut program: Command) {
    let output = program.output().expect("this program starts");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && printed.contains("1 passed"),
        "{printed}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
