//! The load process: one visit to one server, told in JSON and answered in JSON.
//!
//! It is a process of its own so that its processor time is not the runner's, and so that it can be
//! pinned to a core of its own.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::connection::Connection;
use crate::histogram::Histogram;
use crate::load::{Arrivals, Driver, OpenLoop, PAUSE, Wait};
use crate::messages::Request;
use crate::plan::Plan;
use crate::procfs::{self, CpuTime};
use crate::trace;
use crate::workloads::{Kind, Length, Workload};

/// Which share of its own saturation a server gets from the open loop.
pub(crate) const OPEN_LOAD: f64 = 0.7;

/// Calls a second beside the slow ones.
pub(crate) const NEIGHBOURS: f64 = 100.0;

/// Does what `order` says and gives what was seen.
///
/// # Errors
///
/// Why the server cannot do it.
pub(crate) fn run(order: &Value) -> Result<Value, String> {
    let order = Order::read(order).ok_or("an order that cannot be read")?;
    match order.task.as_str() {
        "load" => load(&order),
        "trace" => traced(&order),
        "idle calls" => idle_calls(&order),
        "idle connections" => idle_connections(&order),
        slow => beside(&order, slow),
    }
}

/// What the runner wants.
struct Order {
    task: String,
    workload: &'static Workload,
    address: SocketAddr,
    /// The server's process.
    pid: u32,
    seconds: f64,
    warmup: f64,
    seed: u64,
}

impl Order {
    fn read(order: &Value) -> Option<Self> {
        Some(Self {
            task: order["task"].as_str()?.to_owned(),
            workload: Workload::named(order["workload"].as_str()?)?,
            address: order["address"].as_str()?.parse().ok()?,
            pid: order["pid"].as_u64()?.try_into().ok()?,
            seconds: order["seconds"].as_f64()?,
            warmup: order["warmup"].as_f64()?,
            seed: order["seed"].as_u64()?,
        })
    }

    fn plan(&self) -> Plan {
        self.workload.plan(&self.address.to_string())
    }

    /// Only one call in flight is waited for by looking again and again: with more, a batch would
    /// be cut into pieces by being read too early.
    fn wait(&self) -> Wait {
        match self.workload.connections * self.workload.in_flight {
            1 if self.workload.kind == Kind::Unary => Wait::Spin,
            _ => PAUSE,
        }
    }
}

/// Both processes at one moment.
struct Moment {
    nanos: u64,
    server: CpuTime,
    own: CpuTime,
}

impl Moment {
    fn now(driver: &Driver, pid: u32) -> Self {
        Self {
            nanos: driver.now(),
            server: CpuTime::of(pid),
            own: CpuTime::of(std::process::id()),
        }
    }
}

fn load(order: &Order) -> Result<Value, String> {
    let plan = Rc::new(order.plan());
    let workload = order.workload;
    let mut driver = Driver::connect(order.address, workload.connections)?;
    driver.check(&plan)?;
    let begin = match workload.length {
        Length::Visit => {
            driver.fill(&plan, workload.in_flight)?;
            until(&mut driver, order, &plan, order.warmup)?;
            driver.tally.clear();
            let begin = Moment::now(&driver, order.pid);
            until(&mut driver, order, &plan, order.seconds)?;
            begin
        }
        Length::OneCall => {
            driver.tally.clear();
            let begin = Moment::now(&driver, order.pid);
            driver.start(0, &plan, driver.now())?;
            while driver.tally.finished == 0 {
                driver.turn(PAUSE, None)?;
            }
            begin
        }
    };
    let end = Moment::now(&driver, order.pid);
    let operations = operations(&driver, workload.kind);
    if operations < 1.0 {
        return Err("not one operation within a visit".to_owned());
    }
    let seconds = (end.nanos - begin.nanos) as f64 / 1e9;
    let mut seen = json!({
        "operations": operations,
        "seconds": seconds,
        "per_second": operations / seconds,
        "server_us": end.server.since(&begin.server) as f64 / 1e3 / operations,
        "load_us": end.own.since(&begin.own) as f64 / 1e3 / operations,
        "resident": procfs::resident(order.pid),
        "latency_us": percentiles(&driver.tally.latencies),
    });
    if workload.open_loop {
        seen["open"] = open(order, &mut driver, &plan, operations / seconds * OPEN_LOAD)?;
    }
    Ok(seen)
}

