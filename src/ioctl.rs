// SPDX-License-Identifier: MIT OR Apache-2.0

//! IOCTL codes whose input and output have types.
//!
//! # Vocabulary
//!
//! - *code*: the 32 bits that say which device, function, access and method are
//!   meant. [`ctl_code`] puts them together at compile time.
//! - *typed code*: an [`IoctlCode<In, Out>`], which also knows what goes in and
//!   what comes out. A request whose buffers are shorter than that is completed
//!   with `STATUS_BUFFER_TOO_SMALL` before the driver sees it.
//! - *direct code*: a [`DirectIoctlCode<In, D>`], whose second buffer is the
//!   caller's pages.
//! - *data*: a type that goes through a buffer byte by byte: [`IoctlData`],
//!   implemented for integers, arrays and structures of [`ioctl_struct!`](crate::ioctl_struct).
//!
//! ```
//! use dmf::ioctl::{Access, DeviceType, IoctlCode, IoctlData};
//!
//! dmf::ioctl_struct! {
//!     /// What the driver has counted.
//!     pub struct Statistics {
//!         /// Messages written.
//!         pub written: u32,
//!         /// Messages read.
//!         pub read: u32,
//!     }
//! }
//!
//! const GET_STATISTICS: IoctlCode<(), Statistics> =
//!     IoctlCode::new(DeviceType::UNKNOWN, 0x800, Access::Read);
//! assert_eq!(GET_STATISTICS.value(), 0x0022_6000);
//! assert_eq!(Statistics::SIZE, 8);
//!
//! let mut bytes = [0; 8];
//! Statistics { written: 2, read: 1 }.put(&mut bytes);
//! assert_eq!(bytes, [2, 0, 0, 0, 1, 0, 0, 0]);
//! assert_eq!(Statistics::get(&bytes).written, 2);
//! ```
//!
//! A function code that does not fit into its twelve bits does not compile:
//!
//! ```compile_fail,E0080
//! use dmf::ioctl::{Access, DeviceType, IoctlCode};
//! const WRONG: IoctlCode<(), ()> = IoctlCode::new(DeviceType::UNKNOWN, 0x1000, Access::Any);
//! ```
//!
//! Neither does a structure with padding, whose bytes would come from nowhere:
//!
//! ```compile_fail,E0080
//! dmf::ioctl_struct! {
//!     pub struct Padded {
//!         pub small: u8,
//!         pub large: u32,
//!     }
//! }
//! ```
//!
//! See [Defining I/O control codes][ms].
//!
//! [ms]: https://learn.microsoft.com/windows-hardware/drivers/kernel/defining-i-o-control-codes

use core::fmt;
use core::marker::PhantomData;

use crate::status::Result;
use crate::wdf::{ControlKind, DirectInput, DirectOutput, Request};

/// The kind of device that a code is for: the upper 16 bits of the code.
///
/// C counterpart: [`FILE_DEVICE_XXX`][ms]. Values from `0x8000` are for vendors.
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/kernel/specifying-device-types
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DeviceType(pub u16);

impl DeviceType {
    /// No kind that has a number of its own. C counterpart: `FILE_DEVICE_UNKNOWN`.
    pub const UNKNOWN: Self = Self(0x22);
}

/// How the buffers get from the caller to the driver: the lowest two bits.
///
/// C counterpart: [`METHOD_XXX`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/kernel/defining-i-o-control-codes
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// Through one buffer in the kernel, which is copied in and out. C: `METHOD_BUFFERED`.
    Buffered = 0,
    /// The second buffer is the caller's pages, to be read. C: `METHOD_IN_DIRECT`.
    InDirect = 1,
    /// The second buffer is the caller's pages, to be written. C: `METHOD_OUT_DIRECT`.
    OutDirect = 2,
    /// The caller's addresses, as they are. C: `METHOD_NEITHER`.
    Neither = 3,
}

impl Method {
    /// The method of a code.
    #[must_use]
    pub const fn of(code: u32) -> Self {
        match code & 3 {
            0 => Self::Buffered,
            1 => Self::InDirect,
            2 => Self::OutDirect,
            _ => Self::Neither,
        }
    }
}

