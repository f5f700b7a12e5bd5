// SPDX-License-Identifier: MIT OR Apache-2.0

//! `ntsim pnputil`: driver packages and devices, as Windows's pnputil shows and changes them.
//!
//! See [its syntax][syntax]. It has no command that makes a device; the WDK's
//! devgen has: [`crate::devgen`].
//!
//! [syntax]: https://learn.microsoft.com/windows-hardware/drivers/devtest/pnputil-command-syntax

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args};
use ntsim::inf::DriverPackage;
use ntsim::store::{
    self, Device, Enabled, MachineDir, PackageSource, Status, StoredDriver, Update,
};

use crate::end::{End, Ended, Failure};
use crate::place::{self, Place};
use crate::session::{self, Boot, Session};

const USAGE: &str = "ntsim pnputil /add-driver <x.inf | *.inf | FOLDER> [/subdirs] [/install]
       ntsim pnputil /delete-driver <oem0.inf> [/uninstall] [/force]
       ntsim pnputil /enum-drivers
       ntsim pnputil /enum-devices [/connected | /disconnected] [/instanceid <ID>]
                     [/class <NAME | GUID>] [/problem [<CODE>]] [/ids]
       ntsim pnputil /disable-device | /enable-device | /restart-device <ID>
       ntsim pnputil /remove-device <ID> [/force]
       ntsim pnputil /scan-devices";

const EXAMPLES: &str = r"Examples:
  ntsim pnputil /add-driver sensor.inf /install
  ntsim pnputil /add-driver drivers /subdirs
  ntsim devgen  /add /hardwareid Root\Sensor
  ntsim pnputil /enum-devices /class System /problem
  ntsim pnputil /restart-device ROOT\SENSOR\0000 --seed 7 --verbose
  ntsim pnputil /delete-driver oem0.inf /uninstall

Options may be written /add-driver, -add-driver or --add-driver, in any case.";

/// Driver packages and devices, as Windows's pnputil shows and changes them
#[derive(Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of pnputil")]
#[command(
    after_help = EXAMPLES,
    after_long_help = [EXAMPLES, place::ABOUT, session::ABOUT].join("\n\n"),
    override_usage = USAGE,
    group = ArgGroup::new("command").required(true)
)]
pub(crate) struct Pnputil {
    /// Put driver packages into the driver store
    #[arg(long, value_name = "INF", num_args = 1.., group = "command")]
    add_driver: Vec<PathBuf>,
    /// With /add-driver: look for packages in the folders below, too
    #[arg(long)]
    subdirs: bool,
    /// With /add-driver: make it the driver of the devices that it fits best, and start them
    #[arg(long)]
    install: bool,
    /// Take a driver package out of the driver store
    #[arg(long, value_name = "OEM_INF", group = "command")]
    delete_driver: Option<String>,
    /// With /delete-driver: remove it in good order from the devices that use it
    #[arg(long)]
    uninstall: bool,
    /// With /delete-driver and /remove-device: do it without running the driver
    #[arg(long)]
    force: bool,
    /// List the packages of the driver store
    #[arg(long, group = "command")]
    enum_drivers: bool,
    /// List the devices
    #[arg(long, group = "command")]
    enum_devices: bool,
    /// With /enum-devices: only those that are there, as root-enumerated devices always are
    #[arg(long, conflicts_with = "disconnected")]
    connected: bool,
    /// With /enum-devices: only those that are not there
    #[arg(long)]
    disconnected: bool,
    /// With /enum-devices: only this one
    #[arg(long, value_name = "ID")]
    instanceid: Option<String>,
    /// With /enum-devices: only those of this setup class
    #[arg(long, value_name = "NAME")]
    class: Option<String>,
    /// With /enum-devices: only those that have a problem, or this one
    #[arg(
        long,
        value_name = "CODE",
        num_args = 0..=1,
        default_missing_value = "any",
        value_parser = problem_filter
    )]
    problem: Option<ProblemFilter>,
    /// With /enum-devices: show the hardware ids too
    #[arg(long, visible_alias = "deviceids")]
    ids: bool,
    /// Remove a device in good order
    #[arg(long, value_name = "ID", group = "command")]
    remove_device: Option<String>,
    /// Stop a device, and do not start it again
    #[arg(long, value_name = "ID", group = "command")]
    disable_device: Option<String>,
    /// Start a device that was disabled
    #[arg(long, value_name = "ID", group = "command")]
    enable_device: Option<String>,
    /// Stop a device and start it again
    #[arg(long, value_name = "ID", group = "command")]
    restart_device: Option<String>,
    /// Install drivers for the devices that have none, and start them
    #[arg(long, group = "command")]
    scan_devices: bool,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    boot: Boot,
}

