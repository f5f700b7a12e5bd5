// SPDX-License-Identifier: MIT OR Apache-2.0

//! A request that is completed twice.
//~ E0382
//~ use of moved value: `request`
//~ `dmf::wdf::Request::<K>::complete` takes ownership of the receiver `self`|takes ownership of the receiver

use dmf::prelude::*;
use dmf::wdf::{Read, Request};

fn refused(request: Request<Read>) {
    request.complete(Ok(0));
    request.complete(Err(NtStatus::CANCELLED));
}

fn main() {}
