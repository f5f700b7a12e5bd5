// SPDX-License-Identifier: MIT OR Apache-2.0

//! What happens to the sensor, and what must come of it. The tests play the
//! same.

use std::time::Duration;

use ntsim::machine::Error;
use ntsim::store::MachineDir;
use ntsim::story::Step;
use ntsim::trace::{Event, Line};
use ntsim::{Machine, SECOND, Settings};

#[path = "../../../../tests/support/front_end.rs"]
mod front_end;

#[allow(unused_imports, reason = "the tests use more of it than the story")]
pub use front_end::{FrontEnd, Package, driver_visible};

/// The driver package.
pub const PACKAGE: Package = Package {
    name: "sensor",
    inx: include_str!("../../sensor.inx"),
    service: "DmfSensor",
    entry: sensor::Sensor::DRIVER_ENTRY,
};

/// The sensor's hardware id.
const HARDWARE_ID: &str = r"Root\DmfSensor";

/// A machine with the package installed and the sensor plugged in.
pub fn prepare(front_end: &FrontEnd, dir: MachineDir, seed: u64) -> Result<Machine, Error> {
    prepare_with(front_end, dir, front_end.settings(seed))
}

/// The same with other settings.
pub fn prepare_with(
    front_end: &FrontEnd,
    dir: MachineDir,
    settings: Settings,
) -> Result<Machine, Error> {
    let mut machine = Machine::boot(dir, settings);
    PACKAGE.install(&mut machine, front_end)?;
    machine.plug_in(HARDWARE_ID)?;
    Ok(machine)
}

/// Start, polls, an alarm, a sleep cut short by a power-down, power-up, surprise
/// removal, reboot, removal.
pub fn steps() -> Vec<Step> {
    let run = |milliseconds| Step::Run(Duration::from_millis(milliseconds));
    vec![
        Step::Start,
        run(34_200),
        Step::PowerDown,
        run(20_000),
        Step::PowerUp,
        run(26_000),
        Step::SurpriseRemove,
        run(5_000),
        Step::Reboot,
        Step::Start,
        run(33_000),
        Step::Remove,
    ]
}

/// What timers may be late, in the machine's time.
const TICKS: u64 = 400_000;

/// What is wrong with the story that a trace tells, a sentence each.
pub fn check(trace: &[Line]) -> Vec<String> {
    let said: Vec<(u64, &str)> = trace
        .iter()
        .filter_map(|line| match &line.what {
            Event::Print(text) => Some((line.time, text.as_str())),
            _ => None,
        })
        .collect();
    let mut wrong = Vec::new();
    let mut expect = |what: &str, found: usize, wanted: usize| {
        if found != wanted {
            wrong.push(format!("{what}: {found} time(s) instead of {wanted}"));
        }
    };
    let times = |part: &'static str| {
        said.iter()
            .filter(move |(_, text)| text.contains(part))
            .map(|(time, _)| *time)
    };
    let count = |part| times(part).count();
    expect(
        "the hardware was prepared at both boots",
        count("hardware ready"),
        2,
    );
    expect(
        "the sensor was provisioned once, and again each time it got hot",
        count("sensor: provisioned"),
        1 + 3,
    );
    expect(
        "the second boot found it provisioned",
        times("sensor: provisioned")
            .filter(|time| (95 * SECOND..112 * SECOND).contains(time))
            .count(),
        0,
    );
    expect(
        "the handshake was tried again, at both boots",
        count("no answer yet"),
        4,
    );
    expect(
        "the handshake was answered, at both boots",
        count("attempt 3: answered"),
        2,
    );
    expect(
        "the sensor woke from its first start, its sleep and the reboot",
        count("awake, from"),
        3,
    );
    expect(
        "each loss of power and each alarm cut a sleep short",
        count("sleep cut short after"),
        3 + 3,
    );
    expect(
        "the first loss of power did so after 7.2 s",
        count("cut short after 7.2 s"),
        1,
    );
    expect("each alarm was polled out of turn", count("= 85.1 C"), 3);
    expect(
        "each alarm was logged, with its own temperature",
        count("log: overheated, 85.1 C"),
        3,
    );
    expect("each loss of power was logged", count("log: power down"), 3);
    expect(
        "the log was alive every 15 s with power",
        count("log: alive"),
        2 + 2 + 2,
    );
    expect("the surprise removal was noticed", count("sensor: gone"), 1);
    expect(
        "the sensor was polled every ten seconds",
        count("poll #"),
        4 + 3 + 4,
    );
    expect(
        "the driver was unloaded twice with nothing left behind",
        unloads(trace),
        2,
    );
    let attempts: Vec<u64> = times("handshake attempt").collect();
    let spaced = attempts.chunks(3).all(|boot| {
        boot.windows(2)
            .zip([SECOND, 2 * SECOND])
            .all(|(pair, period)| (period..period + TICKS).contains(&(pair[1] - pair[0])))
    });
    expect(
        "one second, then two, to the clock's tick, lay between handshakes",
        usize::from(spaced),
        1,
    );
    wrong
}

fn unloads(trace: &[Line]) -> usize {
    trace
        .iter()
        .filter(|line| matches!(&line.what, Event::Machine(text) if text.contains("nothing is left behind")))
        .count()
}
