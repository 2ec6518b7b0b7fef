//! Reads typed values out of a parsed TOML table, with the line of every mistake.

use core::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, ConfigErrorKind};

/// The text of the file: turns offsets into lines and knows what paths are relative to.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) file: &'a Path,
    pub(super) text: &'a str,
}

impl Source<'_> {
    pub(super) fn error(&self, at: Option<&Range<usize>>, kind: ConfigErrorKind) -> ConfigError {
        let line = at.map(|span| {
            let before = self.text.get(..span.start).unwrap_or(self.text);
            before.matches('\n').count() + 1
        });
        ConfigError::new(self.file, line, kind)
    }

    pub(super) fn folder(&self) -> &Path {
        self.file.parent().unwrap_or_else(|| Path::new(""))
    }
}

/// One table of the file, with the keys that are known there.
pub(super) struct Section<'a> {
    source: Source<'a>,
    name: String,
    table: Option<&'a DeTable<'a>>,
    span: Option<Range<usize>>,
}

impl<'a> Section<'a> {
    pub(super) fn root(source: Source<'a>, table: &'a Spanned<DeTable<'a>>) -> Self {
        Self {
            source,
            name: String::new(),
            table: Some(table.get_ref()),
            span: None,
        }
    }

    /// Refuses every key that is not in `keys`.
    pub(super) fn allow(self, keys: &'static [&'static str]) -> Result<Self, ConfigError> {
        let unknown = self
            .table
            .into_iter()
            .flatten()
            .find(|(key, _)| !keys.contains(&key.get_ref().as_ref()));
        let Some((key, _)) = unknown else {
            return Ok(self);
        };
        let written = key.get_ref().as_ref();
        let plain = written.to_lowercase().replace('_', "-");
        let nearest = keys
            .iter()
            .min_by_key(|known| strsim::damerau_levenshtein(known, &plain));
        Err(self.source.error(
            Some(&key.span()),
            ConfigErrorKind::UnknownKey {
                section: self.name,
                key: written.to_owned(),
                nearest: nearest.copied().unwrap_or_default(),
            },
        ))
    }

    /// A table of this one; an absent table reads as an empty one.
    pub(super) fn section(&self, name: &'static str) -> Result<Self, ConfigError> {
        let Some(field) = self.field(name) else {
            return Ok(Section {
                source: self.source,
                name: name.to_owned(),
                table: None,
                span: None,
            });
        };
        match field.value.get_ref() {
            DeValue::Table(table) => Ok(Section {
                source: self.source,
                name: name.to_owned(),
                table: Some(table),
                span: Some(field.value.span()),
            }),
            _ => Err(field.wrong_type("a table")),
        }
    }

    /// An array of tables (`[[name]]`).
    pub(super) fn sections(&self, name: &'static str) -> Result<Vec<Self>, ConfigError> {
        let Some(field) = self.field(name) else {
            return Ok(Vec::new());
        };
        let DeValue::Array(array) = field.value.get_ref() else {
            return Err(field.wrong_type("an array of tables ([[component]])"));
        };
        array
            .iter()
            .map(|entry| match entry.get_ref() {
                DeValue::Table(table) => Ok(Section {
                    source: self.source,
                    name: format!("[{name}]"),
                    table: Some(table),
                    span: Some(entry.span()),
                }),
                _ => Err(field.wrong_type("an array of tables ([[component]])")),
            })
            .collect()
    }

    pub(super) fn field(&self, key: &'static str) -> Option<Field<'a>> {
        let value = self.table?.get(key)?;
        let key = match self.name.as_str() {
            "" => key.to_owned(),
            name => format!("{}.{key}", name.trim_matches(['[', ']'])),
        };
        Some(Field {
            source: self.source,
            key,
            value,
        })
    }

    pub(super) fn require(&self, key: &'static str) -> Result<Field<'a>, ConfigError> {
        self.field(key).ok_or_else(|| {
            self.error(ConfigErrorKind::Missing {
                section: self.name.clone(),
                key,
            })
        })
    }

    /// A mistake of the whole table.
    pub(super) fn error(&self, kind: ConfigErrorKind) -> ConfigError {
        self.source.error(self.span.as_ref(), kind)
    }
}

/// One value of the file, with its full key.
pub(super) struct Field<'a> {
    source: Source<'a>,
    pub(super) key: String,
    value: &'a Spanned<DeValue<'a>>,
}

