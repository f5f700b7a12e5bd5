// SPDX-License-Identifier: MIT OR Apache-2.0

//! Money goes from one account to another, with the lock of the one held and then
//! that of the other. Two transfers in opposite directions wait for each other.
//!
//! ntsim: deadlock, with both programs and the locks that they wait for; or the order
//! is reported before that.

use dmf::ioctl::{Access, DeviceType, IoctlCode};
use dmf::prelude::*;
use dmf::wdf::{DefaultQueue, Ioctl, Offer, QueueCallback, Request, WaitLock};

dmf::driver!(Bank<false>);
dmf::driver!(Bank<true>);

const FORTH: IoctlCode<u32, ()> = IoctlCode::new(DeviceType::UNKNOWN, 0x800, Access::Any);
const BACK: IoctlCode<u32, ()> = IoctlCode::new(DeviceType::UNKNOWN, 0x801, Access::Any);

pub struct Bank<const FIXED: bool> {
    accounts: [WaitLock<i64>; 2],
}

impl<const FIXED: bool> Device for Bank<FIXED> {
    fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
        add.default_queue(DefaultQueue::parallel())?;
        Ok(Self {
            accounts: [WaitLock::new(0)?, WaitLock::new(0)?],
        })
    }

    fn device_control(&self, cx: &mut QueueCallback<'_>, request: Request<Ioctl>) -> Offer<Ioctl> {
        let irql = cx.irql();
        request
            .on(FORTH, |amount| {
                self.transfer(irql, 0, 1, amount);
                Ok(())
            })
            .on(BACK, |amount| {
                self.transfer(irql, 1, 0, amount);
                Ok(())
            })
    }
}

impl<const FIXED: bool> Bank<FIXED> {
    fn transfer(&self, irql: &Irql<'_, Passive>, from: usize, to: usize, amount: u32) {
        // The twin takes the locks in their order, whatever the direction.
        let (first, second) = if FIXED { (0, 1) } else { (from, to) };
        self.accounts[first].lock(irql, |one| {
            self.accounts[second].lock(irql, |other| {
                let amount = i64::from(amount);
                if first == from {
                    *one -= amount;
                    *other += amount;
                } else {
                    *one += amount;
                    *other -= amount;
                }
            });
        });
    }
}
