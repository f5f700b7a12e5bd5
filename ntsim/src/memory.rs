// SPDX-License-Identifier: MIT OR Apache-2.0

//! Mapped memory, and a pool in which every stray access faults.
//!
//! [`Mapping`] is a range of address space with page protections; the image
//! loader maps drivers with it. [`GuardedPool`] is the allocator behind the
//! simulated pool: each block ends at the end of a page and an inaccessible
//! page follows, so that the first byte past a block faults; a freed block
//! becomes inaccessible and stays so until the quarantine is full. Fault
//! addresses turn back into words with [`GuardedPool::describe`].
//!
//! ```text
//!        one block, 24 bytes                     freed
//! ┌──────┬───────────────┬────────┬──────┐      ┌──────────────────────┐
//! │ none │ 0xFD … │ data │ 0xFD×8 │ none │  →   │ none                 │
//! └──────┴───────────────┴────────┴──────┘      └──────────────────────┘
//! ```
//!
//! The `0xFD` bytes before the block, and those up to the 16-byte alignment
//! behind it, are checked when the block is freed.
//!
//! With [`PoolChecks::Canaries`] most blocks have no page of their own, and stray
//! accesses are found later: see there.

mod canary;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::ops::Range;
use std::ptr::{self, NonNull};

use rustc_hash::FxHashMap;

pub use canary::FREED;

/// The page size of x86-64, and of the kernel that ntsim simulates.
pub const PAGE_SIZE: usize = 4096;

// Linux' MADV_GUARD_INSTALL and MADV_GUARD_REMOVE; other systems refuse the numbers.
const GUARD_INSTALL: libc::c_int = 102;
const GUARD_REMOVE: libc::c_int = 103;

/// What may be done with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// Any access faults.
    None,
    /// Loads only.
    Read,
    /// Loads and stores.
    ReadWrite,
    /// Loads and instruction fetches.
    ReadExecute,
    /// Everything; what a section asks for that is both writable and executable.
    ReadWriteExecute,
}

impl Protection {
    fn flags(self) -> libc::c_int {
        match self {
            Self::None => libc::PROT_NONE,
            Self::Read => libc::PROT_READ,
            Self::ReadWrite => libc::PROT_READ | libc::PROT_WRITE,
            Self::ReadExecute => libc::PROT_READ | libc::PROT_EXEC,
            Self::ReadWriteExecute => libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC,
        }
    }
}

