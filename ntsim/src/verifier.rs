// SPDX-License-Identifier: MIT OR Apache-2.0

//! Driver Verifier's settings, as the registry keeps them, and what they switch here.
//!
//! # Vocabulary
//! - *rule class*: what Driver Verifier switches as one, by number: `verifier /rc 6`.
//!   Those up to 32 are bits of *flags* too: class `n` is bit `n - 1`.
//! - *rule*: a row of [`rules`]; [`switch`] tells which class it belongs to.
//!
//! # Without settings, everything is checked
//! Windows checks drivers only when it is told to. ntsim exists to check them, so
//! it is the other way round: a machine without settings holds every driver to
//! every rule. Settings narrow that down, to the classes and the drivers that they
//! name, so that a run reports what the same settings would report in Windows.
//!
//! | a rule that Windows checks | without settings | with settings |
//! |---|---|---|
//! | always ([`Switch::Always`]) | checked | checked |
//! | with any class ([`Switch::Any`]) | checked | for the drivers that are named |
//! | with its class ([`Switch::Class`]) | checked | the same, if the class is named |
//!
//! They take effect when the machine boots, as in Windows.
//!
//! # In the registry
//! Below `HKLM\SYSTEM\CurrentControlSet\Control\Session Manager\Memory Management`:
//! `VerifyDrivers` (names with blanks between them, or `*`), `VerifyDriverLevel` (the
//! flags), `VerifierFaultProbability`, `VerifierFaultTags`, `VerifierFaultBootMinutes`.
//! How Windows stores classes above 32 is not documented; here `VerifierSettingState`
//! has a bit for each class in 8 bytes. `NtsimFaultStacks` is ntsim's own: the
//! [stacks](crate::inject::Stacks) that class 19 has failed.
//!
//! A driver's `Parameters\Wdf` key is KMDF's: [`Kmdf`].
//!
//! ```
//! use ntsim::registry::Registry;
//! use ntsim::verifier::{Drivers, Verifier};
//!
//! let mut registry = Registry::new();
//! assert_eq!(Verifier::read(&registry), None);
//! let mut verifier = Verifier::standard();
//! verifier.drivers = Drivers::Named(vec!["sensor.sys".to_owned()]);
//! verifier.write(&mut registry)?;
//! assert_eq!(Verifier::read(&registry), Some(verifier));
//! # Ok::<(), ntsim::registry::RegistryError>(())
//! ```
//!
//! See [the command's syntax][syntax].
//!
//! [syntax]: https://learn.microsoft.com/windows-hardware/drivers/devtest/verifier-command-line

use std::collections::BTreeSet;
use std::time::Duration;

use crate::inject::{self, Faults, Stacks};
use crate::kernel::Kernel;
use crate::registry::{KeyId, RegString, Registry, RegistryError, Value, Volatility};
use crate::rules::{self, Report, Rule};

const KEY: &str =
    r"\Registry\Machine\SYSTEM\CurrentControlSet\Control\Session Manager\Memory Management";
const SERVICES: &str = r"\Registry\Machine\SYSTEM\CurrentControlSet\Services";
const STACKS: &str = "NtsimFaultStacks";
const VALUES: [&str; 7] = [
    "VerifyDrivers",
    "VerifyDriverLevel",
    "VerifierSettingState",
    "VerifierFaultProbability",
    "VerifierFaultTags",
    "VerifierFaultBootMinutes",
    STACKS,
];

/// Randomized low resources simulation.
pub const LOW_RESOURCES: u32 = 3;
/// Systematic low resources simulation.
pub const SYSTEMATIC: u32 = 19;
/// WDF verification.
pub const WDF: u32 = 34;

/// A rule class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleClass {
    /// Its number, for `/rc`.
    pub number: u32,
    /// What it is called.
    pub name: &'static str,
    /// Whether `/standard` has it.
    pub standard: bool,
    /// Whether it does something here.
    pub simulated: bool,
}

const fn class(number: u32, name: &'static str, standard: bool, simulated: bool) -> RuleClass {
    RuleClass {
        number,
        name,
        standard,
        simulated,
    }
}

