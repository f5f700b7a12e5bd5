// SPDX-License-Identifier: MIT OR Apache-2.0
//! What installing packages and devices writes, under the names that Windows uses.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::files::Change;
use super::{
    DRIVERS, DUMPS, Device, Enabled, Installed, MachineDir, PackageSource, REGISTRY, STORE,
    ServiceImage, StoreError, StoredDriver, Update, status,
};
use crate::inf::{
    Architecture, CopyFile, DirId, DriverPackage, Inf, InfError, Install, Model, RegChange,
    RegOperation, RegRoot,
};
use crate::registry::{KeyId, RegString, Registry, RegistryError, Value, Volatility};

const SERVICES: &str = r"\Registry\Machine\SYSTEM\CurrentControlSet\Services";
const CLASSES: &str = r"\Registry\Machine\SYSTEM\CurrentControlSet\Control\Class";
pub(super) const ENUM: &str = r"\Registry\Machine\SYSTEM\CurrentControlSet\Enum";
const PACKAGES: &str = r"\Registry\Machine\SYSTEM\DriverDatabase\DriverPackages";
const INF_FILES: &str = r"\Registry\Machine\SYSTEM\DriverDatabase\DriverInfFiles";

/// Values of the hardware key that are properties of the device itself, not parameters of its driver.
const DEVICE_PROPERTIES: [&str; 6] = [
    "UpperFilters",
    "LowerFilters",
    "Security",
    "Exclusive",
    "DeviceType",
    "DeviceCharacteristics",
];

impl MachineDir {
    /// Installs a package from a folder or from memory, as [`install`](Self::install) does.
    ///
    /// # Errors
    /// [`StoreError::Inf`] for a file that is missing; the machine is as it was.
    pub fn install_from(
        &mut self,
        package: &DriverPackage,
        source: PackageSource<'_>,
    ) -> Result<Installed, StoreError> {
        check_inf_name(&package.inf_name)?;
        let mut contents = self.gather(package, source)?;
        let mut registry = self.registry.clone();
        let published = contents.publish(&mut registry, package)?;
        let services = write_services(&mut registry, package, &contents.folder, &published)?;
        let mut changes = std::mem::take(&mut contents.stored);
        changes.append(&mut contents.deployed);
        let mut devices = Vec::new();
        for device in list_devices(&registry)? {
            let ids: Vec<&str> = device.hardware_ids.iter().map(String::as_str).collect();
            if let Some((_, model)) = package.matches(&ids).first() {
                bind(
                    &mut registry,
                    &device.instance_id,
                    package,
                    model,
                    &published,
                )?;
                devices.push(device.instance_id);
            }
        }
        let written = changes.keys().cloned().collect();
        self.commit(registry, writes(changes))?;
        Ok(Installed {
            published_name: published,
            folder: contents.folder,
            services,
            devices,
            files: written,
        })
    }

    /// Puts a package into the driver store and nowhere else: no device uses it yet. Gives its
    /// published name.
    ///
    /// # Errors
    /// As [`install_from`](Self::install_from).
    pub fn stage_from(
        &mut self,
        package: &DriverPackage,
        source: PackageSource<'_>,
    ) -> Result<String, StoreError> {
        check_inf_name(&package.inf_name)?;
        let contents = self.gather(package, source)?;
        let mut registry = self.registry.clone();
        let published = contents.publish(&mut registry, package)?;
        self.commit(registry, writes(contents.stored))?;
        Ok(published)
    }

    /// Gives devices the best driver that the store has for them, if it is a better one than they
    /// have; `preferred`, a published name, wins among equals. Gives the devices that got another.
    ///
    /// # Errors
    /// [`StoreError::Inf`] for a damaged package; the machine is as it was.
    pub fn update_drivers(
        &mut self,
        which: Update,
        preferred: Option<&str>,
    ) -> Result<Vec<String>, StoreError> {
        let mut registry = self.registry.clone();
        let mut changes = BTreeMap::new();
        let mut updated = Vec::new();
        for device in list_devices(&registry)? {
            let ids: Vec<&str> = device.hardware_ids.iter().map(String::as_str).collect();
            let current = device.inf.as_deref();
            if which == Update::WithoutDriver && current.is_some() {
                continue;
            }
            let Some(best) = self.best_driver(&registry, &ids, preferred.or(current))? else {
                continue;
            };
            if current != Some(&best.listed.published) {
                self.assign(&mut registry, &mut changes, &device.instance_id, &best)?;
                updated.push(device.instance_id);
            }
        }
        if !updated.is_empty() {
            self.commit(registry, writes(changes))?;
        }
        Ok(updated)
    }

