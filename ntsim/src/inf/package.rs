// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an INF installs on a given system, everything resolved.

use std::collections::HashSet;
use std::fmt;

use super::decoration::{Architecture, Decoration, best_section};
use super::{Inf, InfError, Line, Section};
use crate::registry::{self, Value};

/// A driver package, as its INF describes it for one architecture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DriverPackage {
    /// The INF's name, without folders: `sensor.inf`.
    pub inf_name: String,
    /// What it was resolved for.
    pub architecture: Architecture,
    /// `Class`.
    pub class: String,
    /// `ClassGuid` in lower case, with braces.
    pub class_guid: String,
    /// `Provider`.
    pub provider: String,
    /// `DriverVer`.
    pub version: DriverVersion,
    /// `CatalogFile`, which need not exist: ntsim does not check signatures.
    pub catalog: Option<String>,
    /// The devices it drives.
    pub models: Vec<Model>,
    /// The install sections that the models use.
    pub installs: Vec<Install>,
    /// Every file of `[SourceDisksFiles]`, as a path relative to the INF with `/`.
    pub source_files: Vec<SourceFile>,
    /// What was understood and has no effect here.
    pub notes: Vec<String>,
}

/// A file that the package says it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// Relative to the INF, with `/`.
    pub path: String,
    /// The section that names it.
    pub section: String,
    /// The line there.
    pub line: u32,
}

/// A device model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// What users see.
    pub description: String,
    /// Its manufacturer.
    pub manufacturer: String,
    /// The hardware id.
    pub hardware_id: String,
    /// The compatible ids, best first.
    pub compatible_ids: Vec<String>,
    /// The install section, without decoration; an [`Install`] has the same.
    pub install: String,
}

/// How a model is installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Install {
    /// The install section's name as the models give it.
    pub section: String,
    /// Its decoration with the dot, such as `.NT`, or empty.
    pub decoration: String,
    /// The services, the device's function driver first.
    pub services: Vec<Service>,
    /// Changes of the class (software) key.
    pub registry: Vec<RegChange>,
    /// Changes of the hardware key.
    pub hardware_registry: Vec<RegChange>,
    /// Files to copy.
    pub files: Vec<CopyFile>,
}

/// A service to add.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Whether it is the device's function driver (`SPSVCINST_ASSOCSERVICE`).
    pub is_function_driver: bool,
    /// `DisplayName`.
    pub display_name: Option<String>,
    /// `ServiceType`.
    pub service_type: u32,
    /// `StartType`.
    pub start_type: u32,
    /// `ErrorControl`.
    pub error_control: u32,
    /// `LoadOrderGroup`.
    pub load_order_group: Option<String>,
    /// The folder of `ServiceBinary`.
    pub binary_dir: DirId,
    /// The folders below that one, with `/`, or empty.
    pub binary_subfolder: String,
    /// The file name of `ServiceBinary`.
    pub binary_name: String,
    /// `KmdfLibraryVersion`, such as (1, 33).
    pub kmdf_version: Option<(u32, u32)>,
    /// Changes of the service's key.
    pub registry: Vec<RegChange>,
}

/// A file to copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyFile {
    /// Its name at the destination.
    pub name: String,
    /// Where it is, relative to the INF, with `/`.
    pub source: String,
    /// Where it goes.
    pub destination: DirId,
    /// The folders below that one, with `/`, or empty.
    pub subfolder: String,
    /// The section that names it.
    pub section: String,
    /// The line there.
    pub line: u32,
}

/// The folders of a simulated machine that files go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DirId {
    /// 12: `System32\drivers`.
    Drivers,
    /// 13: the package's folder in the driver store.
    DriverStore,
}

/// The key that a change starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RegRoot {
    /// `HKR`: the key of the section that the change is in.
    Relative,
    /// `HKLM`.
    LocalMachine,
    /// `HKCR`.
    ClassesRoot,
    /// `HKU`.
    Users,
}

/// One line of an `AddReg` or `DelReg` section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegChange {
    /// Where it starts from.
    pub root: RegRoot,
    /// The key below that, or empty.
    pub subkey: String,
    /// The value's name; empty for the default value.
    pub name: String,
    /// What to do.
    pub operation: RegOperation,
}

/// What to do with a key or a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegOperation {
    /// Create the key.
    CreateKey,
    /// Set the value.
    Set(Value),
    /// Set the value unless it is there (`FLG_ADDREG_NOCLOBBER`).
    SetIfAbsent(Value),
    /// Set the value if it is there (`FLG_ADDREG_OVERWRITEONLY`).
    SetIfPresent(Value),
    /// Add strings that a `REG_MULTI_SZ` lacks (`FLG_ADDREG_APPEND`).
    Append(Vec<String>),
    /// Delete the value.
    DeleteValue,
    /// Delete the key with all in it.
    DeleteKey,
}

/// The date of a driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DriverDate {
    /// The year.
    pub year: u16,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
}

/// `DriverVer`: of two drivers that fit equally, the later date wins, then the greater version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DriverVersion {
    /// The date.
    pub date: DriverDate,
    /// The four numbers.
    pub version: [u16; 4],
}

impl DriverDate {
    /// Makes a date, if it is one.
    #[must_use]
    pub fn new(year: u16, month: u8, day: u8) -> Option<Self> {
        let leap =
            year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        let days = match month {
            2 if leap => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            1..=12 => 31,
            _ => return None,
        };
        ((1980..=9999).contains(&year) && (1..=days).contains(&day)).then_some(Self {
            year,
            month,
            day,
        })
    }
}

impl DriverVersion {
    /// The version alone: `1.0.0.0`.
    #[must_use]
    pub fn number(&self) -> String {
        let [a, b, c, d] = self.version;
        format!("{a}.{b}.{c}.{d}")
    }

