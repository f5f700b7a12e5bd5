// SPDX-License-Identifier: MIT OR Apache-2.0

//! Reads and checks PE32+ kernel images.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use object::LittleEndian as LE;
use object::pe::{self, ImageDosHeader, ImageNtHeaders64, ImageSectionHeader};
use object::read::pe::{
    ExportTable, ImageNtHeaders as _, ImageOptionalHeader as _, ImageThunkData as _, ImportTable,
    RelocationBlockIterator,
};

use crate::memory::{PAGE_SIZE, Protection};

/// The largest size of an image that ntsim takes for a driver: 64 MiB.
pub const MAX_IMAGE_SIZE: u32 = 64 << 20;
/// The longest name of an import, an export or a PDB that is still believed.
const MAX_NAME: usize = 1024;
/// The most imports, and the most exports, that are still believed.
const MAX_NAMES: usize = 1 << 14;
/// The most sections that Windows accepts.
const MAX_SECTIONS: usize = 96;
/// How many unwind infos may be chained to one another.
const MAX_CHAIN: usize = 32;
const RUNTIME_FUNCTION: u32 = 12;

type Result<T> = std::result::Result<T, ImageError>;

/// A checked kernel image that is not loaded.
#[derive(Clone, Debug)]
pub struct Image {
    pub(super) name: String,
    pub(super) preferred_base: u64,
    pub(super) size: u32,
    pub(super) headers_size: u32,
    pub(super) entry: u32,
    pub(super) timestamp: u32,
    pub(super) checksum: u32,
    pub(super) sections: Vec<Section>,
    pub(super) imports: Vec<Import>,
    pub(super) exports: Vec<Export>,
    pub(super) relocations: Vec<u32>,
    pub(super) functions: Vec<RuntimeFunction>,
    pub(super) pdata: Range<u32>,
    pub(super) codeview: Option<CodeView>,
    pub(super) security_cookie: Option<u32>,
    pub(super) layout: Arc<[u8]>,
}

/// A section of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Its name, as far as the header has room for it.
    pub name: String,
    /// Where it begins and ends in the loaded image, without the padding to a page.
    pub rva: Range<u32>,
    /// What its flags allow.
    pub protection: Protection,
    /// Whether its flags say that the kernel may drop it after initialisation.
    pub discardable: bool,
    /// Whether its flags call it code.
    pub code: bool,
}

/// An import by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// The module it comes from, as written in the image: `ntoskrnl.exe`.
    pub dll: String,
    /// The name.
    pub name: String,
    /// Where the address goes.
    pub slot: u32,
}

/// An export by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// The name.
    pub name: String,
    /// Where it is.
    pub rva: u32,
}

/// An entry of `.pdata`: a function and where its unwind information is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuntimeFunction {
    /// First byte of the function.
    pub begin: u32,
    /// First byte behind it.
    pub end: u32,
    /// Its unwind information.
    pub unwind_info: u32,
}

/// Which PDB belongs to an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeView {
    /// The PDB's path, as the linker wrote it.
    pub pdb: String,
    /// The identifier of the link.
    pub guid: [u8; 16],
    /// The number of updates to the PDB since.
    pub age: u32,
}

impl CodeView {
    /// The GUID in its usual notation.
    #[must_use]
    pub fn guid_text(&self) -> String {
        let g = &self.guid;
        let a = u32::from_le_bytes([g[0], g[1], g[2], g[3]]);
        let b = u16::from_le_bytes([g[4], g[5]]);
        let c = u16::from_le_bytes([g[6], g[7]]);
        let tail = g[10..]
            .iter()
            .fold(0_u64, |tail, &byte| tail << 8 | u64::from(byte));
        format!(
            "{{{a:08X}-{b:04X}-{c:04X}-{:02X}{:02X}-{tail:012X}}}",
            g[8], g[9]
        )
    }
}

/// Why an image cannot be used: one sentence with file, field, value and expectation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageError {
    /// The file's name.
    pub file: String,
    /// The kind of the problem.
    pub problem: Problem,
    /// The sentence, without the file's name.
    pub message: String,
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file, self.message)
    }
}

impl std::error::Error for ImageError {}

