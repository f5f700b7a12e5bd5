// SPDX-License-Identifier: MIT OR Apache-2.0
//! From bytes to sections: encodings, lines, quotes, `%strings%`.

use std::collections::HashMap;

use indexmap::IndexMap;

use super::{InfError, Line, Section};

/// What setupapi allows for one value; keeps `%strings%` within `%strings%` from growing a file without end.
const MAX_VALUE: usize = 4096;

fn mistake(
    file: &str,
    line: u32,
    section: Option<&str>,
    value: impl Into<String>,
    problem: impl Into<Box<str>>,
    way_out: &str,
) -> InfError {
    InfError {
        file: file.into(),
        line: Some(line),
        section: section.map(Into::into),
        field: None,
        value: Some(value.into().chars().take(80).collect::<String>().into()),
        problem: problem.into(),
        way_out: way_out.into(),
    }
}

pub(super) fn decode(file: &str, bytes: &[u8]) -> Result<String, InfError> {
    let (encoding, rest) = match encoding_rs::Encoding::for_bom(bytes) {
        Some((encoding, length)) => (encoding, &bytes[length..]),
        None if std::str::from_utf8(bytes).is_ok() => (encoding_rs::UTF_8, bytes),
        // "ANSI": Windows-1252 is what setupapi uses on a western system.
        None => (encoding_rs::WINDOWS_1252, bytes),
    };
    let (text, damaged) = encoding.decode_without_bom_handling(rest);
    if let (true, Some(at)) = (damaged, text.find('\u{fffd}')) {
        let line = line_number(&text[..at]);
        let found = text
            .lines()
            .nth(line as usize - 1)
            .unwrap_or_default()
            .to_owned();
        let problem = format!("bytes that are not {}", encoding.name());
        return Err(mistake(
            file,
            line,
            None,
            found,
            problem,
            "save the file as UTF-8 or UTF-16LE",
        ));
    }
    if let Some(at) = text.find('\0') {
        let line = line_number(&text[..at]);
        let problem = "a NUL character";
        return Err(mistake(
            file,
            line,
            None,
            "\0",
            problem,
            "save the file as text, with a byte order mark if it is UTF-16",
        ));
    }
    Ok(text.into_owned())
}

fn line_number(before: &str) -> u32 {
    u32::try_from(before.matches('\n').count()).map_or(u32::MAX, |count| count.saturating_add(1))
}

/// Splits the text into sections; `%strings%` are still as they are written.
pub(super) fn read(file: &str, text: &str) -> Result<IndexMap<String, Section>, InfError> {
    let mut sections: IndexMap<String, Section> = IndexMap::new();
    let mut current: Option<usize> = None;
    let mut lines = (1u32..).zip(
        text.split('\n')
            .map(|line| line.strip_suffix('\r').unwrap_or(line)),
    );
    while let Some((number, first)) = lines.next() {
        let mut logical = strip_comment(first).trim().to_owned();
        // A backslash at the end of a line, outside quotes, goes on in the next one.
        while logical.ends_with('\\') && !in_quotes(&logical) {
            logical.pop();
            let Some((_, next)) = lines.next() else {
                break;
            };
            logical.push_str(strip_comment(next).trim());
        }
        if logical.is_empty() {
            continue;
        }
        if let Some(rest) = logical.strip_prefix('[') {
            let name = match rest.strip_suffix(']') {
                Some(name) if !name.trim().is_empty() => unquote_name(name.trim()),
                _ => {
                    let problem = "not a section header";
                    return Err(mistake(
                        file,
                        number,
                        None,
                        &logical,
                        problem,
                        "write [Section]",
                    ));
                }
            };
            let entry = sections.entry(name.to_ascii_lowercase());
            current = Some(entry.index());
            entry.or_insert_with(|| Section {
                name,
                line: number,
                lines: Vec::new(),
            });
            continue;
        }
        let Some((_, section)) = current.and_then(|index| sections.get_index_mut(index)) else {
            let problem = "a line before the first section";
            return Err(mistake(
                file,
                number,
                None,
                &logical,
                problem,
                "put it into a [Section] or make it a comment with ;",
            ));
        };
        match split(&logical) {
            Ok((key, values)) => section.lines.push(Line {
                number,
                key,
                values,
            }),
            Err((problem, way_out)) => {
                return Err(mistake(
                    file,
                    number,
                    Some(&section.name),
                    &logical,
                    problem,
                    way_out,
                ));
            }
        }
    }
    Ok(sections)
}

fn unquote_name(name: &str) -> String {
    let inner = name
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    inner.unwrap_or(name).to_owned()
}

fn in_quotes(text: &str) -> bool {
    text.matches('"').count() % 2 == 1
}

/// Cuts a comment off: a semicolon outside quotes.
fn strip_comment(line: &str) -> &str {
    let mut quoted = false;
    for (at, letter) in line.char_indices() {
        match letter {
            '"' => quoted = !quoted,
            ';' if !quoted => return &line[..at],
            _ => {}
        }
    }
    line
}