    fn parse(date: &str, version: &str) -> Option<Self> {
        let mut parts = date.split(['/', '-']);
        let (month, day, year) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let date = DriverDate::new(year.parse().ok()?, month.parse().ok()?, day.parse().ok()?)?;
        let mut numbers = [0u16; 4];
        for (index, part) in version.split('.').enumerate() {
            *numbers.get_mut(index)? = part.parse().ok()?;
        }
        Some(Self {
            date,
            version: numbers,
        })
    }
}

/// As `DriverVer` has it: `09/21/2026,1.0.0.0`.
impl fmt::Display for DriverVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DriverDate { year, month, day } = self.date;
        write!(f, "{month:02}/{day:02}/{year:04},{}", self.number())
    }
}

impl DriverPackage {
    /// The install section of a model.
    #[must_use]
    pub fn install_for(&self, model: &Model) -> Option<&Install> {
        self.installs
            .iter()
            .find(|install| install.section.eq_ignore_ascii_case(&model.install))
    }

    /// Every service of the package, each once.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        let mut seen = HashSet::new();
        self.installs
            .iter()
            .flat_map(|install| &install.services)
            .filter(move |service| seen.insert(service.name.to_ascii_lowercase()))
    }

    /// The models that drive a device of these ids, best first, with their rank (0 is best):
    /// the device's earlier ids and the model's hardware id weigh most.
    #[must_use]
    pub fn matches(&self, hardware_ids: &[&str]) -> Vec<(usize, &Model)> {
        let mut found: Vec<(usize, &Model)> = Vec::new();
        for model in &self.models {
            let ids = std::iter::once(&model.hardware_id).chain(&model.compatible_ids);
            let rank = ids
                .enumerate()
                .flat_map(|(own, id)| {
                    hardware_ids
                        .iter()
                        .enumerate()
                        .map(move |(theirs, wanted)| (own, theirs, id, *wanted))
                })
                .filter(|(_, _, id, wanted)| id.eq_ignore_ascii_case(wanted))
                .map(|(own, theirs, _, _)| theirs + if own == 0 { 0 } else { 0x1000 * own })
                .min();
            found.extend(rank.map(|rank| (rank, model)));
        }
        found.sort_by_key(|(rank, _)| *rank);
        found
    }
}

impl Service {
    /// The path of the image as the registry has it: `\SystemRoot\System32\drivers\sensor.sys`.
    /// `package` is the package's folder in the driver store.
    #[must_use]
    pub fn image_path(&self, package: &str) -> String {
        let folder = match self.binary_dir {
            DirId::Drivers => r"\SystemRoot\System32\drivers".to_owned(),
            DirId::DriverStore => {
                format!(r"\SystemRoot\System32\DriverStore\FileRepository\{package}")
            }
        };
        let below = self
            .binary_subfolder
            .split('/')
            .filter(|part| !part.is_empty());
        below
            .chain([self.binary_name.as_str()])
            .fold(folder, |path, part| format!(r"{path}\{part}"))
    }
}

const UNDEFINED: &str = "names a section that the file does not have";
const TOKEN: &str = "a token of an INX";

/// Whether a mistake is not the consequence of another one.
pub(super) fn is_cause(error: &InfError) -> bool {
    [UNDEFINED, TOKEN].contains(&&*error.problem)
}

const STAMP_IT: &str = "this is an INX: make an INF of it first (cargo xtask, or stampinf)";
/// Directives of an install section that are understood and have no effect on a simulated machine.
const WITHOUT_EFFECT: [&str; 20] = [
    "DelFiles",
    "RenFiles",
    "AddProperty",
    "DelProperty",
    "BitReg",
    "LogConfig",
    "ProfileItems",
    "UpdateInis",
    "UpdateIniFields",
    "Ini2Reg",
    "RegisterDlls",
    "UnregisterDlls",
    "Reboot",
    "DriverVer",
    "FeatureScore",
    "ExcludeId",
    "CopyINF",
    "AddPowerSetting",
    "AddAutoPlay",
    "AddEventProvider",
];

/// Reads an INF that [`super::sections::check`] has accepted.
pub(super) fn resolve(inf: &Inf, architecture: Architecture) -> Result<DriverPackage, InfError> {
    refuse_tokens(inf)?;
    let header = header(inf)?;
    let mut resolver = Resolver {
        inf,
        architecture,
        notes: Vec::new(),
    };
    let models = resolver.models()?;
    let source_files = resolver.source_files()?;
    resolver.check_destinations()?;
    let mut installs: Vec<Install> = Vec::new();
    for model in &models {
        if !installs
            .iter()
            .any(|install| install.section.eq_ignore_ascii_case(&model.install))
        {
            installs.push(resolver.install(&model.install)?);
        }
    }
    Ok(DriverPackage {
        inf_name: inf
            .name
            .rsplit(['/', '\\'])
            .next()
            .unwrap_or_default()
            .to_owned(),
        architecture,
        class: header.class,
        class_guid: header.class_guid,
        provider: header.provider,
        version: header.version,
        catalog: header.catalog,
        models,
        installs,
        source_files,
        notes: resolver.notes,
    })
}

/// What `[Version]` says.
struct Header {
    class: String,
    class_guid: String,
    provider: String,
    version: DriverVersion,
    catalog: Option<String>,
}