/// A range of address space of our own, unmapped when dropped.
#[derive(Debug)]
pub struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping is a range of process memory without thread affinity;
// access to its bytes goes through `unsafe` or `&mut self`.
unsafe impl Send for Mapping {}
// SAFETY: a shared reference gives addresses only.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Reserves `len` bytes (rounded up to pages) that nothing may access yet.
    ///
    /// # Errors
    /// The operating system's, when it has no address space left.
    pub fn reserve(len: usize) -> io::Result<Self> {
        let len = round_up(len.max(1), PAGE_SIZE)
            .ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        // SAFETY: an anonymous mapping at an address of the system's choice
        // touches no memory that exists.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or_else(io::Error::last_os_error)?;
        Ok(Self { base, len })
    }

    /// Reserves `len` bytes for [`fence`](Self::fence) and [`unfence`](Self::unfence),
    /// and fences all of them.
    ///
    /// A fence is a mark in the page table. Setting it costs a fraction of a change of
    /// protection, which splits and joins the system's records of the mapping,
    /// and the system limits the number of those records.
    ///
    /// # Errors
    /// `InvalidInput` on a system without fences: Linux has them from 6.13 on.
    pub fn fenced(len: usize) -> io::Result<Self> {
        let mut mapping = Self::reserve(len)?;
        let whole = 0..mapping.len;
        mapping.protect(whole.clone(), Protection::ReadWrite)?;
        mapping.fence(whole)?;
        Ok(mapping)
    }

    /// The first address.
    #[must_use]
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// The length in bytes, a multiple of [`PAGE_SIZE`].
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the range has no bytes; it always has.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The addresses of the range.
    #[must_use]
    pub fn addresses(&self) -> Range<usize> {
        let start = self.base.as_ptr() as usize;
        start..start + self.len
    }

    /// Sets the protection of the pages that `range` (offsets) touches.
    ///
    /// # Errors
    /// `InvalidInput` if the range is not inside the mapping, or the system's own.
    pub fn protect(&mut self, range: Range<usize>, protection: Protection) -> io::Result<()> {
        let range = self.pages(range)?;
        // SAFETY: `pages` returns a range of whole pages of this mapping, and
        // `&mut self` says that nobody holds a reference into it.
        let result = unsafe {
            libc::mprotect(
                self.base.as_ptr().wrapping_add(range.start).cast(),
                range.len(),
                protection.flags(),
            )
        };
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    /// Gives the contents of the pages back to the system; they read as zero afterwards.
    ///
    /// # Errors
    /// As [`protect`](Self::protect).
    pub fn discard(&mut self, range: Range<usize>) -> io::Result<()> {
        self.advise(range, libc::MADV_DONTNEED)
    }

    /// Makes pages of a [`fenced`](Self::fenced) mapping inaccessible and drops their contents.
    ///
    /// # Errors
    /// As [`protect`](Self::protect).
    pub fn fence(&mut self, range: Range<usize>) -> io::Result<()> {
        self.advise(range, GUARD_INSTALL)
    }

    /// Makes pages of a [`fenced`](Self::fenced) mapping accessible; they read as zero.
    ///
    /// # Errors
    /// As [`protect`](Self::protect).
    pub fn unfence(&mut self, range: Range<usize>) -> io::Result<()> {
        self.advise(range, GUARD_REMOVE)
    }

    fn advise(&mut self, range: Range<usize>, advice: libc::c_int) -> io::Result<()> {
        let range = self.pages(range)?;
        // SAFETY: `pages` returns a range of whole pages of this mapping, and
        // `&mut self` says that nobody holds a reference into it.
        let result = unsafe {
            libc::madvise(
                self.base.as_ptr().wrapping_add(range.start).cast(),
                range.len(),
                advice,
            )
        };
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    fn pages(&self, range: Range<usize>) -> io::Result<Range<usize>> {
        let start = range.start & !(PAGE_SIZE - 1);
        let end = round_up(range.end, PAGE_SIZE).filter(|&end| start <= end && end <= self.len);
        end.map(|end| start..end)
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is ours and nothing can refer to it any more.
        let result = unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
        debug_assert_eq!(result, 0, "munmap of our own mapping");
    }
}

/// Copies the bytes at `address` into `into` as far as they are readable, and
/// says how many were.
///
/// Never faults: it asks the system to copy.
#[must_use]
pub fn peek(address: usize, into: &mut [u8]) -> usize {
    let mut done = 0;
    // Page by page, since the system copies a range wholly or not at all.
    while done < into.len() {
        let Some(at) = address.checked_add(done) else {
            break;
        };
        let step = (PAGE_SIZE - at % PAGE_SIZE).min(into.len() - done);
        if !peek_within_page(at, &mut into[done..done + step]) {
            break;
        }
        done += step;
    }
    done
}

/// The little-endian 64-bit value at `address`, if readable.
#[must_use]
pub fn peek_u64(address: usize) -> Option<u64> {
    let mut bytes = [0; 8];
    (peek(address, &mut bytes) == 8).then(|| u64::from_le_bytes(bytes))
}

#[cfg(target_os = "linux")]
fn peek_within_page(address: usize, into: &mut [u8]) -> bool {
    let local = libc::iovec {
        iov_base: into.as_mut_ptr().cast(),
        iov_len: into.len(),
    };
    let remote = libc::iovec {
        iov_base: ptr::with_exposed_provenance_mut(address),
        iov_len: into.len(),
    };
    let me = std::process::id().cast_signed();
    // SAFETY: `local` is a buffer that we own; `remote` is read by the kernel,
    // which checks it.
    let copied =
        unsafe { libc::process_vm_readv(me, &raw const local, 1, &raw const remote, 1, 0) };
    copied.cast_unsigned() == into.len()
}

#[cfg(not(target_os = "linux"))]
fn peek_within_page(_address: usize, _into: &mut [u8]) -> bool {
    false
}

fn round_up(value: usize, to: usize) -> Option<usize> {
    value.checked_add(to - 1).map(|value| value & !(to - 1))
}

/// What a new block's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// [`UNINITIALISED`], to be recognised in a debugger or a report.
    Uninitialised,
    /// Zeroes, as `ExAllocatePool2` gives unless told otherwise.
    Zero,
}

