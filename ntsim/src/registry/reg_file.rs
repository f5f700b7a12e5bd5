// SPDX-License-Identifier: MIT OR Apache-2.0
//! The registry as text, in the format of regedit ("Windows Registry Editor Version 5.00").
//!
//! Written as regedit exports it: UTF-16LE with a byte order mark and CRLF. Read from that
//! or from UTF-8. The text works on code units, so that a name with an unpaired surrogate
//! survives; what a quoted string cannot hold exactly is written as bytes.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::value::{REG_BINARY, REG_DWORD, REG_SZ};
use super::{KeyId, RegString, Registry, RegistryError, Value, Volatility};

const HEADER: &str = "Windows Registry Editor Version 5.00";
const CR: u16 = b'\r' as u16;
const LF: u16 = b'\n' as u16;
const QUOTE: u16 = b'"' as u16;
const BACKSLASH: u16 = b'\\' as u16;
const SEMICOLON: u16 = b';' as u16;
/// Where regedit breaks a line of bytes.
const WRAP: usize = 77;

/// Why a registry file could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegFileError {
    /// The file system refused.
    #[error("{}: cannot {action} the registry file: {source}", file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// "read" or "write".
        action: &'static str,
        /// The reason.
        source: io::Error,
    },
    /// The text is not a registry file.
    #[error("{file}:{line}:{column}: {field}{problem}: {found:?}; {way_out}")]
    Syntax {
        /// The file.
        file: Box<str>,
        /// The line, from 1.
        line: u32,
        /// The column in UTF-16 code units, from 1.
        column: u32,
        /// The key or value it is about, or empty.
        field: Box<str>,
        /// What is wrong.
        problem: Box<str>,
        /// What stands there.
        found: Box<str>,
        /// What to do.
        way_out: &'static str,
    },
}

impl Registry {
    /// Reads the registry of a `.reg` file.
    ///
    /// # Errors
    /// [`RegFileError::Io`], and [`RegFileError::Syntax`] with the place of the first mistake.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, RegFileError> {
        let path = path.as_ref();
        let bytes = fs::read(path).map_err(|source| RegFileError::Io {
            file: path.to_owned(),
            action: "read",
            source,
        })?;
        Self::from_reg(path.display().to_string(), &bytes)
    }

    /// Reads the registry from the bytes of a `.reg` file; `file` is for the errors.
    ///
    /// # Errors
    /// [`RegFileError::Syntax`] with the place of the first mistake.
    pub fn from_reg(file: impl Into<String>, bytes: &[u8]) -> Result<Self, RegFileError> {
        let mut registry = Self::new();
        registry.merge(&file.into(), bytes)?;
        Ok(registry)
    }

    /// Imports a `.reg` file into this registry, deletions included, as regedit does; all of it or,
    /// on an error, nothing.
    ///
    /// # Errors
    /// [`RegFileError::Syntax`] with the place of the first mistake.
    pub fn import(&mut self, file: impl Into<String>, bytes: &[u8]) -> Result<(), RegFileError> {
        let mut copy = self.clone();
        copy.merge(&file.into(), bytes)?;
        *self = copy;
        Ok(())
    }

    /// Writes the registry, without its volatile keys, as the bytes of a `.reg` file.
    #[must_use]
    pub fn to_reg(&self) -> Vec<u8> {
        let mut text = header();
        if let Ok(hives) = self.subkeys(KeyId::ROOT) {
            for hive in hives {
                if let Ok(Some(path)) = self.hkey_path(hive) {
                    self.write_key(hive, path.units(), &mut text);
                }
            }
        }
        to_bytes(&text)
    }

    /// Writes a key and what is below it, without volatile keys, as the bytes of a `.reg` file
    /// in which the key has the path `path`.
    ///
    /// # Errors
    /// [`RegistryError::Deleted`].
    pub fn export(&self, key: KeyId, path: impl Into<RegString>) -> Result<Vec<u8>, RegistryError> {
        self.key(key)?;
        let mut text = header();
        self.write_key(key, path.into().units(), &mut text);
        Ok(to_bytes(&text))
    }

    /// Writes the registry to a `.reg` file; a failure or a crash on the way leaves the previous file whole.
    ///
    /// # Errors
    /// [`RegFileError::Io`].
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), RegFileError> {
        let path = path.as_ref();
        write_atomically(path, &self.to_reg()).map_err(|source| RegFileError::Io {
            file: path.to_owned(),
            action: "write",
            source,
        })
    }

    fn write_key(&self, id: KeyId, path: &[u16], text: &mut Vec<u16>) {
        let Ok(key) = self.key(id) else {
            return;
        };
        if key.volatility == Volatility::Volatile {
            return;
        }
        push(text, "[");
        text.extend_from_slice(path);
        push(text, "]\r\n");
        for (name, value) in key.values.values() {
            write_value(name, value, text);
        }
        push(text, "\r\n");
        for &subkey in key.subkeys.values() {
            if let Ok(name) = self.name(subkey) {
                let mut below = path.to_vec();
                below.push(BACKSLASH);
                below.extend_from_slice(name.units());
                self.write_key(subkey, &below, text);
            }
        }
    }

    fn merge(&mut self, file: &str, bytes: &[u8]) -> Result<(), RegFileError> {
        let text = decode(file, bytes)?;
        let mut reader = Reader {
            file,
            text: &text,
            at: 0,
        };
        reader.header()?;
        let mut current: Option<(KeyId, RegString)> = None;
        loop {
            reader.skip_blank();
            let Some(unit) = reader.peek() else {
                return Ok(());
            };
            if unit == SEMICOLON {
                reader.skip_line();
            } else if unit == u16::from(b'[') {
                current = reader.key_line(self)?;
            } else if unit == QUOTE || unit == u16::from(b'@') {
                reader.value_line(self, current.as_ref())?;
            } else {
                let start = reader.at;
                return Err(reader.error(
                    start,
                    "",
                    "neither a key, a value nor a comment",
                    "a line starts with [, \", @ or ;",
                ));
            }
        }
    }
}

