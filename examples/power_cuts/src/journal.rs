//! What was committed, and when: whatever a cut leaves must be the last commit or the one under way.

use rekindle_flash::{BootControl, BootRecord};
use rekindle_state::{Loaded, State, Store};
use rekindle_testkit::Power;

/// Boot control or a store that remembers what went through it.
#[derive(Debug)]
pub(crate) struct Journal<P, T> {
    part: P,
    power: Power,
    /// What was there at the start; the first entry.
    commits: Vec<Commit<T>>,
}

/// One commit, between two counts of operations.
#[derive(Clone, Debug)]
pub(crate) struct Commit<T> {
    begun: u64,
    done: u64,
    value: T,
}

impl<P, T: PartialEq + Clone> Journal<P, T> {
    pub(crate) fn new(part: P, power: &Power, found: T) -> Self {
        Self {
            part,
            power: power.clone(),
            commits: vec![Commit {
                begun: 0,
                done: 0,
                value: found,
            }],
        }
    }

    pub(crate) fn into_parts(self) -> (P, Vec<Commit<T>>) {
        (self.part, self.commits)
    }

    fn remember<E>(
        &mut self,
        value: &T,
        commit: impl FnOnce(&mut P) -> Result<(), E>,
    ) -> Result<(), E> {
        let begun = self.power.operations();
        commit(&mut self.part)?;
        self.commits.push(Commit {
            begun,
            done: self.power.operations(),
            value: value.clone(),
        });
        Ok(())
    }
}

impl<P: BootControl> BootControl for Journal<P, BootRecord> {
    type Error = P::Error;

    fn load(&mut self) -> Result<BootRecord, P::Error> {
        self.part.load()
    }

    fn store(&mut self, record: &BootRecord) -> Result<(), P::Error> {
        self.remember(record, |part| part.store(record))
    }
}

impl<P: Store> Store for Journal<P, State> {
    type Error = P::Error;

    fn load(&mut self) -> Result<Loaded, P::Error> {
        self.part.load()
    }

    fn commit(&mut self, state: &State) -> Result<(), P::Error> {
        self.remember(state, |part| part.commit(state))
    }
}

/// Whether `found` may be there after a cut in or before operation number `step`: it is what was
/// committed last, or was being committed.
pub(crate) fn may_be_found<T: PartialEq>(commits: &[Commit<T>], step: usize, found: &T) -> bool {
    let step = u64::try_from(step).unwrap_or(u64::MAX);
    let certain = commits
        .iter()
        .rposition(|commit| commit.done <= step)
        .unwrap_or(0);
    commits[certain..]
        .iter()
        .take_while(|commit| commit.begun <= step)
        .any(|commit| commit.value == *found)
}
