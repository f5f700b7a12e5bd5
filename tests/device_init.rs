// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a driver says of its device before there is one, the device's names, and
//! what the system knows of it.

#[path = "support/probe.rs"]
mod probe;

use std::cell::Cell;
use std::time::Duration;

use dmf::prelude::*;
use dmf::registry::{Access, Key};
use dmf::string::UnicodeString;
use dmf::unicode_string;
use dmf::wdf::{
    Afterwards, Characteristics, DeviceInit, DeviceInterface, DeviceType, Failure, Guid,
    InterfaceState, PowerOwnership, PowerPaging, PowerPolicy, Property, Sddl,
};
use ntsim::machine::Error;
use probe::Probe;

const CLASS: Guid = Guid::parse("7d2b19e4-8a07-4b30-9c0c-2f1f9c8e3b11");
const OTHER: Guid = Guid::parse("7d2b19e4-8a07-4b30-9c0c-2f1f9c8e3b12");

type Describe = for<'i> fn(DeviceInit<'i>) -> Result<DeviceInit<'i>>;
#[expect(clippy::unnecessary_wraps, reason = "as a device's description is")]
fn plain(init: DeviceInit<'_>) -> Result<DeviceInit<'_>> {
    Ok(init)
}

type Add = fn(&mut Modules<'_, Meter>) -> Result;

thread_local! {
    static DESCRIBE: Cell<Describe> = const { Cell::new(plain) };
    static ADD: Cell<Add> = const { Cell::new(|_| Ok(())) };
    static HIDDEN: Cell<bool> = const { Cell::new(false) };
}

dmf::driver!(Meter);

struct Meter {
    interface: DeviceInterface,
    failure: Failure,
}

impl Device for Meter {
    fn describe(init: DeviceInit<'_>) -> Result<DeviceInit<'_>> {
        DESCRIBE.get()(init)
    }

    fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
        let interface = add.device_interface(CLASS)?;
        let failure = add.failure();
        assert_eq!(
            failure.report(Afterwards::Stay),
            Err(NtStatus::INVALID_DEVICE_STATE),
            "its owner is not made yet"
        );
        ADD.get()(add)?;
        Ok(Meter { interface, failure })
    }

    fn prepare_hardware(&self, cx: &mut PrepareHardware<'_>) -> Result {
        if HIDDEN.get() {
            self.interface
                .set_state(cx.irql(), InterfaceState::Disabled)?;
        }
        let path = self.interface.path(cx.irql())?;
        let path = std::format!("{}", path.text(cx.irql()));
        assert!(
            path.contains("7d2b19e4-8a07-4b30-9c0c-2f1f9c8e3b11"),
            "{path}"
        );
        Ok(())
    }

    fn d0_exit(&self, _cx: &mut D0Exit<'_>) {
        // While it goes, too, a report is taken.
        let _ = self.failure.report(Afterwards::Stay);
    }
}

fn start(describe: Describe, add: Add) -> Result<Probe, Error> {
    DESCRIBE.set(describe);
    ADD.set(add);
    let mut probe = Probe::new(Meter::DRIVER_ENTRY, 1);
    probe.start().map(|()| probe)
}

#[track_caller]
fn refused(describe: Describe, add: Add, expected: NtStatus) {
    match start(describe, add) {
        Err(Error::Driver { status, .. }) if status == expected.to_raw().cast_unsigned() => {}
        Err(other) => panic!("expected {expected}, found {other}"),
        Ok(_) => panic!("expected {expected}"),
    }
}

#[test]
fn everything_can_be_said_of_a_device() {
    let mut probe = start(
        |init| {
            init.device_type(DeviceType::UNKNOWN)
                .exclusive()
                .characteristics(Characteristics::READ_ONLY.and(Characteristics::SECURE_OPEN))
                .power(PowerPaging::NotPageable)
                .power_policy(PowerOwnership::Owner)
                .class(OTHER)
                .name(unicode_string!(r"\Device\Meter"))?
                .security(Sddl::SYSTEM_AND_ADMINISTRATORS)
        },
        |add| add.symbolic_link(unicode_string!(r"\DosDevices\Meter")),
    )
    .unwrap();
    for name in [r"\\.\Meter", r"\Device\Meter"] {
        let file = probe.machine.open(name).unwrap();
        assert!(probe.machine.open(r"\\.\Meter").is_err(), "exclusive");
        probe.machine.close(file).unwrap();
    }
    probe.remove();
}

#[test]
fn names_that_cannot_be_are_error_values() {
    refused(
        |init| init.name(unicode_string!("Meter")),
        |_| Ok(()),
        NtStatus::INVALID_PARAMETER,
    );
    refused(
        |init| init.name(unicode_string!(r"\Nowhere\Meter")),
        |_| Ok(()),
        NtStatus::OBJECT_PATH_NOT_FOUND,
    );
    refused(
        plain,
        |add| add.symbolic_link(unicode_string!("")),
        NtStatus::INVALID_DEVICE_REQUEST,
    );
    refused(
        plain,
        |add| add.symbolic_link(unicode_string!("Meter")),
        NtStatus::OBJECT_PATH_SYNTAX_BAD,
    );
    refused(
        plain,
        |_| {
            let name = vec![u16::from(b'm'); 40_000];
            UnicodeString::from_units(&name).map(drop)
        },
        NtStatus::OBJECT_NAME_INVALID,
    );
}

#[test]
fn security_needs_a_name_and_has_to_be_understood() {
    refused(
        |init| init.security(Sddl::SYSTEM),
        |_| Ok(()),
        NtStatus::INVALID_SECURITY_DESCR,
    );
    refused(
        |init| {
            init.name(unicode_string!(r"\Device\Meter"))?
                .security(Sddl::new(unicode_string!("D:P(A;;QQ;;;SY)"))?)
        },
        |_| Ok(()),
        NtStatus::INVALID_PARAMETER,
    );
    refused(
        |init| init.security(Sddl::new(unicode_string!("all"))?),
        |_| Ok(()),
        NtStatus::INVALID_PARAMETER,
    );
}

#[test]
fn a_driver_without_the_power_policy_cannot_say_when_the_device_idles() {
    thread_local! {
        static POLICY: std::cell::RefCell<Option<PowerPolicy>> =
            const { std::cell::RefCell::new(None) };
    }
    let mut probe = start(
        |init| Ok(init.power_policy(PowerOwnership::NotOwner)),
        |add| {
            POLICY.set(Some(PowerPolicy::new(add)));
            Ok(())
        },
    )
    .unwrap();
    probe.thread(|irql| {
        let policy = POLICY.take().unwrap();
        let settings = dmf::wdf::IdleSettings::cannot_wake();
        assert_eq!(
            policy.assign_idle(irql, &settings),
            Err(NtStatus::INVALID_DEVICE_REQUEST)
        );
    });
    probe.remove();
}

#[test]
fn a_hidden_interface_is_not_found() {
    for hidden in [false, true] {
        HIDDEN.set(hidden);
        let mut probe = start(plain, |_| Ok(())).unwrap();
        let opened = probe.machine.open("{7d2b19e4-8a07-4b30-9c0c-2f1f9c8e3b11}");
        assert_eq!(opened.is_err(), hidden);
        if let Ok(file) = opened {
            probe.machine.close(file).unwrap();
        }
        probe.remove();
    }
}

#[test]
fn properties_are_typed_and_missing_ones_are_told() {
    let mut probe = start(plain, |add| {
        assert!(add.property(Property::CLASS)?.as_str().eq_str("Sample"));
        assert!(
            add.property(Property::DESCRIPTION)?
                .as_str()
                .eq_str("Probe, part of the host program")
        );
        let ids = add.property(Property::HARDWARE_IDS)?;
        let ids: Vec<_> = ids.iter().map(|id| std::format!("{id}")).collect();
        assert_eq!(ids, [r"Root\Probe"]);
        let number = add.property(Property::BUS_NUMBER);
        assert_eq!(number.err(), Some(NtStatus::OBJECT_NAME_NOT_FOUND));
        Ok(())
    })
    .unwrap();
    probe.remove();
}

#[test]
fn a_device_has_two_keys() {
    let mut probe = start(plain, |add| {
        let name = unicode_string!("Kind");
        Key::device(add, Access::Write)?.assign_u32(name, 1)?;
        Key::driver(add, Access::Write)?.assign_u32(name, 2)?;
        assert_eq!(Key::device(add, Access::Read)?.query_u32(name), Ok(1));
        assert_eq!(Key::driver(add, Access::Read)?.query_u32(name), Ok(2));
        assert!(
            Key::driver(add, Access::Read)?.assign_u32(name, 3).is_err(),
            "it was opened for reading"
        );
        Ok(())
    })
    .unwrap();
    probe.remove();
}

#[test]
fn a_device_that_reports_its_failure_is_taken_away() {
    let mut probe = start(plain, |_| Ok(())).unwrap();
    // Powering down reports the failure.
    probe.power_down();
    probe.run_for(Duration::from_secs(1));
    assert!(probe.machine.started_devices().is_empty());
    assert!(probe.machine.loaded_drivers().is_empty());
}

#[test]
fn memory_may_be_short_wherever_a_device_is_described() {
    let describe: Describe = |init| {
        init.name(unicode_string!(r"\Device\Meter"))?
            .security(Sddl::SYSTEM_AND_ADMINISTRATORS)
    };
    let add: Add = |add| {
        add.symbolic_link(unicode_string!(r"\DosDevices\Meter"))?;
        add.property(Property::HARDWARE_IDS).map(drop)
    };
    for point in 1.. {
        DESCRIBE.set(describe);
        ADD.set(add);
        let mut probe = Probe::new(Meter::DRIVER_ENTRY, 1);
        probe.machine.fail_nth(Some(point));
        let result = probe.start();
        let failed = probe.machine.fallible_calls().failed;
        probe.machine.fail_nth(None);
        match (failed, result) {
            (None, result) => {
                result.unwrap();
                assert!(point > 6);
                return;
            }
            (Some(_), Err(_)) => probe
                .start()
                .unwrap_or_else(|error| panic!("point {point}: {error}")),
            (Some(what), Ok(())) => panic!("point {point}: {what} was not told"),
        }
        probe.remove();
    }
}
