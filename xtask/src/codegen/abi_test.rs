// SPDX-License-Identifier: MIT OR Apache-2.0
use super::{Outputs, abi::Abi};
pub fn generate(_abi: &Abi, _outputs: &mut Outputs) -> Result<(), String> { Ok(()) }