/// What the caller's handle must have been opened for.
///
/// C counterpart: [`FILE_XXX_ACCESS`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/kernel/defining-i-o-control-codes
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Anything. C: `FILE_ANY_ACCESS`.
    Any = 0,
    /// Reading. C: `FILE_READ_DATA`.
    Read = 1,
    /// Writing. C: `FILE_WRITE_DATA`.
    Write = 2,
    /// Both.
    ReadWrite = 3,
}

/// Puts a code together.
///
/// Function codes from `0x800` are for vendors.
///
/// # Panics
/// If `function` is above `0xFFF`; in a constant that is a compile error.
///
/// C counterpart: `CTL_CODE`.
#[must_use]
pub const fn ctl_code(device: DeviceType, function: u16, method: Method, access: Access) -> u32 {
    assert!(
        function <= 0xFFF,
        "a function code has 12 bits: at most 0xFFF"
    );
    // `as`: the only widening there is in a constant.
    (device.0 as u32) << 16 | (access as u32) << 14 | (function as u32) << 2 | method as u32
}

/// A code with what goes in and what comes out. Always [`Method::Buffered`]:
/// only there the driver's view of the bytes cannot change under it. For large
/// buffers there is [`DirectIoctlCode`]; [`Method::Neither`] has no type, and
/// requests of it are completed with `STATUS_NOT_SUPPORTED` unless somebody
/// takes them by [`Request::code`].
///
/// `()` is nothing.
///
/// C counterpart: [`CTL_CODE`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/kernel/defining-i-o-control-codes
pub struct IoctlCode<In, Out> {
    value: u32,
    types: PhantomData<fn(In) -> Out>,
}

impl<In: IoctlData, Out: IoctlData> IoctlCode<In, Out> {
    /// The code of this function.
    ///
    /// # Panics
    /// As [`ctl_code`].
    #[must_use]
    pub const fn new(device: DeviceType, function: u16, access: Access) -> Self {
        Self {
            value: ctl_code(device, function, Method::Buffered, access),
            types: PhantomData,
        }
    }

    /// The code with this number, as a header of C has it. A number of another
    /// method than [`Method::Buffered`] does not compile in a constant:
    ///
    /// ```compile_fail,E0080
    /// use dmf::ioctl::IoctlCode;
    /// // METHOD_NEITHER
    /// const WRONG: IoctlCode<u32, ()> = IoctlCode::from_value(0x0022_2003);
    /// ```
    ///
    /// # Panics
    /// If its method is another.
    #[must_use]
    pub const fn from_value(value: u32) -> Self {
        assert!(
            matches!(Method::of(value), Method::Buffered),
            "the code is not METHOD_BUFFERED"
        );
        Self {
            value,
            types: PhantomData,
        }
    }

    /// The 32 bits.
    #[must_use]
    pub const fn value(self) -> u32 {
        self.value
    }
}

/// Which way the direct buffer of a [`DirectIoctlCode`] goes. Sealed.
///
/// C counterpart: the direction of [`METHOD_IN_DIRECT` and `METHOD_OUT_DIRECT`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/kernel/defining-i-o-control-codes
pub trait Direction: sealed::Sealed + 'static {
    /// The method of its codes.
    const METHOD: Method;
    /// What the driver sees of the buffer.
    type Buffer<'a>;
    /// The buffer of a request.
    #[doc(hidden)]
    fn buffer<K: ControlKind>(request: &Request<K>) -> Result<Self::Buffer<'_>>;
}

mod sealed {
    pub trait Sealed {}
}

/// The driver reads the caller's pages: [`Method::InDirect`].
///
/// C counterpart: [`METHOD_IN_DIRECT`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/kernel/defining-i-o-control-codes
#[derive(Debug)]
pub enum FromCaller {}
/// The driver writes the caller's pages: [`Method::OutDirect`].
///
/// C counterpart: [`METHOD_OUT_DIRECT`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/kernel/defining-i-o-control-codes
#[derive(Debug)]
pub enum ToCaller {}

impl sealed::Sealed for FromCaller {}
impl sealed::Sealed for ToCaller {}

