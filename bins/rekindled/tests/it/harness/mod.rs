//! A device in a folder, whose boot loader the test plays, and the servers it polls.
//!
//! Everything is blocking: a test reads like the story of one device. Processes end by their own id
//! when their guard is dropped, also in a panic.

#![expect(
    clippy::disallowed_methods,
    reason = "the agent under test lives in real time"
)]

mod device;
mod fleet;
mod image;
mod lab;
mod origin;
mod relay;
mod vm;

use core::time::Duration;
use std::time::Instant;

pub(crate) use self::device::{Device, Ran, Settings};
pub(crate) use self::fleet::Fleet;
pub(crate) use self::image::{Content, Recipe, noise, public_keys, secret_key};
pub(crate) use self::lab::Lab;
pub(crate) use self::origin::{
    Origin, Reply, Request, Tls, answer, answer_with_length, serve_file,
};
pub(crate) use self::relay::{Exchange, Relay};
pub(crate) use self::vm::{Initramfs, Kernel, Vm, which};

/// The script that brings one image and restarts: the form that vendors use.
pub(crate) fn script(image_url: &str, serial: &str) -> String {
    format!("mod cmd UP0 prot {image_url} ser {serial}\r\niresetn\r\n")
}

/// Asks again and again until there is an answer.
///
/// # Panics
///
/// If there is none for a minute.
pub(crate) fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        pause(Duration::from_millis(10));
    }
}

pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// A measured value, shown by `--nocapture` and beside a failure.
#[expect(clippy::print_stdout, reason = "the runner captures it")]
pub(crate) fn say(text: &str) {
    println!("{text}");
}

/// Far longer than anything takes, also on a machine that builds something meanwhile.
const PATIENCE: Duration = Duration::from_secs(90);
