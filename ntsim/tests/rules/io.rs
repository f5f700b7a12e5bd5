// SPDX-License-Identifier: MIT OR Apache-2.0

//! I/O requests.

use ntsim::rules::io;

use crate::Case;
use crate::io_driver::complete;
use crate::kmdf::request;

const PENDING: i32 = 0x103;

pub const CASES: &[Case] = &[Case {
    rule: &io::COMPLETED_PENDING,
    breaks: |settings| request(settings, |request, _| complete(request, PENDING)),
    comes_close: |settings| request(settings, |request, _| complete(request, 0x104)),
}];
