//! Flash with power cuts, and conformance suites for vendors' backends.
