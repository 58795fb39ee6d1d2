//! The TOML document as a tree in which everything knows where it was written, and [`Section`], the
//! reader of one of its tables: it checks types, remembers which keys were asked for, and reports
//! the others as unknown.

use std::cell::RefCell;
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use super::mistake::{Place, Report};

/// A value and where it was written.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) at: Place,
    pub(super) value: Value,
}

/// A value of the document, or of an environment variable.
#[derive(Debug, Clone)]
pub(super) enum Value {
    String(String),
    Integer(i64),
    Float(f64),
    Bool(bool),
    /// A date or time, as written.
    Datetime(String),
    Array(Vec<Node>),
    Table(Branch),
    /// Text of an environment variable, and what it is if it is read as a TOML value. Which of the
    /// two counts is decided by the key: `WHEELTAP__GATEWAY__ID=7` is an id, not a number.
    Override(String, Option<Box<Value>>),
}

impl Value {
    const fn kind(&self) -> &'static str {
        match self {
            Self::String(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a float",
            Self::Bool(_) => "a boolean",
            Self::Datetime(_) => "a date",
            Self::Array(_) => "an array",
            Self::Table(_) => "a table",
            Self::Override(..) => "text",
        }
    }

    /// The value that is not taken as text.
    fn typed(&self) -> &Self {
        if let Self::Override(_, Some(value)) = self { value } else { self }
    }

    pub(super) fn as_text(&self) -> Option<&str> {
        if let Self::String(text) | Self::Override(text, _) = self { Some(text) } else { None }
    }

    fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(flag) = self.typed() { Some(*flag) } else { None }
    }

    fn as_integer(&self) -> Option<i64> {
        if let Self::Integer(number) = self.typed() { Some(*number) } else { None }
    }

    fn as_number(&self) -> Option<f64> {
        if let Self::Float(number) = self.typed() {
            Some(*number)
        } else {
            // Integers of a configuration lie far below 2^53.
            self.as_integer().map(|number| number as f64)
        }
    }

    fn as_array(&self) -> Option<&[Node]> {
        if let Self::Array(items) = self.typed() { Some(items) } else { None }
    }

    pub(super) fn as_table(&self) -> Option<&Branch> {
        if let Self::Table(branch) = self.typed() { Some(branch) } else { None }
    }

    fn as_moment(&self) -> Option<&str> {
        if let Self::Datetime(text) = self { Some(text) } else { self.as_text() }
    }
}

/// A table: its entries in the order of the file.
#[derive(Debug, Clone, Default)]
pub(super) struct Branch {
    pub(super) entries: Vec<Entry>,
}

/// One key of a table.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_at: Place,
    pub(super) node: Node,
}

static EMPTY: Branch = Branch { entries: Vec::new() };

impl Branch {
    pub(super) fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    pub(super) fn get_mut(&mut self, key: &str) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.key == key)
    }
}

/// Reads the document; syntax errors go to the report, the rest is read as well as it can be.
pub(super) fn parse(text: &str, report: &Report) -> Node {
    parse_at(text, report, &Place::Byte)
}

/// The same of another file than the report's; `place` says where a byte of it is.
pub(super) fn parse_at(text: &str, report: &Report, place: &dyn Fn(usize) -> Place) -> Node {
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let at = place(error.span().map_or(0, |span| span.start));
        report.syntax(&at, error.message().trim().replace('\n', "; "));
    }
    let value = Value::Table(branch(document.get_ref(), report, place));
    Node { at: place(0), value }
}

/// The text of an environment variable as a value.
pub(super) fn override_value(name: &Arc<str>, text: &str) -> Node {
    let at = Place::Variable(Arc::clone(name));
    // Positions inside the variable mean nothing to anybody: all point at the variable.
    let scratch = Report::new(std::path::Path::new(""), text);
    let parsed =
        DeValue::parse(text).ok().map(|value| node(value.get_ref(), 0, &scratch, &Place::Byte));
    let typed = parsed
        .filter(|node| scratch.is_clean() && !matches!(node.value, Value::String(_)))
        .map(|mut node| {
            relocate(&mut node, &at);
            Box::new(node.value)
        });
    Node { value: Value::Override(text.to_owned(), typed), at }
}

