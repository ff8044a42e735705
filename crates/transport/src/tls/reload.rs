//! The rustls configuration in use, and reloading it when its files change.

use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;
use trunkline_codec::Status;

use super::settings::{Contents, Settings};
use crate::blocking::run_blocking;
use crate::sync::lock;

/// The longest time that a new connection of a client waits for a reload. After it, the connection uses
/// the previous configuration.
const RELOAD_WAIT: Duration = Duration::from_secs(1);

/// The duration of a read after which a warning is logged.
const STUCK_AFTER: Duration = Duration::from_secs(10);

/// A configuration that is loaded on first use. A new one replaces it only after all of its files
/// have been read and checked; until then the last valid one stays in use.
pub(super) struct ReloadableConfig<C> {
    pub(super) settings: Settings,
    /// A configuration that the user has built with rustls.
    ready: Option<Arc<C>>,
    config: RwLock<Option<Arc<C>>>,
    /// The result of the last read. The lock is held while files are read, which can take arbitrarily
    /// long, so that the last read also decides the configuration. No task waits for the lock.
    last_read: Mutex<LastRead>,
    /// The start of the last read.
    last_read_at: Mutex<Option<Instant>>,
    /// Limits the threads that read files for tasks to one, even if the file system hangs.
    reader: Arc<Semaphore>,
    /// The configurations that further settings have derived from this one.
    derived: DerivedConfigs<C>,
    /// The lists of the configurations that this one is derived from, each of which contains this one.
    listed_in: Vec<DerivedConfigs<C>>,
}

type DerivedConfigs<C> = Arc<Mutex<Vec<Weak<ReloadableConfig<C>>>>>;

/// A configuration of rustls, for a server or a client.
pub(super) trait Configuration: Sized {
    fn make(settings: &Settings, contents: &Contents) -> Result<Self, Status>;
}

#[derive(Default)]
struct LastRead {
    /// A fingerprint of the contents, or the message of the failure to read them. A result equal to
    /// this one has been reported already.
    result: Option<Result<u64, String>>,
}

