//! The command as its user sees it: exit status and output.

mod script;
