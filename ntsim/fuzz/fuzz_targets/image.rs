// SPDX-License-Identifier: MIT OR Apache-2.0
//! An image of any bytes is parsed or refused in one line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ntsim::image::Image;

fuzz_target!(|bytes: &[u8]| {
    if let Err(error) = Image::parse("fuzz.sys", bytes) {
        assert_eq!(error.to_string().lines().count(), 1, "{error}");
    }
});