#[derive(Clone, Copy)]
enum ProblemFilter {
    Any,
    Code(u32),
}

fn problem_filter(text: &str) -> Result<ProblemFilter, String> {
    if text == "any" {
        return Ok(ProblemFilter::Any);
    }
    let hex = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let code = hex.map_or_else(|| text.parse(), |digits| u32::from_str_radix(digits, 16));
    code.map(ProblemFilter::Code)
        .map_err(|_| "not a problem code, such as 10 or 28".to_owned())
}

/// How a device is removed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// The machine boots, and the driver is asked.
    InOrder,
    /// From the registry alone.
    WithoutRunning,
}

impl Pnputil {
    pub(crate) fn execute(&self) -> Ended {
        let how = if self.force {
            How::WithoutRunning
        } else {
            How::InOrder
        };
        self.check_options()?;
        if !self.add_driver.is_empty() {
            self.add_drivers()
        } else if let Some(name) = &self.delete_driver {
            self.delete(name)
        } else if self.enum_drivers {
            self.list_drivers()
        } else if self.enum_devices {
            self.list_devices()
        } else if let Some(device) = &self.remove_device {
            remove(&self.place, &self.boot, device, how)
        } else if let Some(device) = &self.disable_device {
            self.disable(device)
        } else if let Some(device) = &self.enable_device {
            self.enable(device)
        } else if let Some(device) = &self.restart_device {
            self.restart(device)
        } else {
            self.scan()
        }
    }

    /// clap does not look whether an option belongs to the command once two commands
    /// exclude each other.
    fn check_options(&self) -> Result<(), Failure> {
        let add = !self.add_driver.is_empty();
        let delete = self.delete_driver.is_some();
        let (list, remove) = (self.enum_devices, self.remove_device.is_some());
        for (given, option, belongs, command) in [
            (self.subdirs, "/subdirs", add, "/add-driver"),
            (self.install, "/install", add, "/add-driver"),
            (self.uninstall, "/uninstall", delete, "/delete-driver"),
            (
                self.force,
                "/force",
                delete || remove,
                "/delete-driver and /remove-device",
            ),
            (self.connected, "/connected", list, "/enum-devices"),
            (self.disconnected, "/disconnected", list, "/enum-devices"),
            (
                self.instanceid.is_some(),
                "/instanceid",
                list,
                "/enum-devices",
            ),
            (self.class.is_some(), "/class", list, "/enum-devices"),
            (self.problem.is_some(), "/problem", list, "/enum-devices"),
            (self.ids, "/ids", list, "/enum-devices"),
        ] {
            if given && !belongs {
                return Err(Failure::Input(format!("{option}: belongs to {command}")));
            }
        }
        Ok(())
    }

    fn add_drivers(&self) -> Ended {
        let mut infs = Vec::new();
        for path in &self.add_driver {
            infs.extend(find_infs(path, self.subdirs)?);
        }
        // All that can be wrong with them, before anything is changed.
        let mut packages: Vec<(&PathBuf, DriverPackage)> = Vec::new();
        let mut trial = MachineDir::in_memory();
        for inf in &infs {
            let package = store::read_package(inf)?;
            trial.stage_from(&package, PackageSource::Folder(folder_of(inf)))?;
            packages.push((inf, package));
        }
        let mut dir = self.place.open_or_create()?;
        let mut devices = BTreeSet::new();
        for (inf, package) in &packages {
            println!("Adding driver package:  {}", package.inf_name);
            let published = dir.stage_from(package, PackageSource::Folder(folder_of(inf)))?;
            println!("Driver package added.");
            println!("Published Name:         {published}");
            if self.install {
                let updated = dir.update_drivers(Update::All, Some(&published))?;
                for device in &updated {
                    println!("Installed on device:    {device}");
                }
                devices.extend(updated);
            }
            println!();
        }
        println!("Total driver packages:  {}", packages.len());
        println!("Added driver packages:  {}", packages.len());
        if !self.install {
            return Ok(End::Done);
        }
        if devices.is_empty() {
            println!(
                "\nNo device matches, or those that do have a driver that is better or as good."
            );
            return Ok(End::Nothing);
        }
        self.run(dir, None)?;
        Ok(End::Done)
    }

