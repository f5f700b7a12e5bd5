// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which headers, macros and compiler flags a build takes.

use std::fs;

use crate::{ApiSubset, ConfigError, CpuArchitecture, DriverConfig, IoError, kit::Kit};

/// Makes clang accept headers written for Microsoft's compiler, and keeps it
/// silent about what those headers do on purpose.
pub(crate) const COMPILER_FLAGS: [&str; 11] = [
    "-fms-compatibility",
    "-fms-extensions",
    "-fdelayed-template-parsing",
    "-Wno-comment",
    "-Wno-deprecated-declarations",
    "-Wno-ignored-attributes",
    "-Wno-ignored-pragma-intrinsic",
    "-Wno-invalid-token-paste",
    "-Wno-microsoft",
    "-Wno-nonportable-include-path",
    "-Wno-pragma-pack",
];

/// Returns the macros that the WDK's own project files define.
pub(crate) fn definitions(
    driver: &DriverConfig,
    processor: CpuArchitecture,
) -> Vec<(String, Option<String>)> {
    let mut definitions = Vec::new();
    let mut define = |name: &str, value: Option<u8>| {
        definitions.push((name.to_owned(), value.map(|value| value.to_string())));
    };
    match processor {
        CpuArchitecture::Amd64 => {
            define("_WIN64", None);
            define("_AMD64_", None);
            define("AMD64", None);
        }
        CpuArchitecture::Arm64 => {
            define("_ARM64_", None);
            define("ARM64", None);
            define("_USE_DECLSPECS_FOR_SAL", Some(1));
            define("STD_CALL", None);
        }
    }
    match driver {
        DriverConfig::Wdm => define("_KERNEL_MODE", None),
        DriverConfig::Kmdf(kmdf) => {
            define("_KERNEL_MODE", None);
            define("KMDF_VERSION_MAJOR", Some(kmdf.kmdf_version_major));
            define("KMDF_VERSION_MINOR", Some(kmdf.target_kmdf_version_minor));
            if let Some(minimum) = kmdf.minimum_kmdf_version_minor {
                define("KMDF_MINIMUM_VERSION_REQUIRED", Some(minimum));
            }
        }
        DriverConfig::Umdf(umdf) => {
            define("UMDF_VERSION_MAJOR", Some(umdf.umdf_version_major));
            define("UMDF_VERSION_MINOR", Some(umdf.target_umdf_version_minor));
            define("_ATL_NO_WIN_SUPPORT", None);
            define("WIN32_LEAN_AND_MEAN", Some(1));
            if let Some(minimum) = umdf.minimum_umdf_version_minor {
                define("UMDF_MINIMUM_VERSION_REQUIRED", Some(minimum));
            }
            if umdf.umdf_version_major >= 2 {
                define("UMDF_USING_NTSTATUS", None);
                define("_UNICODE", None);
                define("UNICODE", None);
            }
        }
    }
    definitions
}