impl Fill {
    const fn byte(self) -> u8 {
        match self {
            Self::Uninitialised => UNINITIALISED,
            Self::Zero => 0,
        }
    }
}

/// How stray accesses to the pool are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PoolChecks {
    /// At once: each block has pages of its own, an inaccessible page behind it, and
    /// is inaccessible when freed. A pair of allocation and freeing takes some
    /// microseconds.
    #[default]
    Guarded,
    /// Later, but in a tenth of a microsecond: writes around a block when it is
    /// freed, writes to a freed block some hundred freeings later or when the driver
    /// is unloaded. Reads around a block or of a freed one are not found; a freed
    /// block reads as `0xDD`, which as a pointer faults. Paged blocks stay accessible
    /// at `DISPATCH_LEVEL`.
    ///
    /// One block in so many is guarded all the same, drawn by the seed: over many
    /// schedules each block is. 0 guards none.
    Canaries {
        /// One in so many.
        guard_one_in: u32,
    },
}

/// The byte that fills a block nobody has written yet.
pub const UNINITIALISED: u8 = 0xCD;
/// The byte that surrounds a block inside its pages.
pub const NO_MANS_LAND: u8 = 0xFD;

const ARENA: usize = 4 << 20;
const ALIGN: usize = 16;

/// Limits of a [`GuardedPool`].
#[derive(Clone, Copy, Debug)]
pub struct PoolOptions {
    /// How many bytes of pages of freed blocks stay inaccessible before the
    /// oldest are used again. Default 32 MiB.
    pub quarantine: usize,
    /// How stray accesses are found.
    pub checks: PoolChecks,
    /// Which blocks [`PoolChecks::Canaries`] guards.
    pub seed: u64,
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self {
            quarantine: 32 << 20,
            checks: PoolChecks::Guarded,
            seed: 0,
        }
    }
}

/// An allocator whose blocks are fenced by inaccessible pages.
///
/// Ordinals count allocations from 1, so the same sequence of calls gives the
/// same ordinals on every run, whatever the addresses are.
#[derive(Debug, Default)]
pub struct GuardedPool {
    options: PoolOptions,
    arenas: Vec<Arena>,
    /// The blocks that were last on each extent. Their records go with the extent
    /// to the next block.
    blocks: Vec<Block>,
    by_address: FxHashMap<usize, usize>,
    allocations: u64,
    quarantine: VecDeque<Extent>,
    quarantined: usize,
    reusable: FxHashMap<usize, VecDeque<Extent>>,
    live: usize,
    live_bytes: usize,
    open: canary::Heap,
    /// A block that was written after it was freed.
    written: Option<(BlockInfo, isize)>,
}

#[derive(Debug)]
struct Arena {
    mapping: Mapping,
    /// How its pages become inaccessible.
    fence: Fence,
    /// Some of its pages may have another protection than the rest.
    protected: bool,
    used: usize,
    /// Which block (index + 1) had each page last; the page behind a block is its guard.
    owner: Vec<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fence {
    Mark,
    Protection,
}

thread_local! {
    /// Arenas of the usual size that no pool uses, all of them inaccessible.
    static IDLE: RefCell<Vec<Arena>> = const { RefCell::new(Vec::new()) };
}

/// How many arenas wait for the next pool at most.
const KEPT_ARENAS: usize = 8;

impl Arena {
    fn new(len: usize) -> io::Result<Self> {
        if len == ARENA
            && let Ok(Some(idle)) = IDLE.try_with(|idle| idle.borrow_mut().pop())
        {
            return Ok(idle);
        }
        Self::map(len)
    }

    /// Keeps the arena for the next pool. Mapping one costs more than all that a
    /// short test does with it.
    fn retire(mut self) {
        if self.fence != Fence::Mark || self.mapping.len() != ARENA {
            return;
        }
        let whole = 0..ARENA;
        if self.protected {
            let changed = self.mapping.protect(whole.clone(), Protection::ReadWrite);
            if changed.is_err() {
                return;
            }
            self.protected = false;
        }
        let pages = self.used / PAGE_SIZE;
        if self.mapping.fence(0..self.used).is_err() {
            return;
        }
        self.owner[..pages.min(whole.end / PAGE_SIZE)].fill(0);
        self.used = PAGE_SIZE;
        // Without effect while the operating-system thread ends.
        let _ = IDLE.try_with(|idle| {
            let mut idle = idle.borrow_mut();
            if idle.len() < KEPT_ARENAS {
                idle.push(self);
            }
        });
    }

