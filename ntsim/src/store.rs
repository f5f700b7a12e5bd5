// SPDX-License-Identifier: MIT OR Apache-2.0
//! The folder of a simulated machine: registry, driver store, driver images, devices.
//!
//! ```text
//! machine/
//!   registry.reg                          the registry, as regedit would import it
//!   DriverStore/sensor.inf_amd64_<hash>/  the files of an installed package
//!   drivers/sensor.sys                    System32\drivers
//!   Minidump/0001.json, 0001.txt          what is known of a bug check, by the command line
//!   machine.lock                          held while the machine is open
//! ```
//!
//! What Windows keeps in the registry is there under the same names: services, class keys,
//! devices (`Enum\ROOT\…`), and the list of packages (`DriverDatabase`).
//!
//! Every change of the folder is made as a whole or not at all, through errors and crashes.
//! [`MachineDir::in_memory`] is the same without a folder, for tests.
//!
//! # Example
//!
//! ```no_run
//! use std::path::Path;
//! use ntsim::store::MachineDir;
//!
//! let mut machine = MachineDir::create(Path::new("machine"))?;
//! machine.install_inf(Path::new("package/sensor.inf"))?;
//! let device = machine.add_root_device(r"Root\Sensor")?;
//! assert_eq!(device, r"ROOT\SENSOR\0000");
//! let service = machine.device(&device)?.service.expect("sensor.inf drives it");
//! let image = machine.service_image(&service)?;
//! # Ok::<(), ntsim::store::StoreError>(())
//! ```

mod files;
mod install;
pub mod status;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::inf::{Architecture, DriverPackage, DriverVersion, Inf, InfError};
use crate::registry::{RegFileError, Registry, RegistryError};
use files::Files;

const REGISTRY: &str = "registry.reg";
const STORE: &str = "DriverStore";
const DRIVERS: &str = "drivers";
const DUMPS: &str = "Minidump";

pub use install::check_hardware_id;
pub use status::{Enabled, Problem, Status};

/// Why a machine's folder could not be opened or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A mistake in an INF, or a file that it names and that is not there.
    #[error(transparent)]
    Inf(#[from] InfError),
    /// A registry file that cannot be read or written.
    #[error(transparent)]
    RegFile(#[from] RegFileError),
    /// The registry refused a key or value.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The folder is not one of a machine.
    #[error("{}: not the folder of a simulated machine: {problem}; name one, or a folder that is empty or does not exist to create one", path.display())]
    NotAMachine {
        /// The folder.
        path: PathBuf,
        /// What shows it.
        problem: String,
    },
    /// A machine cannot be created where something is.
    #[error("{}: not empty, so no machine can be created there; name a folder that is empty or does not exist", .0.display())]
    NotEmpty(PathBuf),
    /// Another process, or another part of this one, has the machine open.
    #[error("{}: the machine is in use; wait for the other run or name another folder", .0.display())]
    InUse(PathBuf),
    /// A file of the machine that is not what it must be.
    #[error("{}: damaged: {problem}; restore the folder or create a new machine", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The file system refused.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The reason.
        source: io::Error,
    },
    /// A device, package or service that the machine does not have.
    #[error("{what} \"{name}\": not on this machine; it has {known}")]
    Unknown {
        /// "device", "package" or "service".
        what: &'static str,
        /// The name asked for.
        name: String,
        /// The names that it has.
        known: String,
    },
    /// A hardware id that no device can have.
    #[error(
        "hardware id \"{0}\": 1 to 199 printable ASCII characters without comma; write one such as Root\\Sensor"
    )]
    BadHardwareId(String),
    /// A file name that a package cannot have.
    #[error("{0}: not the name of an INF file; name a file such as sensor.inf")]
    BadInfName(String),
}

/// A simulated machine as it is kept between runs.
#[derive(Debug)]
pub struct MachineDir {
    files: Files,
    registry: Registry,
}

