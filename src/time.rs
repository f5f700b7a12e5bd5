// SPDX-License-Identifier: MIT OR Apache-2.0

//! Points in time, spans of time, and how long to wait.
//!
//! The kernel counts in units of 100 ns and packs two meanings into one
//! `LARGE_INTEGER`: negative is relative, positive absolute. [`Timeout`] says
//! which is meant, and one function of this module, used by every wait and
//! timer, turns it into that number.
//!
//! # Vocabulary
//!
//! - *system time*: 100 ns units since 1 January 1601 (UTC). It jumps when
//!   somebody sets the clock. [`SystemTime`].
//! - *interrupt time*: 100 ns units since the system started. It never jumps.
//!   [`Instant`].
//! - *performance counter*: ticks of the finest clock that the machine has.
//!   [`PerformanceCounter`].
//! - *clock tick*: what timeouts and timers end on, 15.625 ms apart by default.
//!   [`tick`].
//! - *relative* due times follow interrupt time; *absolute* ones follow system time.
//!
//! | To | use |
//! |---|---|
//! | wait at most, or until | [`Timeout`] |
//! | measure how long something took | [`Instant`] |
//! | measure that in less than a microsecond | [`PerformanceCounter`] |
//! | tell the time | [`SystemTime`] |
//!
//! See [system time and interrupt time][ms].
//!
//! [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kequeryinterrupttimeprecise

use core::fmt;
use core::mem::MaybeUninit;
use core::time::Duration;

use crate::sys;

/// Units of the kernel's clock in one second.
const UNITS_PER_SECOND: u64 = 10_000_000;
/// Nanoseconds in one unit of the kernel's clock.
const NANOSECONDS_PER_UNIT: u32 = 100;

/// 1 January 1970 in units since 1 January 1601: 134,774 days.
const UNIX_EPOCH: i64 = 134_774 * 24 * 60 * 60 * 10_000_000;

/// How long to wait.
///
/// A [`Duration`] converts into [`After`](Self::After), so a function that takes
/// `impl Into<Timeout>` can be given either.
///
/// C counterpart: the `Timeout` of [`KeWaitForSingleObject`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kewaitforsingleobject
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timeout {
    /// Not at all: look, and return.
    Poll,
    /// At most this long. Rounded up to 100 ns; [`Duration::ZERO`] is [`Poll`](Self::Poll).
    After(Duration),
    /// Until the system time is this.
    At(SystemTime),
    /// Without limit.
    Never,
}

impl Timeout {
    /// The kernel's number for this timeout: `None` is the null pointer that
    /// means "without limit", negative is relative, positive absolute, zero is now.
    ///
    /// Saturates: a duration above 29,000 years waits that long.
    #[must_use]
    pub fn to_due_time(self) -> Option<i64> {
        match self {
            Self::Poll => Some(0),
            Self::After(duration) => Some(-units(duration)),
            Self::At(time) => Some(time.0),
            Self::Never => None,
        }
    }
}

impl From<Duration> for Timeout {
    fn from(duration: Duration) -> Self {
        Self::After(duration)
    }
}

/// A duration in units of 100 ns, rounded up so that a wait is never too short.
fn units(duration: Duration) -> i64 {
    Span::new(duration).0.cast_signed()
}

/// The duration of that many units of 100 ns.
const fn from_units(units: u64) -> Duration {
    let nanoseconds = (units % UNITS_PER_SECOND) as u32 * NANOSECONDS_PER_UNIT;
    Duration::new(units / UNITS_PER_SECOND, nanoseconds)
}

/// A length of time in the kernel's own unit of 100 ns.
///
/// For what is computed often: a [`Duration`] has to be multiplied and divided
/// each time that the kernel is told one.
///
/// ```
/// use core::time::Duration;
/// use dmf::time::Span;
///
/// const PERIOD: Span = Span::new(Duration::from_millis(2));
/// assert_eq!(PERIOD.units(), 20_000);
/// assert_eq!(Duration::from(PERIOD), Duration::from_millis(2));
/// assert_eq!(Span::new(Duration::from_nanos(1)).units(), 1); // rounded up
/// ```
///
/// No C counterpart: there it is a `LONGLONG` whose unit the reader has to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(u64);

impl Span {
    /// No time.
    pub const ZERO: Self = Self(0);