    fn map(len: usize) -> io::Result<Self> {
        let (mapping, fence) = match Mapping::fenced(len) {
            Ok(mapping) => (mapping, Fence::Mark),
            Err(_) => (Mapping::reserve(len)?, Fence::Protection),
        };
        Ok(Self {
            owner: vec![0; mapping.len() / PAGE_SIZE],
            mapping,
            fence,
            protected: false,
            // The first page stays inaccessible: the guard before the first block.
            used: PAGE_SIZE,
        })
    }

    fn open(&mut self, range: Range<usize>) -> io::Result<()> {
        match self.fence {
            Fence::Mark => self.mapping.unfence(range),
            Fence::Protection => self.mapping.protect(range, Protection::ReadWrite),
        }
    }

    fn close(&mut self, range: Range<usize>) -> io::Result<()> {
        match self.fence {
            Fence::Mark => self.mapping.fence(range),
            Fence::Protection => self.mapping.protect(range, Protection::None),
        }
    }

    /// Gives memory back that may be used again.
    fn discard(&mut self, range: Range<usize>) {
        // Only memory is at stake, so a refusal does not matter; fences leave none.
        if self.fence == Fence::Protection {
            let _ = self.mapping.discard(range);
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Extent {
    arena: usize,
    /// Offset of the first data page.
    offset: usize,
    /// Data pages, without the guard behind them.
    pages: usize,
}

#[derive(Clone, Copy, Debug)]
struct Block {
    address: usize,
    size: usize,
    tag: u32,
    extent: Extent,
    live: bool,
    /// Which allocation it was, counted from 1.
    ordinal: u64,
}

impl GuardedPool {
    /// An empty pool.
    #[must_use]
    pub fn new(options: PoolOptions) -> Self {
        let mut pool = Self::default();
        pool.options = options;
        pool
    }

    /// Allocates `size` bytes, aligned to 16 (to a page from 4096 bytes on, as
    /// the kernel's pool does).
    ///
    /// `None` if the system has no memory. The block lives until
    /// [`free`](Self::free) or until the pool is dropped.
    pub fn allocate(&mut self, size: usize, tag: u32, fill: Fill) -> Option<NonNull<u8>> {
        if !self.guards_next() {
            let block = (self.open).allocate(size, tag, self.allocations + 1, fill);
            if block.is_some() {
                self.allocations += 1;
                self.live += 1;
                self.live_bytes += size;
                return block;
            }
        }
        self.allocate_guarded(size, tag, fill)
    }

    /// Whether the next block has pages of its own.
    fn guards_next(&self) -> bool {
        match self.options.checks {
            PoolChecks::Guarded => true,
            PoolChecks::Canaries { guard_one_in: 0 } => false,
            PoolChecks::Canaries { guard_one_in } => {
                let drawn = (self.allocations.wrapping_add(self.options.seed))
                    .wrapping_mul(0x9E37_79B9_7F4A_7C15);
                (drawn >> 32).is_multiple_of(u64::from(guard_one_in))
            }
        }
    }

    fn allocate_guarded(&mut self, size: usize, tag: u32, fill: Fill) -> Option<NonNull<u8>> {
        let padded = round_up(size.max(1), ALIGN)?;
        let pages = padded.div_ceil(PAGE_SIZE);
        let extent = self.extent(pages)?;
        let bytes = pages * PAGE_SIZE;
        let arena = &mut self.arenas[extent.arena];
        arena.open(extent.offset..extent.offset + bytes).ok()?;
        // SAFETY: the extent lies inside the arena's mapping.
        let start = unsafe { arena.mapping.base().add(extent.offset) };
        // SAFETY: the pages of the extent were just made writable and belong to
        // no live block.
        let page_bytes = unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), bytes) };
        let front = if size >= PAGE_SIZE { 0 } else { bytes - padded };
        page_bytes[..front].fill(NO_MANS_LAND);
        page_bytes[front..front + size].fill(fill.byte());
        page_bytes[front + size..].fill(NO_MANS_LAND);
        let data = NonNull::from(&mut page_bytes[front..]).cast::<u8>();

        self.allocations += 1;
        let block = Block {
            address: data.as_ptr() as usize,
            size,
            tag,
            extent,
            live: true,
            ordinal: self.allocations,
        };
        let first = extent.offset / PAGE_SIZE;
        let owners = &mut self.arenas[extent.arena].owner;
        let index = match owners[first] {
            0 => {
                self.blocks.push(block);
                let owner = u32::try_from(self.blocks.len()).ok()?;
                owners[first..=first + pages].fill(owner);
                self.blocks.len() - 1
            }
            owner => {
                let index = owner as usize - 1;
                let before = std::mem::replace(&mut self.blocks[index], block);
                self.by_address.remove(&before.address);
                index
            }
        };
        self.by_address.insert(data.as_ptr() as usize, index);
        self.live += 1;
        self.live_bytes += size;
        Some(data)
    }

