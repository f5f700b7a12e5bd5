// SPDX-License-Identifier: MIT OR Apache-2.0

//! Calling the driver: by address, in its calling convention, traced.
//!
//! A driver that is linked into the host program uses the host's C convention,
//! a loaded image the Windows x64 one. Which it is, the address tells.

use crate::access::Addr;
use crate::bugcheck::BugCheck;
use crate::kernel::{DISPATCH_LEVEL, Kernel};
use crate::rules::kmdf;
use crate::trace::{Arg, Event};
use crate::trap::kernel;

/// A calling convention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Abi {
    /// The host's `extern "C"`, through which a Rust panic may unwind.
    Host,
    /// Windows x64.
    Image,
}

/// A value that is passed in one integer register.
pub(crate) trait Word: Arg + Copy {
    fn to_word(self) -> usize;
    fn from_word(word: usize) -> Self;
}

macro_rules! word_for_integers {
    ($($ty:ty),*) => {$(
        impl Word for $ty {
            #[expect(clippy::allow_attributes, reason = "one macro for all widths")]
            #[allow(clippy::cast_sign_loss, clippy::cast_lossless, clippy::cast_possible_truncation, reason = "a register holds the bits, whatever the sign")]
            fn to_word(self) -> usize {
                self as usize
            }
            #[expect(clippy::allow_attributes, reason = "one macro for all widths")]
            #[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "the callee defines only the low bits")]
            fn from_word(word: usize) -> Self {
                word as Self
            }
        }
    )*};
}
word_for_integers!(u8, i8, u16, u32, i32, i64, u64, usize, isize);

impl Word for () {
    fn to_word(self) -> usize {
        0
    }
    fn from_word(_: usize) {}
}

impl<T> Word for *mut T {
    fn to_word(self) -> usize {
        self as usize
    }
    fn from_word(word: usize) -> Self {
        word as Self
    }
}

impl<T> Word for *const T {
    fn to_word(self) -> usize {
        self as usize
    }
    fn from_word(word: usize) -> Self {
        word as Self
    }
}

impl Word for Addr {
    fn to_word(self) -> usize {
        self.0
    }
    fn from_word(word: usize) -> Self {
        Self(word)
    }
}

/// An argument of a callback: its documented name and value.
#[derive(Clone, Copy)]
pub(crate) struct Param<'a> {
    label: &'static str,
    word: usize,
    shown: &'a dyn Arg,
}

/// Names an argument of a callback.
pub(crate) fn param<'a, T: Word>(label: &'static str, value: &'a T) -> Param<'a> {
    Param {
        label,
        word: value.to_word(),
        shown: value,
    }
}

/// Calls the driver's `routine`, which is documented as `name`, from the
/// current context. The call and its result are traced; a routine that returns
/// at another IRQL is a bug check.
pub(crate) fn callback<R: Word>(name: &'static str, routine: usize, params: &[Param<'_>]) -> R {
    callback_returning_at(name, routine, params, |k, before, after| {
        let message = format!("{name} was called at IRQL {before} and returned at {after}");
        let levels = [u64::from(before), u64::from(after)];
        if name.starts_with("Evt") {
            k.broken(&kmdf::CALLBACK_IRQL, &levels, message);
        } else {
            k.bug_check(BugCheck::wdf(0xE, [levels[0], levels[1], 0], message));
        }
    })
}

/// How many critical regions the thread is in, where that counts: below `DISPATCH_LEVEL`.
fn critical_regions(k: &Kernel) -> Option<u32> {
    let thread = k.running_thread().filter(|_| k.irql() < DISPATCH_LEVEL)?;
    Some(k.threads[&thread].critical_regions)
}

/// As [`callback`], with a rule of its own for a routine that returns at
/// another IRQL (the second) than the one it was called at.
pub(crate) fn callback_returning_at<R: Word>(
    name: &'static str,
    routine: usize,
    params: &[Param<'_>],
    other_irql: impl FnOnce(&mut Kernel, u8, u8),
) -> R {
    let (abi, irql, locks, regions, outside) = kernel(|k| {
        if k.settings.trace {
            let args = params
                .iter()
                .map(|param| {
                    let mut text = format!("{}=", param.label);
                    param.shown.show(k, &mut text);
                    text
                })
                .collect::<Vec<_>>()
                .join(", ");
            k.log(Event::Callback { name, args });
        }
        let id = k.running();
        k.context_mut(id).depth += 1;
        let locks = k.context(id).held.len();
        let calls = k.open_call_count(id);
        let outside = std::mem::replace(&mut k.context_mut(id).calls_outside, calls);
        (
            k.io.abi_of(routine),
            k.irql(),
            locks,
            critical_regions(k),
            outside,
        )
    });
    let mut words = [0; 8];
    for (word, param) in words.iter_mut().zip(params) {
        *word = param.word;
    }
    let result = R::from_word(invoke(abi, routine, &words));
    kernel(|k| {
        let id = k.running();
        k.context_mut(id).calls_outside = outside;
        crate::locks::callback_returned(k, name, locks);
        returned(k, name, irql, &result, other_irql);
        if critical_regions(k) != regions && name.starts_with("Evt") && k.irql() == irql {
            let message = format!(
                "{name} was called in {} critical region(s) and returned in {}",
                regions.unwrap_or(0),
                critical_regions(k).unwrap_or(0)
            );
            k.broken(&kmdf::CALLBACK_CRITICAL_REGION, &[routine as u64], message);
        }
    });
    result
}

fn returned(
    k: &mut Kernel,
    name: &'static str,
    before: u8,
    result: &dyn Arg,
    other_irql: impl FnOnce(&mut Kernel, u8, u8),
) {
    let id = k.running();
    let context = k.context_mut(id);
    context.depth = context.depth.saturating_sub(1);
    if k.settings.trace {
        let mut text = String::new();
        result.show(k, &mut text);
        k.log(Event::Return { name, result: text });
    }
    let after = k.irql();
    if after != before {
        other_irql(k, before, after);
    }
}

/// Calls `routine` with eight register-sized arguments; callees take as many
/// as they declare.
fn invoke(abi: Abi, routine: usize, words: &[usize; 8]) -> usize {
    type HostRoutine = unsafe extern "C-unwind" fn(
        usize,
        usize,
        usize,
        usize,
        usize,
        usize,
        usize,
        usize,
    ) -> usize;
    type ImageRoutine =
        unsafe extern "win64" fn(usize, usize, usize, usize, usize, usize, usize, usize) -> usize;
    let [w0, w1, w2, w3, w4, w5, w6, w7] = *words;
    match abi {
        Abi::Host => {
            // SAFETY: the driver registered this address as a function; both
            // conventions let a caller pass more integer arguments than the callee takes.
            let routine = unsafe { std::mem::transmute::<usize, HostRoutine>(routine) };
            // SAFETY: the arguments are those that the callback's documentation
            // gives; an address that is no code faults inside the simulation.
            unsafe { routine(w0, w1, w2, w3, w4, w5, w6, w7) }
        }
        Abi::Image => {
            // SAFETY: as above, for code of a loaded image.
            let routine = unsafe { std::mem::transmute::<usize, ImageRoutine>(routine) };
            crate::count::approach();
            // SAFETY: as above.
            let result = unsafe { routine(w0, w1, w2, w3, w4, w5, w6, w7) };
            crate::count::leave();
            result
        }
    }
}
