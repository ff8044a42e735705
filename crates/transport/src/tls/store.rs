//! The configuration in use, and its renewal when what it is made from has changed.

use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;
use trunkline_codec::Status;

use super::material::{Contents, Material};
use crate::blocking::run_blocking;
use crate::sync::lock;

/// The time that a new connection of a client waits for files that are read again. Then it uses what was
/// in use.
const RELOAD_WAIT: Duration = Duration::from_secs(1);

/// After how long it is told that files have not been read.
const STUCK_AFTER: Duration = Duration::from_secs(10);

/// A configuration that is there once it is asked for. A new one takes its place only when
/// everything in it has been read and understood; until then the last good one stays.
pub(super) struct Store<C> {
    pub(super) material: Material,
    /// One that was brought as it is.
    ready: Option<Arc<C>>,
    config: RwLock<Option<Arc<C>>>,
    /// ClientCallResources while files are read, which may take as long as the file system likes: what was read
    /// last is what is used last. No task waits for it.
    tried: Mutex<Tried>,
    /// When files were last read, or began to be.
    tried_at: Mutex<Option<Instant>>,
    /// Of the one thread that reads for tasks, so that a file system that is stuck has one and no more.
    reading: Arc<Semaphore>,
    /// Those that were made of this one by further settings.
    heirs: Heirs<C>,
    /// Where those that this one was made of find it.
    elders: Vec<Heirs<C>>,
}

type Heirs<C> = Arc<Mutex<Vec<Weak<Store<C>>>>>;

/// What rustls calls a configuration: a server's or a client's.
pub(super) trait Configuration: Sized {
    fn make(material: &Material, contents: &Contents) -> Result<Self, Status>;
}

#[derive(Default)]
struct Tried {
    /// What the files were like; a failure to read them is its message. One that is as before has
    /// been reported.
    found: Option<Result<u64, String>>,
}

