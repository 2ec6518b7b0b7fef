//! Where images came from, so that a repair knows where to ask: a file beside the state.
//!
//! It is no part of the state, whose format a firmware must read that the device may fall back to. To
//! lose it costs an argument of `rekindled repair`.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rekindle_flash::SlotId;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The file.
#[derive(Debug)]
pub(crate) struct Origins {
    path: PathBuf,
}

/// Where the image of a slot came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Origin {
    component: String,
    slot: String,
    /// The id of its manifest, in hexadecimal.
    manifest: String,
    url: String,
}

impl Origins {
    pub(crate) fn in_folder(state_dir: &Path) -> Self {
        Self {
            path: state_dir.join("origins.json"),
        }
    }

    /// Remembers it in place of what the slot's last image came from.
    pub(crate) fn remember(
        &self,
        component: &str,
        slot: SlotId,
        manifest: &[u8; 32],
        url: &str,
    ) -> io::Result<()> {
        let slot = slot.to_string();
        let mut known: Vec<Origin> = read_json(&self.path);
        let before = known.clone();
        known.retain(|origin| origin.component != component || origin.slot != slot);
        known.push(Origin {
            component: component.to_owned(),
            slot,
            manifest: hex(manifest),
            url: url.to_owned(),
        });
        if known == before {
            return Ok(());
        }
        write_json(&self.path, &known)
    }

    /// URLs that may have the image, the likeliest first: where this manifest came from, then where
    /// the slot's last image did.
    pub(crate) fn of(
        &self,
        component: &str,
        slot: SlotId,
        manifest: Option<&[u8; 32]>,
    ) -> Vec<String> {
        let known: Vec<Origin> = read_json(&self.path);
        let id = manifest.map(hex);
        let slot = slot.to_string();
        let same = known
            .iter()
            .filter(|origin| Some(&origin.manifest) == id.as_ref());
        let here = known
            .iter()
            .filter(|origin| origin.component == component && origin.slot == slot);
        let mut urls = Vec::new();
        for origin in same.chain(here) {
            if !urls.contains(&origin.url) {
                urls.push(origin.url.clone());
            }
        }
        urls
    }
}

/// What a file beside the state holds; nothing, if it cannot be read or understood.
pub(super) fn read_json<T: DeserializeOwned + Default>(path: &Path) -> T {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(FILE_LIMIT).read_to_end(&mut bytes));
    match read.map(|_len| serde_json::from_slice(&bytes)) {
        Ok(Ok(value)) => value,
        Ok(Err(error)) => {
            tracing::warn!(path = %path.display(), %error, "not understood, and begun anew");
            T::default()
        }
        Err(_absent) => T::default(),
    }
}

/// Replaces a file beside the state. A cut may lose it.
pub(super) fn write_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let new = path.with_extension("new");
    let text = serde_json::to_vec(value).map_err(io::Error::other)?;
    // URLs may hold passwords.
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?
        .write_all(&text)?;
    std::fs::rename(&new, path)
}

pub(super) fn hex(id: &[u8; 32]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Far above what the slots of any device need.
const FILE_LIMIT: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_of_the_same_image_comes_before_the_slots_own() {
        let folder = tempfile::tempdir().unwrap();
        let origins = Origins::in_folder(folder.path());
        assert_eq!(origins.of("prot", SlotId::A, Some(&[1; 32])), [""; 0]);
        origins
            .remember("prot", SlotId::A, &[1; 32], "http://a/1")
            .unwrap();
        origins
            .remember("prot", SlotId::A, &[2; 32], "http://a/2")
            .unwrap();
        origins
            .remember("prot", SlotId::B, &[1; 32], "http://a/3")
            .unwrap();
        let of_a = origins.of("prot", SlotId::A, Some(&[1; 32]));
        assert_eq!(of_a, ["http://a/3", "http://a/2"]);
        assert_eq!(origins.of("prot", SlotId::B, None), ["http://a/3"]);
        std::fs::write(folder.path().join("origins.json"), "[{").unwrap();
        assert_eq!(origins.of("prot", SlotId::B, None), [""; 0]);
    }
}
