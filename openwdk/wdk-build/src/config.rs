// SPDX-License-Identifier: MIT OR Apache-2.0

//! The configuration of one build.

use std::{env, fmt, path::PathBuf};

use cargo_metadata::MetadataCommand;

use crate::{
    ApiSubset, ConfigError, CpuArchitecture, DriverConfig, find_top_level_cargo_manifest, headers,
    kit::{self, Kit},
    library, metadata,
};

/// Everything that a build depending on the WDK has to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    kit: Kit,
    cpu_architecture: CpuArchitecture,
    /// The driver model.
    pub driver_config: DriverConfig,
}

impl Config {
    /// Returns the configuration of a WDM driver with the kit of this machine.
    ///
    /// # Panics
    /// Outside of a build script, or if no kit is found.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the driver model from the build graph, and the kit and the
    /// processor from the environment.
    ///
    /// # Errors
    /// When the graph does not name exactly one driver model, no kit is found,
    /// or the processor is not one that Windows drivers are built for.
    pub fn from_env_auto() -> Result<Self, ConfigError> {
        for variable in kit::VARIABLES {
            println!("cargo::rerun-if-env-changed={variable}");
        }
        let manifest = find_top_level_cargo_manifest()?;
        let mut command = MetadataCommand::new();
        command.manifest_path(&manifest);
        if let Some(directory) = manifest.parent() {
            // So that cargo takes the configuration that the build itself has.
            command.current_dir(directory);
        }
        let metadata = command.exec()?;
        // What a manifest says decides the build. Those of other people's
        // packages cannot change without another version of the package.
        println!("cargo::rerun-if-changed={}", manifest.display());
        for package in metadata
            .packages
            .iter()
            .filter(|package| package.source.is_none())
        {
            println!("cargo::rerun-if-changed={}", package.manifest_path);
        }
        Self::with_driver(metadata::Wdk::try_from(&metadata)?.driver_model)
    }

    fn with_driver(driver_config: DriverConfig) -> Result<Self, ConfigError> {
        let processor = build_script_variable("CARGO_CFG_TARGET_ARCH")?;
        let cpu_architecture =
            CpuArchitecture::try_from_cargo_str(&processor).ok_or_else(|| {
                ConfigError::Unsupported {
                    field: "target architecture",
                    value: processor,
                    reason:
                        "Windows drivers are built for x86_64 and aarch64; build with --target \
                         x86_64-pc-windows-msvc"
                            .to_owned(),
                }
            })?;
        let kit = Kit::detect()?;
        if matches!(kit, Kit::Open { .. }) && cpu_architecture != CpuArchitecture::Amd64 {
            return Err(ConfigError::Unsupported {
                field: "target architecture",
                value: "aarch64".to_owned(),
                reason: "openwdk is for x86_64; set WDKContentRoot to use a WDK instead".to_owned(),
            });
        }
        Ok(Self {
            kit,
            cpu_architecture,
            driver_config,
        })
    }

    /// Declares the `cfg` settings that this crate may emit, for a library
    /// whose build graph may have no driver model.
    pub fn emit_check_cfg_settings() {
        println!(
            r#"cargo::rustc-check-cfg=cfg(driver_model__driver_type, values("WDM", "KMDF", "UMDF"))"#
        );
    }

    /// Returns the directories that headers are searched in.
    ///
    /// # Errors
    /// When one of them does not exist.
    pub fn include_paths(&self) -> Result<impl Iterator<Item = PathBuf>, ConfigError> {
        Ok(self.kit.include_paths(&self.driver_config)?.into_iter())
    }

    /// Returns the directories that libraries are searched in, those that take
    /// precedence first. With openwdk, makes the libraries in `OUT_DIR`.
    ///
    /// # Errors
    /// When a directory does not exist, or a library cannot be made.
    pub fn library_paths(&self) -> Result<impl Iterator<Item = PathBuf>, ConfigError> {
        let paths = match &self.kit {
            Kit::Wdk { .. } => self
                .kit
                .library_paths(&self.driver_config, self.cpu_architecture)?,
            Kit::Open { root } => vec![library::make_all(root, &self.driver_config)?],
        };
        Ok(paths.into_iter())
    }

    /// Returns the macros that headers are compiled with.
    pub fn preprocessor_definitions(&self) -> impl Iterator<Item = (String, Option<String>)> {
        headers::definitions(&self.driver_config, self.cpu_architecture).into_iter()
    }

    /// Returns the flags that make clang accept the WDK's headers.
    pub fn wdk_bindgen_compiler_flags() -> impl Iterator<Item = String> {
        headers::COMPILER_FLAGS.into_iter().map(str::to_owned)
    }

