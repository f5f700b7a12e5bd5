// SPDX-License-Identifier: MIT OR Apache-2.0

//! `ntsim verifier`: Driver Verifier's settings, by the words of verifier.exe.
//!
//! See [its syntax][syntax], and [`ntsim::verifier`] for what is kept where.
//!
//! [syntax]: https://learn.microsoft.com/windows-hardware/drivers/devtest/verifier-command-line

use std::collections::BTreeSet;

use clap::{Args, ValueEnum};
use ntsim::rules;
use ntsim::verifier::{self, Drivers, Kmdf, Switch, Verifier as Settings};

use crate::end::{End, Ended, Failure};
use crate::place::{self, Place};

const USAGE: &str = "ntsim verifier /standard {/all | /driver <NAME>...}
       ntsim verifier {/ruleclasses | /rc} <CLASS>... {/all | /driver <NAME>...}
       ntsim verifier /flags <FLAGS> {/all | /driver <NAME>...}
       ntsim verifier /faults [PROBABILITY [POOLTAGS [APPLICATIONS [DELAYMINS]]]]
       ntsim verifier /faultssystematic <OPTION>
       ntsim verifier /query | /querysettings | /reset";

const EXAMPLES: &str = r#"Examples:
  ntsim verifier /standard /driver sensor.sys
  ntsim verifier /rc 4 6 34 /all
  ntsim verifier /flags 0x209bb /driver sensor.sys
  ntsim verifier /faults 600 "Sens Ring" "" 0 /driver sensor.sys
  ntsim verifier /querysettings
  ntsim verifier /reset

Options may be written /standard, -standard or --standard, in any case."#;

const ABOUT: &str = r"Without settings, ntsim checks every rule, for every driver; Windows would check
nothing. Settings narrow that down to what Windows would check with them, so
/reset, which removes them, switches everything on. What Windows checks without
Driver Verifier, too, cannot be switched off. `ntsim verifier /query` shows what is
in force. KMDF's own values, such as VerifierOn, are set by `ntsim reg add` in the
service's key Parameters\Wdf.

Settings are in force when the machine boots, which is with the next command that
runs it; so verifier's exit code 2, reboot needed, does not come up.";

/// Driver Verifier's settings, as verifier.exe shows and changes them
#[derive(Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of verifier.exe"
)]
#[command(
    after_help = EXAMPLES,
    after_long_help = [EXAMPLES, ABOUT, place::ABOUT].join("\n\n"),
    override_usage = USAGE,
    arg_required_else_help = true
)]
pub(crate) struct Verifier {
    /// The standard rule classes
    #[arg(long, conflicts_with_all = ["flags", "ruleclasses"])]
    standard: bool,
    /// Rule classes by their flags, in decimal, or in hexadecimal after 0x
    #[arg(long, value_name = "FLAGS", value_parser = flags, conflicts_with = "ruleclasses")]
    flags: Option<u32>,
    /// Rule classes by their numbers
    #[arg(long, visible_alias = "rc", value_name = "CLASS", num_args = 1.., value_parser = class)]
    ruleclasses: Vec<u32>,
    /// For all drivers
    #[arg(long, conflicts_with = "driver")]
    all: bool,
    /// For the drivers of these images
    #[arg(long, value_name = "NAME", num_args = 1.., value_parser = driver)]
    driver: Vec<String>,
    /// Low resources simulation: chances in 10,000, pool tags, applications (there are none
    /// here), minutes after booting without it
    #[arg(long, value_name = "SETTING", num_args = 0..=4)]
    faults: Option<Vec<String>>,
    /// Systematic low resources simulation: each call stack fails once
    #[arg(long, value_name = "OPTION", ignore_case = true)]
    faultssystematic: Option<Systematic>,
    /// Show what is in force
    #[arg(long)]
    query: bool,
    /// Show the settings
    #[arg(long)]
    querysettings: bool,
    /// Remove all settings: everything is checked
    #[arg(long)]
    reset: bool,
    #[command(flatten)]
    place: Place,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "lower")]
enum Systematic {
    /// Begin, when the machine boots
    EnableBootTime,
    /// End; the stacks that have failed stay known
    DisableBootTime,
    /// End, and forget the stacks
    ResetBootTime,
    /// Tell how many stacks have failed
    QueryStatistics,
}

fn number(text: &str) -> Option<u32> {
    let hex = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let digits = hex.unwrap_or(text);
    if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    u32::from_str_radix(digits, if hex.is_some() { 16 } else { 10 }).ok()
}

fn flags(text: &str) -> Result<u32, String> {
    let flags = number(text).ok_or("not a number of 32 bits, such as 0x209bb")?;
    for number in Settings::classes_of(flags) {
        // I/O verification has had a second flag.
        if number != 7 {
            known(number).map_err(|error| format!("flag {:#x}: {error}", 1_u64 << (number - 1)))?;
        }
    }
    Ok(flags & !0x40)
}

fn class(text: &str) -> Result<u32, String> {
    let number = text.parse().map_err(|_| "not the number of a rule class")?;
    known(number).map(|()| number)
}