    fn delete(&self, name: &str) -> Ended {
        let mut dir = self.place.open()?;
        let users = dir.devices_of_driver(name)?;
        if !users.is_empty() && !self.uninstall && !self.force {
            return Err(Failure::Input(format!(
                "package \"{name}\": in use by {}; /uninstall takes it off them, /force does so \
                 without running the driver",
                users.join(", ")
            )));
        }
        if !users.is_empty() && !self.force {
            let replay = format!("pnputil /delete-driver {name} /uninstall");
            let mut session = Session::begin(dir, &self.place, &self.boot, &replay)?;
            for device in &users {
                session.stop(device)?;
            }
            let ran = session.finish()?;
            ran.check_stopped()?;
            dir = ran.dir;
        }
        dir.uninstall(name)?;
        for device in &users {
            println!("Uninstalled from device: {device}");
        }
        println!("Driver package deleted: {name}");
        Ok(End::Done)
    }

    fn list_drivers(&self) -> Ended {
        let drivers = self.place.look()?.drivers()?;
        if drivers.is_empty() {
            println!("No driver packages in the driver store.");
        }
        for driver in &drivers {
            let StoredDriver { version, .. } = driver;
            let version = version.to_string().replace(',', " ");
            for (name, value) in [
                ("Published Name:", &driver.published_name),
                ("Original Name:", &driver.original_name),
                ("Provider Name:", &driver.provider),
                ("Class Name:", &driver.class),
                ("Class GUID:", &driver.class_guid),
                ("Driver Version:", &version),
                ("Signer Name:", &"not checked".to_owned()),
            ] {
                println!("{name:20}{value}");
            }
            println!();
        }
        Ok(End::Done)
    }

    fn list_devices(&self) -> Ended {
        let dir = self.place.look()?;
        let devices = match &self.instanceid {
            Some(id) => vec![dir.device(id)?],
            None => dir.devices()?,
        };
        let wanted: Vec<_> = devices.iter().filter(|device| self.shows(device)).collect();
        if wanted.is_empty() {
            println!("No devices were found.");
        }
        for device in wanted {
            show(device, self.ids);
        }
        Ok(End::Done)
    }

    fn shows(&self, device: &Device) -> bool {
        let class = self.class.as_ref().is_none_or(|class| {
            let known = [&device.class, &device.class_guid];
            known
                .into_iter()
                .flatten()
                .any(|other| other.eq_ignore_ascii_case(class))
        });
        let problem = match (self.problem, device.status) {
            (None, _) | (Some(ProblemFilter::Any), Status::Problem(_) | Status::Disabled) => true,
            (Some(ProblemFilter::Code(code)), Status::Problem(problem)) => problem.code == code,
            (Some(ProblemFilter::Code(code)), Status::Disabled) => code == store::Problem::DISABLED,
            _ => false,
        };
        class && problem && !self.disconnected
    }

    fn disable(&self, device: &str) -> Ended {
        let dir = self.place.open()?;
        let device = dir.device(device)?;
        let id = device.instance_id;
        if device.status == Status::Disabled {
            println!("Device is disabled already: {id}");
            return Ok(End::Done);
        }
        let mut dir = dir;
        if device.service.is_some() {
            let replay = format!("pnputil /disable-device '{id}'");
            let mut session = Session::begin(dir, &self.place, &self.boot, &replay)?;
            session.stop(&id)?;
            let ran = session.finish()?;
            ran.check_stopped()?;
            dir = ran.dir;
        }
        dir.set_enabled(&id, Enabled::No)?;
        println!("Device disabled: {id}");
        Ok(End::Done)
    }

    fn enable(&self, device: &str) -> Ended {
        let mut dir = self.place.open()?;
        let device = dir.device(device)?;
        let id = device.instance_id;
        if device.status != Status::Disabled {
            println!("Device is enabled already: {id}");
            return Ok(End::Done);
        }
        dir.set_enabled(&id, Enabled::Yes)?;
        println!("Device enabled: {id}");
        if device.service.is_some() {
            self.run(dir, Some(&id))?;
        }
        Ok(End::Done)
    }

    fn restart(&self, device: &str) -> Ended {
        let dir = self.place.open()?;
        let device = dir.device(device)?;
        let id = device.instance_id;
        if device.status == Status::Disabled {
            return Err(Failure::Input(format!(
                "device \"{id}\": it is disabled; enable it with /enable-device"
            )));
        }
        if device.service.is_none() {
            return Err(Failure::Input(format!(
                "device \"{id}\": it has no driver; add one with /add-driver and /install"
            )));
        }
        let replay = format!("pnputil /restart-device '{id}'");
        let mut session = Session::begin(dir, &self.place, &self.boot, &replay)?;
        if session.stop(&id)? {
            session.start(&id)?;
        }
        session.finish()?.check_restarted(&id)?;
        println!("Device restarted: {id}");
        Ok(End::Done)
    }

