// SPDX-License-Identifier: MIT OR Apache-2.0

//! How bindgen reads the WDK's headers.

use std::{borrow::Borrow, fmt};

use bindgen::{
    Builder, EnumVariation, Formatter, RustEdition, RustTarget,
    callbacks::{ItemInfo, ItemKind, ParseCallbacks},
};

use crate::{Config, ConfigError, DriverConfig};

/// Items that are deprecated, or that bindgen cannot express.
const BLOCKED: [&str; 25] = [
    // Deprecated in favour of ExAllocatePool2.
    "ExAllocatePool",
    "ExAllocatePoolWithTag",
    "ExAllocatePoolWithQuotaTag",
    "ExAllocatePoolWithTagPriority",
    // Deprecated in the USB stack.
    "USBD_CalculateUsbBandwidth",
    "USBD_CreateConfigurationRequest",
    "USBD_Debug_LogEntry",
    "USBD_GetUSBDIVersion",
    "USBD_ParseConfigurationDescriptor",
    "USBD_QueryBusTime",
    "USBD_RegisterHcFilter",
    "IOCTL_USB_DIAG(_IGNORE_HUBS|NOSTIC_MODE)_O(N|FF)",
    "IOCTL_USB_GET_HUB_CAPABILITIES",
    "IOCTL_USB_HCD_(DIS|EN)ABLE_PORT",
    "IOCTL_USB_HCD_GET_STATS_1",
    "IOCTL_USB_RESET_HUB",
    // Bit fields and anonymous structures that bindgen gets wrong.
    ".*MCG_CAP(?:__bindgen.*)?",
    ".*WHEA_XPF_MCA_SECTION",
    ".*WHEA_ARM_BUS_ERROR(?:__bindgen.*)?",
    ".*WHEA_ARM_PROCESSOR_ERROR",
    ".*WHEA_ARM_CACHE_ERROR",
    ".*ADDRESS0_OWNERSHIP_ACQUIRE",
    ".*USBDEVICE_ABORTIO",
    ".*USBDEVICE_STARTIO",
    ".*USBDEVICE_TREE_PURGEIO",
];

/// Makes a [`Builder`] that reads the WDK's headers.
pub trait BuilderExt {
    /// Returns a builder with the include paths, macros and flags of `config`.
    ///
    /// # Errors
    /// When a directory of headers is missing, or bindgen does not know the
    /// Rust version of this workspace.
    fn wdk_default(config: impl Borrow<Config> + fmt::Debug) -> Result<Builder, ConfigError>;
}

impl BuilderExt for Builder {
    fn wdk_default(config: impl Borrow<Config> + fmt::Debug) -> Result<Builder, ConfigError> {
        let config = config.borrow();
        let mut builder = Builder::default()
            .use_core()
            .derive_default(true)
            .generate_cstr(true)
            // The host's own headers must not be found.
            .detect_include_paths(false)
            // So that `size_t` in `memcpy` and its kin is `usize`.
            .clang_arg("-fno-builtin")
            .clang_args(
                config
                    .include_paths()?
                    .map(|path| format!("--include-directory={}", path.display())),
            )
            .clang_args(
                config
                    .preprocessor_definitions()
                    .map(|(name, value)| match value {
                        Some(value) => format!("--define-macro={name}={value}"),
                        None => format!("--define-macro={name}"),
                    }),
            )
            .clang_args(Config::wdk_bindgen_compiler_flags())
            // Declared in the WDK, defined nowhere.
            .opaque_type("_KGDTENTRY64")
            .opaque_type("_KIDTENTRY64")
            .no_default(".*tagMONITORINFOEXA")
            .must_use_type("NTSTATUS")
            .must_use_type("HRESULT")
            .default_enum_style(EnumVariation::ModuleConsts)
            .parse_callbacks(Box::new(bindgen::CargoCallbacks::new()))
            .parse_callbacks(Box::new(FunctionTable(
                config.compute_wdffunctions_symbol_name(),
            )))
            .formatter(Formatter::Prettyplease)
            .rust_edition(RustEdition::Edition2024)
            .rust_target(rust_target()?);
        for item in BLOCKED {
            builder = builder.blocklist_item(item);
        }
        if matches!(config.driver_config, DriverConfig::Umdf(_)) {
            // Its only members are for the kernel.
            builder = builder.opaque_type("_USBPM_CLIENT_CONFIG_EXTRA_INFO");
        }
        Ok(builder)
    }
}

/// Gives the framework's function table the name without a version that the
/// headers give it by a macro.
#[derive(Debug)]
struct FunctionTable(Option<String>);

impl ParseCallbacks for FunctionTable {
    fn generated_name_override(&self, item: ItemInfo<'_>) -> Option<String> {
        let is_table = matches!(item.kind, ItemKind::Var) && self.0.as_deref() == Some(item.name);
        is_table.then(|| "WdfFunctions".to_owned())
    }
}

/// Returns the Rust version that the bindings must compile with.
fn rust_target() -> Result<RustTarget, ConfigError> {
    if cfg!(feature = "nightly")
        && std::env::var("RUSTUP_TOOLCHAIN").is_ok_and(|name| name.starts_with("nightly"))
    {
        return Ok(RustTarget::nightly());
    }
    let msrv = env!("CARGO_PKG_RUST_VERSION");
    let unsupported = |reason: String| ConfigError::MsrvNotSupportedByBindgen {
        msrv: msrv.to_owned(),
        reason,
    };
    let mut parts = msrv.split('.').skip(1).map(str::parse::<u64>);
    let minor = parts.next().and_then(Result::ok);
    let patch = parts.next().and_then(Result::ok).unwrap_or(0);
    let minor = minor.ok_or_else(|| unsupported("expected 1.MINOR".to_owned()))?;
    RustTarget::stable(minor, patch).map_err(|error| unsupported(error.to_string()))
}
