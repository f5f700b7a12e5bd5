// SPDX-License-Identifier: MIT OR Apache-2.0

//! The simulated machine, from the outside.
//!
//! A [`Machine`] is what a test holds: it installs driver packages, plugs
//! devices in and out, lets virtual time pass, and tells what happened. What it
//! keeps across [reboots](Machine::reboot) is its folder ([`MachineDir`]).
//!
//! # Vocabulary
//! - *linked driver*: one that is part of the host program; everything else
//!   about it (INF, service, registry) is as for an image.
//! - *PnP thread*: the system thread on which the framework calls a driver's
//!   PnP and power callbacks.
//!
//! # A device's life
//! ```text
//!  plug_in        start_device       power_down, sleep
//!  ───────► known ───────────► working ◄──────────► asleep
//!             ▲                 │  ▲ │  power_up, wake  │
//!             │     stop_device ▼  │ │                  │
//!             │             stopped┘ │                  │
//!             │                │  restart_device        │
//!             └────────────────┴─────┴──────────────────┘
//!                 remove_device, surprise_remove, reboot
//! ```
//! When a driver's last device is gone it is unloaded, and what it left behind
//! is reported. A device that fails while it works is removed without a call, as
//! by the PnP manager, when time passes ([`run_for`](Machine::run_for)).

mod linked;
mod service;
pub mod user;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::bugcheck::Stop;
use crate::count::Instructions;
use crate::exports;
use crate::image::{Image, ImageError, Loaded};
use crate::inf::DriverPackage;
use crate::inject::{Blow, Faults};
use crate::io::{self, DriverId, Entry};
use crate::ke::dispatcher::ThreadId;
use crate::kernel::{Kernel, SECOND, Settings};
use crate::store::{Installed, MachineDir, PackageSource, Problem, Status, StoreError};
use crate::strategy::{Scheduler, Strategy};
use crate::trace::{Event, Line};
use crate::verifier;
use crate::wdf::io_target::remote;
use crate::wdf::object::Handle;
use crate::wdf::pnp::{self, Afterwards, PowerAction};
use crate::wdf::{control, interrupt, power_policy};

pub use linked::run_driver;

pub use crate::wdf::hardware::Hardware;
pub use crate::wdf::interrupt::Raised;

/// System time at the first boot: 2026-01-01 00:00 UTC, in 100 ns units since 1601.
pub(crate) const EPOCH: u64 = 134_116_992_000_000_000;

/// Virtual time from shutting down to the next boot's first instruction.
const REBOOT_TIME: u64 = 10 * SECOND;

/// A linked driver's `DriverEntry`.
pub type DriverEntry = unsafe extern "C-unwind" fn(
    *mut ntsim_sys::DRIVER_OBJECT,
    ntsim_sys::PCUNICODE_STRING,
) -> ntsim_sys::NTSTATUS;

/// Why the machine could not do what was asked of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The simulation ended: a bug check, a deadlock, something not simulated.
    #[error(transparent)]
    Stop(#[from] Box<Stop>),
    /// The machine's folder, the INF or the registry file.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The driver's image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The driver or one of its callbacks failed, as its status says.
    #[error("{what} failed with status {status:#010x}")]
    Driver {
        /// Which call.
        what: String,
        /// The `NTSTATUS`.
        status: u32,
    },
    /// The driver's last device is gone, but it cannot be unloaded: it has not
    /// deleted its control devices. What was asked for was done.
    #[error("driver {driver} cannot be unloaded: it has not deleted {}", controls.join(", "))]
    StaysLoaded {
        /// The service.
        driver: String,
        /// Its control devices.
        controls: Vec<String>,
    },
    /// The device is not in a state for this.
    #[error("device {device} is {state}: {problem}")]
    State {
        /// The instance id.
        device: String,
        /// What it is instead.
        state: &'static str,
        /// What was asked.
        problem: &'static str,
    },
}

impl Error {
    /// The stop, if it is one.
    #[must_use]
    pub fn stop(&self) -> Option<&Stop> {
        match self {
            Self::Stop(stop) => Some(stop),
            _ => None,
        }
    }
}

/// The result of what can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A simulated machine.
pub struct Machine {
    k: Box<Kernel>,
    dir: MachineDir,
    linked: BTreeMap<String, DriverEntry>,
    /// The devices that have a driver now, by instance id.
    running: BTreeMap<String, Running>,
    /// Devices that are gone, whose files are not closed.
    ghosts: Vec<Running>,
    /// Drivers whose devices are gone, but not their control devices.
    lingering: Vec<DriverId>,
    /// What the devices are made of, by instance id in lower case.
    hardware: BTreeMap<String, Hardware>,
    /// How often in a row devices were started again because they had failed.
    restarts: BTreeMap<String, u32>,
    /// What keeps devices from working, by instance id in lower case.
    problems: BTreeMap<String, Problem>,
}

/// What of the registry has reached the disk when the power goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// All of it.
    Everything,
    /// What was there at the last [`Machine::commit`], installation or boot.
    AsOfTheLastCommit,
}

/// How much pool is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolUse {
    /// How many blocks.
    pub blocks: usize,
    /// Their bytes, as they were asked for.
    pub bytes: usize,
}

#[derive(Clone, Copy)]
struct Running {
    driver: DriverId,
    device: pnp::DeviceId,
    at: At,
}

/// Where a device is, from the outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Working,
    Asleep,
    /// Asleep because the whole system is.
    SystemSleep,
    Stopped,
}

impl At {
    const fn name(self) -> &'static str {
        match self {
            Self::Working => "working",
            Self::Asleep | Self::SystemSleep => "asleep",
            Self::Stopped => "stopped",
        }
    }
}

