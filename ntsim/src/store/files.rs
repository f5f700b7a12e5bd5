// SPDX-License-Identifier: MIT OR Apache-2.0
//! The files of a machine, changed all at once or not at all.
//!
//! A change of a folder is staged in `.txn`, with copies of what it replaces. The file
//! `.txn/plan` appears, by a rename, once all is on the disk:
//!
//! ```text
//! no .txn/plan   nothing has changed; .txn is thrown away
//! .txn/plan      the change is decided; whoever opens the folder next finishes it
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::StoreError;
use crate::registry::sync_folder;

const STAGE: &str = ".txn";
const PLAN: &str = "plan";
const LOCK: &str = "machine.lock";

/// One file's new contents, or [`None`] to remove it. Paths have `/` and never leave the machine.
pub(super) type Change = (String, Option<Vec<u8>>);

#[derive(Debug)]
pub(super) enum Files {
    Folder {
        root: PathBuf,
        /// Held, not read: released when the machine is dropped.
        _lock: Option<File>,
        access: Access,
    },
    /// Copies share the bytes.
    Memory(BTreeMap<String, Arc<[u8]>>),
}

/// What a folder was opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// By this process alone.
    Change,
    /// Others may read it too.
    Read,
}

fn io_error(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io {
        path,
        action,
        source,
    }
}

impl Files {
    /// Takes possession of a folder and finishes or drops what a crash has left.
    pub(super) fn open(root: &Path) -> Result<Self, StoreError> {
        let lock_path = root.join(LOCK);
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(io_error(&lock_path, "open"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StoreError::InUse(root.to_owned())),
            Err(TryLockError::Error(source)) => return Err(io_error(&lock_path, "lock")(source)),
        }
        recover(root)?;
        Ok(Self::Folder {
            root: root.to_owned(),
            _lock: Some(lock),
            access: Access::Change,
        })
    }

