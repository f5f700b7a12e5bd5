// SPDX-License-Identifier: MIT OR Apache-2.0

//! The rules' tests: three of each, made from a [`Case`].
//!
//! - `<class>::<rule>::is_broken`: a driver breaks the rule, and the stop names
//!   it, with the bug check of the table.
//! - `…::comes_close`: a driver that does what is only just allowed goes on.
//! - `…::is_missed_when_off`: the first driver again without the check: nobody else
//!   says the same, so the first test fails when the check is broken.

use libtest_mimic::{Arguments, Failed, Trial};
use ntsim::machine::Error;
use ntsim::rules::{self, Report, Rule};
use ntsim::{Settings, Stop, StopKind};

#[macro_use]
#[path = "support/io_driver.rs"]
mod io_driver;
#[path = "rules/deadlock.rs"]
mod deadlock;
#[path = "rules/deferred.rs"]
mod deferred;
#[path = "rules/lock.rs"]
mod lock;
#[path = "rules/locks.rs"]
mod locks;

#[path = "rules/io.rs"]
mod io;
#[path = "rules/irql.rs"]
mod irql;
#[path = "rules/kmdf.rs"]
mod kmdf;
#[path = "rules/memory.rs"]
mod memory;
#[path = "rules/object.rs"]
mod object;
#[path = "rules/pnp_power.rs"]
mod pnp_power;
#[path = "rules/pool.rs"]
mod pool;
#[path = "nt/threads.rs"]
#[allow(
    clashing_extern_declarations,
    reason = "one kernel function, given what each test has"
)]
mod threads;
#[path = "rules/unload.rs"]
mod unload;
#[path = "rules/wait.rs"]
mod wait;

/// The tests of one rule.
pub struct Case {
    /// Which.
    pub rule: &'static Rule,
    /// Plays a driver that breaks it on a machine with these settings.
    pub breaks: fn(Settings) -> Result<(), Error>,
    /// Plays one that comes close.
    pub comes_close: fn(Settings) -> Result<(), Error>,
}

/// The settings with this rule off too: as without DDI compliance checking, which says
/// the same of some functions first.
#[must_use]
pub fn without(mut settings: Settings, rule: &'static Rule) -> Settings {
    settings.without_rules.push(rule);
    settings
}

/// All cases.
const CASES: &[&[Case]] = &[
    pool::CASES,
    irql::CASES,
    wait::CASES,
    lock::CASES,
    deadlock::CASES,
    deferred::CASES,
    unload::CASES,
    memory::CASES,
    object::CASES,
    kmdf::CASES,
    pnp_power::CASES,
    io::CASES,
];

/// Each is played under as many schedules.
const SEEDS: u64 = 3;

fn main() {
    let arguments = Arguments::from_args();
    let mut tests: Vec<_> = CASES
        .iter()
        .flat_map(|cases| cases.iter())
        .flat_map(|case| {
            let name = |what| format!("{:?}::{}::{what}", case.rule.class, case.rule.name);
            [
                Trial::test(name("is_broken"), || is_broken(case)),
                Trial::test(name("comes_close"), || comes_close(case)),
                Trial::test(name("is_missed_when_off"), || is_missed_when_off(case)),
            ]
        })
        .collect();
    tests.push(Trial::test("every_rule_has_a_case", every_rule_has_a_case));
    tests.push(Trial::test(
        "the_page_has_every_rule",
        the_page_has_every_rule,
    ));
    let more: [(&str, fn()); 2] = [
        (
            "an_event_on_the_stack_of_a_thread_that_ended_is_gone",
            wait::an_event_on_the_stack_of_a_thread_that_ended_is_gone,
        ),
        (
            "each_way_of_a_malformed_string_is_noticed",
            object::each_way_of_a_malformed_string_is_noticed,
        ),
    ];
    for (name, body) in more {
        tests.push(Trial::test(name, move || {
            body();
            Ok(())
        }));
    }
    libtest_mimic::run(&arguments, tests).exit();
}

fn settings(seed: u64) -> Settings {
    Settings {
        seed,
        ..Settings::default()
    }
}

/// Plays a scenario, with nothing left of what the one before said on this thread.
fn play(scenario: fn(Settings) -> Result<(), Error>, settings: Settings) -> Result<(), Error> {
    io_driver::raw::clear();
    scenario(settings)
}

fn stop_of(result: Result<(), Error>) -> Result<Option<Box<Stop>>, Failed> {
    match result {
        Ok(()) => Ok(None),
        Err(Error::Stop(stop)) => Ok(Some(stop)),
        Err(other) => Err(format!("the scenario itself failed: {other}").into()),
    }
}

fn is_broken(case: &Case) -> Result<(), Failed> {
    for seed in 0..SEEDS {
        let stop = stop_of(play(case.breaks, settings(seed)))?
            .ok_or_else(|| format!("seed {seed}: nothing was noticed"))?;
        if stop.rule != Some(case.rule.name) {
            return Err(format!("seed {seed}: it was something else: {stop}").into());
        }
        let kind = match (case.rule.report, stop.kind) {
            (Report::BugCheck(code), StopKind::BugCheck { code: seen, .. }) => code == seen,
            (
                Report::BugCheckWith(code, first),
                StopKind::BugCheck {
                    code: seen,
                    parameters,
                },
            ) => code == seen && first == parameters[0],
            (Report::Leak, StopKind::Leak)
            | (Report::Misuse, StopKind::Misuse)
            | (Report::Deadlock, StopKind::Deadlock)
            | (Report::LostWakeUp, StopKind::LostWakeUp)
            | (Report::Livelock, StopKind::Livelock) => true,
            _ => false,
        };
        if !kind || stop.message.is_empty() {
            return Err(format!("seed {seed}: not as the table has it: {stop}").into());
        }
    }
    Ok(())
}

fn comes_close(case: &Case) -> Result<(), Failed> {
    for seed in 0..SEEDS {
        if let Some(stop) = stop_of(play(case.comes_close, settings(seed)))? {
            return Err(format!("seed {seed}: {stop}").into());
        }
    }
    Ok(())
}

fn is_missed_when_off(case: &Case) -> Result<(), Failed> {
    for seed in 0..SEEDS {
        let settings = Settings {
            without_rules: vec![case.rule],
            ..settings(seed)
        };
        if let Some(stop) = stop_of(play(case.breaks, settings))?
            && stop.rule == Some(case.rule.name)
        {
            return Err(format!("seed {seed}: it is off and checked: {stop}").into());
        }
    }
    Ok(())
}

fn every_rule_has_a_case() -> Result<(), Failed> {
    let without: Vec<_> = rules::all()
        .filter(|rule| {
            let cases = CASES.iter().flat_map(|cases| cases.iter());
            cases.filter(|case| case.rule.name == rule.name).count() != 1
        })
        .map(|rule| rule.name)
        .collect();
    if without.is_empty() {
        Ok(())
    } else {
        Err(format!("not exactly one case: {}", without.join(", ")).into())
    }
}

/// `cargo xtask codegen --check` compares the whole of it.
fn the_page_has_every_rule() -> Result<(), Failed> {
    let page = include_str!("../../docs/rules.md");
    let missing: Vec<_> = rules::all()
        .map(|rule| rule.name)
        .filter(|name| !page.contains(&format!("| [{name}](")))
        .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(format!(
            "run `cargo run -p ntsim -- rules --markdown > docs/rules.md`: it has no {}",
            missing.join(", ")
        )
        .into())
    }
}
