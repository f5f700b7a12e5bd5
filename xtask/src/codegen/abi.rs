// SPDX-License-Identifier: MIT OR Apache-2.0

//! The KMDF interface as data: `openwdk/abi/kmdf-1.33.json`.

use serde::Deserialize;
use serde_json::{Map, Value};
use std::path::Path;

/// The parts of the data file that the generator reads, in the file's order.
#[derive(Deserialize)]
pub struct Abi {
    pub function_count: u32,
    functions: Map<String, Value>,
    enums: Map<String, Value>,
    structs: Map<String, Value>,
    constants: Map<String, Value>,
    typedefs: Map<String, Value>,
    callbacks: Map<String, Value>,
}

/// One entry of the function table.
#[derive(Deserialize)]
pub struct Function {
    pub index: u32,
    /// Canonical C type; absent for functions that only class extensions see.
    pub returns: Option<String>,
    /// `TYPE Name` for each, the driver globals first.
    pub params: Option<Vec<String>>,
}

/// The type of a callback.
#[derive(Deserialize)]
pub struct Callback {
    pub returns: String,
    pub params: Vec<String>,
}

/// An enumeration: its tag, and its values in order.
pub type Enum<'a> = (&'a str, Vec<(&'a str, i64)>);

/// A structure or union.
#[derive(Deserialize)]
pub struct Record {
    pub size: usize,
    pub align: usize,
    fields: Map<String, Value>,
}

/// A field of a [`Record`].
#[derive(Deserialize)]
pub struct Field {
    pub offset: usize,
    pub size: usize,
    #[serde(rename = "type")]
    pub ty: String,
}

impl Abi {
    pub fn load(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
        serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))
    }

    pub fn functions(&self) -> Result<Vec<(&str, Function)>, String> {
        let mut all = entries::<Function>(&self.functions)?;
        all.sort_by_key(|(_, f)| f.index);
        Ok(all)
    }

    pub fn structs(&self) -> Result<Vec<(&str, Record)>, String> {
        entries(&self.structs)
    }

    pub fn enums(&self) -> Result<Vec<Enum<'_>>, String> {
        self.enums
            .iter()
            .map(|(name, values)| {
                let values = values
                    .as_object()
                    .ok_or_else(|| format!("enum {name}: not an object"))?;
                let values = values
                    .iter()
                    .map(|(item, v)| {
                        v.as_i64()
                            .map(|v| (item.as_str(), v))
                            .ok_or_else(|| format!("enum {name}, {item}: {v} is not an integer"))
                    })
                    .collect::<Result<_, _>>()?;
                Ok((name.as_str(), values))
            })
            .collect()
    }

    pub fn constants(&self) -> impl Iterator<Item = (&str, &str)> {
        strings(&self.constants)
    }

    pub fn typedefs(&self) -> impl Iterator<Item = (&str, &str)> {
        strings(&self.typedefs)
    }

    pub fn callback_types(&self) -> Result<Vec<(&str, Callback)>, String> {
        entries(&self.callbacks)
    }

    pub fn callbacks(&self) -> impl Iterator<Item = &str> {
        self.callbacks.keys().map(String::as_str)
    }
}

impl Record {
    pub fn fields(&self) -> Result<Vec<(&str, Field)>, String> {
        entries(&self.fields)
    }
}

fn strings(map: &Map<String, Value>) -> impl Iterator<Item = (&str, &str)> {
    map.iter()
        .map(|(k, v)| (k.as_str(), v.as_str().unwrap_or_default()))
}

fn entries<T: for<'a> Deserialize<'a>>(map: &Map<String, Value>) -> Result<Vec<(&str, T)>, String> {
    map.iter()
        .map(|(name, value)| {
            serde_json::from_value(value.clone())
                .map(|v| (name.as_str(), v))
                .map_err(|e| format!("kmdf-1.33.json, {name}: {e}"))
        })
        .collect()
}
