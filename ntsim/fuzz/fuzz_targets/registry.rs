// SPDX-License-Identifier: MIT OR Apache-2.0
//! A registry file of any bytes is refused, or read, written and read to the same registry.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ntsim::registry::Registry;

fuzz_target!(|bytes: &[u8]| {
    match Registry::from_reg("fuzz.reg", bytes) {
        Ok(registry) => {
            let written = registry.to_reg();
            let again = Registry::from_reg("again.reg", &written).expect("its own output is readable");
            assert!(again == registry, "a round trip changed the registry");
            assert!(again.to_reg() == written, "a second round trip changed the file");
        }
        Err(error) => assert_eq!(error.to_string().lines().count(), 1, "{error}"),
    }
});
