// SPDX-License-Identifier: MIT OR Apache-2.0

//! Status codes, and the [`Result`] of fallible calls.
//!
//! An [`NtStatus`] keeps every code as it is, success codes included. It is not
//! a `Result`: `NT_SUCCESS` is true for `STATUS_TIMEOUT`, `STATUS_ALERTED` and
//! `STATUS_USER_APC`, so calls that can end in more than one good way return an
//! enum (see [`sync`](crate::sync)), and all others return [`Result`].
//!
//! ```
//! use dmf::NtStatus;
//!
//! let status = NtStatus::from_raw(0xC000_000D_u32.cast_signed());
//! assert_eq!(status, NtStatus::INVALID_PARAMETER);
//! assert_eq!(format!("{status}"), "STATUS_INVALID_PARAMETER (0xC000000D)");
//! assert!(status.into_result().is_err());
//! ```
//!
//! See [Using NTSTATUS values][ms].
//!
//! [ms]: https://learn.microsoft.com/windows-hardware/drivers/kernel/using-ntstatus-values

use core::fmt;

/// What a fallible call returns. Without parameters: nothing, or a status.
pub type Result<T = (), E = NtStatus> = core::result::Result<T, E>;

/// A status code of the kernel: 32 bits, of which the highest two are the
/// [`Severity`].
///
/// C counterpart: `NTSTATUS`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(transparent)]
#[must_use]
pub struct NtStatus(i32);

/// The two highest bits of a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Severity {
    /// `0x00000000` to `0x3FFFFFFF`. Includes timeouts and alerts.
    Success,
    /// `0x40000000` to `0x7FFFFFFF`.
    Informational,
    /// `0x80000000` to `0xBFFFFFFF`.
    Warning,
    /// `0xC0000000` to `0xFFFFFFFF`.
    Error,
}

impl NtStatus {
    /// The status with this code. Every code is kept as it is.
    pub const fn from_raw(code: i32) -> Self {
        Self(code)
    }

    /// The code, for a function that the kernel calls.
    #[must_use]
    pub const fn to_raw(self) -> i32 {
        self.0
    }

    /// The code's highest two bits.
    #[must_use]
    pub const fn severity(self) -> Severity {
        match self.0.cast_unsigned() >> 30 {
            0 => Severity::Success,
            1 => Severity::Informational,
            2 => Severity::Warning,
            _ => Severity::Error,
        }
    }

    /// Whether the code is a success or informational code.
    ///
    /// True for `STATUS_TIMEOUT` and its like: do not ask it of a wait.
    ///
    /// C counterpart: `NT_SUCCESS`.
    #[must_use]
    pub const fn is_success(self) -> bool {
        self.0 >= 0
    }

    /// `Ok` for a success or informational code, else the status as the error.
    ///
    /// # Errors
    /// The status itself, if it is a warning or an error.
    pub const fn into_result(self) -> Result {
        if self.is_success() { Ok(()) } else { Err(self) }
    }

    /// The status that a function which the kernel calls returns for `result`.
    pub fn from_result(result: Result) -> Self {
        match result {
            Ok(()) => Self::SUCCESS,
            Err(status) => status,
        }
    }
}