/// How the system sleeps. For S5, see [`Machine::reboot`].
///
/// The devices of this machine go to D3 in each of these: what a driver sees of
/// the difference is whether power is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sleep {
    /// S1: the processors stand still.
    S1,
    /// S2: the processors are off.
    S2,
    /// S3: only memory has power.
    S3,
    /// S4: memory is in a file, and nothing has power.
    Hibernate,
}

/// A power change of one device, for [`Machine::surprise_remove_during`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerChange {
    /// As [`Machine::power_down`].
    Down,
    /// As [`Machine::power_up`].
    Up,
}

/// Which devices are asked for: `DEVICE_RELATION_TYPE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Relation {
    /// `BusRelations`.
    Bus,
    /// `EjectionRelations`.
    Ejection,
    /// `RemovalRelations`.
    Removal,
    /// `TargetDeviceRelation`.
    TargetDevice,
}

impl Relation {
    const fn number(self) -> i32 {
        match self {
            Self::Bus => 0,
            Self::Ejection => 1,
            Self::Removal => 3,
            Self::TargetDevice => 4,
        }
    }
}

/// A file that the system puts on a device: `WDF_SPECIAL_FILE_TYPE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SpecialFile {
    /// `WdfSpecialFilePaging`.
    Paging,
    /// `WdfSpecialFileHibernation`.
    Hibernation,
    /// `WdfSpecialFileDump`.
    Dump,
    /// `WdfSpecialFileBoot`.
    Boot,
}

impl SpecialFile {
    const fn number(self) -> i32 {
        match self {
            Self::Paging => 1,
            Self::Hibernation => 2,
            Self::Dump => 3,
            Self::Boot => 4,
        }
    }
}

const STATUS_UNSUCCESSFUL: u32 = 0xC000_0001;
const STATUS_INVALID_IMAGE_FORMAT: u32 = 0xC000_007B;

/// How often in a row PnP starts a device again that fails.
const MOST_RESTARTS: u32 = 5;

impl Default for Machine {
    fn default() -> Self {
        Self::new(Settings::default())
    }
}