fn known(number: u32) -> Result<(), String> {
    match verifier::find(number) {
        None => Err(format!("there is no rule class {number}")),
        Some(class) if !class.simulated => Err(format!(
            "ntsim does not simulate rule class {number}, {}",
            class.name
        )),
        Some(_) => Ok(()),
    }
}

fn driver(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains(['*', '?', '/', '\\']) || text.contains(char::is_whitespace)
    {
        return Err("not the name of an image, such as sensor.sys; wildcards are not known".into());
    }
    Ok(text.to_owned())
}

impl Verifier {
    pub(crate) fn execute(&self) -> Ended {
        let sets = self.standard
            || self.flags.is_some()
            || !self.ruleclasses.is_empty()
            || self.all
            || !self.driver.is_empty()
            || self.faults.is_some();
        let alone = [
            self.query,
            self.querysettings,
            self.reset,
            self.faultssystematic == Some(Systematic::QueryStatistics),
            sets || self
                .faultssystematic
                .is_some_and(|option| option != Systematic::QueryStatistics),
        ];
        if alone.iter().filter(|given| **given).count() != 1 {
            return Err(Failure::Input(
                "/query, /querysettings, /reset and settings: one at a time".to_owned(),
            ));
        }
        if self.query {
            self.show_rules()
        } else if self.querysettings {
            show(Settings::read(self.place.look()?.registry()).as_ref());
            Ok(End::Done)
        } else if self.reset {
            let mut dir = self.place.open()?;
            Settings::remove(dir.registry_mut());
            dir.commit_registry()?;
            show(None);
            Ok(End::Done)
        } else if self.faultssystematic == Some(Systematic::QueryStatistics) {
            let stacks = verifier::stacks(self.place.look()?.registry());
            println!("Stacks that have failed: {}", stacks.len());
            Ok(End::Done)
        } else {
            self.set()
        }
    }

    fn set(&self) -> Ended {
        // What can be wrong, before a machine is made.
        self.apply(Settings::standard())?;
        let old = match self.place.look() {
            Ok(dir) => Settings::read(dir.registry()),
            Err(_) => None,
        };
        if old.is_none() && !self.all && self.driver.is_empty() {
            return Err(Failure::Input(
                "for which drivers: add /all or /driver NAME".to_owned(),
            ));
        }
        let mut dir = self.place.open_or_create()?;
        let registry = dir.registry_mut();
        let begin = Settings::read(registry).unwrap_or_else(|| {
            let mut begin = Settings::standard();
            // /faults is a setting of its own; /driver alone means the standard ones.
            if self.faults.is_some() || self.faultssystematic.is_some() {
                begin.classes.clear();
            }
            begin
        });
        let settings = self.apply(begin)?;
        settings.write(registry)?;
        if self.faultssystematic == Some(Systematic::ResetBootTime) {
            verifier::forget_stacks(registry);
        }
        let services = verifier::services(registry);
        dir.commit_registry()?;
        show(Some(&settings));
        for name in &self.driver {
            if !services
                .iter()
                .any(|(_, image)| image.eq_ignore_ascii_case(name))
            {
                eprintln!("note: {name}: no driver of this machine has that image yet");
            }
        }
        Ok(End::Done)
    }

    fn apply(&self, mut settings: Settings) -> Result<Settings, Failure> {
        if self.standard {
            settings.classes = Settings::standard().classes;
        } else if let Some(flags) = self.flags {
            settings.classes = Settings::classes_of(flags);
        } else if !self.ruleclasses.is_empty() {
            settings.classes = self.ruleclasses.iter().copied().collect();
        }
        if self.all {
            settings.drivers = Drivers::All;
        } else if !self.driver.is_empty() {
            settings.drivers = Drivers::Named(self.driver.clone());
        }
        if let Some(faults) = &self.faults {
            settings.classes.insert(verifier::LOW_RESOURCES);
            faults_of(&mut settings, faults).map_err(Failure::Input)?;
        }
        match self.faultssystematic {
            Some(Systematic::EnableBootTime) => {
                settings.classes.insert(verifier::SYSTEMATIC);
            }
            Some(Systematic::DisableBootTime | Systematic::ResetBootTime) => {
                settings.classes.remove(&verifier::SYSTEMATIC);
            }
            _ => {}
        }
        if settings.classes.contains(&verifier::LOW_RESOURCES)
            && settings.classes.contains(&verifier::SYSTEMATIC)
        {
            return Err(Failure::Input(
                "rule classes 3 and 19: low resources are simulated at random or \
                 systematically, not both"
                    .to_owned(),
            ));
        }
        Ok(settings)
    }