macro_rules! statuses {
    ($($(#[$doc:meta])* $name:ident = $code:literal,)*) => {
        impl NtStatus {
            $(
                $(#[$doc])*
                #[doc = ""]
                #[doc = concat!("`STATUS_", stringify!($name), "`, `", stringify!($code), "`.")]
                pub const $name: Self = Self(($code as u32).cast_signed());
            )*

            /// The code's name in the WDK, if it is one of those that have a constant here.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self {
                    $(Self::$name => Some(concat!("STATUS_", stringify!($name))),)*
                    _ => None,
                }
            }
        }

        #[cfg(test)]
        const ALL: &[NtStatus] = &[$(NtStatus::$name),*];
    };
}

statuses! {
    /// The call did what it should.
    SUCCESS = 0x0000_0000,
    /// The second object of a wait was signaled. The first is `SUCCESS`.
    WAIT_1 = 0x0000_0001,
    /// The third object of a wait was signaled.
    WAIT_2 = 0x0000_0002,
    /// The last of 64 objects of a wait was signaled.
    WAIT_63 = 0x0000_003F,
    /// One object is listed twice in a wait for all.
    INVALID_PARAMETER_MIX = 0xC000_0030,
    /// A mutex was abandoned by its owner; the first object of the wait.
    ABANDONED_WAIT_0 = 0x0000_0080,
    /// A user-mode APC ended the wait.
    USER_APC = 0x0000_00C0,
    /// An alert of the thread ended the wait.
    ALERTED = 0x0000_0101,
    /// The wait's time was over.
    TIMEOUT = 0x0000_0102,
    /// The operation goes on and completes later.
    PENDING = 0x0000_0103,
    /// An object of that name was there already.
    OBJECT_NAME_EXISTS = 0x4000_0000,
    /// There is more than fits into the caller's buffer.
    BUFFER_OVERFLOW = 0x8000_0005,
    /// There are no more entries.
    NO_MORE_ENTRIES = 0x8000_001A,
    /// The device is busy.
    DEVICE_BUSY = 0x8000_0011,
    /// The operation failed, for no reason that has a code.
    UNSUCCESSFUL = 0xC000_0001,
    /// The function is not implemented.
    NOT_IMPLEMENTED = 0xC000_0002,
    /// A class of information that is not known.
    INVALID_INFO_CLASS = 0xC000_0003,
    /// A length that does not fit what was asked for.
    INFO_LENGTH_MISMATCH = 0xC000_0004,
    /// Memory that must not be touched.
    ACCESS_VIOLATION = 0xC000_0005,
    /// A handle that is not one.
    INVALID_HANDLE = 0xC000_0008,
    /// An argument that the function does not accept.
    INVALID_PARAMETER = 0xC000_000D,
    /// There is no such device.
    NO_SUCH_DEVICE = 0xC000_000E,
    /// A request that the device does not know.
    INVALID_DEVICE_REQUEST = 0xC000_0010,
    /// The driver needs memory that is not there.
    NO_MEMORY = 0xC000_0017,
    /// The caller may not do that.
    ACCESS_DENIED = 0xC000_0022,
    /// The buffer is too small.
    BUFFER_TOO_SMALL = 0xC000_0023,
    /// The object has another type than the call needs.
    OBJECT_TYPE_MISMATCH = 0xC000_0024,
    /// There is nothing of that name.
    OBJECT_NAME_NOT_FOUND = 0xC000_0034,
    /// The name is taken.
    OBJECT_NAME_COLLISION = 0xC000_0035,
    /// A name that is empty, too long, or has a character that it must not have.
    OBJECT_NAME_INVALID = 0xC000_0033,
    /// A semaphore was released beyond its limit.
    SEMAPHORE_LIMIT_EXCEEDED = 0xC000_0047,
    /// An object that is being deleted.
    DELETE_PENDING = 0xC000_0056,
    /// There is not enough of something, usually pool.
    INSUFFICIENT_RESOURCES = 0xC000_009A,
    /// The device does not answer.
    DEVICE_NOT_CONNECTED = 0xC000_009D,
    /// The device has no power.
    DEVICE_POWER_FAILURE = 0xC000_009E,
    /// The device did not answer in time.
    IO_TIMEOUT = 0xC000_00B5,
    /// The device does not support that.
    NOT_SUPPORTED = 0xC000_00BB,
    /// Something that cannot be, was.
    INTERNAL_ERROR = 0xC000_00E5,
    /// The operation was cancelled.
    CANCELLED = 0xC000_0120,
    /// The registry is damaged.
    REGISTRY_CORRUPT = 0xC000_014C,
    /// The device is not in a state for that.
    INVALID_DEVICE_STATE = 0xC000_0184,
    /// The device reported an error.
    IO_DEVICE_ERROR = 0xC000_0185,
    /// The caller would have waited for itself.
    POSSIBLE_DEADLOCK = 0xC000_0194,
    /// There is nothing of that kind.
    NOT_FOUND = 0xC000_0225,
    /// The number is too large for its type.
    INTEGER_OVERFLOW = 0xC000_0095,
    /// The device is gone.
    DEVICE_REMOVED = 0xC000_02B6,
}

impl fmt::Display for NtStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name} (0x{:08X})", self.0),
            None => write!(f, "0x{:08X}", self.0),
        }
    }
}

impl fmt::Debug for NtStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl core::error::Error for NtStatus {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;

    #[test]
    fn every_code_survives_a_round_trip() {
        for code in [0, 0x102, 0x4000_0000, i32::MIN, -1, i32::MAX] {
            assert_eq!(NtStatus::from_raw(code).to_raw(), code);
        }
    }

    #[test]
    fn severity_is_the_highest_two_bits() {
        assert_eq!(NtStatus::TIMEOUT.severity(), Severity::Success);
        assert_eq!(
            NtStatus::OBJECT_NAME_EXISTS.severity(),
            Severity::Informational
        );
        assert_eq!(NtStatus::BUFFER_OVERFLOW.severity(), Severity::Warning);
        assert_eq!(NtStatus::UNSUCCESSFUL.severity(), Severity::Error);
    }

    #[test]
    fn warnings_and_errors_are_errors() {
        assert_eq!(NtStatus::TIMEOUT.into_result(), Ok(()));
        assert_eq!(
            NtStatus::DEVICE_BUSY.into_result(),
            Err(NtStatus::DEVICE_BUSY)
        );
        assert_eq!(NtStatus::from_result(Ok(())), NtStatus::SUCCESS);
        assert_eq!(
            NtStatus::from_result(Err(NtStatus::CANCELLED)),
            NtStatus::CANCELLED
        );
    }

    #[test]
    fn a_status_shows_its_name_and_code() {
        assert_eq!(
            format!("{}", NtStatus::INVALID_DEVICE_STATE),
            "STATUS_INVALID_DEVICE_STATE (0xC0000184)"
        );
        assert_eq!(format!("{:?}", NtStatus::from_raw(0x1234)), "0x00001234");
    }

    #[test]
    fn no_two_names_have_one_code() {
        for (i, a) in ALL.iter().enumerate() {
            for b in &ALL[i + 1..] {
                assert_ne!(a, b);
            }
        }
    }
}
