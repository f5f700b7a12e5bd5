// SPDX-License-Identifier: MIT OR Apache-2.0

//! A function takes the wait lock of the table and calls another one that takes it
//! too, on the rare path on which the table is full.
//!
//! ntsim: 0x10D/2; the lock is acquired by who holds it.

use dmf::ioctl::{Access, DeviceType, IoctlCode};
use dmf::prelude::*;
use dmf::wdf::{DefaultQueue, Ioctl, Offer, QueueCallback, Request, WaitLock};

dmf::driver!(Table<false>);
dmf::driver!(Table<true>);

const ADD: IoctlCode<u32, ()> = IoctlCode::new(DeviceType::UNKNOWN, 0x800, Access::Any);

pub struct Table<const FIXED: bool> {
    entries: WaitLock<Entries>,
}

#[derive(Default)]
struct Entries {
    used: [u32; 3],
    count: usize,
}

impl<const FIXED: bool> Device for Table<FIXED> {
    fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
        add.default_queue(DefaultQueue::parallel())?;
        Ok(Self {
            entries: WaitLock::new(Entries::default())?,
        })
    }

    fn device_control(&self, cx: &mut QueueCallback<'_>, request: Request<Ioctl>) -> Offer<Ioctl> {
        request.on(ADD, |entry| {
            self.add(cx.irql(), entry);
            Ok(())
        })
    }
}

impl<const FIXED: bool> Table<FIXED> {
    fn add(&self, irql: &Irql<'_, Passive>, entry: u32) {
        self.entries.lock(irql, |entries| {
            if entries.count == entries.used.len() {
                if FIXED {
                    entries.count = 0;
                } else {
                    self.clear(irql);
                }
            }
            let at = entries.count.min(entries.used.len() - 1);
            entries.used[at] = entry;
            entries.count = at + 1;
        });
    }

    #[inline(never)]
    fn clear(&self, irql: &Irql<'_, Passive>) {
        self.entries.lock(irql, |entries| entries.count = 0);
    }
}
