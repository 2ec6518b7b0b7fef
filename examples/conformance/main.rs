//! Runs the contract of `Flash` against a file, a block device or an MTD of this machine, and prints
//! which sentence is kept. It overwrites what is there.

use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::process::ExitCode;

use rekindle_flash::{FileFlash, MtdFlash};
use rekindle_testkit::conformance::{self, Report};

/// Of a file that does not exist yet.
const SIZE: u64 = 1 << 20;

const USAGE: &str = "usage: conformance --overwrite PATH

PATH is a file (made, if there is none), a block device or an MTD character device.
Its first blocks and its last one are overwritten.";

#[expect(clippy::print_stdout, reason = "a program")]
fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [flag, path] = arguments.as_slice() else {
        println!("{USAGE}");
        return ExitCode::from(2);
    };
    if flag != "--overwrite" {
        println!("{USAGE}");
        return ExitCode::from(2);
    }
    let report = report(Path::new(path));
    print!("{report}");
    if report.is_kept() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Ends the program with the reason where the path cannot be opened.
fn report(path: &Path) -> Report {
    let file_type = std::fs::metadata(path).map(|metadata| metadata.file_type());
    match file_type {
        Ok(kind) if kind.is_block_device() => conformance::flash(|opened: Option<FileFlash>| {
            drop(opened);
            FileFlash::open_block_device(path).unwrap_or_else(|error| stop(&error))
        }),
        Ok(kind) if kind.is_char_device() => conformance::flash(|opened: Option<MtdFlash>| {
            drop(opened);
            MtdFlash::open(path).unwrap_or_else(|error| stop(&error))
        }),
        Ok(_) | Err(_) => conformance::flash(|opened: Option<FileFlash>| {
            drop(opened);
            let size = std::fs::metadata(path).map_or(SIZE, |metadata| metadata.len());
            FileFlash::open(path, size).unwrap_or_else(|error| stop(&error))
        }),
    }
}

#[expect(clippy::print_stderr, reason = "a program")]
fn stop(error: &dyn core::error::Error) -> ! {
    eprintln!("{error}");
    std::process::exit(2)
}
