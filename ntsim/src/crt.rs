// SPDX-License-Identifier: MIT OR Apache-2.0

//! What compilers call behind the driver's back, for images only: a linked-in
//! driver has the host's own. These are plain computation: no traps, no trace.

use crate::count::approach;
use crate::exports::Export;

/// `memcpy`, which overlaps as `memmove` does in the kernel.
unsafe extern "win64" fn memcpy(to: *mut u8, from: *const u8, length: usize) -> *mut u8 {
    // SAFETY: the driver's contract; a bad address faults on the driver's stack.
    unsafe { to.copy_from(from, length) };
    approach();
    to
}

unsafe extern "win64" fn memset(to: *mut u8, value: i32, length: usize) -> *mut u8 {
    // SAFETY: as for `memcpy`.
    unsafe { to.write_bytes(value.to_le_bytes()[0], length) };
    approach();
    to
}

unsafe extern "win64" fn memcmp(a: *const u8, b: *const u8, length: usize) -> i32 {
    let result = compare(a, b, length);
    approach();
    result
}

fn compare(a: *const u8, b: *const u8, length: usize) -> i32 {
    for index in 0..length {
        let (a, b) = (
            crate::access::peek(a.wrapping_add(index)),
            crate::access::peek(b.wrapping_add(index)),
        );
        if a != b {
            return i32::from(a) - i32::from(b);
        }
    }
    0
}

unsafe extern "win64" fn strlen(text: *const u8) -> usize {
    let mut length = 0;
    while crate::access::peek(text.wrapping_add(length)) != 0 {
        length += 1;
    }
    approach();
    length
}

macro_rules! crt {
    ($($name:ident),*) => {
        pub(crate) const EXPORTS: &[Export] = &[$(
            Export { dll: "ntoskrnl.exe", name: stringify!($name), host: std::ptr::null(), image: $name as *const () },
        )*];
    };
}

crt!(memcpy, memmove, memset, memcmp, strlen);

unsafe extern "win64" fn memmove(to: *mut u8, from: *const u8, length: usize) -> *mut u8 {
    // SAFETY: as for `memcpy`.
    unsafe { to.copy_from(from, length) };
    approach();
    to
}
