// SPDX-License-Identifier: MIT OR Apache-2.0

//! The first start writes to the registry that the device is calibrated, and then
//! the calibration. If the power goes in between, the next start believes it.
//!
//! ntsim: bug check `RPNC`; the calibration that must be there is not.

use dmf::prelude::*;
use dmf::registry::{Access, Key, QueryError};
use dmf::unicode_string;

dmf::driver!(Calibrated<false>);
dmf::driver!(Calibrated<true>);

pub struct Calibrated<const FIXED: bool>;

impl<const FIXED: bool> Device for Calibrated<FIXED> {
    fn modules(_: &mut Modules<'_, Self>) -> Result<Self> {
        Ok(Self)
    }

    fn prepare_hardware(&self, cx: &mut PrepareHardware<'_>) -> Result {
        let key = Key::parameters(cx.irql(), Access::All)?;
        match key.query_u32(unicode_string!("Calibrated")) {
            Ok(1) => {
                let offset = key
                    .query_u32(unicode_string!("Offset"))
                    .expect("a calibrated device has an offset");
                dmf::println!("planted: offset {offset}");
                Ok(())
            }
            Ok(_) | Err(QueryError::NotFound) => {
                if !FIXED {
                    key.assign_u32(unicode_string!("Calibrated"), 1)?;
                }
                key.assign_u32(unicode_string!("Offset"), 42)?;
                if FIXED {
                    key.assign_u32(unicode_string!("Calibrated"), 1)?;
                }
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }
}
