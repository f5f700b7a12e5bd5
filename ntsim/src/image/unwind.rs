// SPDX-License-Identifier: MIT OR Apache-2.0

//! Finds the callers of a place in a driver, from the registers there.
//!
//! Image frames are unwound by `.pdata` and `.xdata`, host frames by
//! `.eh_frame`, in one walk: a backtrace from a simulated kernel call begins in
//! ntsim's own thunk and goes on in the driver. `framehop` does the work, since
//! it knows both formats, takes registers and a memory reader from its caller
//! instead of walking the live stack, and profilers depend on it.

use std::ops::{Deref, Range};
use std::sync::Arc;

use framehop::x86_64::{CacheX86_64, Reg, UnwindRegsX86_64, UnwinderX86_64};
use framehop::{FrameAddress, Module, ModuleSectionInfo, Unwinder as _};

use super::Loaded;
use crate::fault::Registers;

/// A backtrace ends after so many frames: endless recursion has enough to see by then.
const MAX_FRAMES: usize = 256;
/// No stack or code is below or above these addresses. Registers are brought into
/// this range before the libraries calculate with them, since those do not expect
/// what a faulting driver's registers hold.
const ADDRESSES: Range<u64> = 0x1000..1 << 62;
/// No frame is as large as this. A stack pointer that jumps further went from a
/// coroutine's stack to the stack of whoever resumed it last, which says nothing.
const MAX_FRAME: u64 = 1 << 20;

/// Walks stacks that go through some images and the host program.
pub struct Unwinder {
    inner: UnwinderX86_64<Bytes>,
    known: Vec<Range<u64>>,
}

impl std::fmt::Debug for Unwinder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unwinder").finish_non_exhaustive()
    }
}

impl Unwinder {
    /// An unwinder for code of `images` and of this process's own modules.
    #[must_use]
    pub fn new(images: &[&Loaded]) -> Self {
        let mut inner = UnwinderX86_64::new();
        let modules = images.iter().map(|loaded| image_module(loaded));
        let mut known = Vec::new();
        for module in modules.chain(host::modules()) {
            known.push(module.avma_range());
            inner.add_module(module);
        }
        Self { inner, known }
    }

    /// The code addresses from `registers.rip` outwards: it first, then return addresses.
    ///
    /// `read` gives the 64-bit value at a stack address, or `None` outside of the stack,
    /// which is where the walk ends. A frame of unknown code ends it too.
    #[must_use]
    pub fn walk(
        &self,
        registers: &Registers,
        mut read: impl FnMut(u64) -> Option<u64>,
    ) -> Vec<u64> {
        let mut addresses = vec![registers.rip];
        let mut state = unwind_registers(registers);
        let mut cache = CacheX86_64::default();
        let mut read = |address| read(address).map(clamp).ok_or(());
        let mut at = FrameAddress::from_instruction_pointer(registers.rip);
        while addresses.len() < MAX_FRAMES {
            let place = at.address_for_lookup();
            if !self.known.iter().any(|range| range.contains(&place)) {
                // Code that nobody knows has no callers that can be trusted.
                break;
            }
            let stack = state.sp()..state.sp() + MAX_FRAME;
            // An error is the end of what can be known.
            let unwound = self
                .inner
                .unwind_frame(at, &mut state, &mut cache, &mut read);
            let Ok(Some(caller)) = unwound else { break };
            let Some(next) = FrameAddress::from_return_address(caller) else {
                break;
            };
            if caller <= ADDRESSES.start || !stack.contains(&state.sp()) {
                break;
            }
            addresses.push(caller);
            at = next;
        }
        addresses
    }

    /// As [`walk`](Self::walk), on memory of this process as it is now: for a
    /// coroutine that is suspended.
    #[must_use]
    pub fn walk_live(&self, registers: &Registers) -> Vec<u64> {
        self.walk(registers, |address| {
            crate::memory::peek_u64(usize::try_from(address).ok()?)
        })
    }
}

fn unwind_registers(registers: &Registers) -> UnwindRegsX86_64 {
    let mut state =
        UnwindRegsX86_64::new(registers.rip, clamp(registers.rsp), clamp(registers.rbp));
    for (register, value) in [
        (Reg::RAX, registers.rax),
        (Reg::RBX, registers.rbx),
        (Reg::RCX, registers.rcx),
        (Reg::RDX, registers.rdx),
        (Reg::RSI, registers.rsi),
        (Reg::RDI, registers.rdi),
        (Reg::R8, registers.r8),
        (Reg::R9, registers.r9),
        (Reg::R10, registers.r10),
        (Reg::R11, registers.r11),
        (Reg::R12, registers.r12),
        (Reg::R13, registers.r13),
        (Reg::R14, registers.r14),
        (Reg::R15, registers.r15),
    ] {
        state.set(register, clamp(value));
    }
    state
}

fn clamp(value: u64) -> u64 {
    value.clamp(ADDRESSES.start, ADDRESSES.end)
}

fn image_module(loaded: &Loaded) -> Module<Bytes> {
    let image = loaded.image();
    let range = loaded.addresses();
    Module::new(
        image.name().to_owned(),
        range.start as u64..range.end as u64,
        range.start as u64,
        ImageSections {
            layout: image.layout.clone(),
            pdata: image.pdata.clone(),
        },
    )
}