    /// A duration, rounded up to 100 ns. Above 29,000 years it is that long.
    #[must_use]
    pub const fn new(duration: Duration) -> Self {
        let seconds = duration.as_secs().saturating_mul(UNITS_PER_SECOND);
        let fraction = duration.subsec_nanos().div_ceil(NANOSECONDS_PER_UNIT);
        let units = seconds.saturating_add(fraction as u64);
        Self(if units > LONGEST { LONGEST } else { units })
    }

    /// The units of 100 ns.
    #[must_use]
    pub const fn units(self) -> u64 {
        self.0
    }

    /// Several times as long, at most 29,000 years.
    #[must_use]
    pub fn saturating_mul(self, factor: u32) -> Self {
        Self(self.0.saturating_mul(u64::from(factor)).min(LONGEST))
    }

    /// The number by which the kernel knows that something is due after this time.
    pub(crate) const fn to_due_time(self) -> i64 {
        -self.0.cast_signed()
    }
}

/// What a due time can say.
const LONGEST: u64 = i64::MAX.cast_unsigned();

impl From<Duration> for Span {
    fn from(duration: Duration) -> Self {
        Self::new(duration)
    }
}

impl From<Span> for Duration {
    fn from(span: Span) -> Self {
        from_units(span.0)
    }
}

/// A point in system time, in units of 100 ns since 1 January 1601 (UTC).
///
/// Use [`Instant`] to measure how long something took: the system time jumps
/// when the clock is set.
///
/// C counterpart: the `LARGE_INTEGER` of [`KeQuerySystemTimePrecise`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kequerysystemtimeprecise
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SystemTime(i64);

impl SystemTime {
    /// Returns the current system time.
    ///
    /// # IRQL
    /// Any.
    ///
    /// C counterpart: [`KeQuerySystemTimePrecise`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kequerysystemtimeprecise
    #[must_use]
    pub fn now() -> Self {
        let mut time = sys::LARGE_INTEGER::default();
        // SAFETY: `time` is writable for the length of the call.
        unsafe { sys::ntddk::KeQuerySystemTimePrecise(&raw mut time) };
        // SAFETY: the call wrote all eight bytes, and each bit pattern is a number.
        Self(unsafe { time.QuadPart })
    }

    /// The point that many units of 100 ns after 1 January 1601. Negative values
    /// are before any time that Windows has, and become zero.
    #[must_use]
    pub const fn from_units(units: i64) -> Self {
        // A negative number would turn an absolute timeout into a relative one.
        Self(if units < 0 { 0 } else { units })
    }

    /// Units of 100 ns since 1 January 1601.
    #[must_use]
    pub const fn units(self) -> i64 {
        self.0
    }

    /// The point `duration` later. Saturates.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(units(duration)))
    }

    /// The point that long after 1 January 1970 (UTC), as Unix and most files
    /// count. Saturates.
    ///
    /// ```
    /// use core::time::Duration;
    /// use dmf::time::SystemTime;
    ///
    /// let time = SystemTime::from_unix(Duration::from_secs(1_000_000_000));
    /// assert_eq!(time.units(), 126_444_736_000_000_000);
    /// assert_eq!(time.to_unix(), Duration::from_secs(1_000_000_000));
    /// ```
    ///
    /// C counterpart: [`RtlSecondsSince1970ToTime`][ms], which ends in 2106.
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/ntifs/nf-ntifs-rtlsecondssince1970totime
    #[must_use]
    pub fn from_unix(since: Duration) -> Self {
        Self(UNIX_EPOCH).after(since)
    }

    /// How long it is after 1 January 1970 (UTC); zero if it is before.
    #[must_use]
    pub fn to_unix(self) -> Duration {
        self.since(Self(UNIX_EPOCH))
    }

    /// How long `self` is after `earlier`; zero if it is before.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        from_units(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

