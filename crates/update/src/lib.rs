//! The two engines of an update, without I/O: the maintenance run and converge.