    /// Frees the block that starts at `address`; from now on any access to it faults.
    ///
    /// Gives the block as it was. The bytes around it are checked.
    ///
    /// # Errors
    /// [`FreeError`]: what the address is instead, or which byte outside of the block was written.
    /// A damaged block is freed all the same.
    pub fn free(&mut self, address: NonNull<u8>) -> Result<BlockInfo, FreeError> {
        let address = address.as_ptr() as usize;
        if let Some((block, damage, late)) = self.open.free(address) {
            let info = open_info(&block, Place::Inside(0));
            self.live -= 1;
            self.live_bytes -= block.size;
            if let Some((block, offset)) = late {
                self.written = Some((open_info(&block, Place::Inside(0)), offset));
            }
            let info = BlockInfo {
                state: BlockState::Live,
                ..info
            };
            return match damage {
                None => Ok(info),
                Some(offset) => Err(FreeError::Damaged {
                    block: info,
                    offset,
                }),
            };
        }
        let Some(&index) = self
            .by_address
            .get(&address)
            .filter(|&&index| self.blocks[index].live)
        else {
            return Err(match self.describe(address) {
                Some(info) if info.state == BlockState::Freed => FreeError::AlreadyFreed(info),
                Some(info) => FreeError::NotTheStart(info),
                None => FreeError::Unknown(address),
            });
        };
        let info = self.info(index, address);
        let damage = self.damage(index);
        let block = &mut self.blocks[index];
        block.live = false;
        let Block { extent, size, .. } = *block;
        self.live -= 1;
        self.live_bytes -= size;
        let bytes = extent.pages * PAGE_SIZE;
        let range = extent.offset..extent.offset + bytes;
        let result = self.arenas[extent.arena].close(range);
        debug_assert!(result.is_ok(), "closing our own pages: {result:?}");
        self.quarantine.push_back(extent);
        self.quarantined += bytes;
        self.retire();
        match damage {
            None => Ok(info),
            Some(offset) => Err(FreeError::Damaged {
                block: info,
                offset,
            }),
        }
    }

    /// A block that was written after it was freed, with the offset of the first byte,
    /// if that has turned out since the last call. With [`PoolChecks::Canaries`] only.
    pub fn take_written_after_free(&mut self) -> Option<(BlockInfo, isize)> {
        self.written.take()
    }

    /// The same among all freed blocks that are not used again yet.
    #[must_use]
    pub fn find_written_after_free(&self) -> Option<(BlockInfo, isize)> {
        let (block, offset) = self.open.written_after_free()?;
        Some((open_info(&block, Place::Inside(0)), offset))
    }

    /// Sets the protection of a live block's pages; its contents stay. A block
    /// without pages of its own stays as it is.
    ///
    /// # Errors
    /// `NotFound` if no live block starts at `address`, or the system's own.
    pub fn protect(&mut self, address: usize, protection: Protection) -> io::Result<()> {
        if self.open.at(address).is_some_and(|block| block.live) {
            return Ok(());
        }
        let index = self
            .by_address
            .get(&address)
            .copied()
            .filter(|&index| self.blocks[index].live)
            .ok_or(io::ErrorKind::NotFound)?;
        let Extent {
            arena,
            offset,
            pages,
        } = self.blocks[index].extent;
        let range = offset..offset + pages * PAGE_SIZE;
        self.arenas[arena].protected = true;
        self.arenas[arena].mapping.protect(range, protection)
    }

