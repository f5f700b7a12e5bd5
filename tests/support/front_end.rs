// SPDX-License-Identifier: MIT OR Apache-2.0

//! A driver package whose driver is its image or is linked into the test: how it
//! gets onto a machine, and the comparison of the two.
//!
//! `cargo xtask test` builds the images and says in `<NAME>_INF` where they are.

#![allow(dead_code, reason = "each program uses some of it")]

use std::collections::BTreeMap;
use std::path::PathBuf;

use ntsim::inf::{Architecture, DriverDate, Inf, StampOptions, stamp};
use ntsim::machine::{DriverEntry, Error};
use ntsim::store::PackageSource;
use ntsim::trace::{Event, Line};
use ntsim::{Machine, Settings};

/// Where the driver's code comes from.
pub enum FrontEnd {
    /// The image beside this INF.
    Image(PathBuf),
    /// Linked into this program.
    Host,
}

impl FrontEnd {
    /// The name that outcomes give it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Image(_) => "image",
            Self::Host => "host",
        }
    }

    /// The machine's settings for it.
    pub fn settings(&self, seed: u64) -> Settings {
        let settings = match self {
            Self::Image(inf) => Settings {
                symbol_path: inf.parent().map(Into::into).into_iter().collect(),
                ..Settings::for_images()
            },
            Self::Host => Settings::default(),
        };
        Settings { seed, ..settings }
    }
}

/// A driver package of this workspace.
pub struct Package {
    /// The crate, and what its files are called.
    pub name: &'static str,
    /// Its `.inx`.
    pub inx: &'static str,
    /// The service that it installs.
    pub service: &'static str,
    /// The linked driver.
    pub entry: DriverEntry,
}

impl Package {
    /// The image that `cargo xtask test` has built of it.
    pub fn image(&self) -> FrontEnd {
        let variable = format!("{}_INF", self.name.to_uppercase());
        let inf = std::env::var_os(&variable).unwrap_or_else(|| {
            panic!("{variable}: run `cargo xtask test`, which builds the image and names its INF")
        });
        FrontEnd::Image(inf.into())
    }

    /// Installs it on a machine.
    pub fn install(&self, machine: &mut Machine, front_end: &FrontEnd) -> Result<(), Error> {
        match front_end {
            FrontEnd::Image(inf) => {
                machine.install(inf)?;
            }
            FrontEnd::Host => {
                let name = format!("{}.inf", self.name);
                let date = DriverDate::new(2026, 1, 1).expect("a day of the calendar");
                let inf = stamp(self.inx, &StampOptions::new(date, [0, 1, 0, 0]));
                let package = Inf::parse(&name, inf.as_bytes())
                    .and_then(|inf| inf.validate_for(Architecture::Amd64))
                    .map_err(ntsim::store::StoreError::from)?;
                // The package's image is this program, so its file is empty.
                let files = BTreeMap::from([
                    (name, inf.into_bytes()),
                    (format!("{}.sys", self.name), Vec::new()),
                ]);
                machine.install_package(&package, PackageSource::Memory(&files))?;
                machine.link_driver(self.service, self.entry);
            }
        }
        Ok(())
    }

    /// Image and linked driver make the same calls with the same results: `life`
    /// gives the trace of a life under a seed.
    pub fn assert_image_and_host_agree(&self, life: impl Fn(&FrontEnd, u64) -> Vec<Line>) {
        for seed in 0..10 {
            let image = driver_visible(&life(&self.image(), seed));
            let host = driver_visible(&life(&FrontEnd::Host, seed));
            for (number, (image, host)) in image.iter().zip(&host).enumerate() {
                assert_eq!(image, host, "seed {seed}, line {number}");
            }
            assert_eq!(image.len(), host.len(), "seed {seed}");
        }
    }
}

/// What of the trace a driver can see: calls with their results and callbacks,
/// each with its thread; not the machine's remarks.
pub fn driver_visible(trace: &[Line]) -> Vec<String> {
    trace
        .iter()
        .filter(|line| !matches!(line.what, Event::Machine(_)))
        .map(ToString::to_string)
        .collect()
}
