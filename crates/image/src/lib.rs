//! The signed, chunked firmware image: format, pack, verify, compare.
