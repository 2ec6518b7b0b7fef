use core::net::SocketAddr;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why a [`Server`](crate::Server) could not be bound.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BindError {
    /// The data folder, or a folder in it, could not be created or opened: check its owner and its file system.
    #[error("cannot create or open the folder {}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },

    /// The name of the backup folder is empty, absolute, hidden or leads out of the data folder: choose a plain name.
    #[error("{0:?} is no name of a folder inside the data folder")]
    BackupDir(String),

    /// No connection at all would be served: allow at least one.
    #[error("the limit on connections is 0")]
    NoConnections,

    /// The address could not be listened on: another program has the port, or the address is not this machine's.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}
