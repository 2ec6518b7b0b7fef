//! From the keys that a device has to the last set that an image carries.

use core::num::NonZeroU8;

use super::{KeySet, SignedKeySet};
use crate::{Hash, PublicKey, Trust, VerifyError};

/// The key set that a device has adopted: it never goes back behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdoptedKeys {
    number: u64,
    digest: Hash,
    set: Option<KeySet>,
}

impl AdoptedKeys {
    /// The set that boot control names. With nothing else it can be recognised in an image's chain, and that is all.
    #[must_use]
    pub const fn new(number: u64, digest: Hash) -> Self {
        Self {
            number,
            digest,
            set: None,
        }
    }

    /// Adds the set itself, where the device still has it; another one than is named is passed over.
    #[must_use]
    pub fn with_set(mut self, set: Option<KeySet>) -> Self {
        self.set = set.filter(|set| set.number == self.number && set.digest() == self.digest);
        self
    }

    /// The number of the set.
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// The digest of the set.
    #[must_use]
    pub const fn digest(&self) -> &Hash {
        &self.digest
    }

    /// Whether these keys are the set, by its number.
    fn is_made_of(&self, keys: &Keys<'_>) -> bool {
        KeySet::new(self.number, keys.threshold, keys.keys.to_vec())
            .is_ok_and(|set| set.digest() == self.digest)
    }
}

/// Keys that count, wherever they come from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keys<'a> {
    pub(crate) keys: &'a [PublicKey],
    pub(crate) threshold: NonZeroU8,
}

impl<'a> Keys<'a> {
    const fn of(set: &'a KeySet) -> Self {
        Self {
            keys: set.keys.as_slice(),
            threshold: set.threshold,
        }
    }

    /// Whether a set has just these keys and this threshold, whatever its number.
    fn are(&self, set: &KeySet) -> bool {
        self.threshold == set.threshold
            && self.keys.iter().all(|key| set.keys.contains(key))
            && set.keys.iter().all(|key| self.keys.contains(key))
    }
}

/// What a device stands on when it meets an image.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ground<'a> {
    trust: &'a Trust,
    adopted: Option<&'a AdoptedKeys>,
}

impl<'a> Ground<'a> {
    pub(crate) const fn new(trust: &'a Trust, adopted: Option<&'a AdoptedKeys>) -> Self {
        Self { trust, adopted }
    }

    /// The keys that the device was configured with.
    pub(crate) fn configured(&self) -> Keys<'a> {
        Keys {
            keys: &self.trust.keys,
            threshold: self.trust.threshold,
        }
    }

    /// The keys that it counts on now: the adopted ones where it still has them.
    pub(crate) fn current(&self) -> Keys<'a> {
        let adopted = self.adopted.and_then(|adopted| adopted.set.as_ref());
        adopted.map_or_else(|| self.configured(), Keys::of)
    }

    pub(crate) const fn adopted(&self) -> Option<u64> {
        match self.adopted {
            Some(adopted) => Some(adopted.number),
            None => None,
        }
    }

    /// Follows the chain to its last set, whose keys count; `None`: there is no chain, and the current keys count.
    pub(crate) fn follow<'c>(
        &self,
        chain: &'c [SignedKeySet],
    ) -> Result<Option<&'c KeySet>, VerifyError> {
        if let Some(adopted) = self.adopted {
            self.check_adopted(chain, adopted)?;
        }
        let (mut keys, rest) = self.beginning(chain);
        for signed in rest {
            let number = signed.set.number;
            let found = signed
                .envelope
                .count(keys.keys)
                .map_err(|key| VerifyError::KeySetSignature { number, key })?;
            if found < keys.threshold.get() {
                let is_first = chain.first() == Some(signed);
                return Err(if is_first && number > 1 {
                    VerifyError::KeySetGap {
                        first: number,
                        known: self.adopted().unwrap_or(0),
                    }
                } else {
                    VerifyError::KeySetForged {
                        number,
                        found,
                        needed: keys.threshold,
                    }
                });
            }
            keys = Keys::of(&signed.set);
        }
        Ok(chain.last().map(|signed| &signed.set))
    }

    /// Where a device that has adopted nothing, or a set that the chain does not hold, begins to check:
    /// behind a set of just its keys, whatever came before. The adopted set is vouched for by its digest,
    /// so that a device which knows it by name only begins behind it, and never with keys it replaced.
    fn beginning<'s>(&self, chain: &'s [SignedKeySet]) -> (Keys<'s>, &'s [SignedKeySet])
    where
        'a: 's,
    {
        let adopted = self.adopted.and_then(|adopted| {
            chain.iter().position(|signed| {
                signed.set.number == adopted.number && signed.set.digest() == adopted.digest
            })
        });
        if let Some(adopted) = adopted {
            return (Keys::of(&chain[adopted].set), &chain[adopted + 1..]);
        }
        let keys = self.current();
        let known = chain.iter().rposition(|signed| keys.are(&signed.set));
        (keys, known.map_or(chain, |known| &chain[known + 1..]))
    }

    /// The adopted set must be in the chain, or be what the chain begins on.
    fn check_adopted(
        &self,
        chain: &[SignedKeySet],
        adopted: &AdoptedKeys,
    ) -> Result<(), VerifyError> {
        let (number, has_it) = (adopted.number, || {
            adopted.set.is_some() || adopted.is_made_of(&self.configured())
        });
        let (Some(first), Some(last)) = (chain.first(), chain.last()) else {
            return if has_it() {
                Ok(())
            } else {
                Err(VerifyError::KeySetMissing { adopted: number })
            };
        };
        let same = chain.iter().find(|signed| signed.set.number == number);
        match same {
            Some(signed) if signed.set.digest() == adopted.digest => Ok(()),
            Some(_) => Err(VerifyError::KeySetFork { number }),
            None if last.set.number < number => Err(VerifyError::KeyRollback {
                image: last.set.number,
                adopted: number,
            }),
            None if first.set.number - 1 == number && has_it() => Ok(()),
            None => Err(VerifyError::KeySetGap {
                first: first.set.number,
                known: number,
            }),
        }
    }
}

/// The first number that does not follow the one before it: both.
pub(crate) fn check_numbers(chain: &[SignedKeySet]) -> Result<(), (u64, u64)> {
    chain.windows(2).try_for_each(|pair| {
        let (before, number) = (pair[0].set.number, pair[1].set.number);
        if before.checked_add(1) == Some(number) {
            Ok(())
        } else {
            Err((before, number))
        }
    })
}
