//! nginx as the test's child: no root, no files but its own, one process.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::peers::{self, Peer};
use crate::process::{Failure, Process};

/// How long nginx lives at most: no single test takes as long.
const LIMIT: Duration = Duration::from_secs(300);
/// How often another port is tried, should somebody else take the free one first.
const PORTS_MAX: usize = 5;

/// nginx on a free port of 127.0.0.1. Dropping it kills it and removes its files.
#[derive(Debug)]
pub struct Nginx {
    process: Process,
    port: u16,
    _files: Files,
}

/// A directory that goes with its owner.
#[derive(Debug)]
struct Files(PathBuf);

impl Nginx {
    /// Starts nginx with an `http` section that `http` gives for the port to listen on; `None` when
    /// this machine lacks it.
    ///
    /// # Panics
    ///
    /// When it is there and does not start.
    pub fn start(http: impl Fn(u16) -> String) -> Option<Self> {
        let program = peers::peer(Peer::Nginx)?;
        let mut last = Failure::new("no port was tried");
        for _ in 0..PORTS_MAX {
            let port = peers::free_port().expect("a free port");
            let files = Files::new(port);
            let directory = files.0.to_str().expect("a path of ours");
            let configuration = files.0.join("nginx.conf");
            fs::write(&configuration, main_section(&http(port))).expect("a directory of ours");
            let configuration = configuration.to_str().expect("a path of ours");
            let arguments = ["-e", "stderr", "-p", directory, "-c", configuration];
            let process = program.start(&arguments, LIMIT);
            match process.and_then(|it| peers::wait_for_listener(&it, port).map(|()| it)) {
                Ok(process) => {
                    return Some(Self {
                        process,
                        port,
                        _files: files,
                    });
                }
                Err(failure) => last = failure,
            }
        }
        panic!("{last}");
    }

    /// Where it listens.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// What it has written: its log of errors.
    pub fn log(&self) -> Vec<String> {
        self.process.lines()
    }
}

fn main_section(http: &str) -> String {
    // One process, in the foreground: whoever kills it leaves nothing behind.
    format!(
        "daemon off;
master_process off;
pid nginx.pid;
error_log stderr info;
events {{}}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
{http}
}}
"
    )
}

impl Files {
    fn new(port: u16) -> Self {
        let name = format!("trunkline-nginx-{}-{port}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("a directory for temporary files");
        Self(path)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // What is left there does no harm.
        let _ = fs::remove_dir_all(&self.0);
    }
}
