// SPDX-License-Identifier: MIT OR Apache-2.0

//! Links the driver as `wdk-build` says when it is built for Windows. On a host
//! it is a library that a program links together with `ntsim`.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    let windows = std::env::var_os("CARGO_CFG_WINDOWS").is_some();
    let host = std::env::var_os("CARGO_FEATURE_HOST").is_some();
    if windows && !host {
        wdk_build::configure_wdk_binary_build()?;
    } else if std::env::var("CARGO_CFG_TARGET_VENDOR").as_deref() == Ok("apple") {
        // The kernel's functions come from the program; Apple's linker wants to know.
        println!("cargo::rustc-link-arg-cdylib=-Wl,-undefined,dynamic_lookup");
    }
    Ok(())
}
