// SPDX-License-Identifier: MIT OR Apache-2.0

//! `ntsim reg`: the machine's registry, as reg.exe shows and changes it.
//!
//! What reg.exe would ask on the console is an error here that names `/f` or `/y`:
//! a script never waits for an answer. See [`reg` commands][reg].
//!
//! [reg]: https://learn.microsoft.com/windows-server/administration/windows-commands/reg

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use ntsim::registry::{
    KeyId, REG_BINARY, REG_DWORD, REG_DWORD_BIG_ENDIAN, REG_EXPAND_SZ, REG_LINK, REG_MULTI_SZ,
    REG_NONE, REG_QWORD, REG_SZ, RegString, Registry, RegistryError, Value, Volatility,
};

use crate::end::{End, Ended, Failure};
use crate::place::{self, Place};

const EXAMPLES: &str = r"Examples:
  ntsim reg query HKLM\SYSTEM\CurrentControlSet\Services /s
  ntsim reg add HKLM\SYSTEM\CurrentControlSet\Services\Sensor\Parameters /v Depth /t REG_DWORD /d 8 /f
  ntsim reg export HKLM\SYSTEM\CurrentControlSet\Enum devices.reg /y
  ntsim reg import settings.reg

Options may be written /v, -v or --v, in any case.";

/// Show and change the machine's registry, as reg.exe does
#[derive(Args)]
#[command(after_help = EXAMPLES, after_long_help = [EXAMPLES, place::ABOUT].join("\n\n"))]
pub(crate) struct Reg {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Show a key's values and subkeys
    #[command(after_help = r"Examples:
  ntsim reg query HKLM\SYSTEM\CurrentControlSet\Services\Sensor /v Start
  ntsim reg query HKLM\SYSTEM\CurrentControlSet\Enum /s")]
    Query(Query),
    /// Add a key or set a value
    #[command(after_help = r"Examples:
  ntsim reg add HKLM\SOFTWARE\Sensor /v Depth /t REG_DWORD /d 0x10 /f
  ntsim reg add HKLM\SOFTWARE\Sensor /v Names /t REG_MULTI_SZ /d first\0second")]
    Add(Add),
    /// Delete a value or a key with everything below it
    #[command(after_help = r"Examples:
  ntsim reg delete HKLM\SOFTWARE\Sensor /v Depth /f
  ntsim reg delete HKLM\SOFTWARE\Sensor /f")]
    Delete(Delete),
    /// Write a key and what is below it to a .reg file
    #[command(after_help = r"Examples:
  ntsim reg export HKLM\SYSTEM system.reg /y")]
    Export(Export),
    /// Merge a .reg file into the registry: all of it, or nothing if it has a mistake
    #[command(after_help = r"Examples:
  ntsim reg import settings.reg")]
    Import(Import),
}

#[derive(Args)]
struct Query {
    /// The key, such as `HKLM\SYSTEM` or `HKEY_LOCAL_MACHINE\SYSTEM`
    key: String,
    /// Only the value of this name
    #[arg(long, value_name = "NAME")]
    v: Option<String>,
    /// Only the default value
    #[arg(long, conflicts_with = "v")]
    ve: bool,
    /// Subkeys too, and theirs
    #[arg(long)]
    s: bool,
    #[command(flatten)]
    place: Place,
}

#[derive(Args)]
struct Add {
    /// The key, such as HKLM\SOFTWARE\Sensor
    key: String,
    /// The value's name
    #[arg(long, value_name = "NAME")]
    v: Option<String>,
    /// The default value
    #[arg(long, conflicts_with = "v")]
    ve: bool,
    /// The value's type; without it, `REG_SZ`
    #[arg(long, value_name = "TYPE", value_parser = kind_of, ignore_case = true)]
    t: Option<u32>,
    /// What stands between the strings of a `REG_MULTI_SZ`; without it, `\0`
    #[arg(
        long,
        value_name = "SEPARATOR",
        default_value = r"\0",
        hide_default_value = true
    )]
    s: String,
    /// The data; numbers in decimal, or in hexadecimal after 0x
    #[arg(long, value_name = "DATA")]
    d: Option<String>,
    /// Overwrite a value that is there
    #[arg(long)]
    f: bool,
    #[command(flatten)]
    place: Place,
}

