// SPDX-License-Identifier: MIT OR Apache-2.0

//! A schedule as a value, and as a line of text that can be mailed.
//!
//! # The text
//! `nts1-` and then [base64url][rfc] without padding of a zlib stream, whose
//! Adler-32 notices damage. In it, as LEB128 numbers: how many points there are;
//! the number of options of each; the choice at each, 0 for the [default] and
//! otherwise the option's index plus one. A schedule with few preemptions is
//! almost all zeros, so the text is short.
//!
//! [rfc]: https://www.rfc-editor.org/rfc/rfc4648#section-5
//! [default]: crate::explore#vocabulary

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64URL_NOPAD;
use miniz_oxide::deflate::compress_to_vec_zlib;
use miniz_oxide::inflate::stream::{InflateState, inflate};
use miniz_oxide::{DataFormat, MZError, MZFlush, MZStatus};

use super::tape::Step;

/// What the text begins with; the number is the format's version.
const PREFIX: &str = "nts1-";
/// What every version begins with.
const FAMILY: &str = "nts";
/// No schedule is as long as this, unpacked: a damaged text may say anything.
const LONGEST: usize = 64 << 20;

/// Who ran when: the choice at each [scheduling point](crate::explore#vocabulary)
/// of a run.
///
/// Its text form ([`Display`](fmt::Display), [`FromStr`]) does not depend on how
/// the choices were made, so it replays after the generator has changed. It
/// depends on the driver's code, the settings and ntsim's own code: where those
/// have changed, the [replay](crate::Strategy::Replay) says at which point.
///
/// ```
/// use ntsim::explore::Schedule;
///
/// let schedule: Schedule = "nts1-eNpjZmJiZmBiAAAAQgAN".parse()?;
/// assert_eq!(schedule.to_string(), "nts1-eNpjZmJiZmBiAAAAQgAN");
/// # Ok::<(), ntsim::explore::ScheduleError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Schedule {
    points: Vec<Point>,
}

/// One scheduling point of a [`Schedule`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Point {
    /// How many could run, 2 or more.
    pub(crate) options: u32,
    /// Which of them did; `None` for the default.
    pub(crate) chosen: Option<u32>,
}

/// Why a text is no schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScheduleError {
    /// It does not begin as one.
    #[error("{0:?} is no schedule: one begins with {PREFIX}")]
    Prefix(String),
    /// It is of a format that this version does not know.
    #[error("a schedule of the form {0:?}, which this ntsim does not know: it knows {PREFIX}")]
    Version(String),
    /// There is a character in it that none has.
    #[error("the schedule is damaged: {0:?} at character {1} is none of A-Z, a-z, 0-9, - and _")]
    Character(char, usize),
    /// Something is missing, or was changed.
    #[error("the schedule is damaged or cut off: {0}")]
    Damaged(&'static str),
}

impl Schedule {
    /// The schedule of a run.
    pub(crate) fn of(steps: &[Step]) -> Self {
        let points = steps.iter().filter(|step| step.options > 1);
        Self {
            points: points.map(Step::point).collect(),
        }
    }

    pub(crate) fn from_points(points: Vec<Point>) -> Self {
        Self { points }
    }

    pub(crate) fn points(&self) -> &[Point] {
        &self.points
    }

    /// How many scheduling points there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.points.len()
    }

    /// Whether there was nothing to choose.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.points.is_empty()
    }
}

impl Step {
    /// The step as a schedule has it.
    pub(crate) fn point(&self) -> Point {
        Point {
            options: self.options,
            chosen: (self.chosen != self.default).then_some(self.chosen),
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = Vec::with_capacity(self.points.len() * 2 + 4);
        let count = u32::try_from(self.points.len()).map_err(|_| fmt::Error)?;
        push(&mut bytes, count);
        for point in &self.points {
            push(&mut bytes, point.options);
        }
        for point in &self.points {
            push(&mut bytes, point.chosen.map_or(0, |chosen| chosen + 1));
        }
        f.write_str(PREFIX)?;
        f.write_str(&BASE64URL_NOPAD.encode(&compress_to_vec_zlib(&bytes, 9)))
    }
}

impl FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        let text = text.trim();
        let Some(packed) = text.strip_prefix(PREFIX) else {
            let start: String = text.chars().take(12).collect();
            let version = start
                .strip_prefix(FAMILY)
                .and_then(|rest| rest.split_once('-'))
                .filter(|(version, _)| version.parse::<u32>().is_ok());
            return Err(match version {
                Some((version, _)) => ScheduleError::Version(format!("{FAMILY}{version}-")),
                None => ScheduleError::Prefix(start),
            });
        };
        let foreign = |c: &(usize, char)| !(c.1.is_ascii_alphanumeric() || "-_".contains(c.1));
        if let Some((at, c)) = packed.chars().enumerate().find(foreign) {
            return Err(ScheduleError::Character(c, PREFIX.len() + at + 1));
        }
        let packed = BASE64URL_NOPAD
            .decode(packed.as_bytes())
            .map_err(|_| ScheduleError::Damaged("its length is not one of base64"))?;
        let bytes = unpack(&packed).ok_or(ScheduleError::Damaged(
            "it cannot be unpacked, or its sum is wrong",
        ))?;
        let mut rest = bytes.as_slice();
        let mut next = || pop(&mut rest).ok_or(ScheduleError::Damaged("it ends early"));
        let count = next()? as usize;
        if count > bytes.len() {
            return Err(ScheduleError::Damaged("it ends early"));
        }
        let options = (0..count).map(|_| next()).collect::<Result<Vec<_>, _>>()?;
        let mut points = Vec::with_capacity(count);
        for options in options {
            let symbol = next()?;
            if options < 2 || symbol > options {
                return Err(ScheduleError::Damaged("a choice is none of its options"));
            }
            points.push(Point {
                options,
                chosen: symbol.checked_sub(1),
            });
        }
        if !rest.is_empty() {
            return Err(ScheduleError::Damaged("it goes on after its end"));
        }
        Ok(Self { points })
    }
}

