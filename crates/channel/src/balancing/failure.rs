//! The statuses of balancers without a connection.

use trunkline_codec::Status;

/// Returns the status of a balancer that has tried `count` addresses. `last` is the last failure.
pub(crate) fn none_reached(count: usize, last: &Status) -> Status {
    if count <= 1 {
        return last.clone();
    }
    let message = last.message();
    Status::unavailable(format!(
        "none of {count} addresses can be reached; the last: {message}"
    ))
    .with_source(last.clone())
}

/// Returns the status of a balancer whose resolver has found nothing. `note` is that of the resolver, or empty.
pub(crate) fn no_addresses(note: &str) -> Status {
    match note {
        "" => Status::unavailable("no addresses: the resolver has found none"),
        note => Status::unavailable(format!("no addresses: {note}")),
    }
}