#[derive(Args)]
struct Delete {
    /// The key
    key: String,
    /// Only the value of this name
    #[arg(long, value_name = "NAME")]
    v: Option<String>,
    /// Only the default value
    #[arg(long, conflicts_with = "v")]
    ve: bool,
    /// All values, but no subkeys
    #[arg(long, conflicts_with_all = ["v", "ve"])]
    va: bool,
    /// Do it without asking: there is nobody to ask
    #[arg(long)]
    f: bool,
    #[command(flatten)]
    place: Place,
}

#[derive(Args)]
struct Export {
    /// The key
    key: String,
    /// The file
    file: PathBuf,
    /// Overwrite a file that is there
    #[arg(long)]
    y: bool,
    #[command(flatten)]
    place: Place,
}

#[derive(Args)]
struct Import {
    /// The file
    file: PathBuf,
    #[command(flatten)]
    place: Place,
}

const DONE: &str = "The operation has completed.";

/// The types by the names that reg.exe has for them.
const KINDS: [(&str, u32); 10] = [
    ("REG_SZ", REG_SZ),
    ("REG_MULTI_SZ", REG_MULTI_SZ),
    ("REG_EXPAND_SZ", REG_EXPAND_SZ),
    ("REG_DWORD", REG_DWORD),
    ("REG_QWORD", REG_QWORD),
    ("REG_BINARY", REG_BINARY),
    ("REG_NONE", REG_NONE),
    ("REG_DWORD_BIG_ENDIAN", REG_DWORD_BIG_ENDIAN),
    ("REG_DWORD_LITTLE_ENDIAN", REG_DWORD),
    ("REG_LINK", REG_LINK),
];

fn kind_of(text: &str) -> Result<u32, String> {
    let found = KINDS
        .iter()
        .filter(|(_, kind)| *kind != REG_LINK)
        .find(|(name, _)| name.eq_ignore_ascii_case(text));
    found.map(|(_, kind)| *kind).ok_or_else(|| {
        let names: Vec<_> = KINDS.iter().map(|(name, _)| *name).collect();
        format!(
            "not a type; there are {}",
            names[..names.len() - 1].join(", ")
        )
    })
}

impl Reg {
    pub(crate) fn execute(&self) -> Ended {
        match &self.what {
            What::Query(query) => query.execute(),
            What::Add(add) => add.execute(),
            What::Delete(delete) => delete.execute(),
            What::Export(export) => export.execute(),
            What::Import(import) => import.execute(),
        }
    }
}

/// The value that `/v` or `/ve` names.
fn value_name(v: Option<&String>, ve: bool) -> Option<&str> {
    v.map(String::as_str).or(ve.then_some(""))
}

fn shown(name: &str) -> &str {
    if name.is_empty() { "(Default)" } else { name }
}

/// The path as it was typed, with the root's long name.
fn long_path(key: &str) -> String {
    let key = key.trim_end_matches('\\');
    let (root, rest) = key.split_once('\\').unwrap_or((key, ""));
    let root = match root.to_ascii_uppercase().as_str() {
        "HKLM" => "HKEY_LOCAL_MACHINE".to_owned(),
        "HKU" => "HKEY_USERS".to_owned(),
        "HKCR" => "HKEY_CLASSES_ROOT".to_owned(),
        _ if root.is_empty() => String::new(),
        upper if upper.starts_with("HKEY_") => upper.to_owned(),
        _ => root.to_owned(),
    };
    if rest.is_empty() {
        root
    } else {
        format!("{root}\\{rest}")
    }
}

/// Opens a key; if it is not there, says how far the path leads.
fn open(registry: &Registry, key: &str) -> Result<KeyId, Failure> {
    let missing = match registry.open(key) {
        Ok(found) => return Ok(found),
        Err(RegistryError::NotFound(_)) => long_path(key),
        Err(error) => return Err(error.into()),
    };
    let mut above = missing.as_str();
    while let Some((parent, _)) = above.rsplit_once('\\') {
        above = parent;
        let Ok(found) = registry.open(above) else {
            continue;
        };
        let names: Vec<_> = registry
            .subkeys(found)?
            .filter_map(|key| registry.name(key).ok().map(RegString::to_string))
            .collect();
        let names = if names.is_empty() {
            "no subkeys".to_owned()
        } else {
            names.join(", ")
        };
        return Err(Failure::Input(format!(
            "{missing}: no such key in the registry; {above} has {names}"
        )));
    }
    Err(Failure::Input(format!(
        "{missing}: no such key in the registry"
    )))
}

