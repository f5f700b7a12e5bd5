// SPDX-License-Identifier: MIT OR Apache-2.0
//! An INF of any bytes is resolved or refused in one line; stamping any text works.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ntsim::inf::{Architecture, DriverDate, Inf, StampOptions, stamp};

fuzz_target!(|bytes: &[u8]| {
    let result = Inf::parse("fuzz.inf", bytes).and_then(|inf| inf.validate_for(Architecture::Amd64));
    if let Err(error) = result {
        assert_eq!(error.to_string().lines().count(), 1, "{error}");
    }
    if let (Ok(text), Some(date)) = (std::str::from_utf8(bytes), DriverDate::new(2026, 9, 21)) {
        let options = StampOptions::new(date, [1, 0, 0, 0]);
        let once = stamp(text, &options);
        assert_eq!(stamp(&once, &options), once, "stamping twice changes something");
    }
});
