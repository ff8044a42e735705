//! A service whose handlers can be counted, held and made to fail.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use trunkline::server::Methods;
use trunkline::{Method, Raw, Request, Result, Sender, Service, Status, Streaming};

use crate::within;

/// Handlers of a [`Probe`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Have been called, ever.
    pub called: usize,
    /// Are there now: a future that was dropped is not.
    pub running: usize,
    /// The most that were there at one time.
    pub peak: usize,
}

/// The service. Clones share their counts.
#[derive(Clone, Debug)]
pub struct Probe(Arc<State>);

#[derive(Debug)]
struct State {
    counts: watch::Sender<Counts>,
    release: Semaphore,
}

/// A handler that is there.
struct Running(Arc<State>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.counts.send_modify(|counts| counts.running -= 1);
    }
}

impl Default for Probe {
    fn default() -> Self {
        Self(Arc::new(State {
            counts: watch::Sender::new(Counts::default()),
            release: Semaphore::new(0),
        }))
    }
}

impl Probe {
    /// Unary: the message back.
    pub const ECHO: Method = Method::new("/test.Probe/Echo");
    /// Unary, `google.protobuf.StringValue` both ways: the text back.
    pub const TEXT: Method = Method::new("/test.Probe/Text");
    /// Unary: ABORTED, with all metadata of the request.
    pub const METADATA: Method = Method::new("/test.Probe/Metadata");
    /// Unary: the values of `trace-bin`, each in brackets; one that is not base64 is left out.
    pub const BINARY: Method = Method::new("/test.Probe/Binary");
    /// Client streaming: how many messages came, in decimal.
    pub const COUNT: Method = Method::new("/test.Probe/Count");
    /// Server streaming: a message for each byte of the request.
    pub const SPELL: Method = Method::new("/test.Probe/Spell");
    /// Bidirectional: each message back.
    pub const CHAT: Method = Method::new("/test.Probe/Chat");
    /// Unary: panics.
    pub const PANIC: Method = Method::new("/test.Probe/Panic");
    /// Server streaming: one message, then panics.
    pub const PANIC_LATE: Method = Method::new("/test.Probe/PanicLate");
    /// Client streaming: PERMISSION_DENIED after the first message.
    pub const REFUSE: Method = Method::new("/test.Probe/Refuse");
    /// Unary: waits for [`release`](Self::release), then the message back.
    pub const HOLD: Method = Method::new("/test.Probe/Hold");
    /// Unary: as `HOLD`, but blocks its thread meanwhile, so that it cannot be dropped. Needs a
    /// runtime of several threads.
    pub const BLOCK: Method = Method::new("/test.Probe/Block");
    /// Client streaming: waits for [`release`](Self::release) before it reads, then as `COUNT`.
    pub const DEAF: Method = Method::new("/test.Probe/Deaf");
    /// Server streaming: one message, then nothing for ever.
    pub const STALL: Method = Method::new("/test.Probe/Stall");

    /// A service with no calls yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The counts now.
    pub fn counts(&self) -> Counts {
        *self.0.counts.borrow()
    }

    /// Waits until the counts are as wanted.
    ///
    /// # Panics
    ///
    /// When they do not become so.
    pub async fn until(&self, what: &str, is_wanted: impl Fn(&Counts) -> bool) {
        let mut counts = self.0.counts.subscribe();
        let waited = within(what, counts.wait_for(is_wanted)).await;
        assert!(waited.is_ok(), "the sender is in the service");
    }

    /// Lets `handlers` that wait, or will, go on.
    pub fn release(&self, handlers: usize) {
        self.0.release.add_permits(handlers);
    }

    fn begin(&self) -> Running {
        self.0.counts.send_modify(|counts| {
            counts.called += 1;
            counts.running += 1;
            counts.peak = counts.peak.max(counts.running);
        });
        Running(self.0.clone())
    }

    async fn wait(&self) -> Result<()> {
        let permit = self.0.release.acquire().await;
        permit
            .map_err(|_| Status::internal("the semaphore is never closed"))?
            .forget();
        Ok(())
    }
}

impl Service for Probe {
    const NAME: &'static str = "test.Probe";

    fn add_to(self, methods: &mut Methods) {
        let service = Arc::new(self);
        add_unary(methods, &service);
        add_blocking(methods, &service);
        add_streaming(methods, &service);
        add_failing(methods, &service);
    }
}

