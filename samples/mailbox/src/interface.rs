// SPDX-License-Identifier: MIT OR Apache-2.0

//! What programs need to know to talk to the driver.

use dmf::ioctl::{Access, DeviceType, IoctlCode};
use dmf::wdf::Guid;

/// The class of the device interface.
pub const MAILBOX: Guid = Guid::parse("2e34d650-5819-42ca-84d8-b0f2b1dd14a5");

/// The longest message, in bytes.
pub const MESSAGE_SIZE: usize = 64;

/// How many messages the box holds.
pub const CAPACITY: usize = 8;

dmf::ioctl_struct! {
    /// The answer to [`GET_STATISTICS`].
    pub struct Statistics {
        /// Messages posted since the device had power last.
        pub posted: u32,
        /// Messages delivered since then.
        pub delivered: u32,
        /// Messages in the box.
        pub held: u32,
        /// Messages that the box takes.
        pub limit: u32,
    }
}

/// What the driver has counted.
pub const GET_STATISTICS: IoctlCode<(), Statistics> =
    IoctlCode::new(DeviceType::UNKNOWN, 0x800, Access::Any);

/// Throws the messages away, and says how many there were.
pub const CLEAR: IoctlCode<(), u32> = IoctlCode::new(DeviceType::UNKNOWN, 0x801, Access::Write);

/// Sets how many messages the box takes, 1 to [`CAPACITY`].
pub const SET_LIMIT: IoctlCode<u32, ()> = IoctlCode::new(DeviceType::UNKNOWN, 0x802, Access::Write);

/// Is completed when the box is empty.
pub const FLUSH: IoctlCode<(), ()> = IoctlCode::new(DeviceType::UNKNOWN, 0x803, Access::Any);
