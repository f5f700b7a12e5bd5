// SPDX-License-Identifier: MIT OR Apache-2.0

//! Module-definition (`.def`) files: which names a system module exports.
//!
//! Only what an import library needs is understood:
//!
//! ```text
//! ; a comment
//! LIBRARY ntoskrnl.exe
//! EXPORTS
//!     KeSetEvent
//!     IoFileObjectType CONSTANT
//! ```
//!
//! `CONSTANT` is the WDK's way for exported variables: the plain name is the
//! slot of the import table, which holds the variable's address.

use std::{collections::BTreeMap, fs, path::Path};

use crate::{ConfigError, IoError};

/// The content of a `.def` file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Definition {
    /// The module, with its extension.
    pub(crate) module: String,
    /// The exported names.
    pub(crate) exports: BTreeMap<String, Kind>,
}

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Function,
    Variable,
}

impl Definition {
    pub(crate) fn read(file: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(file).map_err(|source| IoError::with_path(file, source))?;
        Self::parse(file, &text)
    }

    fn parse(file: &Path, text: &str) -> Result<Self, ConfigError> {
        let error = |line: usize, text: &str, reason| ConfigError::ModuleDefinition {
            file: file.to_path_buf(),
            line: line + 1,
            text: text.to_owned(),
            reason,
        };
        let mut module = None;
        let mut exports = BTreeMap::new();
        let mut in_exports = false;
        for (number, line) in text.lines().enumerate() {
            let line = line.split(';').next().unwrap_or_default().trim();
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                [] => {}
                ["LIBRARY", name] if module.is_none() => module = Some(name.to_owned()),
                ["EXPORTS"] => in_exports = true,
                [name] | [name, "CONSTANT"] if in_exports => {
                    let kind = if words.len() == 1 {
                        Kind::Function
                    } else {
                        Kind::Variable
                    };
                    if exports.insert(name.to_owned(), kind).is_some() {
                        return Err(error(number, line, "exported twice"));
                    }
                }
                _ if in_exports => {
                    return Err(error(number, line, "expected NAME or NAME CONSTANT"));
                }
                _ => return Err(error(number, line, "expected LIBRARY MODULE or EXPORTS")),
            }
        }
        match module {
            Some(module) => Ok(Self { module, exports }),
            None => Err(error(0, "", "no LIBRARY line")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Definition, String> {
        Definition::parse(Path::new("x.def"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn functions_and_variables_are_told_apart() {
        let definition = parse("; c\nLIBRARY a.exe\nEXPORTS\n  F ; d\n  V CONSTANT\n").unwrap();
        assert_eq!(definition.module, "a.exe");
        let exports: Vec<_> = definition.exports.into_iter().collect();
        assert_eq!(
            exports,
            [
                ("F".to_owned(), Kind::Function),
                ("V".to_owned(), Kind::Variable)
            ]
        );
    }

    #[test]
    fn mistakes_are_named_with_file_and_line() {
        let error = parse("LIBRARY a.exe\nEXPORTS\nF\nF\n").unwrap_err();
        assert_eq!(error, "x.def:4: \"F\": exported twice");
        let error = parse("LIBRARY a.exe\nEXPORTS\nF @1\n").unwrap_err();
        assert_eq!(error, "x.def:3: \"F @1\": expected NAME or NAME CONSTANT");
        assert!(
            parse("EXPORTS\nF\n")
                .unwrap_err()
                .contains("no LIBRARY line")
        );
    }
}
