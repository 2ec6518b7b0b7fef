//! Maintenance scripts: text to AST and back, with positions and clear errors.
