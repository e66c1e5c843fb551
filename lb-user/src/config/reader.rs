//! Takes a TOML document apart, key by key, and remembers where each stood.
//!
//! Serde stops at the first mistake; an operator wants to see all of them. So tables are read by
//! hand: a key that cannot be understood is reported and reads as absent, and a key that nobody
//! asked for is reported when its [`Table`] is finished with.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Problem};

/// Where something stands in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) path: String,
    pub(super) line: usize,
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Located<T> {
    pub(super) place: Place,
    pub(super) value: T,
}

/// The mistakes found so far.
#[derive(Debug, Default)]
pub(super) struct Errors(RefCell<Vec<ConfigError>>);

impl Errors {
    pub(super) fn add(&self, place: &Place, problem: Problem) {
        self.0.borrow_mut().push(ConfigError {
            path: place.path.clone(),
            line: Some(place.line),
            problem,
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    pub(super) fn into_inner(self) -> Vec<ConfigError> {
        self.0.into_inner()
    }
}

/// Where the lines of a text begin.
struct Lines(Vec<usize>);

impl Lines {
    fn new(text: &str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        Self(ends.map(|(at, _)| at + 1).collect())
    }

    /// The line that a span begins on, from 1.
    fn of(&self, span: &Range<usize>) -> usize {
        self.0.partition_point(|&start| start <= span.start) + 1
    }
}

/// Reads the root table of `text` with `read`.
///
/// A text that is no TOML is only reported: what could be made of it would mislead.
pub(super) fn read_document<T>(
    text: &str,
    errors: &Errors,
    read: impl FnOnce(&mut Table<'_>) -> T,
) -> Option<T> {
    let lines = Lines::new(text);
    let (root, syntax_errors) = DeTable::parse_recoverable(text);
    for error in &syntax_errors {
        let line = error.span().map_or(1, |span| lines.of(&span));
        let place = Place {
            path: String::new(),
            line,
        };
        errors.add(&place, Problem::Syntax(error.message().to_owned()));
    }
    if !syntax_errors.is_empty() {
        return None;
    }
    let place = Place {
        path: String::new(),
        line: 1,
    };
    Some(Table::read(
        place,
        root.get_ref(),
        Source {
            lines: &lines,
            errors,
        },
        read,
    ))
}

#[derive(Clone, Copy)]
struct Source<'d> {
    lines: &'d Lines,
    errors: &'d Errors,
}

/// A table being read.
pub(super) struct Table<'d> {
    place: Place,
    entries: &'d DeTable<'d>,
    known: BTreeSet<&'static str>,
    source: Source<'d>,
}

impl<'d> Table<'d> {
    /// Reads a table with `read` and reports what it did not ask for.
    fn read<T>(
        place: Place,
        entries: &'d DeTable<'d>,
        source: Source<'d>,
        read: impl FnOnce(&mut Self) -> T,
    ) -> T {
        let mut table = Self {
            place,
            entries,
            known: BTreeSet::new(),
            source,
        };
        let result = read(&mut table);
        table.report_unknown_keys();
        result
    }

    /// Where the table begins.
    pub(super) fn place(&self) -> Place {
        self.place.clone()
    }

    /// The value of `key` as `convert` understands it, if it is there and right.
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        convert: impl FnOnce(&DeValue<'_>) -> Result<T, Problem>,
    ) -> Option<Located<T>> {
        let (place, value) = self.find(key)?;
        match convert(value) {
            Ok(value) => Some(Located { place, value }),
            Err(problem) => {
                self.source.errors.add(&place, problem);
                None
            }
        }
    }

    /// As [`Self::optional`], but reports a missing key, with an example of what to write.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        example: &'static str,
        convert: impl FnOnce(&DeValue<'_>) -> Result<T, Problem>,
    ) -> Option<Located<T>> {
        if !self.entries.contains_key(key) {
            let place = self.place_of(key, self.place.line);
            self.source.errors.add(&place, Problem::Missing { example });
        }
        self.optional(key, convert)
    }

    /// Each element of the array `key`; one that is wrong is reported and left out.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        convert: impl Fn(&DeValue<'_>) -> Result<T, Problem>,
    ) -> Vec<Located<T>> {
        let mut values = Vec::new();
        for (place, value) in self.elements(key, "an array") {
            match convert(value) {
                Ok(value) => values.push(Located { place, value }),
                Err(problem) => self.source.errors.add(&place, problem),
            }
        }
        values
    }

    /// The table `key`, read with `read`, if it is there.
    pub(super) fn table<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Table<'d>) -> T,
    ) -> Option<T> {
        let (place, value) = self.find(key)?;
        let entries = self.expect_table(&place, value)?;
        Some(Table::read(place, entries, self.source, read))
    }