    /// The best driver in the store for a device of these ids: a lower rank, then a later version,
    /// then `preferred`, then the one published last.
    fn best_driver(
        &self,
        registry: &Registry,
        ids: &[&str],
        preferred: Option<&str>,
    ) -> Result<Option<Best>, StoreError> {
        let mut best: Option<Best> = None;
        for listed in list_packages(registry)? {
            let package = self.stored_package(&listed)?;
            let Some((rank, model)) = package
                .matches(ids)
                .first()
                .map(|&(rank, model)| (rank, model.clone()))
            else {
                continue;
            };
            let is_preferred =
                |name: &str| preferred.is_some_and(|other| other.eq_ignore_ascii_case(name));
            let is_better = best.as_ref().is_none_or(|other| {
                let (mine, theirs) = (&package.version, &other.package.version);
                let equal_wins = !is_preferred(&other.listed.published);
                rank < other.rank
                    || (rank == other.rank && (mine > theirs || (mine == theirs && equal_wins)))
            });
            if is_better {
                best = Some(Best {
                    rank,
                    package,
                    model,
                    listed,
                });
            }
        }
        Ok(best)
    }

    /// Makes a package of the store the driver of a device, with its services and driver files.
    fn assign(
        &self,
        registry: &mut Registry,
        changes: &mut BTreeMap<String, Vec<u8>>,
        instance_id: &str,
        best: &Best,
    ) -> Result<(), StoreError> {
        let (package, folder) = (&best.package, &best.listed.folder);
        write_services(registry, package, folder, &best.listed.published)?;
        for file in package.installs.iter().flat_map(|install| &install.files) {
            if file.destination == DirId::Drivers {
                let source = format!("{STORE}/{folder}/{}", file.source);
                let path = self.existing(&format!("{DRIVERS}/{}", below(file)))?;
                changes.insert(path, self.files.read(&source)?.to_vec());
            }
        }
        Ok(bind(
            registry,
            instance_id,
            package,
            &best.model,
            &best.listed.published,
        )?)
    }

    fn gather(
        &self,
        package: &DriverPackage,
        source: PackageSource<'_>,
    ) -> Result<Contents, StoreError> {
        let contents = collect(package, source)?;
        let folder = format!(
            "{}_{}_{:016x}",
            package.inf_name.to_lowercase(),
            package.architecture,
            hash(&contents)
        );
        let mut stored = BTreeMap::new();
        for (path, bytes) in &contents {
            stored.insert(format!("{STORE}/{folder}/{path}"), bytes.clone());
        }
        let mut deployed = BTreeMap::new();
        for file in package.installs.iter().flat_map(|install| &install.files) {
            let bytes = contents.get(&file.source).cloned().unwrap_or_default();
            match file.destination {
                DirId::DriverStore => {
                    stored.insert(format!("{STORE}/{folder}/{}", below(file)), bytes);
                }
                DirId::Drivers => {
                    let path = self.existing(&format!("{DRIVERS}/{}", below(file)))?;
                    deployed.insert(path, bytes);
                }
            }
        }
        Ok(Contents {
            folder,
            stored,
            deployed,
        })
    }

    /// Removes a package by its published name (`oem0.inf`) or its folder: its devices stay without a
    /// driver, its services and files go unless another package has them too.
    ///
    /// # Errors
    /// [`StoreError::Unknown`]; the machine is as it was.
    pub fn uninstall(&mut self, name: &str) -> Result<(), StoreError> {
        let packages = list_packages(&self.registry)?;
        let Some(doomed) = packages.iter().find(|package| {
            package.folder.eq_ignore_ascii_case(name)
                || package.published.eq_ignore_ascii_case(name)
        }) else {
            let known: Vec<String> = packages
                .iter()
                .map(|package| package.published.clone())
                .collect();
            return Err(unknown("package", name, &known));
        };
        let mut registry = self.registry.clone();
        for device in list_devices(&registry)? {
            if device
                .inf
                .as_deref()
                .is_some_and(|inf| inf.eq_ignore_ascii_case(&doomed.published))
            {
                unbind(&mut registry, &device)?;
            }
        }
        if let Ok(services) = registry.open(SERVICES) {
            let keys: Vec<KeyId> = registry.subkeys(services)?.collect();
            for key in keys {
                let Some(mut owners) = strings(&registry, key, "Owners") else {
                    continue;
                };
                let before = owners.len();
                owners.retain(|owner| !owner.eq_ignore_ascii_case(&doomed.published));
                if owners.is_empty() {
                    registry.delete_tree(key)?;
                } else if owners.len() < before {
                    registry.set_value(key, "Owners", multi_sz(&owners))?;
                }
            }
        }
        for (parent, name) in [(PACKAGES, &doomed.folder), (INF_FILES, &doomed.published)] {
            if let Ok(key) = registry.open(format!(r"{parent}\{name}")) {
                registry.delete_tree(key)?;
            }
        }
        let mut changes: Vec<Change> = Vec::new();
        for path in self.files.list_all(&format!("{STORE}/{}", doomed.folder))? {
            changes.push((path, None));
        }
        for file in &doomed.driver_files {
            let shared = packages.iter().any(|other| {
                other.folder != doomed.folder
                    && other
                        .driver_files
                        .iter()
                        .any(|theirs| theirs.eq_ignore_ascii_case(file))
            });
            if !shared {
                changes.push((file.clone(), None));
            }
        }
        self.commit(registry, changes)
    }

