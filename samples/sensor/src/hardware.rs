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
    hot: bool,
    /// Handshakes since the sensor had power last.
    handshakes: u32,
    polls: u32,
}

/// A temperature, in tenths of a degree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Temperature(u32);

/// What a poll says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    poll: u32,
    temperature: Temperature,
    /// Whether the temperature can be believed.
    pub is_calibrated: bool,
}

impl Hardware {
    pub const fn new() -> Self {
        Self {
            present: true,
            // What was burnt in once is there after a reboot.
            calibrated: true,
            hot: false,
            handshakes: 0,
            polls: 0,
        }
    }

    /// The sensor cools down without power.
    pub fn power_down(&mut self) {
        self.handshakes = 0;
        self.hot = false;
    }

    /// The calibration has been burnt in.
    pub fn calibrate(&mut self) {
        self.calibrated = true;
    }

    /// The sensor gets hot, and forgets its calibration.
    pub fn overheat(&mut self) -> Temperature {
        self.hot = true;
        self.calibrated = false;
        self.temperature()
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
        let reading = Reading {
            poll: self.polls,
            temperature: self.temperature(),
            is_calibrated: self.calibrated,
        };
        self.hot = false;
        Some(reading)
    }

    /// A warm day: up and down by a few tenths.
    fn temperature(&self) -> Temperature {
        Temperature(if self.hot {
            851
        } else {
            215 + self.polls * 7 % 11
        })
    }
}

impl fmt::Display for Temperature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{} C", self.0 / 10, self.0 % 10)
    }
}

impl fmt::Display for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "poll #{} = {}", self.poll, self.temperature)
    }
}
