// SPDX-License-Identifier: MIT OR Apache-2.0
//! INF files: what a driver package says about itself.
//!
//! [`Inf::parse`] reads the text as setupapi does: its encodings, sections that are
//! repeated, quotes, `%strings%`, continuation lines. [`Inf::validate_for`] follows the
//! file from `[Manufacturer]` to the services and gives a [`DriverPackage`] with
//! everything resolved, or the first mistake. [`stamp`] makes an INF of an INX.
//!
//! Setupapi forgives much and tells nobody; this reader is strict, as `InfVerif` is: what it
//! does not understand is an [`InfError`] that names the file, the line, the section or
//! field and the value, and the way out.
//!
//! # Vocabulary
//!
//! * A **directive** is a line `key = value, value, …`; file lists and registry lists have
//!   lines of values only.
//! * A **decoration** selects a section for a system: `.NTamd64`, `.NTamd64.10.0...16299`.
//! * A **`DDInstall` section** says how a model is installed; its services, hardware
//!   registry and KMDF version stand in sections of its name with a suffix (`.Services`,
//!   `.HW`, `.Wdf`).
//! * A **dirid** is a number that stands for a folder: 12 is `System32\drivers`, 13 the
//!   package's own folder in the driver store.
//!
//! See [INF files](https://learn.microsoft.com/windows-hardware/drivers/install/overview-of-inf-files).

mod decoration;
mod package;
mod sections;
mod stamp;
mod text;

use std::fmt;

use indexmap::IndexMap;

pub use decoration::Architecture;
pub use package::{
    CopyFile, DirId, DriverDate, DriverPackage, DriverVersion, Install, Model, RegChange,
    RegOperation, RegRoot, Service, SourceFile,
};
pub use stamp::{StampOptions, stamp};

/// An INF file, read and with its `%strings%` put in.
#[derive(Clone, Debug)]
pub struct Inf {
    name: String,
    sections: IndexMap<String, Section>,
}

/// A section, with the lines of all sections of its name.
#[derive(Clone, Debug)]
pub struct Section {
    /// The name as it is first written.
    pub name: String,
    /// The line of the first header, from 1.
    pub line: u32,
    /// The lines in order.
    pub lines: Vec<Line>,
}

/// A line of a section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Where it begins, from 1.
    pub number: u32,
    /// What stands before `=`, if there is one.
    pub key: Option<String>,
    /// What stands after it, split at commas. An omitted value is empty.
    pub values: Vec<String>,
}

/// A mistake in an INF file, or in a package as an INF describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InfError {
    /// The file.
    pub file: Box<str>,
    /// The line, from 1; [`None`] for what is missing altogether.
    pub line: Option<u32>,
    /// The section it is about.
    pub section: Option<Box<str>>,
    /// The directive in the section.
    pub field: Option<Box<str>>,
    /// The offending value.
    pub value: Option<Box<str>>,
    /// What is wrong with it.
    pub problem: Box<str>,
    /// What to do about it.
    pub way_out: Box<str>,
}

impl fmt::Display for InfError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", one_line(&self.file))?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        f.write_str(": ")?;
        if let Some(section) = &self.section {
            write!(f, "[{}] ", one_line(section))?;
        }
        match (&self.field, &self.value) {
            (Some(field), Some(value)) => {
                write!(f, "{} = \"{}\": ", one_line(field), one_line(value))?;
            }
            (Some(field), None) => write!(f, "{}: ", one_line(field))?,
            (None, Some(value)) => write!(f, "\"{}\": ", one_line(value))?,
            (None, None) => {}
        }
        write!(
            f,
            "{}; {}",
            one_line(&self.problem),
            one_line(&self.way_out)
        )
    }
}

impl std::error::Error for InfError {}

/// Keeps an error on one line, whatever a damaged file has in it.
fn one_line(text: &str) -> String {
    let mut line = String::new();
    for letter in text.chars() {
        if letter.is_control() || matches!(letter, '\u{2028}' | '\u{2029}') {
            line.extend(letter.escape_unicode());
        } else {
            line.push(letter);
        }
    }
    line
}

impl Inf {
    /// Reads an INF file from its bytes: UTF-16 or UTF-8 with a byte order mark, UTF-8, or Windows-1252.
    ///
    /// # Errors
    /// An [`InfError`] for the first line that is malformed or uses an undefined `%string%`.
    pub fn parse(name: impl Into<String>, bytes: &[u8]) -> Result<Self, InfError> {
        let name = name.into();
        let text = text::decode(&name, bytes)?;
        let sections = text::read(&name, &text)?;
        let sections = text::substitute(&name, sections)?;
        Ok(Self { name, sections })
    }

    /// The name that the file was read under.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The section of a name, in any case.
    #[must_use]
    pub fn section(&self, name: &str) -> Option<&Section> {
        self.sections.get(&name.to_ascii_lowercase())
    }

    /// The sections in the order of the file.
    pub fn sections(&self) -> impl Iterator<Item = &Section> {
        self.sections.values()
    }

    /// Follows the file for a machine of `architecture` and gives what it installs there.
    ///
    /// # Errors
    /// An [`InfError`] for the first thing that is missing, unknown, undefined, or for another
    /// architecture only.
    pub fn validate_for(&self, architecture: Architecture) -> Result<DriverPackage, InfError> {
        match (package::resolve(self, architecture), sections::check(self)) {
            (Ok(package), Ok(())) => Ok(package),
            (Ok(_), Err(error)) | (Err(error), Ok(())) => Err(error),
            // A misspelt name shows on both sides; the reference that leads nowhere says more,
            // everything else may follow from the section that is not read.
            (Err(broken), Err(unknown)) => {
                let is_cause = broken.line.is_none() || package::is_cause(&broken);
                Err(if is_cause { broken } else { unknown })
            }
        }
    }

    fn error(&self, problem: impl Into<Box<str>>, way_out: impl Into<Box<str>>) -> InfError {
        InfError {
            file: self.name.as_str().into(),
            line: None,
            section: None,
            field: None,
            value: None,
            problem: problem.into(),
            way_out: way_out.into(),
        }
    }
}

impl Section {
    /// The lines with a key of that name, in any case.
    pub fn directives<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a Line> {
        self.lines.iter().filter(move |line| {
            line.key
                .as_deref()
                .is_some_and(|name| name.eq_ignore_ascii_case(key))
        })
    }

    /// The first value of the first line with that key.
    #[must_use]
    pub fn first(&self, key: &str) -> Option<(&Line, &str)> {
        let mut lines = self.lines.iter();
        let line = lines.find(|line| {
            line.key
                .as_deref()
                .is_some_and(|name| name.eq_ignore_ascii_case(key))
        })?;
        Some((line, line.value(0)))
    }
}

impl Line {
    /// The value at `index`, or the empty string.
    #[must_use]
    pub fn value(&self, index: usize) -> &str {
        self.values.get(index).map_or("", String::as_str)
    }
}

impl InfError {
    fn at(mut self, section: &Section, line: &Line) -> Self {
        self.section = Some(section.name.as_str().into());
        self.line = Some(line.number);
        self.field = line.key.as_deref().map(Into::into);
        self
    }

    fn within(mut self, section: &Section) -> Self {
        self.section = Some(section.name.as_str().into());
        self.line = Some(section.line);
        self
    }

    fn field(mut self, field: impl Into<Box<str>>) -> Self {
        self.field = Some(field.into());
        self
    }

    fn value(mut self, value: impl Into<Box<str>>) -> Self {
        self.value = Some(value.into());
        self
    }
}
