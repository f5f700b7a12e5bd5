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
/// C counterpart: [`NTSTATUS`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/kernel/using-ntstatus-values
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(transparent)]
#[must_use]
pub struct NtStatus(i32);

/// The two highest bits of a status.
///
/// C counterpart: the macros `NT_SUCCESS`, `NT_INFORMATION`, `NT_WARNING` and
/// `NT_ERROR` of [`NTSTATUS`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/kernel/using-ntstatus-values
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

    /// The component that the code is from: 0 for the kernel itself.
    ///
    /// ```
    /// use dmf::NtStatus;
    /// // HIDP_STATUS_INVALID_REPORT_LENGTH
    /// assert_eq!(NtStatus::from_raw(0xC011_0003_u32.cast_signed()).facility(), 0x11);
    /// ```
    #[must_use]
    pub const fn facility(self) -> u16 {
        (self.0.cast_unsigned() >> 16 & 0x0FFF) as u16
    }

    /// The number of the code within its facility: the lower sixteen bits.
    #[must_use]
    pub const fn code(self) -> u16 {
        (self.0.cast_unsigned() & 0xFFFF) as u16
    }

    /// Whether the code is a driver's own (the customer bit), not Microsoft's.
    #[must_use]
    pub const fn is_customer(self) -> bool {
        self.0 & 0x2000_0000 != 0
    }

    /// A code of the driver's own, with the customer bit set. Facilities and
    /// codes are its choice; a facility has twelve bits, and the rest is ignored.
    ///
    /// ```
    /// use dmf::NtStatus;
    /// use dmf::status::Severity;
    ///
    /// const JAMMED: NtStatus = NtStatus::customer(Severity::Error, 0x001, 0x0042);
    /// assert_eq!(format!("{JAMMED}"), "0xE0010042");
    /// assert!(JAMMED.is_customer() && !JAMMED.is_success());
    /// ```
    pub const fn customer(severity: Severity, facility: u16, code: u16) -> Self {
        let severity = match severity {
            Severity::Success => 0_u32,
            Severity::Informational => 1,
            Severity::Warning => 2,
            Severity::Error => 3,
        };
        let facility = (facility as u32 & 0x0FFF) << 16;
        Self((severity << 30 | 0x2000_0000 | facility | code as u32).cast_signed())
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
    ///
    /// An error is an error whatever its code: one that the kernel would take
    /// for a success ([`TIMEOUT`](Self::TIMEOUT), say) becomes
    /// [`UNSUCCESSFUL`](Self::UNSUCCESSFUL).
    pub fn from_result(result: Result) -> Self {
        match result {
            Ok(()) => Self::SUCCESS,
            Err(status) if status.is_success() => Self::UNSUCCESSFUL,
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
    WAIT_3 = 0x0000_0003,
    /// The last of 64 objects of a wait was signaled.
    WAIT_63 = 0x0000_003F,
    /// A mutex was abandoned by its owner; the first object of the wait.
    ABANDONED_WAIT_0 = 0x0000_0080,
    ABANDONED_WAIT_63 = 0x0000_00BF,
    /// A user-mode APC ended the wait.
    USER_APC = 0x0000_00C0,
    KERNEL_APC = 0x0000_0100,
    /// An alert of the thread ended the wait.
    ALERTED = 0x0000_0101,
    /// The wait's time was over.
    TIMEOUT = 0x0000_0102,
    /// The operation goes on and completes later.
    PENDING = 0x0000_0103,
    REPARSE = 0x0000_0104,
    MORE_ENTRIES = 0x0000_0105,
    OPLOCK_BREAK_IN_PROGRESS = 0x0000_0108,
    NOTIFY_CLEANUP = 0x0000_010B,
    NOTIFY_ENUM_DIR = 0x0000_010C,
    NO_QUOTAS_FOR_ACCOUNT = 0x0000_010D,
    CRASH_DUMP = 0x0000_0116,
    REPARSE_OBJECT = 0x0000_0118,
    RESOURCE_REQUIREMENTS_CHANGED = 0x0000_0119,
    WAIT_FOR_OPLOCK = 0x0000_0367,
    /// An object of that name was there already.
    OBJECT_NAME_EXISTS = 0x4000_0000,
    THREAD_WAS_SUSPENDED = 0x4000_0001,
    RECEIVE_PARTIAL = 0x4000_000F,
    RECEIVE_EXPEDITED = 0x4000_0010,
    EVENT_DONE = 0x4000_0012,
    EVENT_PENDING = 0x4000_0013,
    FATAL_APP_EXIT = 0x4000_0015,
    WAS_UNLOCKED = 0x4000_0017,
    SERVICE_NOTIFICATION = 0x4000_0018,
    WAS_LOCKED = 0x4000_0019,
    NO_YIELD_PERFORMED = 0x4000_0024,
    TIMER_RESUME_IGNORED = 0x4000_0025,
    ACCESS_AUDIT_BY_POLICY = 0x4000_0032,
    DATATYPE_MISALIGNMENT = 0x8000_0002,
    BREAKPOINT = 0x8000_0003,
    SINGLE_STEP = 0x8000_0004,
    /// There is more than fits into the caller's buffer.
    BUFFER_OVERFLOW = 0x8000_0005,
    NO_MORE_FILES = 0x8000_0006,
    WAKE_SYSTEM_DEBUGGER = 0x8000_0007,
    HANDLES_CLOSED = 0x8000_000A,
    NO_INHERITANCE = 0x8000_000B,
    PARTIAL_COPY = 0x8000_000D,
    DEVICE_PAPER_EMPTY = 0x8000_000E,
    DEVICE_POWERED_OFF = 0x8000_000F,
    DEVICE_OFF_LINE = 0x8000_0010,
    /// The device is busy.
    DEVICE_BUSY = 0x8000_0011,
    NO_MORE_EAS = 0x8000_0012,
    INVALID_EA_NAME = 0x8000_0013,
    EA_LIST_INCONSISTENT = 0x8000_0014,
    INVALID_EA_FLAG = 0x8000_0015,
    VERIFY_REQUIRED = 0x8000_0016,
    EXTRANEOUS_INFORMATION = 0x8000_0017,
    /// There are no more entries.
    NO_MORE_ENTRIES = 0x8000_001A,
    FILEMARK_DETECTED = 0x8000_001B,
    MEDIA_CHANGED = 0x8000_001C,
    BUS_RESET = 0x8000_001D,
    END_OF_MEDIA = 0x8000_001E,
    BEGINNING_OF_MEDIA = 0x8000_001F,
    MEDIA_CHECK = 0x8000_0020,
    SETMARK_DETECTED = 0x8000_0021,
    NO_DATA_DETECTED = 0x8000_0022,
    SERVER_HAS_OPEN_HANDLES = 0x8000_0024,
    ALREADY_DISCONNECTED = 0x8000_0025,
    STOPPED_ON_SYMLINK = 0x8000_002D,
    DEVICE_SUPPORT_IN_PROGRESS = 0x8000_0030,
    DEVICE_RESET_REQUIRED = 0x8000_01B6,
    DEVICE_REQUIRES_CLEANING = 0x8000_0288,
    DEVICE_DOOR_OPEN = 0x8000_0289,
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
    IN_PAGE_ERROR = 0xC000_0006,
    PAGEFILE_QUOTA = 0xC000_0007,
    /// A handle that is not one.
    INVALID_HANDLE = 0xC000_0008,
    BAD_INITIAL_STACK = 0xC000_0009,
    BAD_INITIAL_PC = 0xC000_000A,
    INVALID_CID = 0xC000_000B,
    TIMER_NOT_CANCELED = 0xC000_000C,
    /// An argument that the function does not accept.
    INVALID_PARAMETER = 0xC000_000D,
    /// There is no such device.
    NO_SUCH_DEVICE = 0xC000_000E,
    NO_SUCH_FILE = 0xC000_000F,
    /// A request that the device does not know.
    INVALID_DEVICE_REQUEST = 0xC000_0010,
    END_OF_FILE = 0xC000_0011,
    WRONG_VOLUME = 0xC000_0012,
    NO_MEDIA_IN_DEVICE = 0xC000_0013,
    UNRECOGNIZED_MEDIA = 0xC000_0014,
    NONEXISTENT_SECTOR = 0xC000_0015,
    MORE_PROCESSING_REQUIRED = 0xC000_0016,
    /// The driver needs memory that is not there.
    NO_MEMORY = 0xC000_0017,
    CONFLICTING_ADDRESSES = 0xC000_0018,
    NOT_MAPPED_VIEW = 0xC000_0019,
    UNABLE_TO_FREE_VM = 0xC000_001A,
    INVALID_SYSTEM_SERVICE = 0xC000_001C,
    ILLEGAL_INSTRUCTION = 0xC000_001D,
    INVALID_LOCK_SEQUENCE = 0xC000_001E,
    INVALID_VIEW_SIZE = 0xC000_001F,
    INVALID_FILE_FOR_SECTION = 0xC000_0020,
    ALREADY_COMMITTED = 0xC000_0021,
    /// The caller may not do that.
    ACCESS_DENIED = 0xC000_0022,
    /// The buffer is too small.
    BUFFER_TOO_SMALL = 0xC000_0023,
    /// The object has another type than the call needs.
    OBJECT_TYPE_MISMATCH = 0xC000_0024,
    NONCONTINUABLE_EXCEPTION = 0xC000_0025,
    INVALID_DISPOSITION = 0xC000_0026,
    UNWIND = 0xC000_0027,
    BAD_STACK = 0xC000_0028,
    PORT_MESSAGE_TOO_LONG = 0xC000_002F,
    /// One object is listed twice in a wait for all.
    INVALID_PARAMETER_MIX = 0xC000_0030,
    INVALID_QUOTA_LOWER = 0xC000_0031,
    DISK_CORRUPT_ERROR = 0xC000_0032,
    /// A name that is empty, too long, or has a character that it must not have.
    OBJECT_NAME_INVALID = 0xC000_0033,
    /// There is nothing of that name.
    OBJECT_NAME_NOT_FOUND = 0xC000_0034,
    /// The name is taken.
    OBJECT_NAME_COLLISION = 0xC000_0035,
    PORT_DISCONNECTED = 0xC000_0037,
    DEVICE_ALREADY_ATTACHED = 0xC000_0038,
    OBJECT_PATH_INVALID = 0xC000_0039,
    OBJECT_PATH_NOT_FOUND = 0xC000_003A,
    OBJECT_PATH_SYNTAX_BAD = 0xC000_003B,
    DATA_OVERRUN = 0xC000_003C,
    DATA_LATE_ERROR = 0xC000_003D,
    DATA_ERROR = 0xC000_003E,
    CRC_ERROR = 0xC000_003F,
    SECTION_TOO_BIG = 0xC000_0040,
    PORT_CONNECTION_REFUSED = 0xC000_0041,
    INVALID_PORT_HANDLE = 0xC000_0042,
    SHARING_VIOLATION = 0xC000_0043,
    QUOTA_EXCEEDED = 0xC000_0044,
    INVALID_PAGE_PROTECTION = 0xC000_0045,
    MUTANT_NOT_OWNED = 0xC000_0046,
    /// A semaphore was released beyond its limit.
    SEMAPHORE_LIMIT_EXCEEDED = 0xC000_0047,
    PORT_ALREADY_SET = 0xC000_0048,
    SECTION_NOT_IMAGE = 0xC000_0049,
    EAS_NOT_SUPPORTED = 0xC000_004F,
    EA_TOO_LARGE = 0xC000_0050,
    NONEXISTENT_EA_ENTRY = 0xC000_0051,
    NO_EAS_ON_FILE = 0xC000_0052,
    FILE_LOCK_CONFLICT = 0xC000_0054,
    LOCK_NOT_GRANTED = 0xC000_0055,
    /// An object that is being deleted.
    DELETE_PENDING = 0xC000_0056,
    CTL_FILE_NOT_SUPPORTED = 0xC000_0057,
    UNKNOWN_REVISION = 0xC000_0058,
    REVISION_MISMATCH = 0xC000_0059,
    INVALID_OWNER = 0xC000_005A,
    NO_IMPERSONATION_TOKEN = 0xC000_005C,
    NO_SUCH_PRIVILEGE = 0xC000_0060,
    PRIVILEGE_NOT_HELD = 0xC000_0061,
    INVALID_ACCOUNT_NAME = 0xC000_0062,
    USER_EXISTS = 0xC000_0063,
    ILL_FORMED_PASSWORD = 0xC000_006B,
    INVALID_SECURITY_DESCR = 0xC000_0079,
    PROCEDURE_NOT_FOUND = 0xC000_007A,
    INVALID_IMAGE_FORMAT = 0xC000_007B,
    RANGE_NOT_LOCKED = 0xC000_007E,
    DISK_FULL = 0xC000_007F,
    RESOURCE_DATA_NOT_FOUND = 0xC000_0089,
    RESOURCE_TYPE_NOT_FOUND = 0xC000_008A,
    RESOURCE_NAME_NOT_FOUND = 0xC000_008B,
    FLOAT_DENORMAL_OPERAND = 0xC000_008D,
    FLOAT_DIVIDE_BY_ZERO = 0xC000_008E,
    INTEGER_DIVIDE_BY_ZERO = 0xC000_0094,
    /// The number is too large for its type.
    INTEGER_OVERFLOW = 0xC000_0095,
    PRIVILEGED_INSTRUCTION = 0xC000_0096,
    TOO_MANY_PAGING_FILES = 0xC000_0097,
    FILE_INVALID = 0xC000_0098,
    ALLOTTED_SPACE_EXCEEDED = 0xC000_0099,
    /// There is not enough of something, usually pool.
    INSUFFICIENT_RESOURCES = 0xC000_009A,
    DFS_EXIT_PATH_FOUND = 0xC000_009B,
    DEVICE_DATA_ERROR = 0xC000_009C,
    /// The device does not answer.
    DEVICE_NOT_CONNECTED = 0xC000_009D,
    /// The device has no power.
    DEVICE_POWER_FAILURE = 0xC000_009E,
    MEMORY_NOT_ALLOCATED = 0xC000_00A0,
    MEDIA_WRITE_PROTECTED = 0xC000_00A2,
    DEVICE_NOT_READY = 0xC000_00A3,
    INVALID_GROUP_ATTRIBUTES = 0xC000_00A4,
    BAD_IMPERSONATION_LEVEL = 0xC000_00A5,
    CANT_OPEN_ANONYMOUS = 0xC000_00A6,
    BAD_VALIDATION_CLASS = 0xC000_00A7,
    BAD_TOKEN_TYPE = 0xC000_00A8,
    INSTRUCTION_MISALIGNMENT = 0xC000_00AA,
    INSTANCE_NOT_AVAILABLE = 0xC000_00AB,
    PIPE_NOT_AVAILABLE = 0xC000_00AC,
    INVALID_PIPE_STATE = 0xC000_00AD,
    PIPE_BUSY = 0xC000_00AE,
    ILLEGAL_FUNCTION = 0xC000_00AF,
    PIPE_DISCONNECTED = 0xC000_00B0,
    PIPE_CLOSING = 0xC000_00B1,
    PIPE_CONNECTED = 0xC000_00B2,
    PIPE_LISTENING = 0xC000_00B3,
    INVALID_READ_MODE = 0xC000_00B4,
    /// The device did not answer in time.
    IO_TIMEOUT = 0xC000_00B5,
    FILE_FORCED_CLOSED = 0xC000_00B6,
    PROFILING_NOT_STARTED = 0xC000_00B7,
    FILE_IS_A_DIRECTORY = 0xC000_00BA,
    /// The device does not support that.
    NOT_SUPPORTED = 0xC000_00BB,
    REMOTE_NOT_LISTENING = 0xC000_00BC,
    DUPLICATE_NAME = 0xC000_00BD,
    BAD_NETWORK_PATH = 0xC000_00BE,
    NETWORK_BUSY = 0xC000_00BF,
    DEVICE_DOES_NOT_EXIST = 0xC000_00C0,
    ADAPTER_HARDWARE_ERROR = 0xC000_00C2,
    REQUEST_NOT_ACCEPTED = 0xC000_00D0,
    NOT_SAME_DEVICE = 0xC000_00D4,
    FILE_RENAMED = 0xC000_00D5,
    /// Something that cannot be, was.
    INTERNAL_ERROR = 0xC000_00E5,
    UNEXPECTED_IO_ERROR = 0xC000_00E9,
    INVALID_PARAMETER_1 = 0xC000_00EF,
    INVALID_PARAMETER_2 = 0xC000_00F0,
    INVALID_PARAMETER_3 = 0xC000_00F1,
    INVALID_PARAMETER_4 = 0xC000_00F2,
    INVALID_PARAMETER_5 = 0xC000_00F3,
    INVALID_PARAMETER_6 = 0xC000_00F4,
    INVALID_PARAMETER_7 = 0xC000_00F5,
    INVALID_PARAMETER_8 = 0xC000_00F6,
    INVALID_PARAMETER_9 = 0xC000_00F7,
    INVALID_PARAMETER_10 = 0xC000_00F8,
    INVALID_PARAMETER_11 = 0xC000_00F9,
    INVALID_PARAMETER_12 = 0xC000_00FA,
    REDIRECTOR_NOT_STARTED = 0xC000_00FB,
    STACK_OVERFLOW = 0xC000_00FD,
    BAD_FUNCTION_TABLE = 0xC000_00FF,
    VARIABLE_NOT_FOUND = 0xC000_0100,
    NOT_A_DIRECTORY = 0xC000_0103,
    NAME_TOO_LONG = 0xC000_0106,
    FILES_OPEN = 0xC000_0107,
    CONNECTION_IN_USE = 0xC000_0108,
    MESSAGE_NOT_FOUND = 0xC000_0109,
    PROCESS_IS_TERMINATING = 0xC000_010A,
    IMAGE_ALREADY_LOADED = 0xC000_010E,
    TOO_MANY_OPENED_FILES = 0xC000_011F,
    /// The operation was cancelled.
    CANCELLED = 0xC000_0120,
    CANNOT_DELETE = 0xC000_0121,
    FILE_DELETED = 0xC000_0123,
    FILE_CLOSED = 0xC000_0128,
    THREAD_NOT_IN_PROCESS = 0xC000_012A,
    DLL_NOT_FOUND = 0xC000_0135,
    IO_PRIVILEGE_FAILED = 0xC000_0137,
    ORDINAL_NOT_FOUND = 0xC000_0138,
    ENTRYPOINT_NOT_FOUND = 0xC000_0139,
    CONTROL_C_EXIT = 0xC000_013A,
    INVALID_ADDRESS = 0xC000_0141,
    INVALID_LEVEL = 0xC000_0148,
    /// The registry is damaged.
    REGISTRY_CORRUPT = 0xC000_014C,
    UNMAPPABLE_CHARACTER = 0xC000_0162,
    NO_SUCH_MEMBER = 0xC000_017A,
    KEY_DELETED = 0xC000_017C,
    NO_LOG_SPACE = 0xC000_017D,
    TOO_MANY_SIDS = 0xC000_017E,
    KEY_HAS_CHILDREN = 0xC000_0180,
    CHILD_MUST_BE_VOLATILE = 0xC000_0181,
    DEVICE_CONFIGURATION_ERROR = 0xC000_0182,
    DRIVER_INTERNAL_ERROR = 0xC000_0183,
    /// The device is not in a state for that.
    INVALID_DEVICE_STATE = 0xC000_0184,
    /// The device reported an error.
    IO_DEVICE_ERROR = 0xC000_0185,
    DEVICE_PROTOCOL_ERROR = 0xC000_0186,
    TOO_LATE = 0xC000_0189,
    /// The caller would have waited for itself.
    POSSIBLE_DEADLOCK = 0xC000_0194,
    NOT_SAME_OBJECT = 0xC000_01AC,
    INSUFF_SERVER_RESOURCES = 0xC000_0205,
    INVALID_BUFFER_SIZE = 0xC000_0206,
    INVALID_ADDRESS_COMPONENT = 0xC000_0207,
    ADDRESS_ALREADY_EXISTS = 0xC000_020A,
    ADDRESS_CLOSED = 0xC000_020B,
    CONNECTION_RESET = 0xC000_020D,
    TRANSACTION_ABORTED = 0xC000_020F,
    TRANSACTION_TIMED_OUT = 0xC000_0210,
    DATA_NOT_ACCEPTED = 0xC000_021B,
    /// There is nothing of that kind.
    NOT_FOUND = 0xC000_0225,
    FAIL_CHECK = 0xC000_0229,
    OBJECTID_EXISTS = 0xC000_022B,
    RETRY = 0xC000_022D,
    CONNECTION_REFUSED = 0xC000_0236,
    GRACEFUL_DISCONNECT = 0xC000_0237,
    ADDRESS_NOT_ASSOCIATED = 0xC000_0239,
    CONNECTION_INVALID = 0xC000_023A,
    CONNECTION_ACTIVE = 0xC000_023B,
    NETWORK_UNREACHABLE = 0xC000_023C,
    HOST_UNREACHABLE = 0xC000_023D,
    PROTOCOL_UNREACHABLE = 0xC000_023E,
    PORT_UNREACHABLE = 0xC000_023F,
    REQUEST_ABORTED = 0xC000_0240,
    CONNECTION_ABORTED = 0xC000_0241,
    INSUFFICIENT_LOGON_INFO = 0xC000_0250,
    NO_CALLBACK_ACTIVE = 0xC000_0258,
    RESOURCE_NOT_OWNED = 0xC000_0264,
    DRIVER_UNABLE_TO_LOAD = 0xC000_026C,
    VALIDATE_CONTINUE = 0xC000_0271,
    NO_MATCH = 0xC000_0272,
    SOURCE_ELEMENT_EMPTY = 0xC000_0283,
    ENCRYPTION_FAILED = 0xC000_028A,
    DECRYPTION_FAILED = 0xC000_028B,
    /// The device is gone.
    DEVICE_REMOVED = 0xC000_02B6,
    PNP_RESTART_ENUMERATION = 0xC000_02CE,
    PNP_REBOOT_REQUIRED = 0xC000_02D2,
    POWER_STATE_INVALID = 0xC000_02D3,
    SYSTEM_SHUTDOWN = 0xC000_02EB,
    UNFINISHED_CONTEXT_DELETED = 0xC000_02EE,
    DEVICE_ENUMERATION_ERROR = 0xC000_0366,
    INVALID_DEVICE_OBJECT_PARAMETER = 0xC000_0369,
    DRIVER_BLOCKED = 0xC000_036C,
    DRIVER_DATABASE_ERROR = 0xC000_036D,
    HEAP_CORRUPTION = 0xC000_0374,
    PARAMETER_QUOTA_EXCEEDED = 0xC000_0410,
    ASSERTION_FAILURE = 0xC000_0420,
    INCOMPATIBLE_DRIVER_BLOCKED = 0xC000_0424,
    INVALID_LABEL = 0xC000_0446,
    DEVICE_FEATURE_NOT_SUPPORTED = 0xC000_0463,
    DEVICE_UNREACHABLE = 0xC000_0464,
    FILE_NOT_AVAILABLE = 0xC000_0467,
    DEVICE_INSUFFICIENT_RESOURCES = 0xC000_0468,
    DATA_CHECKSUM_ERROR = 0xC000_0470,
    IO_OPERATION_TIMEOUT = 0xC000_047D,
    PNP_DEVICE_CONFIGURATION_PENDING = 0xC000_0495,
    INVALID_TASK_NAME = 0xC000_0500,
    CALLBACK_BYPASS = 0xC000_0503,
    DEVICE_HUNG = 0xC000_0507,
    INTERRUPTED = 0xC000_0515,
    RESOURCE_IN_USE = 0xC000_0708,
    ALREADY_REGISTERED = 0xC000_0718,
    INVALID_THREAD = 0xC000_071C,
    BAD_MCFG_TABLE = 0xC000_0908,
    WOW_ASSERTION = 0xC000_9898,
    INVALID_SIGNATURE = 0xC000_A000,
    HMAC_NOT_SUPPORTED = 0xC000_A001,
    AUTH_TAG_MISMATCH = 0xC000_A002,
    INVALID_STATE_TRANSITION = 0xC000_A003,
    HASH_NOT_SUPPORTED = 0xC000_A100,
    HASH_NOT_PRESENT = 0xC000_A101,
    PNP_BAD_MPS_TABLE = 0xC004_0035,
    PNP_TRANSLATION_FAILED = 0xC004_0036,
    PNP_IRQ_TRANSLATION_FAILED = 0xC004_0037,
    PNP_INVALID_ID = 0xC004_0038,
    IO_REISSUE_AS_CACHED = 0xC004_0039,
    FLT_NOT_INITIALIZED = 0xC01C_0007,
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
    fn an_error_is_never_reported_as_a_success() {
        for status in [NtStatus::SUCCESS, NtStatus::TIMEOUT, NtStatus::PENDING] {
            assert_eq!(NtStatus::from_result(Err(status)), NtStatus::UNSUCCESSFUL);
        }
        assert_eq!(
            NtStatus::from_result(Err(NtStatus::DEVICE_BUSY)),
            NtStatus::DEVICE_BUSY
        );
        assert_eq!(NtStatus::from_result(Ok(())), NtStatus::SUCCESS);
    }

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
