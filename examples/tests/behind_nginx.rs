//! Runs the example `behind_nginx` with a real nginx and the configuration of the example, except for the ports.
//!
//! Without nginx the test is skipped with a message, or fails if `TRUNKLINE_REQUIRE_PEERS` is set.

#![cfg(unix)]

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running nginx and its directory. Both are removed on drop.
struct Nginx(Child, PathBuf);

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        let _ = fs::remove_dir_all(&self.1);
    }
}

/// Starts nginx with the configuration of the example. Returns `None` if nginx is not installed.
fn nginx(upstream: u16, port: u16) -> Option<Nginx> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(package.join("behind_nginx/nginx.conf")).unwrap();
    for part in ["127.0.0.1:50051;", "127.0.0.1:8080 http2;", "daemon off;"] {
        assert!(text.contains(part), "nginx.conf has no {part:?} any more");
    }
    let text = text
        .replace(":50051;", &format!(":{upstream};"))
        .replace(":8080 http2;", &format!(":{port} http2;"))
        // Worker processes would survive when the test kills the master process.
        .replace("daemon off;", "daemon off;\nmaster_process off;");
    let directory = std::env::temp_dir().join(format!("trunkline-example-{}", std::process::id()));
    fs::create_dir_all(directory.join("nginx-temp")).unwrap();
    fs::write(directory.join("nginx.conf"), text).unwrap();
    let path = std::env::var("PATH").unwrap_or_default();
    let child = Command::new("nginx")
        // Debian installs nginx there, which is in the path of root only.
        .env("PATH", format!("{path}:/usr/sbin"))
        .args(["-e", "stderr", "-c", "nginx.conf", "-p"])
        .arg(&directory)
        .stdin(Stdio::null())
        .spawn();
    match child {
        Ok(child) => Some(Nginx(child, directory)),
        Err(error) => {
            let _ = fs::remove_dir_all(directory);
            let is_required = std::env::var("TRUNKLINE_REQUIRE_PEERS").is_ok_and(|it| it != "0");
            assert!(!is_required, "nginx: {error}; apt-get install nginx");
            eprintln!("SKIPPED: nginx ({error}; apt-get install nginx)");
            None
        }
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

#[test]
fn behind_nginx_prints_what_is_expected() {
    let (upstream, port) = (free_port(), free_port());
    let Some(mut nginx) = nginx(upstream, port) else {
        return;
    };
    let until = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        let has_ended = nginx.0.try_wait().unwrap().is_some();
        assert!(!has_ended && Instant::now() < until, "nginx does not start");
        std::thread::yield_now();
    }

    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap();
    let output = Command::new(profile.join("examples/behind_nginx"))
        .args([upstream, port].map(|port| format!("127.0.0.1:{port}")))
        .output()
        .unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaints}");
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let expected = package.join("tests/expected/behind_nginx.txt");
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        fs::read_to_string(expected).unwrap()
    );
}
