// SPDX-License-Identifier: MIT OR Apache-2.0

//! The kit that gives headers and libraries: a real WDK, or openwdk.

use std::{
    env,
    path::{Path, PathBuf, absolute},
};

use crate::{ConfigError, CpuArchitecture, DriverConfig, IoError};

/// Variables that choose the kit; a build script reruns when one changes.
pub(crate) const VARIABLES: [&str; 4] = [
    "WDKContentRoot",
    "Version_Number",
    "MicrosoftKitRoot",
    "WDKKitVersion",
];

/// Where headers and libraries come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kit {
    /// A WDK, laid out as Microsoft lays it out.
    Wdk { root: PathBuf, version: String },
    /// The directory `openwdk` of this tree.
    Open { root: PathBuf },
}

impl Kit {
    /// Finds the kit from the environment, see the crate's documentation.
    pub(crate) fn detect() -> Result<Self, ConfigError> {
        Self::choose(
            |name| env::var(name).ok().filter(|value| !value.is_empty()),
            installed_kit,
            &Path::new(env!("CARGO_MANIFEST_DIR")).join(".."),
        )
    }

    fn choose(
        variable: impl Fn(&str) -> Option<String>,
        installed: impl Fn() -> Option<PathBuf>,
        open: &Path,
    ) -> Result<Self, ConfigError> {
        let version = variable("Version_Number");
        if let Some(root) = variable("WDKContentRoot") {
            return Self::wdk(
                Path::new(&root),
                version,
                &format!("WDKContentRoot = {root}"),
            );
        }
        if let Some(kits) = variable("MicrosoftKitRoot") {
            let kit_version = variable("WDKKitVersion").unwrap_or_else(|| "10.0".to_owned());
            let root = Path::new(&kits).join("Windows Kits").join(kit_version);
            return Self::wdk(&root, version, &format!("MicrosoftKitRoot = {kits}"));
        }
        // Windows SDKs register themselves in the same place as the WDK; one
        // without kernel-mode headers cannot build a driver.
        if let Some(root) = installed()
            && let Ok(kit) = Self::wdk(&root, version, "registry")
            && let Self::Wdk { root, version } = &kit
            && root.join("Include").join(version).join("km").is_dir()
        {
            return Ok(kit);
        }
        let root = directory(
            open.join("include"),
            "openwdk's headers; set WDKContentRoot to use a WDK instead",
        )?;
        Ok(Self::Open {
            root: root.parent().unwrap_or(&root).to_path_buf(),
        })
    }

    fn wdk(root: &Path, version: Option<String>, named_by: &str) -> Result<Self, ConfigError> {
        let root = directory(root, named_by)?;
        let version = match version {
            Some(version) => version,
            None => newest_version(&root.join("Lib"), named_by)?,
        };
        Ok(Self::Wdk { root, version })
    }

    /// Returns the directories that headers are searched in.
    pub(crate) fn include_paths(&self, driver: &DriverConfig) -> Result<Vec<PathBuf>, ConfigError> {
        self.check(driver)?;
        let (versioned, frameworks, reason) = match self {
            Self::Wdk { root, version } => {
                let include = root.join("Include");
                (
                    include.join(version),
                    include,
                    "part of a WDK; is it installed completely?",
                )
            }
            Self::Open { root } => {
                let include = root.join("include");
                (
                    include.clone(),
                    include,
                    "part of openwdk; is the checkout complete?",
                )
            }
        };
        let mode = if driver.is_kernel_mode() { "km" } else { "um" };
        let mut paths = vec![
            versioned.join("km/crt"),
            versioned.join(mode),
            versioned.join("shared"),
        ];
        match driver {
            DriverConfig::Wdm => {}
            DriverConfig::Kmdf(kmdf) => {
                paths.push(frameworks.join(format!(
                    "wdf/kmdf/{}.{}",
                    kmdf.kmdf_version_major, kmdf.target_kmdf_version_minor
                )));
                // Headers of USB function drivers find one another only so.
                paths.push(versioned.join("km/ufx/1.1"));
            }
            DriverConfig::Umdf(umdf) => paths.push(frameworks.join(format!(
                "wdf/umdf/{}.{}",
                umdf.umdf_version_major, umdf.target_umdf_version_minor
            ))),
        }
        if let Self::Open { .. } = self {
            // openwdk has no headers for these; an empty directory would not
            // survive in git.
            paths.retain(|path| {
                path.is_dir() || !path.ends_with("km/ufx/1.1") && !path.ends_with("km/crt")
            });
        }
        paths
            .into_iter()
            .map(|path| directory(path, reason))
            .collect()
    }

