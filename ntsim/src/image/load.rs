// SPDX-License-Identifier: MIT OR Apache-2.0

//! Maps a checked image into this process so that its code can run.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::ops::Range;
use std::ptr;
use std::sync::Arc;

use super::parse::{Image, ImageError, Problem, Section};
use crate::memory::{Mapping, PAGE_SIZE, Protection};

/// What the linker puts where the loader is to write the stack cookie.
const DEFAULT_COOKIE: u64 = 0x0000_2B99_2DDF_A232;
/// The cookie ntsim writes: the same on every run, 48 bits as Windows' own.
const COOKIE: u64 = 0x0000_6E74_7369_6D21;

/// An image in memory, ready to run; unmapped when dropped.
///
/// Inaccessible pages lie before and behind it.
#[derive(Debug)]
pub struct Loaded {
    image: Arc<Image>,
    mapping: Mapping,
    fresh: Fresh,
}

/// What writable sections hold before the driver runs, with offsets in the mapping.
type Fresh = Arc<[(Range<usize>, Vec<u8>)]>;

/// The addresses of an image that was unloaded: any use of them faults, and
/// nothing else is put there while this exists.
#[derive(Debug)]
pub struct Unloaded {
    image: Arc<Image>,
    /// There until it is dropped.
    mapping: Option<Mapping>,
    fresh: Fresh,
}

thread_local! {
    /// Mappings of images that are not loaded now: inaccessible, relocated and bound.
    /// To load such an image again takes what it can have changed, not its pages anew.
    static IDLE: RefCell<Vec<(Arc<Image>, Mapping, Fresh)>> = const { RefCell::new(Vec::new()) };
}

/// How many mappings wait to be loaded again at most.
const KEPT: usize = 8;

impl Loaded {
    /// Maps `image`, relocates it, binds its imports and protects its pages as its sections say.
    ///
    /// `resolve` gives the address for a module and a name, both as written in
    /// the image; module names compare without regard to case on Windows.
    ///
    /// # Errors
    /// [`Problem::UnknownImport`], naming every import that `resolve` does not have;
    /// [`Problem::Memory`] if the system has no room.
    pub fn load(
        image: &Image,
        resolve: &mut dyn FnMut(&str, &str) -> Option<*const ()>,
    ) -> Result<Self, ImageError> {
        Self::load_shared(&Arc::new(image.clone()), resolve)
    }

    /// The same for an image that is loaded again and again, always with the same
    /// `resolve`.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub(crate) fn load_shared(
        image: &Arc<Image>,
        resolve: &mut dyn FnMut(&str, &str) -> Option<*const ()>,
    ) -> Result<Self, ImageError> {
        if let Some(loaded) = Self::load_again(image) {
            return Ok(loaded);
        }
        let mut addresses = Vec::with_capacity(image.imports.len());
        let mut missing = Vec::new();
        for import in &image.imports {
            match resolve(&import.dll, &import.name) {
                Some(address) => addresses.push((import.slot, address)),
                None => missing.push(import),
            }
        }
        if !missing.is_empty() {
            let mut message = String::from("it imports ");
            for (index, import) in missing.iter().enumerate() {
                let separator = if index == 0 { "" } else { ", " };
                // Writing to a string does not fail.
                let _ = write!(message, "{separator}{} from {}", import.name, import.dll);
            }
            message.push_str(", which ntsim does not have");
            return Err(error(image, Problem::UnknownImport, message));
        }

        let mut mapping = map(image).map_err(|cause| out_of_memory(image, &cause))?;
        let base = mapping.addresses().start + PAGE_SIZE;
        let start = mapping.base().as_ptr().wrapping_add(PAGE_SIZE);
        // SAFETY: `map` made these pages writable, and nothing else refers to them yet.
        let bytes = unsafe { std::slice::from_raw_parts_mut(start, image.layout.len()) };
        bytes.copy_from_slice(&image.layout);
        let delta = (base as u64).wrapping_sub(image.preferred_base);
        for &at in &image.relocations {
            patch(bytes, at, |value| value.wrapping_add(delta));
        }
        for (slot, address) in addresses {
            patch(bytes, slot, |_| address.expose_provenance() as u64);
        }
        if let Some(at) = image.security_cookie {
            patch(bytes, at, |value| {
                if value == DEFAULT_COOKIE {
                    COOKIE
                } else {
                    value
                }
            });
        }
        let writable = image.sections.iter().filter(|section| is_writable(section));
        let fresh = writable.filter_map(|section| {
            let range = section.rva.start as usize..section.rva.end as usize;
            let shifted = range.start + PAGE_SIZE..range.end + PAGE_SIZE;
            Some((shifted, bytes.get(range)?.to_vec()))
        });
        let fresh = fresh.collect();
        protect(&mut mapping, image).map_err(|cause| out_of_memory(image, &cause))?;
        Ok(Self {
            image: Arc::clone(image),
            mapping,
            fresh,
        })
    }

    /// Loads an image into the pages that it had before, if it had any.
    fn load_again(image: &Arc<Image>) -> Option<Self> {
        let (image, mut mapping, fresh) = IDLE.with_borrow_mut(|idle| {
            let at = idle
                .iter()
                .position(|(other, ..)| Arc::ptr_eq(other, image))?;
            Some(idle.swap_remove(at))
        })?;
        protect(&mut mapping, &image).ok()?;
        for (range, bytes) in fresh.iter() {
            let to = mapping.base().as_ptr().wrapping_add(range.start);
            // SAFETY: the range is of a writable section of this mapping, which nobody
            // else refers to yet, and the bytes are as many.
            unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
        }
        Some(Self {
            image,
            mapping,
            fresh,
        })
    }

    /// The image this was loaded from.
    #[must_use]
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// The address of the first byte.
    #[must_use]
    pub fn base(&self) -> usize {
        self.mapping.addresses().start + PAGE_SIZE
    }

    /// The address of the entry point, to be called as `extern "win64"`.
    #[must_use]
    pub fn entry(&self) -> usize {
        self.base() + self.image.entry as usize
    }

    /// The addresses of the image.
    #[must_use]
    pub fn addresses(&self) -> Range<usize> {
        addresses(&self.image, &self.mapping)
    }

    /// Whether `address` is in the image.
    #[must_use]
    pub fn contains(&self, address: usize) -> bool {
        self.addresses().contains(&address)
    }

    /// The RVA of an address in the image.
    #[must_use]
    pub fn rva(&self, address: usize) -> Option<u32> {
        rva(&self.image, &self.mapping, address)
    }

    /// The address of an export.
    #[must_use]
    pub fn export(&self, name: &str) -> Option<usize> {
        let export = self
            .image
            .exports
            .iter()
            .find(|export| export.name == name)?;
        Some(self.base() + export.rva as usize)
    }

    /// A pointer with which the image's memory may be accessed as its pages allow.
    #[must_use]
    pub fn pointer(&self, rva: u32) -> Option<*mut u8> {
        (rva < self.image.size)
            .then(|| ptr::with_exposed_provenance_mut(self.base() + rva as usize))
    }

    /// Unloads the image but keeps its addresses, so that a driver's late
    /// callback into itself faults instead of running something else.
    #[must_use]
    pub fn unload(mut self) -> Unloaded {
        let whole = 0..self.mapping.len();
        let result = self.mapping.protect(whole.clone(), Protection::None);
        debug_assert!(result.is_ok(), "mprotect of our own pages: {result:?}");
        Unloaded {
            image: self.image,
            mapping: Some(self.mapping),
            fresh: self.fresh,
        }
    }
}