/// What is wrong with an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// The file ends inside of a structure.
    Truncated,
    /// It is no PE image.
    NotPe,
    /// It is for another processor.
    Machine,
    /// It is 32-bit, or not linked as an image.
    Format,
    /// It is for user mode.
    Subsystem,
    /// Its size, base or alignment is out of range.
    Size,
    /// A section is out of place.
    Section,
    /// The entry point is not in code.
    EntryPoint,
    /// Relocations are missing or malformed.
    Relocation,
    /// The import directory is malformed, or uses what drivers do not.
    Import,
    /// It imports something ntsim does not have.
    UnknownImport,
    /// The export directory is malformed.
    Export,
    /// `.pdata` or the unwind information is malformed.
    UnwindInfo,
    /// It has thread-local storage, managed code or another thing the kernel does not load.
    Unsupported,
    /// The system refused the memory.
    Memory,
}

impl Image {
    /// Reads and checks an image; `name` is used in errors.
    ///
    /// # Errors
    /// [`ImageError`] for anything that the kernel would refuse to load as a driver, or that ntsim does.
    pub fn parse(name: &str, bytes: &[u8]) -> Result<Self> {
        Reader { file: name, bytes }.image()
    }

    /// The name given to [`parse`](Self::parse).
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The RVA of the entry point.
    #[must_use]
    pub fn entry(&self) -> u32 {
        self.entry
    }

    /// The size of the loaded image in bytes.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.size
    }

    /// The base address that it was linked for.
    #[must_use]
    pub fn preferred_base(&self) -> u64 {
        self.preferred_base
    }

    /// The header's time stamp: seconds since 1970, or a hash in reproducible builds.
    #[must_use]
    pub fn timestamp(&self) -> u32 {
        self.timestamp
    }

    /// The header's check sum; 0 if the linker made none.
    #[must_use]
    pub fn checksum(&self) -> u32 {
        self.checksum
    }

    /// Its sections in the order of their addresses.
    #[must_use]
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// Its imports in the order of the import directory.
    #[must_use]
    pub fn imports(&self) -> &[Import] {
        &self.imports
    }

    /// Its exports by name.
    #[must_use]
    pub fn exports(&self) -> &[Export] {
        &self.exports
    }

    /// Its functions with unwind information, by address.
    #[must_use]
    pub fn functions(&self) -> &[RuntimeFunction] {
        &self.functions
    }

    /// Which PDB belongs to it, if it says so.
    #[must_use]
    pub fn codeview(&self) -> Option<&CodeView> {
        self.codeview.as_ref()
    }

    /// How many places are relocated.
    #[must_use]
    pub fn relocation_count(&self) -> usize {
        self.relocations.len()
    }
}

/// The file being read.
struct Reader<'a> {
    file: &'a str,
    bytes: &'a [u8],
}

/// The headers, as far as later steps need them.
struct Headers<'a> {
    dos: &'a ImageDosHeader,
    nt: &'a ImageNtHeaders64,
    table: Range<u64>,
    directories: Vec<(u32, u32)>,
    sections: Vec<&'a ImageSectionHeader>,
}

impl<'a> Reader<'a> {
    fn fail<T>(&self, problem: Problem, message: impl Into<String>) -> Result<T> {
        Err(ImageError {
            file: self.file.to_owned(),
            problem,
            message: message.into(),
        })
    }

    /// Checks that a structure is wholly in the file.
    fn need(&self, what: &str, offset: u64, size: u64) -> Result<()> {
        let len = self.bytes.len() as u64;
        if offset.checked_add(size).is_some_and(|end| end <= len) {
            return Ok(());
        }
        self.fail(
            Problem::Truncated,
            format!("the {what} needs {size} bytes at offset {offset:#x}, but the file ends at {len:#x}; it is truncated or corrupt"),
        )
    }

