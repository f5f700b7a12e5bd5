// SPDX-License-Identifier: MIT OR Apache-2.0

//! The guarded pool: what it gives, what it notices, what it says.

#![cfg(target_os = "linux")]

use std::ptr::NonNull;

use ntsim::memory::{
    BlockState, Fill, FreeError, GuardedPool, PAGE_SIZE, Place, PoolChecks, PoolOptions,
    UNINITIALISED, peek, peek_u64, tag_name,
};

const TAG: u32 = u32::from_le_bytes(*b"Test");

fn pool() -> GuardedPool {
    GuardedPool::new(PoolOptions::default())
}

fn address(block: NonNull<u8>) -> usize {
    block.as_ptr() as usize
}

#[test]
fn blocks_are_aligned_filled_and_followed_by_nothing() {
    let mut pool = pool();
    for size in [0, 1, 15, 16, 17, 24, 4080, 4095, 4096, 4097, 8192, 100_000] {
        let zero = pool.allocate(size, TAG, Fill::Zero).unwrap();
        let fresh = pool.allocate(size, TAG, Fill::Uninitialised).unwrap();
        for (block, byte) in [(zero, 0), (fresh, UNINITIALISED)] {
            let alignment = if size >= PAGE_SIZE { PAGE_SIZE } else { 16 };
            assert_eq!(address(block) % alignment, 0, "{size}");
            let mut bytes = vec![1; size];
            assert_eq!(peek(address(block), &mut bytes), size);
            assert!(bytes.iter().all(|&b| b == byte), "{size}");
            let end = (address(block) + size.max(1)).next_multiple_of(PAGE_SIZE);
            assert_eq!(peek_u64(end), None, "{size}");
        }
        let multiple_of_16 = size > 0 && size < PAGE_SIZE && size.is_multiple_of(16);
        if multiple_of_16 {
            assert_eq!(peek_u64(address(zero) + size), None, "{size}");
        }
    }
}

#[test]
fn ordinals_and_counts_follow_the_calls_and_nothing_else() {
    let run = || {
        let mut pool = GuardedPool::new(PoolOptions {
            quarantine: 3 * PAGE_SIZE,
            ..PoolOptions::default()
        });
        let mut live = Vec::new();
        for round in 0..500_usize {
            if round % 3 == 2 {
                let block: NonNull<u8> = live.swap_remove(round % live.len());
                pool.free(block).unwrap();
            } else {
                live.push(pool.allocate(round * 7, TAG, Fill::Zero).unwrap());
            }
        }
        pool.live()
            .map(|info| (info.ordinal, info.size))
            .collect::<Vec<_>>()
    };
    let first = run();
    assert_eq!(first, run());
    assert_eq!(first.len(), 334 - 166);
}

#[test]
fn leaks_are_listed_in_the_order_of_their_allocation() {
    let mut pool = pool();
    let first = pool.allocate(10, TAG, Fill::Zero).unwrap();
    let second = pool.allocate(20, TAG, Fill::Zero).unwrap();
    let third = pool.allocate(30, TAG, Fill::Zero).unwrap();
    pool.free(second).unwrap();
    assert_eq!(pool.live_count(), 2);
    assert_eq!(pool.live_bytes(), 40);
    let addresses: Vec<_> = pool.live().map(|info| info.address).collect();
    assert_eq!(addresses, [address(first), address(third)]);
}

#[test]
fn a_freed_block_is_unreadable_and_described_as_freed() {
    let mut pool = pool();
    let block = pool.allocate(24, TAG, Fill::Zero).unwrap();
    let info = pool.free(block).unwrap();
    assert_eq!(
        (info.ordinal, info.size, info.state),
        (1, 24, BlockState::Live)
    );
    assert_eq!(peek_u64(address(block)), None);
    let info = pool.describe(address(block) + 3).unwrap();
    assert_eq!(info.state, BlockState::Freed);
    assert_eq!(info.place, Place::Inside(3));
}

