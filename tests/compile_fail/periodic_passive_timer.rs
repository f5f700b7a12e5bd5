// SPDX-License-Identifier: MIT OR Apache-2.0

//! A periodic timer at PASSIVE_LEVEL, which the framework does not have.
//~ E0599
//~ no method named `periodic` found for struct `TimerConfig<Passive>`|`periodic`
//~ TimerConfig<Dispatch>|TimerConfig<dmf::irql::Dispatch>

use dmf::prelude::*;
use dmf::wdf::TimerConfig;

fn main() {
    let _ = TimerConfig::passive().periodic(Duration::from_secs(1));
}