    /// Adds a device that no bus reports, as `devcon install` does, with the best driver that the
    /// machine has for it, if any. Gives its instance id, `ROOT\SENSOR\0000` for `Root\Sensor`.
    ///
    /// # Errors
    /// [`StoreError::BadHardwareId`]; the machine is as it was.
    pub fn add_root_device(&mut self, hardware_id: &str) -> Result<String, StoreError> {
        check_hardware_id(hardware_id)?;
        let upper = hardware_id.to_ascii_uppercase();
        let name = upper
            .strip_prefix(r"ROOT\")
            .filter(|rest| !rest.is_empty())
            .unwrap_or(&upper)
            .replace('\\', "_");
        let mut registry = self.registry.clone();
        let parent = registry.create(format!(r"{ENUM}\ROOT\{name}"), Volatility::Persistent)?;
        let number = free_number(&registry, parent)?;
        let (key, _) = registry.create_at(parent, number.as_str(), Volatility::Persistent)?;
        registry.set_value(key, "HardwareID", Value::multi_sz([hardware_id]))?;
        registry.set_value(key, "Capabilities", Value::dword(0))?;
        // Nothing is installed for it yet.
        status::forget(&mut registry, key, status::REINSTALL)?;
        let instance_id = format!(r"ROOT\{name}\{number}");

        let mut changes = BTreeMap::new();
        if let Some(best) = self.best_driver(&registry, &[hardware_id], None)? {
            self.assign(&mut registry, &mut changes, &instance_id, &best)?;
        }
        self.commit(registry, writes(changes))?;
        Ok(instance_id)
    }

    /// Removes a device with its keys; its driver stays installed.
    ///
    /// # Errors
    /// [`StoreError::Unknown`]; the machine is as it was.
    pub fn remove_device(&mut self, instance_id: &str) -> Result<(), StoreError> {
        let device = self.device(instance_id)?;
        let mut registry = self.registry.clone();
        unbind(&mut registry, &device)?;
        let key = registry.open(format!(r"{ENUM}\{}", device.instance_id))?;
        registry.delete_tree(key)?;
        self.commit(registry, Vec::new())
    }

    /// The devices of the machine, by instance id.
    ///
    /// # Errors
    /// [`StoreError::Registry`].
    pub fn devices(&self) -> Result<Vec<Device>, StoreError> {
        list_devices(&self.registry)
    }

    /// The device of an instance id.
    ///
    /// # Errors
    /// [`StoreError::Unknown`].
    pub fn device(&self, instance_id: &str) -> Result<Device, StoreError> {
        let devices = self.devices()?;
        let found = devices
            .iter()
            .find(|device| device.instance_id.eq_ignore_ascii_case(instance_id));
        if let Some(device) = found {
            return Ok(device.clone());
        }
        let known: Vec<String> = devices
            .into_iter()
            .map(|device| device.instance_id)
            .collect();
        Err(unknown("device", instance_id, &known))
    }

    /// The packages of the driver store, in the order in which they were published.
    ///
    /// # Errors
    /// [`StoreError::Inf`] for a damaged one.
    pub fn drivers(&self) -> Result<Vec<StoredDriver>, StoreError> {
        let mut drivers = Vec::new();
        for listed in list_packages(&self.registry)? {
            let package = self.stored_package(&listed)?;
            drivers.push(StoredDriver {
                published_name: listed.published,
                original_name: package.inf_name,
                provider: package.provider,
                class: package.class,
                class_guid: package.class_guid,
                version: package.version,
            });
        }
        Ok(drivers)
    }

    /// The instance ids of the devices that a package of the store drives.
    ///
    /// # Errors
    /// [`StoreError::Unknown`] if there is no package of this published name.
    pub fn devices_of_driver(&self, published: &str) -> Result<Vec<String>, StoreError> {
        let packages = list_packages(&self.registry)?;
        if !packages
            .iter()
            .any(|package| package.published.eq_ignore_ascii_case(published))
        {
            let known: Vec<String> = packages
                .into_iter()
                .map(|package| package.published)
                .collect();
            return Err(unknown("package", published, &known));
        }
        let devices = self.devices()?.into_iter().filter(|device| {
            let inf = device.inf.as_deref();
            inf.is_some_and(|inf| inf.eq_ignore_ascii_case(published))
        });
        Ok(devices.map(|device| device.instance_id).collect())
    }

    /// Disables a device, or enables it again. It takes effect when the machine boots.
    ///
    /// # Errors
    /// [`StoreError::Unknown`]; the machine is as it was.
    pub fn set_enabled(&mut self, instance_id: &str, enabled: Enabled) -> Result<(), StoreError> {
        let device = self.device(instance_id)?;
        let mut registry = self.registry.clone();
        status::enable(&mut registry, &device.instance_id, enabled)?;
        self.commit(registry, Vec::new())
    }

    /// The published names of the installed packages with their folders in the driver store.
    ///
    /// # Errors
    /// [`StoreError::Registry`].
    pub fn packages(&self) -> Result<Vec<(String, String)>, StoreError> {
        let packages = list_packages(&self.registry)?;
        Ok(packages
            .into_iter()
            .map(|package| (package.published, package.folder))
            .collect())
    }

    /// Reads the image that a service's `ImagePath` names.
    ///
    /// # Errors
    /// [`StoreError::Unknown`] for a service without an image on this machine, [`StoreError::Io`].
    pub fn service_image(&self, service: &str) -> Result<ServiceImage, StoreError> {
        let key = self.registry.open(format!(r"{SERVICES}\{service}"));
        let image = key
            .ok()
            .and_then(|key| text(&self.registry, key, "ImagePath"));
        let file = image.as_deref().and_then(machine_path);
        let Some(file) = file else {
            let mut known = Vec::new();
            if let Ok(services) = self.registry.open(SERVICES) {
                for key in self.registry.subkeys(services)? {
                    known.push(self.registry.name(key)?.to_string());
                }
            }
            return Err(unknown("service", service, &known));
        };
        let file = self.existing(&file)?;
        Ok(ServiceImage {
            name: file.rsplit('/').next().unwrap_or_default().to_owned(),
            path: self.files.path(&file),
            bytes: self.files.read(&file)?,
        })
    }

    /// Keeps what is known of a stop in the folder `Minidump`: the same as JSON and as text. Gives
    /// the name of the text's file. The registry is not touched.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn add_dump(&mut self, json: String, text: String) -> Result<String, StoreError> {
        let names = self.files.list(DUMPS)?;
        let taken = names
            .iter()
            .filter_map(|name| name.split_once('.')?.0.parse::<u32>().ok());
        let name = format!(
            "{DUMPS}/{:04}",
            taken.max().map_or(1, |last| last.saturating_add(1))
        );
        self.files.apply(vec![
            (format!("{name}.json"), Some(json.into_bytes())),
            (format!("{name}.txt"), Some(text.into_bytes())),
        ])?;
        Ok(format!("{name}.txt"))
    }

