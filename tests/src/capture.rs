//! What went over the wire, recorded by dumpcap and dissected by tshark with the .proto files of this repository.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::net::UdpSocket;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::frames::{self, Frame};
use crate::peers::{Peer, Program, peer, skipped};
use crate::prepare::{peers_directory, proto_directory};
use crate::process::{Failure, Process};

/// How long a capture lives at most.
const CAPTURE_LIMIT: Duration = Duration::from_secs(300);
/// How long the recorder may take to start, and to write what it has seen.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long one dissection may take.
const DISSECTION_LIMIT: Duration = Duration::from_secs(120);
/// How often the capture file is looked at for the end mark.
const POLL: Duration = Duration::from_millis(20);
/// How much of the end of a capture file is searched for the end mark, in bytes.
const TAIL: u64 = 16 * 1024;

const INTERFACE: &str = if cfg!(target_os = "macos") {
    "lo0"
} else {
    "lo"
};

/// What tshark cannot make sense of. Nothing in a capture of our own may match.
const TROUBLE: &str = "tcp && (_ws.malformed \
    || grpc.body_malformed || grpc.body_decompression_failed || http2.body_decompression_failed || http2.reassembly_error \
    || protobuf.field.message_type_not_found || protobuf.failed_parse_tag || protobuf.field.failed_parse_field)";

/// A recording under way.
#[derive(Debug)]
pub struct Capture {
    recorder: Process,
    tshark: Program,
    file: PathBuf,
    port: u16,
}

/// A finished recording. Its file is deleted with it, unless the test is failing.
#[derive(Debug)]
pub struct Recording {
    tshark: Program,
    file: PathBuf,
    port: u16,
    keys: Option<PathBuf>,
}

impl Capture {
    /// Records what is sent to and from this port of the loopback interface; `None` when this machine has no tshark or does
    /// not allow it. Connections that were open before are not understood, for want of their header tables.
    ///
    /// # Panics
    ///
    /// When the recorder fails for any other reason.
    pub fn start(port: u16) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let (dumpcap, tshark) = (peer(Peer::Dumpcap)?, peer(Peer::Tshark)?);
        let directory = peers_directory().join("captures");
        fs::create_dir_all(&directory)
            .unwrap_or_else(|error| panic!("creating {}: {error}", directory.display()));
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let file = directory.join(format!("{}-{number}.pcapng", std::process::id()));
        let filter = format!("port {port}");
        let name = file
            .to_str()
            .expect("a target directory has a readable name");
        let recorder = dumpcap.start(
            &["-q", "-i", INTERFACE, "-f", &filter, "-w", name],
            CAPTURE_LIMIT,
        );
        let recorder = recorder.unwrap_or_else(|failure| panic!("{failure}"));
        // Written once the filter is set and the file is open: from then on nothing is missed.
        if let Err(failure) = recorder.wait_for_line("File: ", PATIENCE) {
            let remedy =
                "run as root, or let dumpcap capture; Debian: dpkg-reconfigure wireshark-common";
            skipped("captures of the loopback interface", &failure, remedy);
            return None;
        }
        Some(Self {
            recorder,
            tshark,
            file,
            port,
        })
    }

    /// Ends the recording; everything sent before is in it.
    ///
    /// # Panics
    ///
    /// When the recorder fails.
    pub fn finish(self) -> Recording {
        // The kernel hands packets over in blocks, and a signal would lose the last one: a packet that we recognise shows
        // when all before it have arrived.
        let mark = format!("end of capture {}", self.file.display());
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
        socket
            .send_to(mark.as_bytes(), ("127.0.0.1", self.port))
            .expect("the loopback interface is up");
        let until = Instant::now() + PATIENCE;
        while !self.has_recorded(mark.as_bytes()) {
            assert!(
                Instant::now() < until,
                "{}",
                self.recorder.failure("does not record")
            );
            thread::sleep(POLL);
        }
        self.recorder.interrupt();
        if let Err(failure) = self.recorder.wait() {
            panic!("{failure}");
        }
        Recording {
            tshark: self.tshark,
            file: self.file,
            port: self.port,
            keys: None,
        }
    }

    /// Looks at the end of the file only: little is sent after the mark, and much may have been before.
    fn has_recorded(&self, mark: &[u8]) -> bool {
        let tail = || -> std::io::Result<Vec<u8>> {
            let mut file = File::open(&self.file)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
            let mut tail = Vec::new();
            file.take(TAIL).read_to_end(&mut tail)?;
            Ok(tail)
        };
        let tail = tail().unwrap_or_default();
        tail.windows(mark.len()).any(|window| window == mark)
    }
}