/// The rule classes that Windows has.
pub const CLASSES: [RuleClass; 26] = [
    class(1, "Special pool", true, true),
    class(2, "Force IRQL checking", true, true),
    class(4, "Pool tracking", true, true),
    class(5, "I/O verification", true, true),
    class(6, "Deadlock detection", true, true),
    class(8, "DMA checking", true, true),
    class(9, "Security checks", true, true),
    class(12, "Miscellaneous checks", true, true),
    class(18, "DDI compliance checking", true, true),
    class(WDF, "WDF verification", true, true),
    class(
        LOW_RESOURCES,
        "Randomized low resources simulation",
        false,
        true,
    ),
    class(10, "Force pending I/O requests", false, false),
    class(11, "IRP logging", false, false),
    class(14, "Invariant MDL checking for stack", false, false),
    class(15, "Invariant MDL checking for driver", false, false),
    class(16, "Power framework delay fuzzing", false, false),
    class(17, "Port/miniport interface checking", false, false),
    class(
        SYSTEMATIC,
        "Systematic low resources simulation",
        false,
        true,
    ),
    class(20, "DDI compliance checking (additional)", false, true),
    class(22, "NDIS/WIFI verification", false, false),
    class(24, "Kernel synchronization delay fuzzing", false, false),
    class(25, "VM switch verification", false, false),
    class(26, "Code integrity checks", false, false),
    class(33, "Driver isolation checks", false, false),
    class(35, "DDI checking (additional IRQL rules)", false, true),
    class(36, "DIF mode", false, true),
];

/// The class of a number.
#[must_use]
pub fn find(number: u32) -> Option<&'static RuleClass> {
    CLASSES.iter().find(|class| class.number == number)
}

/// When a rule is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// In Windows without Driver Verifier, too.
    Always,
    /// With any class: Driver Verifier's [automatic checks][automatic].
    ///
    /// [automatic]: https://learn.microsoft.com/windows-hardware/drivers/devtest/automatic-checks
    Any,
    /// With this rule class.
    Class(u32),
}

/// What switches a rule, by the bug check that it is reported with.
///
/// See [bug check 0xC4][c4], [security checks][9] and [miscellaneous checks][12].
///
/// [c4]: https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc4--driver-verifier-detected-violation
/// [9]: https://learn.microsoft.com/windows-hardware/drivers/devtest/security-checks
/// [12]: https://learn.microsoft.com/windows-hardware/drivers/devtest/miscellaneous-checks
#[must_use]
pub fn switch(rule: &Rule) -> Switch {
    match rule.report {
        Report::BugCheckWith(0xC4, code) => match code {
            0x51..=0x62 => Switch::Class(4),
            0xD5..=0xD7 => Switch::Class(5),
            0x1000..=0x100F => Switch::Class(6),
            0xE0 | 0xE2..=0xE4 | 0xF6 | 0xF7 => Switch::Class(9),
            0xCA..=0xCD | 0xD0..=0xD2 | 0xDA..=0xDD => Switch::Class(12),
            0x2_0000..=0x8_FFFF => Switch::Class(18),
            _ => Switch::Any,
        },
        Report::BugCheck(0xC4) => Switch::Any,
        Report::BugCheck(0xC9) | Report::BugCheckWith(0xC9, _) => Switch::Class(5),
        Report::BugCheck(0xE6) | Report::BugCheckWith(0xE6, _) => Switch::Class(8),
        Report::BugCheck(0x10D) | Report::BugCheckWith(0x10D, _) => Switch::Class(WDF),
        _ => Switch::Always,
    }
}

/// Which drivers are verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Drivers {
    /// All.
    All,
    /// Those of these images: `sensor.sys`.
    Named(Vec<String>),
}

/// The settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verifier {
    /// Whom they are for.
    pub drivers: Drivers,
    /// What is checked and done, by rule class.
    pub classes: BTreeSet<u32>,
    /// Chances in 10,000 that a call fails, with class 3.
    pub probability: u32,
    /// The pool tags of the allocations that fail; all if there are none.
    pub tags: Vec<String>,
    /// Minutes of virtual time from booting on in which nothing fails.
    pub boot_minutes: u32,
}

impl Verifier {
    /// What `/standard /all` sets.
    #[must_use]
    pub fn standard() -> Self {
        let standard = CLASSES.iter().filter(|class| class.standard);
        Self {
            drivers: Drivers::All,
            classes: standard.map(|class| class.number).collect(),
            probability: 600,
            tags: Vec::new(),
            boot_minutes: 8,
        }
    }

    /// The classes as flags: those up to 32.
    #[must_use]
    pub fn flags(&self) -> u32 {
        let low = self
            .classes
            .iter()
            .filter(|class| (1..=32).contains(*class));
        low.fold(0, |flags, class| flags | 1 << (class - 1))
    }

    /// The classes that flags stand for.
    #[must_use]
    pub fn classes_of(flags: u32) -> BTreeSet<u32> {
        (1..=32)
            .filter(|class| flags & 1 << (class - 1) != 0)
            .collect()
    }