    fn image(&self) -> Result<Image> {
        let headers = self.headers()?;
        let optional = headers.nt.optional_header();
        let size = optional.size_of_image();
        let sections = self.sections(&headers)?;
        let layout = self.layout(&headers, size);
        let layout = Layout {
            reader: self,
            bytes: &layout,
            sections: &sections,
        };

        let entry = optional.address_of_entry_point();
        if !layout.is_code(entry) {
            return self.fail(
                Problem::EntryPoint,
                format!("AddressOfEntryPoint = {entry:#x}, which is not in an executable section"),
            );
        }
        for (index, what) in [
            (
                pe::IMAGE_DIRECTORY_ENTRY_TLS,
                "thread-local storage (a TLS directory)",
            ),
            (
                pe::IMAGE_DIRECTORY_ENTRY_DELAY_IMPORT,
                "delay-loaded imports",
            ),
            (
                pe::IMAGE_DIRECTORY_ENTRY_COM_DESCRIPTOR,
                "managed code (a CLR header)",
            ),
        ] {
            let (rva, len) = headers.directory(index);
            if rva != 0 && len != 0 {
                return self.fail(
                    Problem::Unsupported,
                    format!("it uses {what}, which Windows does not support in the kernel"),
                );
            }
        }
        let relocations = layout.relocations(&headers)?;
        let imports = layout.imports(headers.directory(pe::IMAGE_DIRECTORY_ENTRY_IMPORT))?;
        let exports = layout.exports(headers.directory(pe::IMAGE_DIRECTORY_ENTRY_EXPORT))?;
        let pdata = headers.directory(pe::IMAGE_DIRECTORY_ENTRY_EXCEPTION);
        let functions = layout.functions(pdata)?;
        let codeview = layout.codeview(headers.directory(pe::IMAGE_DIRECTORY_ENTRY_DEBUG));
        let security_cookie = layout.security_cookie(
            headers.directory(pe::IMAGE_DIRECTORY_ENTRY_LOAD_CONFIG),
            optional.image_base(),
        );
        let layout: Arc<[u8]> = layout.bytes.into();
        Ok(Image {
            name: self.file.to_owned(),
            preferred_base: optional.image_base(),
            size,
            headers_size: optional.size_of_headers(),
            entry,
            timestamp: headers.nt.file_header.time_date_stamp.get(LE),
            checksum: optional.check_sum(),
            sections,
            imports,
            exports,
            relocations,
            functions,
            // `functions` checked that the sum is in the image.
            pdata: pdata.0..pdata.0 + pdata.1,
            codeview,
            security_cookie,
            layout,
        })
    }

