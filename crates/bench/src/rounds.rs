//! Who is visited when: every round takes every program once, in a new order.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::load::Random;
use crate::options::Options;
use crate::process::{self, Cores, Place, Server};
use crate::programs::{Program, is_on_path};
use crate::results::Results;
use crate::stats::figure;
use crate::workloads::{Length, WORKLOADS, Workload};

/// What slow calls do, and how tables name it.
pub(crate) const NEIGHBOURS: [(&str, &str); 5] = [
    ("nothing", "alone"),
    ("sleep", "with a call that waits 5 s"),
    ("block", "with a call that blocks its thread for 5 s"),
    ("spin", "with a call per second that computes for 50 ms"),
    ("unread", "with a stream that is not read"),
];

/// Ways to run our server on several cores, and how tables name them.
pub(crate) const CORES: [(&str, &[&str], Place); 6] = [
    ("default runtime, one core", &[], Place::First),
    ("1 thread, one core", &["--threads", "1"], Place::First),
    ("2 threads, one core", &["--threads", "2"], Place::First),
    ("default runtime, all cores", &[], Place::Anywhere),
    ("1 thread, all cores", &["--threads", "1"], Place::Anywhere),
    ("2 threads, all cores", &["--threads", "2"], Place::Anywhere),
];

/// The workloads of [`CORES`]: one connection, and fifty.
pub(crate) const CORES_UNDER: [&str; 2] = ["unary 1x100", "unary 50x20"];

/// What a client does, as fast as a server replies.
struct Client {
    /// As tables have it.
    name: &'static str,
    in_flight: usize,
    /// Replies of each call, which is unary if there are none.
    replies: u32,
    /// Calls for each second of a visit.
    calls: f64,
}

const CLIENTS: [Client; 2] = [
    Client {
        name: "client 1x100",
        in_flight: 100,
        replies: 0,
        calls: 60_000.0,
    },
    Client {
        name: "client server stream",
        in_flight: 1,
        replies: 10_000,
        calls: 400.0,
    },
];

/// Visits programs and keeps what they gave.
pub(crate) struct Rounds<'a> {
    pub(crate) options: &'a Options,
    pub(crate) programs: &'a [Program],
    pub(crate) cores: &'a Cores,
    pub(crate) logs: PathBuf,
    pub(crate) seed: u64,
    random: Random,
    pub(crate) results: Results,
}

/// A server of a program, or why there is none.
type Running = Result<Server, String>;

impl<'a> Rounds<'a> {
    /// Before the first round.
    pub(crate) fn new(
        options: &'a Options,
        programs: &'a [Program],
        cores: &'a Cores,
        logs: PathBuf,
        seed: u64,
    ) -> Self {
        Self {
            options,
            programs,
            cores,
            logs,
            seed,
            random: Random::new(seed),
            results: Results::default(),
        }
    }

    /// Measures all that is wanted.
    pub(crate) fn run(&mut self) {
        for workload in &WORKLOADS {
            if self.options.wants(workload.name, workload.family) {
                self.loads(workload);
            }
        }
        for client in &CLIENTS {
            if self.options.wants(client.name, "client") {
                self.clients(client);
            }
        }
        if self.options.wants_extra("idle") {
            self.idle();
        }
        if self.options.wants_extra("traced") {
            self.traces();
        }
        if self.options.wants_extra("neighbours") {
            self.neighbours();
        }
        if self.options.wants_extra("cores") {
            self.several_cores();
        }
    }

    fn order(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        self.random.shuffle(&mut order);
        order
    }