struct Reader<'a> {
    file: &'a str,
    text: &'a [u16],
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u16> {
        self.text.get(self.at).copied()
    }

    fn line_end(&self, from: usize) -> usize {
        let rest = self.text.get(from..).unwrap_or_default();
        from + rest
            .iter()
            .position(|&unit| unit == LF)
            .unwrap_or(rest.len())
    }

    fn skip_line(&mut self) {
        self.at = (self.line_end(self.at) + 1).min(self.text.len());
    }

    fn skip_spaces(&mut self) {
        while self.peek().is_some_and(is_space) {
            self.at += 1;
        }
    }

    fn skip_blank(&mut self) {
        while self
            .peek()
            .is_some_and(|unit| is_space(unit) || unit == CR || unit == LF)
        {
            self.at += 1;
        }
    }

    fn eat(&mut self, text: &str) -> bool {
        let mut end = self.at;
        for wanted in text.bytes() {
            let Some(&unit) = self.text.get(end) else {
                return false;
            };
            if u8::try_from(unit)
                .ok()
                .map(|byte| byte.to_ascii_lowercase())
                != Some(wanted)
            {
                return false;
            }
            end += 1;
        }
        self.at = end;
        true
    }

    fn error(
        &self,
        at: usize,
        field: &str,
        problem: impl Into<Box<str>>,
        way_out: &'static str,
    ) -> RegFileError {
        syntax_error(self.file, self.text, at, field, problem, way_out)
    }

    fn header(&mut self) -> Result<(), RegFileError> {
        let end = self.line_end(0);
        let line = String::from_utf16_lossy(&self.text[..end]);
        let line = line.trim_end();
        if line == "REGEDIT4" {
            return Err(self.error(
                0,
                "",
                "an ANSI registry file of Windows 98 and NT 4",
                "export it again in version 5.00 (Unicode)",
            ));
        }
        if line != HEADER {
            return Err(self.error(
                0,
                "",
                "not a registry file",
                "its first line is \"Windows Registry Editor Version 5.00\"",
            ));
        }
        self.at = (end + 1).min(self.text.len());
        Ok(())
    }

    /// Reads `[path]` or `[-path]`; gives the key that values go to.
    fn key_line(
        &mut self,
        registry: &mut Registry,
    ) -> Result<Option<(KeyId, RegString)>, RegFileError> {
        let start = self.at;
        let end = self.line_end(start);
        let line = &self.text[start + 1..end];
        // The last bracket of the line: names may have brackets in them.
        let Some(close) = line.iter().rposition(|&unit| unit == u16::from(b']')) else {
            return Err(self.error(
                start,
                "",
                "a key without its closing bracket",
                "write [KEY\\SUBKEY]",
            ));
        };
        let after = line[close + 1..]
            .iter()
            .copied()
            .find(|&unit| !is_space(unit) && unit != CR);
        if after.is_some_and(|unit| unit != SEMICOLON) {
            return Err(self.error(
                start,
                "",
                "text after a key's closing bracket",
                "end the line there",
            ));
        }
        let mut path = &line[..close];
        let delete = path.first() == Some(&u16::from(b'-'));
        if delete {
            path = &path[1..];
        }
        let path = RegString::from(path);
        self.at = (end + 1).min(self.text.len());
        let failed = |error: RegistryError| {
            self.error(start, "", error.to_string(), "correct the key's path")
        };
        if !delete {
            let key = registry
                .create(&path, Volatility::Persistent)
                .map_err(failed)?;
            return Ok(Some((key, path)));
        }
        match registry.open(&path) {
            Ok(key) => registry.delete_tree(key).map_err(failed)?,
            // Deleting what is not there is no mistake.
            Err(RegistryError::NotFound(_)) => {}
            Err(error) => return Err(failed(error)),
        }
        Ok(None)
    }

    fn value_line(
        &mut self,
        registry: &mut Registry,
        current: Option<&(KeyId, RegString)>,
    ) -> Result<(), RegFileError> {
        let start = self.at;
        let Some((key, path)) = current else {
            return Err(self.error(
                start,
                "",
                "a value that belongs to no key",
                "write the key's line, [KEY\\SUBKEY], before it",
            ));
        };
        let (name, label) = if self.peek() == Some(QUOTE) {
            let name = self.quoted("")?;
            let label = format!("[{path}] \"{name}\": ");
            (name, label)
        } else {
            self.at += 1;
            (RegString::default(), format!("[{path}] @: "))
        };
        self.skip_spaces();
        if !self.eat("=") {
            return Err(self.error(
                start,
                &label,
                "a value without \"=\"",
                "write \"name\"=data",
            ));
        }
        self.skip_spaces();
        let data = self.data(&label)?;
        self.skip_spaces();
        match self.peek() {
            Some(CR) if self.text.get(self.at + 1) == Some(&LF) => self.at += 2,
            Some(LF) => self.at += 1,
            Some(SEMICOLON) => self.skip_line(),
            None => {}
            Some(_) => {
                return Err(self.error(
                    self.at,
                    &label,
                    "text after the end of a value",
                    "end the line there",
                ));
            }
        }
        let result = match data {
            Some(value) => registry.set_value(*key, name, value),
            None => match registry.delete_value(*key, name) {
                Err(RegistryError::NotFound(_)) => Ok(()),
                result => result.map(drop),
            },
        };
        result.map_err(|error| {
            self.error(start, &label, error.to_string(), "correct the value's name")
        })
    }

    /// Reads what stands after `=`; [`None`] deletes the value.
    fn data(&mut self, label: &str) -> Result<Option<Value>, RegFileError> {
        let start = self.at;
        if self.peek() == Some(QUOTE) {
            let text = self.quoted(label)?;
            return Ok(Some(Value::sz(text)));
        }
        if self.eat("-") {
            return Ok(None);
        }
        if self.eat("dword:") {
            let digits = self.hex_digits();
            let number = if digits.len() <= 8 {
                u32::from_str_radix(&digits, 16).ok()
            } else {
                None
            };
            return match number {
                Some(number) => Ok(Some(Value::dword(number))),
                None => Err(self.error(
                    start,
                    label,
                    "not a 32-bit number",
                    "write dword: and one to eight hexadecimal digits",
                )),
            };
        }
        if self.eat("hex:") {
            return self
                .bytes(label)
                .map(|data| Some(Value::new(REG_BINARY, data)));
        }
        if self.eat("hex(") {
            let digits = self.hex_digits();
            return match (u32::from_str_radix(&digits, 16), self.eat("):")) {
                (Ok(kind), true) => self.bytes(label).map(|data| Some(Value::new(kind, data))),
                _ => Err(self.error(
                    start,
                    label,
                    "not a value type",
                    "write hex(N): with N the type's number in hexadecimal, at most ffffffff",
                )),
            };
        }
        Err(self.error(
            start,
            label,
            "unknown data",
            "write \"text\", dword:, hex:, hex(N): or - to delete the value",
        ))
    }

    fn hex_digits(&mut self) -> String {
        let mut digits = String::new();
        while let Some(digit) = self.peek().and_then(hex_digit) {
            digits.push(digit);
            self.at += 1;
        }
        digits
    }

    /// Reads `61,00,\` and its continuation lines.
    fn bytes(&mut self, label: &str) -> Result<Vec<u8>, RegFileError> {
        let mut data = Vec::new();
        let mut wants_byte = false;
        loop {
            self.skip_spaces();
            let start = self.at;
            match self.peek() {
                Some(BACKSLASH) => {
                    self.at += 1;
                    self.skip_spaces();
                    if self.peek() == Some(SEMICOLON) {
                        self.at = self.line_end(self.at);
                    }
                    if self.peek() == Some(CR) {
                        self.at += 1;
                    }
                    if self.peek() != Some(LF) {
                        return Err(self.error(
                            start,
                            label,
                            "a continuation mark that does not end its line",
                            "put nothing after the backslash",
                        ));
                    }
                    self.at += 1;
                }
                Some(unit) if hex_digit(unit).is_some() => {
                    let digits = self.hex_digits();
                    let Ok(byte) = u8::from_str_radix(&digits, 16) else {
                        return Err(self.error(
                            start,
                            label,
                            "not a byte",
                            "write two hexadecimal digits",
                        ));
                    };
                    data.push(byte);
                    self.skip_spaces();
                    wants_byte = self.eat(",");
                    if !wants_byte {
                        return Ok(data);
                    }
                }
                // `hex:` with nothing after it has no bytes.
                _ if !wants_byte => return Ok(data),
                _ => {
                    return Err(self.error(
                        start,
                        label,
                        "a comma with no byte after it",
                        "write another byte, or \\ at the end of the line to go on in the next one",
                    ));
                }
            }
        }
    }

    /// Reads a quoted string, which may go over several lines as regedit's own exports do.
    fn quoted(&mut self, label: &str) -> Result<RegString, RegFileError> {
        let start = self.at;
        self.at += 1;
        let mut units = Vec::new();
        loop {
            let at = self.at;
            let Some(unit) = self.peek() else {
                return Err(self.error(
                    start,
                    label,
                    "a string without its closing quote",
                    "close it with \"",
                ));
            };
            self.at += 1;
            match unit {
                QUOTE => return Ok(RegString::from(units)),
                BACKSLASH => match self.peek() {
                    Some(escaped @ (QUOTE | BACKSLASH)) => {
                        units.push(escaped);
                        self.at += 1;
                    }
                    _ => {
                        return Err(self.error(
                            at,
                            label,
                            "an unknown escape in a string",
                            "write a backslash as \\\\ and a quote as \\\"",
                        ));
                    }
                },
                unit => units.push(unit),
            }
        }
    }
}