    /// Each table of the array `key`, read with `read`.
    pub(super) fn tables<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&mut Table<'d>) -> T,
    ) -> Vec<T> {
        let mut tables = Vec::new();
        for (place, value) in self.elements(key, "an array of tables, each under [[..]]") {
            if let Some(entries) = self.expect_table(&place, value) {
                tables.push(Table::read(place, entries, self.source, &read));
            }
        }
        tables
    }

    fn find(&mut self, key: &'static str) -> Option<(Place, &'d DeValue<'d>)> {
        self.known.insert(key);
        let value: &'d Spanned<DeValue<'d>> = self.entries.get(key)?;
        let line = self.source.lines.of(&value.span());
        Some((self.place_of(key, line), value.get_ref()))
    }

    fn elements(&mut self, key: &'static str, expected: &str) -> Vec<(Place, &'d DeValue<'d>)> {
        let Some((place, value)) = self.find(key) else {
            return Vec::new();
        };
        let DeValue::Array(values) = value else {
            self.source.errors.add(&place, invalid(expected, value));
            return Vec::new();
        };
        let locate = |(at, value): (usize, &'d Spanned<DeValue<'d>>)| {
            let place = Place {
                path: format!("{}[{at}]", place.path),
                line: self.source.lines.of(&value.span()),
            };
            (place, value.get_ref())
        };
        values.iter().enumerate().map(locate).collect()
    }

    fn expect_table(&self, place: &Place, value: &'d DeValue<'d>) -> Option<&'d DeTable<'d>> {
        let table = value.as_table();
        if table.is_none() {
            self.source.errors.add(place, invalid("a table", value));
        }
        table
    }

    fn report_unknown_keys(&self) {
        for (key, _) in self.entries {
            let name: &str = key.get_ref();
            if !self.known.contains(name) {
                let place = self.place_of(name, self.source.lines.of(&key.span()));
                let hint = self.hint(name);
                self.source.errors.add(&place, Problem::UnknownKey { hint });
            }
        }
    }

    fn hint(&self, name: &str) -> String {
        let nearest = self
            .known
            .iter()
            .map(|known| (distance(name, known), *known))
            .min();
        match nearest {
            Some((distance, known)) if distance * 3 <= name.len().max(3) => {
                format!("did you mean `{known}`?")
            }
            Some(_) | None => {
                let known: Vec<&str> = self.known.iter().copied().collect();
                format!("known here: {}", known.join(", "))
            }
        }
    }

    fn place_of(&self, key: &str, line: usize) -> Place {
        let path = if self.place.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.place.path)
        };
        Place { path, line }
    }
}

/// The problem of a value that is not what it should be.
pub(super) fn invalid(expected: impl Into<String>, found: &DeValue<'_>) -> Problem {
    let found = match found {
        DeValue::String(text) => format!("\"{}\"", text.escape_debug()),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(time) => time.to_string(),
        DeValue::Array(_) => "an array".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    };
    Problem::Invalid {
        expected: expected.into(),
        found,
    }
}

/// Levenshtein's distance: how many letters to add, drop or change.
fn distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.chars().count()).collect();
    for (at, a) in left.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], at + 1);
        for (column, b) in right.chars().enumerate() {
            let substituted = diagonal + usize::from(a != b);
            diagonal = row[column + 1];
            row[column + 1] = substituted.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}