fn add_unary(methods: &mut Methods, service: &Arc<Probe>) {
    methods.unary(
        Probe::ECHO,
        service,
        |probe, request: Request<Raw>| async move {
            let _running = probe.begin();
            Ok(request.into_inner())
        },
    );
    methods.unary(
        Probe::TEXT,
        service,
        |probe, request: Request<String>| async move {
            let _running = probe.begin();
            Ok(request.into_inner())
        },
    );
    methods.unary(
        Probe::METADATA,
        service,
        |probe, request: Request<Raw>| async move {
            let _running = probe.begin();
            let metadata = request.metadata().clone();
            Err::<Raw, _>(Status::aborted("as asked").with_metadata(metadata))
        },
    );
    methods.unary(
        Probe::BINARY,
        service,
        |probe, request: Request<Raw>| async move {
            let _running = probe.begin();
            let mut all = BytesMut::new();
            for value in request.metadata().get_all_bin("trace-bin") {
                all.put_slice(b"[");
                all.put_slice(&value);
                all.put_slice(b"]");
            }
            Ok(Raw(all.freeze()))
        },
    );
    methods.unary(
        Probe::HOLD,
        service,
        |probe, request: Request<Raw>| async move {
            let _running = probe.begin();
            probe.wait().await?;
            Ok(request.into_inner())
        },
    );
}

fn add_blocking(methods: &mut Methods, service: &Arc<Probe>) {
    methods.unary(
        Probe::BLOCK,
        service,
        |probe, request: Request<Raw>| async move {
            // The first poll is the connection's own, which must not block.
            tokio::task::yield_now().await;
            let _running = probe.begin();
            // Bounded, so that a test that fails before the release ends as well.
            let released = within("a release", probe.wait());
            tokio::task::block_in_place(|| Handle::current().block_on(released))?;
            Ok(request.into_inner())
        },
    );
}

fn add_streaming(methods: &mut Methods, service: &Arc<Probe>) {
    methods.client_streaming(
        Probe::COUNT,
        service,
        |probe, requests: Request<Streaming<Raw>>| async move {
            let _running = probe.begin();
            count(requests).await
        },
    );
    methods.client_streaming(
        Probe::DEAF,
        service,
        |probe, requests: Request<Streaming<Raw>>| async move {
            let _running = probe.begin();
            probe.wait().await?;
            count(requests).await
        },
    );
    methods.server_streaming(
        Probe::SPELL,
        service,
        |probe, request: Request<Raw>, mut responses: Sender<Raw>| async move {
            let _running = probe.begin();
            for byte in request.0.iter() {
                responses
                    .send(Raw(Bytes::copy_from_slice(&[*byte])))
                    .await?;
            }
            Ok(())
        },
    );
    methods.bidi_streaming(
        Probe::CHAT,
        service,
        |probe, mut requests: Request<Streaming<Raw>>, mut responses: Sender<Raw>| async move {
            let _running = probe.begin();
            while let Some(message) = requests.message().await? {
                responses.send(message).await?;
            }
            Ok(())
        },
    );
    methods.server_streaming(
        Probe::STALL,
        service,
        |probe, request: Request<Raw>, mut responses: Sender<Raw>| async move {
            let _running = probe.begin();
            responses.send(request.into_inner()).await?;
            std::future::pending().await
        },
    );
}

fn add_failing(methods: &mut Methods, service: &Arc<Probe>) {
    methods.unary(Probe::PANIC, service, |probe, _: Request<Raw>| async move {
        let _running = probe.begin();
        panic_as_asked::<Result<Raw>>()
    });
    methods.server_streaming(
        Probe::PANIC_LATE,
        service,
        |probe, request: Request<Raw>, mut responses: Sender<Raw>| async move {
            let _running = probe.begin();
            responses.send(request.into_inner()).await?;
            tokio::task::yield_now().await;
            panic_as_asked()
        },
    );
    methods.client_streaming(
        Probe::REFUSE,
        service,
        |probe, mut requests: Request<Streaming<Raw>>| async move {
            let _running = probe.begin();
            requests.message().await?;
            Err::<Raw, _>(Status::permission_denied("after one message"))
        },
    );
}

fn panic_as_asked<T>() -> T {
    panic!("a panic that a test wants")
}

async fn count(mut requests: Request<Streaming<Raw>>) -> Result<Raw> {
    let mut messages = 0;
    while requests.message().await?.is_some() {
        messages += 1;
    }
    Ok(Raw(messages.to_string().into()))
}
