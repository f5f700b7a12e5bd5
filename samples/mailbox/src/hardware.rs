// SPDX-License-Identifier: MIT OR Apache-2.0

//! The mailbox's memory, imagined: slots that a battery keeps, and counters
//! that it does not.

use dmf::prelude::*;

use crate::interface::{CAPACITY, MESSAGE_SIZE, Statistics};

/// One message.
#[derive(Clone, Copy, Debug)]
pub struct Message {
    bytes: [u8; MESSAGE_SIZE],
    length: usize,
}

impl Message {
    const EMPTY: Self = Self {
        bytes: [0; MESSAGE_SIZE],
        length: 0,
    };

    /// A message of these bytes, unless they are too many.
    pub fn new(text: &[u8]) -> Option<Self> {
        let mut message = Self::EMPTY;
        message.bytes.get_mut(..text.len())?.copy_from_slice(text);
        message.length = text.len();
        Some(message)
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// The mailbox as the driver sees it: a ring of slots.
#[derive(Debug)]
pub struct Hardware {
    slots: [Message; CAPACITY],
    first: usize,
    held: usize,
    limit: usize,
    powered: bool,
    posted: u32,
    delivered: u32,
}

impl Hardware {
    pub const fn new() -> Self {
        Self {
            slots: [Message::EMPTY; CAPACITY],
            first: 0,
            held: 0,
            limit: CAPACITY,
            powered: false,
            posted: 0,
            delivered: 0,
        }
    }

    pub fn power_up(&mut self) {
        self.powered = true;
    }

    /// The battery keeps the messages; the counters start again.
    pub fn power_down(&mut self) {
        self.powered = false;
        self.posted = 0;
        self.delivered = 0;
    }

    /// Puts a message into the box.
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES` if it is full.
    pub fn post(&mut self, message: Message) -> Result {
        if self.held >= self.limit {
            return Err(NtStatus::INSUFFICIENT_RESOURCES);
        }
        self.slots[(self.first + self.held) % CAPACITY] = message;
        self.held += 1;
        self.posted = self.posted.wrapping_add(1);
        Ok(())
    }

    /// Whether there is a message to deliver, and power to do it.
    pub fn can_deliver(&self) -> bool {
        self.powered && self.held > 0
    }

    /// Takes the oldest message out.
    pub fn take(&mut self) -> Option<Message> {
        self.held = self.held.checked_sub(1)?;
        let message = self.slots[self.first];
        self.first = (self.first + 1) % CAPACITY;
        self.delivered = self.delivered.wrapping_add(1);
        Some(message)
    }

    /// Throws everything away, and says how much it was.
    pub fn clear(&mut self) -> u32 {
        count(core::mem::take(&mut self.held))
    }

    /// Whether the box is empty.
    pub fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Sets how many messages the box takes.
    ///
    /// # Errors
    /// `STATUS_INVALID_PARAMETER` for none, or more than there are slots.
    pub fn set_limit(&mut self, limit: u32) -> Result {
        match usize::try_from(limit) {
            Ok(limit @ 1..=CAPACITY) => {
                self.limit = limit;
                Ok(())
            }
            _ => Err(NtStatus::INVALID_PARAMETER),
        }
    }

    pub fn statistics(&self) -> Statistics {
        Statistics {
            posted: self.posted,
            delivered: self.delivered,
            held: count(self.held),
            limit: count(self.limit),
        }
    }
}

/// A number of slots as programs see it.
fn count(slots: usize) -> u32 {
    u32::try_from(slots).unwrap_or(u32::MAX)
}