impl serde::Serialize for Schedule {
    /// As its text.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Unpacks a zlib stream that ends where `packed` does.
fn unpack(packed: &[u8]) -> Option<Vec<u8>> {
    let mut size = packed.len() * 8 + 64;
    loop {
        let mut bytes = vec![0; size];
        let mut state = InflateState::new_boxed(DataFormat::Zlib);
        let result = inflate(&mut state, packed, &mut bytes, MZFlush::Finish);
        match result.status {
            Ok(MZStatus::StreamEnd) if result.bytes_consumed == packed.len() => {
                bytes.truncate(result.bytes_written);
                return Some(bytes);
            }
            Err(MZError::Buf) if result.bytes_written == size && size < LONGEST => size *= 8,
            _ => return None,
        }
    }
}

/// Appends a number as LEB128.
fn push(bytes: &mut Vec<u8>, mut value: u32) {
    loop {
        let [low, ..] = value.to_le_bytes();
        value >>= 7;
        if value == 0 {
            bytes.push(low & 0x7F);
            return;
        }
        bytes.push(low | 0x80);
    }
}

/// Takes a number off the front.
fn pop(bytes: &mut &[u8]) -> Option<u32> {
    let mut value = 0_u64;
    for shift in (0..35).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return u32::try_from(value).ok();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(length: u32) -> Schedule {
        let points = (0..length).map(|n| Point {
            options: 2 + n % 3 + u32::from(n % 50 == 0) * 300,
            chosen: (n % 4 == 1).then_some(n % 2),
        });
        Schedule::from_points(points.collect())
    }

    #[test]
    fn a_schedule_comes_back_from_its_text() {
        for length in [0, 1, 2, 127, 128, 5_000] {
            let schedule = schedule(length);
            assert_eq!(schedule.to_string().parse(), Ok(schedule));
        }
    }

    #[test]
    fn a_schedule_of_few_preemptions_is_short() {
        let mut points = vec![
            Point {
                options: 3,
                chosen: None
            };
            2_000
        ];
        points[700].chosen = Some(2);
        points[701].chosen = Some(0);
        let text = Schedule::from_points(points).to_string();
        assert!(text.len() < 80, "{text}");
    }

    #[test]
    fn every_damage_of_one_character_is_noticed() {
        let text = schedule(40).to_string();
        let whole: Schedule = text.parse().unwrap();
        for at in 0..text.len() {
            for c in ['A', 'z', '7', '_', '-', '!', 'ä'] {
                let mut damaged: Vec<char> = text.chars().collect();
                if damaged[at] == c {
                    continue;
                }
                damaged[at] = c;
                let damaged: String = damaged.into_iter().collect();
                let read = damaged.parse::<Schedule>();
                assert!(read.is_err(), "{at} {c}: {:?}", read == Ok(whole));
            }
        }
    }

    #[test]
    fn a_text_that_is_cut_off_or_has_more_is_refused() {
        let text = schedule(40).to_string();
        for end in 0..text.len() {
            assert!(text[..end].parse::<Schedule>().is_err(), "{end}");
        }
        for more in ["A", "AAAA", " nts1-", "="] {
            assert!(format!("{text}{more}").parse::<Schedule>().is_err());
        }
        assert!(format!(" {text}\n").parse::<Schedule>().is_ok());
    }

    #[test]
    fn what_is_wrong_with_a_text_is_told() {
        let error = |text: &str| text.parse::<Schedule>().unwrap_err().to_string();
        assert!(error("").contains("\"\" is no schedule"));
        assert!(error("seed 7").contains("begins with nts1-"));
        assert!(error("nts2-AAAA").contains("\"nts2-\""));
        assert!(error("nts1-AA*A").contains("'*' at character 8"));
        let choice_of_nothing = {
            let mut bytes = Vec::new();
            for number in [1, 2, 4] {
                push(&mut bytes, number);
            }
            PREFIX.to_owned() + &BASE64URL_NOPAD.encode(&compress_to_vec_zlib(&bytes, 9))
        };
        assert!(error(&choice_of_nothing).contains("none of its options"));
    }
}