    fn serving(&self, family: &str) -> Vec<&'a Program> {
        let programs = self.programs.iter();
        programs.filter(|it| it.serves(family)).collect()
    }

    fn start(&self, program: &Program, more: &[&str], place: Place) -> Running {
        Server::start(program, more, &self.cores.before(place), &self.logs)
    }

    fn order_for(&self, task: &str, workload: &str, server: &Server, warmup: f64) -> Value {
        json!({
            "task": task,
            "workload": workload,
            "address": server.address(),
            "pid": server.pid(),
            "seconds": self.options.seconds,
            "warmup": warmup,
            "seed": self.seed,
        })
    }

    /// A tenth of the visit lets caches, windows and the allocator settle; what a program asks for
    /// more, it gets once.
    fn warmup(&self, program: &Program, server: &mut Server) -> f64 {
        let usual = (self.options.seconds / 5.0).max(0.05);
        match std::mem::replace(&mut server.is_warm, true) {
            true => usual,
            false => program.warmup.max(usual),
        }
    }

    /// Servers live for all rounds of a workload, and do nothing while another one is visited.
    fn loads(&mut self, workload: &Workload) {
        let programs = self.serving(workload.family);
        let mut servers: Vec<Running> = programs
            .iter()
            .map(|program| self.start(program, &[], Place::First))
            .collect();
        for round in 1..=self.options.rounds {
            eprint!(
                "{}, round {round} of {}:",
                workload.name, self.options.rounds
            );
            for at in self.order(programs.len()) {
                let program = programs[at];
                if self.results.dies(workload.name, &program.name).is_some() {
                    continue;
                }
                let seen = self.visit("load", workload, program, &mut servers[at]);
                match &seen {
                    Ok(seen) => {
                        let micros = seen["server_us"].as_f64().unwrap_or_default();
                        eprint!(" {} {} us,", program.name, figure(micros));
                    }
                    Err(why) => eprint!(" {} dies ({why}),", program.name),
                }
                self.results.add(workload.name, &program.name, seen);
            }
            eprintln!();
        }
    }

    fn visit(
        &self,
        task: &str,
        workload: &Workload,
        program: &Program,
        server: &mut Running,
    ) -> Result<Value, String> {
        let server = server.as_mut().map_err(|why| why.clone())?;
        let warmup = self.warmup(program, server);
        let order = self.order_for(task, workload.name, server, warmup);
        let patience = match workload.length {
            Length::Visit => 60.0 + warmup + 4.0 * self.options.seconds,
            Length::OneCall => 120.0,
        };
        let load = self.cores.before(Place::Second);
        process::load(&order, &load, Duration::from_secs_f64(patience))
            .map_err(|why| server.explain(why))
    }

    /// Clients, all against the same server: bare h2's, or ours.
    fn clients(&mut self, client: &Client) {
        let reads_streams = client.replies > 0;
        let programs = self.programs.iter();
        let programs: Vec<&Program> = programs.filter(|it| it.calls(reads_streams)).collect();
        let server = self.programs.iter().find(|it| it.name == "bare");
        let Some(server) = server.or_else(|| self.programs.first()) else {
            return;
        };
        let calls = (client.calls * self.options.seconds) as u64;
        let operations = calls * u64::from(client.replies.max(1));
        let load = self.cores.before(Place::Second);
        let arguments = [
            ("--calls", calls),
            ("--in-flight", client.in_flight as u64),
            ("--replies", client.replies.into()),
        ];
        let arguments = &arguments[..2 + usize::from(reads_streams)];
        for round in 1..=self.options.rounds {
            eprint!("{}, round {round} of {}:", client.name, self.options.rounds);
            for at in self.order(programs.len()) {
                let program = programs[at];
                if self.results.dies(client.name, &program.name).is_some() {
                    continue;
                }
                let seen = self.start(server, &[], Place::First).and_then(|running| {
                    let target = running.address();
                    process::client(program, &target, arguments, &load, &self.logs)
                });
                let seen = seen.map(|(micros, seconds)| {
                    json!({
                        "client_us": micros / operations as f64,
                        "per_second": operations as f64 / seconds,
                        "against": server.name,
                    })
                });
                match &seen {
                    Ok(seen) => {
                        let micros = seen["client_us"].as_f64().unwrap_or_default();
                        eprint!(" {} {} us,", program.name, figure(micros));
                    }
                    Err(why) => eprint!(" {} dies ({why}),", program.name),
                }
                self.results.add(client.name, &program.name, seen);
            }
            eprintln!();
        }
    }

    /// Memory does not come back, so every visit has a server of its own.
    fn idle(&mut self) {
        for round in 1..=self.options.rounds.min(3) {
            for task in ["idle calls", "idle connections"] {
                eprintln!("{task}, round {round}");
                let programs = self.serving("unary");
                for at in self.order(programs.len()) {
                    self.visit_once(task, "unary 1x1", programs[at], &[], Place::First, task);
                }
            }
        }
    }

    /// A visit to a server that lives only for it.
    fn visit_once(
        &mut self,
        task: &str,
        workload: &str,
        program: &Program,
        more: &[&str],
        place: Place,
        name: &str,
    ) {
        let Some(workload) = Workload::named(workload) else {
            return;
        };
        let mut server = self.start(program, more, place);
        let seen = self.visit(task, workload, program, &mut server);
        if let Err(why) = &seen {
            eprintln!("  {} dies ({why})", program.name);
        }
        self.results.add(name, &program.name, seen);
    }

    fn traces(&mut self) {
        if !is_on_path("strace") {
            return eprintln!("no strace: system calls are not counted");
        }
        for workload in WORKLOADS.iter().filter(|it| it.traced) {
            let name = format!("system calls, {}", workload.name);
            eprintln!("{name}");
            for program in self.serving(workload.family) {
                let mut server = self.start(program, &[], Place::First);
                // What breaks only under strace is strace's doing, and is not held against anyone.
                match self.visit("trace", workload, program, &mut server) {
                    Ok(seen) => self.results.add(&name, &program.name, Ok(seen)),
                    Err(why) => eprintln!("  {}: {why}", program.name),
                }
            }
        }
    }

    /// Servers have all cores here: the question is what else runs while one call holds a thread.
    fn neighbours(&mut self) {
        let options = Options {
            seconds: 6.0,
            ..self.options.clone()
        };
        for place in [Place::Anywhere, Place::First] {
            for (task, _) in NEIGHBOURS {
                let name = neighbours_name(task, place);
                eprintln!("{name}");
                for program in self.serving("unary") {
                    // pajamax and its like have no server streams.
                    if task == "unread" && !program.serves("server stream") {
                        continue;
                    }
                    let mut server = self.start(program, &[], place);
                    let seen = Rounds::new(
                        &options,
                        self.programs,
                        self.cores,
                        self.logs.clone(),
                        self.seed,
                    )
                    .visit(task, &WORKLOADS[0], program, &mut server);
                    self.results.add(&name, &program.name, seen);
                }
            }
        }
    }

    fn several_cores(&mut self) {
        let Some(ours) = self.programs.iter().find(|it| it.name == "ours") else {
            return;
        };
        for round in 1..=self.options.rounds {
            eprintln!("cores, round {round} of {}", self.options.rounds);
            for at in self.order(CORES.len()) {
                let (name, more, place) = CORES[at];
                for under in CORES_UNDER {
                    let name = format!("cores, {under}, {name}");
                    if self.results.dies(&name, "ours").is_none() {
                        self.visit_once("load", under, ours, more, place, &name);
                    }
                }
            }
        }
    }
}

/// The name of a cell of neighbours.
pub(crate) fn neighbours_name(task: &str, place: Place) -> String {
    let cores = match place {
        Place::First => "one core",
        Place::Second | Place::Anywhere => "all cores",
    };
    format!("beside {task}, {cores}")
}