    /// Writes files and registry as one change; only then is the registry the new one.
    fn commit(&mut self, registry: Registry, mut changes: Vec<Change>) -> Result<(), StoreError> {
        changes.push((REGISTRY.to_owned(), Some(registry.to_reg())));
        self.files.apply(changes)?;
        self.registry = registry;
        Ok(())
    }

    /// The path with the case of the file that is there, since Windows does not tell them apart.
    fn existing(&self, path: &str) -> Result<String, StoreError> {
        let Some((folder, name)) = path.rsplit_once('/') else {
            return Ok(path.to_owned());
        };
        let names = self.files.list(folder)?;
        let same = names
            .into_iter()
            .find(|other| other.eq_ignore_ascii_case(name));
        Ok(same.map_or_else(|| path.to_owned(), |name| format!("{folder}/{name}")))
    }

    fn stored_package(&self, listed: &ListedPackage) -> Result<DriverPackage, StoreError> {
        let path = format!("{STORE}/{}/{}", listed.folder, listed.inf_name);
        let bytes = self.files.read(&path)?;
        let shown = self
            .files
            .path(&path)
            .map_or_else(|| path.clone(), |path| path.display().to_string());
        Ok(Inf::parse(shown, &bytes)?.validate_for(Architecture::Amd64)?)
    }
}

/// The files of a package, as they will lie in the machine's folder.
struct Contents {
    /// The package's folder in the driver store.
    folder: String,
    /// What goes there.
    stored: BTreeMap<String, Vec<u8>>,
    /// What goes to `System32\drivers` when a device uses it.
    deployed: BTreeMap<String, Vec<u8>>,
}

impl Contents {
    fn publish(
        &self,
        registry: &mut Registry,
        package: &DriverPackage,
    ) -> Result<String, RegistryError> {
        publish(registry, package, &self.folder, self.deployed.keys())
    }
}

/// A package of the store that fits a device.
struct Best {
    rank: usize,
    package: DriverPackage,
    model: Model,
    listed: ListedPackage,
}

fn writes(changes: BTreeMap<String, Vec<u8>>) -> Vec<Change> {
    changes
        .into_iter()
        .map(|(path, bytes)| (path, Some(bytes)))
        .collect()
}

