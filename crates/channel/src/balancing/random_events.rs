//! A test of policies with weights, rings and ejections against random events.

#![cfg(test)]

use std::collections::BTreeSet;

use http::HeaderMap;
use serde_json::Value;
use trunkline_codec::{LoadReport, Metadata, Status};

use super::balancer::SubchannelState;
use super::picker::PickResult;
use super::policy::Policies;
use super::testing::{Random, Rig, name, refused};
use super::tracker::{EndedBy, Outcome};
use crate::connectivity::ConnectivityState;

const ALL: [&str; 8] = ["1", "2", "3+13", "4", "5", "6+16+26", "7", "v6.8"];

/// A channel whose servers go up and down.
struct Model {
    rig: Rig,
    random: Random,
    list: String,
    down: Vec<String>,
}

impl Model {
    fn new(config: &str, seed: u64) -> Self {
        let config: Value = serde_json::from_str(config).unwrap();
        let config = Policies::builtin().choose("config", &config).unwrap();
        let mut rig = Rig::with(config);
        rig.update("1");
        Self {
            rig,
            random: Random(seed),
            list: "1".to_owned(),
            down: Vec::new(),
        }
    }

    fn event(&mut self) {
        match self.random.below(12) {
            0 => {
                let start = self.random.below(ALL.len());
                let count = 1 + self.random.below(ALL.len() - start);
                self.list = ALL[start..start + count].join(" ");
                self.rig.update_later(&self.list);
            }
            1 => {
                let down = ALL[self.random.below(ALL.len())].split('+');
                self.down = down.map(str::to_owned).collect();
            }
            2 => self.rig.pass(self.random.next() % 20_000),
            3..7 => self.step(),
            7..11 => {
                self.call();
            }
            _ => {
                self.rig.deliver();
            }
        }
    }

    /// Moves a subchannel on by one state, as the network would.
    fn step(&mut self) {
        use ConnectivityState::{Connecting, Idle, Ready, TransientFailure};
        let live = self.rig.control.live();
        if live.is_empty() {
            return;
        }
        let at = self.random.below(live.len());
        let (id, name, state) = (live[at].id, live[at].name.clone(), live[at].state);
        let next = match (state, self.down.contains(&name)) {
            (Connecting, false) => SubchannelState::new(Ready),
            (Connecting, true) => SubchannelState::failed(refused(&name)),
            (Ready, true) | (TransientFailure, _) => SubchannelState::new(Idle),
            _ => return,
        };
        self.rig.control.change(id, next.clone());
        self.rig.settle();
        if next.connectivity == Ready && self.rig.control.live().iter().any(|it| it.id == id) {
            self.rig.health(&name, next);
        }
    }

    /// Makes a call that ends in some way, and returns the server.
    fn call(&mut self) -> Option<String> {
        let ends = [
            EndedBy::Server,
            EndedBy::Server,
            EndedBy::Connection,
            EndedBy::Deadline,
            EndedBy::Caller,
            EndedBy::NotSent,
        ];
        let ended_by = ends[self.random.below(ends.len())];
        let failed = Status::unavailable("it failed");
        let status = match (ended_by, self.random.below(3)) {
            (EndedBy::Server, 0 | 1) => Ok(()),
            _ => Err(&failed),
        };
        self.call_that_ends(status, ended_by)
    }

    fn call_that_ends(&mut self, status: Result<(), &Status>, ended_by: EndedBy) -> Option<String> {
        let mut metadata = Metadata::new();
        let key = self.random.below(1_000).to_string();
        metadata.insert("key", &key).unwrap();
        let result = self.rig.picked(&metadata);
        self.rig.wake();
        let PickResult::Use(choice) = result else {
            return None;
        };
        let mut trailers = HeaderMap::new();
        let mut report = LoadReport::default();
        report.cpu_utilization = self.random.below(100) as f64 / 50.0;
        report.rps_fractional = self.random.below(100) as f64;
        report.write_to(&mut trailers);
        let mut outcome = Outcome::new(status, ended_by);
        outcome.trailers = Some(&trailers);
        if let Some(tracking) = choice.tracking {
            tracking.started();
            tracking.ended(&outcome);
        }
        Some(name(choice.subchannel.address()))
    }

    /// Lets all servers be up, and calls succeed, for as long as an ejection lasts at most.
    fn recover(&mut self) {
        self.down.clear();
        for _ in 0..60 {
            for _ in 0..100 {
                self.step();
                self.call_that_ends(Ok(()), EndedBy::Server);
            }
            self.rig.pass(10_000);
        }
    }
}

#[test]
fn after_any_events_all_endpoints_serve_and_no_subchannel_is_left() {
    let weighted = r#"{"weighted_round_robin": {"blackoutPeriod": "1s"}}"#;
    let ring = r#"{"ring_hash_experimental": {"minRingSize": 64, "requestHashHeader": "key"}}"#;
    let outliers = |child: &str| {
        let algorithm = r#"{"minimumHosts": 1, "requestVolume": 1}"#;
        format!(
            r#"{{"outlier_detection_experimental": {{
                "maxEjectionPercent": 100, "successRateEjection": {algorithm},
                "failurePercentageEjection": {algorithm}, "childPolicy": [{child}]
            }}}}"#
        )
    };
    for config in [weighted, ring, &outliers(weighted), &outliers(ring)] {
        for seed in 0..5 {
            let mut model = Model::new(&format!("[{config}]"), seed);
            for _ in 0..10_000 {
                model.event();
            }
            model.recover();
            let servers = (0..2_000).filter_map(|_| model.call());
            let servers: BTreeSet<String> = servers.collect();
            let serves = |it: &&str| it.split('+').any(|it| servers.contains(it));
            let context = format!("{config}, seed {seed}, {}: {servers:?}", model.list);
            assert!(model.list.split(' ').all(|it| serves(&it)), "{context}");
            let endpoints = model.list.split(' ').count();
            assert_eq!(servers.len(), endpoints, "{context}");
            assert_eq!(model.rig.control.live().len(), endpoints, "{context}");
            model.rig.resolve(Ok(&[])).unwrap_err();
            assert_eq!(model.rig.live(), "", "{context}");
        }
    }
}