/// A closed loop for so many seconds.
fn until(driver: &mut Driver, order: &Order, plan: &Rc<Plan>, seconds: f64) -> Result<(), String> {
    let end = driver.now() + (seconds * 1e9) as u64;
    let wait = order.wait();
    while driver.now() < end {
        let left = Duration::from_nanos(end.saturating_sub(driver.now()));
        let wait = match wait {
            Wait::Spin => Wait::Spin,
            Wait::UpTo(pause) => Wait::UpTo(pause.min(left)),
        };
        driver.turn(wait, Some((plan, order.workload.in_flight)))?;
    }
    Ok(())
}

fn operations(driver: &Driver, kind: Kind) -> f64 {
    match kind {
        Kind::ServerStream => {
            driver.tally.bytes as f64 / driver.connections[0].reply_len().max(1) as f64
        }
        _ => driver.tally.operations as f64,
    }
}

fn percentiles(latencies: &Histogram) -> Value {
    let micros = |nanos: u64| nanos as f64 / 1e3;
    json!({
        "count": latencies.len(),
        "p50": micros(latencies.percentile(0.5)),
        "p99": micros(latencies.percentile(0.99)),
        "p999": micros(latencies.percentile(0.999)),
        "max": micros(latencies.max()),
    })
}

/// Calls at a rate of their own, whether or not the server keeps up; latency counts from when a call
/// was due.
fn open(
    order: &Order,
    driver: &mut Driver,
    plan: &Rc<Plan>,
    per_second: f64,
) -> Result<Value, String> {
    driver.drain(Duration::from_secs(10))?;
    let arrivals = Arrivals::Poisson(1e9 / per_second);
    let mut calls = OpenLoop::new(arrivals, order.seed, driver.now());
    // The first tenth settles the rate.
    for (seconds, counts) in [(order.seconds / 10.0, false), (order.seconds, true)] {
        if counts {
            driver.tally.clear();
            calls.latest = 0;
        }
        let end = driver.now() + (seconds * 1e9) as u64;
        while driver.now() < end {
            calls.turn(driver, plan)?;
        }
    }
    driver.drain(Duration::from_secs(10))?;
    Ok(json!({
        "per_second": per_second,
        "late_us": calls.latest as f64 / 1e3,
        "latency_us": percentiles(&driver.tally.latencies),
    }))
}

/// A closed loop with `strace` attached to the server for a second.
fn traced(order: &Order) -> Result<Value, String> {
    let plan = Rc::new(order.plan());
    let mut driver = Driver::connect(order.address, order.workload.connections)?;
    driver.check(&plan)?;
    driver.fill(&plan, order.workload.in_flight)?;
    until(&mut driver, order, &plan, order.warmup)?;
    driver.tally.clear();
    let done = Arc::new(AtomicU64::new(0));
    let tracing = trace::start(order.pid, order.seconds, done.clone())?;
    while !tracing.is_finished() {
        let wait = match order.wait() {
            Wait::Spin => Wait::Spin,
            Wait::UpTo(_) => Wait::UpTo(Duration::from_millis(5)),
        };
        driver.turn(wait, Some((&plan, order.workload.in_flight)))?;
        let operations = operations(&driver, order.workload.kind);
        done.store(operations as u64, Ordering::Relaxed);
    }
    tracing
        .join()
        .map_err(|_| "the thread that traces panicked".to_owned())?
}

/// Resident memory with one open call, and with a thousand.
fn idle_calls(order: &Order) -> Result<Value, String> {
    const CALLS: usize = 1_000;
    let plan = order.plan();
    let mut driver = Driver::connect(order.address, 1)?;
    let on_each = driver.connections[0].streams_max().min(100);
    driver.add(order.address, CALLS.div_ceil(on_each) - 1)?;
    driver.check(&plan)?;
    let idle = Rc::new(plan.slow(&Request {
        sleep_millis: 600_000,
        ..Request::default()
    }));
    driver.start(0, &idle, driver.now())?;
    settle(&mut driver)?;
    let one = procfs::resident(order.pid);
    for at in 1..CALLS {
        driver.start(at / on_each, &idle, driver.now())?;
    }
    settle(&mut driver)?;
    let all = procfs::resident(order.pid);
    Ok(json!({
        "one": one,
        "all": all,
        "each": (all as f64 - one as f64) / (CALLS - 1) as f64,
    }))
}

