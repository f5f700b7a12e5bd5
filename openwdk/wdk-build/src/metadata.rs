// SPDX-License-Identifier: MIT OR Apache-2.0

//! The driver model that the build graph names, in `package.metadata.wdk` of a
//! driver or in `workspace.metadata.wdk`.
//!
//! ```toml
//! [package.metadata.wdk.driver-model]
//! driver-type = "KMDF"
//! kmdf-version-major = 1
//! target-kmdf-version-minor = 33
//! ```
//!
//! An empty `[package.metadata.wdk]` only marks a package as a driver.

use cargo_metadata::Metadata;
use serde_json::{Map, Value};
use thiserror::Error;

use crate::{DriverConfig, KmdfConfig, UmdfConfig};

/// The content of a `metadata.wdk` table.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Wdk {
    /// The driver model.
    pub driver_model: DriverConfig,
}

/// Why the build graph does not give a driver model.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum TryFromCargoMetadataError {
    /// No package names one.
    #[error(
        "no package of the build graph has a driver model: a driver's Cargo.toml needs \
         [package.metadata.wdk.driver-model] with driver-type = \"KMDF\", kmdf-version-major = 1 \
         and target-kmdf-version-minor = 33"
    )]
    NoWdkConfigurationsDetected,

    /// Several packages name different ones.
    #[error(
        "the build graph has several driver models, but all drivers of a workspace must have the \
         same: {}", .found.join("; ")
    )]
    MultipleWdkConfigurationsDetected {
        /// Where each stands, and what it is.
        found: Vec<String>,
    },

    /// One is malformed.
    #[error("{metadata_source}: {reason}")]
    WdkMetadataDeserialization {
        /// Manifest and field.
        metadata_source: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl TryFrom<&Metadata> for Wdk {
    type Error = TryFromCargoMetadataError;

    fn try_from(metadata: &Metadata) -> Result<Self, Self::Error> {
        let packages = metadata.packages.iter().map(|package| {
            (
                format!("{}: package.metadata", package.manifest_path),
                &package.metadata,
            )
        });
        let workspace = format!("{}/Cargo.toml: workspace.metadata", metadata.workspace_root);
        from_tables(packages.chain([(workspace, &metadata.workspace_metadata)]))
    }
}

/// Takes the driver model from `metadata` tables, each with its place.
fn from_tables<'a>(
    tables: impl IntoIterator<Item = (String, &'a Value)>,
) -> Result<Wdk, TryFromCargoMetadataError> {
    let mut found: Vec<(String, Wdk)> = Vec::new();
    for (place, table) in tables {
        match &table["wdk"] {
            Value::Null => {}
            Value::Object(wdk) if wdk.is_empty() => {}
            wdk => found.push((place.clone(), parse(&format!("{place}.wdk"), wdk)?)),
        }
    }
    let Some((_, first)) = found.first() else {
        return Err(TryFromCargoMetadataError::NoWdkConfigurationsDetected);
    };
    if found.iter().any(|(_, other)| other != first) {
        let found = found
            .iter()
            .map(|(place, wdk)| format!("{place}: {:?}", wdk.driver_model));
        return Err(
            TryFromCargoMetadataError::MultipleWdkConfigurationsDetected {
                found: found.collect(),
            },
        );
    }
    Ok(first.clone())
}

fn parse(place: &str, wdk: &Value) -> Result<Wdk, TryFromCargoMetadataError> {
    let mut wdk = Table::new(place.to_owned(), wdk)?;
    let mut model = Table::new(format!("{place}.driver-model"), &wdk.take("driver-model"))?;
    wdk.finish("driver-model")?;
    let driver_type = model.take("driver-type");
    let driver_model = match driver_type.as_str() {
        Some("WDM") => {
            model.finish("driver-type")?;
            DriverConfig::Wdm
        }
        Some("KMDF") => {
            let config = KmdfConfig {
                kmdf_version_major: model.number("kmdf-version-major")?,
                target_kmdf_version_minor: model.number("target-kmdf-version-minor")?,
                minimum_kmdf_version_minor: model.optional_number("minimum-kmdf-version-minor")?,
            };
            model.finish(
                "driver-type, kmdf-version-major, target-kmdf-version-minor, \
                 minimum-kmdf-version-minor",
            )?;
            if config.minimum() > config.target_kmdf_version_minor {
                return Err(model.error(
                    "minimum-kmdf-version-minor",
                    &config.minimum().into(),
                    "expected at most target-kmdf-version-minor",
                ));
            }
            DriverConfig::Kmdf(config)
        }
        Some("UMDF") => {
            let config = UmdfConfig {
                umdf_version_major: model.number("umdf-version-major")?,
                target_umdf_version_minor: model.number("target-umdf-version-minor")?,
                minimum_umdf_version_minor: model.optional_number("minimum-umdf-version-minor")?,
            };
            model.finish(
                "driver-type, umdf-version-major, target-umdf-version-minor, \
                 minimum-umdf-version-minor",
            )?;
            DriverConfig::Umdf(config)
        }
        _ => {
            let expected = "expected \"WDM\", \"KMDF\" or \"UMDF\"";
            return Err(model.error("driver-type", &driver_type, expected));
        }
    };
    Ok(Wdk { driver_model })
}

/// A table whose entries are taken one by one, so that what is left over is
/// known to be a mistake.
struct Table {
    place: String,
    entries: Map<String, Value>,
}

impl Table {
    fn new(place: String, value: &Value) -> Result<Self, TryFromCargoMetadataError> {
        match value {
            Value::Object(entries) => Ok(Self {
                place,
                entries: entries.clone(),
            }),
            other => Err(TryFromCargoMetadataError::WdkMetadataDeserialization {
                metadata_source: place,
                reason: match other {
                    Value::Null => "missing: expected a table".to_owned(),
                    other => format!("{other}: expected a table"),
                },
            }),
        }
    }

    fn take(&mut self, key: &str) -> Value {
        self.entries.remove(key).unwrap_or(Value::Null)
    }

    fn number(&mut self, key: &str) -> Result<u8, TryFromCargoMetadataError> {
        let value = self.take(key);
        value
            .as_u64()
            .and_then(|number| u8::try_from(number).ok())
            .ok_or_else(|| self.error(key, &value, "expected a number from 0 to 255"))
    }

    fn optional_number(&mut self, key: &str) -> Result<Option<u8>, TryFromCargoMetadataError> {
        if self.entries.contains_key(key) {
            self.number(key).map(Some)
        } else {
            Ok(None)
        }
    }

    /// Checks that nothing but `known` was in the table.
    fn finish(&self, known: &str) -> Result<(), TryFromCargoMetadataError> {
        match self.entries.iter().next() {
            None => Ok(()),
            Some((key, value)) => {
                Err(self.error(key, value, &format!("unknown key; known here: {known}")))
            }
        }
    }

    fn error(&self, key: &str, value: &Value, reason: &str) -> TryFromCargoMetadataError {
        TryFromCargoMetadataError::WdkMetadataDeserialization {
            metadata_source: format!("{}.{key}", self.place),
            reason: match value {
                Value::Null => format!("missing: {reason}"),
                value => format!("{value}: {reason}"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn kmdf(minor: u8) -> Value {
        json!({ "wdk": { "driver-model": {
            "driver-type": "KMDF",
            "kmdf-version-major": 1,
            "target-kmdf-version-minor": minor,
        } } })
    }

    fn read(tables: &[(&str, &Value)]) -> Result<DriverConfig, String> {
        from_tables(
            tables
                .iter()
                .map(|(place, table)| ((*place).to_owned(), *table)),
        )
        .map(|wdk| wdk.driver_model)
        .map_err(|error| error.to_string())
    }

    fn read_model(model: &Value) -> Result<DriverConfig, String> {
        read(&[(
            "sensor/Cargo.toml: package.metadata",
            &json!({ "wdk": { "driver-model": model } }),
        )])
    }

    #[test]
    fn one_driver_gives_its_model() {
        let expected = DriverConfig::Kmdf(KmdfConfig::new());
        assert_eq!(read(&[("a", &kmdf(33)), ("b", &Value::Null)]), Ok(expected));
    }

    #[test]
    fn equal_models_in_package_and_workspace_are_one_model() {
        assert!(read(&[("a", &kmdf(33)), ("b", &kmdf(33))]).is_ok());
    }

    #[test]
    fn different_models_are_an_error_that_names_both_places() {
        let error = read(&[("a/Cargo.toml", &kmdf(33)), ("b/Cargo.toml", &kmdf(31))]).unwrap_err();
        assert!(
            error.contains("a/Cargo.toml") && error.contains("b/Cargo.toml"),
            "{error}"
        );
        assert!(error.contains("33") && error.contains("31"), "{error}");
    }

    #[test]
    fn empty_table_is_no_model() {
        let error = read(&[("a", &json!({ "wdk": {} }))]).unwrap_err();
        assert!(
            error.contains("[package.metadata.wdk.driver-model]"),
            "{error}"
        );
    }

    #[test]
    fn unknown_driver_type_is_named_with_its_place() {
        assert_eq!(
            read_model(&json!({ "driver-type": "KMFD" })).unwrap_err(),
            "sensor/Cargo.toml: package.metadata.wdk.driver-model.driver-type: \"KMFD\": expected \
             \"WDM\", \"KMDF\" or \"UMDF\""
        );
    }

    #[test]
    fn missing_and_oversized_versions_are_named() {
        let mut model = json!({ "driver-type": "KMDF", "kmdf-version-major": 1 });
        let error = read_model(&model).unwrap_err();
        assert!(
            error.contains("target-kmdf-version-minor: missing"),
            "{error}"
        );
        model["target-kmdf-version-minor"] = json!(256);
        let error = read_model(&model).unwrap_err();
        assert!(error.contains("target-kmdf-version-minor: 256"), "{error}");
    }

    #[test]
    fn minimum_above_target_is_an_error() {
        let error = read_model(&json!({
            "driver-type": "KMDF",
            "kmdf-version-major": 1,
            "target-kmdf-version-minor": 31,
            "minimum-kmdf-version-minor": 33,
        }))
        .unwrap_err();
        assert!(error.contains("minimum-kmdf-version-minor: 33"), "{error}");
    }

    #[test]
    fn unknown_keys_are_named() {
        let error = read_model(&json!({ "driver-type": "WDM", "kmdf-version": 1 })).unwrap_err();
        assert!(
            error.contains("driver-model.kmdf-version: 1: unknown key"),
            "{error}"
        );
    }
}
