use alloc::string::String;
use core::fmt;

use crate::limit;
use crate::{DecodeError, LimitError, State};

/// Where a [`State`] survives power cuts.
///
/// The contract: after `commit` has returned `Ok`, every later `load` returns that state, also
/// after a power cut. A power cut during `commit`, and a `commit` that fails, leave the state
/// before or the new one, whole, never a mixture.
///
/// A store with little room may leave out the oldest [`rejections`](State::rejections) and
/// [`fallbacks`](State::fallbacks), which have an end in any case, but never the newest; it says so
/// in its documentation.
pub trait Store {
    /// Why loading or committing failed.
    type Error: core::error::Error + Send + Sync + 'static;

    /// Reads the newest state that is whole. A store that was never written holds
    /// `State::default()`.
    ///
    /// # Errors
    ///
    /// If the medium fails, or something was stored and nothing of it is whole: a damaged state
    /// is never taken for an empty one.
    fn load(&mut self) -> Result<Loaded, Self::Error>;

    /// Makes `state` the one that later loads return.
    ///
    /// # Errors
    ///
    /// If a text or list exceeds its [`limit`], or the medium fails.
    fn commit(&mut self, state: &State) -> Result<(), Self::Error>;
}

/// A state that was read, and what was found damaged on the way.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Loaded {
    /// The newest whole state.
    pub state: State,
    /// A generation that could not be used; the state is the other one. Worth a warning: what was
    /// committed last may be missing.
    pub damage: Option<Damage>,
}

impl Loaded {
    /// A state that was read, for stores outside this crate.
    #[must_use]
    pub const fn new(state: State, damage: Option<Damage>) -> Self {
        Self { state, damage }
    }
}

/// A generation that could not be used.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "stores outside this crate build it"
)]
pub struct Damage {
    /// Which one, in words or as a file name.
    pub generation: String,
    /// What is wrong with it.
    pub error: DecodeError,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} is damaged ({}); the other good copy of the state is used, a change made just before may be lost",
            self.generation, self.error
        )
    }
}

/// A store that lives as long as the process: for simulations and tests.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct MemoryStore {
    state: State,
}

impl MemoryStore {
    /// A store that holds `state`.
    #[must_use]
    pub const fn new(state: State) -> Self {
        Self { state }
    }

    /// What a load would return.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }
}

impl Store for MemoryStore {
    type Error = LimitError;

    fn load(&mut self) -> Result<Loaded, LimitError> {
        Ok(Loaded::new(self.state.clone(), None))
    }

    fn commit(&mut self, state: &State) -> Result<(), LimitError> {
        limit::check(state)?;
        self.state = state.clone();
        Ok(())
    }
}