impl Recording {
    /// The same recording, of connections over TLS whose secrets are in this file.
    #[must_use]
    pub fn with_keys(mut self, keys: PathBuf) -> Self {
        self.keys = Some(keys);
        self
    }

    /// Every HTTP/2 frame, in order.
    ///
    /// # Panics
    ///
    /// When tshark fails.
    pub fn frames(&self) -> Vec<Frame> {
        let arguments = [
            "-Y",
            "http2",
            "-T",
            "json",
            "-J",
            "frame tcp http2 grpc protobuf",
        ];
        let json = self
            .dissect(&arguments)
            .unwrap_or_else(|failure| panic!("{failure}"));
        frames::parse(&json, self.port)
            .unwrap_or_else(|error| panic!("tshark wrote no JSON: {error}"))
    }

    /// The frames as text, for a message of a failing test.
    ///
    /// # Panics
    ///
    /// When tshark fails.
    pub fn listing(&self) -> String {
        self.frames()
            .iter()
            .map(|frame| format!("{frame}\n"))
            .collect()
    }

    /// The values of `fields` in each packet that a display filter selects; several values of one field are joined by `^`.
    ///
    /// # Panics
    ///
    /// When tshark fails, for example because the filter is not valid.
    pub fn select(&self, filter: &str, fields: &[&str]) -> Vec<Vec<String>> {
        let mut arguments = vec![
            "-Y",
            filter,
            "-T",
            "fields",
            "-E",
            "separator=|",
            "-E",
            "aggregator=^",
        ];
        arguments.extend(fields.iter().flat_map(|field| ["-e", *field]));
        let text = self
            .dissect(&arguments)
            .unwrap_or_else(|failure| panic!("{failure}"));
        text.lines()
            .map(|line| line.split('|').map(str::to_owned).collect())
            .collect()
    }

    /// Panics, with the packets in question, when tshark finds anything malformed.
    ///
    /// # Panics
    ///
    /// See above.
    pub fn assert_healthy(&self) {
        let found = self.select(
            TROUBLE,
            &["frame.number", "_ws.col.Info", "_ws.expert.message"],
        );
        assert!(
            found.is_empty(),
            "malformed in {}: {found:#?}\n{}",
            self.file.display(),
            self.listing()
        );
        // An empty recording would be healthy, too.
        let frames = self.select("http2", &["frame.number"]);
        assert!(
            !frames.is_empty(),
            "no HTTP/2 frame in {}",
            self.file.display()
        );
    }

    fn dissect(&self, arguments: &[&str]) -> Result<String, Failure> {
        let text_file = self.file.with_extension("txt");
        let broken = |error| Failure::new(format!("using {} fails: {error}", text_file.display()));
        let mut command: Command = self.tshark.command();
        if self.keys.is_none() {
            // Two passes, so that a message is shown in the packet that completes it. Over TLS the second one fails an
            // assertion of tshark 4.0 where a frame is spread over records.
            command.arg("-2");
        }
        command.arg("-r").arg(&self.file);
        match &self.keys {
            None => command
                .arg("-d")
                .arg(format!("tcp.port=={},http2", self.port)),
            // What is inside says ALPN; that there is TLS on this port has to be told.
            Some(keys) => command
                .arg("-d")
                .arg(format!("tcp.port=={},tls", self.port))
                .arg("-o")
                .arg(format!("tls.keylog_file:{}", keys.display())),
        };
        command.arg("-o").arg(format!(
            "uat:protobuf_search_paths:\"{}\",\"TRUE\"",
            proto_directory().display()
        ));
        command.args([
            "-o",
            "protobuf.preload_protos:TRUE",
            "-o",
            "protobuf.pbf_as_hf:TRUE",
        ]);
        command.args(arguments);
        let output = File::create(&text_file).map_err(broken)?;
        Process::start_into("tshark", command, output, DISSECTION_LIMIT)?.finish()?;
        let text = fs::read(&text_file).map_err(broken)?;
        fs::remove_file(&text_file).map_err(broken)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        if !thread::panicking() {
            // Nothing is lost but the space it takes.
            let _ = fs::remove_file(&self.file);
        }
    }
}