impl Machine {
    /// A machine in memory that has just booted, with nothing installed.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self::boot(MachineDir::in_memory(), settings)
    }

    /// The same, with every choice decided by `seed`.
    #[must_use]
    pub fn with_seed(seed: u64) -> Self {
        Self::new(Settings {
            seed,
            ..Settings::default()
        })
    }

    /// Boots the machine of a folder. No device is started yet.
    #[must_use]
    pub fn boot(dir: MachineDir, settings: Settings) -> Self {
        let mut k = Box::new(Kernel::new(settings));
        k.zw.registry = dir.registry().clone();
        verifier::boot(&mut k);
        Self {
            hardware: BTreeMap::new(),
            restarts: BTreeMap::new(),
            problems: BTreeMap::new(),
            k,
            dir,
            linked: BTreeMap::new(),
            running: BTreeMap::new(),
            ghosts: Vec::new(),
            lingering: Vec::new(),
        }
    }

    /// Virtual time since the first boot.
    #[must_use]
    pub fn now(&self) -> Duration {
        Duration::from_nanos((self.k.boot_offset + self.k.now).saturating_mul(100))
    }

    /// What it was made with, and the schedule that it has now.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.k.settings
    }

    /// The services of the drivers that were loaded since boot, in that order.
    #[must_use]
    pub fn drivers(&self) -> Vec<&str> {
        let names = self.k.io.drivers.iter().map(|driver| driver.name.as_str());
        let mut drivers: Vec<&str> = Vec::new();
        for name in names {
            if !drivers.contains(&name) {
                drivers.push(name);
            }
        }
        drivers
    }

    /// The trace so far, of all boots.
    #[must_use]
    pub fn trace(&self) -> &[Line] {
        &self.k.trace
    }

    /// Fails the n-th call, from now, that can fail for lack of resources; with
    /// `None` none. Counting begins anew.
    ///
    /// See [`crate::inject`].
    pub fn fail_nth(&mut self, point: Option<u64>) {
        self.inject(point.map_or_else(Faults::none, Faults::nth));
    }

    /// Makes calls fail that can fail for lack of resources, from now on.
    /// Counting begins anew; it goes on over a reboot.
    ///
    /// See [`crate::inject`].
    pub fn inject(&mut self, faults: Faults) {
        let seed = self.k.settings.seed;
        self.k.inject.arm(faults, seed);
    }

    /// The calls since [`inject`](Self::inject) or [`fail_nth`](Self::fail_nth)
    /// that could have failed for lack of resources.
    #[must_use]
    pub fn faults(&self) -> &crate::inject::Report {
        self.k.inject.report()
    }

    /// As [`faults`](Self::faults).
    #[must_use]
    pub fn fallible_calls(&self) -> &crate::inject::Report {
        self.faults()
    }

    /// The instructions that images have executed since boot. `None` if they are
    /// not counted: [`Settings::count_instructions`].
    #[must_use]
    pub fn instructions(&self) -> Option<Instructions> {
        self.k.counter.as_ref().map(|counter| counter.read())
    }

    /// Counted instructions by the function of the image, inlined ones counted
    /// for the function that they are in; the most frequent first.
    #[must_use]
    pub fn by_function(&self, instructions: &Instructions) -> Vec<(String, u64)> {
        let symbols = self.k.io.images_with_symbols(&self.k.settings.symbol_path);
        let images = self.k.io.drivers.iter().filter_map(|driver| {
            matches!(driver.entry, Entry::Image(_)).then_some(driver.image.as_ref())
        });
        let mut functions: BTreeMap<String, u64> = BTreeMap::new();
        for (counts, image) in instructions.images.iter().zip(images) {
            let rvas: Vec<u32> = counts.keys().copied().collect();
            let base = image.map(Loaded::base);
            let found = symbols
                .iter()
                .find(|(loaded, _)| Some(loaded.base()) == base)
                .and_then(|(_, symbols)| symbols.as_ref());
            let frames = found.map_or_else(
                || vec![Vec::new(); rvas.len()],
                |symbols| symbols.lookup_all(&rvas),
            );
            for ((rva, count), frames) in counts.iter().zip(frames) {
                let name = frames
                    .last()
                    .map_or_else(|| format!("{rva:#x}"), |frame| frame.function.clone());
                *functions.entry(name).or_default() += count;
            }
        }
        let mut functions: Vec<_> = functions.into_iter().collect();
        functions.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        functions
    }

    /// The pool that drivers have now: what they allocated, and the contexts of
    /// their framework objects.
    #[must_use]
    pub fn pool(&self) -> PoolUse {
        let (driver, framework) = (&self.k.ex.pool.blocks, &self.k.wdf.memory);
        PoolUse {
            blocks: driver.live_count() + framework.live_count(),
            bytes: driver.live_bytes() + framework.live_bytes(),
        }
    }

    /// Begins a new schedule: from now on `strategy` chooses, and `seed` decides
    /// what it draws.
    ///
    /// So a test can play many schedules on one machine, and replay each alone.
    pub fn reschedule(&mut self, strategy: Strategy, seed: u64) {
        self.k.settings.strategy = strategy.clone();
        self.k.settings.seed = seed;
        let tape = self.k.settings.tape.clone();
        // The old one gives its recording back before the new one begins.
        self.k.scheduler = Scheduler::new(Strategy::RunOn, 0, None);
        self.k.scheduler = Scheduler::new(strategy, seed, tape.as_ref());
        self.k.begin_schedule();
    }

    /// Records from the next schedule on, or does not any more.
    pub(crate) fn use_tape(&mut self, tape: Option<crate::explore::Tape>) {
        self.k.settings.tape = tape;
    }

    /// Cuts the power before the n-th step from now, counted from 1; with `None`
    /// not at all. A *step* is what a thread or DPC does between two calls of the
    /// kernel, so between any two calls of a driver there is a point to cut at.
    ///
    /// What runs then ends with a [`StopKind::PowerCut`](crate::StopKind); go on
    /// with [`boot_after_power_cut`](Self::boot_after_power_cut).
    pub fn cut_power_at(&mut self, step: Option<u64>) {
        self.ambush(Blow::PowerCut(Written::Everything), "", step);
    }

    /// Boots the machine after it has stopped. Nothing was shut down: no driver
    /// was told.
    ///
    /// Windows writes changes of the registry to disk some seconds later, so
    /// what a driver has written just before may be there or not: `registry`.
    /// See [`ZwFlushKey`][ms].
    ///
    /// # Errors
    /// [`Error::Store`].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-zwflushkey
    pub fn boot_after_power_cut(&mut self, registry: Written) -> Result<()> {
        if registry == Written::AsOfTheLastCommit {
            self.k.zw.registry = self.dir.registry().clone();
        }
        self.boot_again()
    }

    /// The machine's folder.
    #[must_use]
    pub fn dir(&self) -> &MachineDir {
        &self.dir
    }

    /// Keeps what is known of a stop in the machine's folder: [`MachineDir::add_dump`].
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn add_dump(&mut self, json: String, text: String) -> Result<String> {
        Ok(self.dir.add_dump(json, text)?)
    }

    /// Turns the machine off and keeps its folder, with the registry as it is in the
    /// machine now; what was not [committed](Self::commit) is not on the disk.
    #[must_use]
    pub fn into_dir(mut self) -> MachineDir {
        *self.dir.registry_mut() = self.k.zw.registry.clone();
        self.dir
    }

    /// The machine's registry.
    #[must_use]
    pub fn registry(&self) -> &crate::registry::Registry {
        &self.k.zw.registry
    }

    /// The machine's registry, to change as an administrator would.
    pub fn registry_mut(&mut self) -> &mut crate::registry::Registry {
        &mut self.k.zw.registry
    }

    /// Runs `body` on a system thread until it returns, and gives its value.
    /// Other threads run as the schedule has it; virtual time passes as needed.
    ///
    /// # Errors
    /// The bug check or other stop that ended the simulation.
    ///
    /// # Panics
    /// Never: a thread that has ended has left its value.
    pub fn run_thread<R: 'static>(
        &mut self,
        name: &str,
        body: impl FnOnce() -> R + 'static,
    ) -> std::result::Result<R, Box<Stop>> {
        let thread = self.spawn_thread(name, body);
        self.join(thread)
    }

    /// Alerts the thread of this name, as its owner could: an alertable wait of
    /// it ends with `STATUS_ALERTED`, the current one or the next. Tells whether
    /// it was waiting so; `None` if there is no such thread.
    pub fn alert_thread(&mut self, name: &str) -> Option<bool> {
        let thread = self.thread(name)?;
        Some(crate::ke::wait::alert(&mut self.k, thread))
    }

    /// Queues a user APC to the thread of this name: an alertable wait in user
    /// mode ends with `STATUS_USER_APC`, the current one or the next. Tells
    /// whether it was waiting so; `None` if there is no such thread.
    pub fn queue_user_apc(&mut self, name: &str) -> Option<bool> {
        let thread = self.thread(name)?;
        Some(crate::ke::wait::user_apc(&mut self.k, thread))
    }

    fn thread(&self, name: &str) -> Option<ThreadId> {
        self.k
            .threads
            .iter()
            .find(|(_, thread)| thread.name == name && !thread.exited)
            .map(|(id, _)| *id)
    }

    /// Lets virtual time pass, running what there is to run. Before and after,
    /// PnP removes the devices that have failed, and tries them again if their
    /// drivers do not forbid it, five times in a row at most.
    ///
    /// <https://learn.microsoft.com/windows-hardware/drivers/wdf/reporting-device-failures>
    ///
    /// # Errors
    /// The bug check or other stop that ended the simulation.
    pub fn run_for(&mut self, time: Duration) -> std::result::Result<(), Box<Stop>> {
        self.only_stop(|machine, _| machine.settle(), "")?;
        let units = u64::try_from(time.as_nanos() / 100).unwrap_or(u64::MAX);
        let end = self.k.now.saturating_add(units);
        self.replace_failed()?;
        self.k
            .run(&mut |k| !k.is_busy() && k.next_timer().is_none_or(|due| due > end))?;
        let left = end.saturating_sub(self.k.now);
        self.k.advance(left);
        self.replace_failed()?;
        self.unload_lingering()
    }

    /// What PnP does with devices that have failed.
    fn replace_failed(&mut self) -> std::result::Result<(), Box<Stop>> {
        loop {
            let running: Vec<_> = self
                .running
                .iter()
                .map(|(name, running)| (name.clone(), running.device))
                .collect();
            let failed = running.into_iter().find_map(|(name, id)| {
                let failure = self.k.guarded(|k| pnp::failure(k, id));
                failure.transpose().map(|failure| (name, failure))
            });
            let Some((device, afterwards)) = failed else {
                return Ok(());
            };
            let afterwards = afterwards?;
            self.note(format!("device {device} has failed"));
            self.set_problem(&device, Problem::FAILED_POST_START, STATUS_UNSUCCESSFUL);
            self.only_stop(Self::surprise_remove, &device)?;
            let count = self.restarts.entry(device.clone()).or_default();
            *count += 1;
            if afterwards == Afterwards::Restart && *count <= MOST_RESTARTS {
                self.only_stop(Self::start_device, &device)?;
            } else {
                self.note(format!("device {device} is not started again"));
            }
        }
    }

    /// Does something that a driver may refuse, which is in the trace then.
    fn only_stop(
        &mut self,
        what: fn(&mut Self, &str) -> Result<()>,
        device: &str,
    ) -> std::result::Result<(), Box<Stop>> {
        match what(self, device) {
            Ok(()) => Ok(()),
            Err(Error::Stop(stop)) => Err(stop),
            Err(error) => {
                self.note(error.to_string());
                Ok(())
            }
        }
    }

    /// Uses a driver that is linked into this program for `service`, in place
    /// of the service's image.
    pub fn link_driver(&mut self, service: &str, entry: DriverEntry) {
        self.linked.insert(service.to_lowercase(), entry);
    }

    /// Installs a driver package from the INF file and its folder.
    ///
    /// # Errors
    /// [`Error::Store`]; the machine is as it was.
    pub fn install(&mut self, inf: &Path) -> Result<Installed> {
        self.change_dir(|dir| dir.install_inf(inf))
    }

    /// Installs a driver package whose files are given.
    ///
    /// # Errors
    /// [`Error::Store`]; the machine is as it was.
    pub fn install_package(
        &mut self,
        package: &DriverPackage,
        source: PackageSource<'_>,
    ) -> Result<Installed> {
        self.change_dir(|dir| dir.install_from(package, source))
    }

    /// Adds a root-enumerated device; gives its instance id.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn plug_in(&mut self, hardware_id: &str) -> Result<String> {
        let device = self.change_dir(|dir| dir.add_root_device(hardware_id))?;
        self.note(format!("device {device} is plugged in"));
        Ok(device)
    }

    /// Changes the folder and the running system's registry alike.
    fn change_dir<R>(
        &mut self,
        change: impl FnOnce(&mut MachineDir) -> Result<R, StoreError>,
    ) -> Result<R> {
        *self.dir.registry_mut() = self.k.zw.registry.clone();
        let result = change(&mut self.dir);
        self.k.zw.registry = self.dir.registry().clone();
        Ok(result?)
    }

    /// Writes the registry to the machine's folder.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn commit(&mut self) -> Result<()> {
        self.change_dir(MachineDir::commit_registry)
    }

    /// Loads the device's driver if need be, adds the device to it and starts
    /// it, as PnP does for a device that it finds.
    ///
    /// # Errors
    /// [`Error::Driver`] if the driver refuses, [`Error::Image`] for its image,
    /// [`Error::Stop`].
    pub fn start_device(&mut self, device: &str) -> Result<()> {
        self.settle()?;
        if let Some(running) = self.running.get(device) {
            return Err(Error::State {
                device: device.to_owned(),
                state: running.at.name(),
                problem: "it is started already",
            });
        }
        *self.dir.registry_mut() = self.k.zw.registry.clone();
        let described = self.dir.device(device)?;
        if described.status == Status::Disabled {
            self.set_problem(device, Problem::DISABLED, 0);
            return Err(Error::State {
                device: device.to_owned(),
                state: "disabled",
                problem: "enable it first",
            });
        }
        let Some(service) = described.service else {
            let Problem { code, status } = Problem::NO_DRIVER;
            self.set_problem(device, code, status);
            return Err(Error::State {
                device: device.to_owned(),
                state: "without a driver",
                problem: "install a package whose INF names one of its hardware ids",
            });
        };
        self.k.wdf.hardware = self.hardware.clone();
        let driver = match self.load_driver(&service) {
            Ok(driver) => driver,
            Err(error) => {
                match &error {
                    Error::Stop(_) => {}
                    Error::Driver { status, .. } => {
                        self.set_problem(device, Problem::FAILED_DRIVER_ENTRY, *status);
                    }
                    _ => self.set_problem(
                        device,
                        Problem::DRIVER_FAILED_LOAD,
                        STATUS_INVALID_IMAGE_FORMAT,
                    ),
                }
                return Err(error);
            }
        };
        self.note(format!("device {device} starts"));
        let instance = device.to_owned();
        let added = self.pnp(move || pnp::add_device(driver, &instance))?;
        let added = match added {
            Ok(added) => added,
            Err(status) => {
                self.set_problem(device, Problem::FAILED_ADD, status.cast_unsigned());
                self.unload_if_unused(driver)?;
                return Err(Error::Driver {
                    what: format!("EvtDriverDeviceAdd for {device}"),
                    status: status.cast_unsigned(),
                });
            }
        };
        if let Err(status) = self.pnp(move || pnp::start(added))? {
            self.set_problem(device, Problem::FAILED_START, status.cast_unsigned());
            self.pnp(move || pnp::remove(added))?;
            self.unload_if_unused(driver)?;
            return Err(Error::Driver {
                what: format!("starting {device}"),
                status: status.cast_unsigned(),
            });
        }
        self.problems.remove(&device.to_lowercase());
        self.running.insert(
            device.to_owned(),
            Running {
                driver,
                device: added,
                at: At::Working,
            },
        );
        Ok(())
    }

    /// What keeps a device from working, if its last start failed or it failed later.
    #[must_use]
    pub fn problem(&self, device: &str) -> Option<Problem> {
        self.problems.get(&device.to_lowercase()).copied()
    }

    fn set_problem(&mut self, device: &str, code: u32, status: u32) {
        self.problems
            .insert(device.to_lowercase(), Problem { code, status });
    }

    /// Stops a device so that PnP can give it other resources: asks the driver,
    /// takes it out of D0 and its hardware away. It keeps its driver, its objects
    /// and its open files.
    ///
    /// <https://learn.microsoft.com/windows-hardware/drivers/wdf/the-pnp-manager-redistributes-system-resources>
    ///
    /// # Errors
    /// [`Error::State`]; [`Error::Driver`] if the driver refuses, with the device
    /// as it was, or if it fails; [`Error::Stop`].
    pub fn stop_device(&mut self, device: &str) -> Result<()> {
        let running = self.expect_any(device, "stop")?;
        if matches!(running.at, At::Stopped | At::SystemSleep) {
            return Err(wrong_state(device, running, "stop"));
        }
        self.note(format!("device {device} is stopped"));
        let id = running.device;
        let stopped = self.pnp(move || pnp::stop(id))?;
        if stopped.is_ok() {
            self.put(device, At::Stopped);
        }
        check_status(stopped, || format!("stopping {device}"))
    }

    /// Starts a stopped device again, with what
    /// [`set_hardware`](Self::set_hardware) gave it meanwhile.
    ///
    /// # Errors
    /// [`Error::State`]; [`Error::Driver`] if the driver fails: it is removed
    /// then; [`Error::Stop`].
    pub fn restart_device(&mut self, device: &str) -> Result<()> {
        let running = self.expect_any(device, "restart")?;
        if running.at != At::Stopped {
            return Err(wrong_state(device, running, "restart"));
        }
        self.k.wdf.hardware = self.hardware.clone();
        self.note(format!("device {device} starts again"));
        let id = running.device;
        let started = self.pnp(move || pnp::start(id))?;
        if started.is_ok() {
            self.put(device, At::Working);
        } else {
            self.pnp(move || pnp::remove(id))?;
            self.running.remove(device);
            self.unload_if_unused(running.driver)?;
        }
        check_status(started, || format!("starting {device} again"))
    }

    /// Asks a device's drivers for the devices that have this relation to it.
    /// Function drivers only hear of it.
    ///
    /// # Errors
    /// [`Error::State`], [`Error::Stop`].
    pub fn query_relations(&mut self, device: &str, relation: Relation) -> Result<()> {
        let id = self.expect_any(device, "ask for relations")?.device;
        self.note(format!(
            "device {device} is asked for {relation:?} relations"
        ));
        self.pnp(move || pnp::query_relations(id, relation.number()))
    }

    /// Puts a special file onto a device.
    ///
    /// # Errors
    /// [`Error::State`]; [`Error::Driver`] if the driver refuses; [`Error::Stop`].
    pub fn place_special_file(&mut self, device: &str, file: SpecialFile) -> Result<()> {
        let id = self.expect_any(device, "put a special file on it")?.device;
        self.note(format!("device {device} gets the {file:?} file"));
        let told = self.pnp(move || pnp::notify_usage(id, file.number(), true))?;
        check_status(told, || format!("putting the {file:?} file on {device}"))
    }

    /// Takes a special file off a device.
    ///
    /// # Errors
    /// [`Error::State`]; [`Error::Driver`] if the driver does not support it;
    /// [`Error::Stop`].
    pub fn remove_special_file(&mut self, device: &str, file: SpecialFile) -> Result<()> {
        let id = self
            .expect_any(device, "take a special file off it")?
            .device;
        self.note(format!("device {device} loses the {file:?} file"));
        let told = self.pnp(move || pnp::notify_usage(id, file.number(), false))?;
        check_status(told, || format!("taking the {file:?} file off {device}"))
    }

    /// Puts the system to sleep: every working device, last to first, leaves D0.
    /// Those that idle stay as they are, unless they are to wake the system. A
    /// driver cannot hold this up.
    ///
    /// # Errors
    /// [`Error::Driver`] for the first driver that failed, with the system
    /// asleep; [`Error::Stop`].
    pub fn sleep(&mut self, how: Sleep) -> Result<()> {
        self.settle()?;
        self.note(format!("the system goes to sleep: {how:?}"));
        let why = match how {
            Sleep::S1 | Sleep::S2 | Sleep::S3 => PowerAction::Sleep,
            Sleep::Hibernate => PowerAction::Hibernate,
        };
        let working: Vec<_> = self.at(At::Working);
        let mut result = Ok(());
        for (device, id) in working.into_iter().rev() {
            let slept = self.pnp(move || pnp::power_down(id, why))?;
            self.put(&device, At::SystemSleep);
            result = result.and(check_status(slept, || format!("powering down {device}")));
        }
        result
    }

    /// Wakes the system that [`sleep`](Self::sleep) put to sleep. For a device
    /// that does it, call [`signal_wake`](Self::signal_wake) before.
    ///
    /// # Errors
    /// [`Error::Driver`] for the first driver that failed; [`Error::Stop`].
    pub fn wake(&mut self) -> Result<()> {
        self.settle()?;
        self.note("the system wakes up".to_owned());
        let mut result = Ok(());
        for (device, id) in self.at(At::SystemSleep) {
            let woke = self.pnp(move || pnp::system_woke(id))?;
            self.put(&device, At::Working);
            result = result.and(check_status(woke, || format!("powering up {device}")));
        }
        result
    }

    /// The devices that are there.
    fn at(&self, at: At) -> Vec<(String, pnp::DeviceId)> {
        self.running
            .iter()
            .filter(|(_, running)| running.at == at)
            .map(|(name, running)| (name.clone(), running.device))
            .collect()
    }

    fn put(&mut self, device: &str, at: At) {
        if let Some(running) = self.running.get_mut(device) {
            running.at = at;
        }
    }

    /// Gives a device the resources that it has from its next start on.
    pub fn set_hardware(&mut self, device: &str, hardware: Hardware) {
        self.hardware.insert(device.to_lowercase(), hardware);
    }

    /// Raises interrupt line `line` of a started device. The ISR runs when the
    /// machine runs.
    ///
    /// # Errors
    /// [`Error::State`], [`Error::Stop`].
    pub fn raise_interrupt(&mut self, device: &str, line: u32) -> Result<Raised> {
        let id = pnp::handle_of(self.expect_any(device, "interrupt")?.device);
        self.note(format!("device {device} raises interrupt {line}"));
        Ok(self.k.guarded(|k| interrupt::raise(k, id, line))?)
    }

    /// The device gives its wake signal. Tells whether the driver had armed it.
    /// If the system sleeps, [`wake`](Self::wake) is to follow.
    ///
    /// # Errors
    /// [`Error::State`], [`Error::Stop`].
    pub fn signal_wake(&mut self, device: &str) -> Result<bool> {
        let id = pnp::handle_of(self.expect_any(device, "wake")?.device);
        self.note(format!("device {device} signals wake"));
        Ok(self.k.guarded(|k| power_policy::wake_signal(k, id))?)
    }

    /// Whether a started device is in D0 now. One that is idle may not be.
    ///
    /// # Errors
    /// [`Error::State`], [`Error::Stop`].
    pub fn is_in_d0(&mut self, device: &str) -> Result<bool> {
        let id = pnp::handle_of(self.expect_any(device, "ask for its power state")?.device);
        Ok(self.k.guarded(|k| pnp::is_working(k, id))?)
    }

    /// Starts every device of the machine that has a driver and is not disabled, in order.
    ///
    /// # Errors
    /// As [`start_device`](Self::start_device), for the first that fails.
    pub fn start_devices(&mut self) -> Result<()> {
        *self.dir.registry_mut() = self.k.zw.registry.clone();
        let devices = self.dir.devices()?;
        for device in devices
            .into_iter()
            .filter(|device| device.service.is_some() && device.status != Status::Disabled)
        {
            if !self.running.contains_key(&device.instance_id) {
                self.start_device(&device.instance_id)?;
            }
        }
        Ok(())
    }

    /// The instance ids of the devices that are started, asleep or not.
    #[must_use]
    pub fn started_devices(&self) -> Vec<String> {
        self.running.keys().cloned().collect()
    }

    /// Takes a working device to D3, as when the system goes to sleep.
    ///
    /// # Errors
    /// [`Error::State`], [`Error::Driver`], [`Error::Stop`].
    pub fn power_down(&mut self, device: &str) -> Result<()> {
        let running = self.expect_running(device, false, "power down")?;
        self.note(format!("device {device} goes to D3"));
        let id = running.device;
        let result = self.pnp(move || pnp::power_down(id, PowerAction::Sleep))?;
        self.put(device, At::Asleep);
        check_status(result, || format!("powering down {device}"))
    }

    /// Brings a sleeping device back to D0.
    ///
    /// # Errors
    /// [`Error::State`], [`Error::Driver`], [`Error::Stop`].
    pub fn power_up(&mut self, device: &str) -> Result<()> {
        let running = self.expect_running(device, true, "power up")?;
        self.note(format!("device {device} returns to D0"));
        let id = running.device;
        let result = self.pnp(move || pnp::power_up(id))?;
        self.put(device, At::Working);
        check_status(result, || format!("powering up {device}"))
    }

    /// Removes a device in good order, as Device Manager's "Disable" does.
    /// Unloads the driver if this was its last device.
    ///
    /// # Errors
    /// [`Error::State`], [`Error::Driver`] if the driver refuses the query, [`Error::Stop`].
    pub fn remove_device(&mut self, device: &str) -> Result<()> {
        let running = self.expect_any(device, "remove")?;
        let id = running.device;
        let told = self.tell_targets(id, remote::query_remove, Ok(()))?;
        if told.is_ok() && self.k.io.irps.open_files(id.0) > 0 {
            self.tell_targets(id, remote::remove_canceled, ())?;
            return Err(Error::State {
                device: device.to_owned(),
                state: "open",
                problem: "close its files before it is removed",
            });
        }
        self.note(format!("device {device} is removed"));
        let asked = match told {
            Ok(()) => self.pnp(move || pnp::query_remove(id))?,
            refused => refused,
        };
        if asked.is_err() {
            self.tell_targets(id, remote::remove_canceled, ())?;
        }
        check_status(asked, || format!("asking to remove {device}"))?;
        self.tell_targets(id, remote::remove_complete, ())?;
        self.pnp(move || pnp::remove(id))?;
        self.running.remove(device);
        self.unload_after_removal(running.driver)
    }

    /// Takes a device away without asking, as when it is unplugged.
    /// Unloads the driver if this was its last device. With files open, the
    /// device stays until [`close`](Self::close) closed the last one.
    ///
    /// # Errors
    /// [`Error::State`], [`Error::Stop`].
    pub fn surprise_remove(&mut self, device: &str) -> Result<()> {
        let running = self.expect_any(device, "surprise removal")?;
        self.note(format!("device {device} is gone: surprise removal"));
        let id = running.device;
        self.pnp(move || pnp::surprise_remove(id))?;
        self.tell_targets(id, remote::remove_complete, ())?;
        self.running.remove(device);
        self.ghosts.push(running);
        self.remove_ghosts()
    }

    /// The same while the device's power changes: the driver hears of the removal
    /// before, during or after the callbacks of the change, as the schedule has it.
    ///
    /// # Errors
    /// As [`surprise_remove`](Self::surprise_remove). The status of the power
    /// change does not matter any more.
    pub fn surprise_remove_during(&mut self, device: &str, change: PowerChange) -> Result<()> {
        let asleep = change == PowerChange::Up;
        let running = self.expect_running(device, asleep, "change its power")?;
        self.note(format!(
            "device {device} is gone while its power goes {change:?}: surprise removal"
        ));
        let id = running.device;
        let power = self.spawn_thread("power", move || match change {
            PowerChange::Down => pnp::power_down(id, PowerAction::Sleep),
            PowerChange::Up => pnp::power_up(id),
        });
        let pnp = self.spawn_thread("PnP", move || pnp::surprise_remove(id));
        let _ = self.join(power)?;
        self.join(pnp)?;
        self.tell_targets(id, remote::remove_complete, ())?;
        self.running.remove(device);
        self.ghosts.push(running);
        self.remove_ghosts()
    }

    /// Lets the I/O targets of other drivers know what happens to a device.
    fn tell_targets<R: 'static>(
        &mut self,
        device: pnp::DeviceId,
        what: impl FnOnce(Handle) -> R + 'static,
        nobody: R,
    ) -> Result<R> {
        if remote::is_target(&mut self.k, device.0) {
            self.pnp(move || what(device.0))
        } else {
            Ok(nobody)
        }
    }

    /// Ends the devices that are gone and whose files are closed.
    fn remove_ghosts(&mut self) -> Result<()> {
        let (open, closed): (Vec<Running>, Vec<Running>) = self
            .ghosts
            .iter()
            .partition(|ghost| self.k.io.irps.open_files(ghost.device.0) > 0);
        self.ghosts = open;
        for ghost in closed {
            let id = ghost.device;
            self.pnp(move || pnp::remove(id))?;
            self.unload_after_removal(ghost.driver)?;
        }
        Ok(())
    }

    /// Shuts down in good order, keeps the registry, and boots again. Devices
    /// are found again by [`start_devices`](Self::start_devices).
    ///
    /// # Errors
    /// [`Error::Stop`], [`Error::Store`].
    pub fn reboot(&mut self) -> Result<()> {
        self.stop_all()?;
        self.boot_again()
    }

    /// Shuts down in good order and keeps the registry; nothing is to run after that.
    ///
    /// # Errors
    /// [`Error::Stop`], [`Error::Store`].
    pub fn shut_down(&mut self) -> Result<()> {
        self.stop_all()?;
        self.running.clear();
        self.ghosts.clear();
        self.lingering.clear();
        self.k.zw.registry.drop_volatile();
        self.commit()
    }

    /// What a shutdown does with drivers and devices.
    fn stop_all(&mut self) -> Result<()> {
        self.settle()?;
        self.note("the machine shuts down".to_owned());
        for moment in [control::SHUTDOWN, control::LAST_CHANCE_SHUTDOWN] {
            self.pnp(move || control::notify_shutdown(moment))?;
        }
        for (_, id) in self.at(At::Working).into_iter().rev() {
            // A driver cannot hold up a shutdown: its status does not matter.
            let _ = self.pnp(move || pnp::power_down(id, PowerAction::Shutdown))?;
        }
        verifier::shut_down(&mut self.k);
        Ok(())
    }

    /// A new kernel, with the registry of the old one.
    fn boot_again(&mut self) -> Result<()> {
        self.running.clear();
        self.ghosts.clear();
        self.lingering.clear();
        self.k.zw.registry.drop_volatile();
        self.commit()?;
        let registry = self.k.zw.registry.clone();
        let settings = self.k.settings.clone();
        let old = std::mem::replace(&mut *self.k, Kernel::new(settings));
        self.k.take_over(old, REBOOT_TIME);
        self.k.zw.registry = registry;
        verifier::boot(&mut self.k);
        self.note("the machine boots".to_owned());
        Ok(())
    }

    /// Ends the device that [`Blow::SurpriseRemoval`] has taken away, if it has.
    pub(crate) fn settle(&mut self) -> Result<()> {
        let Some(pending) = &mut self.k.ambush.pending else {
            return Ok(());
        };
        let (thread, device) = (pending.thread, pending.device.clone());
        let running = self.running.get(&device).copied();
        pending.is_called_off = running.is_none();
        crate::wdf::wake(&mut self.k);
        if self.k.run_to_end_of(thread)? == crate::kernel::Ran::Idle {
            return Err(Box::new(crate::hang::stop(&self.k, thread)).into());
        }
        let told = self
            .k
            .ambush
            .pending
            .take()
            .and_then(|pending| pending.told);
        let Some(running) = running.filter(|running| told == Some(running.device)) else {
            return Ok(());
        };
        self.note(format!("device {device} is gone: surprise removal"));
        self.tell_targets(running.device, remote::remove_complete, ())?;
        self.running.remove(&device);
        self.ghosts.push(running);
        self.remove_ghosts()
    }

    /// Closes all files that are open.
    pub(crate) fn close_all(&mut self) -> Result<()> {
        for file in self.k.io.irps.all_open() {
            self.pnp(move || crate::wdf::file::close(file))?;
        }
        self.remove_ghosts()?;
        Ok(self.unload_lingering()?)
    }

    pub(crate) fn kernel(&mut self) -> &mut Kernel {
        &mut self.k
    }

    /// Runs `job` on the PnP thread.
    fn pnp<R: 'static>(&mut self, job: impl FnOnce() -> R + 'static) -> Result<R> {
        Ok(self.run_thread("PnP", job)?)
    }

    fn expect_any(&mut self, device: &str, problem: &'static str) -> Result<Running> {
        self.settle()?;
        self.running
            .get(device)
            .copied()
            .ok_or_else(|| Error::State {
                device: device.to_owned(),
                state: "not started",
                problem,
            })
    }

    fn expect_running(
        &mut self,
        device: &str,
        asleep: bool,
        problem: &'static str,
    ) -> Result<Running> {
        let running = self.expect_any(device, problem)?;
        match (running.at, asleep) {
            (At::Working, false) | (At::Asleep, true) => Ok(running),
            _ => Err(wrong_state(device, running, problem)),
        }
    }

    /// The driver of `service`, loaded.
    fn load_driver(&mut self, service: &str) -> Result<DriverId> {
        if let Some(id) = self.k.io.loaded(service) {
            return Ok(id);
        }
        let (entry, image) = if let Some(entry) = self.linked.get(&service.to_lowercase()) {
            (Entry::Host(*entry as usize), None)
        } else {
            let file = self.dir.service_image(service)?;
            let image = load_image(&file.name, &file.bytes)?;
            (
                Entry::Image(image.entry()),
                Some((image, file.path.unwrap_or_default())),
            )
        };
        self.note(format!("driver {service} is loaded"));
        let id = io::create_driver(&mut self.k, service, entry, image);
        let status = self.pnp(move || io::start_driver(id))?;
        if status < 0 {
            // It is gone at once, without its unload routine.
            self.k.guarded(|k| crate::unload::check(k, service))?;
        }
        check_status(if status < 0 { Err(status) } else { Ok(()) }, || {
            format!("DriverEntry of {service}")
        })?;
        Ok(id)
    }

    /// Writes a line of the machine's own into the trace.
    fn note(&mut self, text: String) {
        self.k.log(Event::Machine(text));
    }
}

