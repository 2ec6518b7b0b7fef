//! The keys that a device goes by: those of its factory, or a set that it adopted later.

use alloc::string::String;
use alloc::vec::Vec;
use core::num::NonZeroU8;

use rekindle_flash::{BootControl, BootRecord, KeySetName, SlotId};
use rekindle_image::{
    AdoptedKeys, Hash, KeySet, PublicKey, SignedManifest, Trust, Verified, VerifyError,
};
use rekindle_state::{AdoptedKeySet, State, Store};

use crate::trial::TrialError;

/// What boot control says of adopted keys, with the keys themselves where `state` has them.
///
/// Every manifest is verified with this: [`SignedManifest::verify_adopted`].
#[must_use]
pub fn adopted_keys(record: &BootRecord, state: Option<&State>) -> Option<AdoptedKeys> {
    let name = record.key_set()?;
    let set = state
        .and_then(|state| state.key_set.as_ref())
        .and_then(key_set);
    Some(AdoptedKeys::new(name.number, Hash::from_bytes(name.digest)).with_set(set))
}

/// The key set whose keys the state has: what boot control named, should its record be lost.
#[must_use]
pub fn recorded_key_set(state: &State) -> Option<KeySetName> {
    let set = key_set(state.key_set.as_ref()?)?;
    Some(KeySetName {
        number: set.number(),
        digest: *set.digest().as_bytes(),
    })
}

/// Verifies a manifest that a slot holds already, or that is to bring one back: no rollback of keys,
/// so the keys of before a change count as well.
pub(crate) fn verify_held<'a>(
    signed: &'a SignedManifest,
    trust: &Trust,
    adopted: Option<&AdoptedKeys>,
) -> Result<Verified<'a>, VerifyError> {
    signed
        .verify_adopted(trust, adopted)
        .or_else(|error| signed.verify_adopted(trust, None).map_err(|_| error))
}

/// What runs, with the manifest that its slot holds.
#[derive(Debug, Clone, Copy)]
#[expect(
    clippy::exhaustive_structs,
    reason = "a passive value that callers build"
)]
pub struct RunningManifest<'a> {
    /// The component.
    pub component: &'a str,
    /// The slot that runs.
    pub slot: SlotId,
    /// The manifest in its tail.
    pub signed: &'a SignedManifest,
}

/// What became of the key sets in the manifests that run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Adoption {
    /// The set that was adopted just now.
    pub adopted: Option<KeySetName>,
    /// Components whose manifest does not verify: nothing was adopted for them.
    pub refused: Vec<(String, VerifyError)>,
}

/// Adopts the last key set that a confirmed, running manifest carries: its name in boot control
/// first, from where the device never goes back, then its keys in state.
///
/// Call it at every start, after [`confirm`](crate::confirm): it does nothing where nothing is new,
/// and makes up for what a cut left undone or a lost state forgot. What runs without being the
/// confirmed choice is passed over, and so is what nobody signed.
///
/// # Errors
///
/// If boot control or the state store fails.
pub fn adopt_keys<B: BootControl, S: Store>(
    boot: &mut B,
    store: &mut S,
    trust: &Trust,
    running: &[RunningManifest<'_>],
) -> Result<Adoption, TrialError<B::Error, S::Error>> {
    let mut record = boot.load().map_err(TrialError::Boot)?;
    let mut state = store.load().map_err(TrialError::Store)?.state;
    let mut adoption = Adoption::default();
    for manifest in running {
        let is_confirmed = record
            .component(manifest.component)
            .is_some_and(|component| component.confirmed == manifest.slot);
        if !is_confirmed {
            continue;
        }
        let adopted = adopted_keys(&record, Some(&state));
        let set = match manifest.signed.verify_adopted(trust, adopted.as_ref()) {
            Ok(verified) => verified.key_set,
            Err(error) => {
                let component = String::from(manifest.component);
                adoption.refused.push((component, error));
                continue;
            }
        };
        let Some(set) = set else {
            continue;
        };
        let name = KeySetName {
            number: set.number(),
            digest: *set.digest().as_bytes(),
        };
        if record.key_set() != Some(name) {
            record.adopt_key_set(name)?;
            boot.store(&record).map_err(TrialError::Boot)?;
            adoption.adopted = Some(name);
        }
        let keys = stored(set);
        if state.key_set.as_ref() != Some(&keys) {
            state.key_set = Some(keys);
            store.commit(&state).map_err(TrialError::Store)?;
        }
    }
    Ok(adoption)
}

fn key_set(stored: &AdoptedKeySet) -> Option<KeySet> {
    let keys = stored.keys.iter().map(PublicKey::from_bytes);
    let keys = keys.collect::<Result<_, _>>().ok()?;
    KeySet::new(stored.number, NonZeroU8::new(stored.threshold)?, keys).ok()
}

fn stored(set: &KeySet) -> AdoptedKeySet {
    AdoptedKeySet {
        number: set.number(),
        threshold: set.threshold().get(),
        keys: set.keys().iter().map(|key| *key.as_bytes()).collect(),
    }
}