fn relocate(node: &mut Node, at: &Place) {
    node.at = at.clone();
    match &mut node.value {
        Value::Array(items) => items.iter_mut().for_each(|item| relocate(item, at)),
        Value::Table(branch) => {
            for entry in &mut branch.entries {
                entry.key_at = at.clone();
                relocate(&mut entry.node, at);
            }
        }
        Value::String(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Bool(_)
        | Value::Datetime(_)
        | Value::Override(..) => {}
    }
}

fn branch(table: &DeTable<'_>, report: &Report, place: &dyn Fn(usize) -> Place) -> Branch {
    let entries = table
        .iter()
        .map(|(key, value)| Entry {
            key: key.get_ref().clone().into_owned(),
            key_at: place(key.span().start),
            node: node(value.get_ref(), value.span().start, report, place),
        })
        .collect();
    Branch { entries }
}

fn node(
    value: &DeValue<'_>,
    start: usize,
    report: &Report,
    place: &dyn Fn(usize) -> Place,
) -> Node {
    let at = place(start);
    let value = match value {
        DeValue::String(text) => Value::String(text.clone().into_owned()),
        DeValue::Integer(number) => {
            match i64::from_str_radix(&number.as_str().replace('_', ""), number.radix()) {
                Ok(number) => Value::Integer(number),
                Err(_) => {
                    report.syntax(&at, format!("{number} does not fit into 64 bits"));
                    Value::Integer(0)
                }
            }
        }
        // A float that is none was reported as a syntax error.
        DeValue::Float(number) => Value::Float(number.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(flag) => Value::Bool(*flag),
        DeValue::Datetime(moment) => Value::Datetime(moment.to_string()),
        DeValue::Array(items) => Value::Array(
            items
                .iter()
                .map(|item| node(item.get_ref(), item.span().start, report, place))
                .collect(),
        ),
        DeValue::Table(table) => Value::Table(branch(table, report, place)),
    };
    Node { at, value }
}

/// A value of some type, and where it was written.
#[derive(Debug, Clone)]
pub(super) struct Spot<'a, T> {
    pub(super) value: T,
    pub(super) at: &'a Place,
}

/// A raw value of a device as written.
#[derive(Debug, Clone, Copy)]
pub(super) enum Raw<'a> {
    Integer(i64),
    Number(f64),
    Text(&'a str),
}

/// A key that is a value itself, and the string it holds.
pub(super) type Named<'a> = (Spot<'a, &'a str>, Spot<'a, &'a str>);

/// Reads one table.
///
/// Every accessor reports what is wrong with the value and then answers as if the key were absent,
/// so that reading goes on to the next mistake.
pub(super) struct Section<'a> {
    report: &'a Report,
    path: String,
    at: &'a Place,
    branch: &'a Branch,
    known: RefCell<Vec<&'static str>>,
}

impl<'a> Section<'a> {
    /// The whole document.
    pub(super) fn root(document: &'a Node, report: &'a Report) -> Self {
        Self::new(report, String::new(), &document.at, document.value.as_table().unwrap_or(&EMPTY))
    }

    fn new(report: &'a Report, path: String, at: &'a Place, branch: &'a Branch) -> Self {
        Self { report, path, at, branch, known: RefCell::default() }
    }