    fn headers(&self) -> Result<Headers<'a>> {
        if self.bytes.is_empty() {
            return self.fail(Problem::Truncated, "the file is empty");
        }
        if self.bytes.len() >= 2 && !self.bytes.starts_with(b"MZ") {
            return self.fail(
                Problem::NotPe,
                format!(
                    "it begins with {:02x} {:02x}, expected 4d 5a (\"MZ\"): not a Windows image",
                    self.bytes[0], self.bytes[1]
                ),
            );
        }
        self.need("DOS header", 0, 64)?;
        let Ok(dos) = ImageDosHeader::parse(self.bytes) else {
            return self.fail(Problem::NotPe, "the DOS header cannot be read");
        };
        let pe_offset = u64::from(dos.nt_headers_offset());
        self.need("PE header (e_lfanew)", pe_offset, 24)?;
        let at = |offset: u64, len: usize| {
            let start = usize::try_from(pe_offset + offset).ok()?;
            self.bytes.get(start..start.checked_add(len)?)
        };
        let word = |offset| at(offset, 2).map_or(0, |b| u16::from_le_bytes([b[0], b[1]]));
        if at(0, 4) != Some(b"PE\0\0") {
            return self.fail(
                Problem::NotPe,
                format!("no \"PE\" signature at offset {pe_offset:#x}, where e_lfanew points: a DOS program or a corrupt image"),
            );
        }
        let machine = word(4);
        if machine != pe::IMAGE_FILE_MACHINE_AMD64 {
            return self.fail(
                Problem::Machine,
                format!(
                    "Machine = {machine:#06x} ({}), expected 0x8664 (x64)",
                    machine_name(machine)
                ),
            );
        }
        self.need("optional header", pe_offset + 24, 112)?;
        let magic = word(24);
        if magic != pe::IMAGE_NT_OPTIONAL_HDR64_MAGIC {
            let kind = match magic {
                pe::IMAGE_NT_OPTIONAL_HDR32_MAGIC => "PE32, 32-bit",
                0x107 => "a ROM image",
                _ => "unknown",
            };
            return self.fail(
                Problem::Format,
                format!("optional header Magic = {magic:#05x} ({kind}), expected 0x20b (PE32+)"),
            );
        }
        let optional_size = u64::from(word(20));
        if optional_size < 112 {
            return self.fail(
                Problem::Format,
                format!("SizeOfOptionalHeader = {optional_size}, expected at least 112 for PE32+"),
            );
        }
        self.need("optional header", pe_offset + 24, optional_size)?;
        let section_count = u64::from(word(6));
        let table = pe_offset + 24 + optional_size;
        self.need("section table", table, section_count * 40)?;
        let mut offset = pe_offset;
        let parsed = ImageNtHeaders64::parse(self.bytes, &mut offset);
        let Ok((nt, data_directories)) = parsed else {
            return self.fail(
                Problem::Format,
                "the data directories do not fit into the optional header (NumberOfRvaAndSizes)",
            );
        };
        let Ok(sections) = nt.sections(self.bytes, offset) else {
            return self.fail(Problem::Section, "the section table cannot be read");
        };
        let headers = Headers {
            dos,
            nt,
            table: table..table + section_count * 40,
            directories: data_directories
                .iter()
                .map(|d| (d.virtual_address.get(LE), d.size.get(LE)))
                .collect(),
            sections: sections.iter().collect(),
        };
        self.characteristics(&headers)?;
        Ok(headers)
    }

    fn characteristics(&self, headers: &Headers<'_>) -> Result<()> {
        let optional = headers.nt.optional_header();
        let flags = headers.nt.file_header.characteristics.get(LE);
        let subsystem = optional.subsystem();
        if flags & pe::IMAGE_FILE_EXECUTABLE_IMAGE == 0 {
            return self.fail(
                Problem::Format,
                format!("Characteristics = {flags:#06x} lacks 0x0002 (executable image): the linker reported errors for it, or it is an object file"),
            );
        }
        if subsystem != pe::IMAGE_SUBSYSTEM_NATIVE {
            let kind = if flags & pe::IMAGE_FILE_DLL == 0 {
                "program"
            } else {
                "DLL"
            };
            return self.fail(
                Problem::Subsystem,
                match subsystem {
                    2 | 3 => format!(
                        "this is a user-mode {kind} (subsystem {subsystem}, {}), expected a driver (subsystem 1, native)",
                        subsystem_name(subsystem)
                    ),
                    _ => format!(
                        "Subsystem = {subsystem} ({}), expected 1 (native): link with /SUBSYSTEM:NATIVE /DRIVER",
                        subsystem_name(subsystem)
                    ),
                },
            );
        }
        // IMAGE_FILE_DLL is fine: rustc links each driver, a cdylib, with /DLL.
        if flags & pe::IMAGE_FILE_RELOCS_STRIPPED != 0 {
            return self.fail(
                Problem::Relocation,
                format!("Characteristics = {flags:#06x} has 0x0001 (relocations stripped): a driver must be relocatable, link without /FIXED"),
            );
        }
        let size = optional.size_of_image();
        if size == 0 || size > MAX_IMAGE_SIZE {
            return self.fail(
                Problem::Size,
                format!("SizeOfImage = {size:#x}, expected 1 to {MAX_IMAGE_SIZE:#x}"),
            );
        }
        let alignment = optional.section_alignment();
        if !alignment.is_power_of_two() || (alignment as usize) < PAGE_SIZE {
            return self.fail(
                Problem::Size,
                format!("SectionAlignment = {alignment:#x}, expected a power of two from 0x1000 on (ntsim protects sections by pages)"),
            );
        }
        let base = optional.image_base();
        if !base.is_multiple_of(0x1_0000) {
            return self.fail(
                Problem::Size,
                format!("ImageBase = {base:#x}, expected a multiple of 0x10000"),
            );
        }
        let headers_size = optional.size_of_headers();
        if u64::from(headers_size) < headers.table.end || headers_size > size {
            return self.fail(
                Problem::Size,
                format!("SizeOfHeaders = {headers_size:#x}, expected {:#x} (the end of the section table) to {size:#x} (SizeOfImage)", headers.table.end),
            );
        }
        self.need("header area (SizeOfHeaders)", 0, u64::from(headers_size))?;
        if !headers.dos.nt_headers_offset().is_multiple_of(4) {
            return self.fail(
                Problem::Format,
                format!(
                    "e_lfanew = {:#x}, expected a multiple of 4",
                    headers.dos.nt_headers_offset()
                ),
            );
        }
        Ok(())
    }

    fn sections(&self, headers: &Headers<'_>) -> Result<Vec<Section>> {
        let optional = headers.nt.optional_header();
        let size = optional.size_of_image();
        let alignment = optional.section_alignment();
        if headers.sections.is_empty() {
            return self.fail(
                Problem::Section,
                "NumberOfSections = 0: there is no code in it",
            );
        }
        if headers.sections.len() > MAX_SECTIONS {
            return self.fail(
                Problem::Section,
                format!(
                    "NumberOfSections = {}, expected at most {MAX_SECTIONS}",
                    headers.sections.len()
                ),
            );
        }
        let mut sections = Vec::with_capacity(headers.sections.len());
        let mut end = (
            String::from("the headers"),
            u64::from(optional.size_of_headers()),
        );
        for (index, header) in headers.sections.iter().enumerate() {
            let name = section_name(header, index);
            let rva = header.virtual_address.get(LE);
            let raw_size = header.size_of_raw_data.get(LE);
            let raw_offset = header.pointer_to_raw_data.get(LE);
            let virtual_size = match header.virtual_size.get(LE) {
                0 => raw_size,
                other => other,
            };
            if !rva.is_multiple_of(alignment) {
                return self.fail(
                    Problem::Section,
                    format!("section {name}: VirtualAddress = {rva:#x}, expected a multiple of SectionAlignment = {alignment:#x}"),
                );
            }
            if u64::from(rva) < end.1 {
                return self.fail(
                    Problem::Section,
                    format!("section {name}: VirtualAddress = {rva:#x} overlaps {}, which ends at {:#x}", end.0, end.1),
                );
            }
            let section_end = u64::from(rva) + u64::from(virtual_size);
            if section_end > u64::from(size) {
                return self.fail(
                    Problem::Section,
                    format!("section {name}: it ends at {section_end:#x} (VirtualAddress {rva:#x} + VirtualSize {virtual_size:#x}), behind SizeOfImage = {size:#x}"),
                );
            }
            if raw_size != 0 && raw_offset != 0 {
                self.need(
                    &format!("data of section {name} (PointerToRawData, SizeOfRawData)"),
                    u64::from(raw_offset),
                    u64::from(raw_size),
                )?;
            }
            let flags = header.characteristics.get(LE);
            let section_end = rva + virtual_size;
            end = (format!("section {name}"), u64::from(section_end));
            sections.push(Section {
                name,
                rva: rva..section_end,
                protection: protection(flags),
                discardable: flags & pe::IMAGE_SCN_MEM_DISCARDABLE != 0,
                code: flags & pe::IMAGE_SCN_CNT_CODE != 0,
            });
        }
        Ok(sections)
    }

    /// The bytes at their RVAs; all ranges have been checked.
    fn layout(&self, headers: &Headers<'_>, size: u32) -> Vec<u8> {
        let mut layout = vec![0; size as usize];
        let mut copy = |to: u32, from: u32, len: u32| {
            let from = from as usize..from as usize + len as usize;
            let to = to as usize..to as usize + len as usize;
            if let (Some(to), Some(from)) = (layout.get_mut(to), self.bytes.get(from)) {
                to.copy_from_slice(from);
            }
        };
        copy(0, 0, headers.nt.optional_header().size_of_headers());
        for header in &headers.sections {
            let raw_size = header.size_of_raw_data.get(LE);
            let raw_offset = header.pointer_to_raw_data.get(LE);
            let len = match header.virtual_size.get(LE) {
                0 => raw_size,
                virtual_size => virtual_size.min(raw_size),
            };
            if raw_offset != 0 {
                copy(header.virtual_address.get(LE), raw_offset, len);
            }
        }
        layout
    }
}