fn syntax_error(
    file: &str,
    text: &[u16],
    at: usize,
    field: &str,
    problem: impl Into<Box<str>>,
    way_out: &'static str,
) -> RegFileError {
    let before = &text[..at.min(text.len())];
    let line_start = before
        .iter()
        .rposition(|&unit| unit == LF)
        .map_or(0, |lf| lf + 1);
    let found: Vec<u16> = text[before.len()..]
        .iter()
        .copied()
        .take_while(|&unit| unit != LF && unit != CR)
        .take(60)
        .collect();
    let number =
        |count: usize| u32::try_from(count).map_or(u32::MAX, |count| count.saturating_add(1));
    RegFileError::Syntax {
        file: file.into(),
        line: number(before.iter().filter(|&&unit| unit == LF).count()),
        column: number(before.len() - line_start),
        field: field.into(),
        problem: problem.into(),
        found: String::from_utf16_lossy(&found).into(),
        way_out,
    }
}

/// Gives the code units of a file in UTF-16LE with a byte order mark or in UTF-8.
fn decode(file: &str, bytes: &[u8]) -> Result<Vec<u16>, RegFileError> {
    if let Some(rest) = bytes.strip_prefix(&[0xFF, 0xFE]) {
        let pairs = rest.chunks_exact(2);
        let cut = !pairs.remainder().is_empty();
        let text: Vec<u16> = pairs
            .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
            .collect();
        if cut {
            let problem = format!(
                "half a UTF-16 character at the end, after {} bytes",
                bytes.len()
            );
            return Err(syntax_error(
                file,
                &text,
                text.len(),
                "",
                problem,
                "the file is cut off: restore it",
            ));
        }
        return Ok(text);
    }
    let encoding = encoding_rs::Encoding::for_bom(bytes);
    let rest = match encoding {
        None => bytes,
        Some((encoding, length)) if encoding == encoding_rs::UTF_8 => &bytes[length..],
        Some((encoding, _)) => {
            let problem = format!("a file in {}", encoding.name());
            return Err(syntax_error(
                file,
                &[],
                0,
                "",
                problem,
                "save it as UTF-16LE or UTF-8",
            ));
        }
    };
    match std::str::from_utf8(rest) {
        Ok(text) => Ok(text.encode_utf16().collect()),
        Err(error) => {
            let good: Vec<u16> = String::from_utf8_lossy(&rest[..error.valid_up_to()])
                .encode_utf16()
                .collect();
            let byte = rest.get(error.valid_up_to()).copied().unwrap_or_default();
            let problem = format!("byte 0x{byte:02x} is not UTF-8");
            Err(syntax_error(
                file,
                &good,
                good.len(),
                "",
                problem,
                "save it as UTF-16LE (regedit) or UTF-8",
            ))
        }
    }
}