impl<C: Configuration + Send + Sync + 'static> ReloadableConfig<C> {
    pub(super) fn new(settings: Settings, ready: Option<Arc<C>>) -> Arc<Self> {
        Self::derived_from(settings, ready, Vec::new())
    }

    fn derived_from(
        settings: Settings,
        ready: Option<Arc<C>>,
        listed_in: Vec<DerivedConfigs<C>>,
    ) -> Arc<Self> {
        let config = Arc::new(Self {
            settings,
            ready,
            config: RwLock::default(),
            last_read: Mutex::default(),
            last_read_at: Mutex::default(),
            reader: Arc::new(Semaphore::new(1)),
            derived: DerivedConfigs::default(),
            listed_in,
        });
        for list in &config.listed_in {
            let mut list = lock(list);
            list.retain(|it| it.strong_count() > 0);
            list.push(Arc::downgrade(&config));
        }
        config
    }

    /// Derives a configuration with other settings, which is not loaded yet. Reloading this one also
    /// reloads the derived one, which may be the one in use.
    pub(super) fn with(&self, change: impl FnOnce(&mut Settings)) -> Arc<Self> {
        let mut settings = self.settings.clone();
        change(&mut settings);
        let listed_in = self.listed_in.iter().chain([&self.derived]).cloned();
        Self::derived_from(settings, self.ready.clone(), listed_in.collect())
    }

    /// Returns whether a client trusts only a list that its build or its system has.
    pub(super) fn trusts_only_roots(&self) -> bool {
        self.ready.is_none() && self.settings.authorities.is_empty()
    }

    /// Returns the configuration, and reads the files on the first call.
    pub(super) fn current(&self) -> Result<Arc<C>, Status> {
        if let Some(config) = self.loaded() {
            return Ok(config);
        }
        let mut last_read = lock(&self.last_read);
        if let Some(config) = self.loaded() {
            return Ok(config);
        }
        self.load(&mut last_read)
    }

    /// Reads the files, and replaces the configuration here and in all derived ones. All of them are
    /// attempted; the first error is returned.
    pub(super) fn reload(&self) -> Result<(), Status> {
        let derived: Vec<_> = lock(&self.derived)
            .iter()
            .filter_map(Weak::upgrade)
            .collect();
        let mut outcome = self.load(&mut lock(&self.last_read)).map(drop);
        for config in &derived {
            let reloaded = config.reload_derived();
            outcome = outcome.and(reloaded);
        }
        outcome
    }

    /// Reloads because a configuration that this one is derived from is reloaded. Reports the outcome
    /// if files have changed, since a later check will not find them changed.
    fn reload_derived(&self) -> Result<(), Status> {
        let mut last_read = lock(&self.last_read);
        let before = last_read.result.clone();
        let outcome = self.load(&mut last_read).map(drop);
        let has_changed = before.is_some() && before != last_read.result;
        drop(last_read);
        if has_changed {
            self.report(outcome.clone());
        }
        outcome
    }

    /// Returns whether the reload interval has passed since the last read.
    pub(super) fn is_due(&self) -> bool {
        let Some(every) = self.settings.reload_every else {
            return false;
        };
        let at = *lock(&self.last_read_at);
        at.is_none_or(|at| at.elapsed() >= every)
    }

    /// Returns the configuration without blocking the task. Reads the files first if they have not been
    /// read, or if the reload interval has passed; a reload is waited for at most [`RELOAD_WAIT`].
    pub(super) async fn current_async(self: &Arc<Self>) -> Result<Arc<C>, Status> {
        let Some(config) = self.loaded() else {
            return self.read_on_thread(Self::current).await?;
        };
        if self.is_due() {
            let read = self.read_on_thread(Self::reload_if_changed);
            let _ = tokio::time::timeout(RELOAD_WAIT, read).await;
        }
        Ok(self.loaded().unwrap_or(config))
    }

    /// Calls [`reload_if_changed`](Self::reload_if_changed) without blocking the task.
    pub(super) async fn reload_if_changed_async(self: &Arc<Self>) {
        let mut read = pin!(self.read_on_thread(Self::reload_if_changed));
        let waited = tokio::time::timeout(STUCK_AFTER, read.as_mut()).await;
        if waited.is_err() {
            tracing::warn!(
                target: "trunkline::connection",
                seconds = STUCK_AFTER.as_secs(),
                "reading the TLS files takes longer than this: the file system may hang; the previous configuration stays in use"
            );
            let _ = read.await;
        }
    }

    /// Runs `read`, which may block on the file system, on a thread of its own, one at a time. Dropping
    /// the future does not stop it.
    async fn read_on_thread<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Result<T, Status> {
        // Fails only if the semaphore is closed, which never happens.
        let permit = self.reader.clone().acquire_owned().await;
        let config = self.clone();
        let work = move || {
            let outcome = read(&config);
            drop(permit);
            outcome
        };
        run_blocking("trunkline-tls", work).await.map_err(|error| {
            Status::internal(format!("cannot read the TLS files: {error}")).with_source(error)
        })
    }

    /// Reads the files. If they have changed, replaces the configuration, unless they are invalid, and
    /// reports the outcome.
    pub(super) fn reload_if_changed(&self) {
        let Some(outcome) = self.load_if_changed(&mut lock(&self.last_read)) else {
            return;
        };
        self.report(outcome);
    }

    fn report(&self, outcome: Result<(), Status>) {
        match &outcome {
            Ok(()) => tracing::info!(target: "trunkline::connection", "reloaded the TLS files"),
            Err(status) => tracing::warn!(
                target: "trunkline::connection",
                error = status.message(),
                "the TLS files have changed and are invalid; the previous configuration stays in use"
            ),
        }
        if let Some(report) = &self.settings.on_reload {
            report(outcome);
        }
    }

    fn load_if_changed(&self, last_read: &mut LastRead) -> Option<Result<(), Status>> {
        *lock(&self.last_read_at) = Some(Instant::now());
        let contents = self.settings.read();
        let found = Some(fingerprint(&contents));
        if last_read.result == found {
            return None;
        }
        last_read.result = found;
        Some(contents.and_then(|contents| self.use_contents(&contents).map(drop)))
    }

    fn load(&self, last_read: &mut LastRead) -> Result<Arc<C>, Status> {
        *lock(&self.last_read_at) = Some(Instant::now());
        let contents = self.settings.read();
        last_read.result = Some(fingerprint(&contents));
        self.use_contents(&contents?)
    }

    fn use_contents(&self, contents: &Contents) -> Result<Arc<C>, Status> {
        let config = match &self.ready {
            None => Arc::new(C::make(&self.settings, contents)?),
            Some(ready) if self.settings.is_blank() => ready.clone(),
            Some(_) => {
                return Err(Status::invalid_argument(
                    "ServerTls::from_rustls and ClientTls::from_rustls take no further certificates, authorities or key log: set them in the rustls configuration",
                ));
            }
        };
        let mut current = self.config.write().unwrap_or_else(PoisonError::into_inner);
        *current = Some(config.clone());
        Ok(config)
    }
}

impl<C> ReloadableConfig<C> {
    /// Returns the configuration, or `None` if it is not loaded yet.
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

impl<C> fmt::Debug for ReloadableConfig<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReloadableConfig")
            .field("loaded", &self.loaded().is_some())
            .field("reload_every", &self.settings.reload_every)
            .finish_non_exhaustive()
    }
}