impl Headers<'_> {
    fn directory(&self, index: usize) -> (u32, u32) {
        self.directories.get(index).copied().unwrap_or((0, 0))
    }
}

/// The image's bytes at their RVAs, for the directories.
struct Layout<'a> {
    reader: &'a Reader<'a>,
    bytes: &'a [u8],
    sections: &'a [Section],
}

impl<'a> Layout<'a> {
    fn fail<T>(&self, problem: Problem, message: impl Into<String>) -> Result<T> {
        self.reader.fail(problem, message)
    }

    fn get(&self, rva: u32, len: u32) -> Option<&'a [u8]> {
        let end = rva.checked_add(len)?;
        self.bytes.get(rva as usize..end as usize)
    }

    fn u32(&self, rva: u32) -> Option<u32> {
        let bytes = self.get(rva, 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    }

    fn u64(&self, rva: u32) -> Option<u64> {
        let bytes = self.get(rva, 8)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    }

    fn section(&self, rva: u32) -> Option<&'a Section> {
        self.sections
            .iter()
            .find(|section| section.rva.contains(&rva))
    }

    fn is_code(&self, rva: u32) -> bool {
        self.section(rva).is_some_and(|section| {
            matches!(
                section.protection,
                Protection::ReadExecute | Protection::ReadWriteExecute
            )
        })
    }

    fn relocations(&self, headers: &Headers<'_>) -> Result<Vec<u32>> {
        let (rva, len) = headers.directory(pe::IMAGE_DIRECTORY_ENTRY_BASERELOC);
        if rva == 0 || len == 0 {
            // Linkers leave the directory out of an image that has no absolute address.
            let flags = headers.nt.optional_header().dll_characteristics();
            if flags & pe::IMAGE_DLLCHARACTERISTICS_DYNAMIC_BASE != 0 {
                return Ok(Vec::new());
            }
            return self.fail(
                Problem::Relocation,
                format!("it has no base relocation directory and DllCharacteristics = {flags:#06x} lacks 0x0040 (dynamic base): a driver must be relocatable, link without /FIXED"),
            );
        }
        let Some(data) = self.get(rva, len) else {
            return self.fail(
                Problem::Relocation,
                format!("the base relocation directory ({len:#x} bytes at {rva:#x}) is outside of the image"),
            );
        };
        let mut blocks = RelocationBlockIterator::new(data);
        let mut relocations = Vec::new();
        loop {
            let block = match blocks.next() {
                Ok(Some(block)) => block,
                Ok(None) => break,
                Err(error) => {
                    return self.fail(
                        Problem::Relocation,
                        format!("a block of the base relocation directory at {rva:#x} is malformed: {error}"),
                    );
                }
            };
            let page = block.virtual_address();
            for relocation in block {
                let at = relocation.virtual_address;
                match relocation.typ {
                    pe::IMAGE_REL_BASED_ABSOLUTE => {}
                    pe::IMAGE_REL_BASED_DIR64 if at >= page && self.get(at, 8).is_some() => {
                        relocations.push(at);
                    }
                    pe::IMAGE_REL_BASED_DIR64 => {
                        return self.fail(
                            Problem::Relocation,
                            format!("the base relocation at {at:#x} (block {page:#x}) is outside of the image"),
                        );
                    }
                    other => {
                        return self.fail(
                            Problem::Relocation,
                            format!("the base relocation at {at:#x} (block {page:#x}) has type {other}, expected 0 (ABSOLUTE) or 10 (DIR64)"),
                        );
                    }
                }
            }
        }
        Ok(relocations)
    }

    fn imports(&self, (rva, len): (u32, u32)) -> Result<Vec<Import>> {
        if rva == 0 || len == 0 {
            return Ok(Vec::new());
        }
        let malformed = |what: &str, at: u32| {
            self.fail::<Vec<Import>>(
                Problem::Import,
                format!("the import directory is malformed: {what} at {at:#x}"),
            )
        };
        if self.get(rva, 20).is_none() {
            return malformed("it is outside of the image", rva);
        }
        let table = ImportTable::new(self.bytes, 0, rva);
        let Ok(mut descriptors) = table.descriptors() else {
            return malformed("no descriptor can be read", rva);
        };
        let mut imports = Vec::new();
        loop {
            let descriptor = match descriptors.next() {
                Ok(Some(descriptor)) => descriptor,
                Ok(None) => break,
                Err(_) => return malformed("the list of modules has no end", rva),
            };
            let name_at = descriptor.name.get(LE);
            let Some(dll) = self.name(name_at) else {
                return malformed("the module name", name_at);
            };
            let slots = descriptor.first_thunk.get(LE);
            let names = match descriptor.original_first_thunk.get(LE) {
                0 => slots,
                names => names,
            };
            let Ok(mut thunks) = table.thunks(names) else {
                return malformed(&format!("the names imported from {dll}"), names);
            };
            let mut slot = slots;
            loop {
                let thunk = match thunks.next::<ImageNtHeaders64>() {
                    Ok(Some(thunk)) => thunk,
                    Ok(None) => break,
                    Err(_) => {
                        return malformed(
                            &format!("the names imported from {dll} have no end,"),
                            names,
                        );
                    }
                };
                if thunk.is_ordinal() {
                    return self.fail(
                        Problem::Import,
                        format!("it imports ordinal {} from {dll}; drivers import by name, link with the module's import library", thunk.ordinal()),
                    );
                }
                let hint = thunk.address();
                let Some(name) = hint.checked_add(2).and_then(|at| self.name(at)) else {
                    return malformed(&format!("a name imported from {dll}"), hint);
                };
                if !slot.is_multiple_of(8)
                    || self.section(slot).is_none()
                    || self.get(slot, 8).is_none()
                {
                    return malformed(&format!("the address slot of {name} from {dll}"), slot);
                }
                imports.push(Import {
                    dll: dll.clone(),
                    name,
                    slot,
                });
                // Each thunk is 8 bytes of the image, so neither the sum nor the list overflows.
                slot = slot.saturating_add(8);
                if imports.len() > MAX_NAMES {
                    return malformed(&format!("more than {MAX_NAMES} imports"), rva);
                }
            }
        }
        Ok(imports)
    }

    fn exports(&self, (rva, len): (u32, u32)) -> Result<Vec<Export>> {
        if rva == 0 || len == 0 {
            return Ok(Vec::new());
        }
        let malformed = |why: &str| {
            self.fail::<Vec<Export>>(
                Problem::Export,
                format!("the export directory ({len:#x} bytes at {rva:#x}) is malformed: {why}"),
            )
        };
        let Some(data) = self.get(rva, len) else {
            return malformed("it is outside of the image");
        };
        let table = match ExportTable::parse(data, rva) {
            Ok(table) => table,
            Err(error) => return malformed(&error.to_string()),
        };
        if table.name_pointers().len() > MAX_NAMES {
            return malformed(&format!("more than {MAX_NAMES} names"));
        }
        let mut exports = Vec::new();
        for (name_at, index) in table.name_iter() {
            let Some(name) = self.name(name_at) else {
                return malformed(&format!("the name at {name_at:#x} cannot be read"));
            };
            match table.address_by_index(u32::from(index)) {
                Ok(address) if table.is_forward(address) => {}
                Ok(address) if (address as usize) < self.bytes.len() => {
                    exports.push(Export { name, rva: address });
                }
                _ => return malformed(&format!("{name} has no address in the image")),
            }
        }
        Ok(exports)
    }

    fn functions(&self, (rva, len): (u32, u32)) -> Result<Vec<RuntimeFunction>> {
        if rva == 0 || len == 0 {
            return Ok(Vec::new());
        }
        let Some(data) = self
            .get(rva, len)
            .filter(|_| len.is_multiple_of(RUNTIME_FUNCTION))
        else {
            return self.fail(
                Problem::UnwindInfo,
                format!("the exception directory (.pdata) has {len:#x} bytes at {rva:#x}, expected a multiple of 12 inside the image"),
            );
        };
        let mut functions: Vec<RuntimeFunction> = Vec::with_capacity(data.len() / 12);
        for (index, entry) in data.chunks_exact(RUNTIME_FUNCTION as usize).enumerate() {
            let function = runtime_function(entry);
            let wrong = |why: &str| {
                self.fail(
                    Problem::UnwindInfo,
                    format!(
                        ".pdata entry {index} ({:#x}..{:#x}, unwind info {:#x}): {why}",
                        function.begin, function.end, function.unwind_info
                    ),
                )
            };
            if function.begin >= function.end || function.end as usize > self.bytes.len() {
                return wrong("its addresses are not in order or outside of the image");
            }
            if !self.is_code(function.begin) {
                return wrong("it is not in an executable section");
            }
            if functions
                .last()
                .is_some_and(|last| last.end > function.begin)
            {
                return wrong("it is not behind the entry before it");
            }
            if let Err(why) = self.unwind_info(function.unwind_info) {
                return wrong(&why);
            }
            functions.push(function);
        }
        Ok(functions)
    }

    /// Follows a chain of unwind infos to its end.
    fn unwind_info(&self, first: u32) -> std::result::Result<(), String> {
        const CHAINED: u8 = 0x4;
        let mut at = first;
        for _ in 0..MAX_CHAIN {
            let Some(header) = self.get(at, 4).filter(|_| at.is_multiple_of(4)) else {
                return Err(format!(
                    "unwind info at {at:#x} is outside of the image or not aligned to 4"
                ));
            };
            let version = header[0] & 7;
            if !(1..=2).contains(&version) {
                return Err(format!(
                    "unwind info at {at:#x} has version {version}, expected 1 or 2"
                ));
            }
            // The codes are padded to an even number.
            let codes = u32::from(header[2]).next_multiple_of(2) * 2;
            if self.get(at, 4 + codes).is_none() {
                return Err(format!(
                    "the codes of the unwind info at {at:#x} are outside of the image"
                ));
            }
            if (header[0] >> 3) & CHAINED == 0 {
                return Ok(());
            }
            let Some(chained) = self.get(at + 4 + codes, RUNTIME_FUNCTION) else {
                return Err(format!(
                    "the chain of the unwind info at {at:#x} leads out of the image"
                ));
            };
            at = runtime_function(chained).unwind_info;
        }
        Err(format!("more than {MAX_CHAIN} chained unwind infos"))
    }

    /// What the debug directory says of the PDB. Without it the image runs as well,
    /// so whatever is wrong with it only means that there are no symbols.
    fn codeview(&self, (rva, len): (u32, u32)) -> Option<CodeView> {
        let entries = self.get(rva, len)?;
        entries.chunks_exact(28).find_map(|entry| {
            let word = |at: usize| {
                u32::from_le_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]])
            };
            if word(12) != pe::IMAGE_DEBUG_TYPE_CODEVIEW {
                return None;
            }
            let data = self.get(word(20), word(16))?;
            if data.len() < 24 || &data[..4] != b"RSDS" {
                return None;
            }
            let path = data[24..].split(|&byte| byte == 0).next()?;
            Some(CodeView {
                pdb: String::from_utf8_lossy(&path[..path.len().min(MAX_NAME)]).into_owned(),
                guid: data[4..20].try_into().ok()?,
                age: u32::from_le_bytes(data[20..24].try_into().ok()?),
            })
        })
    }

    /// Where the loader puts the stack cookie, if the image has one in writable memory.
    fn security_cookie(&self, (rva, len): (u32, u32), base: u64) -> Option<u32> {
        if rva == 0 || len < 4 {
            return None;
        }
        let size = self.u32(rva)?;
        if size < 0x60 {
            return None;
        }
        let cookie = u32::try_from(self.u64(rva.checked_add(0x58)?)?.checked_sub(base)?).ok()?;
        let section = self.section(cookie)?;
        (section.protection == Protection::ReadWrite && cookie.checked_add(8)? <= section.rva.end)
            .then_some(cookie)
    }

    /// A zero-terminated name in printable ASCII.
    fn name(&self, rva: u32) -> Option<String> {
        let bytes = self.bytes.get(rva as usize..)?;
        let len = bytes.iter().take(MAX_NAME).position(|&byte| byte == 0)?;
        let name = &bytes[..len];
        (len > 0 && name.iter().all(u8::is_ascii_graphic))
            .then(|| String::from_utf8_lossy(name).into_owned())
    }
}

