// SPDX-License-Identifier: MIT OR Apache-2.0

//! Whole lives of a driver: loaded, started, powered down and up, removed, unloaded.
//!
//! Each life is on a machine of its own, which is a copy of one on which the
//! package is installed and the device plugged in. No virtual time passes beyond
//! what the driver waits for. The baseline is the same source, linked into this
//! program: what it does not have to do is to map, relocate and bind an image.

use std::path::Path;

use ntsim::machine::Error;
use ntsim::memory::PoolChecks;
use ntsim::store::MachineDir;
use ntsim::{Machine, Settings};

use crate::measure::{Goal, Row, in_turns, per_second, to_float};

const HARDWARE_ID: &str = r"Root\DmfSensor";
const SERVICE: &str = "DmfSensor";

fn settings(seed: u64) -> Settings {
    Settings {
        seed,
        trace: false,
        ..Settings::for_images()
    }
}

fn with_canaries(seed: u64) -> Settings {
    Settings {
        pool: PoolChecks::Canaries { guard_one_in: 64 },
        ..settings(seed)
    }
}

struct Prepared {
    dir: MachineDir,
    device: String,
}

fn prepare(inf: &Path) -> Result<Prepared, Error> {
    let mut machine = Machine::boot(MachineDir::in_memory(), settings(0));
    machine.install(inf)?;
    let device = machine.plug_in(HARDWARE_ID)?;
    Ok(Prepared {
        dir: machine.dir().twin().expect("it is in memory"),
        device,
    })
}

fn live(machine: &mut Machine, device: &str) -> Result<(), Error> {
    machine.start_device(device)?;
    machine.power_down(device)?;
    machine.power_up(device)?;
    machine.remove_device(device)
}

impl Prepared {
    fn machine(&self, settings: Settings) -> Machine {
        let dir = self.dir.twin().expect("it is in memory");
        Machine::boot(dir, settings)
    }

    fn live(&self, settings: Settings, linked: bool) -> Result<Machine, Error> {
        let mut machine = self.machine(settings);
        if linked {
            machine.link_driver(SERVICE, sensor::Sensor::DRIVER_ENTRY);
        }
        live(&mut machine, &self.device)?;
        Ok(machine)
    }
}

/// The rows of this section.
pub fn measure(inf: &Path) -> Result<Vec<Row>, Error> {
    let prepared = prepare(inf)?;
    // Once to see that it works, with its instructions counted.
    let counted = Settings {
        count_instructions: true,
        ..settings(0)
    };
    let inside = prepared.live(counted, false)?.instructions();
    let with_stacks_of_the_host = |seed| Settings {
        stack_size: Settings::default().stack_size,
        ..with_canaries(seed)
    };
    prepared.live(with_stacks_of_the_host(0), true)?;

    let mut one = prepared.machine(with_canaries(0));
    let [linked, guarded, image, again] = in_turns([
        &mut |n| {
            for seed in 0..n {
                let life = prepared.live(with_stacks_of_the_host(seed), true);
                life.expect("it went well before");
            }
        },
        &mut |n| {
            for seed in 0..n {
                let life = prepared.live(settings(seed), false);
                life.expect("it went well before");
            }
        },
        &mut |n| {
            for seed in 0..n {
                let life = prepared.live(with_canaries(seed), false);
                life.expect("it went well before");
            }
        },
        &mut |n| {
            for seed in 0..n {
                one.reschedule(ntsim::Strategy::Random, seed);
                live(&mut one, &prepared.device).expect("it went well before");
            }
        },
    ]);
    let row = |what: &str, time: f64| Row {
        what: what.to_owned(),
        value: per_second(time),
        unit: "lives/s",
        baseline: "the same driver, linked".to_owned(),
        baseline_value: per_second(linked),
        goal: Some(Goal::AtLeast(5_000.0)),
    };
    let mut rows = vec![
        row("sensor.sys, a fresh machine each, guarded pool", guarded),
        row("sensor.sys, a fresh machine each, canaries", image),
        row("sensor.sys, one machine, canaries", again),
    ];
    if let Some(inside) = inside {
        let count = to_float(inside.total());
        rows.push(Row {
            what: "instructions inside of sensor.sys, a life".to_owned(),
            value: count,
            unit: "instructions",
            baseline: "nanoseconds of that life".to_owned(),
            baseline_value: image,
            goal: None,
        });
    }
    Ok(rows)
}