    /// Returns the directories of a WDK that libraries are searched in, those
    /// that take precedence first. openwdk has none: its libraries are made.
    pub(crate) fn library_paths(
        &self,
        driver: &DriverConfig,
        processor: CpuArchitecture,
    ) -> Result<Vec<PathBuf>, ConfigError> {
        let Self::Wdk { root, version } = self else {
            return Ok(Vec::new());
        };
        let libraries = root.join("Lib");
        let processor = processor.as_windows_str();
        let mode = if driver.is_kernel_mode() { "km" } else { "um" };
        let mut paths = Vec::new();
        match driver {
            DriverConfig::Wdm => {}
            DriverConfig::Kmdf(kmdf) => paths.push(libraries.join(format!(
                "wdf/kmdf/{processor}/{}.{}",
                kmdf.kmdf_version_major, kmdf.target_kmdf_version_minor
            ))),
            DriverConfig::Umdf(umdf) => paths.push(libraries.join(format!(
                "wdf/umdf/{processor}/{}.{}",
                umdf.umdf_version_major, umdf.target_umdf_version_minor
            ))),
        }
        paths.push(libraries.join(version).join(mode).join(processor));
        let reason = "part of a WDK; is it installed completely?";
        paths
            .into_iter()
            .map(|path| directory(path, reason))
            .collect()
    }

    /// Checks that the kit can build this kind of driver at all.
    fn check(&self, driver: &DriverConfig) -> Result<(), ConfigError> {
        let unsupported = |field, value: String, reason: &str| {
            Err(ConfigError::Unsupported {
                field,
                value,
                reason: format!("{reason}; set WDKContentRoot to use a WDK instead"),
            })
        };
        match (self, driver) {
            (Self::Open { .. }, DriverConfig::Umdf(_)) => unsupported(
                "driver-type",
                "\"UMDF\"".to_owned(),
                "openwdk is for kernel-mode drivers (WDM, KMDF)",
            ),
            (Self::Open { .. }, DriverConfig::Kmdf(kmdf))
                if (kmdf.kmdf_version_major, kmdf.target_kmdf_version_minor) != (1, 33) =>
            {
                unsupported(
                    "KMDF version",
                    format!(
                        "{}.{}",
                        kmdf.kmdf_version_major, kmdf.target_kmdf_version_minor
                    ),
                    "openwdk has KMDF 1.33 (kmdf-version-major = 1, target-kmdf-version-minor = 33; \
                     minimum-kmdf-version-minor may be lower)",
                )
            }
            _ => Ok(()),
        }
    }
}

/// Makes `path` absolute if it is a directory.
fn directory(path: impl AsRef<Path>, reason: &str) -> Result<PathBuf, ConfigError> {
    let path = path.as_ref();
    if !path.is_dir() {
        return Err(ConfigError::DirectoryNotFound {
            directory: path.display().to_string(),
            reason: reason.to_owned(),
        });
    }
    // Not `canonicalize`: clang does not understand `\\?\` paths.
    let absolute = absolute(path).map_err(|source| IoError::with_path(path, source))?;
    // `absolute` keeps `..` on Unix; debug information should not.
    let mut plain = PathBuf::new();
    for component in absolute.components() {
        match component {
            std::path::Component::ParentDir => {
                plain.pop();
            }
            component => plain.push(component),
        }
    }
    Ok(plain)
}

/// Returns the highest of the version directories in `path`, compared as
/// numbers.
fn newest_version(path: &Path, named_by: &str) -> Result<String, ConfigError> {
    let entries = path
        .read_dir()
        .map_err(|source| IoError::with_path(path, source))?;
    entries
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter_map(|name| Some((version_numbers(&name)?, name)))
        .filter(|(numbers, _)| numbers[0] == 10)
        .max()
        .map(|(_, name)| name)
        .ok_or_else(|| ConfigError::DirectoryNotFound {
            directory: path.join("10.*").display().to_string(),
            reason: format!("the versions of the WDK named by {named_by}"),
        })
}

fn version_numbers(text: &str) -> Option<[u32; 4]> {
    let numbers = text
        .split('.')
        .map(|part| part.parse().ok())
        .collect::<Option<Vec<u32>>>()?;
    numbers.try_into().ok()
}

/// Returns the third part of a version.
pub(crate) fn build_number(version: &str) -> Result<u32, ConfigError> {
    match version_numbers(version) {
        Some([10, _, build, _]) => Ok(build),
        _ => Err(ConfigError::WdkVersionStringFormatError {
            version: version.to_owned(),
        }),
    }
}

/// Returns the root of the kit that the registry names.
#[cfg(windows)]
fn installed_kit() -> Option<PathBuf> {
    [
        r"SOFTWARE\Microsoft\Windows Kits\Installed Roots",
        r"SOFTWARE\Wow6432Node\Microsoft\Windows Kits\Installed Roots",
    ]
    .into_iter()
    .find_map(|key| {
        windows_registry::LOCAL_MACHINE
            .open(key)
            .ok()?
            .get_string("KitsRoot10")
            .ok()
    })
    .map(PathBuf::from)
}