    /// Says what `address` is to this pool: inside a block, freed, or how far outside.
    #[must_use]
    pub fn describe(&self, address: usize) -> Option<BlockInfo> {
        if let Some(block) = self.open.around(address) {
            let place = Place::of(address, block.address, block.size);
            return Some(open_info(&block, place));
        }
        if let Some(&index) = self.by_address.get(&address) {
            return Some(self.info(index, address));
        }
        let arena = self
            .arenas
            .iter()
            .find(|arena| arena.mapping.addresses().contains(&address))?;
        let page = (address - arena.mapping.addresses().start) / PAGE_SIZE;
        let here = arena.owner[page] as usize;
        let next = arena.owner.get(page + 1).map_or(0, |&owner| owner as usize);
        // The page before the first block of an arena, and the guard between
        // two blocks, belong to whichever block is nearer.
        let nearest = |owner: usize| {
            let block = &self.blocks[owner - 1];
            if address < block.address {
                block.address - address
            } else {
                address.saturating_sub(block.address + block.size)
            }
        };
        let owner = match (here, next) {
            (0, 0) => return None,
            (0, owner) | (owner, 0) => owner,
            (here, next) if nearest(next) < nearest(here) => next,
            (here, _) => here,
        };
        Some(self.info(owner - 1, address))
    }

    /// The blocks that are allocated now, in the order of their allocation.
    pub fn live(&self) -> impl Iterator<Item = BlockInfo> + '_ {
        let guarded = (0..self.blocks.len())
            .filter(|&index| self.blocks[index].live)
            .map(|index| self.info(index, self.blocks[index].address));
        let open = self
            .open
            .live()
            .map(|block| open_info(&block, Place::Inside(0)));
        let mut live: Vec<_> = guarded.chain(open).collect();
        live.sort_unstable_by_key(|block| block.ordinal);
        live.into_iter()
    }

    /// How many blocks are allocated now.
    #[must_use]
    pub fn live_count(&self) -> usize {
        self.live
    }

    /// How many bytes are allocated now.
    #[must_use]
    pub fn live_bytes(&self) -> usize {
        self.live_bytes
    }

    fn info(&self, index: usize, address: usize) -> BlockInfo {
        let block = &self.blocks[index];
        BlockInfo {
            ordinal: block.ordinal,
            address: block.address,
            size: block.size,
            tag: block.tag,
            state: if block.live {
                BlockState::Live
            } else {
                BlockState::Freed
            },
            place: Place::of(address, block.address, block.size),
        }
    }

    /// The first byte around the block that is not as it was, as an offset from the block's start.
    fn damage(&self, index: usize) -> Option<isize> {
        let block = &self.blocks[index];
        let mapping = &self.arenas[block.extent.arena].mapping;
        // SAFETY: the extent lies inside the mapping.
        let start = unsafe { mapping.base().add(block.extent.offset) };
        let bytes = block.extent.pages * PAGE_SIZE;
        // SAFETY: the block is live, so its pages are readable; this reads them
        // while no driver code runs.
        let page_bytes = unsafe { std::slice::from_raw_parts(start.as_ptr(), bytes) };
        let front = block.address - start.as_ptr() as usize;
        let stray = |range: Range<usize>| {
            first_other_than(NO_MANS_LAND, &page_bytes[range.clone()])
                .map(|at| (range.start + at).cast_signed() - front.cast_signed())
        };
        stray(front + block.size..bytes).or_else(|| stray(0..front))
    }

    fn extent(&mut self, pages: usize) -> Option<Extent> {
        if let Some(extent) = self.reusable.get_mut(&pages).and_then(VecDeque::pop_front) {
            return Some(extent);
        }
        let needed = pages.checked_add(1)?.checked_mul(PAGE_SIZE)?;
        let fits = |arena: &Arena| arena.mapping.len() - arena.used >= needed;
        if !self.arenas.last().is_some_and(fits) {
            let len = ARENA.max(needed.checked_add(PAGE_SIZE)?);
            self.arenas.push(Arena::new(len).ok()?);
        }
        let index = self.arenas.len() - 1;
        let arena = &mut self.arenas[index];
        let extent = Extent {
            arena: index,
            offset: arena.used,
            pages,
        };
        arena.used += needed;
        Some(extent)
    }

