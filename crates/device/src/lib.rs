#![doc = include_str!("../README.md")]

extern crate alloc;

mod agent;
mod client;
mod clock;
mod config;
mod host;
mod running;
mod status;

pub use rekindle_image::Downgrade;
pub use rekindle_update::url::LocalTime;

pub use agent::{
    AgentError, BoardError, DamageRange, DeviceBootError, EnvironmentError, LockError, OrderError,
    RemoteError, RepairLine, RepairOrderError, RepairSourceError, RepairSummary, ScrubSummary,
    SlotCondition, SlotFlashError, SlotScrub, StartError, confirm_once, factory_reset,
    install_once, recover_once, repair_once, rollback_once, run, run_with, scrub_once,
};
pub use client::{
    Cause, Client, ClientError, ClientOptions, FetchError, Fetched, Framing, RangeBody,
    RangeReader, SCRIPT_LIMIT, Validators,
};
pub use clock::Clock;
pub use config::{
    BootConfig, BootControlConfig, ComponentConfig, Config, ConfigError, ConfigErrorKind,
    DeviceConfig, EnvironmentPlace, HostConfig, HttpConfig, InPlace, ProgramConfig, RecoveryConfig,
    RepairPolicy, ScrubConfig, TrustConfig, UBootConfig, UpdateConfig, parse_size,
};
pub use host::{Health, Host, HostError, HostTask, ProgramHost, Restart};
pub use running::{Running, RunningError, Source, UnknownSource};
pub use status::{
    ComponentStatus, DeviceStatus, LineResult, LineStatus, Notice, Phase, PollStatus, Progress,
    RejectionStatus, ScrubStatus, ServerLimits, SlotStatus, Status, TrialStatus, router, serve,
    shown_url,
};