fn header(inf: &Inf) -> Result<Header, InfError> {
    let Some(version) = inf.section("Version") else {
        return Err(inf
            .error(
                "there is no [Version] section",
                "add one with Signature, Class, ClassGuid, Provider and DriverVer",
            )
            .section_name("Version"));
    };
    for (index, line) in version.lines.iter().enumerate() {
        let Some(key) = &line.key else {
            return Err(inf
                .error("not a directive", "write key = value")
                .at(version, line)
                .value(line.values.join(",")));
        };
        if version.lines[..index].iter().any(|earlier| {
            earlier
                .key
                .as_ref()
                .is_some_and(|k| k.eq_ignore_ascii_case(key))
        }) {
            return Err(inf
                .error("given twice", "keep one of them")
                .at(version, line)
                .value(line.values.join(",")));
        }
    }
    let required = |key: &str, way_out: &str| match version.first(key) {
        Some((line, value)) if !value.is_empty() => Ok((line, value)),
        _ => Err(inf.error("missing", way_out).within(version).field(key)),
    };
    let (line, signature) = required("Signature", "add Signature = \"$WINDOWS NT$\"")?;
    if !["$windows nt$", "$chicago$"].contains(&signature.to_ascii_lowercase().as_str()) {
        let error = inf.error(
            "not the signature of an INF for Windows",
            "write \"$WINDOWS NT$\"",
        );
        return Err(error.at(version, line).value(signature));
    }
    let (_, class) = required(
        "Class",
        "add the device setup class, such as Class = System",
    )?;
    let (line, guid) = required(
        "ClassGuid",
        "add the class's GUID, such as ClassGuid = {4d36e97d-e325-11ce-bfc1-08002be10318} for System",
    )?;
    if !is_guid(guid) {
        let error = inf.error("not a GUID", "write {xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx}");
        return Err(error.at(version, line).value(guid));
    }
    let (_, provider) = required(
        "Provider",
        "add who provides the driver, such as Provider = %ManufacturerName%",
    )?;
    let (line, date) = required(
        "DriverVer",
        "add DriverVer = mm/dd/yyyy,w.x.y.z, or stamp the file (stampinf)",
    )?;
    let Some(driver_version) =
        DriverVersion::parse(date, line.values.get(1).map_or("0.0.0.0", String::as_str))
    else {
        let error = inf.error(
            "not a date and a version",
            "write mm/dd/yyyy,w.x.y.z with four numbers up to 65535",
        );
        return Err(error.at(version, line).value(line.values.join(",")));
    };
    let catalog = ["CatalogFile.NTamd64", "CatalogFile.NT", "CatalogFile"]
        .iter()
        .find_map(|key| version.first(key))
        .map(|(_, name)| name.to_owned());
    Ok(Header {
        class: class.to_owned(),
        class_guid: guid.to_ascii_lowercase(),
        provider: provider.to_owned(),
        version: driver_version,
        catalog,
    })
}

fn refuse_tokens(inf: &Inf) -> Result<(), InfError> {
    const TOKENS: [&str; 3] = ["$ARCH$", "$KMDFVERSION$", "$KMDFCOINSTALLERVERSION$"];
    let token_in = |text: &str| TOKENS.into_iter().find(|token| text.contains(token));
    for section in inf.sections() {
        if let Some(token) = token_in(&section.name) {
            return Err(inf.error(TOKEN, STAMP_IT).within(section).value(token));
        }
        for line in &section.lines {
            if let Some(token) = line
                .values
                .iter()
                .chain(&line.key)
                .find_map(|text| token_in(text))
            {
                return Err(inf.error(TOKEN, STAMP_IT).at(section, line).value(token));
            }
        }
    }
    Ok(())
}

struct Resolver<'a> {
    inf: &'a Inf,
    architecture: Architecture,
    notes: Vec<String>,
}

type Located<'a> = (&'a Section, &'a Line);