impl Query {
    fn execute(&self) -> Ended {
        let dir = self.place.look()?;
        let registry = dir.registry();
        let key = open(registry, &self.key)?;
        let mut text = String::new();
        let mut found = 0;
        self.write(registry, key, &long_path(&self.key), &mut text, &mut found)?;
        let name = value_name(self.v.as_ref(), self.ve);
        if let Some(name) = name
            && found == 0
            && (!self.ve || self.s)
        {
            return Err(Failure::Input(format!(
                "{}: no value {}{}",
                long_path(&self.key),
                shown(name),
                if self.s {
                    ", nor in any key below it"
                } else {
                    ""
                }
            )));
        }
        print!("{text}");
        if name.is_some() && self.s {
            println!("End of search: {found} found.");
        }
        Ok(End::Done)
    }

    fn write(
        &self,
        registry: &Registry,
        key: KeyId,
        path: &str,
        text: &mut String,
        found: &mut usize,
    ) -> Result<(), Failure> {
        let name = value_name(self.v.as_ref(), self.ve);
        let mut lines = String::new();
        for (other, value) in registry.values(key)? {
            if name.is_none_or(|name| RegString::from(name).eq_ignore_case(other)) {
                *found += 1;
                line(&mut lines, shown(&other.to_string()), value);
            }
        }
        if self.ve && !self.s && lines.is_empty() {
            let _ = writeln!(lines, "    (Default)    REG_SZ    (value not set)");
        }
        if !lines.is_empty() || name.is_none() {
            if text.is_empty() || !lines.is_empty() && !text.ends_with("\n\n") {
                text.push('\n');
            }
            let _ = writeln!(text, "{path}");
            text.push_str(&lines);
            if !lines.is_empty() {
                text.push('\n');
            }
        }
        for subkey in registry.subkeys(key)? {
            let below = format!("{path}\\{}", registry.name(subkey)?);
            // A link leads to a key that is shown under its own name.
            if self.s && !registry.is_link(subkey)? {
                self.write(registry, subkey, &below, text, found)?;
            } else if !self.s && name.is_none() {
                let _ = writeln!(text, "{below}");
            }
        }
        Ok(())
    }
}

/// `    Name    REG_SZ    data`.
fn line(text: &mut String, name: &str, value: &Value) {
    let kind = KINDS.iter().find(|(_, kind)| *kind == value.kind);
    let kind = kind.map_or_else(
        || format!("0x{:x}", value.kind),
        |(name, _)| (*name).to_owned(),
    );
    let data = if let Some(number) = value.as_dword() {
        format!("0x{number:x}")
    } else if let Some(number) = value.as_qword() {
        format!("0x{number:x}")
    } else if let Some(text) = value.as_sz() {
        text.to_string()
    } else if let Some(strings) = value.as_multi_sz() {
        let strings: Vec<_> = strings.iter().map(RegString::to_string).collect();
        strings.join(r"\0")
    } else {
        value.data.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02X}");
            text
        })
    };
    let _ = writeln!(text, "    {name}    {kind}    {data}");
}

impl Add {
    fn execute(&self) -> Ended {
        let name = value_name(self.v.as_ref(), self.ve);
        if name.is_none() && (self.t.is_some() || self.d.is_some()) {
            return Err(Failure::Input(
                "/t and /d belong to a value; name it with /v, or /ve for the default value"
                    .to_owned(),
            ));
        }
        let value = self.value().map_err(Failure::Input)?;
        // The path, before a machine is made for it.
        Registry::new().create(self.key.as_str(), Volatility::Persistent)?;
        let mut dir = self.place.open_or_create()?;
        let registry = dir.registry_mut();
        let key = registry.create(self.key.as_str(), Volatility::Persistent)?;
        if let Some(name) = name {
            if registry.value(key, name).is_ok() && !self.f {
                return Err(Failure::Input(format!(
                    "{}: the value {} is there already; /f overwrites it",
                    long_path(&self.key),
                    shown(name)
                )));
            }
            registry.set_value(key, name, value)?;
        }
        dir.commit_registry()?;
        println!("{DONE}");
        Ok(End::Done)
    }

