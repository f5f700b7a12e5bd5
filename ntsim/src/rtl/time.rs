// SPDX-License-Identifier: MIT OR Apache-2.0

//! Calendar time: system time is 100 ns units since 1601-01-01, which was a Monday.

use crate::access::{peek, poke};

/// `TIME_FIELDS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimeFields {
    year: i16,
    month: i16,
    day: i16,
    hour: i16,
    minute: i16,
    second: i16,
    milliseconds: i16,
    weekday: i16,
}

const MILLISECOND: i64 = 10_000;
const DAY: i64 = 86_400_000;
/// Days from 0000-03-01, where the calendar's four-century cycle starts, to 1601-01-01.
const EPOCH_DAYS: i64 = 584_694;
/// Days in four centuries.
const ERA: i64 = 146_097;

fn small(value: i64) -> i16 {
    i16::try_from(value).unwrap_or(i16::MAX)
}

/// The calendar date of a day counted from 1601-01-01.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + EPOCH_DAYS;
    let era = shifted.div_euclid(ERA);
    let day_of_era = shifted.rem_euclid(ERA);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Months count from March, so that the leap day is the year's last.
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day)
}

/// The day, counted from 1601-01-01, of a calendar date.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    era * ERA + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - EPOCH_DAYS
}

fn fields(time: i64) -> TimeFields {
    let milliseconds = time.div_euclid(MILLISECOND);
    let (day_number, rest) = (milliseconds.div_euclid(DAY), milliseconds.rem_euclid(DAY));
    let (year, month, day) = civil(day_number);
    TimeFields {
        year: small(year),
        month: small(month),
        day: small(day),
        hour: small(rest / 3_600_000),
        minute: small(rest / 60_000 % 60),
        second: small(rest / 1_000 % 60),
        milliseconds: small(rest % 1_000),
        weekday: small((day_number + 1).rem_euclid(7)),
    }
}

fn time(fields: &TimeFields) -> Option<i64> {
    let [year, month, day] = [fields.year, fields.month, fields.day].map(i64::from);
    let of_day = [
        (fields.hour, 24),
        (fields.minute, 60),
        (fields.second, 60),
        (fields.milliseconds, 1_000),
    ];
    let mut rest = 0;
    for (value, limit) in of_day {
        let value = i64::from(value);
        if !(0..limit).contains(&value) {
            return None;
        }
        rest = rest * limit + value;
    }
    if year < 1601 || !(1..=12).contains(&month) || day < 1 {
        return None;
    }
    let number = days(year, month, day);
    // A day that the month does not have is another month's.
    (civil(number) == (year, month, day)).then(|| (number * DAY + rest) * MILLISECOND)
}

/// `RtlTimeToTimeFields`.
pub(crate) fn rtl_time_to_time_fields(from: *const i64, to: *mut TimeFields) {
    poke(to, fields(peek(from)));
}

/// `RtlTimeFieldsToTime`: false for a date that there is not.
pub(crate) fn rtl_time_fields_to_time(from: *const TimeFields, to: *mut i64) -> u8 {
    match time(&peek(from)) {
        Some(time) => {
            poke(to, time);
            1
        }
        None => 0,
    }
}

/// Seconds from 1601 to 1970.
const TO_1970: i64 = 11_644_473_600;
const SECOND: i64 = 10_000_000;

/// `RtlTimeToSecondsSince1970`: false outside of what 32 bits hold.
pub(crate) fn rtl_time_to_seconds_since_1970(from: *const i64, to: *mut u32) -> u8 {
    match u32::try_from(peek(from).div_euclid(SECOND) - TO_1970) {
        Ok(seconds) => {
            poke(to, seconds);
            1
        }
        Err(_) => 0,
    }
}

/// `RtlSecondsSince1970ToTime`.
pub(crate) fn rtl_seconds_since_1970_to_time(seconds: u32, to: *mut i64) {
    poke(to, (i64::from(seconds) + TO_1970) * SECOND);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_epoch_was_a_monday_and_the_way_back_is_exact() {
        let start = fields(0);
        assert_eq!(
            (start.year, start.month, start.day, start.weekday),
            (1601, 1, 1, 1)
        );
        // Unix time 951_782_400 is 2000-02-29, a Tuesday.
        let leap = fields((951_782_400 + TO_1970) * SECOND + 12_345 * MILLISECOND);
        let expected = TimeFields {
            year: 2000,
            month: 2,
            day: 29,
            hour: 0,
            minute: 0,
            second: 12,
            milliseconds: 345,
            weekday: 2,
        };
        assert_eq!(leap, expected);
        for at in (0..400_000).step_by(997) {
            assert_eq!(
                time(&fields(at * DAY * MILLISECOND)),
                Some(at * DAY * MILLISECOND)
            );
        }
        assert_eq!(
            time(&TimeFields {
                year: 2023,
                month: 2,
                day: 29,
                ..leap
            }),
            None
        );
    }
}
