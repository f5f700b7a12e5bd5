// SPDX-License-Identifier: MIT OR Apache-2.0

//! Blocks in open memory: nothing faults, what was written astray is found later.
//!
//! Closing and opening a page costs some microseconds, most of it in the processor's
//! page tables. Blocks of this heap stay accessible. They are surrounded by
//! canaries, which are checked when the block is freed; a freed block is filled with
//! [`FREED`] and waits in a quarantine, and when it leaves that it must still be.
//!
//! ```text
//!            one block                        freed
//! ┌─────────┬────────┬───────────┐    ┌─────────┬────────┬───────────┐
//! │ 0xFD×16 │ data   │ 0xFD×16.. │ →  │ 0xFD×16 │ 0xDD … │ 0xFD×16.. │
//! └─────────┴────────┴───────────┘    └─────────┴────────┴───────────┘
//! ```
//!
//! A pointer that is read from a freed block is `0xDDDD…`: no address of x64, so that
//! its use faults.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ptr::NonNull;

use rustc_hash::FxHashMap;

use super::{
    ALIGN, ARENA, Fill, Mapping, NO_MANS_LAND, PAGE_SIZE, Place, Protection, first_other_than,
    round_up,
};

/// A block that was written after it was freed, and where.
type Late = (Block, isize);

/// The byte that fills a freed block.
pub const FREED: u8 = 0xDD;

/// Bytes of canary before a block, and at least as many behind it.
const CANARY: usize = ALIGN;
/// How many freed blocks wait before the oldest are used again.
const QUARANTINE: usize = 256;
/// Blocks above this size are guarded, whatever the settings say.
const LARGE: usize = ARENA / 4;
/// How many arenas wait for the next heap at most.
const KEPT_ARENAS: usize = 8;

thread_local! {
    /// Arenas that no heap uses. They keep their pages: faulting new ones in costs
    /// more than what a short test does with them.
    static IDLE: RefCell<Vec<Mapping>> = const { RefCell::new(Vec::new()) };
}

/// Accessible memory, handed out from its start.
#[derive(Debug)]
struct Arena {
    mapping: Mapping,
    used: usize,
}

impl Arena {
    fn new() -> Option<Self> {
        let idle = IDLE.try_with(|idle| idle.borrow_mut().pop()).ok().flatten();
        let mapping = idle.or_else(|| {
            let mut mapping = Mapping::reserve(ARENA).ok()?;
            mapping.protect(0..ARENA, Protection::ReadWrite).ok()?;
            Some(mapping)
        })?;
        Some(Self { mapping, used: 0 })
    }
}

/// A block of the heap, live or in quarantine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    pub(super) address: usize,
    pub(super) size: usize,
    pub(super) tag: u32,
    pub(super) ordinal: u64,
    pub(super) live: bool,
}

impl Block {
    /// Where its surroundings begin, and their length with the block.
    fn slot(&self) -> (usize, usize) {
        let front = front(self.size);
        (self.address - front, slot_len(self.size))
    }

    /// Where `address` is, if it is in the block or around it.
    pub(super) fn place(&self, address: usize) -> Option<Place> {
        let (start, len) = self.slot();
        if !(start..start + len).contains(&address) {
            return None;
        }
        Some(Place::of(address, self.address, self.size))
    }
}

/// Bytes before a block: blocks from a page on begin at one.
fn front(size: usize) -> usize {
    if size >= PAGE_SIZE { PAGE_SIZE } else { CANARY }
}

fn slot_len(size: usize) -> usize {
    let len = front(size) + size.next_multiple_of(ALIGN) + CANARY;
    if size >= PAGE_SIZE {
        len.next_multiple_of(PAGE_SIZE)
    } else {
        len
    }
}

/// The heap.
#[derive(Debug, Default)]
pub(super) struct Heap {
    arenas: Vec<Arena>,
    /// Live blocks and those in quarantine, by address.
    blocks: FxHashMap<usize, Block>,
    quarantine: VecDeque<usize>,
    /// The slots that can be used again, by their length.
    reusable: FxHashMap<usize, Vec<usize>>,
}

impl Heap {
    /// Allocates a block; `None` if it is too large for the heap, or the system has
    /// no memory.
    pub(super) fn allocate(
        &mut self,
        size: usize,
        tag: u32,
        ordinal: u64,
        fill: Fill,
    ) -> Option<NonNull<u8>> {
        if size > LARGE {
            return None;
        }
        let len = slot_len(size);
        let start = match self.reusable.get_mut(&len).and_then(Vec::pop) {
            Some(start) => start,
            None => self.fresh(len, size >= PAGE_SIZE)?,
        };
        let front = front(size);
        let bytes = slot(start, len);
        bytes[..front].fill(NO_MANS_LAND);
        bytes[front..front + size].fill(fill.byte());
        bytes[front + size..].fill(NO_MANS_LAND);
        let address = start + front;
        let block = Block {
            address,
            size,
            tag,
            ordinal,
            live: true,
        };
        self.blocks.insert(address, block);
        NonNull::new(bytes[front..].as_mut_ptr())
    }

