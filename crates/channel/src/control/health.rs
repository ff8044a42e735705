//! The health of servers (gRFC A17, grpc/doc/health-checking.md): `grpc.health.v1.Health/Watch`, in protobuf.

use trunkline_codec::protobuf::{self, Field, MessageFields};
use trunkline_codec::{Code, Status};

use super::watch::WatchRequest;
use crate::balancing::SubchannelState;
use crate::connectivity::ConnectivityState;

/// The names of `HealthCheckResponse.ServingStatus`, by number.
const NAMES: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];
const SERVING: u64 = 1;

/// Returns the call that watches the health of a service; the empty name is the server as a whole.
pub(super) fn request(service: &str) -> WatchRequest {
    let mut message = Vec::new();
    if !service.is_empty() {
        protobuf::put_bytes(&mut message, 1, service.as_bytes());
    }
    WatchRequest {
        path: "/grpc.health.v1.Health/Watch",
        message,
    }
}

/// Returns the state of a connection after a response, or the end of the call.
pub(super) fn state(service: &str, received: &Result<impl AsRef<[u8]>, Status>) -> SubchannelState {
    let why = match received {
        Ok(response) => match status_of(response.as_ref()) {
            Some(SERVING) => return SubchannelState::new(ConnectivityState::Ready),
            Some(other) => {
                let name = usize::try_from(other).ok().and_then(|at| NAMES.get(at));
                name.map_or_else(|| format!("status {other}"), |it| (*it).to_owned())
            }
            None => "a malformed response".to_owned(),
        },
        // A17: a server without the service is healthy.
        Err(status) if status.code() == Code::UNIMPLEMENTED => {
            tracing::error!(
                target: "trunkline::connection",
                service,
                "the server does not implement grpc.health.v1.Health, so its health is not checked; add the service, or remove healthCheckConfig"
            );
            return SubchannelState::new(ConnectivityState::Ready);
        }
        Err(status) => {
            tracing::debug!(target: "trunkline::connection", service, error = status.message(), "the health check ended");
            format!("the health check ended: {}", status.message())
        }
    };
    SubchannelState::failed(Status::unavailable(format!(
        "the server reports that the service {service:?} is not healthy: {why}"
    )))
}

/// Returns the status in a `HealthCheckResponse`; `None` if that is malformed.
fn status_of(response: &[u8]) -> Option<u64> {
    let mut status = 0;
    for field in MessageFields(response) {
        if let (1, Field::Varint(value)) = field? {
            status = value;
        }
    }
    Some(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_serving_and_servers_without_the_service_are_healthy() {
        let unimplemented: Result<&[u8], _> = Err(Status::unimplemented("no such service"));
        for healthy in [
            Ok(&[8, 1][..]),
            Ok(&[8, 2, 8, 1]),
            Ok(&[0x12, 0, 8, 1]),
            unimplemented,
        ] {
            let found = state("a.B", &healthy).connectivity;
            assert_eq!(found, ConnectivityState::Ready, "{healthy:?}");
        }
        for (received, why) in [
            (Ok(&[][..]), "is not healthy: UNKNOWN"),
            (Ok(&[8, 0]), "UNKNOWN"),
            (
                Ok(&[8, 2]),
                "the service \"a.B\" is not healthy: NOT_SERVING",
            ),
            (Ok(&[8, 3]), "SERVICE_UNKNOWN"),
            (Ok(&[8, 4]), "status 4"),
            (Ok(&[8, 0xff, 0xff, 3]), "status 65535"),
            (Ok(&[8]), "a malformed response"),
            (Ok(&[0x0a, 1, 1]), "UNKNOWN"),
            (
                Err(Status::unavailable("lost")),
                "the health check ended: lost",
            ),
        ] {
            let found = state("a.B", &received);
            assert_eq!(found.connectivity, ConnectivityState::TransientFailure);
            let failure = found.failure.expect("a reason");
            assert!(failure.message().contains(why), "{failure}");
        }
    }

    #[test]
    fn a_request_names_the_service_unless_it_is_the_server() {
        assert!(request("").message.is_empty());
        assert_eq!(request("a.B").message, [0x0a, 3, b'a', b'.', b'B']);
    }
}