/// What an installation did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// The name that the INF is published under: `oem0.inf`.
    pub published_name: String,
    /// The package's folder in the driver store: `sensor.inf_amd64_<hash>`.
    pub folder: String,
    /// The services that were added or changed.
    pub services: Vec<String>,
    /// The instance ids of the devices that it drives now.
    pub devices: Vec<String>,
    /// The files written, as paths in the machine's folder.
    pub files: Vec<String>,
}

/// A device of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its name on the machine: `ROOT\SENSOR\0000`.
    pub instance_id: String,
    /// Its hardware ids, best first.
    pub hardware_ids: Vec<String>,
    /// The model's description, if it has a driver.
    pub description: Option<String>,
    /// Its function driver's service.
    pub service: Option<String>,
    /// The name of its setup class.
    pub class: Option<String>,
    /// Its setup class.
    pub class_guid: Option<String>,
    /// Who made it, as the INF says.
    pub manufacturer: Option<String>,
    /// How it was when the machine ran last.
    pub status: Status,
    /// Its software key below `Control\Class`: `{guid}\0000`.
    pub driver_key: Option<String>,
    /// The published name of its INF.
    pub inf: Option<String>,
}

/// Which devices get another driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update {
    /// Those for which there is a better one.
    All,
    /// Those that have none.
    WithoutDriver,
}

/// A package in the driver store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredDriver {
    /// The name that its INF is published under: `oem0.inf`.
    pub published_name: String,
    /// The INF's own name.
    pub original_name: String,
    /// `Provider`.
    pub provider: String,
    /// `Class`.
    pub class: String,
    /// `ClassGuid`.
    pub class_guid: String,
    /// `DriverVer`.
    pub version: DriverVersion,
}

/// The image of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceImage {
    /// The file's name: `sensor.sys`.
    pub name: String,
    /// Where it lies on the host, unless the machine is in memory.
    pub path: Option<PathBuf>,
    /// Its bytes.
    pub bytes: Arc<[u8]>,
}