/// Returns the headers of a part of the API, to be included in this order.
pub(crate) fn of(
    subset: ApiSubset,
    driver: &DriverConfig,
    kit: &Kit,
    processor: CpuArchitecture,
) -> Result<Vec<String>, ConfigError> {
    // What every driver model has, what only the kernel has, what only KMDF has.
    let (all, kernel, kmdf): (&[&str], &[&str], &[&str]) = match subset {
        ApiSubset::Base if driver.is_kernel_mode() => {
            (&["ntifs.h", "ntddk.h", "ntstrsafe.h"], &[], &[])
        }
        ApiSubset::Base => (&["windows.h"], &[], &[]),
        ApiSubset::Wdf if *driver == DriverConfig::Wdm => (&[], &[], &[]),
        ApiSubset::Wdf => (&["wdf.h"], &[], &[]),
        ApiSubset::Gpio => (&["gpio.h"], &[], &["gpioclx.h"]),
        ApiSubset::Hid => (
            &["hidclass.h", "hidsdi.h", "hidpi.h", "vhf.h"],
            &["hidpddi.h", "hidport.h", "kbdmou.h", "ntdd8042.h"],
            &["HidSpiCx/1.0/hidspicx.h"],
        ),
        ApiSubset::ParallelPorts => (&["ntddpar.h", "ntddser.h"], &["parallel.h"], &[]),
        ApiSubset::Spb => (&["spb.h", "reshub.h"], &["pwmutil.h"], &["spb/1.1/spbcx.h"]),
        ApiSubset::Storage => (
            &[
                "ehstorioctl.h",
                "ntddcdrm.h",
                "ntddcdvd.h",
                "ntdddisk.h",
                "ntddmmc.h",
                "ntddscsi.h",
                "ntddstor.h",
                "ntddtape.h",
                "ntddvol.h",
                "ufs.h",
            ],
            &[
                "mountdev.h",
                "mountmgr.h",
                "ntddchgr.h",
                "ntdddump.h",
                "storduid.h",
                "storport.h",
            ],
            &["ehstorbandmgmt.h"],
        ),
        ApiSubset::Usb => return usb(driver, kit, processor),
    };
    let mut headers = all.to_vec();
    if driver.is_kernel_mode() {
        headers.extend(kernel);
    }
    if matches!(driver, DriverConfig::Kmdf(_)) {
        headers.extend(kmdf);
    }
    Ok(headers.into_iter().map(str::to_owned).collect())
}

fn usb(
    driver: &DriverConfig,
    kit: &Kit,
    processor: CpuArchitecture,
) -> Result<Vec<String>, ConfigError> {
    let mut headers = vec![
        "usb.h",
        "usbfnbase.h",
        "usbioctl.h",
        "usbspec.h",
        "Usbpmapi.h",
    ];
    if driver.is_kernel_mode() {
        headers.extend(["usbbusif.h", "usbdlib.h", "usbfnattach.h", "usbfnioctl.h"]);
    }
    if *driver != DriverConfig::Wdm {
        headers.push("wdfusb.h");
    }
    let mut headers: Vec<String> = headers.into_iter().map(str::to_owned).collect();
    if matches!(driver, DriverConfig::Kmdf(_)) {
        headers.extend(
            [
                "ucm/1.0/UcmCx.h",
                "UcmTcpci/1.0/UcmTcpciCx.h",
                "UcmUcsi/1.0/UcmucsiCx.h",
                "ude/1.1/UdeCx.h",
                "ufx/1.1/ufxbase.h",
                "ufxproprietarycharger.h",
                "urs/1.0/UrsCx.h",
            ]
            .map(str::to_owned),
        );
        headers.push(host_controller_header(driver, kit, processor)?);
        // This header inlines functions in a way that C forbids and clang
        // before version 20 does not accept.
        if bindgen::clang_version()
            .parsed
            .is_some_and(|(major, _)| major >= 20)
        {
            headers.push("ufx/1.1/ufxclient.h".to_owned());
        }
    }
    Ok(headers)
}

/// Returns the header of the newest USB host controller extension in the kit.
fn host_controller_header(
    driver: &DriverConfig,
    kit: &Kit,
    processor: CpuArchitecture,
) -> Result<String, ConfigError> {
    let Some(libraries) = kit.library_paths(driver, processor)?.pop() else {
        return Err(ConfigError::Unsupported {
            field: "wdk-sys feature",
            value: "usb".to_owned(),
            reason: "openwdk has no USB class extensions; set WDKContentRoot to use a WDK instead"
                .to_owned(),
        });
    };
    let directory = libraries.join("ucx");
    fs::read_dir(&directory)
        .map_err(|source| IoError::with_path(&directory, source))?
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let (major, minor) = name.split_once('.')?;
            Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?))
        })
        .max()
        .map(|(major, minor)| format!("ucx/{major}.{minor}/ucxclass.h"))
        .ok_or_else(|| ConfigError::DirectoryNotFound {
            directory: directory.join("1.*").display().to_string(),
            reason: "the USB host controller extension of the WDK".to_owned(),
        })
}