/// Resident memory with one idle connection, and with 200 more.
fn idle_connections(order: &Order) -> Result<Value, String> {
    const MORE: usize = 200;
    let plan = order.plan();
    let mut driver = Driver::connect(order.address, 1)?;
    driver.check(&plan)?;
    settle(&mut driver)?;
    let one = procfs::resident(order.pid);
    driver.add(order.address, MORE)?;
    driver.check(&plan)?;
    settle(&mut driver)?;
    let all = procfs::resident(order.pid);
    Ok(json!({
        "one": one,
        "all": all,
        "each": (all as f64 - one as f64) / MORE as f64,
    }))
}

/// Waits until the server has read all that was sent, and gives it time for what it does then.
fn settle(driver: &mut Driver) -> Result<(), String> {
    for connection in &mut driver.connections {
        connection.ping();
        connection.flush()?;
    }
    let patience = driver.now() + 5_000_000_000;
    while !driver.connections.iter().all(Connection::is_answered) {
        if driver.now() > patience {
            return Err("no answer to a PING within 5 s".to_owned());
        }
        driver.turn(PAUSE, None)?;
    }
    let end = driver.now() + 500_000_000;
    while driver.now() < end {
        driver.turn(PAUSE, None)?;
    }
    Ok(())
}

/// Unary calls at a steady rate beside something slow, on the same connection.
fn beside(order: &Order, slow: &str) -> Result<Value, String> {
    let plan = Rc::new(order.plan());
    let mut driver = Driver::connect(order.address, 1)?;
    driver.check(&plan)?;
    let long = (order.seconds * 1e3 * 5.0 / 6.0) as u32;
    let mut request = Request::default();
    let mut again = f64::INFINITY;
    match slow {
        "sleep" => request.sleep_millis = long,
        "block" => request.block_millis = long,
        "spin" => (request.spin_millis, again) = (50, 1.0),
        "unread" | "nothing" => {}
        _ => return Err(format!("a task that is not known: {slow}")),
    }
    let beside = Rc::new(match slow {
        "unread" => plan.unread(),
        _ => plan.slow(&request),
    });
    let arrivals = Arrivals::Steady(1e9 / NEIGHBOURS);
    let mut calls = OpenLoop::new(arrivals, order.seed, driver.now());
    let warm = driver.now() + (order.warmup * 1e9) as u64;
    while driver.now() < warm {
        calls.turn(&mut driver, &plan)?;
    }
    driver.tally.clear();
    let begin = driver.now();
    let end = begin + (order.seconds * 1e9) as u64;
    // The slow one comes a little later, between two calls.
    let mut next = begin as f64 + 0.255e9_f64.min(order.seconds * 1e8);
    while driver.now() < end {
        if slow != "nothing" && driver.now() as f64 >= next {
            driver.start(0, &beside, driver.now())?;
            next += again * 1e9;
        }
        calls.turn(&mut driver, &plan)?;
    }
    driver.drain(Duration::from_secs(10))?;
    Ok(json!({
        "late_us": calls.latest as f64 / 1e3,
        "latency_us": percentiles(&driver.tally.latencies),
    }))
}

/// Starts this program as the load process for `order`.
///
/// # Errors
///
/// What the system says.
pub(crate) fn command(order: &Value, pinned: &[String]) -> Result<Command, String> {
    let own = std::env::current_exe().map_err(|error| format!("who are we: {error}"))?;
    let mut command = match pinned.split_first() {
        Some((first, rest)) => {
            let mut command = Command::new(first);
            command.args(rest).arg(own);
            command
        }
        None => Command::new(own),
    };
    command
        .arg("load")
        .arg(order.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit());
    Ok(command)
}
