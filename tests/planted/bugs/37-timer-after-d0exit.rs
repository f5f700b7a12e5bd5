// SPDX-License-Identifier: MIT OR Apache-2.0

//! A rumble ends by a timer, which tells the hardware. `D0Exit` stops the timer and
//! does not wait for its callback, which then finds no hardware. The pattern is that of
//! <https://github.com/nefarius/DsHidMini/pull/482>.
//!
//! ntsim: bug check `RPNC`; the hardware that must be there in D0 is not.

use dmf::ioctl::{Access, DeviceType, IoctlCode};
use dmf::prelude::*;
use dmf::wdf::{
    DefaultQueue, Ioctl, Offer, QueueCallback, Request, Timer, TimerConfig, TimerFired,
};

dmf::driver!(Pad<false>);
dmf::driver!(Pad<true>);

const RUMBLE: IoctlCode<u32, ()> = IoctlCode::new(DeviceType::UNKNOWN, 0x800, Access::Any);

pub struct Pad<const FIXED: bool> {
    motors: SpinLock<Option<Motors>>,
    end: Timer,
}

#[derive(Default)]
struct Motors {
    on: bool,
}

impl<const FIXED: bool> Device for Pad<FIXED> {
    fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
        add.default_queue(DefaultQueue::parallel())?;
        Ok(Self {
            motors: SpinLock::new(None),
            end: Timer::with_config(add, TimerConfig::dispatch(), Self::on_end)?,
        })
    }

    fn d0_entry(&self, _: &mut D0Entry<'_>) -> Result {
        self.motors.with(|motors| *motors = Some(Motors::default()));
        Ok(())
    }

    fn d0_exit(&self, cx: &mut D0Exit<'_>) {
        if FIXED {
            let _ = self.end.stop_and_wait(cx.irql());
        } else {
            let _ = self.end.stop();
        }
        self.motors.with(|motors| *motors = None);
    }

    fn device_control(&self, _: &mut QueueCallback<'_>, request: Request<Ioctl>) -> Offer<Ioctl> {
        request.on(RUMBLE, |milliseconds| {
            self.turn(true);
            self.end.start(Duration::from_millis(milliseconds.into()))?;
            Ok(())
        })
    }
}

impl<const FIXED: bool> Pad<FIXED> {
    fn on_end(&self, _: &mut TimerFired<'_, Dispatch>) {
        self.turn(false);
    }

    fn turn(&self, on: bool) {
        self.motors.with(|motors| {
            motors.as_mut().expect("the motors are there in D0").on = on;
        });
    }
}