    /// Reads them; [`None`] if there are none.
    #[must_use]
    pub fn read(registry: &Registry) -> Option<Self> {
        let key = registry.open(KEY).ok()?;
        let text = |name: &str| {
            registry
                .value(key, name)
                .ok()?
                .as_sz()
                .map(|text| text.to_string())
        };
        let number = |name: &str| registry.value(key, name).ok().and_then(Value::as_dword);
        let (drivers, flags) = (text("VerifyDrivers"), number("VerifyDriverLevel"));
        if drivers.is_none() && flags.is_none() {
            return None;
        }
        let mut classes = Self::classes_of(flags.unwrap_or(0));
        let state = registry.value(key, "VerifierSettingState").ok();
        for (index, byte) in state
            .map_or(&[][..], |state| &state.data)
            .iter()
            .enumerate()
        {
            // Those below are the flags'.
            let bits = (0..8).filter(|bit| byte & 1 << bit != 0);
            let numbers = bits.filter_map(|bit| u32::try_from(index * 8 + bit + 1).ok());
            classes.extend(numbers.filter(|number| *number > 32));
        }
        let words =
            |text: String| -> Vec<String> { text.split_whitespace().map(str::to_owned).collect() };
        let names = words(drivers.unwrap_or_default());
        Some(Self {
            drivers: if names == ["*"] {
                Drivers::All
            } else {
                Drivers::Named(names)
            },
            classes,
            probability: number("VerifierFaultProbability").unwrap_or(600),
            tags: words(text("VerifierFaultTags").unwrap_or_default()),
            boot_minutes: number("VerifierFaultBootMinutes").unwrap_or(8),
        })
    }

    /// Writes them.
    ///
    /// # Errors
    /// [`RegistryError`] if the key cannot be made.
    pub fn write(&self, registry: &mut Registry) -> Result<(), RegistryError> {
        let key = registry.create(KEY, Volatility::Persistent)?;
        let drivers = match &self.drivers {
            Drivers::All => "*".to_owned(),
            Drivers::Named(names) => names.join(" "),
        };
        registry.set_value(key, "VerifyDrivers", Value::sz(drivers))?;
        registry.set_value(key, "VerifyDriverLevel", Value::dword(self.flags()))?;
        let bits = self
            .classes
            .iter()
            .filter(|class| (1..=64).contains(*class));
        let state = bits.fold(0_u64, |state, class| state | 1 << (class - 1));
        registry.set_value(
            key,
            "VerifierSettingState",
            Value::binary(state.to_le_bytes()),
        )?;
        if self.classes.contains(&LOW_RESOURCES) {
            registry.set_value(
                key,
                "VerifierFaultProbability",
                Value::dword(self.probability),
            )?;
            registry.set_value(key, "VerifierFaultTags", Value::sz(self.tags.join(" ")))?;
            registry.set_value(
                key,
                "VerifierFaultBootMinutes",
                Value::dword(self.boot_minutes),
            )?;
        }
        Ok(())
    }

    /// Removes them: everything is checked again.
    pub fn remove(registry: &mut Registry) {
        if let Ok(key) = registry.open(KEY) {
            for name in VALUES {
                // What is not set need not go.
                drop(registry.delete_value(key, name));
            }
        }
    }

    /// The rules that are not checked for anybody.
    #[must_use]
    pub fn without_rules(&self) -> Vec<&'static Rule> {
        rules::all()
            .filter(|rule| match switch(rule) {
                Switch::Always => false,
                Switch::Any => self.classes.is_empty(),
                Switch::Class(class) => !self.classes.contains(&class),
            })
            .collect()
    }

    /// Which calls fail; [`None`] if none do.
    fn faults(&self, registry: &Registry, services: Option<&Vec<String>>) -> Option<Faults> {
        let mut faults = if self.classes.contains(&LOW_RESOURCES) {
            let minutes = Duration::from_secs(60 * u64::from(self.boot_minutes));
            let faults = Faults::at_random(self.probability).after(minutes);
            self.tags
                .iter()
                .filter_map(|tag| pool_tag(tag))
                .fold(faults, Faults::only_tag)
        } else if self.classes.contains(&SYSTEMATIC) {
            Faults::each_stack(stacks(registry))
        } else {
            return None;
        };
        for service in services.into_iter().flatten() {
            faults = faults.only_service(service);
        }
        Some(faults)
    }
}

/// The number of a pool tag, of one to four characters.
#[must_use]
pub fn pool_tag(text: &str) -> Option<u32> {
    let mut bytes = [b' '; 4];
    let length = text.len();
    if !(1..=4).contains(&length) || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    bytes[..length].copy_from_slice(text.as_bytes());
    Some(u32::from_le_bytes(bytes))
}