#[test]
fn addresses_around_blocks_belong_to_the_nearer_one() {
    let mut pool = pool();
    let first = pool.allocate(32, TAG, Fill::Zero).unwrap();
    let second = pool.allocate(4096, TAG, Fill::Zero).unwrap();
    let past = pool.describe(address(first) + 40).unwrap();
    assert_eq!((past.ordinal, past.place), (1, Place::Past(8)));
    assert_eq!(
        past.to_string(),
        "pool block #1 (tag 'Test', 32 bytes), 8 bytes past the end"
    );
    let before = pool.describe(address(second) - 8).unwrap();
    assert_eq!((before.ordinal, before.place), (2, Place::Before(8)));
    assert_eq!(pool.describe(8), None);
}

#[test]
fn freeing_what_cannot_be_freed_is_explained() {
    let mut pool = pool();
    let block = pool.allocate(24, TAG, Fill::Zero).unwrap();
    let inside = NonNull::new(block.as_ptr().wrapping_add(8)).unwrap();
    assert!(
        matches!(pool.free(inside), Err(FreeError::NotTheStart(info)) if info.place == Place::Inside(8))
    );
    pool.free(block).unwrap();
    let twice = pool.free(block).unwrap_err();
    assert_eq!(
        twice.to_string(),
        "pool block #1 (tag 'Test', 24 bytes, freed), at its start: it is freed already"
    );
    assert_eq!(pool.free(NonNull::dangling()), Err(FreeError::Unknown(1)));
}

#[test]
fn stray_writes_beside_a_block_are_found_when_it_is_freed() {
    for (at, expected) in [(24_isize, 24), (-1, -1), (-100, -100)] {
        let mut pool = pool();
        let block = pool.allocate(24, TAG, Fill::Zero).unwrap();
        let stray = block.as_ptr().wrapping_offset(at);
        // SAFETY: inside of the block's page, though not of the block.
        unsafe { stray.write(1) };
        let Err(FreeError::Damaged {
            offset,
            block: info,
        }) = pool.free(block)
        else {
            panic!("the write at {at} was not found")
        };
        assert_eq!((offset, info.ordinal), (expected, 1));
        assert_eq!(pool.live_count(), 0);
    }
}

#[test]
fn a_full_quarantine_gives_memory_back_oldest_first() {
    let mut pool = GuardedPool::new(PoolOptions {
        quarantine: 2 * PAGE_SIZE,
        ..PoolOptions::default()
    });
    let blocks: Vec<_> = (0..4)
        .map(|_| pool.allocate(16, TAG, Fill::Zero).unwrap())
        .collect();
    for &block in &blocks {
        pool.free(block).unwrap();
    }
    let again: Vec<_> = (0..3)
        .map(|_| pool.allocate(16, TAG, Fill::Zero).unwrap())
        .collect();
    assert_eq!(again[..2], blocks[..2], "the two oldest are used again");
    assert!(!blocks.contains(&again[2]), "the others are not yet");
    assert_eq!(pool.describe(address(again[0])).unwrap().ordinal, 5);
}

#[test]
fn tags_print_as_text() {
    assert_eq!(tag_name(TAG), "Test");
    assert_eq!(tag_name(u32::from_le_bytes(*b"a \0\x80")), "a ..");
}

#[test]
#[ignore = "a measurement: cargo test --release --test memory -- --ignored --nocapture"]
fn how_long_a_pair_takes() {
    let mut pool = pool();
    let start = std::time::Instant::now();
    for _ in 0..100_000 {
        let block = pool.allocate(64, TAG, Fill::Zero).unwrap();
        pool.free(block).unwrap();
    }
    println!("{:?} a pair", start.elapsed() / 100_000);
}

/// A pool without pages of their own for its blocks.
fn canaries(guard_one_in: u32, seed: u64) -> GuardedPool {
    GuardedPool::new(PoolOptions {
        checks: PoolChecks::Canaries { guard_one_in },
        seed,
        ..PoolOptions::default()
    })
}

