//! The boot record in the environment of U-Boot; see `docs/formats/uboot-environment.md`.

mod control;
mod copies;
mod environment;
mod fw_env;
mod variables;

pub use control::{UBootEnv, UBootEnvError};
pub use copies::EnvironmentFlags;
pub use environment::EnvironmentDamage;
pub use fw_env::{FwEnvConfig, FwEnvError, FwEnvPlace};
pub use variables::{RecordVariableError, UBootVariables, VariableNameError};
