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

use crate::sync::lock;

/// The number of times that a server looks again for a lock file that was removed while it took the lock.
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
    ///
    /// If somebody has removed the lock file, another server may have the path by now. Whether it has
    /// shows by whether the lock can be taken again.
    pub(crate) fn remove(&self) {
        let Some(lock) = lock(&self.lock).take() else {
            return;
        };
        let lock = match lock.is_in_place() {
            true => Some(lock),
            false => PathLock::take(&self.path).ok(),
        };
        if lock.is_some() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        self.remove();
    }
}

/// True if nothing listens there any more of what knows of no lock. Any other answer than a
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
        let path = lock_path(socket);
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
        let message = format!("the address is in use: {} is locked", path.display());
        Err(io::Error::new(io::ErrorKind::AddrInUse, message))
    }

    /// Whether the path still leads to the file that is locked. The file has not ended while it is
    /// open, so its number is nobody else's, whatever was removed, moved or linked.
    fn is_in_place(&self) -> bool {
        let held = self.file.metadata();
        let there = std::fs::symlink_metadata(&self.path);
        held.is_ok_and(|held| {
            there.is_ok_and(|there| (held.dev(), held.ino()) == (there.dev(), there.ino()))
        })
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

fn lock_path(socket: &Path) -> PathBuf {
    let mut path = socket.as_os_str().to_owned();
    path.push(".lock");
    path.into()
}

/// Of no kind, because the way out is that of the lock file, and not of the socket.
fn cannot_lock(path: &Path, error: &io::Error) -> io::Error {
    use rustix::io::Errno;
    let way_out = match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOENT | Errno::NOTDIR) => "the directory does not exist",
        Some(Errno::LOOP | Errno::ISDIR) => "a lock file is a regular file: remove what is there",
        Some(Errno::ACCESS | Errno::PERM) => {
            "this user has to be able to write it, and to make files in its directory; one that another user has left can be removed when no server runs"
        }
        Some(Errno::ROFS | Errno::NOTSUP | Errno::NOSYS | Errno::NOLCK) => {
            "this file system takes no locks: choose a path on another"
        }
        _ => "choose another path",
    };
    let path = path.display();
    io::Error::other(format!(
        "its lock file {path} cannot be locked: {error}; {way_out}"
    ))
}