    /// Frees the live block at `address`. Gives it with the offset of the first byte
    /// around it that is not as it was, and a block that was written after it was
    /// freed, if one has turned out to be.
    pub(super) fn free(&mut self, address: usize) -> Option<(Block, Option<isize>, Option<Late>)> {
        let block = self.blocks.get_mut(&address).filter(|block| block.live)?;
        block.live = false;
        let block = *block;
        let (start, len) = block.slot();
        let bytes = slot(start, len);
        let front = address - start;
        let stray = |range: std::ops::Range<usize>| {
            let at = first_other_than(NO_MANS_LAND, &bytes[range.clone()])?;
            Some((range.start + at).cast_signed() - front.cast_signed())
        };
        let damage = stray(front + block.size..len).or_else(|| stray(0..front));
        // The canaries stay: what is behind the block is not to be written later either.
        bytes[front..front + block.size].fill(FREED);
        self.quarantine.push_back(address);
        let late = if self.quarantine.len() > QUARANTINE {
            self.retire()
        } else {
            None
        };
        Some((block, damage, late))
    }

    /// Takes the oldest block out of the quarantine; gives it if it was written there.
    fn retire(&mut self) -> Option<Late> {
        let address = self.quarantine.pop_front()?;
        let block = self.blocks.remove(&address)?;
        let (start, len) = block.slot();
        self.reusable.entry(len).or_default().push(start);
        written(&block)
    }

    /// A freed block that was written since.
    pub(super) fn written_after_free(&self) -> Option<(Block, isize)> {
        self.quarantine
            .iter()
            .find_map(|address| written(self.blocks.get(address)?))
    }

    /// The block that begins at `address`, live or in quarantine.
    pub(super) fn at(&self, address: usize) -> Option<Block> {
        self.blocks.get(&address).copied()
    }

    /// The block that `address` is in or beside.
    pub(super) fn around(&self, address: usize) -> Option<Block> {
        let is_ours = |arena: &Arena| arena.mapping.addresses().contains(&address);
        if !self.arenas.iter().any(is_ours) {
            return None;
        }
        let holds = |block: &&Block| block.place(address).is_some();
        self.at(address)
            .or_else(|| self.blocks.values().find(holds).copied())
    }

    /// The blocks that are allocated now, in no order.
    pub(super) fn live(&self) -> impl Iterator<Item = Block> + '_ {
        self.blocks.values().copied().filter(|block| block.live)
    }

    fn fresh(&mut self, len: usize, page_aligned: bool) -> Option<usize> {
        let at = |arena: &Arena| {
            let align = if page_aligned { PAGE_SIZE } else { ALIGN };
            round_up(arena.used, align).filter(|at| at + len <= arena.mapping.len())
        };
        if self.arenas.last().and_then(at).is_none() {
            self.arenas.push(Arena::new()?);
        }
        let arena = self.arenas.last_mut()?;
        let offset = at(arena)?;
        arena.used = offset + len;
        Some(arena.mapping.base().as_ptr().expose_provenance() + offset)
    }
}

impl Drop for Heap {
    fn drop(&mut self) {
        let arenas = self.arenas.drain(..).map(|arena| arena.mapping);
        // Without effect while the operating-system thread ends.
        let _ = IDLE.try_with(|idle| {
            let mut idle = idle.borrow_mut();
            let room = KEPT_ARENAS.saturating_sub(idle.len());
            idle.extend(arenas.take(room));
        });
    }
}

/// Where a freed block was written, from its start.
fn written(block: &Block) -> Option<(Block, isize)> {
    let (start, len) = block.slot();
    let front = block.address - start;
    let bytes = &slot(start, len)[front..front + block.size];
    let at = first_other_than(FREED, bytes)?;
    Some((*block, at.cast_signed()))
}

/// The bytes of a slot that the heap has handed out.
fn slot<'a>(start: usize, len: usize) -> &'a mut [u8] {
    let start = std::ptr::with_exposed_provenance_mut(start);
    // SAFETY: slots lie in the arenas, which live as long as the heap and are open;
    // slots do not overlap. No driver code runs meanwhile, and each caller gives the
    // slice up before it makes another of the same slot.
    unsafe { std::slice::from_raw_parts_mut(start, len) }
}
