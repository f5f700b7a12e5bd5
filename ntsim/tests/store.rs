// SPDX-License-Identifier: MIT OR Apache-2.0
//! A machine's folder: installing, devices, and that nothing half-done is ever left.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use ntsim::inf::{Architecture, Inf};
use ntsim::registry::{Registry, Value, Volatility};
use ntsim::store::{
    Enabled, MachineDir, PackageSource, Problem, Status, StoreError, Update, read_package,
};
use tempfile::TempDir;

const SERVICE: &str = r"HKLM\SYSTEM\CurrentControlSet\Services\Sensor";

fn inf(version: &str, service: &str) -> String {
    format!(
        r#"[Version]
Signature = "$WINDOWS NT$"
Class = Sample
ClassGuid = {{78A1C341-4539-11d3-B88D-00C04FAD5171}}
Provider = %P%
DriverVer = 09/21/2026,{version}
CatalogFile = sensor.cat
[DestinationDirs]
DefaultDestDir = 12
[SourceDisksNames]
1 = %P%
[SourceDisksFiles]
{service}.sys = 1,bin
[Manufacturer]
%P% = Models,NTamd64
[Models.NTamd64]
%P% Sensor = Sensor_Install, Root\Sensor
[Sensor_Install.NT]
CopyFiles = @{service}.sys
[Sensor_Install.NT.HW]
AddReg = Hardware
[Hardware]
HKR,,UpperFilters,0x00010000,above
HKR,,Speed,0x00010001,9600
[Sensor_Install.NT.Services]
AddService = {service},2,Service
[Service]
ServiceType = 1
StartType = 3
ErrorControl = 1
ServiceBinary = %12%\{service}.sys
AddReg = Service_Reg
[Service_Reg]
HKR,Parameters,Poll,0x00010001,10
[Sensor_Install.NT.Wdf]
KmdfService = {service}, Kmdf
[Kmdf]
KmdfLibraryVersion = 1.33
[Strings]
P = "dmf"
"#
    )
}

/// Puts a package into a folder and gives its INF.
fn package(folder: &Path, version: &str, service: &str) -> PathBuf {
    fs::create_dir_all(folder.join("bin")).unwrap();
    let path = folder.join("sensor.inf");
    fs::write(&path, inf(version, service)).unwrap();
    // In another case than the INF has it, as it happens with files from Windows.
    let image = folder
        .join("bin")
        .join(format!("{}.SYS", service.to_uppercase()));
    fs::write(image, format!("image of {version}")).unwrap();
    path
}

/// Every file and folder with its contents.
fn snapshot(root: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(snapshot(&path));
            found.insert(path, None);
        } else {
            let contents = fs::read(&path).unwrap_or_default();
            found.insert(path, Some(contents));
        }
    }
    found
}

fn temp() -> (TempDir, PathBuf, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let inf = package(&folder.path().join("package"), "1.0.0.0", "Sensor");
    let machine = folder.path().join("machine");
    (folder, inf, machine)
}

