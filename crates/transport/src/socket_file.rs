//! The file of a Unix socket: who may make it, and when it goes.
//!
//! Two servers must never both take a path, and none may remove the file of the one that follows.
//! The file itself cannot tell: the socket of a server that was killed, and one that is bound and
//! will listen in a moment, both refuse connections. So a server holds a lock for as long as the
//! path is its own, on a file of the path's name and `.lock`. The system lets go of it when the
//! process ends, however it ends.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rustix::fs::{FlockOperation, OFlags, flock};
use tokio::net::{UnixListener, UnixStream};

use crate::hub::lock;

/// How often a server looks again for a lock file that was removed while it took the lock.
const TRIES: usize = 100;

/// The file of a Unix socket that listens; removed with the last listener on it.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    /// None once the file is removed: another server may have the path from then on.
    lock: Mutex<Option<PathLock>>,
}

impl SocketFile {
    /// Listens on a path that nobody else listens on, and that is free or has been left behind by a
    /// server that is gone.
    pub(crate) async fn bind(path: &Path) -> io::Result<(UnixListener, Self)> {
        let lock = PathLock::take(path)?;
        let listener = match UnixListener::bind(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                if !is_left_behind(path).await {
                    return Err(error);
                }
                std::fs::remove_file(path)?;
                UnixListener::bind(path)?
            }
            bound => bound?,
        };
        let file = Self {
            path: path.to_owned(),
            lock: Mutex::new(Some(lock)),
        };
        Ok((listener, file))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the file, if that has not been done. No client finds the listener from then on; those
    /// that have found it are in its queue.
    pub(crate) fn remove(&self) {
        if let Some(lock) = lock(&self.lock).take() {
            let _ = std::fs::remove_file(&self.path);
            drop(lock);
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Whether nobody listens there any more, of those who know of no lock. Any other answer than a
/// refusal, such as that of a full queue, is one of a server that runs.
async fn is_left_behind(path: &Path) -> bool {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    let answer = UnixStream::connect(path).await;
    is_socket && answer.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// The right to a path, while it is held.
#[derive(Debug)]
struct PathLock {
    path: PathBuf,
    file: File,
}

impl PathLock {
    fn take(socket: &Path) -> io::Result<Self> {
        let mut path = socket.as_os_str().to_owned();
        path.push(".lock");
        let path = PathBuf::from(path);
        for _ in 0..TRIES {
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
                .open(&path)
                .map_err(|error| cannot_lock(&path, &error))?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => break,
                Err(error) => return Err(cannot_lock(&path, &error.into())),
            }
            let lock = Self {
                path: path.clone(),
                file,
            };
            // The server that had it may have removed it between the two; then it keeps nobody out.
            if lock.is_in_place() {
                return Ok(lock);
            }
        }
        Err(io::ErrorKind::AddrInUse.into())
    }

    /// Nobody removes the file but the one who holds the lock.
    fn is_in_place(&self) -> bool {
        self.file.metadata().is_ok_and(|file| file.nlink() > 0)
    }
}

/// The file goes before the lock does: a server that waits to open it finds it gone, or a new one.
impl Drop for PathLock {
    fn drop(&mut self) {
        if self.is_in_place() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn cannot_lock(path: &Path, error: &io::Error) -> io::Error {
    let message = format!("cannot lock {}: {error}", path.display());
    io::Error::new(error.kind(), message)
}