fn runtime_function(entry: &[u8]) -> RuntimeFunction {
    let word =
        |at: usize| u32::from_le_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]]);
    RuntimeFunction {
        begin: word(0),
        end: word(4),
        unwind_info: word(8),
    }
}

fn section_name(header: &ImageSectionHeader, index: usize) -> String {
    let raw = header
        .name
        .split(|&byte| byte == 0)
        .next()
        .unwrap_or_default();
    if raw.is_empty() {
        format!("{index} (without a name)")
    } else {
        raw.escape_ascii().to_string()
    }
}

fn protection(flags: u32) -> Protection {
    let write = flags & pe::IMAGE_SCN_MEM_WRITE != 0;
    let execute = flags & pe::IMAGE_SCN_MEM_EXECUTE != 0;
    let read = flags & pe::IMAGE_SCN_MEM_READ != 0;
    match (read, write, execute) {
        (_, true, true) => Protection::ReadWriteExecute,
        (_, false, true) => Protection::ReadExecute,
        (_, true, false) => Protection::ReadWrite,
        (true, false, false) => Protection::Read,
        (false, false, false) => Protection::None,
    }
}

fn machine_name(machine: u16) -> &'static str {
    match machine {
        0 => "any machine",
        pe::IMAGE_FILE_MACHINE_I386 => "x86, 32-bit",
        pe::IMAGE_FILE_MACHINE_ARM64 => "ARM64",
        pe::IMAGE_FILE_MACHINE_ARMNT => "ARM, 32-bit",
        pe::IMAGE_FILE_MACHINE_ARM => "ARM",
        pe::IMAGE_FILE_MACHINE_IA64 => "Itanium",
        0xA641 => "ARM64EC",
        0xA64E => "ARM64X",
        pe::IMAGE_FILE_MACHINE_EBC => "EFI byte code",
        pe::IMAGE_FILE_MACHINE_RISCV64 => "RISC-V, 64-bit",
        _ => "a machine unknown to ntsim",
    }
}

fn subsystem_name(subsystem: u16) -> &'static str {
    match subsystem {
        2 => "graphical",
        3 => "console",
        5 => "OS/2",
        7 => "POSIX",
        9 => "Windows CE",
        10 => "EFI application",
        11 => "EFI boot service driver",
        12 => "EFI runtime driver",
        13 => "EFI ROM",
        14 => "Xbox",
        16 => "Windows boot application",
        _ => "unknown",
    }
}
