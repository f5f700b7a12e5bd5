// SPDX-License-Identifier: MIT OR Apache-2.0
//! The INF reader, the resolver and stampinf's work.

use ntsim::inf::{
    Architecture, DirId, DriverDate, DriverPackage, Inf, InfError, RegOperation, RegRoot,
    StampOptions, stamp,
};
use ntsim::registry::Value;
use proptest::prelude::*;

/// A KMDF driver's INX in the form that Microsoft's samples have.
const INX: &str = r#";
; sensor.inx
;
[Version]
Signature   = "$WINDOWS NT$"
Class       = Sample
ClassGuid   = {78A1C341-4539-11d3-B88D-00C04FAD5171}
Provider    = %Provider%
CatalogFile = sensor.cat
PnpLockdown = 1

[DestinationDirs]
DefaultDestDir = 13
Sensor_Drivers = 12

[SourceDisksNames]
1 = %DiskName%,,,""

[SourceDisksFiles]
sensor.sys = 1,,
helper.bin = 1

[Manufacturer]
%Provider% = Standard,NT$ARCH$.10.0...16299 ; Windows 10 1709 and later

[Standard.NT$ARCH$.10.0...16299]
%Sensor.DeviceDesc% = Sensor_Device, Root\Sensor, Root\SensorCompatible
%Sensor.DeviceDesc% = Sensor_Device, ACPI\SENS0001

[Sensor_Device.NT]
CopyFiles = Sensor_Drivers, @helper.bin
AddReg    = Sensor_Software

[Sensor_Drivers]
sensor.sys

[Sensor_Software]
HKR,,Flags,0x00010001,0x10

[Sensor_Device.NT.HW]
AddReg = Sensor_Hardware

[Sensor_Hardware]
HKR,,Security,,"D:P(A;;GA;;;SY)"   ; a string with semicolons
HKR,,"UpperFilters",0x00010008,"filter"

[Sensor_Device.NT.Services]
AddService = Sensor,%SPSVCINST_ASSOCSERVICE%, Sensor_Service

[Sensor_Service]
DisplayName   = %Sensor.Service%
ServiceType   = 1
StartType     = 3
ErrorControl  = 1
ServiceBinary = %12%\sensor.sys
AddReg        = Sensor_Parameters

[Sensor_Parameters]
HKR,Parameters,Text,,"say ""hi"", %Provider%"
HKR,Parameters,List,0x00010000,a,b,\
    c
HKR,Parameters,Path,0x00020000,%%SystemRoot%%\x
HKR,Parameters,Bytes,1,de,ad
HKR,Parameters,Wide,0x000B0001,1,0,0,0,0,0,0,0
HKR,Parameters,Once,0x00010003,7
HKR,Parameters\Deep,,0x10

[Sensor_Device.NT.Wdf]
KmdfService = Sensor, Sensor_Kmdf

[Sensor_Kmdf]
KmdfLibraryVersion = $KMDFVERSION$

[Strings]
SPSVCINST_ASSOCSERVICE = 0x00000002
Provider               = "The dmf project"
DiskName               = "Sensor Disk"
Sensor.DeviceDesc      = "Simulated Sensor"
Sensor.Service         = "Sensor Service"
"#;

fn options() -> StampOptions {
    StampOptions::new(DriverDate::new(2026, 9, 21).unwrap(), [1, 2, 3, 4])
}

fn inf() -> String {
    stamp(INX, &options())
}

fn resolve(text: &str) -> Result<DriverPackage, InfError> {
    Inf::parse("sensor.inf", text.as_bytes())?.validate_for(Architecture::Amd64)
}

/// The error that a change of the good INF gives.
fn after(from: &str, to: &str) -> String {
    let text = inf();
    assert!(text.contains(from), "{from:?} is not in the INF");
    let error = resolve(&text.replacen(from, to, 1))
        .expect_err(&format!("{from:?} -> {to:?} was accepted"));
    let message = error.to_string();
    assert_eq!(message.lines().count(), 1, "{message:?}");
    assert!(message.starts_with("sensor.inf"), "{message}");
    message
}

