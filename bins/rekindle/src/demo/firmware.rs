//! What the demo's images hold: files of this machine behind a page that tells the board what the
//! firmware does when it is started.

use alloc::vec;
use std::env;
use std::fs::{self, File};
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

/// A firmware that a board can start: a page for the board, then files of this machine.
#[derive(Debug, Clone)]
pub(super) struct Firmware {
    pub(super) build: &'static str,
    pub(super) release: u64,
    pub(super) start: Start,
    files: Vec<Found>,
}

/// What a firmware does when a board starts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// It starts the agent.
    Agent,
    /// It hangs before it has started anything.
    Hang,
}

impl Firmware {
    /// A firmware of nothing but its page.
    #[cfg(test)]
    pub(super) const fn tiny(build: &'static str, start: Start) -> Self {
        Self {
            build,
            release: 1,
            start,
            files: Vec::new(),
        }
    }

    pub(super) fn size(&self) -> u64 {
        let files: u64 = self.files.iter().map(|found| found.size).sum();
        files + HEAD_LEN
    }

    /// The content from its first byte to its last.
    pub(super) fn content(&self) -> impl Read {
        let mut head = format!(
            "{MAGIC}\nbuild {}\nstart {}\n",
            self.build,
            self.start.word()
        );
        head.extend(core::iter::repeat_n('\n', PAGE.saturating_sub(head.len())));
        Cursor::new(head).chain(Files {
            left: self.files.clone().into_iter(),
            open: None,
        })
    }
}

impl Start {
    const fn word(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Hang => "nothing",
        }
    }

    /// Reads the first page of a slot's content, as the board does that is about to run it.
    pub(super) fn read(page: &[u8]) -> Option<Self> {
        let mut lines = page.split(|byte| *byte == b'\n');
        if lines.next() != Some(MAGIC.as_bytes()) {
            return None;
        }
        lines.find_map(|line| match line.strip_prefix(b"start ")? {
            b"agent" => Some(Self::Agent),
            b"nothing" => Some(Self::Hang),
            _ => None,
        })
    }
}

/// The three firmwares of the story: what runs first, its successor, and one that never confirms.
///
/// They share most of their files: each leaves out another sixth, so that each differs from the
/// others in part.
pub(super) fn firmwares() -> anyhow::Result<[Firmware; 3]> {
    let files = find_files()?;
    let build = |build, release, start, leaves_out| {
        let files = files
            .iter()
            .enumerate()
            .filter(|(index, _)| index % SHARES != leaves_out);
        Firmware {
            build,
            release,
            start,
            files: files.map(|(_, found)| found.clone()).collect(),
        }
    };
    let firmwares = [
        build("04-5678", 45_678, Start::Agent, 5),
        build("04-5679", 45_679, Start::Agent, 4),
        build("04-5680", 45_680, Start::Hang, 3),
    ];
    for firmware in &firmwares {
        ensure!(
            firmware.size() >= CONTENT_LEN,
            "this machine has too few readable files in {ROOTS:?} for an image of {} MiB",
            CONTENT_LEN >> 20
        );
    }
    Ok(firmwares)
}

#[derive(Debug, Clone)]
struct Found {
    path: PathBuf,
    size: u64,
}

/// Walks the folders of this machine in the order of their names until there is enough.
fn find_files() -> anyhow::Result<Vec<Found>> {
    let own = env::current_exe().context("cannot find the program that runs")?;
    let mut found = Vec::new();
    let mut sums = [0; SHARES];
    let mut waiting: Vec<PathBuf> = ROOTS.iter().rev().map(PathBuf::from).collect();
    waiting.insert(0, own);
    while let Some(path) = waiting.pop() {
        // A folder or file that cannot be read is passed over: the demo needs no particular one.
        let Ok(metadata) = fs::symlink_metadata(&path) else {
            continue;
        };
        if metadata.is_dir() {
            waiting.extend(entries(&path));
        } else if metadata.is_file() && FILE_LEN.contains(&metadata.len()) && readable(&path) {
            sums[found.len() % SHARES] += metadata.len();
            found.push(Found {
                path,
                size: metadata.len(),
            });
            let total: u64 = sums.iter().sum();
            if sums.iter().all(|share| total - share >= CONTENT_LEN) {
                break;
            }
        }
    }
    Ok(found)
}

/// The entries of a folder, the last name first.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort_by(|one, other| other.cmp(one));
    paths
}

fn readable(path: &Path) -> bool {
    File::open(path).is_ok()
}

/// Files one after the other, each exactly as long as it was when it was found.
struct Files {
    left: vec::IntoIter<Found>,
    open: Option<(Found, io::Take<File>)>,
}

impl Read for Files {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some((found, file)) = &mut self.open {
                let read = file.read(buf)?;
                if read > 0 || buf.is_empty() {
                    return Ok(read);
                }
                if file.limit() > 0 {
                    let path = found.path.display();
                    let message = format!("{path} became shorter while the demo read it");
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
                }
            }
            let Some(found) = self.left.next() else {
                return Ok(0);
            };
            let file = File::open(&found.path)?.take(found.size);
            self.open = Some((found, file));
        }
    }
}

const MAGIC: &str = "rekindle demo firmware";

const PAGE: usize = 4096;

/// The page for the board.
pub(super) const HEAD_LEN: u64 = 4096;

/// Each firmware has at least as much content.
const CONTENT_LEN: u64 = 32 << 20;

/// Of so many files one is left out.
const SHARES: usize = 6;

const ROOTS: [&str; 5] = ["/usr/lib", "/usr/bin", "/usr/share", "/bin", "/opt"];

/// Small files make the walk long, large ones the firmwares too different in size.
const FILE_LEN: core::ops::RangeInclusive<u64> = 4096..=4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn firmwares_are_large_enough_share_most_files_and_differ() {
        let [first, second, broken] = firmwares().unwrap();
        assert!(first.size() >= 32 << 20, "{}", first.size());
        let shared = first
            .files
            .iter()
            .filter(|found| second.files.iter().any(|other| other.path == found.path));
        let shared: u64 = shared.map(|found| found.size).sum();
        assert!(
            shared > first.size() / 2 && shared < first.size(),
            "{shared}"
        );
        let paths = |firmware: &Firmware| -> Vec<PathBuf> {
            firmware
                .files
                .iter()
                .map(|found| found.path.clone())
                .collect()
        };
        assert_ne!(paths(&second), paths(&broken));
    }

    #[test]
    fn a_board_reads_from_the_content_what_the_firmware_starts() {
        for firmware in firmwares().unwrap() {
            let mut page = [0; PAGE];
            firmware.content().read_exact(&mut page).unwrap();
            assert_eq!(
                Start::read(&page),
                Some(firmware.start),
                "{}",
                firmware.build
            );
        }
        assert_eq!(Start::read(&[0xff; PAGE]), None);
        assert_eq!(Start::read(b""), None);
    }

    #[test]
    fn content_has_the_size_that_was_announced() {
        let [firmware, ..] = firmwares().unwrap();
        let read = io::copy(&mut firmware.content(), &mut io::sink()).unwrap();
        assert_eq!(read, firmware.size());
    }
}
