// SPDX-License-Identifier: MIT OR Apache-2.0

//! Statuses, time, strings, pool, traces.

use core::fmt::Write as _;

use dmf::pool::{Arc, Box, PagedBox, PagedVec, Tag, Vec, tag};
use dmf::prelude::*;
use dmf::string::{UnicodeStr, UnicodeString};
use dmf::time::{PerformanceCounter, Span, SystemTime, Tenths};
use dmf::{sync, unicode_string};

use crate::Surface;
use crate::tell::Teller;

pub fn time(_: &Surface, irql: &mut Irql<'_, Passive>, tell: &mut Teller) -> Result {
    let start = Instant::now();
    tell.value("instant", start.units());
    let now = SystemTime::now();
    tell.value("system time", now.units());
    tell.value("since 1970", now.to_unix());
    tell.value("back", SystemTime::from_unix(now.to_unix()) == now);
    tell.value("in an hour", now.after(Duration::from_hours(1)).since(now));
    for timeout in [
        Timeout::Poll,
        Timeout::After(Duration::from_millis(3)),
        Timeout::After(Duration::MAX),
        Timeout::At(now),
        Timeout::Never,
    ] {
        tell.value("due", timeout.to_due_time());
    }
    tell.value(
        "span",
        Span::new(Duration::from_nanos(101))
            .saturating_mul(u32::MAX)
            .units(),
    );
    tell.value("tick", dmf::time::tick());
    tell.value("unbiased", Instant::unbiased());
    let counter = PerformanceCounter::now();
    tell.value("counter", counter.ticks());
    tell.value("frequency", PerformanceCounter::frequency());
    sync::delay(irql, Duration::from_millis(1234));
    tell.value("counted", counter.elapsed());
    tell.value("elapsed", start.elapsed());
    tell.value("tenths", format_args!("{}", Tenths(start.elapsed())));
    tell.value("stall", sync::stall(Duration::from_micros(50)));
    tell.value("a long stall", sync::stall(Duration::from_micros(51)));
    Ok(())
}

pub fn strings(_: &Surface, irql: &mut Irql<'_, Passive>, tell: &mut Teller) -> Result {
    let literal = unicode_string!("Grüße, 𝄞");
    tell.value("literal", literal);
    tell.value("units", literal.units().len());
    tell.value("equal", literal.eq_str("Grüße, 𝄞"));
    let mut owned = UnicodeString::format(format_args!("{}-{:04x}", "dmf", 0xBEEF))?;
    tell.value("formatted", &owned);
    owned.push_str("-é")?;
    owned.push_units(&[0xD834])?;
    tell.value("a lone surrogate", format_args!("{owned}"));
    write!(owned, " {}", 7).map_err(|_| NtStatus::INSUFFICIENT_RESOURCES)?;
    tell.value("written", owned.as_str().units().len());
    let (small, large) = (unicode_string!("äbc"), unicode_string!("ÄBC"));
    tell.value("compared", small.compare_ignore_case(irql, large));
    tell.value("same", small.eq_ignore_case(irql, large));
    tell.value(
        "starts",
        large.starts_with_ignore_case(irql, unicode_string!("äb")),
    );
    let long = Vec::<u16>::with_capacity(1).and_then(|mut units| {
        units.resize(dmf::string::MAXIMUM_UNITS + 1, &0x41)?;
        Ok(units)
    })?;
    tell.value("too long", UnicodeStr::new(&long).err());
    tell.value("too long to own", UnicodeString::from_units(&long).err());
    owned.clear();
    tell.value("cleared", owned.as_str().is_empty());
    Ok(())
}

enum SurfaceTag {}
impl Tag for SurfaceTag {
    const TAG: u32 = tag(b"Surf");
}

/// Aligned as much as the pool can.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Line(#[allow(dead_code, reason = "shown")] u8);

pub fn pool(_: &Surface, irql: &mut Irql<'_, Passive>, tell: &mut Teller) -> Result {
    let boxed = Box::<_, SurfaceTag>::new_tagged(Line(7))?;
    tell.value("box", &boxed);
    tell.value("inner", Box::into_inner(boxed));
    let shared = Arc::new(5_u32)?;
    let other = shared.clone();
    tell.value(
        "arc",
        (&shared, Arc::count(&shared), Arc::ptr_eq(&shared, &other)),
    );
    tell.value("unwrap", Arc::try_unwrap(shared).is_err());
    tell.value("the last", Arc::try_unwrap(other).ok());
    let mut list = Vec::<_, SurfaceTag>::new_tagged();
    for number in 0..20_u32 {
        list.push(number)?;
    }
    list.extend_from_slice(&[1, 2, 3])?;
    tell.value("popped", list.pop());
    tell.value("removed", list.remove(3));
    list.truncate(6);
    tell.value("list", &list);
    tell.value("too much", list.reserve(usize::MAX / 8));
    let mut paged = PagedBox::new(irql, [1_u8; 5000])?;
    paged.get_mut(irql)[4999] = 2;
    tell.value("paged", paged.get(irql)[4999]);
    let mut bytes = PagedVec::new(irql, 3, 0_u16)?;
    bytes.get_mut(irql)[1] = 9;
    tell.value("paged list", bytes.get(irql));
    tell.value("nothing", PagedVec::new(irql, 0, 0_u16)?.get(irql).len());
    tell.value("zero-sized", Box::new(())?);
    Ok(())
}

pub fn traces(_: &Surface, _irql: &mut Irql<'_, Passive>, tell: &mut Teller) -> Result {
    dmf::error!("{} {:>6}", "error", 1);
    dmf::warn!("warn {:#x}", 2);
    dmf::info!("info {:?}", Some(3));
    dmf::debug!("debug");
    dmf::trace!("trace");
    dmf::print!("half a line, ");
    dmf::println!("and the rest, with 100% of %s");
    tell.value("dbg", dmf::dbg!(1 + 1));
    // Longer than what DbgPrint takes at once.
    dmf::println!("{:=<600}", "long");
    for raw in [
        0,
        0x102,
        0x4000_0000,
        0x8000_0005,
        0xC000_0120,
        0xC000_0001,
        0xDEAD_BEEF_u32,
    ] {
        let status = NtStatus::from_raw(raw.cast_signed());
        tell.value(
            "status",
            format_args!("{status} {status:?} {:?}", status.severity()),
        );
    }
    Ok(())
}