/// A point in interrupt time: what to measure with.
///
/// ```
/// use dmf::prelude::*;
///
/// # ntsim::run(|| {
/// # let irql = &unsafe { Irql::<Passive>::assume() };
/// let start = Instant::now();
/// dmf::sync::delay(irql, Duration::from_secs(1));
/// assert!(start.elapsed() >= Duration::from_secs(1));
/// # });
/// ```
///
/// C counterpart: the `ULONG64` of [`KeQueryInterruptTimePrecise`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kequeryinterrupttimeprecise
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// Returns the current interrupt time.
    ///
    /// # IRQL
    /// Any.
    ///
    /// C counterpart: [`KeQueryInterruptTimePrecise`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kequeryinterrupttimeprecise
    #[must_use]
    pub fn now() -> Self {
        let mut counter = MaybeUninit::uninit();
        // SAFETY: `counter` is writable for the length of the call.
        Self(unsafe { sys::ntddk::KeQueryInterruptTimePrecise(counter.as_mut_ptr()) })
    }

    /// Units of 100 ns since the system started.
    #[must_use]
    pub const fn units(self) -> u64 {
        self.0
    }

    /// The point that many units of 100 ns after the system started.
    #[must_use]
    pub const fn from_units(units: u64) -> Self {
        Self(units)
    }

    /// The point that long after `self`.
    #[must_use]
    pub const fn saturating_add(self, span: Span) -> Self {
        Self(self.0.saturating_add(span.0))
    }

    /// How long `self` is after `earlier`, in the kernel's unit; zero if it is before.
    #[must_use]
    pub const fn span_since(self, earlier: Self) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }

    /// How long ago `self` was.
    #[must_use]
    pub fn elapsed(self) -> Duration {
        Self::now().since(self)
    }

    /// How long `self` is after `earlier`; zero if it is before.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        from_units(self.0.saturating_sub(earlier.0))
    }

    /// Returns how long the system has been running, without the time that it slept.
    ///
    /// Accurate to one [`tick`].
    ///
    /// # IRQL
    /// Any.
    ///
    /// C counterpart: [`KeQueryUnbiasedInterruptTime`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kequeryunbiasedinterrupttime
    #[must_use]
    pub fn unbiased() -> Duration {
        // SAFETY: callable at any level.
        from_units(unsafe { sys::ntddk::KeQueryUnbiasedInterruptTime() })
    }
}

/// Returns the time between two clock ticks.
///
/// # IRQL
/// Any.
///
/// C counterpart: [`KeQueryTimeIncrement`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kequerytimeincrement
#[must_use]
pub fn tick() -> Duration {
    // SAFETY: callable at any level.
    from_units(u64::from(unsafe { sys::ntddk::KeQueryTimeIncrement() }))
}

/// A reading of the finest clock, in ticks of its own [`frequency`](Self::frequency).
///
/// Use [`Instant`] unless 100 ns are too coarse: the conversion of a counter
/// costs two divisions.
///
/// ```
/// use dmf::prelude::*;
/// use dmf::time::PerformanceCounter;
///
/// # ntsim::run(|| {
/// let start = PerformanceCounter::now();
/// dmf::sync::stall(Duration::from_micros(10))?;
/// assert!(start.elapsed() >= Duration::from_micros(10));
/// # Ok::<_, NtStatus>(())
/// # }).unwrap();
/// ```
///
/// C counterpart: [`KeQueryPerformanceCounter`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/ntifs/nf-ntifs-kequeryperformancecounter
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PerformanceCounter(i64);

impl PerformanceCounter {
    /// Returns the counter.
    ///
    /// # IRQL
    /// Any.
    #[must_use]
    pub fn now() -> Self {
        Self::query().0
    }

    /// Returns the ticks of the counter in one second. It does not change while
    /// the system runs.
    ///
    /// # IRQL
    /// Any.
    #[must_use]
    pub fn frequency() -> u64 {
        Self::query().1
    }

    /// The counter's ticks.
    #[must_use]
    pub const fn ticks(self) -> i64 {
        self.0
    }

    /// How long ago `self` was; zero if it is yet to come.
    ///
    /// # IRQL
    /// Any.
    #[must_use]
    pub fn elapsed(self) -> Duration {
        let (now, frequency) = Self::query();
        now.since(self, frequency)
    }

