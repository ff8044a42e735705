//! What is measured: each workload by the name that tables, options and `program.json` use.

use crate::frames;
use crate::messages::{self, Request};
use crate::plan::Plan;

/// How the calls of a workload go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One message each way; an operation is a call.
    Unary,
    /// Many replies; an operation is a message.
    ServerStream,
    /// Many requests, each in a DATA frame of its own; an operation is a message.
    ClientStream,
    /// One message at a time on a call that stays open; an operation is a round trip.
    PingPong,
}

impl Kind {
    /// What is counted.
    pub(crate) fn operation(self) -> &'static str {
        match self {
            Self::Unary => "call",
            Self::ServerStream | Self::ClientStream => "message",
            Self::PingPong => "round trip",
        }
    }

    /// The method.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Unary => "/trunkline.bench.Bench/Unary",
            Self::ServerStream => "/trunkline.bench.Bench/ServerStream",
            Self::ClientStream => "/trunkline.bench.Bench/ClientStream",
            Self::PingPong => "/trunkline.bench.Bench/Bidi",
        }
    }
}

/// How long to send, or how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Length {
    /// Calls follow each other for the time of a visit.
    Visit,
    /// A visit is one call, however long it takes.
    OneCall,
}

/// What the load generator does to a server, as fast as it replies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Workload {
    /// As tables have it.
    pub(crate) name: &'static str,
    /// What `program.json` may restrict a program to.
    pub(crate) family: &'static str,
    /// What a call is.
    pub(crate) kind: Kind,
    /// Connections.
    pub(crate) connections: usize,
    /// Calls in flight on each.
    pub(crate) in_flight: usize,
    /// Bytes of payload in each message.
    pub(crate) payload: usize,
    /// Messages of a call, in the direction that has many.
    pub(crate) messages: u32,
    /// How long a visit is.
    pub(crate) length: Length,
    /// Whether an open loop follows the closed one.
    pub(crate) open_loop: bool,
    /// Whether system calls are counted, in a visit of its own.
    pub(crate) traced: bool,
}

const SMALL: usize = 16;

const UNARY: Workload = Workload {
    name: "",
    family: "unary",
    kind: Kind::Unary,
    connections: 1,
    in_flight: 1,
    payload: SMALL,
    messages: 1,
    length: Length::Visit,
    open_loop: false,
    traced: false,
};

/// All of them but the client's, memory and neighbours, in the order of the tables.
pub(crate) const WORKLOADS: [Workload; 12] = [
    Workload {
        name: "unary 1x1",
        traced: true,
        ..UNARY
    },
    Workload {
        name: "unary 1x100",
        in_flight: 100,
        open_loop: true,
        traced: true,
        ..UNARY
    },
    Workload {
        name: "unary 50x20",
        connections: 50,
        in_flight: 20,
        open_loop: true,
        traced: true,
        ..UNARY
    },
    Workload {
        name: "server stream",
        family: "server stream",
        kind: Kind::ServerStream,
        messages: 10_000,
        traced: true,
        ..UNARY
    },
    Workload {
        name: "client stream 500",
        family: "client stream",
        kind: Kind::ClientStream,
        messages: 500,
        ..UNARY
    },
    Workload {
        name: "client stream 10k",
        family: "client stream",
        kind: Kind::ClientStream,
        messages: 10_000,
        traced: true,
        ..UNARY
    },
    Workload {
        name: "client stream 1M",
        family: "client stream",
        kind: Kind::ClientStream,
        messages: 1_000_000,
        length: Length::OneCall,
        ..UNARY
    },
    Workload {
        name: "bidi 1x100",
        family: "bidi",
        kind: Kind::PingPong,
        in_flight: 100,
        traced: true,
        ..UNARY
    },
    Workload {
        name: "bidi 10x10",
        family: "bidi",
        kind: Kind::PingPong,
        connections: 10,
        in_flight: 10,
        ..UNARY
    },
    Workload {
        name: "echo 64 KiB",
        family: "echo",
        in_flight: 8,
        payload: 64 << 10,
        ..UNARY
    },
    Workload {
        name: "echo 1 MiB",
        family: "echo",
        in_flight: 2,
        payload: 1 << 20,
        traced: true,
        ..UNARY
    },
    Workload {
        name: "echo 16 MiB",
        family: "echo",
        payload: 16 << 20,
        ..UNARY
    },
];

impl Workload {
    /// The workload of a name.
    pub(crate) fn named(name: &str) -> Option<&'static Self> {
        WORKLOADS.iter().find(|it| it.name == name)
    }

    /// The calls it is made of.
    pub(crate) fn plan(&self, authority: &str) -> Plan {
        let (first, later) = frames::indexed_request(self.kind.path(), authority);
        let (requests, replies) = match self.kind {
            Kind::Unary | Kind::PingPong => (1, 1),
            Kind::ServerStream => (1, self.messages),
            Kind::ClientStream => (self.messages, 1),
        };
        let payload = messages::payload(self.payload);
        let request = Request {
            payload: payload.clone(),
            replies: match self.kind {
                Kind::ServerStream => replies,
                _ => 0,
            },
            ..Request::default()
        };
        Plan {
            kind: self.kind,
            first,
            later,
            message: messages::prefixed(&request),
            requests,
            replies,
            payload,
            half_closes: self.kind != Kind::PingPong,
            collects: self.kind == Kind::ClientStream,
            returns_window: true,
            is_timed: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_workload_has_a_name_of_its_own_and_is_found_by_it() {
        let names: HashSet<&str> = WORKLOADS.iter().map(|it| it.name).collect();
        assert_eq!(names.len(), WORKLOADS.len());
        for workload in &WORKLOADS {
            let found = Workload::named(workload.name).expect("it is in the table");
            assert_eq!(found.name, workload.name);
        }
        assert!(Workload::named("unary").is_none());
    }
}
