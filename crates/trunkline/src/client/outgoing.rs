//! A call on its way out: what interceptors, observers and attempts have of it.

use std::sync::Arc;

use trunkline_channel::{MethodConfig, PickArgs, WaitMode};
use trunkline_codec::Compressor;

use crate::call::cancel::CancelHandle;
use crate::call::compression::Compress;
use crate::call::head::Head;
use crate::call::message_hooks::KeptRequest;
use crate::credentials::AttachedCredentials;

/// The head of a call and the options that hold below its builder; the messages go separately.
pub(crate) struct OutgoingCall {
    pub(crate) head: Head,
    /// The path of the method is known at compile time.
    pub(crate) is_registered: bool,
    /// The choice of the call; `None` leaves it to the method config.
    pub(crate) wait_mode: Option<WaitMode>,
    /// The config of the method, if there is one.
    pub(crate) config: Option<Arc<MethodConfig>>,
    pub(crate) compressor: Option<Arc<dyn Compressor>>,
    pub(crate) compress: Compress,
    /// The one message of the request, for interceptors.
    pub(crate) kept: Option<Box<KeptRequest>>,
    pub(crate) cancel: Option<CancelHandle>,
    /// Those of the channel, followed by those of the call. `None` for most calls.
    pub(crate) credentials: Option<Arc<AttachedCredentials>>,
}

impl OutgoingCall {
    pub(crate) fn new(head: Head, is_registered: bool) -> Self {
        Self {
            head,
            is_registered,
            wait_mode: None,
            config: None,
            compressor: None,
            compress: Compress::default(),
            kept: None,
            cancel: None,
            credentials: None,
        }
    }

    /// Returns what a picker has of the call.
    #[inline]
    pub(crate) fn pick_args(&self) -> PickArgs<'_> {
        PickArgs::new(self.head.path.as_str(), &self.head.metadata)
    }

    /// Returns whether the call waits while the channel cannot connect.
    pub(crate) fn wait_mode(&self) -> WaitMode {
        let chosen = self.wait_mode.map(|it| it == WaitMode::WaitForReady);
        match &self.config {
            Some(config) if config.waits_for_ready(chosen) => WaitMode::WaitForReady,
            Some(_) => WaitMode::FailFast,
            None => self.wait_mode.unwrap_or_default(),
        }
    }

    /// Takes the call out of a builder that has begun it.
    pub(crate) fn take(&mut self) -> Self {
        Self {
            head: self.take_head(),
            is_registered: self.is_registered,
            wait_mode: self.wait_mode,
            config: self.config.clone(),
            compressor: self.compressor.take(),
            compress: self.compress,
            kept: self.kept.take(),
            cancel: self.cancel.take(),
            credentials: self.credentials.take(),
        }
    }

    pub(crate) fn take_head(&mut self) -> Head {
        Head {
            path: self.head.path.clone(),
            metadata: std::mem::take(&mut self.head.metadata),
            extensions: std::mem::take(&mut self.head.extensions),
            deadline: self.head.deadline,
            peer: self.head.peer.take(),
        }
    }
}