#[test]
fn an_installed_driver_drives_its_device_across_reopening() {
    let (_folder, inf, root) = temp();
    let mut machine = MachineDir::create(&root).unwrap();
    let installed = machine.install_inf(&inf).unwrap();
    assert_eq!(installed.published_name, "oem0.inf");
    assert!(
        installed.folder.starts_with("sensor.inf_amd64_"),
        "{installed:?}"
    );
    assert_eq!(installed.services, ["Sensor"]);
    assert_eq!(
        fs::read(root.join("drivers/Sensor.sys")).unwrap(),
        b"image of 1.0.0.0"
    );
    assert!(
        root.join("DriverStore")
            .join(&installed.folder)
            .join("bin/Sensor.sys")
            .exists()
    );
    assert_eq!(
        machine.add_root_device(r"Root\Sensor").unwrap(),
        r"ROOT\SENSOR\0000"
    );
    assert_eq!(
        machine.add_root_device(r"root\sensor").unwrap(),
        r"ROOT\SENSOR\0001"
    );
    drop(machine);

    let machine = MachineDir::open(&root).unwrap();
    let device = machine.device(r"root\sensor\0000").unwrap();
    assert_eq!(device.service.as_deref(), Some("Sensor"));
    assert_eq!(device.hardware_ids, [r"Root\Sensor"]);
    assert_eq!(device.description.as_deref(), Some("dmf Sensor"));
    assert_eq!(device.inf.as_deref(), Some("oem0.inf"));
    assert_eq!(
        device.driver_key.as_deref(),
        Some(r"{78a1c341-4539-11d3-b88d-00c04fad5171}\0000")
    );
    let image = machine.service_image("sensor").unwrap();
    assert_eq!(*image.bytes, *b"image of 1.0.0.0");
    assert_eq!(image.path.unwrap(), root.join("drivers/Sensor.sys"));

    let registry = machine.registry();
    let value = |key: &str, name: &str| {
        registry
            .value(registry.open(key).unwrap(), name)
            .unwrap()
            .clone()
    };
    assert_eq!(
        value(SERVICE, "ImagePath"),
        Value::expand_sz(r"\SystemRoot\System32\drivers\Sensor.sys")
    );
    assert_eq!(value(SERVICE, "Start"), Value::dword(3));
    assert_eq!(
        value(&format!(r"{SERVICE}\Parameters"), "Poll"),
        Value::dword(10)
    );
    assert_eq!(
        value(&format!(r"{SERVICE}\Parameters\Wdf"), "KmdfLibraryVersion"),
        Value::sz("1.33")
    );
    let node = r"HKLM\SYSTEM\CurrentControlSet\Enum\Root\Sensor\0000";
    assert_eq!(value(node, "UpperFilters"), Value::multi_sz(["above"]));
    assert_eq!(
        value(&format!(r"{node}\Device Parameters"), "Speed"),
        Value::dword(9600)
    );
    let class =
        r"HKLM\SYSTEM\CurrentControlSet\Control\Class\{78a1c341-4539-11d3-b88d-00c04fad5171}";
    assert_eq!(value(class, "Class"), Value::sz("Sample"));
    assert_eq!(
        value(&format!(r"{class}\0001"), "DriverVersion"),
        Value::sz("1.0.0.0")
    );
    assert_eq!(
        value(&format!(r"{class}\0001"), "DriverDate"),
        Value::sz("9-21-2026")
    );
}

#[test]
fn a_device_that_waits_gets_its_driver_when_that_is_installed() {
    let (_folder, inf, root) = temp();
    let mut machine = MachineDir::create(&root).unwrap();
    let device = machine.add_root_device(r"Root\Sensor").unwrap();
    assert_eq!(machine.device(&device).unwrap().service, None);
    let installed = machine.install_inf(&inf).unwrap();
    assert_eq!(installed.devices, std::slice::from_ref(&device));
    assert_eq!(
        machine.device(&device).unwrap().service.as_deref(),
        Some("Sensor")
    );
    machine.remove_device(&device).unwrap();
    assert_eq!(machine.devices().unwrap(), []);
    for bad in ["", "a,b", "with space", "ümlaut"] {
        assert!(
            matches!(
                machine.add_root_device(bad),
                Err(StoreError::BadHardwareId(_))
            ),
            "{bad:?}"
        );
    }
}

#[test]
fn installing_again_changes_nothing_and_an_update_replaces_the_image() {
    let (folder, inf, root) = temp();
    let mut machine = MachineDir::create(&root).unwrap();
    machine.install_inf(&inf).unwrap();
    let device = machine.add_root_device(r"Root\Sensor").unwrap();
    let before = snapshot(&root);
    machine.install_inf(&inf).unwrap();
    assert_eq!(snapshot(&root), before);

    let newer = package(&folder.path().join("newer"), "2.0.0.0", "Sensor");
    assert_eq!(
        machine.install_inf(&newer).unwrap().published_name,
        "oem1.inf"
    );
    assert_eq!(
        *machine.service_image("Sensor").unwrap().bytes,
        *b"image of 2.0.0.0"
    );
    assert_eq!(
        machine.device(&device).unwrap().inf.as_deref(),
        Some("oem1.inf")
    );
    // The file that both have stays with the one that is left.
    machine.uninstall("oem0.inf").unwrap();
    assert_eq!(
        *machine.service_image("Sensor").unwrap().bytes,
        *b"image of 2.0.0.0"
    );
    assert_eq!(machine.packages().unwrap().len(), 1);
}

