//! The device agent as a library: poller, runner, status, host programs.
