// SPDX-License-Identifier: MIT OR Apache-2.0

//! Names functions and source lines, by a driver's PDB or by the host program's
//! debug information.
//!
//! Reading a PDB takes longer than many a simulation, so [`Symbols::open`] is
//! for the moment a report is printed. `pdb-addr2line` does the reading, since
//! it resolves inlined functions and source lines, which the bare `pdb` crate
//! leaves to its caller.

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};

use pdb_addr2line::{ContextPdbData, TypeFormatterFlags, pdb};

use super::{CodeView, Image, Loaded};

/// The symbols of one image.
pub struct Symbols {
    data: ContextPdbData<'static, 'static, File>,
    path: PathBuf,
}

/// A function at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The function's name, demangled; empty if there is none.
    pub function: String,
    /// The source file.
    pub file: Option<String>,
    /// The line in it, counted from 1.
    pub line: Option<u32>,
    /// How far into the function's own code the address is; 0 for inlined ones.
    pub offset: u32,
    /// Whether it was inlined into the frame that follows.
    pub inlined: bool,
}

/// Why there are no symbols; one sentence for the report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SymbolsError {
    /// The image names no PDB.
    #[error(
        "{image}: no CodeView record, so it is not known which PDB belongs to it (link with /DEBUG)"
    )]
    NoCodeView {
        /// The image.
        image: String,
    },
    /// No file of that name.
    #[error("no PDB: looked for {}", list(.0))]
    NotFound(Vec<PathBuf>),
    /// It cannot be read.
    #[error("{}: {cause}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the reader says.
        cause: String,
    },
    /// It is the PDB of another build.
    #[error("{}: it is of another build (GUID {found}, expected {expected}), so its symbols are not used", path.display())]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// Its GUID.
        found: String,
        /// The image's.
        expected: String,
    },
}

fn list(paths: &[PathBuf]) -> String {
    let paths: Vec<_> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    paths.join(", ")
}

impl fmt::Debug for Symbols {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Symbols")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Symbols {
    /// Opens the PDB at `path` if it belongs to `expected`.
    ///
    /// # Errors
    /// [`SymbolsError`]; above all that it is of another build.
    pub fn open(path: &Path, expected: &CodeView) -> Result<Self, SymbolsError> {
        let unreadable = |cause: String| SymbolsError::Unreadable {
            path: path.to_owned(),
            cause,
        };
        let file = File::open(path).map_err(|cause| unreadable(cause.to_string()))?;
        let mut pdb = pdb::PDB::open(file).map_err(|cause| unreadable(cause.to_string()))?;
        let info = pdb
            .pdb_information()
            .map_err(|cause| unreadable(cause.to_string()))?;
        // The age grows when a tool writes into the PDB, so only the GUID decides.
        let found = info.guid.to_bytes_le();
        if found != expected.guid {
            let found = CodeView {
                guid: found,
                ..expected.clone()
            };
            return Err(SymbolsError::Mismatch {
                path: path.to_owned(),
                found: found.guid_text(),
                expected: expected.guid_text(),
            });
        }
        let data =
            ContextPdbData::try_from_pdb(pdb).map_err(|cause| unreadable(cause.to_string()))?;
        Ok(Self {
            data,
            path: path.to_owned(),
        })
    }

    /// Finds and opens the PDB of an image whose file is `image_path`: beside the
    /// image under the name it was linked with or under the image's own, or where the linker put it.
    ///
    /// # Errors
    /// [`SymbolsError`]; a PDB of another build is named, and the others are tried.
    pub fn find(image: &Image, image_path: &Path) -> Result<Self, SymbolsError> {
        let Some(codeview) = image.codeview() else {
            return Err(SymbolsError::NoCodeView {
                image: image.name().to_owned(),
            });
        };
        // Windows paths, whatever this system's are.
        let linked_as = codeview.pdb.rsplit(['\\', '/']).next().unwrap_or_default();
        let mut candidates = vec![
            image_path.with_file_name(linked_as),
            image_path.with_extension("pdb"),
            PathBuf::from(&codeview.pdb),
        ];
        candidates.dedup();
        let mut first_error = None;
        for path in candidates.iter().filter(|path| path.is_file()) {
            match Self::open(path, codeview) {
                Ok(symbols) => return Ok(symbols),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        Err(first_error.unwrap_or(SymbolsError::NotFound(candidates)))
    }

    /// The PDB's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The functions at each of `rvas`, innermost inlined one first; empty where nothing is known.
    ///
    /// For a return address, ask for the byte before it: the call, and not what follows.
    #[must_use]
    pub fn lookup_all(&self, rvas: &[u32]) -> Vec<Vec<Frame>> {
        let flags = TypeFormatterFlags::default() | TypeFormatterFlags::NO_ARGUMENTS;
        let Ok(context) = self.data.make_context_with_formatter_flags(flags) else {
            return vec![Vec::new(); rvas.len()];
        };
        rvas.iter()
            .map(|&rva| {
                let Ok(Some(found)) = context.find_frames(rva) else {
                    return Vec::new();
                };
                let last = found.frames.len().saturating_sub(1);
                found
                    .frames
                    .iter()
                    .enumerate()
                    .map(|(index, frame)| Frame {
                        function: frame.function.as_deref().map(demangle).unwrap_or_default(),
                        file: frame.file.as_deref().map(str::to_owned),
                        line: frame.line,
                        offset: if index == last {
                            rva - found.start_rva
                        } else {
                            0
                        },
                        inlined: index != last,
                    })
                    .collect()
            })
            .collect()
    }

    /// The functions at `rva`; see [`lookup_all`](Self::lookup_all), which is faster for several.
    #[must_use]
    pub fn lookup(&self, rva: u32) -> Vec<Frame> {
        self.lookup_all(&[rva]).pop().unwrap_or_default()
    }
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.function)?;
        if self.offset != 0 {
            write!(f, "+{:#x}", self.offset)?;
        }
        if self.inlined {
            f.write_str(" (inlined)")?;
        }
        if let Some(file) = &self.file {
            write!(f, " at {file}")?;
            if let Some(line) = self.line {
                write!(f, ":{line}")?;
            }
        }
        Ok(())
    }
}