/// The stacks that class 19 has failed so far.
#[must_use]
pub fn stacks(registry: &Registry) -> Stacks {
    let value = registry
        .open(KEY)
        .and_then(|key| registry.value(key, STACKS));
    let lines = value.ok().and_then(Value::as_multi_sz).unwrap_or_default();
    let lines: Vec<String> = lines.iter().map(RegString::to_string).collect();
    lines.join("\n").parse().unwrap_or_default()
}

/// Forgets them.
pub fn forget_stacks(registry: &mut Registry) {
    if let Ok(key) = registry.open(KEY) {
        drop(registry.delete_value(key, STACKS));
    }
}

/// KMDF's own verifier, from the driver's `Parameters\Wdf` key.
///
/// | value | here |
/// |---|---|
/// | `VerifierOn` | 0 switches the rules of class 34 off for this driver; without it they are on |
/// | `VerifierAllocateFailCount` | every framework object after the n-th fails to be made, unless `VerifierOn` is 0 |
/// | `TrackHandles` | no effect: every handle is tracked |
/// | `EnhancedVerifierOptions` | no effect: IRQL and critical regions of callbacks are always checked |
/// | `DbgBreakOnError` | with `VerifierOn`: the framework waits only so long for a driver to give its requests back |
/// | `DbgWaitForSignalTimeoutInSec` | how long that is, if not 60 seconds |
///
/// See [registry values for debugging][values] and [using KMDF verifier][using].
///
/// [values]: https://learn.microsoft.com/windows-hardware/drivers/wdf/registry-values-for-debugging-kmdf-drivers
/// [using]: https://learn.microsoft.com/windows-hardware/drivers/wdf/using-kmdf-verifier
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kmdf {
    /// `VerifierOn` is there, and is 0.
    pub is_off: bool,
    /// `VerifierAllocateFailCount`.
    pub fail_after: Option<u32>,
    /// How many seconds the framework waits for the driver.
    pub wait_for_signal: Option<u32>,
}

/// What `DbgWaitForSignalTimeoutInSec` is without a value.
const WAIT_FOR_SIGNAL: u32 = 60;

impl Kmdf {
    /// Reads the values of a service.
    #[must_use]
    pub fn read(registry: &Registry, service: &str) -> Self {
        let Ok(key) = registry.open(format!(r"{SERVICES}\{service}\Parameters\Wdf")) else {
            return Self::default();
        };
        let number = |name: &str| registry.value(key, name).ok().and_then(Value::as_dword);
        let is_off = number("VerifierOn") == Some(0);
        let is_on = |name| number(name).is_some_and(|value| value != 0);
        let breaks = is_on("VerifierOn") && is_on("DbgBreakOnError");
        Self {
            is_off,
            fail_after: number("VerifierAllocateFailCount").filter(|_| !is_off),
            wait_for_signal: breaks
                .then(|| number("DbgWaitForSignalTimeoutInSec").unwrap_or(WAIT_FOR_SIGNAL)),
        }
    }
}

/// What is in force in a machine that runs.
#[derive(Default)]
pub(crate) struct State {
    /// The rules that its settings switch off.
    off: Vec<&'static Rule>,
    /// The services whose drivers are verified, if not all are.
    only: Option<Vec<String>>,
    is_systematic: bool,
}

/// Takes over what the registry says, when the machine boots.
pub(crate) fn boot(k: &mut Kernel) {
    let registry = &k.zw.registry;
    let Some(verifier) = Verifier::read(registry) else {
        return;
    };
    let only = match &verifier.drivers {
        Drivers::All => None,
        Drivers::Named(names) => Some(services_of(registry, names)),
    };
    let faults = verifier.faults(registry, only.as_ref());
    k.verifier = State {
        off: verifier.without_rules(),
        // Nobody's calls fail if nobody is verified.
        is_systematic: faults.is_some() && verifier.classes.contains(&SYSTEMATIC),
        only,
    };
    let nobody = k.verifier.only.as_ref().is_some_and(Vec::is_empty);
    if let Some(faults) = faults.filter(|_| !nobody) {
        let seed = k.settings.seed;
        k.inject.arm(faults, seed);
    }
}

/// Keeps what the next boot needs to know.
pub(crate) fn shut_down(k: &mut Kernel) {
    if !k.verifier.is_systematic {
        return;
    }
    let stacks = k.inject.report().stacks.to_string();
    let registry = &mut k.zw.registry;
    if let Ok(key) = registry.create(KEY, Volatility::Persistent) {
        // The key is there, and the name is a short one.
        let _ = registry.set_value(key, STACKS, Value::multi_sz(stacks.lines()));
    }
}

