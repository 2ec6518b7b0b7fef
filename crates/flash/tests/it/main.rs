//! What an integrator can do with slots, boot control and the backends.

#![expect(clippy::unwrap_used, reason = "a step that fails is a failed test")]

mod boot_file;
mod boot_flash;
mod boot_record;
#[cfg(feature = "embedded-storage")]
mod embedded_nor;
mod file_flash;
mod format_v1;
mod partition;
mod slots;
mod uboot_env;
mod uboot_tools;
