use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::path::PathBuf;

/// What a [`Server`](crate::Server) serves, where it listens, and its limits.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// The data folder. [`Server::bind`](crate::Server::bind) creates it, with `scripts`, `firmware` and the backup folder in it.
    pub data_dir: PathBuf,

    /// The address to listen on. Default: port 8080 on every IPv4 address, since devices come from the network.
    pub listen: SocketAddr,

    /// The only folder that accepts PUT, relative to the data folder: names joined by `/`, none of them hidden.
    /// Default: `backups`.
    pub backup_dir: String,

    /// Whether GET reads the backup folder. Default: false, because a backup holds what the device was configured with,
    /// passwords included, and whoever reaches the server may ask. A script line `cfg` that restores from there needs it.
    pub serve_backups: bool,

    /// How many old versions of a backup stay beside it, as `name.1` (the newest) to `name.N`. Default: 10; 0 keeps none.
    pub backup_versions: u16,

    /// What one client, and all of them together, may use up.
    pub limits: Limits,
}

impl Config {
    /// Returns the default configuration for a data folder.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8080),
            backup_dir: "backups".to_owned(),
            serve_backups: false,
            backup_versions: 10,
            limits: Limits::default(),
        }
    }
}

/// The limits of a server. The defaults suit some thousand devices that poll every few minutes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Connections served at once. One more waits in the listen queue until another ends. Default: 256, which keeps the
    /// memory for downloads under 40 MiB and the open files under the usual 1024.
    pub connections: usize,

    /// The largest backup in bytes; more is answered 413. Default: 4 MiB.
    pub backup_bytes: u64,

    /// Uploads are refused with 507 rather than leave less than this free on the file system. Default: 64 MiB.
    pub keep_free_bytes: u64,

    /// The time for a complete request head, and for the next request on a connection that stays open. Default: 15 s.
    pub header_time: Duration,

    /// How long a client may neither send nor take a byte that the server waits for. Default: 30 s.
    pub idle_time: Duration,

    /// The bytes per second that a client must send or take on average over [`rate_window`](Self::rate_window).
    /// Default: 256, far below a slow mobile link.
    pub min_rate: u32,

    /// The time of waiting for a client over which `min_rate` is measured. Default: 60 s.
    pub rate_window: Duration,

    /// The time for a whole upload. Default: 10 min.
    pub upload_time: Duration,

    /// How long transfers may go on after the order to stop. Default: 10 s.
    pub shutdown_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            backup_bytes: 4 * 1024 * 1024,
            keep_free_bytes: 64 * 1024 * 1024,
            header_time: Duration::from_secs(15),
            idle_time: Duration::from_secs(30),
            min_rate: 256,
            rate_window: Duration::from_secs(60),
            upload_time: Duration::from_secs(600),
            shutdown_time: Duration::from_secs(10),
        }
    }
}
