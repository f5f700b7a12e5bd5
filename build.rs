//! Tells the crate which kernel is underneath: `cfg(kernel)` is Windows' own
//! (through `wdk-sys`), its absence is `ntsim`'s (through `ntsim-sys`).

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(kernel)");
    let windows = std::env::var_os("CARGO_CFG_WINDOWS").is_some();
    let host = std::env::var_os("CARGO_FEATURE_HOST").is_some();
    if windows && !host {
        println!("cargo::rustc-cfg=kernel");
    }
}
