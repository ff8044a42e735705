//! The events that a control task handles.

use tokio::sync::mpsc;
use tokio::time::Instant;
use trunkline_codec::Status;
use trunkline_transport::Connection;

use crate::subchannel::SubchannelId;

/// An event for the control task.
///
/// The queue is not limited, because its senders are: a subchannel has two attempts to connect at most, a connection
/// ends once, and calls send an event only while the channel is idle.
#[derive(Debug)]
pub(crate) enum ChannelEvent {
    /// A call, or the user of the channel, asks for a connection.
    ExitIdle,
    /// The user of the channel asks for immediate attempts.
    ResetBackoff,
    /// An attempt to connect has ended.
    Connected {
        id: SubchannelId,
        started: Instant,
        result: Result<Connection, Status>,
        kind: Attempted,
    },
    /// A connection takes no more calls.
    Left(SubchannelId),
}

/// The kind of an attempt to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attempted {
    /// The first connection of the subchannel.
    First,
    /// A connection in addition to others that are busy.
    Further,
}

pub(crate) type Events = mpsc::UnboundedSender<ChannelEvent>;