    /// How long `self` is after `earlier`, for a counter of that
    /// [`frequency`](Self::frequency); zero if it is before, or if `frequency` is 0.
    #[must_use]
    pub fn since(self, earlier: Self, frequency: u64) -> Duration {
        let ticks = u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0);
        if frequency == 0 {
            return Duration::ZERO;
        }
        let fraction = u128::from(ticks % frequency) * 1_000_000_000 / u128::from(frequency);
        // Less than a second.
        let nanoseconds = u32::try_from(fraction).unwrap_or(0);
        Duration::new(ticks / frequency, nanoseconds)
    }

    fn query() -> (Self, u64) {
        let mut frequency = sys::LARGE_INTEGER::default();
        // SAFETY: `frequency` is writable for the length of the call.
        let counter = unsafe { sys::ntddk::KeQueryPerformanceCounter(&raw mut frequency) };
        // SAFETY: each bit pattern is a number.
        let counter = unsafe { counter.QuadPart };
        // SAFETY: the call wrote all eight bytes, and each bit pattern is a number.
        let frequency = unsafe { frequency.QuadPart };
        (Self(counter), u64::try_from(frequency).unwrap_or(0))
    }
}

/// Seconds with one digit, rounded, without floating point: `4.2 s`.
///
/// ```
/// use core::time::Duration;
/// assert_eq!(format!("{}", dmf::time::Tenths(Duration::from_millis(4_160))), "4.2 s");
/// ```
///
/// No C counterpart.
#[derive(Clone, Copy, Debug)]
pub struct Tenths(pub Duration);

impl fmt::Display for Tenths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths = self.0.as_millis().saturating_add(50) / 100;
        write!(f, "{}.{} s", tenths / 10, tenths % 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relative_timeout_is_negative_in_units_of_100_ns() {
        assert_eq!(
            Timeout::After(Duration::from_millis(10)).to_due_time(),
            Some(-100_000)
        );
        assert_eq!(
            Timeout::from(Duration::from_secs(1)).to_due_time(),
            Some(-10_000_000)
        );
    }

    #[test]
    fn an_absolute_timeout_is_positive() {
        let time = SystemTime::from_units(133_000_000_000_000_000);
        assert_eq!(
            Timeout::At(time).to_due_time(),
            Some(133_000_000_000_000_000)
        );
        assert_eq!(
            Timeout::At(SystemTime::from_units(-5)).to_due_time(),
            Some(0)
        );
    }

    #[test]
    fn a_fraction_of_a_unit_is_rounded_up() {
        assert_eq!(
            Timeout::After(Duration::from_nanos(1)).to_due_time(),
            Some(-1)
        );
        assert_eq!(
            Timeout::After(Duration::from_nanos(101)).to_due_time(),
            Some(-2)
        );
        assert_eq!(
            Timeout::After(Duration::new(1, 999_999_999)).to_due_time(),
            Some(-20_000_000)
        );
    }

    #[test]
    fn zero_polls_and_never_is_no_number() {
        assert_eq!(Timeout::Poll.to_due_time(), Some(0));
        assert_eq!(Timeout::After(Duration::ZERO).to_due_time(), Some(0));
        assert_eq!(Timeout::Never.to_due_time(), None);
    }

    #[test]
    fn the_longest_duration_saturates() {
        assert_eq!(Timeout::After(Duration::MAX).to_due_time(), Some(-i64::MAX));
        assert_eq!(
            SystemTime::from_units(i64::MAX)
                .after(Duration::MAX)
                .units(),
            i64::MAX
        );
    }

    #[test]
    fn a_span_that_ends_before_it_starts_is_zero() {
        assert_eq!(Instant(5).since(Instant(15)), Duration::ZERO);
        assert_eq!(SystemTime(5).since(SystemTime(15)), Duration::ZERO);
        assert_eq!(Instant(25).since(Instant(15)), Duration::from_micros(1));
    }

    #[test]
    fn a_counter_is_converted_without_overflow_or_loss() {
        let hour = PerformanceCounter(3_600 * 24_000_000 + 1);
        assert_eq!(
            hour.since(PerformanceCounter(0), 24_000_000),
            Duration::new(3_600, 41)
        );
        assert_eq!(
            PerformanceCounter(i64::MAX).since(PerformanceCounter(0), 1),
            Duration::from_secs(i64::MAX.unsigned_abs())
        );
        assert_eq!(
            PerformanceCounter(0).since(hour, 24_000_000),
            Duration::ZERO
        );
        assert_eq!(hour.since(PerformanceCounter(0), 0), Duration::ZERO);
    }

    #[test]
    fn tenths_are_rounded() {
        let show = |milliseconds| std::format!("{}", Tenths(Duration::from_millis(milliseconds)));
        assert_eq!(
            [show(49), show(50), show(9_960)],
            ["0.0 s", "0.1 s", "10.0 s"]
        );
    }
}