impl Unloaded {
    /// The image that was here.
    #[must_use]
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// Whether `address` was in the image.
    #[must_use]
    pub fn contains(&self, address: usize) -> bool {
        self.addresses().contains(&address)
    }

    /// The addresses that the image had.
    pub(crate) fn addresses(&self) -> Range<usize> {
        let mapping = self.mapping.as_ref();
        mapping.map_or(0..0, |mapping| addresses(&self.image, mapping))
    }

    /// The RVA that an address had in the image.
    #[must_use]
    pub fn rva(&self, address: usize) -> Option<u32> {
        rva(&self.image, self.mapping.as_ref()?, address)
    }
}

impl Drop for Unloaded {
    fn drop(&mut self) {
        let Some(mapping) = self.mapping.take() else {
            return;
        };
        let image = Arc::clone(&self.image);
        let fresh = Arc::clone(&self.fresh);
        // Without effect while the operating-system thread ends.
        let _ = IDLE.try_with(|idle| {
            let mut idle = idle.borrow_mut();
            if idle.len() == KEPT {
                idle.remove(0);
            }
            idle.push((image, mapping, fresh));
        });
    }
}

fn is_writable(section: &Section) -> bool {
    matches!(
        section.protection,
        Protection::ReadWrite | Protection::ReadWriteExecute
    )
}

fn addresses(image: &Image, mapping: &Mapping) -> Range<usize> {
    let base = mapping.addresses().start + PAGE_SIZE;
    base..base + image.size as usize
}

fn rva(image: &Image, mapping: &Mapping, address: usize) -> Option<u32> {
    let range = addresses(image, mapping);
    range
        .contains(&address)
        .then(|| u32::try_from(address - range.start).ok())
        .flatten()
}

fn map(image: &Image) -> std::io::Result<Mapping> {
    let size = (image.size as usize).next_multiple_of(PAGE_SIZE);
    let mut mapping = Mapping::reserve(size + 2 * PAGE_SIZE)?;
    mapping.protect(PAGE_SIZE..PAGE_SIZE + size, Protection::ReadWrite)?;
    Ok(mapping)
}

fn protect(mapping: &mut Mapping, image: &Image) -> std::io::Result<()> {
    let size = (image.size as usize).next_multiple_of(PAGE_SIZE);
    let shift =
        |range: &Range<u32>| range.start as usize + PAGE_SIZE..range.end as usize + PAGE_SIZE;
    mapping.protect(PAGE_SIZE..PAGE_SIZE + size, Protection::None)?;
    mapping.protect(shift(&(0..image.headers_size)), Protection::Read)?;
    for section in image
        .sections
        .iter()
        .filter(|section| !section.rva.is_empty())
    {
        mapping.protect(shift(&section.rva), section.protection)?;
    }
    Ok(())
}

/// Changes the 64-bit value at `at`; `Image::parse` checked that it is there.
fn patch(bytes: &mut [u8], at: u32, change: impl FnOnce(u64) -> u64) {
    let at = at as usize;
    if let Some(place) = bytes
        .get_mut(at..at + 8)
        .and_then(|place| <&mut [u8; 8]>::try_from(place).ok())
    {
        *place = change(u64::from_le_bytes(*place)).to_le_bytes();
    }
}

fn error(image: &Image, problem: Problem, message: String) -> ImageError {
    ImageError {
        file: image.name.clone(),
        problem,
        message,
    }
}

fn out_of_memory(image: &Image, cause: &std::io::Error) -> ImageError {
    error(
        image,
        Problem::Memory,
        format!(
            "its {:#x} bytes (SizeOfImage) cannot be mapped: {cause}",
            image.size
        ),
    )
}