#[track_caller]
fn refused(from: &str, to: &str, parts: &[&str]) {
    let message = after(from, to);
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

#[test]
fn a_stamped_inx_resolves_to_everything_that_it_installs() {
    let package = resolve(&inf()).unwrap();
    assert_eq!(package.class, "Sample");
    assert_eq!(package.class_guid, "{78a1c341-4539-11d3-b88d-00c04fad5171}");
    assert_eq!(package.provider, "The dmf project");
    assert_eq!(package.version.to_string(), "09/21/2026,1.2.3.4");
    assert_eq!(package.catalog.as_deref(), Some("sensor.cat"));
    assert_eq!(package.models.len(), 2);
    let model = &package.models[0];
    assert_eq!(model.description, "Simulated Sensor");
    assert_eq!(model.manufacturer, "The dmf project");
    assert_eq!(model.hardware_id, r"Root\Sensor");
    assert_eq!(model.compatible_ids, [r"Root\SensorCompatible"]);
    assert_eq!(package.installs.len(), 1, "both models share their section");
    let install = package.install_for(model).unwrap();
    assert_eq!(
        (install.section.as_str(), install.decoration.as_str()),
        ("Sensor_Device", ".NT")
    );
    assert_eq!(
        install.registry[0].operation,
        RegOperation::Set(Value::dword(16))
    );
    let security = &install.hardware_registry[0];
    assert_eq!(
        security.operation,
        RegOperation::Set(Value::sz("D:P(A;;GA;;;SY)"))
    );
    assert_eq!(
        install.hardware_registry[1].operation,
        RegOperation::Append(vec!["filter".into()])
    );

    let files: Vec<_> = install
        .files
        .iter()
        .map(|file| (file.name.as_str(), file.source.as_str(), file.destination))
        .collect();
    assert_eq!(
        files,
        [
            ("sensor.sys", "sensor.sys", DirId::Drivers),
            ("helper.bin", "helper.bin", DirId::DriverStore)
        ]
    );
    assert_eq!(package.source_files.len(), 2);

    let service = package.services().next().unwrap();
    assert_eq!(
        (service.name.as_str(), service.is_function_driver),
        ("Sensor", true)
    );
    assert_eq!(
        (
            service.service_type,
            service.start_type,
            service.error_control
        ),
        (1, 3, 1)
    );
    assert_eq!(
        (service.binary_dir, service.binary_name.as_str()),
        (DirId::Drivers, "sensor.sys")
    );
    assert_eq!(service.display_name.as_deref(), Some("Sensor Service"));
    assert_eq!(service.kmdf_version, Some((1, 33)));
    assert_eq!(
        service.image_path("x"),
        r"\SystemRoot\System32\drivers\sensor.sys"
    );
    let registry: Vec<_> = service
        .registry
        .iter()
        .map(|change| (change.name.as_str(), &change.operation))
        .collect();
    let set = |value: Value| RegOperation::Set(value);
    assert_eq!(
        registry,
        [
            ("Text", &set(Value::sz("say \"hi\", The dmf project"))),
            ("List", &set(Value::multi_sz(["a", "b", "c"]))),
            ("Path", &set(Value::expand_sz(r"%SystemRoot%\x"))),
            ("Bytes", &set(Value::binary([0xde, 0xad]))),
            ("Wide", &set(Value::qword(1))),
            ("Once", &RegOperation::SetIfAbsent(Value::dword(7))),
            ("", &RegOperation::CreateKey),
        ]
    );
    assert_eq!(service.registry[6].subkey, r"Parameters\Deep");
    assert_eq!(service.registry[0].root, RegRoot::Relative);
}

#[test]
fn every_encoding_and_line_end_gives_the_same_package() {
    let text = inf().replace("The dmf project", "Köln");
    let expected = resolve(&text).unwrap();
    let crlf = text.replace('\n', "\r\n");
    let utf16: Vec<u8> = [0xFF, 0xFE]
        .into_iter()
        .chain(crlf.encode_utf16().flat_map(u16::to_le_bytes))
        .collect();
    let ansi: Vec<u8> = crlf
        .chars()
        .map(|letter| u8::try_from(u32::from(letter)).unwrap())
        .collect();
    let utf8_bom = [b"\xEF\xBB\xBF", crlf.as_bytes()].concat();
    for bytes in [utf16, ansi, utf8_bom] {
        let package = Inf::parse("sensor.inf", &bytes)
            .unwrap()
            .validate_for(Architecture::Amd64)
            .unwrap();
        assert_eq!(package, expected);
    }
}

#[test]
fn sections_of_one_name_are_one_and_names_ignore_case() {
    let text = inf().replace(
        "[Sensor_Software]",
        "[Sensor_Parameters]\nHKR,Parameters,Late,,x\n[sensor_SOFTWARE]",
    );
    let package = resolve(&text).unwrap();
    let names: Vec<&str> = package
        .services()
        .next()
        .unwrap()
        .registry
        .iter()
        .map(|change| change.name.as_str())
        .collect();
    assert_eq!(names[0], "Late");
    assert_eq!(names.len(), 8);
}

#[test]
fn the_newest_decoration_that_fits_the_system_wins() {
    let text = inf()
        .replace("= Standard,NTamd64.10.0...16299", "= Standard,NTamd64,NTamd64.10.0...16299,NTamd64.10.0...99999,NTarm64")
        .replace("[Sensor_Drivers]", "[Standard.NTamd64]\n%DiskName%=Sensor_Device,Root\\Old\n[Standard.NTarm64]\n%DiskName%=Sensor_Device,Root\\Arm\n[Standard.NTamd64.10.0...99999]\n%DiskName%=Sensor_Device,Root\\New\n[Sensor_Drivers]");
    let package = resolve(&text).unwrap();
    assert_eq!(package.models[0].hardware_id, r"Root\Sensor");
    assert_eq!(package.models.len(), 2);
    let decorated = inf().replace("[Sensor_Drivers]", "[Sensor_Device.NTamd64]\nCopyFiles=Sensor_Drivers\n[Sensor_Device.NTamd64.Services]\nAddService=Other,2,Sensor_Service\n[Sensor_Drivers]");
    let package = resolve(&decorated).unwrap();
    assert_eq!(package.installs[0].decoration, ".NTamd64");
    assert_eq!(package.services().next().unwrap().name, "Other");
}

#[test]
fn ids_match_with_the_hardware_id_first() {
    let package = resolve(&inf()).unwrap();
    assert_eq!(package.matches(&[r"root\sensor"])[0].0, 0);
    let (rank, model) = package.matches(&[r"ACPI\Other", r"Root\SensorCompatible"])[0];
    assert_eq!((rank, model.hardware_id.as_str()), (0x1001, r"Root\Sensor"));
    assert!(package.matches(&["Root\\Nobody"]).is_empty());
}

#[test]
fn sections_of_other_infs_are_noted() {
    let text = inf().replace(
        "[Sensor_Device.NT]\n",
        "[Sensor_Device.NT]\nInclude = wudfrd.inf\nNeeds = WUDFRD.NT\n",
    );
    let package = resolve(&text).unwrap();
    assert!(
        package.notes[0].contains("wudfrd.inf"),
        "{:?}",
        package.notes
    );
    refused(
        "[Sensor_Device.NT]\n",
        "[Sensor_Device.NT]\nNeeds = Nowhere\n",
        &["Nowhere", "does not have"],
    );
}

#[test]
fn stamping_fills_the_tokens_and_the_version_and_nothing_else() {
    let text = inf();
    assert!(text.contains("Standard,NTamd64.10.0...16299 ; Windows 10"));
    assert!(text.contains("KmdfLibraryVersion = 1.33\n"));
    assert!(text.contains("[Version]\nDriverVer = 09/21/2026,1.2.3.4\nSignature"));
    assert_eq!(text.lines().count(), INX.lines().count() + 1);

    let crlf = "[Version]\r\ndriverver=*;now\r\nCatalogFile=a.cat\r\n[Other]\r\nDriverVer=x\r\n";
    let stamped = stamp(
        crlf,
        &StampOptions {
            catalog: Some("b.cat".into()),
            ..options()
        },
    );
    assert_eq!(
        stamped,
        "[Version]\r\nDriverVer = 09/21/2026,1.2.3.4 ;now\r\nCatalogFile = b.cat\r\n[Other]\r\nDriverVer=x\r\n"
    );
    assert_eq!(
        stamp("[Version]", &options()),
        "[Version]\nDriverVer = 09/21/2026,1.2.3.4\n"
    );
    assert_eq!(
        stamp(&text, &options()),
        text,
        "stamping twice changes nothing"
    );
}

#[test]
fn an_inx_that_was_not_stamped_says_so() {
    let message = resolve(INX).unwrap_err().to_string();
    assert!(
        message.contains("$ARCH$") && message.contains("INX"),
        "{message}"
    );
}

#[test]
fn what_the_version_section_lacks_is_named() {
    let no_version = resolve(&inf().replace("[Version]", "[Versio]"))
        .unwrap_err()
        .to_string();
    assert!(
        no_version.contains("[Version]") && no_version.contains("Signature"),
        "{no_version}"
    );
    refused(
        "Signature   =",
        ";",
        &[
            "sensor.inf:4",
            "[Version] Signature: missing",
            "$WINDOWS NT$",
        ],
    );
    refused("Class       =", ";", &["[Version] Class: missing"]);
    refused("ClassGuid   =", ";", &["[Version] ClassGuid: missing"]);
    refused("Provider    =", ";", &["[Version] Provider: missing"]);
    refused(
        "DriverVer =",
        ";",
        &["[Version] DriverVer: missing", "mm/dd/yyyy"],
    );
    refused(
        "09/21/2026,1.2.3.4",
        "31/12/2026,1.2.3.4",
        &["sensor.inf:5", "DriverVer = \"31/12/2026,1.2.3.4\""],
    );
    refused("1.2.3.4", "1.2.3.99999", &["1.2.3.99999", "65535"]);
    refused("$WINDOWS NT$", "$DOS$", &["Signature = \"$DOS$\""]);
    refused("{78A1C341-", "{78A1C341", &["ClassGuid", "not a GUID"]);
    refused(
        "PnpLockdown = 1",
        "Class = Other",
        &["[Version] Class = \"Other\"", "twice"],
    );
}

#[test]
fn an_unknown_section_is_named_with_the_standard_ones() {
    refused(
        "[SourceDisksNames]",
        "[SourceDiskNames]",
        &[
            "sensor.inf:17: [SourceDiskNames]",
            "unknown section",
            "SourceDisksNames",
        ],
    );
    refused(
        "[Strings]",
        "[Leftover]\na=b\n[Strings]",
        &["[Leftover]", "unknown section"],
    );
    refused(
        "[Sensor_Device.NT.Services]",
        "[Sensor_Device.NT.Servces]",
        &["[Sensor_Device.NT.Servces]", "unknown section"],
    );
    refused(
        "[Sensor_Device.NT.Services]",
        "[Sensor_Device.Services]",
        &["[Sensor_Device.Services]", "[Sensor_Device.NT.Services]"],
    );
}

#[test]
fn an_inf_for_another_architecture_is_refused() {
    let text = inf().replace("NTamd64", "NTarm64");
    let message = resolve(&text).unwrap_err().to_string();
    for part in ["[Manufacturer]", "NTarm64", "amd64", "sensor.inf:25"] {
        assert!(message.contains(part), "{part:?} in {message}");
    }
    assert!(
        Inf::parse("sensor.inf", text.as_bytes())
            .unwrap()
            .validate_for(Architecture::Arm64)
            .is_ok()
    );
    refused("= Standard,NTamd64.10.0...16299", "= Standard", &["amd64"]);
    refused(
        "NTamd64.10.0...16299 ;",
        "NTmips ;",
        &["NTmips", "not a target system"],
    );
}

#[test]
fn references_to_nothing_are_refused() {
    refused(
        "%Provider%\nCatalog",
        "%Providr%\nCatalog",
        &["sensor.inf:9", "%Providr%", "undefined string", "[Strings]"],
    );
    refused(
        "CopyFiles = Sensor_Drivers",
        "CopyFiles = Sensor_Drvers",
        &["CopyFiles = \"Sensor_Drvers\"", "does not have"],
    );
    refused(
        "CopyFiles = Sensor_Drivers",
        "CopyFiles = Sensor_Drivers,Sensor_Drivers",
        &["twice"],
    );
    refused(
        "[Sensor_Drivers]\nsensor.sys",
        "[Sensor_Drivers]\nsensr.sys",
        &["[Sensor_Drivers]", "sensr.sys", "SourceDisksFiles"],
    );
    refused(
        "sensor.sys = 1,,",
        "sensor.sys = 2",
        &["sensor.sys = \"2\"", "SourceDisksNames"],
    );
    refused(
        "Sensor_Drivers = 12",
        "Sensor_Drivers = 11",
        &["Sensor_Drivers = \"11\"", "13"],
    );
    refused(
        "Sensor_Drivers = 12",
        "Sensor_Files = 12",
        &["Sensor_Files", "does not have"],
    );
    refused(
        "Sensor_Drivers = 12",
        "Sensor_Drivers = 13",
        &["ServiceBinary", "%12%", "DestinationDirs"],
    );
    refused(
        ", Sensor_Service\n",
        ", Sensor_Servce\n",
        &["AddService = \"Sensor_Servce\""],
    );
    refused(
        "KmdfService = Sensor,",
        "KmdfService = Senor,",
        &["KmdfService = \"Senor\""],
    );
    refused(
        "= Sensor_Device, Root\\Sensor,",
        "= Sensr_Device, Root\\Sensor,",
        &["Sensr_Device"],
    );
    refused(
        "= Sensor_Device, ACPI\\SENS0001",
        "= Sensor_Device",
        &["hardware id"],
    );
}

#[test]
fn values_that_make_no_sense_are_refused() {
    refused(
        "StartType     = 3",
        "StartType = 5",
        &["[Sensor_Service] StartType = \"5\"", "0 to 4"],
    );
    refused(
        "ServiceType   = 1",
        "ServiceType = 0x10",
        &["ServiceType = \"0x10\"", "SERVICE_KERNEL_DRIVER"],
    );
    refused(
        "ErrorControl  = 1",
        "",
        &["[Sensor_Service] ErrorControl: missing"],
    );
    refused(
        "%12%\\sensor.sys",
        "%10%\\sensor.sys",
        &["ServiceBinary = \"%10%\\sensor.sys\""],
    );
    refused(
        "0x00010001,0x10",
        "0x00010001,ten",
        &["[Sensor_Software]", "ten", "32-bit"],
    );
    refused("HKR,,Flags", "HKX,,Flags", &["HKX", "HKR"]);
    refused("Bytes,1,de,ad", "Bytes,1,de,xy", &["xy", "not a byte"]);
    refused(
        "KmdfLibraryVersion = 1.33",
        "KmdfLibraryVersion = new",
        &["KmdfLibraryVersion = \"new\""],
    );
    refused(
        "AddReg    = Sensor_Software",
        "AddRge = Sensor_Software",
        &["AddRge"],
    );
    refused(
        "sensor.sys = 1,,",
        "sensor.sys = 1,..\\..",
        &["sensor.sys", "within the package"],
    );
}

#[test]
fn malformed_lines_are_refused() {
    refused(
        "Signature   = \"$WINDOWS NT$\"",
        "Signature = \"$WINDOWS",
        &["sensor.inf:6", "[Version]", "not closed"],
    );
    refused("[DestinationDirs]", "[DestinationDirs", &["section header"]);
    refused(
        ";\n; sensor.inx",
        "stray",
        &["sensor.inf:1", "stray", "before the first section"],
    );
    refused("PnpLockdown = 1", "= 1", &["nothing before"]);
    refused(
        "PnpLockdown = 1",
        "PnpLockdown",
        &["[Version]", "PnpLockdown", "key = value"],
    );
    refused(
        "DiskName               =",
        "Provider =",
        &["[Strings]", "already"],
    );
    let message = Inf::parse("nul.inf", b"[Version]\n\0")
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("nul.inf:2") && message.contains("NUL"),
        "{message}"
    );
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(inf) = Inf::parse("x.inf", &bytes) {
            let _ = inf.validate_for(Architecture::Amd64);
        }
        let _ = stamp(&String::from_utf8_lossy(&bytes), &options());
    }

    #[test]
    fn a_mutated_inf_is_read_or_refused_in_one_line(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..4u8), 1..8),
    ) {
        let mut bytes = inf().into_bytes();
        for (at, other, how) in edits {
            let (at, other) = (at.index(bytes.len()), other.index(bytes.len()));
            match how {
                0 => bytes[at] = bytes[other],
                1 => { bytes.remove(at); }
                2 => bytes.insert(at, b"=,[]\"%\\;\n$"[other % 10]),
                _ => bytes.swap(at, other),
            }
        }
        let result = Inf::parse("x.inf", &bytes).and_then(|inf| inf.validate_for(Architecture::Amd64));
        if let Err(error) = result {
            prop_assert_eq!(error.to_string().lines().count(), 1);
        }
    }
}