impl<C: Configuration + Send + Sync + 'static> Store<C> {
    pub(super) fn new(material: Material, ready: Option<Arc<C>>) -> Arc<Self> {
        Arc::new(Self {
            material,
            ready,
            config: RwLock::default(),
            tried: Mutex::default(),
            tried_at: Mutex::default(),
            reading: Arc::new(Semaphore::new(1)),
            heirs: Heirs::default(),
            elders: Vec::new(),
        })
    }

    /// One with other settings, which is loaded anew. Whoever keeps this one reloads that one too: it
    /// may be the one in use.
    pub(super) fn with(&self, change: impl FnOnce(&mut Material)) -> Arc<Self> {
        let mut material = self.material.clone();
        change(&mut material);
        let store = Arc::new(Self {
            material,
            ready: self.ready.clone(),
            config: RwLock::default(),
            tried: Mutex::default(),
            tried_at: Mutex::default(),
            reading: Arc::new(Semaphore::new(1)),
            heirs: Heirs::default(),
            elders: self.elders.iter().chain([&self.heirs]).cloned().collect(),
        });
        for heirs in &store.elders {
            let mut heirs = lock(heirs);
            heirs.retain(|it| it.strong_count() > 0);
            heirs.push(Arc::downgrade(&store));
        }
        store
    }

    /// Whether a client trusts the default roots.
    pub(super) fn uses_default_roots(&self) -> bool {
        self.ready.is_none() && self.material.authorities.is_empty()
    }

    /// The configuration to use; reads files, the first time.
    pub(super) fn current(&self) -> Result<Arc<C>, Status> {
        if let Some(config) = self.loaded() {
            return Ok(config);
        }
        let mut tried = lock(&self.tried);
        if let Some(config) = self.loaded() {
            return Ok(config);
        }
        self.load(&mut tried)
    }

    /// Reads the files, and uses what they say from now on if it can be used, here and in all that were
    /// made of this one. All are tried; the first failure is told.
    pub(super) fn reload(&self) -> Result<(), Status> {
        let heirs: Vec<_> = lock(&self.heirs).iter().filter_map(Weak::upgrade).collect();
        let mut outcome = self.load(&mut lock(&self.tried)).map(drop);
        for heir in &heirs {
            let inherited = heir.inherit();
            outcome = outcome.and(inherited);
        }
        outcome
    }

    /// Reloads because one that this was made of does, and reports it if files have changed: it is no
    /// news later.
    fn inherit(&self) -> Result<(), Status> {
        let mut tried = lock(&self.tried);
        let before = tried.found.clone();
        let outcome = self.load(&mut tried).map(drop);
        let is_new = before.is_some() && before != tried.found;
        drop(tried);
        if is_new {
            self.report(outcome.clone());
        }
        outcome
    }

    /// Whether it is time for [`refresh`](Self::refresh).
    pub(super) fn is_due(&self) -> bool {
        let Some(every) = self.material.reload_every else {
            return false;
        };
        let at = *lock(&self.tried_at);
        at.is_none_or(|at| at.elapsed() >= every)
    }

    /// The configuration to use, for a task: reads files if they have not been read, or reads them again
    /// if it is time to. Where there is one that is good, that takes no longer than [`RELOAD_WAIT`].
    pub(super) async fn renewed(self: &Arc<Self>) -> Result<Arc<C>, Status> {
        let Some(config) = self.loaded() else {
            return self.aside(Self::current).await?;
        };
        if self.is_due() {
            let reading = self.aside(Self::refresh);
            let _ = tokio::time::timeout(RELOAD_WAIT, reading).await;
        }
        Ok(self.loaded().unwrap_or(config))
    }

    /// As [`refresh`](Self::refresh), for a task.
    pub(super) async fn refresh_aside(self: &Arc<Self>) {
        let mut reading = pin!(self.aside(Self::refresh));
        let waited = tokio::time::timeout(STUCK_AFTER, reading.as_mut()).await;
        if waited.is_err() {
            tracing::warn!(
                target: "trunkline::connection",
                seconds = STUCK_AFTER.as_secs(),
                "TLS files have not been read in this time: the file system may be stuck; what was in use stays in use"
            );
            let _ = reading.await;
        }
    }

    /// Does on a thread of its own what may block for as long as the file system likes; one thing at
    /// a time. It goes on if it is no longer waited for.
    async fn aside<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Result<T, Status> {
        // Fails only when it is closed, which it never is.
        let permit = self.reading.clone().acquire_owned().await;
        let store = self.clone();
        let work = move || {
            let outcome = read(&store);
            drop(permit);
            outcome
        };
        run_blocking("trunkline-tls", work).await.map_err(|error| {
            Status::internal(format!("cannot read the files of TLS: {error}")).with_source(error)
        })
    }

    /// Reads the files, and uses what they say if it has changed and can be used. Reports what it
    /// has tried; files that are as before are not tried.
    pub(super) fn refresh(&self) {
        let Some(outcome) = self.load_if_changed(&mut lock(&self.tried)) else {
            return;
        };
        self.report(outcome);
    }

    fn report(&self, outcome: Result<(), Status>) {
        match &outcome {
            Ok(()) => tracing::info!(target: "trunkline::connection", "TLS files were read again"),
            Err(status) => tracing::warn!(
                target: "trunkline::connection",
                error = status.message(),
                "TLS files have changed and cannot be used; what was in use stays in use"
            ),
        }
        if let Some(report) = &self.material.on_reload {
            report(outcome);
        }
    }

    fn load_if_changed(&self, tried: &mut Tried) -> Option<Result<(), Status>> {
        *lock(&self.tried_at) = Some(Instant::now());
        let contents = self.material.read();
        let found = Some(fingerprint(&contents));
        if tried.found == found {
            return None;
        }
        tried.found = found;
        Some(contents.and_then(|contents| self.use_contents(&contents).map(drop)))
    }

    fn load(&self, tried: &mut Tried) -> Result<Arc<C>, Status> {
        *lock(&self.tried_at) = Some(Instant::now());
        let contents = self.material.read();
        tried.found = Some(fingerprint(&contents));
        self.use_contents(&contents?)
    }

    fn use_contents(&self, contents: &Contents) -> Result<Arc<C>, Status> {
        let config = match &self.ready {
            None => Arc::new(C::make(&self.material, contents)?),
            Some(ready) if self.material.is_blank() => ready.clone(),
            Some(_) => {
                return Err(Status::invalid_argument(
                    "a configuration of rustls is used as it is: certificates, authorities and a key log belong into it",
                ));
            }
        };
        let mut current = self.config.write().unwrap_or_else(PoisonError::into_inner);
        *current = Some(config.clone());
        Ok(config)
    }
}

impl<C> Store<C> {
    /// The configuration to use, if it has been loaded.
    pub(super) fn loaded(&self) -> Option<Arc<C>> {
        let config = self.config.read();
        config.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn fingerprint(contents: &Result<Contents, Status>) -> Result<u64, String> {
    match contents {
        Ok(contents) => Ok(contents.fingerprint()),
        Err(status) => Err(status.message().to_owned()),
    }
}

impl<C> fmt::Debug for Store<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("loaded", &self.loaded().is_some())
            .field("reload_every", &self.material.reload_every)
            .finish_non_exhaustive()
    }
}