    fn value(&self) -> Result<Value, String> {
        let data = self.d.as_deref();
        let bad = |what: &str| format!("/d \"{}\": {what}", data.unwrap_or_default());
        let number = |most: u64| -> Result<u64, String> {
            let Some(text) = data else {
                return Ok(0);
            };
            let hex = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
            let number = match hex {
                Some(digits) => u64::from_str_radix(digits, 16).ok(),
                None => text.parse().ok(),
            };
            number
                .filter(|number| *number <= most && !text.starts_with('+'))
                .ok_or_else(|| bad(&format!("not a number from 0 to {most}")))
        };
        let text = data.unwrap_or_default();
        match self.t.unwrap_or(REG_SZ) {
            REG_SZ => Ok(Value::sz(text)),
            REG_EXPAND_SZ => Ok(Value::expand_sz(text)),
            REG_MULTI_SZ => {
                if self.s.is_empty() {
                    return Err("/s \"\": a separator needs a character".to_owned());
                }
                let strings: Vec<_> = text.split(&self.s).collect();
                // One at the end is allowed, as a terminator.
                let strings = strings.strip_suffix(&[""]).unwrap_or(&strings);
                if strings.contains(&"") {
                    return Err(bad("a REG_MULTI_SZ cannot have an empty string in it"));
                }
                Ok(Value::multi_sz(strings.iter().copied()))
            }
            REG_QWORD => Ok(Value::qword(number(u64::MAX)?)),
            kind @ (REG_DWORD | REG_DWORD_BIG_ENDIAN) => {
                let number = number(u64::from(u32::MAX))?;
                let number = u32::try_from(number).unwrap_or(u32::MAX);
                Ok(if kind == REG_DWORD {
                    Value::dword(number)
                } else {
                    Value::new(kind, number.to_be_bytes())
                })
            }
            kind => {
                let digits: Option<Vec<u8>> = text
                    .bytes()
                    .map(|letter| char::from(letter).to_digit(16)?.try_into().ok())
                    .collect();
                match digits {
                    Some(digits) if digits.len() % 2 == 0 => {
                        let bytes: Vec<u8> = digits
                            .chunks_exact(2)
                            .map(|pair| pair[0] << 4 | pair[1])
                            .collect();
                        Ok(Value::new(kind, bytes))
                    }
                    _ => Err(bad("not bytes; write two hexadecimal digits for each")),
                }
            }
        }
    }
}

impl Delete {
    fn execute(&self) -> Ended {
        if !self.f {
            return Err(Failure::Input(format!(
                "{}: nothing is deleted without /f",
                long_path(&self.key)
            )));
        }
        let mut dir = self.place.open()?;
        let key = open(dir.registry(), &self.key)?;
        let registry = dir.registry_mut();
        if let Some(name) = value_name(self.v.as_ref(), self.ve) {
            registry.delete_value(key, name).map_err(|_| {
                Failure::Input(format!(
                    "{}: no value {}",
                    long_path(&self.key),
                    shown(name)
                ))
            })?;
        } else if self.va {
            let names: Vec<RegString> = registry
                .values(key)?
                .map(|(name, _)| name.clone())
                .collect();
            for name in names {
                registry.delete_value(key, name)?;
            }
        } else {
            registry.delete_tree(key)?;
        }
        dir.commit_registry()?;
        println!("{DONE}");
        Ok(End::Done)
    }
}

impl Export {
    fn execute(&self) -> Ended {
        let dir = self.place.look()?;
        let key = open(dir.registry(), &self.key)?;
        let bytes = dir.registry().export(key, long_path(&self.key))?;
        let mut options = std::fs::File::options();
        options.write(true);
        if self.y {
            options.create(true).truncate(true);
        } else {
            options.create_new(true);
        }
        let written = options
            .open(&self.file)
            .and_then(|mut file| std::io::Write::write_all(&mut file, &bytes));
        written.map_err(|error| {
            let hint = if error.kind() == std::io::ErrorKind::AlreadyExists {
                "; /y overwrites it"
            } else {
                ""
            };
            Failure::Input(format!(
                "{}: cannot write the registry file: {error}{hint}",
                self.file.display()
            ))
        })?;
        println!("{DONE}");
        Ok(End::Done)
    }
}

impl Import {
    fn execute(&self) -> Ended {
        let bytes = std::fs::read(&self.file).map_err(|error| {
            Failure::Input(format!(
                "{}: cannot read the registry file: {error}",
                self.file.display()
            ))
        })?;
        let name = self.file.display().to_string();
        // Read once before a machine is made for it.
        Registry::from_reg(name.clone(), &bytes)?;
        let mut dir = self.place.open_or_create()?;
        dir.registry_mut().import(name, &bytes)?;
        dir.commit_registry()?;
        println!("{DONE}");
        Ok(End::Done)
    }
}
