// SPDX-License-Identifier: MIT OR Apache-2.0

//! A driver whose only purpose is to go through the whole surface of dmf once.
//!
//! It tells each result with [`dmf::println!`], so that the trace of its life has
//! results beside calls. `tests/` plays that life with the driver linked and as
//! its image, and compares the traces.

#![no_std]
#![forbid(unsafe_code)]

mod foundations;
pub mod interface;
mod tell;
mod waits;

use dmf::prelude::*;
use dmf::wdf::{DefaultQueue, Ioctl, Offer, QueueCallback, Request};

use interface as codes;
use tell::Teller;

dmf::driver!(Surface);

/// A part of the surface.
struct Chapter {
    name: &'static str,
    body: fn(&mut Irql<'_, Passive>, &mut Teller) -> Result,
}

/// The names of what [`codes::CHAPTER`] goes through.
pub const CHAPTERS: [&str; BODIES.len()] = {
    let mut names = [""; BODIES.len()];
    let mut index = 0;
    while index < names.len() {
        names[index] = BODIES[index].name;
        index += 1;
    }
    names
};

const BODIES: &[Chapter] = &[
    chapter("time", foundations::time),
    chapter("strings", foundations::strings),
    chapter("pool", foundations::pool),
    chapter("traces", foundations::traces),
    chapter("waits", waits::waits),
    chapter("locks", waits::locks),
    chapter("threads", waits::threads),
];

const fn chapter(
    name: &'static str,
    body: fn(&mut Irql<'_, Passive>, &mut Teller) -> Result,
) -> Chapter {
    Chapter { name, body }
}

/// The device.
#[derive(Debug)]
pub struct Surface {}

impl Device for Surface {
    fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
        add.default_queue(DefaultQueue::parallel())?;
        add.device_interface(codes::SURFACE)?;
        Ok(Surface {})
    }

    fn device_control(&self, cx: &mut QueueCallback<'_>, request: Request<Ioctl>) -> Offer<Ioctl> {
        request
            .on(codes::CHAPTER, |number| {
                let chapter = usize::try_from(number)
                    .ok()
                    .and_then(|number| BODIES.get(number))
                    .ok_or(NtStatus::INVALID_PARAMETER)?;
                let mut tell = Teller::new(chapter.name);
                (chapter.body)(cx.irql(), &mut tell)?;
                Ok(tell.count())
            })
            .on(codes::ADD, |[a, b]| {
                a.checked_add(b).ok_or(NtStatus::INTEGER_OVERFLOW)
            })
    }
}