/// A backtrace address with all that is known about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// The address; changes from run to run.
    pub address: u64,
    /// The image it is in and its RVA there, or `None` for host code.
    pub image: Option<(String, u32)>,
    /// The functions there, innermost inlined one first.
    pub frames: Vec<Frame>,
}

impl fmt::Display for Location {
    /// `sensor.sys!poll+0x12 at poll.rs:9`, with inlined functions before it, and
    /// no address that would differ in another run.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let module = self.image.as_ref().map(|(name, _)| name.as_str());
        for (index, frame) in self.frames.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            if let Some(module) = module {
                write!(f, "{module}!")?;
            }
            write!(f, "{frame}")?;
        }
        if self.frames.is_empty() {
            match &self.image {
                Some((name, rva)) => write!(f, "{name}+{rva:#x}")?,
                None => f.write_str("(unknown code)")?,
            }
        }
        Ok(())
    }
}

/// Names the addresses of a backtrace (its first is an instruction, the others
/// are return addresses): by `symbols` for the image it goes with, by the host program's own
/// debug information for the rest.
#[must_use]
pub fn locate(addresses: &[u64], images: &[(&Loaded, Option<&Symbols>)]) -> Vec<Location> {
    let mut locations: Vec<Location> = addresses
        .iter()
        .enumerate()
        .map(|(index, &address)| {
            let at = usize::try_from(address - u64::from(index > 0 && address > 0))
                .unwrap_or(usize::MAX);
            let image = images
                .iter()
                .find_map(|(loaded, _)| Some((loaded.image().name().to_owned(), loaded.rva(at)?)));
            let frames = if image.is_none() {
                host_frames(at)
            } else {
                Vec::new()
            };
            Location {
                address,
                image,
                frames,
            }
        })
        .collect();
    for (loaded, symbols) in images {
        let Some(symbols) = symbols else { continue };
        let (mut places, mut rvas) = (Vec::new(), Vec::new());
        for (index, &address) in addresses.iter().enumerate() {
            let at = usize::try_from(address - u64::from(index > 0 && address > 0))
                .unwrap_or(usize::MAX);
            if let Some(rva) = loaded.rva(at) {
                places.push(index);
                rvas.push(rva);
            }
        }
        for (index, frames) in places.into_iter().zip(symbols.lookup_all(&rvas)) {
            locations[index].frames = frames;
        }
    }
    locations
}

/// The functions of the host program at `address`, innermost inlined one first.
#[must_use]
pub fn host_frames(address: usize) -> Vec<Frame> {
    let mut frames = Vec::new();
    backtrace::resolve(std::ptr::with_exposed_provenance_mut(address), |symbol| {
        let start = symbol.addr().map_or(address, |start| start as usize);
        frames.push(Frame {
            function: symbol
                .name()
                .map(|name| format!("{name:#}"))
                .unwrap_or_default(),
            file: symbol.filename().map(|file| file.display().to_string()),
            line: symbol.lineno(),
            offset: u32::try_from(address.saturating_sub(start)).unwrap_or(0),
            inlined: true,
        });
    });
    if let Some(last) = frames.last_mut() {
        last.inlined = false;
    }
    frames
}

fn demangle(name: &str) -> String {
    // `#` leaves the hash out, which differs between builds.
    format!("{:#}", rustc_demangle::demangle(name))
}
