// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the test needs to know to talk to the driver.

use dmf::ioctl::{Access, DeviceType, DirectIoctlCode, FromCaller, IoctlCode, ToCaller};
use dmf::wdf::Guid;

/// The class of the device interface.
pub const SURFACE: Guid = Guid::parse("b5a7c5a0-9a59-4e0e-8f0e-6a3c1b6b8d11");

/// Goes through the chapter of this number, of [`CHAPTERS`], and answers how many
/// results it told.
pub const CHAPTER: IoctlCode<u32, u32> = typed(0x800);
/// Adds the two numbers.
pub const ADD: IoctlCode<[u32; 2], u32> = typed(0x801);
/// Is kept until it is cancelled.
pub const KEEP: IoctlCode<(), ()> = typed(0x802);
/// Writes the input to each byte of the caller's buffer.
pub const FILL: DirectIoctlCode<u8, ToCaller> = direct(0x803);
/// Adds up the bytes of the caller's buffer; completed with the sum.
pub const SUM: DirectIoctlCode<(), FromCaller> = direct(0x804);
/// The device says that it has failed.
pub const FAIL: IoctlCode<(), ()> = typed(0x806);
/// An internal one: doubles.
pub const DOUBLE: IoctlCode<u32, u32> = typed(0x805);

const fn typed<In: dmf::ioctl::IoctlData, Out: dmf::ioctl::IoctlData>(
    function: u16,
) -> IoctlCode<In, Out> {
    IoctlCode::new(DeviceType::UNKNOWN, function, Access::Any)
}

const fn direct<In: dmf::ioctl::IoctlData, D: dmf::ioctl::Direction>(
    function: u16,
) -> DirectIoctlCode<In, D> {
    DirectIoctlCode::new(DeviceType::UNKNOWN, function, Access::Any)
}
