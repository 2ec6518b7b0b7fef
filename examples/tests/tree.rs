//! The tree itself.