impl Direction for FromCaller {
    const METHOD: Method = Method::InDirect;
    type Buffer<'a> = DirectInput<'a>;
    fn buffer<K: ControlKind>(request: &Request<K>) -> Result<DirectInput<'_>> {
        request.direct_input()
    }
}

impl Direction for ToCaller {
    const METHOD: Method = Method::OutDirect;
    type Buffer<'a> = DirectOutput<'a>;
    fn buffer<K: ControlKind>(request: &Request<K>) -> Result<DirectOutput<'_>> {
        request.direct_output()
    }
}

/// A code with an input that is copied, and a second buffer of any length that
/// is the caller's pages, in the direction `D`: [`FromCaller`] or [`ToCaller`].
///
/// ```
/// use dmf::ioctl::{Access, DeviceType, DirectIoctlCode, Method, ToCaller};
///
/// /// Copies a picture; the input says from which line on.
/// const GET_PICTURE: DirectIoctlCode<u32, ToCaller> =
///     DirectIoctlCode::new(DeviceType::UNKNOWN, 0x810, Access::Read);
/// assert_eq!(Method::of(GET_PICTURE.value()), Method::OutDirect);
/// ```
///
/// C counterpart: [`CTL_CODE`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/kernel/defining-i-o-control-codes
pub struct DirectIoctlCode<In, D> {
    value: u32,
    types: PhantomData<fn(In) -> D>,
}

impl<In: IoctlData, D: Direction> DirectIoctlCode<In, D> {
    /// The code of this function.
    ///
    /// # Panics
    /// As [`ctl_code`].
    #[must_use]
    pub const fn new(device: DeviceType, function: u16, access: Access) -> Self {
        Self {
            value: ctl_code(device, function, D::METHOD, access),
            types: PhantomData,
        }
    }

    /// The code with this number. A number of another method does not compile
    /// in a constant:
    ///
    /// ```compile_fail,E0080
    /// use dmf::ioctl::{DirectIoctlCode, FromCaller};
    /// // METHOD_OUT_DIRECT
    /// const WRONG: DirectIoctlCode<(), FromCaller> = DirectIoctlCode::from_value(0x0022_2002);
    /// ```
    ///
    /// # Panics
    /// If the number's method is not that of `D`.
    #[must_use]
    pub const fn from_value(value: u32) -> Self {
        assert!(
            Method::of(value) as u32 == D::METHOD as u32,
            "the code has another method than its direction"
        );
        Self {
            value,
            types: PhantomData,
        }
    }

    /// The 32 bits.
    #[must_use]
    pub const fn value(self) -> u32 {
        self.value
    }
}

impl<In, D> Clone for DirectIoctlCode<In, D> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<In, D> Copy for DirectIoctlCode<In, D> {}

impl<In, D> fmt::Debug for DirectIoctlCode<In, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DirectIoctlCode(0x{:08X})", self.value)
    }
}

impl<In, Out> Clone for IoctlCode<In, Out> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<In, Out> Copy for IoctlCode<In, Out> {}

impl<In, Out> fmt::Debug for IoctlCode<In, Out> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IoctlCode(0x{:08X})", self.value)
    }
}

/// A value that goes through a buffer byte by byte, in the machine's byte order.
///
/// It needs no `unsafe` to implement, and [`ioctl_struct!`](crate::ioctl_struct)
/// does it for structures as C lays them out.
///
/// No C counterpart: there a buffer's pointer is cast.
pub trait IoctlData: Copy + Send + 'static {
    /// How many bytes the value has.
    const SIZE: usize;

    /// Reads a value from the first [`SIZE`](Self::SIZE) bytes.
    ///
    /// # Panics
    /// If there are fewer.
    fn get(bytes: &[u8]) -> Self;

    /// Writes the value into the first [`SIZE`](Self::SIZE) bytes.
    ///
    /// # Panics
    /// If there are fewer.
    fn put(&self, bytes: &mut [u8]);
}

impl IoctlData for () {
    const SIZE: usize = 0;
    fn get(_bytes: &[u8]) -> Self {}
    fn put(&self, _bytes: &mut [u8]) {}
}