impl<'a> Resolver<'a> {
    fn note(&mut self, (section, line): Located<'_>, what: &str) {
        let key = line.key.as_deref().unwrap_or_default();
        let note = format!(
            "{}:{}: [{}] {key} = {}: {what}",
            self.inf.name,
            line.number,
            section.name,
            line.values.join(", ")
        );
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    fn models(&mut self) -> Result<Vec<Model>, InfError> {
        let Some(manufacturers) = self.inf.section("Manufacturer") else {
            let error = self.inf.error(
                "there is no [Manufacturer] section",
                "add one that names a models section",
            );
            return Err(error.section_name("Manufacturer"));
        };
        let mut models = Vec::new();
        let mut elsewhere: Option<&Line> = None;
        for line in &manufacturers.lines {
            let base = line.value(0);
            let mut best = None;
            for decoration in &line.values[1..] {
                let Some(parsed) = Decoration::parse(decoration) else {
                    let error = self.inf.error(
                        "not a target system",
                        "write NTamd64 or NTamd64.10.0...16299",
                    );
                    return Err(error.at(manufacturers, line).value(decoration.as_str()));
                };
                // Since Windows Server 2003 SP1 a 64-bit system takes only what names its architecture.
                let wants_name = self.architecture != Architecture::X86;
                let rank = parsed
                    .rank(self.architecture)
                    .filter(|_| parsed.names_architecture() || !wants_name);
                if let Some(rank) = rank
                    && best.as_ref().is_none_or(|(other, _)| rank > *other)
                {
                    best = Some((rank, decoration));
                }
            }
            let name = match best {
                Some((_, decoration)) => format!("{base}.{decoration}"),
                None if self.architecture == Architecture::X86 && line.values.len() == 1 => {
                    base.to_owned()
                }
                None => {
                    elsewhere.get_or_insert(line);
                    continue;
                }
            };
            let Some(section) = self.inf.section(&name) else {
                return Err(self.undefined(manufacturers, line, &name));
            };
            for model in &section.lines {
                models.push(self.model(line, section, model)?);
            }
        }
        if !models.is_empty() {
            return Ok(models);
        }
        let way_out = format!(
            "add NT{} to the manufacturer's line and a models section of that name with a device",
            self.architecture
        );
        Err(match elsewhere {
            Some(line) => self
                .inf
                .error(
                    format!(
                        "for other systems only: nothing here is for {} and Windows 10.0.22621",
                        self.architecture
                    ),
                    way_out,
                )
                .at(manufacturers, line)
                .value(line.values.join(",")),
            None => self
                .inf
                .error("names no device", way_out)
                .within(manufacturers),
        })
    }

    fn model(
        &self,
        manufacturer: &Line,
        section: &Section,
        line: &Line,
    ) -> Result<Model, InfError> {
        let error = |problem| {
            self.inf
                .error(problem, "write %Description% = InstallSection, hardware-id")
                .at(section, line)
                .value(line.values.join(","))
        };
        let Some(description) = &line.key else {
            return Err(error("a model without a description"));
        };
        let (install, hardware_id) = (line.value(0), line.value(1));
        if install.is_empty() {
            return Err(error("a model without an install section"));
        }
        if hardware_id.is_empty() {
            return Err(error("a model without a hardware id"));
        }
        if best_section(self.inf, install, self.architecture).is_none() {
            return Err(self.undefined(section, line, install));
        }
        Ok(Model {
            description: description.clone(),
            manufacturer: manufacturer
                .key
                .clone()
                .unwrap_or_else(|| manufacturer.value(0).to_owned()),
            hardware_id: hardware_id.to_owned(),
            compatible_ids: line
                .values
                .iter()
                .skip(2)
                .filter(|id| !id.is_empty())
                .cloned()
                .collect(),
            install: install.to_owned(),
        })
    }

    fn undefined(&self, section: &Section, line: &Line, name: &str) -> InfError {
        self.inf
            .error(UNDEFINED, format!("add [{name}] or correct the name"))
            .at(section, line)
            .value(name)
    }

    /// The lines of a section and of those that it `Needs`.
    fn gather(&mut self, section: &'a Section) -> Result<Vec<Located<'a>>, InfError> {
        let mut gathered = Vec::new();
        let mut seen = HashSet::new();
        let mut pending = vec![section];
        while let Some(section) = pending.pop() {
            if !seen.insert(section.name.to_ascii_lowercase()) {
                continue;
            }
            let included = section.first("Include").is_some();
            for line in &section.lines {
                match line.key.as_deref().map(str::to_ascii_lowercase).as_deref() {
                    Some("include") => self.note(
                        (section, line),
                        "the sections of Windows' own INFs have no effect here",
                    ),
                    Some("needs") => {
                        for name in &line.values {
                            match self.inf.section(name) {
                                Some(needed) => pending.push(needed),
                                None if included => {}
                                None => return Err(self.undefined(section, line, name)),
                            }
                        }
                    }
                    _ => gathered.push((section, line)),
                }
            }
        }
        Ok(gathered)
    }

    /// The sections that the values of a directive name, each once.
    fn named_sections(&self, (section, line): Located<'a>) -> Result<Vec<&'a Section>, InfError> {
        let mut found: Vec<&Section> = Vec::new();
        for name in &line.values {
            let Some(named) = self.inf.section(name) else {
                return Err(self.undefined(section, line, name));
            };
            if found.iter().any(|other| std::ptr::eq(*other, named)) {
                let error = self
                    .inf
                    .error("names the same section twice", "name it once");
                return Err(error.at(section, line).value(name.as_str()));
            }
            found.push(named);
        }
        Ok(found)
    }

    fn install(&mut self, name: &str) -> Result<Install, InfError> {
        let Some(section) = best_section(self.inf, name, self.architecture) else {
            return Err(self
                .inf
                .error("no such section", format!("add [{name}]"))
                .section_name(name));
        };
        let mut install = Install {
            section: name.to_owned(),
            decoration: section
                .name
                .get(name.len()..)
                .unwrap_or_default()
                .to_owned(),
            services: Vec::new(),
            registry: Vec::new(),
            hardware_registry: Vec::new(),
            files: Vec::new(),
        };
        for located @ (from, line) in self.gather(section)? {
            let key = line.key.as_deref().unwrap_or_default();
            match key.to_ascii_lowercase().as_str() {
                "copyfiles" => self.copy_files(located, &mut install.files)?,
                "addreg" | "delreg" => self.registry(located, &mut install.registry)?,
                _ if WITHOUT_EFFECT
                    .iter()
                    .any(|known| known.eq_ignore_ascii_case(key)) =>
                {
                    self.note(located, "no effect on a simulated machine");
                }
                _ => {
                    return Err(self.unknown_directive(
                        from,
                        line,
                        "CopyFiles, AddReg, DelReg, Include, Needs",
                    ));
                }
            }
        }
        if let Some(hardware) = self.part(section, "HW") {
            for located @ (from, line) in self.gather(hardware)? {
                match line
                    .key
                    .as_deref()
                    .unwrap_or_default()
                    .to_ascii_lowercase()
                    .as_str()
                {
                    "addreg" | "delreg" => {
                        self.registry(located, &mut install.hardware_registry)?;
                    }
                    _ => {
                        return Err(self.unknown_directive(
                            from,
                            line,
                            "AddReg, DelReg, Include, Needs",
                        ));
                    }
                }
            }
        }
        self.services(section, &mut install)?;
        self.kmdf(section, &mut install)?;
        for suffix in [
            "Interfaces",
            "CoInstallers",
            "Components",
            "Software",
            "Filters",
            "Events",
        ] {
            if let Some(part) = self.part(section, suffix) {
                self.notes.push(format!(
                    "{}:{}: [{}]: no effect on a simulated machine",
                    self.inf.name, part.line, part.name
                ));
            }
        }
        Ok(install)
    }

    fn part(&self, section: &Section, suffix: &str) -> Option<&'a Section> {
        self.inf.section(&format!("{}.{suffix}", section.name))
    }

    fn unknown_directive(&self, section: &Section, line: &Line, known: &str) -> InfError {
        self.inf
            .error(
                "an unknown directive for this section",
                format!("correct or remove it; it may have {known}"),
            )
            .at(section, line)
            .value(line.values.join(","))
    }

    fn services(&mut self, section: &'a Section, install: &mut Install) -> Result<(), InfError> {
        let Some(part) = self.part(section, "Services") else {
            // A section for another decoration is a common slip: setupapi would install no service.
            let base = format!("{}.", install.section.to_ascii_lowercase());
            let stray = self.inf.sections().find(|other| {
                let name = other.name.to_ascii_lowercase();
                name.starts_with(&base)
                    && name.ends_with(".services")
                    && name
                        .strip_prefix(&base)
                        .and_then(|rest| rest.strip_suffix(".services").map(str::to_owned))
                        .is_none_or(|decoration| {
                            Decoration::parse(&decoration)
                                .is_some_and(|d| d.rank(self.architecture).is_some())
                        })
            });
            return match stray {
                None => Ok(()),
                Some(stray) => Err(self
                    .inf
                    .error(
                        "no install section has this name before its suffix",
                        format!("name it [{}.Services]", section.name),
                    )
                    .within(stray)),
            };
        };
        for (from, line) in self.gather(part)? {
            let key = line.key.as_deref().unwrap_or_default();
            if key.eq_ignore_ascii_case("DelService") || key.eq_ignore_ascii_case("AddTrigger") {
                self.note((from, line), "no effect on a simulated machine");
                continue;
            }
            if !key.eq_ignore_ascii_case("AddService") {
                return Err(self.unknown_directive(
                    from,
                    line,
                    "AddService, DelService, Include, Needs",
                ));
            }
            let flags = match line.value(1) {
                "" => 0,
                text => number(text).ok_or_else(|| {
                    self.inf
                        .error("not a number", "write flags such as 0x00000002")
                        .at(from, line)
                        .value(text)
                })?,
            };
            if line.value(0).is_empty() {
                // `AddService = ,2`: the device has no function driver of its own.
                continue;
            }
            let name = line.value(0);
            if install
                .services
                .iter()
                .any(|service| service.name.eq_ignore_ascii_case(name))
            {
                return Err(self
                    .inf
                    .error("adds the same service twice", "add it once")
                    .at(from, line)
                    .value(name));
            }
            let Some(definition) = self.inf.section(line.value(2)) else {
                return Err(self.undefined(from, line, line.value(2)));
            };
            if !line.value(3).is_empty() && self.inf.section(line.value(3)).is_none() {
                return Err(self.undefined(from, line, line.value(3)));
            }
            let mut service = self.service(name, definition, &install.files)?;
            service.is_function_driver = flags & 2 != 0;
            if service.is_function_driver {
                if install
                    .services
                    .first()
                    .is_some_and(|first| first.is_function_driver)
                {
                    let error = self.inf.error(
                        "a second function driver (flag 2)",
                        "give the flag to one service",
                    );
                    return Err(error.at(from, line).value(name));
                }
                install.services.insert(0, service);
            } else {
                install.services.push(service);
            }
        }
        Ok(())
    }

    fn service(
        &mut self,
        name: &str,
        section: &'a Section,
        files: &[CopyFile],
    ) -> Result<Service, InfError> {
        self.check_service_lines(section)?;
        let text = |key: &str| {
            section
                .first(key)
                .map(|(_, value)| value.to_owned())
                .filter(|value| !value.is_empty())
        };
        let inf = self.inf;
        let required = |key: &str, way_out: &str, allowed: &[u32]| {
            let Some((line, value)) = section.first(key) else {
                return Err(inf.error("missing", way_out).within(section).field(key));
            };
            match number(value) {
                Some(number) if allowed.contains(&number) => Ok(number),
                _ => Err(inf
                    .error("not a value for a kernel driver", way_out)
                    .at(section, line)
                    .value(value)),
            }
        };
        let service_type = required("ServiceType", "write 1 (SERVICE_KERNEL_DRIVER)", &[1])?;
        let start_type = required(
            "StartType",
            "write 0 to 4; a PnP driver has 3 (SERVICE_DEMAND_START)",
            &[0, 1, 2, 3, 4],
        )?;
        let error_control = required(
            "ErrorControl",
            "write 0 to 3; usual is 1 (SERVICE_ERROR_NORMAL)",
            &[0, 1, 2, 3],
        )?;
        let (binary_dir, binary_subfolder, binary_name) = self.service_binary(section, files)?;
        let mut changes = Vec::new();
        for key in ["AddReg", "DelReg"] {
            for line in section.directives(key) {
                self.registry((section, line), &mut changes)?;
            }
        }
        Ok(Service {
            name: name.to_owned(),
            is_function_driver: false,
            display_name: text("DisplayName"),
            service_type,
            start_type,
            error_control,
            load_order_group: text("LoadOrderGroup"),
            binary_dir,
            binary_subfolder,
            binary_name,
            kmdf_version: None,
            registry: changes,
        })
    }

    fn check_service_lines(&self, section: &Section) -> Result<(), InfError> {
        const KNOWN: [&str; 14] = [
            "DisplayName",
            "Description",
            "ServiceType",
            "StartType",
            "ErrorControl",
            "ServiceBinary",
            "StartName",
            "AddReg",
            "DelReg",
            "LoadOrderGroup",
            "Dependencies",
            "Security",
            "DelayedAutoStart",
            "AddTrigger",
        ];
        for (index, line) in section.lines.iter().enumerate() {
            let key = line.key.as_deref().unwrap_or_default();
            if !KNOWN.iter().any(|known| known.eq_ignore_ascii_case(key)) {
                return Err(self.unknown_directive(section, line, &KNOWN.join(", ")));
            }
            let repeats = |other: &Line| {
                other
                    .key
                    .as_deref()
                    .is_some_and(|other| other.eq_ignore_ascii_case(key))
            };
            if !["AddReg", "DelReg", "AddTrigger"]
                .iter()
                .any(|many| many.eq_ignore_ascii_case(key))
                && section.lines[..index].iter().any(repeats)
            {
                return Err(self
                    .inf
                    .error("given twice", "keep one of them")
                    .at(section, line)
                    .value(line.value(0)));
            }
        }
        Ok(())
    }

    /// Where `ServiceBinary` is: the folder, the folders below it, the name.
    fn service_binary(
        &self,
        section: &Section,
        files: &[CopyFile],
    ) -> Result<(DirId, String, String), InfError> {
        let inf = self.inf;
        let Some((line, binary)) = section.first("ServiceBinary") else {
            let error = inf.error(
                "missing",
                "add ServiceBinary = %12%\\driver.sys or %13%\\driver.sys",
            );
            return Err(error.within(section).field("ServiceBinary"));
        };
        let bad_binary = |problem: &str, way_out: &str| {
            inf.error(problem, way_out).at(section, line).value(binary)
        };
        let (binary_dir, rest) = if let Some(rest) = binary.strip_prefix(r"%12%\") {
            (DirId::Drivers, rest)
        } else if let Some(rest) = binary.strip_prefix(r"%13%\") {
            (DirId::DriverStore, rest)
        } else {
            return Err(bad_binary(
                "not a file in a folder that the simulated machine has",
                "write %12%\\driver.sys or %13%\\driver.sys",
            ));
        };
        let Some(path) = clean_path(rest) else {
            return Err(bad_binary(
                "not the path of a file",
                "write %12%\\driver.sys or %13%\\driver.sys",
            ));
        };
        let (binary_subfolder, binary_name) = match path.rsplit_once('/') {
            Some((folder, name)) => (folder.to_owned(), name.to_owned()),
            None => (String::new(), path),
        };
        let is_it = |file: &CopyFile| {
            file.destination == binary_dir
                && file.name.eq_ignore_ascii_case(&binary_name)
                && file.subfolder.eq_ignore_ascii_case(&binary_subfolder)
        };
        if !files.iter().any(is_it) {
            return Err(bad_binary(
                "a file that no CopyFiles of the install section puts there",
                "list it in a CopyFiles section and give that section the same folder in [DestinationDirs]",
            ));
        }
        Ok((binary_dir, binary_subfolder, binary_name))
    }

    fn kmdf(&mut self, section: &'a Section, install: &mut Install) -> Result<(), InfError> {
        let Some(part) = self.part(section, "Wdf") else {
            return Ok(());
        };
        for (from, line) in self.gather(part)? {
            if !line
                .key
                .as_deref()
                .unwrap_or_default()
                .eq_ignore_ascii_case("KmdfService")
            {
                return Err(self.unknown_directive(
                    from,
                    line,
                    "KmdfService; ntsim runs KMDF drivers only",
                ));
            }
            let name = line.value(0);
            let Some(definition) = self.inf.section(line.value(1)) else {
                return Err(self.undefined(from, line, line.value(1)));
            };
            let Some(service) = install
                .services
                .iter_mut()
                .find(|service| service.name.eq_ignore_ascii_case(name))
            else {
                let error = self.inf.error(
                    "a service that the install section does not add",
                    "give the name of its AddService",
                );
                return Err(error.at(from, line).value(name));
            };
            let way_out = "write KmdfLibraryVersion = 1.33 (or $KMDFVERSION$ in an INX)";
            let Some((line, text)) = definition.first("KmdfLibraryVersion") else {
                return Err(self
                    .inf
                    .error("missing", way_out)
                    .within(definition)
                    .field("KmdfLibraryVersion"));
            };
            let version = text
                .split_once('.')
                .and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
            let Some(version) = version else {
                return Err(self
                    .inf
                    .error("not a version", way_out)
                    .at(definition, line)
                    .value(text));
            };
            service.kmdf_version = Some(version);
        }
        Ok(())
    }

    // --- files -------------------------------------------------------------

    /// The lines of `[SourceDisksFiles]`, those for the architecture first.
    fn source_lines(&self, what: &str) -> Vec<Located<'a>> {
        let names = [format!("{what}.{}", self.architecture), what.to_owned()];
        let sections = names.iter().filter_map(|name| self.inf.section(name));
        sections
            .flat_map(|section| section.lines.iter().map(move |line| (section, line)))
            .collect()
    }

    fn source_files(&self) -> Result<Vec<SourceFile>, InfError> {
        let mut files: Vec<SourceFile> = Vec::new();
        let mut seen = HashSet::new();
        for (section, line) in self.source_lines("SourceDisksFiles") {
            let Some(name) = &line.key else {
                let error = self.inf.error("not a file's line", "write file.sys = 1");
                return Err(error.at(section, line).value(line.values.join(",")));
            };
            if seen.insert(name.to_ascii_lowercase()) {
                let path = self.source_path(section, line, name)?;
                files.push(SourceFile {
                    path,
                    section: section.name.clone(),
                    line: line.number,
                });
            }
        }
        Ok(files)
    }

    fn source_path(&self, section: &Section, line: &Line, name: &str) -> Result<String, InfError> {
        let disk = line.value(0);
        let disks = self.source_lines("SourceDisksNames");
        let found = disks.iter().find(|(_, other)| {
            let id = other.key.as_deref().unwrap_or(other.value(0));
            id == disk || number(id).is_some_and(|id| number(disk) == Some(id))
        });
        let Some((_, disk_line)) = found else {
            let error = self.inf.error(
                "a disk that [SourceDisksNames] does not have",
                format!("add {disk} = %DiskName% there"),
            );
            return Err(error.at(section, line).value(disk));
        };
        let parts = [disk_line.value(3), line.value(1), name];
        let joined: Vec<&str> = parts
            .into_iter()
            .map(|part| part.trim_matches('\\'))
            .filter(|part| !part.is_empty())
            .collect();
        clean_path(&joined.join("\\")).ok_or_else(|| {
            let error = self.inf.error(
                "not a path within the package",
                "name a file beside the INF or in a folder below it",
            );
            error.at(section, line).value(joined.join("\\"))
        })
    }

    fn check_destinations(&self) -> Result<(), InfError> {
        let Some(section) = self.inf.section("DestinationDirs") else {
            return Ok(());
        };
        for (index, line) in section.lines.iter().enumerate() {
            let Some(key) = &line.key else {
                let error = self
                    .inf
                    .error("not a folder's line", "write DefaultDestDir = 13");
                return Err(error.at(section, line).value(line.values.join(",")));
            };
            if !key.eq_ignore_ascii_case("DefaultDestDir") && self.inf.section(key).is_none() {
                return Err(self.undefined(section, line, key));
            }
            if section.lines[..index].iter().any(|other| {
                other
                    .key
                    .as_ref()
                    .is_some_and(|other| other.eq_ignore_ascii_case(key))
            }) {
                return Err(self
                    .inf
                    .error("given twice", "keep one of them")
                    .at(section, line)
                    .value(line.value(0)));
            }
        }
        Ok(())
    }

    fn destination(&self, list: &str) -> Result<(DirId, String), InfError> {
        let way_out = "write 13 (the driver store, recommended) or 12 (System32\\drivers)";
        let Some(section) = self.inf.section("DestinationDirs") else {
            let error = self.inf.error(
                "there is no [DestinationDirs] section",
                "add one with DefaultDestDir = 13",
            );
            return Err(error.section_name("DestinationDirs"));
        };
        let Some((line, id)) = section
            .first(list)
            .or_else(|| section.first("DefaultDestDir"))
        else {
            let error = self.inf.error("missing", way_out);
            return Err(error.within(section).field(if list.is_empty() {
                "DefaultDestDir"
            } else {
                list
            }));
        };
        let error = |problem: &str, value: &str| {
            self.inf
                .error(problem, way_out)
                .at(section, line)
                .value(value)
        };
        let id = match number(id) {
            Some(12) => DirId::Drivers,
            Some(13) => DirId::DriverStore,
            _ => {
                return Err(error(
                    "a folder that the simulated machine does not have",
                    id,
                ));
            }
        };
        let below = line.value(1).trim_matches('\\');
        if below.is_empty() {
            return Ok((id, String::new()));
        }
        clean_path(below)
            .map(|below| (id, below))
            .ok_or_else(|| error("not a folder below the other one", below))
    }

    fn copy_files(
        &mut self,
        (section, line): Located<'a>,
        files: &mut Vec<CopyFile>,
    ) -> Result<(), InfError> {
        let mut seen = HashSet::new();
        for value in &line.values {
            if !seen.insert(value.to_ascii_lowercase()) {
                return Err(self
                    .inf
                    .error("names the same section twice", "name it once")
                    .at(section, line)
                    .value(value.as_str()));
            }
            if let Some(name) = value.strip_prefix('@') {
                let destination = self.destination("")?;
                files.push(self.copy_file(section, line, name, name, destination)?);
                continue;
            }
            let Some(list) = self.inf.section(value) else {
                return Err(self.undefined(section, line, value));
            };
            let destination = self.destination(&list.name)?;
            for entry in &list.lines {
                if entry.key.is_some() {
                    let error = self.inf.error(
                        "not a file's line",
                        "write file.sys, or destination.sys,source.sys",
                    );
                    return Err(error.at(list, entry).value(entry.values.join(",")));
                }
                let name = entry.value(0);
                let source = if entry.value(1).is_empty() {
                    name
                } else {
                    entry.value(1)
                };
                files.push(self.copy_file(list, entry, name, source, destination.clone())?);
            }
        }
        Ok(())
    }

    fn copy_file(
        &self,
        section: &Section,
        line: &Line,
        name: &str,
        source: &str,
        (destination, subfolder): (DirId, String),
    ) -> Result<CopyFile, InfError> {
        if clean_path(name).is_none_or(|clean| clean.contains('/')) {
            return Err(self
                .inf
                .error("not the name of a file", "write a name without folders")
                .at(section, line)
                .value(name));
        }
        let listed = self.source_lines("SourceDisksFiles");
        let found = listed.iter().find(|(_, line)| {
            line.key
                .as_ref()
                .is_some_and(|key| key.eq_ignore_ascii_case(source))
        });
        let Some((list, entry)) = found else {
            let error = self.inf.error(
                "a file that [SourceDisksFiles] does not have",
                format!("add {source} = 1 there"),
            );
            return Err(error.at(section, line).value(source));
        };
        Ok(CopyFile {
            name: name.to_owned(),
            source: self.source_path(list, entry, source)?,
            destination,
            subfolder,
            section: section.name.clone(),
            line: line.number,
        })
    }

    // --- registry ----------------------------------------------------------

    fn registry(
        &mut self,
        located: Located<'a>,
        changes: &mut Vec<RegChange>,
    ) -> Result<(), InfError> {
        let delete = located
            .1
            .key
            .as_deref()
            .is_some_and(|key| key.eq_ignore_ascii_case("DelReg"));
        for section in self.named_sections(located)? {
            for line in &section.lines {
                changes.push(self.change(section, line, delete)?);
            }
        }
        Ok(())
    }

    fn change(&self, section: &Section, line: &Line, delete: bool) -> Result<RegChange, InfError> {
        let error = |problem: &str, way_out: &str, value: &str| {
            self.inf
                .error(problem, way_out)
                .at(section, line)
                .value(value)
        };
        if line.key.is_some() {
            return Err(error(
                "not a registry line",
                "write HKR,subkey,name,flags,value; quote what has an = in it",
                &line.values.join(","),
            ));
        }
        let root = match line.value(0).to_ascii_uppercase().as_str() {
            "HKR" => RegRoot::Relative,
            "HKLM" => RegRoot::LocalMachine,
            "HKCR" => RegRoot::ClassesRoot,
            "HKU" => RegRoot::Users,
            _ => {
                return Err(error(
                    "a root that the simulated machine does not have",
                    "write HKR, HKLM, HKCR or HKU",
                    line.value(0),
                ));
            }
        };
        let subkey = line.value(1).trim_matches('\\').to_owned();
        let too_long = subkey
            .split('\\')
            .any(|part| part.is_empty() || part.encode_utf16().count() > registry::MAX_KEY_NAME);
        if !subkey.is_empty() && too_long || subkey.contains(['\r', '\n']) {
            return Err(error(
                "not the path of a registry key",
                "write names of 1 to 255 characters with \\ between them",
                line.value(1),
            ));
        }
        if subkey.split('\\').count() > registry::MAX_DEPTH / 2 {
            return Err(error(
                "a registry key too deep",
                "nest fewer than 256 keys",
                line.value(1),
            ));
        }
        let name = line.value(2).to_owned();
        let change = |operation| RegChange {
            root,
            subkey: subkey.clone(),
            name: name.clone(),
            operation,
        };
        if delete {
            let whole_key = line.values.len() < 3;
            return Ok(change(if whole_key {
                RegOperation::DeleteKey
            } else {
                RegOperation::DeleteValue
            }));
        }
        let flags = match line.value(3) {
            "" => 0,
            text => number(text).ok_or_else(|| {
                error(
                    "not a number",
                    "write flags such as 0x00010001 (FLG_ADDREG_TYPE_DWORD)",
                    text,
                )
            })?,
        };
        let values = line.values.get(4..).unwrap_or_default();
        if flags & 0x10 != 0 || line.values.len() <= 2 {
            return Ok(change(RegOperation::CreateKey));
        }
        if flags & 0x4 != 0 {
            return Ok(change(RegOperation::DeleteValue));
        }
        let kind = flags & 0xFFFF_0001;
        if flags & 0x8 != 0 {
            if kind != 0x0001_0000 {
                return Err(error(
                    "FLG_ADDREG_APPEND for a value that is not a REG_MULTI_SZ",
                    "write 0x00010008",
                    line.value(3),
                ));
            }
            return Ok(change(RegOperation::Append(values.to_vec())));
        }
        let value = reg_value(kind, values)
            .map_err(|(problem, way_out, value)| error(problem, way_out, &value))?;
        Ok(change(match flags & 0x22 {
            0x2 => RegOperation::SetIfAbsent(value),
            0x20 => RegOperation::SetIfPresent(value),
            _ => RegOperation::Set(value),
        }))
    }
}

/// Makes the value of an `AddReg` line. Bit 0 of `kind` says that the upper half is not a kind of string.
fn reg_value(kind: u32, values: &[String]) -> Result<Value, (&'static str, &'static str, String)> {
    let first = values.first().map_or("", String::as_str);
    let bytes = || {
        let byte = |text: &String| {
            u8::from_str_radix(text.trim_start_matches("0x"), 16).map_err(|_| {
                (
                    "not a byte",
                    "write hexadecimal bytes with commas between them",
                    text.clone(),
                )
            })
        };
        if values.len() == 1 && first.is_empty() {
            return Ok(Vec::new());
        }
        values.iter().map(byte).collect::<Result<Vec<u8>, _>>()
    };
    Ok(match kind {
        0x0000_0000 => Value::sz(first),
        0x0001_0000 => Value::multi_sz(
            values
                .iter()
                .filter(|text| !text.is_empty())
                .map(String::as_str),
        ),
        0x0002_0000 => Value::expand_sz(first),
        0x0001_0001 if values.len() == 4 => Value::new(registry::REG_DWORD, bytes()?),
        0x0001_0001 => match number(first) {
            Some(number) if values.len() <= 1 => Value::dword(number),
            _ => {
                return Err((
                    "not a 32-bit number",
                    "write one number, or four hexadecimal bytes",
                    values.join(","),
                ));
            }
        },
        0x0002_0001 => Value::new(registry::REG_NONE, bytes()?),
        0x0000_0001 => Value::binary(bytes()?),
        kind if kind & 1 == 1 => Value::new(kind >> 16, bytes()?),
        _ => {
            return Err((
                "unknown flags",
                "write a FLG_ADDREG_TYPE value such as 0x00010001",
                format!("{kind:#010x}"),
            ));
        }
    })
}

/// Reads a number as setupapi does: decimal, `0x` hexadecimal, or negative.
fn number(text: &str) -> Option<u32> {
    if let Some(digits) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        return u32::from_str_radix(digits, 16).ok();
    }
    if let Some(digits) = text.strip_prefix('-') {
        let number: u32 = digits.parse().ok()?;
        return Some(number.wrapping_neg());
    }
    text.parse().ok()
}

fn is_guid(text: &str) -> bool {
    let Some(inner) = text
        .strip_prefix('{')
        .and_then(|rest| rest.strip_suffix('}'))
    else {
        return false;
    };
    let groups: Vec<&str> = inner.split('-').collect();
    groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12])
        && groups
            .iter()
            .all(|group| group.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Turns a path with backslashes into one with slashes that stays where it is: a package must
/// not reach outside its folder, on any file system.
fn clean_path(path: &str) -> Option<String> {
    let reserved = |letter: char| letter.is_control() || "/:*?\"<>|".contains(letter);
    let bad = |part: &str| {
        part.is_empty()
            || part.starts_with(' ')
            || part.ends_with([' ', '.'])
            || part.chars().any(reserved)
            || part.len() > 200
    };
    let parts: Vec<&str> = path.split('\\').collect();
    (parts.len() <= 16 && !parts.iter().any(|part| bad(part))).then(|| parts.join("/"))
}

impl InfError {
    fn section_name(mut self, name: &str) -> Self {
        self.section = Some(name.into());
        self
    }
}
