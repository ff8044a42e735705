//! The part of a channel below its interceptors and observers: where calls go, and the heads of requests.

use std::sync::Arc;
use std::time::Duration;

use http::uri::{Authority, InvalidUri, PathAndQuery, Scheme};
use trunkline_channel::{ChannelLimits, Connections, Origin, SecurityLevel};
use trunkline_codec::head::ClientFields;
use trunkline_codec::{Compressor, Compressors, Expect, Reader, Status};

use crate::call::method::{Method, Paths};
use crate::client::defaults::CallDefaults;
use crate::client::outgoing::OutgoingCall;
use crate::http_service::HttpService;

/// Where calls go, and what they have in common.
#[derive(Clone)]
pub(crate) struct Backend {
    pub(crate) kind: BackendKind,
    options: Arc<ChannelOptions>,
}

#[derive(Clone)]
pub(crate) enum BackendKind {
    Server(Arc<Connections>),
    Service(Arc<dyn HttpService>),
}

pub(crate) struct ChannelOptions {
    pub(crate) limits: Arc<ChannelLimits>,
    /// The constant fields of each request's head.
    pub(crate) fields: ClientFields,
    paths: Paths,
    /// The compressor of calls that do not set their own.
    pub(crate) compress: Option<Arc<dyn Compressor>>,
    /// None if no call has any, as most.
    pub(crate) defaults: Option<Box<CallDefaults>>,
}

impl ChannelOptions {
    pub(crate) fn new(limits: Arc<ChannelLimits>, fields: ClientFields) -> Self {
        Self {
            limits,
            fields,
            paths: Paths::default(),
            compress: None,
            defaults: None,
        }
    }
}

impl Backend {
    pub(crate) fn new(kind: BackendKind, options: ChannelOptions) -> Self {
        Self {
            kind,
            options: Arc::new(options),
        }
    }

    /// Changes the options of this clone.
    pub(crate) fn change_options(&mut self, change: impl FnOnce(&mut ChannelOptions)) {
        let options = &*self.options;
        let mut changed = ChannelOptions {
            compress: options.compress.clone(),
            defaults: options.defaults.clone(),
            ..ChannelOptions::new(options.limits.clone(), options.fields.clone())
        };
        change(&mut changed);
        self.options = Arc::new(changed);
    }

    /// The connections, if there are any.
    #[inline]
    pub(crate) fn connections(&self) -> Option<&Arc<Connections>> {
        match &self.kind {
            BackendKind::Server(connections) => Some(connections),
            BackendKind::Service(_) => None,
        }
    }

    #[inline]
    pub(crate) fn defaults(&self) -> Option<&CallDefaults> {
        self.options.defaults.as_deref()
    }

    #[inline]
    pub(crate) fn compressors(&self) -> &Compressors {
        self.options.fields.compressors()
    }

    #[inline]
    pub(crate) fn compresses_with(&self) -> Option<&Arc<dyn Compressor>> {
        self.options.compress.as_ref()
    }

    #[inline]
    pub(crate) fn limits(&self) -> &ChannelLimits {
        &self.options.limits
    }

    pub(crate) fn path_of(&self, method: &Method) -> Result<PathAndQuery, InvalidUri> {
        self.options.paths.of(method)
    }

    pub(crate) fn reader(&self, call: &OutgoingCall, expect: Expect) -> Reader {
        let max_size = self.max_recv_message_size(call);
        Reader::response(expect, max_size, self.compressors().clone())
    }

    /// Returns the limit for messages of the response.
    #[inline]
    pub(crate) fn max_recv_message_size(&self, call: &OutgoingCall) -> usize {
        let limit = self.limits().messages.max_recv_message_size;
        let config = call.config.as_ref();
        config.map_or(limit, |it| it.response_size_limit(limit))
    }

    /// Returns the limit for messages of the request.
    pub(crate) fn max_send_message_size(&self, call: &OutgoingCall) -> usize {
        let limit = self.limits().messages.max_send_message_size;
        let config = call.config.as_ref();
        config.map_or(limit, |it| it.request_size_limit(limit))
    }

    // Way of a unary call, client 6: writes the head of the request.
    /// The head of the request, which may be made more than once.
    pub(crate) fn request(
        &self,
        call: &OutgoingCall,
        origin: Origin,
    ) -> Result<http::Request<()>, Status> {
        let timeout = call.head.time_remaining();
        if timeout == Some(Duration::ZERO) {
            return Err(Status::deadline_exceeded(
                "the deadline passed before the call was sent",
            ));
        }
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(origin.scheme);
        uri.authority = Some(origin.authority);
        uri.path_and_query = Some(call.head.path.clone());
        let uri = http::Uri::from_parts(uri)
            .map_err(|error| Status::internal(format!("the path of the method: {error}")))?;
        let mut request = http::Request::new(());
        *request.method_mut() = http::Method::POST;
        *request.version_mut() = http::Version::HTTP_2;
        *request.uri_mut() = uri;
        *request.extensions_mut() = call.head.extensions.clone();
        let (headers, compressor) = (request.headers_mut(), call.compressor.as_deref());
        if !call.head.metadata.is_empty() {
            call.head.metadata.clone().merge_into(headers);
        }
        self.options.fields.write(headers, timeout, compressor);
        Ok(request)
    }
}

/// The origin of a call to a service without a connection.
pub(crate) fn nowhere(security_level: SecurityLevel) -> Origin {
    Origin {
        scheme: Scheme::HTTP,
        authority: Authority::from_static("localhost"),
        security_level,
    }
}
