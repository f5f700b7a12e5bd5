// SPDX-License-Identifier: MIT OR Apache-2.0

//! The I/O manager (`Io`): drivers, their objects, loading and unloading.

pub(crate) mod irp;
pub(crate) mod remove_lock;
pub(crate) mod work_item;

use std::ops::Range;
use std::path::PathBuf;

use crate::abi::{Abi, callback, param};
use crate::access::{UnicodeString, peek};
use crate::image::symbols::Symbols;
use crate::image::{Loaded, Unloaded};
use crate::kernel::Kernel;
use crate::memory::{Fill, GuardedPool};
use crate::ob::Handles;
use crate::trap::kernel;

/// Names a driver for as long as the machine runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct DriverId(pub(crate) usize);

/// What the I/O manager remembers.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) handles: Handles,
    /// The tags with which remove locks are held.
    remove_locks: remove_lock::Tags,
    work_items: work_item::Items,
    /// Requests of users, and the files they are for.
    pub(crate) irps: irp::Irps,
    pub(crate) drivers: Vec<Driver>,
    /// The address ranges of loaded images, also of unloaded ones.
    images: Vec<Range<usize>>,
    /// Unloaded images, whose addresses are kept free.
    unloaded: Vec<Unloaded>,
    /// Memory of the system's own objects that drivers may look at.
    pub(crate) system: GuardedPool,
}

/// A driver that was loaded, and perhaps unloaded again.
pub(crate) struct Driver {
    /// The service's name.
    pub(crate) name: String,
    /// Its `PDRIVER_OBJECT`.
    pub(crate) object: usize,
    /// Its `PUNICODE_STRING` registry path.
    pub(crate) registry_path: usize,
    pub(crate) loaded: bool,
    pub(crate) image: Option<Loaded>,
    /// Where the image was read from; its PDB lies beside it.
    pub(crate) image_path: Option<PathBuf>,
    pub(crate) entry: Entry,
}

/// Where a driver's code begins.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Entry {
    /// The image's entry point, `FxDriverEntry`.
    Image(usize),
    /// A linked-in driver's `DriverEntry`; ntsim binds it to the framework.
    Host(usize),
}

/// `DRIVER_OBJECT` on x64.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct DriverObject {
    kind: i16,
    size: i16,
    pub(crate) device_object: usize,
    flags: u32,
    driver_start: usize,
    driver_size: u32,
    driver_section: usize,
    pub(crate) driver_extension: usize,
    driver_name: UnicodeString,
    hardware_database: usize,
    fast_io_dispatch: usize,
    driver_init: usize,
    driver_start_io: usize,
    pub(crate) driver_unload: usize,
    pub(crate) major_function: [usize; 28],
}

const IO_TYPE_DRIVER: i16 = 4;

/// Of how many unloaded images the addresses are kept free.
const KEPT_UNLOADED: usize = 16;

impl State {
    /// The calling convention of the code at `address`.
    pub(crate) fn abi_of(&self, address: usize) -> Abi {
        if self.images.iter().any(|image| image.contains(&address)) {
            Abi::Image
        } else {
            Abi::Host
        }
    }

    /// Whether any driver is an image. A machine has drivers of one sort.
    pub(crate) fn has_images(&self) -> bool {
        !self.images.is_empty()
    }

    /// The driver of `service`, if it is loaded.
    pub(crate) fn loaded(&self, service: &str) -> Option<DriverId> {
        let position = self
            .drivers
            .iter()
            .position(|driver| driver.loaded && driver.name.eq_ignore_ascii_case(service));
        position.map(DriverId)
    }

    /// Gives an unloaded driver's image back; its addresses stay unused, until many
    /// others have been unloaded, so that code that runs there faults.
    pub(crate) fn unmap(&mut self, id: DriverId) {
        if let Some(image) = self.drivers[id.0].image.take() {
            self.unloaded.push(image.unload());
        }
        if self.unloaded.len() > KEPT_UNLOADED {
            let oldest = self.unloaded.remove(0).addresses();
            self.images.retain(|image| *image != oldest);
        }
    }

    /// The images that are loaded now.
    pub(crate) fn loaded_images(&self) -> Vec<&Loaded> {
        self.drivers
            .iter()
            .filter_map(|driver| driver.image.as_ref())
            .collect()
    }

    /// The same with their symbols, where a PDB lies beside the image
    /// or in one of `folders`.
    pub(crate) fn images_with_symbols(
        &self,
        folders: &[PathBuf],
    ) -> Vec<(&Loaded, Option<Symbols>)> {
        self.drivers
            .iter()
            .filter_map(|driver| {
                let loaded = driver.image.as_ref()?;
                let elsewhere = folders
                    .iter()
                    .map(|folder| folder.join(loaded.image().name()));
                let symbols = driver
                    .image_path
                    .iter()
                    .cloned()
                    .chain(elsewhere)
                    .find_map(|path| Symbols::find(loaded.image(), &path).ok());
                Some((loaded, symbols))
            })
            .collect()
    }