    /// Returns the headers of a part of the API, to be included in this order.
    ///
    /// # Errors
    /// When the kit does not have them.
    pub fn headers(
        &self,
        api_subset: ApiSubset,
    ) -> Result<impl Iterator<Item = String>, ConfigError> {
        Ok(headers::of(
            api_subset,
            &self.driver_config,
            &self.kit,
            self.cpu_architecture,
        )?
        .into_iter())
    }

    /// Returns a C file that includes the headers of several parts of the API.
    ///
    /// # Errors
    /// When the kit does not have them.
    pub fn bindgen_header_contents(
        &self,
        api_subsets: impl IntoIterator<Item = ApiSubset> + fmt::Debug,
    ) -> Result<String, ConfigError> {
        let mut contents = String::new();
        for subset in api_subsets {
            for header in self.headers(subset)? {
                contents.push_str("#include \"");
                contents.push_str(&header);
                contents.push_str("\"\n");
            }
        }
        Ok(contents)
    }

    /// Returns Rust code that links the libraries of a part of the API, or
    /// `None` if it has none.
    #[must_use]
    pub fn bindgen_library_link_raw_lines(&self, api_subset: ApiSubset) -> Option<String> {
        let libraries = library::names(api_subset, &self.driver_config, self.cpu_architecture);
        (!libraries.is_empty()).then(|| libraries.into_iter().map(library::link_block).collect())
    }

    /// Emits the `cfg` settings of the driver model.
    pub(crate) fn configure_library_build(&self) {
        Self::emit_check_cfg_settings();
        println!(
            "cargo::rustc-cfg=driver_model__driver_type={:?}",
            self.driver_config.driver_type()
        );
    }

    /// Returns the symbol of the framework's function table, `None` without a
    /// framework.
    #[must_use]
    pub fn compute_wdffunctions_symbol_name(&self) -> Option<String> {
        let (major, minor) = match &self.driver_config {
            DriverConfig::Wdm => return None,
            DriverConfig::Kmdf(kmdf) => (kmdf.kmdf_version_major, kmdf.target_kmdf_version_minor),
            DriverConfig::Umdf(umdf) => (umdf.umdf_version_major, umdf.target_umdf_version_minor),
        };
        Some(format!("WdfFunctions_{major:02}{minor:03}"))
    }

    /// Emits everything that the link of a driver needs.
    ///
    /// # Errors
    /// See [`configure_wdk_binary_build`](crate::configure_wdk_binary_build).
    pub fn configure_binary_build(&self) -> Result<(), ConfigError> {
        if !build_script_variable("CARGO_CFG_TARGET_FEATURE")?
            .split(',')
            .any(|feature| feature == "crt-static")
        {
            return Err(ConfigError::StaticCrtNotEnabled);
        }
        for path in self.library_paths()? {
            println!("cargo::rustc-link-search={}", path.display());
        }
        for argument in library::linker_arguments(&self.driver_config) {
            println!("cargo::rustc-cdylib-link-arg={argument}");
        }
        self.configure_library_build();
        Ok(())
    }
}

impl Default for Config {
    fn default() -> Self {
        match Self::with_driver(DriverConfig::Wdm) {
            Ok(config) => config,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Returns a variable that cargo sets for build scripts.
pub(crate) fn build_script_variable(name: &'static str) -> Result<String, ConfigError> {
    env::var(name).map_err(|_| ConfigError::NotInBuildScript { name })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{KmdfConfig, UmdfConfig};

    fn config(driver_config: DriverConfig) -> Config {
        let kit = Kit::Open {
            root: PathBuf::new(),
        };
        Config {
            kit,
            cpu_architecture: CpuArchitecture::Amd64,
            driver_config,
        }
    }

    #[test]
    fn function_table_symbol_has_two_digits_of_major_and_three_of_minor_version() {
        let kmdf = |target_kmdf_version_minor| {
            DriverConfig::Kmdf(KmdfConfig {
                target_kmdf_version_minor,
                ..KmdfConfig::new()
            })
        };
        let name = |driver| config(driver).compute_wdffunctions_symbol_name();
        assert_eq!(name(kmdf(33)).as_deref(), Some("WdfFunctions_01033"));
        assert_eq!(name(kmdf(9)).as_deref(), Some("WdfFunctions_01009"));
        assert_eq!(
            name(DriverConfig::Umdf(UmdfConfig::new())).as_deref(),
            Some("WdfFunctions_02033")
        );
        assert_eq!(name(DriverConfig::Wdm), None);
    }

    #[test]
    fn header_contents_include_base_before_framework() {
        let contents = config(DriverConfig::Kmdf(KmdfConfig::new()))
            .bindgen_header_contents([ApiSubset::Base, ApiSubset::Wdf])
            .unwrap();
        assert_eq!(
            contents,
            "#include \"ntifs.h\"\n#include \"ntddk.h\"\n#include \"ntstrsafe.h\"\n#include \
             \"wdf.h\"\n"
        );
    }
}