    fn scan(&self) -> Ended {
        let mut dir = self.place.open()?;
        for device in dir.update_drivers(Update::WithoutDriver, None)? {
            println!("Driver installed for device: {device}");
        }
        self.run(dir, None)?;
        println!("Scan complete.");
        Ok(End::Done)
    }

    /// Boots, starts the devices, and shuts down; fails if `device`, or any, does.
    fn run(&self, dir: MachineDir, device: Option<&str>) -> Result<(), Failure> {
        let session = Session::begin(dir, &self.place, &self.boot, "pnputil /scan-devices")?;
        session.finish()?.check_started(device)
    }
}

/// Removes a device.
pub(crate) fn remove(place: &Place, boot: &Boot, device: &str, how: How) -> Ended {
    let mut dir = place.open()?;
    let device = dir.device(device)?;
    let id = device.instance_id;
    let runs = device.service.is_some() && device.status != Status::Disabled;
    if how == How::InOrder && runs {
        let replay = format!("pnputil /remove-device '{id}'");
        let mut session = Session::begin(dir, place, boot, &replay)?;
        session.stop(&id)?;
        let ran = session.finish()?;
        ran.check_stopped()?;
        dir = ran.dir;
    }
    dir.remove_device(&id)?;
    println!("Device removed: {id}");
    Ok(End::Done)
}

fn folder_of(inf: &Path) -> &Path {
    match inf.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// The INF files that a path means: itself, or those of a folder, as `*.inf` does.
fn find_infs(path: &Path, subdirs: bool) -> Result<Vec<PathBuf>, Failure> {
    let is_pattern = path.file_name().is_some_and(|name| name == "*.inf");
    let folder = if is_pattern {
        folder_of(path)
    } else if path.is_dir() {
        path
    } else if subdirs {
        // `x.inf /subdirs` is the x.inf of each folder below.
        return named_below(path);
    } else {
        return Ok(vec![path.to_owned()]);
    };
    let mut found = Vec::new();
    list(folder, subdirs, &mut |file| {
        let extension = file.extension().and_then(|extension| extension.to_str());
        if extension.is_some_and(|extension| extension.eq_ignore_ascii_case("inf")) {
            found.push(file.to_owned());
        }
    })?;
    some(found, path)
}

fn named_below(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut found = Vec::new();
    list(folder_of(path), true, &mut |file| {
        if file.file_name() == path.file_name() {
            found.push(file.to_owned());
        }
    })?;
    some(found, path)
}

fn some(mut found: Vec<PathBuf>, path: &Path) -> Result<Vec<PathBuf>, Failure> {
    if found.is_empty() {
        return Err(Failure::Input(format!(
            "{}: there is no INF file",
            path.display()
        )));
    }
    found.sort();
    Ok(found)
}

fn list(folder: &Path, below: bool, file: &mut dyn FnMut(&Path)) -> Result<(), Failure> {
    let failed = |error| {
        Failure::Input(format!(
            "{}: cannot list the folder: {error}",
            folder.display()
        ))
    };
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let path = entry.path();
        // A link to a folder could lead back here.
        if entry.file_type().map_err(failed)?.is_dir() {
            if below {
                list(&path, below, file)?;
            }
        } else {
            file(&path);
        }
    }
    Ok(())
}

fn show(device: &Device, ids: bool) {
    let unknown = || "Unknown".to_owned();
    let line = |name: &str, value: &str| println!("{name:28}{value}");
    line("Instance ID:", &device.instance_id);
    let or_unknown = |text: &Option<String>| text.clone().unwrap_or_else(unknown);
    line("Device Description:", &or_unknown(&device.description));
    line("Class Name:", &or_unknown(&device.class));
    line("Class GUID:", &or_unknown(&device.class_guid));
    line("Manufacturer Name:", &or_unknown(&device.manufacturer));
    match device.status {
        Status::Started => line("Status:", "Started"),
        Status::Stopped => line("Status:", "Stopped"),
        Status::Disabled => line("Status:", "Disabled"),
        Status::Problem(problem) => {
            let code = problem.code;
            line("Status:", "Problem");
            line(
                "Problem Code:",
                &format!("{code} ({code:#04X}) [{}]", problem.name()),
            );
            line("Problem Status:", &format!("{:#010X}", problem.status));
        }
    }
    if let Some(inf) = &device.inf {
        line("Driver Name:", inf);
    }
    if ids {
        for (index, id) in device.hardware_ids.iter().enumerate() {
            line(if index == 0 { "Hardware IDs:" } else { "" }, id);
        }
    }
    println!();
}