    /// Where the table begins.
    pub(super) const fn at(&self) -> &'a Place {
        self.at
    }

    /// `table.key` as mistakes name it.
    pub(super) fn name(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Where the value of `key` was written; the table's header when it was not.
    pub(super) fn place(&self, key: &str) -> &'a Place {
        self.branch.get(key).map_or(self.at, |entry| &entry.node.at)
    }

    /// Reports a mistake in the value of `key`.
    pub(super) fn wrong(&self, key: &str, what: impl Into<String>) {
        self.report.wrong(self.place(key), &self.name(key), what);
    }

    /// Reports a mistake in a value read before.
    pub(super) fn wrong_at(&self, at: &Place, key: &str, what: impl Into<String>) {
        self.report.wrong(at, &self.name(key), what);
    }

    /// Reports that `key` is missing, at the table's header.
    pub(super) fn missing(&self, key: &str) {
        self.report.missing(self.at, &self.name(key), "is missing");
    }

    /// Whether `key` was given, whatever it holds.
    pub(super) fn has(&self, key: &'static str) -> bool {
        self.take(key).is_some()
    }

    fn take(&self, key: &'static str) -> Option<&'a Entry> {
        let mut known = self.known.borrow_mut();
        if !known.contains(&key) {
            known.push(key);
        }
        self.branch.get(key)
    }

    fn of_kind<T>(
        &self,
        key: &'static str,
        wanted: &str,
        pick: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Option<Spot<'a, T>> {
        let entry = self.take(key)?;
        let Some(value) = pick(&entry.node.value) else {
            let kind = entry.node.value.kind();
            self.wrong(key, format!("must be {wanted}, is {kind}"));
            return None;
        };
        Some(Spot { value, at: &entry.node.at })
    }

    /// A string.
    pub(super) fn text(&self, key: &'static str) -> Option<Spot<'a, &'a str>> {
        self.of_kind(key, "a string", Value::as_text)
    }

    /// A string, where the value is one; another kind of value is left to be read otherwise.
    pub(super) fn text_if_any(&self, key: &'static str) -> Option<&'a str> {
        let found = self.branch.get(key)?;
        found.node.value.as_text().filter(|_| found.node.value.as_number().is_none())
    }

    /// A string that `read` understands.
    pub(super) fn read<T>(
        &self,
        key: &'static str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = self.text(key)?;
        read(text.value).map_err(|what| self.wrong(key, what)).ok()
    }

    /// The same of a key that must be there.
    pub(super) fn need<T>(
        &self,
        key: &'static str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        if !self.has(key) {
            self.missing(key);
        }
        self.read(key, read)
    }

    /// A boolean.
    pub(super) fn flag(&self, key: &'static str) -> Option<bool> {
        Some(self.of_kind(key, "true or false", Value::as_bool)?.value)
    }

    /// A finite number.
    pub(super) fn number(&self, key: &'static str) -> Option<f64> {
        let number = self.of_kind(key, "a number", Value::as_number)?.value;
        if !number.is_finite() {
            self.wrong(key, format!("must be finite, is {number}"));
            return None;
        }
        Some(number)
    }

    /// A finite number in a range, both ends included.
    pub(super) fn number_in(&self, key: &'static str, low: f64, high: f64) -> Option<f64> {
        let value = self.number(key)?;
        if value < low || value > high {
            self.wrong(key, format!("is {value}, allowed are {low} to {high}"));
            return None;
        }
        Some(value)
    }

    /// An integer in a range, both ends included.
    pub(super) fn integer<T>(&self, key: &'static str, low: T, high: T) -> Option<T>
    where
        T: TryFrom<i64> + PartialOrd + std::fmt::Display + Copy,
    {
        let number = self.of_kind(key, "an integer", Value::as_integer)?.value;
        match T::try_from(number) {
            Ok(value) if value >= low && value <= high => Some(value),
            Ok(_) | Err(_) => {
                self.wrong(key, format!("is {number}, allowed are {low} to {high}"));
                None
            }
        }
    }

    /// An array of whatever; empty when absent.
    fn array(&self, key: &'static str) -> &'a [Node] {
        self.of_kind(key, "an array", Value::as_array).map_or(&[], |spot| spot.value)
    }

    /// An array of strings, without the items that are none.
    pub(super) fn texts(&self, key: &'static str) -> Vec<Spot<'a, &'a str>> {
        let mut texts = Vec::new();
        for item in self.array(key) {
            match item.value.as_text() {
                Some(value) => texts.push(Spot { value, at: &item.at }),
                None => {
                    self.wrong_at(
                        &item.at,
                        key,
                        format!("holds {}, not a string", item.value.kind()),
                    );
                }
            }
        }
        texts
    }

    /// An array of finite numbers, without the items that are none.
    pub(super) fn numbers(&self, key: &'static str) -> Vec<f64> {
        let mut numbers = Vec::new();
        for item in self.array(key) {
            match item.value.as_number() {
                Some(value) if value.is_finite() => numbers.push(value),
                Some(value) => {
                    self.wrong_at(&item.at, key, format!("must be finite, holds {value}"));
                }
                None => {
                    self.wrong_at(
                        &item.at,
                        key,
                        format!("holds {}, not a number", item.value.kind()),
                    );
                }
            }
        }
        numbers
    }

    /// An array of raw values, without the items that are none.
    pub(super) fn raws(&self, key: &'static str) -> Vec<Spot<'a, Raw<'a>>> {
        let mut raws = Vec::new();
        for item in self.array(key) {
            let value = match item.value.typed() {
                Value::Integer(number) => Raw::Integer(*number),
                Value::Float(number) if number.is_finite() => Raw::Number(*number),
                Value::String(text) | Value::Override(text, _) => Raw::Text(text),
                Value::Float(_)
                | Value::Bool(_)
                | Value::Datetime(_)
                | Value::Array(_)
                | Value::Table(_) => {
                    let kind = item.value.kind();
                    self.wrong_at(&item.at, key, format!("holds {kind}, not a raw value"));
                    continue;
                }
            };
            raws.push(Spot { value, at: &item.at });
        }
        raws
    }

    /// The keys of the table under `key` with the strings they hold; empty when absent.
    pub(super) fn named(&self, key: &'static str) -> Vec<Named<'a>> {
        let Some(spot) = self.of_kind(key, "a table", Value::as_table) else { return Vec::new() };
        let mut named = Vec::new();
        for entry in &spot.value.entries {
            match entry.node.value.as_text() {
                Some(value) => named.push((
                    Spot { value: entry.key.as_str(), at: &entry.key_at },
                    Spot { value, at: &entry.node.at },
                )),
                None => {
                    let kind = entry.node.value.kind();
                    self.wrong_at(&entry.node.at, key, format!("holds {kind}, not a string"));
                }
            }
        }
        named
    }

    /// A date or time, or the same as a string, as written.
    pub(super) fn moment(&self, key: &'static str) -> Option<&'a str> {
        Some(self.of_kind(key, "a date and time", Value::as_moment)?.value)
    }

    /// The table under `key`; `None` when there is none.
    pub(super) fn table(&self, key: &'static str) -> Option<Section<'a>> {
        let spot = self.of_kind(key, "a table", Value::as_table)?;
        Some(Section::new(self.report, self.name(key), spot.at, spot.value))
    }

    /// The table under `key`, or an empty one.
    pub(super) fn table_or_empty(&self, key: &'static str) -> Section<'a> {
        self.table(key)
            .unwrap_or_else(|| Section::new(self.report, self.name(key), self.at, &EMPTY))
    }

    /// The tables under `key`, written `[[key]]` or as an array of inline tables.
    pub(super) fn tables(&self, key: &'static str) -> Vec<Section<'a>> {
        if let Some(entry) = self.take(key)
            && matches!(entry.node.value, Value::Table(_))
        {
            let name = self.name(key);
            self.wrong(key, format!("there may be many of these: write [[{name}]]"));
            return Vec::new();
        }
        let mut tables = Vec::new();
        for item in self.array(key) {
            match item.value.as_table() {
                Some(branch) => {
                    tables.push(Section::new(self.report, self.name(key), &item.at, branch));
                }
                None => {
                    let kind = item.value.kind();
                    self.wrong_at(&item.at, key, format!("holds {kind}, not a table"));
                }
            }
        }
        tables
    }

    /// A key that a later version will know.
    pub(super) fn later(&self, key: &'static str) {
        if let Some(entry) = self.take(key) {
            self.wrong_at(&entry.key_at, key, NOT_AVAILABLE);
        }
    }

    /// Reports all keys that nobody asked for.
    pub(super) fn finish(&self) {
        let known = self.known.borrow();
        for entry in &self.branch.entries {
            if known.contains(&entry.key.as_str()) {
                continue;
            }
            let mut what = "unknown key".to_owned();
            if let Some(near) = nearest(&entry.key, &known) {
                what.push_str(&format!(", did you mean `{near}`?"));
            }
            self.report.wrong(&entry.key_at, &self.name(&entry.key), what);
        }
    }
}

/// What is said of keys and values that a later version will know.
pub(super) const NOT_AVAILABLE: &str = "not available in this version";

/// The known word that is most like `word`, unless none is alike.
pub(super) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let (distance, near) =
        known.iter().map(|candidate| (edits(word, candidate), *candidate)).min()?;
    (distance <= (word.chars().count() / 3).max(1)).then_some(near)
}

/// Fewest insertions, deletions, replacements and swaps of neighbours between two words (optimal
/// string alignment; Damerau, CACM 7(3), 1964).
fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 0..a.len() {
        let mut row = vec![i + 1];
        for j in 0..b.len() {
            let replaced = last[j] + usize::from(a[i] != b[j]);
            let mut best = replaced.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}