#[test]
fn with_canaries_a_write_around_a_block_is_found_when_it_is_freed() {
    for size in [1_usize, 24, 100, 4096, 5000] {
        let behind = isize::try_from(size).unwrap();
        for offset in [-1, behind] {
            let mut pool = canaries(0, 0);
            let block = pool.allocate(size, 0, Fill::Zero).unwrap();
            // SAFETY: the canaries around a block are memory of the pool.
            let at = unsafe { block.as_ptr().offset(offset) };
            // SAFETY: as above.
            unsafe { at.write(1) };
            let Err(FreeError::Damaged { offset: found, .. }) = pool.free(block) else {
                panic!("{size} {offset}: not found");
            };
            assert_eq!(found, offset, "{size}");
            assert_eq!((pool.live_count(), pool.live_bytes()), (0, 0));
        }
    }
}

#[test]
fn with_canaries_a_write_to_a_freed_block_is_found_later() {
    let mut pool = canaries(0, 0);
    let block = pool.allocate(64, 7, Fill::Zero).unwrap();
    pool.free(block).unwrap();
    assert_eq!(pool.find_written_after_free(), None);
    // SAFETY: within the block.
    let mut byte = unsafe { block.add(5) };
    // SAFETY: a block without pages of its own stays accessible.
    let byte = unsafe { byte.as_mut() };
    assert_eq!(*byte, ntsim::memory::FREED);
    *byte = 1;
    let (info, offset) = pool.find_written_after_free().unwrap();
    assert_eq!((info.ordinal, info.tag, offset), (1, 7, 5));
    // When the block is to be used again it comes to light by itself.
    let mut found = None;
    for _ in 0..1_000 {
        let other = pool.allocate(64, 8, Fill::Zero).unwrap();
        pool.free(other).unwrap();
        found = found.or(pool.take_written_after_free());
    }
    assert_eq!(
        found.map(|(info, offset)| (info.ordinal, offset)),
        Some((1, 5))
    );
}

#[test]
fn with_canaries_a_block_is_freed_once_and_described() {
    let mut pool = canaries(0, 0);
    let block = pool.allocate(64, 7, Fill::Uninitialised).unwrap();
    let address = block.as_ptr() as usize;
    let inside = pool.describe(address + 3).unwrap();
    assert_eq!(
        (inside.state, inside.place),
        (BlockState::Live, Place::Inside(3))
    );
    let past = pool.describe(address + 64).unwrap();
    assert_eq!(past.place, Place::Past(0));
    pool.free(block).unwrap();
    assert!(matches!(pool.free(block), Err(FreeError::AlreadyFreed(_))));
}

#[test]
fn with_canaries_each_block_is_guarded_under_some_seed() {
    /// Whether a guard lies behind the block: its pages are its own.
    fn is_guarded(pool: &mut GuardedPool) -> bool {
        let block = pool.allocate(16, 0, Fill::Zero).unwrap();
        (block.as_ptr() as usize + 16).is_multiple_of(PAGE_SIZE)
    }
    let of_64 = |seed| {
        let mut pool = canaries(8, seed);
        (0..64).map(|_| is_guarded(&mut pool)).collect::<Vec<_>>()
    };
    let runs: Vec<_> = (0..64).map(of_64).collect();
    for block in 0..64 {
        let guarded = runs.iter().filter(|run| run[block]).count();
        assert!((1..32).contains(&guarded), "block {block}: {guarded} of 64");
    }
    assert_eq!(of_64(3), of_64(3));
}

#[test]
fn a_pool_keeps_no_record_of_blocks_whose_pages_are_used_again() {
    let mut pool = GuardedPool::new(PoolOptions {
        quarantine: 4 * PAGE_SIZE,
        ..PoolOptions::default()
    });
    for ordinal in 1..=1_000 {
        let block = pool.allocate(32, 0, Fill::Zero).unwrap();
        let info = pool.describe(block.as_ptr() as usize).unwrap();
        assert_eq!((info.ordinal, info.state), (ordinal, BlockState::Live));
        pool.free(block).unwrap();
    }
    // One arena, of which the first pages go round.
    let text = format!("{pool:?}");
    assert!(text.matches("Block {").count() <= 8, "{text}");
}
