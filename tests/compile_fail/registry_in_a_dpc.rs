// SPDX-License-Identifier: MIT OR Apache-2.0

//! A call that is limited to PASSIVE_LEVEL, in a DPC's callback.
//~ E0308
//~ expected `&Irql<'_, Passive>`, found `&mut Irql<'_, Dispatch>`

use dmf::registry::{Access, Key};
use dmf::wdf::DpcRun;

fn refused(cx: &mut DpcRun<'_>) {
    let _ = Key::parameters(cx.irql(), Access::Read);
}

fn main() {}
