#![doc = include_str!("../README.md")]
#![no_std]
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

extern crate alloc;

mod ast;
mod dialect;
mod error;
mod grammar;
mod hours;
mod limits;
mod lint;
mod parse;
mod span;
mod text;
mod write;

pub use crate::{
    ast::{Access, Command, Config, Edit, Final, Line, Load, Reset, Script, Vars},
    dialect::Dialect,
    error::{After, Argument, Excerpt, Found, Keyword, ParseError, ParseErrorKind},
    hours::Hours,
    limits::Limits,
    lint::{Warning, WarningKind},
    parse::parse,
    span::{Position, Span},
    text::{Arg, Args, Text},
};