fn header() -> Vec<u16> {
    let mut text = Vec::new();
    push(&mut text, HEADER);
    push(&mut text, "\r\n\r\n");
    text
}

/// UTF-16LE with its byte order mark.
fn to_bytes(text: &[u16]) -> Vec<u8> {
    let mut bytes = vec![0xFF, 0xFE];
    bytes.extend(text.iter().flat_map(|unit| unit.to_le_bytes()));
    bytes
}

fn write_value(name: &RegString, value: &Value, text: &mut Vec<u16>) {
    let line_start = text.len();
    if name.units().is_empty() {
        push(text, "@");
    } else {
        push_quoted(text, name.units());
    }
    push(text, "=");
    if let (REG_DWORD, Some(number)) = (value.kind, value.as_dword()) {
        push(text, &format!("dword:{number:08x}"));
    } else if let Some(units) = as_plain_string(value) {
        push_quoted(text, &units);
    } else {
        let prefix = if value.kind == REG_BINARY {
            "hex:".to_owned()
        } else {
            format!("hex({:x}):", value.kind)
        };
        push(text, &prefix);
        let mut column = text.len() - line_start;
        for (index, byte) in value.data.iter().enumerate() {
            let last = index + 1 == value.data.len();
            push(text, &format!("{byte:02x}{}", if last { "" } else { "," }));
            column += 3;
            if column >= WRAP && !last {
                push(text, "\\\r\n  ");
                column = 2;
            }
        }
    }
    push(text, "\r\n");
}