/// Where the files of a package come from.
#[derive(Clone, Copy, Debug)]
pub enum PackageSource<'a> {
    /// The folder that the INF is in. Names are found in any case.
    Folder(&'a Path),
    /// Contents by path relative to the INF, with `/`; the INF itself among them.
    Memory(&'a BTreeMap<String, Vec<u8>>),
}

impl MachineDir {
    /// Makes a new machine in a folder that is empty or does not exist.
    ///
    /// # Errors
    /// [`StoreError::NotEmpty`], [`StoreError::Io`].
    pub fn create(root: &Path) -> Result<Self, StoreError> {
        let io = |action| {
            move |source| StoreError::Io {
                path: root.to_owned(),
                action,
                source,
            }
        };
        match fs::read_dir(root) {
            Ok(mut entries) => {
                if entries.next().is_some() {
                    return Err(StoreError::NotEmpty(root.to_owned()));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(root).map_err(io("create"))?;
            }
            Err(error) => return Err(io("list")(error)),
        }
        let mut files = Files::open(root)?;
        for folder in [STORE, DRIVERS] {
            fs::create_dir(root.join(folder)).map_err(io("create"))?;
        }
        let registry = Registry::new();
        // Last: the folder is a machine's once it has a registry.
        files.apply(vec![(REGISTRY.to_owned(), Some(registry.to_reg()))])?;
        Ok(Self { files, registry })
    }

    /// Opens a machine that was created before.
    ///
    /// # Errors
    /// [`StoreError::NotAMachine`], [`StoreError::RegFile`] for a damaged registry, [`StoreError::InUse`];
    /// the folder is as it was.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let not_a_machine = |problem: &str| StoreError::NotAMachine {
            path: root.to_owned(),
            problem: problem.to_owned(),
        };
        if !root.is_dir() {
            return Err(not_a_machine("there is no such folder"));
        }
        let registry = root.join(REGISTRY);
        if !files::is_interrupted(root) {
            if !registry.is_file() {
                return Err(not_a_machine("it has no file registry.reg"));
            }
            // Read once before anything is touched, even the lock.
            Registry::load(&registry)?;
        }
        let files = Files::open(root)?;
        let registry = Registry::load(&registry)?;
        Ok(Self { files, registry })
    }

    /// Opens a machine to read it: what would change it fails. Others may read it at
    /// the same time.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn look(root: &Path) -> Result<Self, StoreError> {
        let registry = root.join(REGISTRY);
        if files::is_interrupted(root) || !registry.is_file() {
            return Self::open(root);
        }
        let files = Files::look(root)?;
        let registry = Registry::load(&registry)?;
        Ok(Self { files, registry })
    }

    /// Opens the machine in a folder, or creates it if the folder is empty or does not exist.
    ///
    /// # Errors
    /// As [`open`](Self::open) and [`create`](Self::create).
    pub fn open_or_create(root: &Path) -> Result<Self, StoreError> {
        let is_new = match fs::read_dir(root) {
            Ok(mut entries) => entries.next().is_none(),
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        if is_new {
            Self::create(root)
        } else {
            Self::open(root)
        }
    }

    /// Makes a new machine that ends with this value.
    #[must_use]
    pub fn in_memory() -> Self {
        Self {
            files: Files::Memory(BTreeMap::new()),
            registry: Registry::new(),
        }
    }

    /// A machine like this one, which goes its own way from here: one is prepared,
    /// and its twins are used. They share what none has changed. Nothing if this one
    /// is a folder: that is one machine.
    #[must_use]
    pub fn twin(&self) -> Option<Self> {
        Some(Self {
            files: self.files.twin()?,
            registry: self.registry.clone(),
        })
    }

    /// The machine's folder, unless it is in memory.
    #[must_use]
    pub fn path(&self) -> Option<PathBuf> {
        self.files.path("")
    }

    /// The registry file, unless the machine is in memory.
    #[must_use]
    pub fn registry_path(&self) -> Option<PathBuf> {
        self.files.path(REGISTRY)
    }

    /// The registry as it is now, volatile keys included.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The registry, to change; [`commit_registry`](Self::commit_registry) keeps the changes.
    pub fn registry_mut(&mut self) -> &mut Registry {
        &mut self.registry
    }

    /// Writes the registry to the folder.
    ///
    /// # Errors
    /// [`StoreError::RegFile`]; the previous file is whole.
    pub fn commit_registry(&mut self) -> Result<(), StoreError> {
        self.files.check_access()?;
        match self.files.path(REGISTRY) {
            Some(path) => Ok(self.registry.save(path)?),
            None => Ok(()),
        }
    }

    /// Reads an INF, resolves it for x64 and installs the package.
    ///
    /// # Errors
    /// As [`install`](Self::install).
    pub fn install_inf(&mut self, inf: &Path) -> Result<Installed, StoreError> {
        let package = read_package(inf)?;
        self.install(&package, inf)
    }

    /// Installs a package whose files lie beside its INF: copies them, adds its services, and makes it
    /// the driver of the devices that it fits.
    ///
    /// # Errors
    /// [`StoreError::Inf`] for a file that is missing; the machine is as it was.
    pub fn install(
        &mut self,
        package: &DriverPackage,
        inf: &Path,
    ) -> Result<Installed, StoreError> {
        let folder = match inf.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        self.install_from(package, PackageSource::Folder(folder))
    }
}

/// Reads an INF file and resolves it for x64.
///
/// # Errors
/// [`StoreError::Io`], [`StoreError::Inf`].
pub fn read_package(inf: &Path) -> Result<DriverPackage, StoreError> {
    let bytes = fs::read(inf).map_err(|source| StoreError::Io {
        path: inf.to_owned(),
        action: "read the INF file",
        source,
    })?;
    Ok(Inf::parse(inf.display().to_string(), &bytes)?.validate_for(Architecture::Amd64)?)
}