macro_rules! integers {
    ($($ty:ty)*) => {$(
        impl IoctlData for $ty {
            const SIZE: usize = size_of::<$ty>();

            fn get(bytes: &[u8]) -> Self {
                let mut array = [0; size_of::<$ty>()];
                array.copy_from_slice(&bytes[..Self::SIZE]);
                Self::from_ne_bytes(array)
            }

            fn put(&self, bytes: &mut [u8]) {
                bytes[..Self::SIZE].copy_from_slice(&self.to_ne_bytes());
            }
        }
    )*};
}

integers! { u8 u16 u32 u64 i8 i16 i32 i64 }

impl<T: IoctlData, const N: usize> IoctlData for [T; N] {
    const SIZE: usize = T::SIZE * N;

    fn get(bytes: &[u8]) -> Self {
        core::array::from_fn(|at| T::get(&bytes[at * T::SIZE..]))
    }

    fn put(&self, bytes: &mut [u8]) {
        for (at, value) in self.iter().enumerate() {
            value.put(&mut bytes[at * T::SIZE..]);
        }
    }
}

/// Declares structures that go through the buffers of IOCTLs, laid out as in C.
///
/// Each field is an [`IoctlData`](crate::ioctl::IoctlData). Padding is refused
/// at compile time: name it as a field, so that its bytes are yours.
///
/// ```
/// dmf::ioctl_struct! {
///     /// Named padding.
///     pub struct Level {
///         /// In percent.
///         pub percent: u8,
///         /// Zero.
///         pub reserved: [u8; 3],
///         /// When, in seconds.
///         pub at: u32,
///     }
/// }
/// assert_eq!(size_of::<Level>(), 8);
/// ```
#[macro_export]
macro_rules! ioctl_struct {
    ($(
        $(#[$meta:meta])*
        $vis:vis struct $name:ident {
            $($(#[$field_meta:meta])* $field_vis:vis $field:ident: $ty:ty),* $(,)?
        }
    )*) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(C)]
        $vis struct $name {
            $($(#[$field_meta])* $field_vis $field: $ty,)*
        }

        const _: () = assert!(
            0 $(+ ::core::mem::size_of::<$ty>())* == ::core::mem::size_of::<$name>(),
            "the structure has padding: name it as a field"
        );

        impl $crate::ioctl::IoctlData for $name {
            const SIZE: usize = ::core::mem::size_of::<Self>();

            fn get(bytes: &[u8]) -> Self {
                Self {
                    $($field: <$ty as $crate::ioctl::IoctlData>::get(
                        &bytes[::core::mem::offset_of!(Self, $field)..],
                    ),)*
                }
            }

            fn put(&self, bytes: &mut [u8]) {
                $(<$ty as $crate::ioctl::IoctlData>::put(
                    &self.$field,
                    &mut bytes[::core::mem::offset_of!(Self, $field)..],
                );)*
            }
        }
    )*};
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_ctl_code() {
        // IOCTL_DISK_GET_DRIVE_GEOMETRY: CTL_CODE(7, 0, METHOD_BUFFERED, FILE_ANY_ACCESS).
        assert_eq!(
            ctl_code(DeviceType(7), 0, Method::Buffered, Access::Any),
            0x0007_0000
        );
        // IOCTL_SERIAL_SET_BAUD_RATE: CTL_CODE(0x1B, 1, METHOD_BUFFERED, FILE_ANY_ACCESS).
        assert_eq!(
            ctl_code(DeviceType(0x1B), 1, Method::Buffered, Access::Any),
            0x001B_0004
        );
        assert_eq!(
            ctl_code(
                DeviceType(0xFFFF),
                0xFFF,
                Method::Neither,
                Access::ReadWrite
            ),
            0xFFFF_FFFF
        );
        assert_eq!(Method::of(0xFFFF_FFFF), Method::Neither);
    }

    #[test]
    fn a_value_survives_its_bytes() {
        let mut bytes = [0xAA; 12];
        [0x0102_u16, 0xFFFE].put(&mut bytes);
        assert_eq!(<[u16; 2]>::get(&bytes), [0x0102, 0xFFFE]);
        assert_eq!(bytes[4..], [0xAA; 8]);
        (-5_i64).put(&mut bytes[4..]);
        assert_eq!(i64::get(&bytes[4..]), -5);
    }
}