/// Whether the settings have this rule checked for the driver that is running.
pub(crate) fn covers(k: &Kernel, rule: &'static Rule) -> bool {
    let State { off, only, .. } = &k.verifier;
    if off.iter().any(|other| std::ptr::eq(*other, rule)) {
        return false;
    }
    let switch = switch(rule);
    if switch == Switch::Always {
        return true;
    }
    let kmdf_off = switch == Switch::Class(WDF) && k.wdf.verifier_is_off_somewhere();
    if only.is_none() && !kmdf_off {
        return true;
    }
    // What no driver's call has led to is checked for all.
    let Some(caller) = inject::calling_service(k) else {
        return true;
    };
    let is_named = only
        .as_ref()
        .is_none_or(|only| only.iter().any(|name| name.eq_ignore_ascii_case(caller)));
    is_named && !(kmdf_off && k.wdf.verifier_is_off(caller))
}

/// The services that have these images.
fn services_of(registry: &Registry, images: &[String]) -> Vec<String> {
    let is_named = |file: &str| images.iter().any(|image| image.eq_ignore_ascii_case(file));
    services(registry)
        .into_iter()
        .filter(|(_, image)| is_named(image))
        .map(|(service, _)| service)
        .collect()
}

/// The machine's services with the names of their images: `Sensor`, `sensor.sys`. One
/// without an image, whose driver is linked into the program, has the service's name.
#[must_use]
pub fn services(registry: &Registry) -> Vec<(String, String)> {
    let Ok(services) = registry.open(SERVICES) else {
        return Vec::new();
    };
    let Ok(keys) = registry.subkeys(services) else {
        return Vec::new();
    };
    keys.filter_map(|key| {
        let name = registry.name(key).ok()?.to_string();
        let image = image_of(registry, key).unwrap_or_else(|| format!("{name}.sys"));
        Some((name, image))
    })
    .collect()
}

/// The name of a service's image: `sensor.sys`.
fn image_of(registry: &Registry, service: KeyId) -> Option<String> {
    let path = registry
        .value(service, "ImagePath")
        .ok()?
        .as_sz()?
        .to_string();
    path.rsplit('\\').next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_driver_verifier_reports_belongs_to_a_class_and_nothing_else_does() {
        for rule in rules::all() {
            let is_verifiers = matches!(
                rule.report,
                Report::BugCheck(0xC4 | 0xC9 | 0xE6 | 0x10D)
                    | Report::BugCheckWith(0xC4 | 0xC9 | 0xE6 | 0x10D, _)
            );
            assert_eq!(
                switch(rule) != Switch::Always,
                is_verifiers,
                "{}",
                rule.name
            );
            if let Switch::Class(number) = switch(rule) {
                let class = find(number).unwrap();
                assert!(class.simulated, "{}: {number}", rule.name);
            }
        }
    }

    #[test]
    fn flags_are_the_classes_up_to_32() {
        let standard = Verifier::standard();
        assert_eq!(standard.flags(), 0x209BB);
        let mut classes = Verifier::classes_of(0x209BB);
        classes.insert(WDF);
        assert_eq!(classes, standard.classes);
        assert_eq!(Verifier::classes_of(u32::MAX).len(), 32);
    }

    #[test]
    fn no_setting_leaves_a_rule_on_that_it_does_not_name() {
        let mut verifier = Verifier::standard();
        verifier.classes = [4].into();
        let off = verifier.without_rules();
        for rule in rules::all() {
            let is_on = match switch(rule) {
                Switch::Always | Switch::Any | Switch::Class(4) => true,
                Switch::Class(_) => false,
            };
            assert_eq!(off.contains(&rule), !is_on, "{}", rule.name);
        }
    }

    #[test]
    fn a_damaged_setting_is_read_as_far_as_it_goes() {
        let mut registry = Registry::new();
        let key = registry.create(KEY, Volatility::Persistent).unwrap();
        for (name, value) in [
            ("VerifyDriverLevel", Value::sz("many")),
            ("VerifyDrivers", Value::sz(" a.sys  b.sys ")),
            ("VerifierSettingState", Value::binary([0xFF; 3])),
            (STACKS, Value::multi_sz(["no stack"])),
        ] {
            registry.set_value(key, name, value).unwrap();
        }
        let verifier = Verifier::read(&registry).unwrap();
        let names = ["a.sys", "b.sys"].map(str::to_owned).to_vec();
        assert_eq!(verifier.drivers, Drivers::Named(names));
        assert!(verifier.classes.is_empty());
        assert!(stacks(&registry).is_empty());
    }
}
