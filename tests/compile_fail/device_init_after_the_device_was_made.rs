// SPDX-License-Identifier: MIT OR Apache-2.0

//! A device init that was given away.
//~ E0382
//~ use of moved value: `init`

use dmf::prelude::*;
use dmf::wdf::DeviceInit;

struct Meter;

impl Device for Meter {
    fn describe(init: DeviceInit<'_>) -> Result<DeviceInit<'_>> {
        let described = init.exclusive();
        let _ = init.exclusive();
        Ok(described)
    }

    fn modules(_add: &mut Modules<'_, Self>) -> Result<Self> {
        Ok(Meter)
    }
}

fn main() {}
