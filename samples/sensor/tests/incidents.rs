// SPDX-License-Identifier: MIT OR Apache-2.0

//! What can go wrong in a sensor's life and is not in its story.

#[path = "../examples/story/plan.rs"]
#[allow(dead_code, reason = "each test needs another part of it")]
mod plan;

use std::time::Duration;

use ntsim::Machine;
use ntsim::registry::{Value, Volatility};
use ntsim::store::MachineDir;
use ntsim::story::{self, Step};
use ntsim::trace::Event;
use plan::FrontEnd;

/// Where the driver remembers that the sensor has been provisioned.
const STATE: &str =
    r"\Registry\Machine\SYSTEM\CurrentControlSet\Services\DmfSensor\PersistentState";
const PROVISIONED: &str = "Provisioned";

fn run(milliseconds: u64) -> Step {
    Step::Run(Duration::from_millis(milliseconds))
}

/// Plays under several schedules what `machine` and `steps` say.
fn play(arrange: impl Fn(&mut Machine), steps: &[Step], check: impl Fn(&Machine, &[String])) {
    for seed in 0..20 {
        let mut machine = plan::prepare(&FrontEnd::Host, MachineDir::in_memory(), seed).unwrap();
        arrange(&mut machine);
        story::play(&mut machine, steps, &mut |_| {})
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let said: Vec<String> = machine
            .trace()
            .iter()
            .filter_map(|line| match &line.what {
                Event::Print(text) => Some(text.clone()),
                _ => None,
            })
            .collect();
        check(&machine, &said);
    }
}

fn count(said: &[String], part: &str) -> usize {
    said.iter().filter(|text| text.contains(part)).count()
}

fn provisioned(machine: &Machine) -> Option<Value> {
    let key = machine.registry().open(STATE).ok()?;
    machine.registry().value(key, PROVISIONED).ok().cloned()
}

#[test]
fn a_loss_of_power_cuts_the_burning_short_and_it_is_done_with_power_again() {
    let steps = [
        Step::Start,
        run(50),
        Step::PowerDown,
        run(5_000),
        Step::PowerUp,
        run(5_000),
        Step::Remove,
    ];
    play(
        |_| {},
        &steps,
        |machine, said| {
            let place = |line| said.iter().position(|text| text == line);
            let cut_short = place("sensor: burning in was cut short").unwrap();
            let awake = place("sensor: awake, from D3").unwrap();
            let burnt = place("sensor: provisioned").unwrap();
            assert!(cut_short < awake && awake < burnt, "{said:#?}");
            assert_eq!(count(said, "sensor: provisioned"), 1);
            assert_eq!(provisioned(machine), Some(Value::dword(1)));
        },
    );
}

#[test]
fn a_removal_while_burning_leaves_the_sensor_not_provisioned() {
    let steps = [Step::Start, run(50), Step::SurpriseRemove, run(1_000)];
    play(
        |_| {},
        &steps,
        |machine, said| {
            assert_eq!(count(said, "sensor: provisioned"), 0, "{said:#?}");
            assert_eq!(provisioned(machine), None);
        },
    );
}

#[test]
fn a_state_that_cannot_be_read_is_told_of_and_burns_nothing_in() {
    let arrange = |machine: &mut Machine| {
        let registry = machine.registry_mut();
        let key = registry.create(STATE, Volatility::Persistent).unwrap();
        registry
            .set_value(key, PROVISIONED, Value::sz("yes"))
            .unwrap();
    };
    let steps = [Step::Start, run(5_000), Step::Remove];
    play(arrange, &steps, |_, said| {
        let told = "read of Provisioned: STATUS_OBJECT_TYPE_MISMATCH";
        assert_eq!(count(said, told), 1, "{said:#?}");
        assert_eq!(count(said, "sensor: provisioned"), 0, "{said:#?}");
    });
}

#[test]
fn a_sensor_that_is_pulled_out_while_it_warms_up_is_asked_no_more() {
    let steps = [Step::Start, run(1_500), Step::SurpriseRemove, run(10_000)];
    play(
        |_| {},
        &steps,
        |_, said| assert_eq!(count(said, "handshake attempt"), 2, "{said:#?}"),
    );
}

#[test]
fn a_sensor_that_overheats_is_provisioned_again_and_the_registry_says_so() {
    // The alarm comes after 17 s; the burning takes 100 ms.
    for (time, provisionings, value) in [(17_050, 1, 0), (17_200, 2, 1)] {
        let steps = [Step::Start, run(time)];
        play(
            |_| {},
            &steps,
            |machine, said| {
                assert_eq!(count(said, "sensor: provisioned"), provisionings);
                assert_eq!(provisioned(machine), Some(Value::dword(value)));
            },
        );
    }
}
