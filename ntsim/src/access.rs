// SPDX-License-Identifier: MIT OR Apache-2.0

//! Reading and writing memory that a driver pointed at.
//!
//! These run on the driver's own context, never inside a trap. If the address
//! is bad the processor faults there, and [`crate::fault`] turns that into the
//! bug check that the driver would have got from the real kernel. That is why
//! they can be called with any address: the simulation ends, the process does
//! not.

/// Reads a value from the driver's memory.
pub(crate) fn peek<T: Copy>(from: *const T) -> T {
    // SAFETY: a bad address does not return: the fault ends the simulation (see
    // the module documentation). A good one holds plain old data: every `T` used
    // here is an integer, a pointer or a `repr(C)` record of those, for which any
    // bit pattern is valid. Alignment is not assumed.
    unsafe { from.read_unaligned() }
}

/// Writes a value to the driver's memory.
pub(crate) fn poke<T: Copy>(to: *mut T, value: T) {
    // SAFETY: as for `peek`; the driver gave the address for the kernel to write to.
    unsafe { to.write_unaligned(value) }
}

/// Reads `length` bytes.
pub(crate) fn peek_bytes(from: *const u8, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    // SAFETY: `bytes` has room for `length` bytes and is not the driver's; a bad
    // source ends the simulation as in `peek`.
    unsafe { from.copy_to_nonoverlapping(bytes.as_mut_ptr(), length) };
    bytes
}

/// Writes bytes.
pub(crate) fn poke_bytes(to: *mut u8, bytes: &[u8]) {
    // SAFETY: `bytes` is the simulator's own; a bad destination ends the
    // simulation as in `peek`.
    unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) }
}

/// Reads the text of a C string, at most 4096 bytes of it.
pub(crate) fn peek_c_str(from: *const u8) -> Vec<u8> {
    (0..4096)
        .map(|index| peek(from.wrapping_add(index)))
        .take_while(|byte| *byte != 0)
        .collect()
}

/// An address, handle or other pointer-sized token: the trace shows its name.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Addr(pub(crate) usize);

impl crate::trace::Arg for Addr {
    fn show(&self, k: &crate::kernel::Kernel, out: &mut String) {
        k.show_address(self.0, out);
    }
}

/// A register or stack slot of a variadic call, which may hold anything: the
/// trace leaves it out.
#[repr(transparent)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot(pub(crate) usize);

impl crate::trace::Arg for Slot {
    fn show(&self, _: &crate::kernel::Kernel, _: &mut String) {}
}

/// `UNICODE_STRING`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct UnicodeString {
    /// Bytes of text.
    pub(crate) length: u16,
    /// Bytes of room.
    pub(crate) maximum_length: u16,
    pub(crate) buffer: *mut u16,
}

/// Reads the code units of a `UNICODE_STRING`.
pub(crate) fn peek_unicode(from: *const UnicodeString) -> Vec<u16> {
    let string = peek(from);
    (0..usize::from(string.length) / 2)
        .map(|index| peek(string.buffer.wrapping_add(index)))
        .collect()
}