fn wrong_state(device: &str, running: Running, problem: &'static str) -> Error {
    Error::State {
        device: device.to_owned(),
        state: running.at.name(),
        problem,
    }
}

/// A failing status as an error that says what failed.
fn check_status(result: Result<(), i32>, what: impl FnOnce() -> String) -> Result<()> {
    result.map_err(|status| Error::Driver {
        what: what(),
        status: status.cast_unsigned(),
    })
}

/// Checks an image: that it is a driver for this machine, and that the
/// simulator has everything it imports.
///
/// # Errors
/// What is wrong with it, in one sentence.
pub fn check_image(name: &str, bytes: &[u8]) -> Result<(), ImageError> {
    load_image(name, &bytes.into()).map(drop)
}

/// Reads and maps an image whose imports the simulator has.
pub(crate) fn load_image(name: &str, bytes: &Arc<[u8]>) -> Result<Loaded, ImageError> {
    let image = parse_once(name, bytes)?;
    Loaded::load_shared(&image, &mut |dll, import| {
        exports::find(dll, import).map(|export| export.image)
    })
}

/// How many images are remembered.
const KEPT_IMAGES: usize = 4;

/// Images with the bytes that they were parsed from, the latest last.
type Parsed = Vec<(Arc<[u8]>, Arc<Image>)>;

/// Parses an image, unless it is one of those that this thread has parsed last.
fn parse_once(name: &str, bytes: &Arc<[u8]>) -> Result<Arc<Image>, ImageError> {
    thread_local! {
        static PARSED: RefCell<Parsed> = const { RefCell::new(Vec::new()) };
    }
    PARSED.with_borrow_mut(|parsed| {
        let known = parsed.iter().find(|(other, image)| {
            image.name() == name && (Arc::ptr_eq(other, bytes) || other == bytes)
        });
        if let Some((_, image)) = known {
            return Ok(Arc::clone(image));
        }
        let image = Arc::new(Image::parse(name, bytes)?);
        if parsed.len() == KEPT_IMAGES {
            parsed.remove(0);
        }
        parsed.push((Arc::clone(bytes), Arc::clone(&image)));
        Ok(image)
    })
}

/// Runs `body` on a thread of a fresh machine: for examples and small tests.
///
/// # Panics
/// If the simulation ends in a bug check or a deadlock; the report is the message.
pub fn run<R: 'static>(body: impl FnOnce() -> R + 'static) -> R {
    let mut machine = Machine::default();
    machine
        .run_thread("main", body)
        .unwrap_or_else(|stop| panic!("{stop}"))
}