    /// Moves the oldest freed blocks out of the quarantine while it is over its limit.
    fn retire(&mut self) {
        while self.quarantined > self.options.quarantine {
            let Some(extent) = self.quarantine.pop_front() else {
                return;
            };
            let bytes = extent.pages * PAGE_SIZE;
            self.quarantined -= bytes;
            self.arenas[extent.arena].discard(extent.offset..extent.offset + bytes);
            self.reusable
                .entry(extent.pages)
                .or_default()
                .push_back(extent);
        }
    }
}

impl Drop for GuardedPool {
    fn drop(&mut self) {
        for arena in self.arenas.drain(..) {
            arena.retire();
        }
    }
}

fn open_info(block: &canary::Block, place: Place) -> BlockInfo {
    BlockInfo {
        ordinal: block.ordinal,
        address: block.address,
        size: block.size,
        tag: block.tag,
        state: if block.live {
            BlockState::Live
        } else {
            BlockState::Freed
        },
        place,
    }
}

/// Where the first byte is that is not `value`.
fn first_other_than(value: u8, bytes: &[u8]) -> Option<usize> {
    // Many at a time, without a branch for each.
    const STRIDE: usize = 64;
    let same = |chunk: &&[u8]| chunk.iter().fold(0, |all, byte| all | (byte ^ value)) == 0;
    let start = bytes.chunks(STRIDE).take_while(same).count() * STRIDE;
    let rest = bytes.get(start..)?;
    let at = rest.iter().position(|&byte| byte != value)?;
    Some(start + at)
}

/// Whether a block may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockState {
    /// Allocated.
    Live,
    /// Freed, and inaccessible.
    Freed,
}

/// Where an address is, seen from a block. Distances are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// So far before the block's first byte.
    Before(usize),
    /// At this offset in the block.
    Inside(usize),
    /// So far past the block: 0 is the first byte behind it.
    Past(usize),
}

impl Place {
    fn of(address: usize, block: usize, size: usize) -> Self {
        if address < block {
            Self::Before(block - address)
        } else if address < block + size {
            Self::Inside(address - block)
        } else {
            Self::Past(address - (block + size))
        }
    }
}

/// A block of a [`GuardedPool`] and where an address is in relation to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockInfo {
    /// Which allocation it was, counted from 1.
    pub ordinal: u64,
    /// Address of its first byte.
    pub address: usize,
    /// Size in bytes as asked for.
    pub size: usize,
    /// Pool tag, first character in the low byte.
    pub tag: u32,
    /// Allocated or freed.
    pub state: BlockState,
    /// Where the address in question is.
    pub place: Place,
}

impl fmt::Display for BlockInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "pool block #{} (tag '{}', {} bytes{})",
            self.ordinal,
            tag_name(self.tag),
            self.size,
            match self.state {
                BlockState::Live => "",
                BlockState::Freed => ", freed",
            }
        )?;
        match self.place {
            Place::Before(n) => write!(f, ", {n} bytes before its start"),
            Place::Inside(0) => write!(f, ", at its start"),
            Place::Inside(n) => write!(f, ", at offset {n}"),
            Place::Past(0) => write!(f, ", the first byte past the end"),
            Place::Past(n) => write!(f, ", {n} bytes past the end"),
        }
    }
}

/// A pool tag as its four characters; bytes that do not print are dots.
#[must_use]
pub fn tag_name(tag: u32) -> String {
    tag.to_le_bytes()
        .iter()
        .map(|&byte| {
            if byte.is_ascii_graphic() || byte == b' ' {
                char::from(byte)
            } else {
                '.'
            }
        })
        .collect()
}

/// Why [`GuardedPool::free`] objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FreeError {
    /// The block is freed already.
    #[error("{0}: it is freed already")]
    AlreadyFreed(BlockInfo),
    /// The address is not a block's start.
    #[error("{0}: only the start of a block can be freed")]
    NotTheStart(BlockInfo),
    /// The address is not of this pool.
    #[error("{0:#x} is not an address of the pool")]
    Unknown(usize),
    /// A byte outside of the block was written while it was allocated.
    #[error("{block}: the byte at offset {offset}, outside of the block, was overwritten")]
    Damaged {
        /// The block, now freed.
        block: BlockInfo,
        /// Which byte, from the block's start; negative is before it.
        offset: isize,
    },
}