/// There is no registry here.
#[cfg(not(windows))]
fn installed_kit() -> Option<PathBuf> {
    None
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;
    use crate::{KmdfConfig, UmdfConfig};

    fn tree(directories: &[&str]) -> TempDir {
        let root = TempDir::new().unwrap();
        for path in directories {
            fs::create_dir_all(root.path().join(path)).unwrap();
        }
        root
    }

    fn wdk() -> TempDir {
        tree(&[
            "Include/10.0.22621.0/km/crt",
            "Include/10.0.22621.0/km/ufx/1.1",
            "Include/10.0.22621.0/shared",
            "Include/wdf/kmdf/1.33",
            "Lib/10.0.9600.0",
            "Lib/10.0.22621.0/km/x64",
            "Lib/wdf/kmdf/x64/1.33",
            "Lib/win7",
        ])
    }

    fn open() -> TempDir {
        tree(&[
            "include/km/crt",
            "include/shared",
            "include/wdf/kmdf/1.33",
            "lib",
        ])
    }

    fn kmdf() -> DriverConfig {
        DriverConfig::Kmdf(KmdfConfig::new())
    }

    fn choose(
        variables: &[(&str, &str)],
        installed: Option<&Path>,
        open: &Path,
    ) -> Result<Kit, ConfigError> {
        Kit::choose(
            |name| {
                variables
                    .iter()
                    .find(|(key, _)| *key == name)
                    .map(|(_, value)| (*value).to_owned())
            },
            || installed.map(Path::to_path_buf),
            open,
        )
    }

    #[test]
    fn wdk_content_root_wins_over_openwdk_and_gives_its_newest_version() {
        let (wdk, open) = (wdk(), open());
        let root = wdk.path().to_str().unwrap();
        let kit = choose(&[("WDKContentRoot", root)], None, open.path()).unwrap();
        assert_eq!(
            kit,
            Kit::Wdk {
                root: wdk.path().to_path_buf(),
                version: "10.0.22621.0".to_owned()
            }
        );
        let include = wdk.path().join("Include");
        assert_eq!(
            kit.include_paths(&kmdf()).unwrap(),
            [
                include.join("10.0.22621.0/km/crt"),
                include.join("10.0.22621.0/km"),
                include.join("10.0.22621.0/shared"),
                include.join("wdf/kmdf/1.33"),
                include.join("10.0.22621.0/km/ufx/1.1"),
            ]
        );
        let lib = wdk.path().join("Lib");
        assert_eq!(
            kit.library_paths(&kmdf(), CpuArchitecture::Amd64).unwrap(),
            [
                lib.join("wdf/kmdf/x64/1.33"),
                lib.join("10.0.22621.0/km/x64")
            ]
        );
    }

    #[test]
    fn version_number_chooses_the_version_and_its_absence_in_the_kit_is_an_error() {
        let wdk = wdk();
        let root = wdk.path().to_str().unwrap();
        let variables = [("WDKContentRoot", root), ("Version_Number", "10.0.26100.0")];
        let kit = choose(&variables, None, Path::new("nowhere")).unwrap();
        let error = kit.include_paths(&kmdf()).unwrap_err().to_string();
        assert!(error.contains("10.0.26100.0"), "{error}");
    }

    #[test]
    fn wdk_content_root_that_is_no_directory_is_an_error_and_not_openwdk() {
        let open = open();
        let error = choose(&[("WDKContentRoot", "/no/such/kit")], None, open.path()).unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("/no/such/kit") && error.contains("WDKContentRoot"),
            "{error}"
        );
    }

    #[test]
    fn installed_sdk_without_kernel_headers_gives_openwdk() {
        let sdk = tree(&["Include/10.0.22621.0/um", "Lib/10.0.22621.0/um/x64"]);
        let (wdk, open) = (wdk(), open());
        let root = open.path().to_path_buf();
        assert_eq!(
            choose(&[], Some(sdk.path()), open.path()).unwrap(),
            Kit::Open { root }
        );
        assert!(matches!(
            choose(&[], Some(wdk.path()), open.path()),
            Ok(Kit::Wdk { .. })
        ));
    }

    #[test]
    fn openwdk_gives_its_own_headers() {
        let open = open();
        let include = open.path().join("include");
        assert_eq!(
            choose(&[], None, open.path())
                .unwrap()
                .include_paths(&kmdf())
                .unwrap(),
            [
                include.join("km/crt"),
                include.join("km"),
                include.join("shared"),
                include.join("wdf/kmdf/1.33")
            ]
        );
    }

    #[test]
    fn missing_openwdk_is_named() {
        let error = choose(&[], None, Path::new("/no/such/tree"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("/no/such/tree/include"), "{error}");
    }

    #[test]
    fn openwdk_refuses_what_it_does_not_have() {
        let open = open();
        let kit = choose(&[], None, open.path()).unwrap();
        let older = KmdfConfig {
            target_kmdf_version_minor: 31,
            ..KmdfConfig::new()
        };
        let error = kit
            .include_paths(&DriverConfig::Kmdf(older))
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("KMDF version = 1.31: "), "{error}");
        let error = kit
            .include_paths(&DriverConfig::Umdf(UmdfConfig::new()))
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("driver-type = \"UMDF\": "), "{error}");
    }

    #[test]
    fn build_number_is_the_third_part() {
        assert_eq!(build_number("10.0.26100.0").unwrap(), 26100);
        assert!(build_number("10.0.26100").is_err());
        assert!(build_number("11.0.26100.0").is_err());
    }
}
