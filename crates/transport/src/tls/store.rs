//! The configuration in use, and its renewal when what it is made from has changed.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

use tokio::time::Instant;
use trunkline_codec::Status;

use super::material::{Contents, Material};
use crate::hub::lock;

/// A configuration that is there once it is asked for. A new one takes its place only when
/// everything in it has been read and understood; until then the last good one stays.
pub(super) struct Store<C> {
    pub(super) material: Material,
    /// One that was brought as it is.
    ready: Option<Arc<C>>,
    config: RwLock<Option<Arc<C>>>,
    /// Held while files are read: what was read last is what is used last.
    tried: Mutex<Tried>,
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
    at: Option<Instant>,
}

impl<C: Configuration> Store<C> {
    pub(super) fn new(material: Material, ready: Option<Arc<C>>) -> Arc<Self> {
        Arc::new(Self {
            material,
            ready,
            config: RwLock::default(),
            tried: Mutex::default(),
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

    /// Whether loading reads more than the files that were named.
    pub(super) fn reads_system(&self) -> bool {
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
        let at = lock(&self.tried).at;
        at.is_none_or(|at| at.elapsed() >= every)
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
        tried.at = Some(Instant::now());
        let contents = self.material.read();
        let found = Some(fingerprint(&contents));
        if tried.found == found {
            return None;
        }
        tried.found = found;
        Some(contents.and_then(|contents| self.use_contents(&contents).map(drop)))
    }

    fn load(&self, tried: &mut Tried) -> Result<Arc<C>, Status> {
        tried.at = Some(Instant::now());
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