    fn show_rules(&self) -> Ended {
        let dir = self.place.look()?;
        let registry = dir.registry();
        let settings = Settings::read(registry);
        let off: BTreeSet<&str> = settings
            .iter()
            .flat_map(Settings::without_rules)
            .map(|rule| rule.name)
            .collect();
        let all: Vec<_> = rules::all().collect();
        let count = |is_ours: &dyn Fn(Switch) -> bool| {
            let ours = all.iter().filter(|rule| is_ours(verifier::switch(rule)));
            let (on, off): (Vec<&&rules::Rule>, Vec<_>) =
                ours.partition(|rule| !off.contains(rule.name));
            format!("{:4} of {:4}", on.len(), on.len() + off.len())
        };
        println!("Rules that are checked:");
        println!(
            "  {}  in Windows without Driver Verifier, too",
            count(&|switch| switch == Switch::Always)
        );
        println!(
            "  {}  with any rule class",
            count(&|switch| switch == Switch::Any)
        );
        for class in verifier::CLASSES.iter().filter(|class| class.simulated) {
            let has_rules = all
                .iter()
                .any(|rule| verifier::switch(rule) == Switch::Class(class.number));
            if has_rules {
                let counted = count(&|switch| switch == Switch::Class(class.number));
                println!(
                    "  {counted}  with rule class {}, {}",
                    class.number, class.name
                );
            }
        }
        println!("\nDrivers:");
        let services = verifier::services(registry);
        if services.is_empty() {
            println!("  none on this machine");
        }
        for (service, image) in services {
            let is_verified = match settings.as_ref().map(|settings| &settings.drivers) {
                None | Some(Drivers::All) => true,
                Some(Drivers::Named(names)) => {
                    names.iter().any(|name| name.eq_ignore_ascii_case(&image))
                }
            };
            let Kmdf {
                is_off,
                fail_after,
                wait_for_signal,
            } = Kmdf::read(registry, &service);
            let mut notes = String::new();
            if is_off {
                notes += ", VerifierOn = 0";
            }
            if let Some(count) = fail_after {
                notes = format!("{notes}, VerifierAllocateFailCount = {count}");
            }
            if let Some(seconds) = wait_for_signal {
                notes = format!("{notes}, DbgWaitForSignalTimeoutInSec = {seconds}");
            }
            println!(
                "  {image:24}{}{notes}",
                if is_verified {
                    "verified"
                } else {
                    "not verified"
                }
            );
        }
        Ok(End::Done)
    }
}

/// `/faults` and its four settings, of which any may be missing.
fn faults_of(settings: &mut Settings, faults: &[String]) -> Result<(), String> {
    let standard = Settings::standard();
    let given = |index: usize| faults.get(index).map_or("", String::as_str);
    settings.probability = match given(0) {
        "" => standard.probability,
        text => number(text).filter(|number| *number <= 10_000).ok_or_else(|| {
            format!("/faults \"{text}\": not a probability, which is a number of chances from 0 to 10000")
        })?,
    };
    let tags: Vec<String> = given(1).split_whitespace().map(str::to_owned).collect();
    for tag in &tags {
        if tag != "*" && (tag.contains(['*', '?']) || verifier::pool_tag(tag).is_none()) {
            return Err(format!(
                "/faults: pool tag \"{tag}\": one to four letters; of wildcards only * alone is known"
            ));
        }
    }
    settings.tags = if tags.iter().any(|tag| tag == "*") {
        Vec::new()
    } else {
        tags
    };
    if !matches!(given(2), "" | "*") {
        return Err(format!(
            "/faults: application \"{}\": ntsim has no applications; write \"\"",
            given(2)
        ));
    }
    settings.boot_minutes = match given(3) {
        "" => standard.boot_minutes,
        text => {
            number(text).ok_or_else(|| format!("/faults \"{text}\": not a number of minutes"))?
        }
    };
    Ok(())
}

/// The settings, laid out as verifier.exe does.
fn show(settings: Option<&Settings>) {
    let Some(settings) = settings else {
        println!(
            "No settings: every rule is checked, for every driver, of which ntsim has {}.",
            rules::all().count()
        );
        return;
    };
    println!("Verifier Flags: {:#010x}", settings.flags());
    for (title, standard) in [("Standard Flags:", true), ("Additional Flags:", false)] {
        println!("\n  {title}\n");
        for class in verifier::CLASSES {
            if class.standard == standard && class.simulated {
                let mark = if settings.classes.contains(&class.number) {
                    'X'
                } else {
                    ' '
                };
                let flag = match class.number {
                    number @ 1..=32 => format!("{:#010x}", 1_u64 << (number - 1)),
                    _ => " ".repeat(10),
                };
                println!("    [{mark}] {flag} ({:2}) {}", class.number, class.name);
            }
        }
    }
    println!("\n    [X] enabled; in parentheses the rule class");
    if settings.classes.contains(&verifier::LOW_RESOURCES) {
        let tags = if settings.tags.is_empty() {
            "all".to_owned()
        } else {
            settings.tags.join(" ")
        };
        println!("\n  Low Resources Simulation:\n");
        println!("    Probability: {} of 10000", settings.probability);
        println!("    Pool Tags: {tags}");
        println!(
            "    Begins: {} virtual minutes after booting",
            settings.boot_minutes
        );
    }
    println!("\n  Verified Drivers:\n");
    match &settings.drivers {
        Drivers::All => println!("    All"),
        Drivers::Named(names) => names.iter().for_each(|name| println!("    {name}")),
    }
}