/// Where a file goes below its destination.
fn below(file: &CopyFile) -> String {
    if file.subfolder.is_empty() {
        file.name.clone()
    } else {
        format!("{}/{}", file.subfolder, file.name)
    }
}

/// Whether a device can have this hardware id.
///
/// # Errors
/// [`StoreError::BadHardwareId`].
pub fn check_hardware_id(hardware_id: &str) -> Result<(), StoreError> {
    let printable = hardware_id
        .bytes()
        .all(|byte| (0x21..0x7f).contains(&byte) && byte != b',');
    if hardware_id.is_empty() || hardware_id.len() > 199 || !printable {
        return Err(StoreError::BadHardwareId(hardware_id.to_owned()));
    }
    Ok(())
}

fn check_inf_name(name: &str) -> Result<(), StoreError> {
    let is_inf = name.len() > 4
        && name.is_char_boundary(name.len() - 4)
        && name[name.len() - 4..].eq_ignore_ascii_case(".inf");
    let forbidden = |letter: char| letter.is_control() || "/\\:*?\"<>|".contains(letter);
    if is_inf && !name.contains(forbidden) {
        Ok(())
    } else {
        Err(StoreError::BadInfName(name.to_owned()))
    }
}

/// Turns `\SystemRoot\System32\drivers\x.sys` into a path in the machine's folder.
fn machine_path(image: &str) -> Option<String> {
    const PLACES: [(&str, &str); 2] = [
        (r"\systemroot\system32\drivers\", DRIVERS),
        (r"\systemroot\system32\driverstore\filerepository\", STORE),
    ];
    let lower = image.to_ascii_lowercase();
    let (prefix, folder) = PLACES
        .iter()
        .find(|(prefix, _)| lower.starts_with(prefix))?;
    let rest = image.get(prefix.len()..)?.replace('\\', "/");
    let is_clean = rest.split('/').all(|part| !matches!(part, "" | "." | ".."));
    is_clean.then(|| format!("{folder}/{rest}"))
}

/// How many names an error tells.
const TOLD: usize = 5;

fn unknown(what: &'static str, name: &str, known: &[String]) -> StoreError {
    let known = if known.is_empty() {
        "none".to_owned()
    } else if known.len() <= TOLD {
        known.join(", ")
    } else {
        let lower = name.to_lowercase();
        let mut near: Vec<_> = known
            .iter()
            .map(|other| (strsim::levenshtein(&lower, &other.to_lowercase()), other))
            .collect();
        near.sort();
        let near: Vec<_> = near.into_iter().map(|(_, name)| name.as_str()).collect();
        format!("{}, the nearest {}", known.len(), near[..TOLD].join(", "))
    };
    StoreError::Unknown {
        what,
        name: name.to_owned(),
        known,
    }
}

/// Reads every file of the package; nothing is written before all are there.
fn collect(
    package: &DriverPackage,
    source: PackageSource<'_>,
) -> Result<BTreeMap<String, Vec<u8>>, StoreError> {
    let mut contents = BTreeMap::new();
    match read_source(source, &package.inf_name)? {
        Some(bytes) => contents.insert(package.inf_name.clone(), bytes),
        None => return Err(missing(package, &package.inf_name, None)),
    };
    let named = package
        .source_files
        .iter()
        .map(|file| (&file.path, &file.section, file.line));
    let copied = package.installs.iter().flat_map(|install| &install.files);
    for (path, section, line) in
        named.chain(copied.map(|file| (&file.source, &file.section, file.line)))
    {
        if !contents.contains_key(path) {
            let bytes = read_source(source, path)?
                .ok_or_else(|| missing(package, path, Some((section, line))))?;
            contents.insert(path.clone(), bytes);
        }
    }
    // A catalogue belongs to the package, but an unsigned one has none.
    if let Some(catalog) = &package.catalog
        && !catalog.is_empty()
        && !catalog.contains(['/', '\\', ':'])
        && !catalog.starts_with('.')
        && let Some(bytes) = read_source(source, catalog)?
    {
        contents.insert(catalog.clone(), bytes);
    }
    Ok(contents)
}

fn missing(package: &DriverPackage, path: &str, place: Option<(&String, u32)>) -> StoreError {
    StoreError::Inf(InfError {
        file: package.inf_name.as_str().into(),
        line: place.map(|(_, line)| line),
        section: place.map(|(section, _)| section.as_str().into()),
        field: None,
        value: Some(path.into()),
        problem: "the package has no such file beside its INF".into(),
        way_out: "put the file there or take its name out".into(),
    })
}

fn read_source(source: PackageSource<'_>, path: &str) -> Result<Option<Vec<u8>>, StoreError> {
    match source {
        PackageSource::Memory(files) => Ok(files
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(path))
            .map(|(_, bytes)| bytes.clone())),
        PackageSource::Folder(folder) => {
            let mut found = folder.to_owned();
            for part in path.split('/') {
                let exact = found.join(part);
                let next = if exact.exists() {
                    Some(exact)
                } else {
                    find_any_case(&found, part)
                };
                match next {
                    Some(next) => found = next,
                    None => return Ok(None),
                }
            }
            if found.is_dir() {
                return Ok(None);
            }
            let read = fs::read(&found);
            read.map(Some).map_err(|source| StoreError::Io {
                path: found,
                action: "read",
                source,
            })
        }
    }
}

fn find_any_case(folder: &Path, name: &str) -> Option<std::path::PathBuf> {
    let entries = fs::read_dir(folder).ok()?;
    let mut same: Vec<_> = entries
        .filter_map(Result::ok)
        .filter(|entry| {
            entry
                .file_name()
                .to_str()
                .is_some_and(|other| other.eq_ignore_ascii_case(name))
        })
        .map(|entry| entry.path())
        .collect();
    same.sort();
    same.into_iter().next()
}

/// FNV-1a over names and contents: the same package has the same folder everywhere.
fn hash(contents: &BTreeMap<String, Vec<u8>>) -> u64 {
    let mut state = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |bytes: &[u8]| {
        for &byte in bytes
            .iter()
            .chain(&u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_le_bytes())
        {
            state = (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    for (name, bytes) in contents {
        add(name.as_bytes());
        add(bytes);
    }
    state
}

// --- the registry -----------------------------------------------------------

struct ListedPackage {
    folder: String,
    published: String,
    inf_name: String,
    driver_files: Vec<String>,
}

fn text(registry: &Registry, key: KeyId, name: &str) -> Option<String> {
    registry
        .value(key, name)
        .ok()?
        .as_sz()
        .map(|text| text.to_string())
}

fn strings(registry: &Registry, key: KeyId, name: &str) -> Option<Vec<String>> {
    let strings = registry.value(key, name).ok()?.as_multi_sz()?;
    Some(strings.iter().map(RegString::to_string).collect())
}

fn multi_sz(strings: &[String]) -> Value {
    Value::multi_sz(strings.iter().map(String::as_str))
}

/// The packages in the order in which they were published.
fn list_packages(registry: &Registry) -> Result<Vec<ListedPackage>, StoreError> {
    let Ok(parent) = registry.open(PACKAGES) else {
        return Ok(Vec::new());
    };
    let mut packages = Vec::new();
    for key in registry.subkeys(parent)? {
        let folder = registry.name(key)?.to_string();
        let (Some(published), Some(inf_name)) =
            (text(registry, key, ""), text(registry, key, "InfName"))
        else {
            continue;
        };
        // Names from a registry that anyone may have edited stay in the machine's folder.
        if [&folder, &inf_name]
            .iter()
            .any(|name| name.contains(['/', '\\']) || name.starts_with('.'))
        {
            continue;
        }
        let mut driver_files = strings(registry, key, "DriverFiles").unwrap_or_default();
        driver_files.retain(|file| {
            file.starts_with("drivers/")
                && file.split('/').all(|part| !matches!(part, "" | "." | ".."))
        });
        packages.push(ListedPackage {
            folder,
            published,
            inf_name,
            driver_files,
        });
    }
    packages.sort_by_key(|package| (package.published.len(), package.published.clone()));
    Ok(packages)
}

/// Lists the package and gives its published name: that of before if it is there already.
fn publish<'a>(
    registry: &mut Registry,
    package: &DriverPackage,
    folder: &str,
    driver_files: impl Iterator<Item = &'a String>,
) -> Result<String, RegistryError> {
    let key = registry.create(format!(r"{PACKAGES}\{folder}"), Volatility::Persistent)?;
    let published = text(registry, key, "").unwrap_or_else(|| {
        let mut number = 0;
        while registry
            .open(format!(r"{INF_FILES}\oem{number}.inf"))
            .is_ok()
        {
            number += 1;
        }
        format!("oem{number}.inf")
    });
    registry.set_value(key, "", Value::sz(published.as_str()))?;
    registry.set_value(key, "InfName", Value::sz(package.inf_name.as_str()))?;
    registry.set_value(key, "Provider", Value::sz(package.provider.as_str()))?;
    registry.set_value(key, "DriverVer", Value::sz(package.version.to_string()))?;
    registry.set_value(
        key,
        "DriverFiles",
        Value::multi_sz(driver_files.map(String::as_str)),
    )?;
    let inf = registry.create(format!(r"{INF_FILES}\{published}"), Volatility::Persistent)?;
    registry.set_value(inf, "", Value::multi_sz([folder]))?;
    Ok(published)
}

/// Adds the services of a package, and gives their names.
fn write_services(
    registry: &mut Registry,
    package: &DriverPackage,
    folder: &str,
    published: &str,
) -> Result<Vec<String>, RegistryError> {
    let mut names = Vec::new();
    for service in package.services() {
        let key = registry.create(
            format!(r"{SERVICES}\{}", service.name),
            Volatility::Persistent,
        )?;
        write_service(registry, key, service, folder, published)?;
        names.push(service.name.clone());
    }
    Ok(names)
}

fn write_service(
    registry: &mut Registry,
    key: KeyId,
    service: &crate::inf::Service,
    folder: &str,
    published: &str,
) -> Result<(), RegistryError> {
    registry.set_value(key, "Type", Value::dword(service.service_type))?;
    registry.set_value(key, "Start", Value::dword(service.start_type))?;
    registry.set_value(key, "ErrorControl", Value::dword(service.error_control))?;
    registry.set_value(
        key,
        "ImagePath",
        Value::expand_sz(service.image_path(folder)),
    )?;
    for (name, text) in [
        ("DisplayName", &service.display_name),
        ("Group", &service.load_order_group),
    ] {
        if let Some(text) = text {
            registry.set_value(key, name, Value::sz(text))?;
        }
    }
    let mut owners = strings(registry, key, "Owners").unwrap_or_default();
    if !owners
        .iter()
        .any(|owner| owner.eq_ignore_ascii_case(published))
    {
        owners.push(published.to_owned());
    }
    registry.set_value(key, "Owners", multi_sz(&owners))?;
    if let Some((major, minor)) = service.kmdf_version {
        let (wdf, _) = registry.create_at(key, r"Parameters\Wdf", Volatility::Persistent)?;
        registry.set_value(
            wdf,
            "KmdfLibraryVersion",
            Value::sz(format!("{major}.{minor}")),
        )?;
        registry.set_value(wdf, "WdfMajorVersion", Value::dword(major))?;
        registry.set_value(wdf, "WdfMinorVersion", Value::dword(minor))?;
    }
    for change in &service.registry {
        apply(registry, key, change)?;
    }
    Ok(())
}

/// Makes a package the driver of a device.
fn bind(
    registry: &mut Registry,
    instance_id: &str,
    package: &DriverPackage,
    model: &Model,
    published: &str,
) -> Result<(), RegistryError> {
    let device = registry.open(format!(r"{ENUM}\{instance_id}"))?;
    let class = registry.create(
        format!(r"{CLASSES}\{}", package.class_guid),
        Volatility::Persistent,
    )?;
    if registry.value(class, "Class").is_err() {
        registry.set_value(class, "Class", Value::sz(package.class.as_str()))?;
    }
    let prefix = format!(r"{}\", package.class_guid);
    let old = text(registry, device, "Driver");
    let kept = old
        .as_deref()
        .and_then(|driver| driver.strip_prefix(&prefix));
    let number = if let Some(number) = kept.filter(|number| is_number(number)) {
        number.to_owned()
    } else {
        // A device that changes its class leaves its old software key.
        if let Some(key) = old.and_then(|old| software_key(registry, &old)) {
            registry.delete_tree(key)?;
        }
        free_number(registry, class)?
    };
    let (software, _) = registry.create_at(class, number.as_str(), Volatility::Persistent)?;
    let date = package.version.date;
    let none = Install {
        section: String::new(),
        decoration: String::new(),
        services: Vec::new(),
        registry: Vec::new(),
        hardware_registry: Vec::new(),
        files: Vec::new(),
    };
    let install = package.install_for(model).unwrap_or(&none);
    for (name, value) in [
        ("InfPath", published.to_owned()),
        ("InfSection", install.section.clone()),
        ("InfSectionExt", install.decoration.clone()),
        ("ProviderName", package.provider.clone()),
        (
            "DriverDate",
            format!("{}-{}-{}", date.month, date.day, date.year),
        ),
        ("DriverVersion", package.version.number()),
        ("MatchingDeviceId", model.hardware_id.clone()),
        ("DriverDesc", model.description.clone()),
    ] {
        registry.set_value(software, name, Value::sz(value))?;
    }
    for (name, value) in [
        ("DeviceDesc", &model.description),
        ("Mfg", &model.manufacturer),
        ("ClassGUID", &package.class_guid),
        ("Driver", &format!("{prefix}{number}")),
    ] {
        registry.set_value(device, name, Value::sz(value))?;
    }
    status::forget(registry, device, 0)?;
    match install
        .services
        .iter()
        .find(|service| service.is_function_driver)
    {
        Some(service) => registry.set_value(device, "Service", Value::sz(service.name.as_str()))?,
        None => drop(registry.delete_value(device, "Service")),
    }
    for change in &install.registry {
        apply(registry, software, change)?;
    }
    let (parameters, _) =
        registry.create_at(device, "Device Parameters", Volatility::Persistent)?;
    for change in &install.hardware_registry {
        let is_property = change.subkey.is_empty()
            && DEVICE_PROPERTIES
                .iter()
                .any(|property| property.eq_ignore_ascii_case(&change.name));
        apply(
            registry,
            if is_property { device } else { parameters },
            change,
        )?;
    }
    Ok(())
}

/// Takes a device's driver away.
fn unbind(registry: &mut Registry, device: &Device) -> Result<(), RegistryError> {
    let key = registry.open(format!(r"{ENUM}\{}", device.instance_id))?;
    if let Some(driver) = &device.driver_key
        && let Some(software) = software_key(registry, driver)
    {
        registry.delete_tree(software)?;
    }
    for name in ["Service", "Driver", "ClassGUID", "DeviceDesc", "Mfg"] {
        // What the device does not have need not go.
        drop(registry.delete_value(key, name));
    }
    status::forget(registry, key, status::REINSTALL)
}

fn list_devices(registry: &Registry) -> Result<Vec<Device>, StoreError> {
    let mut devices = Vec::new();
    let Ok(enumerators) = registry.open(ENUM) else {
        return Ok(devices);
    };
    for enumerator in registry.subkeys(enumerators)? {
        for kind in registry.subkeys(enumerator)? {
            for instance in registry.subkeys(kind)? {
                let names = [enumerator, kind, instance]
                    .map(|key| registry.name(key).map(RegString::to_string));
                let [first, second, third] = names;
                let driver_key = text(registry, instance, "Driver");
                let software = driver_key
                    .as_ref()
                    .and_then(|key| software_key(registry, key));
                devices.push(Device {
                    instance_id: format!(r"{}\{}\{}", first?, second?, third?),
                    hardware_ids: strings(registry, instance, "HardwareID").unwrap_or_default(),
                    description: text(registry, instance, "DeviceDesc"),
                    service: text(registry, instance, "Service"),
                    class: class_name(registry, instance),
                    class_guid: text(registry, instance, "ClassGUID"),
                    manufacturer: text(registry, instance, "Mfg"),
                    status: status::read(registry, instance),
                    inf: software.and_then(|key| text(registry, key, "InfPath")),
                    driver_key,
                });
            }
        }
    }
    Ok(devices)
}

fn class_name(registry: &Registry, device: KeyId) -> Option<String> {
    let guid = text(registry, device, "ClassGUID")?;
    let class = registry.open(format!(r"{CLASSES}\{guid}")).ok()?;
    text(registry, class, "Class")
}

/// The software key that a device's `Driver` value, `{guid}\0000`, names; never a key above those.
fn software_key(registry: &Registry, driver: &str) -> Option<KeyId> {
    let (class, number) = driver.split_once('\\')?;
    if class.is_empty() || !is_number(number) {
        return None;
    }
    registry.open(format!(r"{CLASSES}\{class}\{number}")).ok()
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn free_number(registry: &Registry, parent: KeyId) -> Result<String, RegistryError> {
    let taken: BTreeSet<String> = registry
        .subkeys(parent)?
        .map(|key| registry.name(key).map(RegString::to_string))
        .collect::<Result<_, _>>()?;
    let mut number = 0;
    loop {
        let text = format!("{number:04}");
        if !taken.contains(&text) {
            return Ok(text);
        }
        number += 1;
    }
}

fn apply(
    registry: &mut Registry,
    relative: KeyId,
    change: &RegChange,
) -> Result<(), RegistryError> {
    let root = match change.root {
        RegRoot::Relative => relative,
        RegRoot::LocalMachine => registry.open("HKEY_LOCAL_MACHINE")?,
        RegRoot::ClassesRoot => registry.create("HKEY_CLASSES_ROOT", Volatility::Persistent)?,
        RegRoot::Users => registry.open("HKEY_USERS")?,
    };
    let (subkey, name) = (change.subkey.as_str(), change.name.as_str());
    if let RegOperation::DeleteKey | RegOperation::DeleteValue = change.operation {
        if let Ok(key) = registry.open_at(root, subkey) {
            if change.operation == RegOperation::DeleteKey && !subkey.is_empty() {
                registry.delete_tree(key)?;
            } else {
                drop(registry.delete_value(key, name));
            }
        }
        return Ok(());
    }
    let (key, _) = registry.create_at(root, subkey, Volatility::Persistent)?;
    let exists = registry.value(key, name).is_ok();
    match &change.operation {
        RegOperation::Set(value) => registry.set_value(key, name, value.clone())?,
        RegOperation::SetIfAbsent(value) if !exists => {
            registry.set_value(key, name, value.clone())?;
        }
        RegOperation::SetIfPresent(value) if exists => {
            registry.set_value(key, name, value.clone())?;
        }
        RegOperation::Append(more) => {
            let mut all = strings(registry, key, name).unwrap_or_default();
            for text in more {
                if !all.iter().any(|other| other.eq_ignore_ascii_case(text)) {
                    all.push(text.clone());
                }
            }
            registry.set_value(key, name, multi_sz(&all))?;
        }
        _ => {}
    }
    Ok(())
}
