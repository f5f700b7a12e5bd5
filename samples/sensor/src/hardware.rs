// SPDX-License-Identifier: MIT OR Apache-2.0

//! The sensor's registers, imagined.

use core::fmt;

/// How many handshakes go unanswered after each power-up.
const WARM_UP: u32 = 2;

/// The sensor as the driver sees it.
#[derive(Debug)]
pub struct Hardware {
    present: bool,
    calibrated: bool,
    /// Handshakes since the sensor had power last.
    handshakes: u32,
    polls: u32,
}

/// What a poll says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    poll: u32,
    /// Tenths of a degree.
    temperature: u32,
}

impl Hardware {
    pub const fn new() -> Self {
        Self {
            present: true,
            calibrated: false,
            handshakes: 0,
            polls: 0,
        }
    }

    /// The sensor cools down without power.
    pub fn power_down(&mut self) {
        self.handshakes = 0;
    }

    /// Writes the calibration.
    pub fn calibrate(&mut self) {
        self.calibrated = true;
    }

    /// The sensor was pulled out.
    pub fn vanish(&mut self) {
        self.present = false;
    }

    /// Whether the sensor answers a handshake.
    pub fn answers(&mut self) -> bool {
        self.handshakes += 1;
        self.present && self.handshakes > WARM_UP
    }

    /// The temperature, unless the sensor is gone.
    pub fn read(&mut self) -> Option<Reading> {
        if !self.present {
            return None;
        }
        self.polls += 1;
        // A warm day: up and down by a few tenths.
        let temperature = 215 + self.polls * 7 % 11;
        Some(Reading {
            poll: self.polls,
            temperature,
        })
    }
}

impl fmt::Display for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (degrees, tenths) = (self.temperature / 10, self.temperature % 10);
        write!(f, "poll #{} = {degrees}.{tenths} C", self.poll)
    }
}