/// The whole image as the section that holds everything: drivers keep unwind
/// information and code in sections of many names (`PAGE`, `INIT`, …).
struct ImageSections {
    layout: Arc<[u8]>,
    pdata: Range<u32>,
}

impl ModuleSectionInfo<Bytes> for ImageSections {
    fn base_svma(&self) -> u64 {
        0
    }

    fn section_svma_range(&mut self, name: &[u8]) -> Option<Range<u64>> {
        match name {
            b".text" | b".rdata" => Some(0..self.layout.len() as u64),
            _ => None,
        }
    }

    fn section_data(&mut self, name: &[u8]) -> Option<Bytes> {
        let range = match name {
            b".pdata" => self.pdata.start as usize..self.pdata.end as usize,
            b".text" | b".rdata" => 0..self.layout.len(),
            _ => return None,
        };
        Some(Bytes::Shared(self.layout.clone(), range))
    }
}

enum Bytes {
    Shared(Arc<[u8]>, Range<usize>),
    #[cfg(target_os = "linux")]
    Static(&'static [u8]),
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Shared(bytes, range) => bytes.get(range.clone()).unwrap_or_default(),
            #[cfg(target_os = "linux")]
            Self::Static(bytes) => bytes,
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod host {
    pub(super) fn modules() -> Vec<super::Module<super::Bytes>> {
        Vec::new()
    }
}

/// The program and its shared libraries, as the dynamic linker lists them.
#[cfg(target_os = "linux")]
mod host {
    use std::ffi::{c_int, c_void};

    use framehop::ExplicitModuleSectionInfo;

    use super::{Bytes, Module};

    pub(super) fn modules() -> Vec<Module<Bytes>> {
        let mut modules: Vec<Module<Bytes>> = Vec::new();
        // SAFETY: the callback gets our vector back and the call ends before it does.
        unsafe { libc::dl_iterate_phdr(Some(collect), (&raw mut modules).cast()) };
        modules
    }

    /// # Safety
    /// `info` is a valid description of a module, `modules` points to the vector of `modules()`.
    unsafe extern "C" fn collect(
        info: *mut libc::dl_phdr_info,
        _size: usize,
        modules: *mut c_void,
    ) -> c_int {
        // SAFETY: passed on from the caller.
        let info = unsafe { &*info };
        // SAFETY: likewise.
        let modules = unsafe { &mut *modules.cast::<Vec<Module<Bytes>>>() };
        if info.dlpi_phdr.is_null() {
            return 0;
        }
        // SAFETY: the dynamic linker gives that many program headers.
        let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
        modules.extend(module(info.dlpi_addr, headers));
        0
    }

    fn module(base: u64, headers: &[libc::Elf64_Phdr]) -> Option<Module<Bytes>> {
        let segments = || {
            headers
                .iter()
                .filter(|header| header.p_type == libc::PT_LOAD)
        };
        let text = segments().find(|header| header.p_flags & libc::PF_X != 0)?;
        let hdr = headers
            .iter()
            .find(|header| header.p_type == libc::PT_GNU_EH_FRAME)?;
        let readable = |at: u64, len: u64| -> Option<&'static [u8]> {
            let address = usize::try_from(base + at).ok()?;
            let pointer: *const u8 = std::ptr::with_exposed_provenance(address);
            // SAFETY: part of a loaded read-only segment of this program or of a library
            // that stays loaded; ntsim unloads none.
            Some(unsafe { std::slice::from_raw_parts(pointer, usize::try_from(len).ok()?) })
        };
        let hdr_data = readable(hdr.p_vaddr, hdr.p_memsz)?;
        // The only form that linkers write: version 1, .eh_frame as a signed 32-bit
        // offset from the field itself.
        if hdr_data.len() < 8 || hdr_data[..2] != [1, 0x1B] {
            return None;
        }
        let offset = i32::from_le_bytes(hdr_data[4..8].try_into().ok()?);
        let eh_frame = (hdr.p_vaddr + 4).checked_add_signed(offset.into())?;
        // Nothing says where .eh_frame ends but its terminator; its segment ends behind that.
        let segment =
            segments().find(|s| (s.p_vaddr..s.p_vaddr + s.p_filesz).contains(&eh_frame))?;
        let end = segment.p_vaddr + segment.p_filesz;
        let data = readable(eh_frame, end - eh_frame)?;
        let low = segments().map(|s| s.p_vaddr).min()?;
        let high = segments().map(|s| s.p_vaddr + s.p_memsz).max()?;
        Some(Module::new(
            String::new(),
            base + low..base + high,
            base,
            ExplicitModuleSectionInfo {
                base_svma: 0,
                text_svma: Some(text.p_vaddr..text.p_vaddr + text.p_memsz),
                text: None,
                stubs_svma: None,
                stub_helper_svma: None,
                got_svma: None,
                unwind_info: None,
                eh_frame_svma: Some(eh_frame..end),
                eh_frame: Some(Bytes::Static(data)),
                eh_frame_hdr_svma: Some(hdr.p_vaddr..hdr.p_vaddr + hdr.p_memsz),
                eh_frame_hdr: Some(Bytes::Static(hdr_data)),
                debug_frame: None,
                text_segment_svma: None,
                text_segment: None,
            },
        ))
    }
}