impl<'a> Field<'a> {
    pub(super) fn error(&self, kind: ConfigErrorKind) -> ConfigError {
        self.source.error(Some(&self.value.span()), kind)
    }

    pub(super) fn bad_value(&self, expected: &'static str, found: &str) -> ConfigError {
        self.error(ConfigErrorKind::BadValue {
            key: self.key.clone(),
            expected,
            found: found.to_owned(),
        })
    }

    fn wrong_type(&self, expected: &'static str) -> ConfigError {
        self.error(ConfigErrorKind::WrongType {
            key: self.key.clone(),
            expected,
            found: self.value.get_ref().type_str(),
        })
    }

    fn empty(&self) -> ConfigError {
        self.error(ConfigErrorKind::Empty {
            key: self.key.clone(),
        })
    }

    /// A text that is not empty and holds no control characters.
    pub(super) fn text(&self) -> Result<&'a str, ConfigError> {
        match self.value.get_ref() {
            DeValue::String(text) => self.checked(text),
            _ => Err(self.wrong_type("a text in quotes")),
        }
    }

    fn checked(&self, text: &'a str) -> Result<&'a str, ConfigError> {
        if text.is_empty() {
            return Err(self.empty());
        }
        if text.chars().any(char::is_control) {
            return Err(self.bad_value(
                "a text without control characters",
                &text.escape_debug().to_string(),
            ));
        }
        Ok(text)
    }

    /// A text of which `read` makes a value; `expected` says in the error what it must look like.
    pub(super) fn read<T>(
        &self,
        expected: &'static str,
        read: impl FnOnce(&'a str) -> Option<T>,
    ) -> Result<T, ConfigError> {
        let text = self.text()?;
        read(text).ok_or_else(|| self.bad_value(expected, text))
    }

    pub(super) fn integer(&self, range: RangeInclusive<u64>) -> Result<u64, ConfigError> {
        let DeValue::Integer(integer) = self.value.get_ref() else {
            return Err(self.wrong_type("a whole number"));
        };
        u64::from_str_radix(integer.as_str(), integer.radix())
            .ok()
            .filter(|number| range.contains(number))
            .ok_or_else(|| {
                self.error(ConfigErrorKind::OutOfRange {
                    key: self.key.clone(),
                    found: integer.as_str().to_owned(),
                    min: *range.start(),
                    max: *range.end(),
                })
            })
    }

    /// A list of 1 to `limit` texts.
    pub(super) fn texts(&self, limit: usize) -> Result<Vec<&'a str>, ConfigError> {
        const EXPECTED: &str = "a list of texts in quotes";
        let DeValue::Array(array) = self.value.get_ref() else {
            return Err(self.wrong_type(EXPECTED));
        };
        let texts = array
            .iter()
            .map(|entry| match entry.get_ref() {
                DeValue::String(text) => self.checked(text),
                _ => Err(self.wrong_type(EXPECTED)),
            })
            .collect::<Result<Vec<_>, _>>()?;
        match texts.len() {
            0 => Err(self.empty()),
            found if found > limit => Err(self.error(ConfigErrorKind::TooMany {
                key: self.key.clone(),
                found,
                limit,
            })),
            _ => Ok(texts),
        }
    }

    /// A list of 1 to `limit` texts, each of which `read` makes a value of.
    pub(super) fn read_each<T>(
        &self,
        limit: usize,
        expected: &'static str,
        read: impl Fn(&'a str) -> Option<T>,
    ) -> Result<Vec<T>, ConfigError> {
        self.texts(limit)?
            .into_iter()
            .map(|text| read(text).ok_or_else(|| self.bad_value(expected, text)))
            .collect()
    }

    /// A path, relative to the folder of the configuration file.
    pub(super) fn path(&self) -> Result<PathBuf, ConfigError> {
        Ok(self.source.folder().join(self.text()?))
    }

    pub(super) fn paths(&self, limit: usize) -> Result<Vec<PathBuf>, ConfigError> {
        let texts = self.texts(limit)?;
        Ok(texts
            .into_iter()
            .map(|text| self.source.folder().join(text))
            .collect())
    }

    pub(super) fn folder(&self) -> &'a Path {
        self.source.file.parent().unwrap_or_else(|| Path::new(""))
    }
}
