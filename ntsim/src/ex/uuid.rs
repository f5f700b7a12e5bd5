// SPDX-License-Identifier: MIT OR Apache-2.0

//! UUIDs, which follow from the seed: the same run gives the same ones.

use crate::access::poke;
use crate::trap::kernel;

/// `ExUuidCreate`: a random (version 4) UUID.
pub(crate) fn ex_uuid_create(uuid: *mut [u8; 16]) -> i32 {
    let (high, low) = kernel(|k| {
        k.ex.uuids += 1;
        // Boots of one machine must not repeat themselves.
        let count =
            k.ex.uuids
                .wrapping_mul(2)
                .wrapping_add(k.boot_offset.rotate_left(32));
        (
            mix(k.settings.seed, count),
            mix(k.settings.seed, count.wrapping_add(1)),
        )
    });
    let mut bytes = ((u128::from(high) << 64) | u128::from(low)).to_le_bytes();
    // In a GUID the version is in the high byte of the little-endian third field.
    bytes[7] = bytes[7] & 0x0F | 0x40;
    bytes[8] = bytes[8] & 0x3F | 0x80;
    poke(uuid, bytes);
    0
}

/// The finaliser of `SplitMix64`.
fn mix(seed: u64, count: u64) -> u64 {
    let mut z = seed.wrapping_add(count.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