/// The text of a string value if quotes can hold it so that the very same bytes are read back:
/// terminated once, at its end, on one line, well-formed.
fn as_plain_string(value: &Value) -> Option<Vec<u16>> {
    if value.kind != REG_SZ {
        return None;
    }
    let mut units = value.units()?;
    if units.pop() != Some(0) || units.iter().any(|&unit| unit < 0x20) {
        return None;
    }
    char::decode_utf16(units.iter().copied())
        .all(|letter| letter.is_ok())
        .then_some(units)
}

fn push(text: &mut Vec<u16>, ascii: &str) {
    text.extend(ascii.encode_utf16());
}

fn push_quoted(text: &mut Vec<u16>, units: &[u16]) {
    text.push(QUOTE);
    for &unit in units {
        if unit == QUOTE || unit == BACKSLASH {
            text.push(BACKSLASH);
        }
        text.push(unit);
    }
    text.push(QUOTE);
}

fn is_space(unit: u16) -> bool {
    unit == u16::from(b' ') || unit == u16::from(b'\t')
}

fn hex_digit(unit: u16) -> Option<char> {
    char::from_u32(u32::from(unit)).filter(char::is_ascii_hexdigit)
}

/// Writes a file beside `path`, flushes it to the disk and only then puts it in its place.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let staged = path.with_file_name(name);
    let result = (|| {
        let mut file = fs::File::create(&staged)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        drop(file);
        fs::rename(&staged, path)
    })();
    if result.is_err() {
        // The error that matters is the one above.
        let _ = fs::remove_file(&staged);
        return result;
    }
    sync_folder(path)
}

/// Makes the names in the folder of `path` last; only Unix needs and can do it.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if cfg!(unix) => {
            let folder = if folder.as_os_str().is_empty() {
                Path::new(".")
            } else {
                folder
            };
            fs::File::open(folder)?.sync_all()
        }
        _ => Ok(()),
    }
}