    /// Opens a folder to read it, along with others who do, even on a medium that
    /// cannot be written.
    pub(super) fn look(root: &Path) -> Result<Self, StoreError> {
        let lock_path = root.join(LOCK);
        let lock = match File::open(&lock_path) {
            Ok(lock) => Some(lock),
            // A copy of a machine may have none.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(io_error(&lock_path, "open")(error)),
        };
        match lock.as_ref().map_or(Ok(()), File::try_lock_shared) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StoreError::InUse(root.to_owned())),
            Err(TryLockError::Error(source)) => return Err(io_error(&lock_path, "lock")(source)),
        }
        Ok(Self::Folder {
            root: root.to_owned(),
            _lock: lock,
            access: Access::Read,
        })
    }

    /// A copy of what is in memory.
    pub(super) fn twin(&self) -> Option<Self> {
        match self {
            Self::Memory(files) => Some(Self::Memory(files.clone())),
            Self::Folder { .. } => None,
        }
    }

    /// Refuses if the folder was opened to be read.
    pub(super) fn check_access(&self) -> Result<(), StoreError> {
        match self {
            Self::Folder {
                root,
                access: Access::Read,
                ..
            } => {
                let source = io::Error::from(io::ErrorKind::ReadOnlyFilesystem);
                Err(io_error(root, "write what was opened to be read")(source))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn path(&self, file: &str) -> Option<PathBuf> {
        match self {
            Self::Folder { root, .. } => Some(root.join(file)),
            Self::Memory(_) => None,
        }
    }

    pub(super) fn read(&self, file: &str) -> Result<Arc<[u8]>, StoreError> {
        match self {
            Self::Folder { root, .. } => {
                let path = root.join(file);
                let bytes = fs::read(&path).map_err(io_error(&path, "read"))?;
                Ok(bytes.into())
            }
            Self::Memory(files) => {
                let missing = || io::Error::from(io::ErrorKind::NotFound);
                files
                    .get(file)
                    .cloned()
                    .ok_or_else(|| io_error(Path::new(file), "read")(missing()))
            }
        }
    }

    /// The names of the files directly in a folder.
    pub(super) fn list(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        match self {
            Self::Folder { root, .. } => {
                let path = root.join(folder);
                let entries = match fs::read_dir(&path) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                    entries => entries.map_err(io_error(&path, "list"))?,
                };
                let mut names = Vec::new();
                for entry in entries {
                    let entry = entry.map_err(io_error(&path, "list"))?;
                    names.extend(entry.file_name().into_string());
                }
                names.sort();
                Ok(names)
            }
            Self::Memory(files) => {
                let prefix = format!("{folder}/");
                let below = files.keys().filter_map(|name| name.strip_prefix(&prefix));
                Ok(below
                    .filter(|name| !name.contains('/'))
                    .map(str::to_owned)
                    .collect())
            }
        }
    }

    /// Every file below a folder, as paths from the machine's root.
    pub(super) fn list_all(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        match self {
            Self::Folder { root, .. } => {
                let mut found = Vec::new();
                for name in self.list(folder)? {
                    let path = format!("{folder}/{name}");
                    if root.join(&path).is_dir() {
                        found.extend(self.list_all(&path)?);
                    } else {
                        found.push(path);
                    }
                }
                Ok(found)
            }
            Self::Memory(files) => {
                let prefix = format!("{folder}/");
                Ok(files
                    .keys()
                    .filter(|name| name.starts_with(&prefix))
                    .cloned()
                    .collect())
            }
        }
    }

    /// Makes all changes, or none.
    pub(super) fn apply(&mut self, changes: Vec<Change>) -> Result<(), StoreError> {
        self.check_access()?;
        match self {
            Self::Memory(files) => {
                for (name, contents) in changes {
                    match contents {
                        Some(contents) => files.insert(name, contents.into()),
                        None => files.remove(&name),
                    };
                }
                Ok(())
            }
            Self::Folder { root, .. } => {
                let stage = root.join(STAGE);
                let result = prepare(root, &changes).map_err(io_error(&stage, "write"));
                let result = result.and_then(|()| {
                    let mut made = Vec::new();
                    let finished = finish(root, &changes, &mut made);
                    if finished.is_err() {
                        undo(root, &changes, &made);
                    }
                    finished
                });
                let cleaned = remove_stage(&stage).map_err(io_error(&stage, "remove"));
                result.and(cleaned)
            }
        }
    }
}

fn remove_stage(stage: &Path) -> io::Result<()> {
    // The plan goes first: without it the rest means nothing.
    for result in [fs::remove_file(stage.join(PLAN)), fs::remove_dir_all(stage)] {
        match result {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn staged(root: &Path, kind: &str, index: usize) -> PathBuf {
    root.join(STAGE).join(format!("{kind}{index}"))
}

fn write_synced(path: &Path, contents: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(contents)?;
    file.sync_all()
}

/// Puts the new files, copies of the old ones and the plan on the disk.
fn prepare(root: &Path, changes: &[Change]) -> io::Result<()> {
    let stage = root.join(STAGE);
    remove_stage(&stage)?;
    fs::create_dir(&stage)?;
    let mut plan = String::new();
    for (index, (name, contents)) in changes.iter().enumerate() {
        match fs::read(root.join(name)) {
            Ok(old) => write_synced(&staged(root, "old", index), &old)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        if let Some(contents) = contents {
            write_synced(&staged(root, "new", index), contents)?;
        }
        plan.push_str(if contents.is_some() {
            "write "
        } else {
            "remove "
        });
        plan.push_str(name);
        plan.push('\n');
    }
    let draft = stage.join("plan.draft");
    write_synced(&draft, plan.as_bytes())?;
    fs::rename(draft, stage.join(PLAN))?;
    sync_folder(&stage.join(PLAN))
}

/// Carries the plan out; doing it again after a crash half-way does no harm.
fn finish(root: &Path, changes: &[Change], made: &mut Vec<PathBuf>) -> Result<(), StoreError> {
    for (index, (name, contents)) in changes.iter().enumerate() {
        let target = root.join(name);
        if contents.is_none() {
            match fs::remove_file(&target) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(io_error(&target, "remove")(error));
                }
                _ => {}
            }
            prune(root, &target);
            continue;
        }
        let new = staged(root, "new", index);
        if !new.exists() {
            continue;
        }
        make_folders(root, &target, made)?;
        fs::rename(&new, &target).map_err(io_error(&target, "write"))?;
        sync_folder(&target).map_err(io_error(&target, "write"))?;
    }
    Ok(())
}

fn make_folders(root: &Path, file: &Path, made: &mut Vec<PathBuf>) -> Result<(), StoreError> {
    let mut missing: Vec<&Path> = Vec::new();
    let mut folder = file.parent();
    while let Some(path) = folder.filter(|path| *path != root && !path.exists()) {
        missing.push(path);
        folder = path.parent();
    }
    for path in missing.into_iter().rev() {
        fs::create_dir(path).map_err(io_error(path, "create"))?;
        made.push(path.to_owned());
    }
    Ok(())
}

/// Removes the folders that the removal of `file` has left empty, but the top ones.
fn prune(root: &Path, file: &Path) {
    let mut folder = file.parent();
    while let Some(path) =
        folder.filter(|path| path.parent().is_some_and(|up| up != root) && *path != root)
    {
        // A folder that is not empty, or gone, ends it.
        if fs::remove_dir(path).is_err() {
            return;
        }
        folder = path.parent();
    }
}

/// Puts back what `finish` has changed. Its own failures cannot be told better than the one that led here.
fn undo(root: &Path, changes: &[Change], made: &[PathBuf]) {
    for (index, (name, contents)) in changes.iter().enumerate() {
        let target = root.join(name);
        let old = staged(root, "old", index);
        let replaced = contents.is_some() && !staged(root, "new", index).exists();
        if old.exists() && (replaced || !target.exists()) {
            if let Some(folder) = target.parent() {
                let _ = fs::create_dir_all(folder);
            }
            let _ = fs::rename(&old, &target);
        } else if replaced {
            let _ = fs::remove_file(&target);
        }
    }
    for folder in made.iter().rev() {
        let _ = fs::remove_dir(folder);
    }
}

/// Finishes a change that was decided before a crash, drops one that was not.
fn recover(root: &Path) -> Result<(), StoreError> {
    let stage = root.join(STAGE);
    let plan_path = stage.join(PLAN);
    match fs::read_to_string(&plan_path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(io_error(&plan_path, "read")(error)),
        Ok(plan) => {
            let mut changes = Vec::new();
            for (index, line) in plan.lines().enumerate() {
                let change = match line.split_once(' ') {
                    Some(("write", name)) if is_inside(name) => (name.to_owned(), Some(Vec::new())),
                    Some(("remove", name)) if is_inside(name) => (name.to_owned(), None),
                    _ => {
                        return Err(StoreError::Damaged {
                            path: plan_path,
                            problem: format!(
                                "line {}: \"{}\" is not a change",
                                index + 1,
                                line.escape_debug()
                            ),
                        });
                    }
                };
                changes.push(change);
            }
            finish(root, &changes, &mut Vec::new())?;
        }
    }
    remove_stage(&stage).map_err(io_error(&stage, "remove"))
}

fn is_inside(name: &str) -> bool {
    !name.is_empty()
        && name
            .split('/')
            .all(|part| !matches!(part, "" | "." | ".." | STAGE) && !part.contains(['\\', ':']))
}

/// Whether a change was decided in this folder and is not finished.
pub(super) fn is_interrupted(root: &Path) -> bool {
    root.join(STAGE).join(PLAN).exists()
}