#[test]
fn uninstalling_takes_everything_back_but_the_device() {
    let (_folder, inf, root) = temp();
    let mut machine = MachineDir::create(&root).unwrap();
    let device = machine.add_root_device(r"Root\Sensor").unwrap();
    let installed = machine.install_inf(&inf).unwrap();
    let message = machine.uninstall("oem7.inf").unwrap_err().to_string();
    assert!(
        message.contains("oem7.inf") && message.contains("oem0.inf"),
        "{message}"
    );
    machine.uninstall(&installed.folder).unwrap();
    assert!(machine.registry().open(SERVICE).is_err());
    assert_eq!(machine.device(&device).unwrap().service, None);
    assert_eq!(fs::read_dir(root.join("drivers")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(root.join("DriverStore")).unwrap().count(), 0);
    assert!(
        machine
            .service_image("Sensor")
            .unwrap_err()
            .to_string()
            .contains("Sensor")
    );
}

#[test]
fn the_best_of_several_drivers_is_chosen_for_a_new_device() {
    let (folder, old, root) = temp();
    let newer = package(&folder.path().join("newer"), "2.0.0.0", "Newer");
    let mut machine = MachineDir::create(&root).unwrap();
    machine.install_inf(&newer).unwrap();
    machine.install_inf(&old).unwrap();
    let device = machine.add_root_device(r"Root\Sensor").unwrap();
    assert_eq!(
        machine.device(&device).unwrap().service.as_deref(),
        Some("Newer")
    );
}

#[test]
fn a_staged_package_is_used_when_a_device_needs_it() {
    let (folder, inf, root) = temp();
    let mut machine = MachineDir::create(&root).unwrap();
    let waiting = machine.add_root_device(r"Root\Sensor").unwrap();
    let staged = read_package(&inf).unwrap();
    let source = PackageSource::Folder(inf.parent().unwrap());
    let published = machine.stage_from(&staged, source).unwrap();
    // It is in the store, and nobody uses it.
    assert_eq!(machine.drivers().unwrap()[0].published_name, published);
    assert!(machine.devices_of_driver(&published).unwrap().is_empty());
    assert!(machine.service_image("Sensor").is_err());
    assert_eq!(fs::read_dir(root.join("drivers")).unwrap().count(), 0);
    assert_eq!(
        machine.device(&waiting).unwrap().status,
        Status::Problem(Problem::NO_DRIVER)
    );

    let made = machine.add_root_device(r"Root\Sensor").unwrap();
    assert_eq!(machine.device(&made).unwrap().status, Status::Stopped);
    assert_eq!(
        *machine.service_image("Sensor").unwrap().bytes,
        *b"image of 1.0.0.0"
    );
    let updated = machine.update_drivers(Update::WithoutDriver, None).unwrap();
    assert_eq!(updated, [waiting.as_str()]);
    assert_eq!(
        machine.devices_of_driver(&published).unwrap(),
        [waiting.as_str(), &made]
    );

    // A later version is better; those who have a driver keep it unless all are asked.
    let newer = package(&folder.path().join("newer"), "2.0.0.0", "Sensor");
    let source = PackageSource::Folder(newer.parent().unwrap());
    let staged = read_package(&newer).unwrap();
    machine.stage_from(&staged, source).unwrap();
    let nobody: [&str; 0] = [];
    assert_eq!(
        machine.update_drivers(Update::WithoutDriver, None).unwrap(),
        nobody
    );
    // The older one is not better because it is preferred.
    let updated = machine
        .update_drivers(Update::All, Some(&published))
        .unwrap();
    assert_eq!(updated, [waiting.as_str(), &made]);
    assert_eq!(
        *machine.service_image("Sensor").unwrap().bytes,
        *b"image of 2.0.0.0"
    );
    assert_eq!(machine.update_drivers(Update::All, None).unwrap(), nobody);

    machine.set_enabled(&made, Enabled::No).unwrap();
    assert_eq!(machine.device(&made).unwrap().status, Status::Disabled);
    drop(machine);
    // It is still, when somebody looks; who looks cannot change it.
    let mut machine = MachineDir::look(&root).unwrap();
    assert_eq!(machine.device(&made).unwrap().status, Status::Disabled);
    let before = snapshot(&root);
    assert!(machine.set_enabled(&made, Enabled::Yes).is_err());
    assert!(machine.commit_registry().is_err());
    assert_eq!(snapshot(&root), before);
}

#[test]
fn a_package_with_a_missing_file_leaves_the_machine_as_it_was() {
    let (_folder, inf, root) = temp();
    let mut machine = MachineDir::create(&root).unwrap();
    let before = snapshot(&root);
    fs::remove_dir_all(inf.with_file_name("bin")).unwrap();
    let message = machine.install_inf(&inf).unwrap_err().to_string();
    for part in [
        "sensor.inf:13",
        "[SourceDisksFiles]",
        "bin/Sensor.sys",
        "put the file there",
    ] {
        assert!(message.contains(part), "{part:?} in {message}");
    }
    assert!(
        machine
            .install_inf(&inf.with_file_name("no.inf"))
            .unwrap_err()
            .to_string()
            .contains("no.inf")
    );
    assert_eq!(snapshot(&root), before);
    assert!(machine.registry().open(SERVICE).is_err());
}

#[cfg(unix)]
#[test]
fn a_change_that_fails_half_way_is_taken_back() {
    let (_folder, inf, root) = temp();
    let mut machine = MachineDir::create(&root).unwrap();
    // The driver store comes first and works; a folder that cannot be made comes after it.
    fs::remove_dir(root.join("drivers")).unwrap();
    std::os::unix::fs::symlink("nowhere", root.join("drivers")).unwrap();
    let before = snapshot(&root);
    let message = machine.install_inf(&inf).unwrap_err().to_string();
    assert!(
        message.contains("drivers") && message.contains("cannot create"),
        "{message}"
    );
    assert_eq!(snapshot(&root), before);
    assert!(machine.registry().open(SERVICE).is_err());
}

#[test]
fn a_change_decided_before_a_crash_is_finished_and_another_is_dropped() {
    let (_folder, _, root) = temp();
    drop(MachineDir::create(&root).unwrap());
    let before = snapshot(&root);
    let stage = root.join(".txn");
    fs::create_dir(&stage).unwrap();
    fs::write(stage.join("new0"), "half").unwrap();
    drop(MachineDir::open(&root).unwrap());
    assert_eq!(snapshot(&root), before, "no plan, no change");

    let mut registry = Registry::new();
    let key = registry.create(SERVICE, Volatility::Persistent).unwrap();
    registry.set_value(key, "Start", Value::dword(3)).unwrap();
    fs::create_dir(&stage).unwrap();
    fs::write(stage.join("new1"), registry.to_reg()).unwrap();
    // `new0` has been moved to its place already.
    fs::write(root.join("drivers/x.sys"), "x").unwrap();
    fs::write(
        stage.join("plan"),
        "write drivers/x.sys\nwrite registry.reg\nremove drivers/gone.sys\n",
    )
    .unwrap();
    let machine = MachineDir::open(&root).unwrap();
    assert_eq!(machine.registry(), &registry);
    assert!(!stage.exists());
    drop(machine);

    fs::create_dir(&stage).unwrap();
    fs::write(stage.join("plan"), "write ../outside\n").unwrap();
    let message = MachineDir::open(&root).unwrap_err().to_string();
    assert!(
        message.contains("plan") && message.contains("../outside"),
        "{message}"
    );
}

#[test]
fn what_is_not_a_machine_is_refused_and_left_alone() {
    let (folder, _, root) = temp();
    let other = folder.path().join("package");
    let before = snapshot(&other);
    let message = MachineDir::open(&other).unwrap_err().to_string();
    assert!(
        message.contains("package") && message.contains("registry.reg"),
        "{message}"
    );
    assert!(matches!(
        MachineDir::create(&other),
        Err(StoreError::NotEmpty(_))
    ));
    assert!(matches!(
        MachineDir::open_or_create(&other),
        Err(StoreError::NotAMachine { .. })
    ));
    assert_eq!(snapshot(&other), before);
    assert!(
        MachineDir::open(&root)
            .unwrap_err()
            .to_string()
            .contains("no such folder")
    );
    assert!(!root.exists());
}

#[test]
fn a_damaged_registry_is_named_by_line_and_value_and_left_alone() {
    let (_folder, inf, root) = temp();
    MachineDir::create(&root)
        .unwrap()
        .install_inf(&inf)
        .unwrap();
    let text = "Windows Registry Editor Version 5.00\n\n[HKEY_LOCAL_MACHINE\\SYSTEM\\ControlSet001\\Services\\Sensor]\n\"Start\"=dword:zz\n";
    fs::write(root.join("registry.reg"), text).unwrap();
    let before = snapshot(&root);
    let message = MachineDir::open(&root).unwrap_err().to_string();
    for part in ["registry.reg:4:9", "\"Start\"", "dword:zz"] {
        assert!(message.contains(part), "{part:?} in {message}");
    }
    assert_eq!(snapshot(&root), before);
}

#[test]
fn a_machine_is_open_once_at_a_time() {
    let (_folder, _, root) = temp();
    let first = MachineDir::create(&root).unwrap();
    assert!(matches!(MachineDir::open(&root), Err(StoreError::InUse(_))));
    drop(first);
    MachineDir::open(&root).unwrap();
}

#[test]
fn committing_keeps_the_registry_without_its_volatile_keys() {
    let (_folder, _, root) = temp();
    let mut machine = MachineDir::open_or_create(&root).unwrap();
    let registry = machine.registry_mut();
    let key = registry.create(SERVICE, Volatility::Persistent).unwrap();
    registry
        .set_value(key, "TimesRun", Value::dword(1))
        .unwrap();
    registry
        .create_at(key, "Enum", Volatility::Volatile)
        .unwrap();
    machine.commit_registry().unwrap();
    drop(machine);
    let machine = MachineDir::open_or_create(&root).unwrap();
    let key = machine.registry().open(SERVICE).unwrap();
    assert_eq!(
        machine.registry().value(key, "TimesRun").unwrap(),
        &Value::dword(1)
    );
    assert!(machine.registry().open_at(key, "Enum").is_err());
}

#[test]
fn a_machine_in_memory_has_the_same_registry_as_one_in_a_folder() {
    let (_folder, inf_path, root) = temp();
    let mut on_disk = MachineDir::create(&root).unwrap();
    on_disk.install_inf(&inf_path).unwrap();
    on_disk.add_root_device(r"Root\Sensor").unwrap();

    let text = inf("1.0.0.0", "Sensor").into_bytes();
    let package = Inf::parse("sensor.inf", &text)
        .unwrap()
        .validate_for(Architecture::Amd64)
        .unwrap();
    assert_eq!(package, read_package(&inf_path).unwrap());
    let files = BTreeMap::from([
        ("sensor.inf".to_owned(), text),
        ("bin/sensor.sys".to_owned(), b"image of 1.0.0.0".to_vec()),
    ]);
    let mut in_memory = MachineDir::in_memory();
    in_memory
        .install_from(&package, PackageSource::Memory(&files))
        .unwrap();
    let device = in_memory.add_root_device(r"Root\Sensor").unwrap();
    assert_eq!(in_memory.registry(), on_disk.registry());
    let service = in_memory.device(&device).unwrap().service.unwrap();
    assert_eq!(
        *in_memory.service_image(&service).unwrap().bytes,
        *b"image of 1.0.0.0"
    );
    in_memory.uninstall("oem0.inf").unwrap();
    assert_eq!(in_memory.packages().unwrap(), []);
}

#[test]
fn twins_of_a_machine_in_memory_go_separate_ways() {
    let (_folder, inf_path, _root) = temp();
    let mut original = MachineDir::in_memory();
    original.install_inf(&inf_path).unwrap();
    let twin = original.twin().unwrap();
    let mut another = twin.twin().unwrap();
    let device = another.add_root_device(r"Root\Sensor").unwrap();
    let service = another.device(&device).unwrap().service.unwrap();
    assert_eq!(
        *another.service_image(&service).unwrap().bytes,
        *original.service_image(&service).unwrap().bytes
    );
    assert!(twin.device(&device).is_err());
    assert!(original.device(&device).is_err());
    original.uninstall("oem0.inf").unwrap();
    assert_eq!(twin.packages().unwrap(), another.packages().unwrap());
    assert_eq!(twin.packages().unwrap().len(), 1);
}