    pub(crate) fn driver(&self, id: DriverId) -> &Driver {
        &self.drivers[id.0]
    }
}

/// Zeroed memory of the system's own, which the driver may read.
pub(crate) fn system_memory(k: &mut Kernel, size: usize) -> usize {
    let tag = u32::from_le_bytes(*b"Ntsm");
    k.io.system
        .allocate(size, tag, Fill::Zero)
        .expect("the host has memory for the system's objects")
        .as_ptr() as usize
}

/// A `UNICODE_STRING` in system memory.
pub(crate) fn system_string(k: &mut Kernel, text: &str) -> usize {
    let units: Vec<u16> = text.encode_utf16().collect();
    let bytes = units.len() * 2;
    let buffer = system_memory(k, bytes + 2);
    for (index, unit) in units.iter().enumerate() {
        crate::access::poke((buffer + index * 2) as *mut u16, *unit);
    }
    let length = u16::try_from(bytes).expect("names of the system are short");
    let string = system_memory(k, size_of::<UnicodeString>());
    crate::access::poke(
        string as *mut UnicodeString,
        UnicodeString {
            length,
            maximum_length: length + 2,
            buffer: buffer as *mut u16,
        },
    );
    string
}

/// Enters a driver in the table: makes its driver object and registry path.
pub(crate) fn create_driver(
    k: &mut Kernel,
    service: &str,
    entry: Entry,
    image: Option<(Loaded, PathBuf)>,
) -> DriverId {
    let (image, image_path) = image.unzip();
    let object = system_memory(k, size_of::<DriverObject>());
    let registry_path = system_string(
        k,
        &format!(r"\Registry\Machine\System\CurrentControlSet\Services\{service}"),
    );
    let name = crate::access::peek(
        system_string(k, &format!(r"\Driver\{service}")) as *const UnicodeString
    );
    // DRIVER_EXTENSION: DriverObject, AddDevice, Count, ServiceKeyName.
    let extension = system_memory(k, 0x50);
    crate::access::poke(extension as *mut usize, object);
    let driver_object = DriverObject {
        kind: IO_TYPE_DRIVER,
        size: i16::try_from(size_of::<DriverObject>()).expect("336 bytes"),
        device_object: 0,
        flags: 0,
        driver_start: image.as_ref().map_or(0, Loaded::base),
        driver_size: 0,
        driver_section: 0,
        driver_extension: extension,
        driver_name: name,
        hardware_database: 0,
        fast_io_dispatch: 0,
        driver_init: match entry {
            Entry::Image(address) | Entry::Host(address) => address,
        },
        driver_start_io: 0,
        driver_unload: 0,
        major_function: [0; 28],
    };
    crate::access::poke(object as *mut DriverObject, driver_object);
    k.name_as(object, format!("driver {service}"));
    k.name_as(registry_path, format!("\"{service}\""));
    if let Some(image) = &image {
        k.io.images.push(image.addresses());
        if let Some(counter) = &mut k.counter {
            counter.add(image.addresses());
        }
    }
    k.io.drivers.push(Driver {
        name: service.to_owned(),
        object,
        registry_path,
        loaded: false,
        image,
        image_path,
        entry,
    });
    DriverId(k.io.drivers.len() - 1)
}

/// Runs the driver's entry point, in the caller's context. Gives its status.
pub(crate) fn start_driver(id: DriverId) -> i32 {
    let (object, path, entry) = kernel(|k| {
        let driver = k.io.driver(id);
        (
            driver.object as *mut DriverObject,
            driver.registry_path as *mut UnicodeString,
            driver.entry,
        )
    });
    let status = match entry {
        Entry::Image(address) => callback::<i32>(
            "FxDriverEntry",
            address,
            &[param("DriverObject", &object), param("RegistryPath", &path)],
        ),
        Entry::Host(address) => crate::wdf::bind::host_driver_entry(object, path, address),
    };
    if status >= 0 {
        kernel(|k| k.io.drivers[id.0].loaded = true);
    }
    status
}

/// Runs the driver's unload routine, in the caller's context. False if it has
/// none, so that it stays.
pub(crate) fn unload_driver(id: DriverId) -> bool {
    let object = kernel(|k| k.io.driver(id).object as *mut DriverObject);
    let unload = peek(object).driver_unload;
    if unload == 0 {
        return false;
    }
    match kernel(|k| k.io.driver(id).entry) {
        Entry::Image(_) => {
            callback::<()>("DriverUnload", unload, &[param("DriverObject", &object)]);
        }
        Entry::Host(_) => crate::wdf::bind::host_driver_unload(object, unload),
    }
    kernel(|k| k.io.drivers[id.0].loaded = false);
    true
}