type Problem = (&'static str, &'static str);

/// Splits `key = a, "b, c", d`. An equals sign makes a key only before the first comma.
fn split(line: &str) -> Result<(Option<String>, Vec<String>), Problem> {
    let mut key = None;
    let mut values = Vec::new();
    let mut field = Field::default();
    let mut letters = line.chars().peekable();
    let mut quoted = false;
    while let Some(letter) = letters.next() {
        match letter {
            // A doubled quote within quotes is one.
            '"' if quoted && letters.peek() == Some(&'"') => {
                letters.next();
                field.push_quoted('"');
            }
            '"' => {
                quoted = !quoted;
                field.seen_quote();
            }
            letter if quoted => field.push_quoted(letter),
            '=' if key.is_none() && values.is_empty() => {
                let name = field.take();
                if name.is_empty() {
                    return Err(("nothing before \"=\"", "write key = value"));
                }
                key = Some(name);
            }
            ',' => values.push(field.take()),
            letter => field.push(letter),
        }
    }
    if quoted {
        return Err(("a quote that is not closed on its line", "close it with \""));
    }
    values.push(field.take());
    Ok((key, values))
}

/// A value in the making: blanks around it do not count, blanks in quotes do.
#[derive(Default)]
struct Field {
    text: String,
    /// As much of `text` as trimming must keep.
    kept: usize,
}

impl Field {
    fn push(&mut self, letter: char) {
        if letter.is_whitespace() && self.text.is_empty() {
            return;
        }
        self.text.push(letter);
        if !letter.is_whitespace() {
            self.kept = self.text.len();
        }
    }

    fn push_quoted(&mut self, letter: char) {
        self.text.push(letter);
        self.kept = self.text.len();
    }

    fn seen_quote(&mut self) {
        self.kept = self.text.len();
    }

    fn take(&mut self) -> String {
        self.text.truncate(self.kept);
        self.kept = 0;
        std::mem::take(&mut self.text)
    }
}

/// Puts the `[Strings]` in; `%12%` and other numbers are folders and stay, `%%` is a per cent sign.
pub(super) fn substitute(
    file: &str,
    sections: IndexMap<String, Section>,
) -> Result<IndexMap<String, Section>, InfError> {
    let mut strings: HashMap<String, String> = HashMap::new();
    // The simulated machine speaks English (0409); what it lacks is in [Strings] itself.
    for name in ["strings.0409", "strings"] {
        let Some(section) = sections.get(name) else {
            continue;
        };
        let mut seen = HashMap::new();
        for line in &section.lines {
            let Some(key) = &line.key else {
                let problem = "not a string's definition";
                let value = line.values.join(",");
                return Err(mistake(
                    file,
                    line.number,
                    Some(&section.name),
                    value,
                    problem,
                    "write Name = \"text\"",
                ));
            };
            let folded = key.to_lowercase();
            if let Some(first) = seen.insert(folded.clone(), line.number) {
                let problem = format!("a string that line {first} defines already");
                return Err(mistake(
                    file,
                    line.number,
                    Some(&section.name),
                    key,
                    problem,
                    "define it once",
                ));
            }
            // An unquoted text may hold commas.
            strings
                .entry(folded)
                .or_insert_with(|| line.values.join(", "));
        }
    }
    sections
        .into_iter()
        .map(|(folded, mut section)| {
            if folded == "strings" || folded.starts_with("strings.") {
                return Ok((folded, section));
            }
            for line in &mut section.lines {
                for text in line.key.iter_mut().chain(&mut line.values) {
                    *text = expand(text, &strings).map_err(|(name, problem, way_out)| {
                        mistake(
                            file,
                            line.number,
                            Some(&section.name),
                            name,
                            problem,
                            way_out,
                        )
                    })?;
                }
            }
            Ok((folded, section))
        })
        .collect()
}

fn expand(
    text: &str,
    strings: &HashMap<String, String>,
) -> Result<String, (String, &'static str, &'static str)> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find('%') {
        out.push_str(&rest[..start]);
        rest = &rest[start + 1..];
        let Some(end) = rest.find('%') else {
            return Err((
                text.to_owned(),
                "a per cent sign without its partner",
                "write %% for a per cent sign",
            ));
        };
        let name = &rest[..end];
        rest = &rest[end + 1..];
        if name.is_empty() {
            out.push('%');
        } else if name.bytes().all(|byte| byte.is_ascii_digit()) {
            out.push('%');
            out.push_str(name);
            out.push('%');
        } else if let Some(value) = strings.get(&name.to_lowercase()) {
            out.push_str(value);
        } else {
            return Err((
                format!("%{name}%"),
                "an undefined string",
                "define it in [Strings], or write %% for a per cent sign",
            ));
        }
        if out.len() > MAX_VALUE {
            return Err((
                text.to_owned(),
                "longer than 4096 characters with its strings put in",
                "shorten it",
            ));
        }
    }
    out.push_str(rest);
    Ok(out)
}
