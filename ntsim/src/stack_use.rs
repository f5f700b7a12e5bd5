// SPDX-License-Identifier: MIT OR Apache-2.0

//! How much of its stack a thread or DPC has used:
//! <https://learn.microsoft.com/windows-hardware/drivers/kernel/using-the-kernel-stack>.
//!
//! Its stack is painted before it runs; when it ends, the paint begins where it never was.

use std::ops::Range;

use crate::kernel::{ContextId, Kernel};
use crate::memory::PAGE_SIZE;
use crate::rules::memory as rules;

/// What nobody writes by chance.
const PAINT: u64 = 0x5AFE_57AC_C5EE_D5AF;

/// The words of a stack behind its guard page.
fn words(stack: &Range<usize>) -> (*mut u64, usize) {
    let start = stack.start + PAGE_SIZE;
    (start as *mut u64, (stack.end - start) / size_of::<u64>())
}

/// Paints a stack that nobody runs on yet.
pub(crate) fn paint(stack: &Range<usize>) {
    let (first, count) = words(stack);
    // SAFETY: the pages of a coroutine's stack behind the guard page, which is below, are
    // mapped and writable until it is dropped; its coroutine has not been made yet.
    let words = unsafe { std::slice::from_raw_parts_mut(first, count) };
    words.fill(PAINT);
}

/// Checks what was used by a context that has ended.
pub(crate) fn check(k: &mut Kernel, id: ContextId) {
    let Some(limit) = k.settings.stack_limit else {
        return;
    };
    let (first, count) = words(&k.context(id).stack);
    // SAFETY: as above; the context does not run, so that nobody writes to its stack.
    let words = unsafe { std::slice::from_raw_parts(first, count) };
    let free = words.iter().take_while(|word| **word == PAINT).count();
    let (used, all) = ((words.len() - free) * size_of::<u64>(), size_of_val(words));
    let percent = used * 100 / all;
    if percent > limit as usize {
        let name = k.context(id).name.clone();
        k.broken(
            &rules::STACK_USE,
            &[],
            format!("{name} used {used} of the {all} bytes of its stack ({percent} %); the settings allow {limit} %"),
        );
    }
}
