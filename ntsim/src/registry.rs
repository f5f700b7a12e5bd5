// SPDX-License-Identifier: MIT OR Apache-2.0
//! The registry of a simulated machine: a tree of keys with typed values.
//!
//! Plain host code: nothing here knows the simulator. The kernel's `Zw*Key`
//! functions map [`RegistryError`] to status codes; [`Registry::load`] and
//! [`Registry::save`] keep the tree as a text file that regedit would import.
//!
//! # Vocabulary
//!
//! * A **key** is reached through a [`KeyId`], which stays valid until the key
//!   is deleted and is never given to another key.
//! * A **name** ([`RegString`]) is a sequence of UTF-16 code units, as in the
//!   kernel: an unpaired surrogate is an ordinary unit. Names compare without
//!   regard to case and keep the case they were created with.
//! * A **value** is a kind (`REG_SZ`, …, or any other number) and bytes. The
//!   registry never looks into the bytes.
//! * A **volatile** key, and everything under it, ends with the machine's
//!   session: it is not saved.
//! * A **link** is a volatile key that stands for another one, as
//!   `SYSTEM\CurrentControlSet` does for `SYSTEM\ControlSet001`.
//!
//! # Order
//!
//! Subkeys enumerate by name (upper-cased code units), values in the order in
//! which they were first set, as Windows does.
//!
//! # Example
//!
//! ```
//! use ntsim::registry::{Registry, Value, Volatility};
//!
//! let mut registry = Registry::new();
//! let key = registry.create(
//!     r"\Registry\Machine\SYSTEM\CurrentControlSet\Services\Sensor",
//!     Volatility::Persistent,
//! )?;
//! registry.set_value(key, "Start", Value::dword(3))?;
//!
//! let same = registry.open(r"HKEY_LOCAL_MACHINE\system\ControlSet001\services\SENSOR")?;
//! assert_eq!(registry.value(same, "start")?.as_dword(), Some(3));
//! # Ok::<(), ntsim::registry::RegistryError>(())
//! ```

mod name;
mod reg_file;
mod value;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use indexmap::IndexMap;

pub use name::{FoldedName, RegString};
pub use reg_file::RegFileError;
pub(crate) use reg_file::sync_folder;
pub use value::Value;
pub use value::{
    REG_BINARY, REG_DWORD, REG_DWORD_BIG_ENDIAN, REG_EXPAND_SZ, REG_LINK, REG_MULTI_SZ, REG_NONE,
    REG_QWORD, REG_SZ,
};

/// The longest name of a key, in UTF-16 code units.
pub const MAX_KEY_NAME: usize = 255;
/// The longest name of a value, in UTF-16 code units.
pub const MAX_VALUE_NAME: usize = 16_383;
/// How deep keys nest.
pub const MAX_DEPTH: usize = 512;

const BACKSLASH: u16 = b'\\' as u16;
/// As many links as one path may pass through.
const MAX_LINKS: usize = 32;

/// A key, until it is deleted. Ids are not reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(usize);

impl KeyId {
    /// The key `\Registry`.
    pub const ROOT: Self = Self(0);
}

/// Whether a key is saved with the machine or ends with its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Volatility {
    /// Saved; survives a reboot.
    Persistent,
    /// Not saved (`REG_OPTION_VOLATILE`).
    Volatile,
}

/// What creating a key found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// The key is new (`REG_CREATED_NEW_KEY`).
    Created,
    /// The key was there (`REG_OPENED_EXISTING_KEY`).
    Opened,
}

/// Why a registry operation failed. Each variant's documentation names the
/// status code that the kernel gives for it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// `STATUS_OBJECT_NAME_NOT_FOUND`.
    #[error("{0}: no such key or value in the registry")]
    NotFound(String),
    /// `STATUS_OBJECT_PATH_SYNTAX_BAD`.
    #[error(
        "{0}: not the path of a registry key; it starts with \\Registry\\Machine, \\Registry\\User, \
         HKEY_LOCAL_MACHINE or HKEY_USERS"
    )]
    BadPath(String),
    /// `STATUS_OBJECT_NAME_INVALID`.
    #[error(
        "\"{0}\": not the name of a key; it must not be empty or contain a backslash, NUL or line break"
    )]
    BadName(String),
    /// `STATUS_INVALID_PARAMETER` (keys) and `STATUS_OBJECT_NAME_INVALID` (values).
    #[error("\"{name}\": a name of {length} UTF-16 code units; at most {limit} are allowed")]
    NameTooLong {
        /// The name.
        name: String,
        /// Its length in code units.
        length: usize,
        /// What is allowed.
        limit: usize,
    },
    /// `STATUS_CHILD_MUST_BE_VOLATILE`.
    #[error("{0}: a persistent key cannot be created under a volatile one")]
    ChildMustBeVolatile(String),
    /// `STATUS_KEY_DELETED`.
    #[error("the key has been deleted")]
    Deleted,
    /// `STATUS_CANNOT_DELETE`.
    #[error("{0}: cannot be deleted: it has subkeys or is one of the registry's roots")]
    CannotDelete(String),
    /// `STATUS_OBJECT_NAME_COLLISION`.
    #[error("{0}: a key of that name exists")]
    Exists(String),
    /// `STATUS_INVALID_PARAMETER`.
    #[error("{0}: keys nest at most {MAX_DEPTH} deep")]
    TooDeep(String),
    /// `STATUS_REPARSE_POINT_NOT_RESOLVED`.
    #[error("{0}: passes through more than {MAX_LINKS} links")]
    LinkLoop(String),
}

#[derive(Clone, Debug)]
struct Key {
    name: RegString,
    parent: Option<KeyId>,
    depth: usize,
    volatility: Volatility,
    /// Where to go on instead: the components below `\Registry`.
    link: Option<Vec<RegString>>,
    subkeys: BTreeMap<FoldedName, KeyId>,
    values: IndexMap<FoldedName, (RegString, Value)>,
    last_write: u64,
}

/// The registry tree. Copies share what neither has changed since.
#[derive(Clone, Debug)]
pub struct Registry {
    keys: Arc<Vec<Option<Arc<Key>>>>,
    clock: u64,
}

impl Registry {
    /// Makes a registry with its two roots, `\Registry\Machine` and
    /// `\Registry\User`, and the control set of a machine.
    #[must_use]
    pub fn new() -> Self {
        static NEW: OnceLock<Registry> = OnceLock::new();
        NEW.get_or_init(Self::make).clone()
    }

    fn make() -> Self {
        let root = Key {
            name: RegString::from("Registry"),
            parent: None,
            depth: 0,
            volatility: Volatility::Persistent,
            link: None,
            subkeys: BTreeMap::new(),
            values: IndexMap::new(),
            last_write: 0,
        };
        let mut registry = Self {
            keys: Arc::new(vec![Some(Arc::new(root))]),
            clock: 0,
        };
        let machine = registry.insert(
            KeyId::ROOT,
            RegString::from("Machine"),
            Volatility::Persistent,
        );
        registry.insert(KeyId::ROOT, RegString::from("User"), Volatility::Persistent);
        let system = registry.insert(machine, RegString::from("SYSTEM"), Volatility::Persistent);
        registry.insert(
            system,
            RegString::from("ControlSet001"),
            Volatility::Persistent,
        );
        let link = registry.insert(
            system,
            RegString::from("CurrentControlSet"),
            Volatility::Volatile,
        );
        let target = ["Machine", "SYSTEM", "ControlSet001"]
            .map(RegString::from)
            .to_vec();
        if let Ok(key) = registry.key_mut(link) {
            key.link = Some(target);
        }
        registry
    }

    /// Sets the time, in 100 ns units since 1601, that later changes are stamped with.
    pub fn set_clock(&mut self, now: u64) {
        self.clock = now;
    }

    /// Opens the key at an absolute path, `\Registry\Machine\…` or
    /// `HKEY_LOCAL_MACHINE\…` (`HKLM\…`), through links.
    ///
    /// # Errors
    /// [`RegistryError::BadPath`], [`RegistryError::NotFound`], [`RegistryError::LinkLoop`].
    pub fn open(&self, path: impl Into<RegString>) -> Result<KeyId, RegistryError> {
        let path = path.into();
        self.walk(KeyId::ROOT, &split_absolute(&path)?, &path, 0)
    }

    /// Opens the key at a path relative to `parent`; an empty path is `parent` itself.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`], [`RegistryError::Deleted`], [`RegistryError::BadName`]
    /// for an empty component (such as a leading backslash).
    pub fn open_at(
        &self,
        parent: KeyId,
        path: impl Into<RegString>,
    ) -> Result<KeyId, RegistryError> {
        let path = path.into();
        self.key(parent)?;
        self.walk(parent, &split_relative(&path)?, &path, 0)
    }

    /// Opens a key of an absolute path or creates it, with every key on the way.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`RegistryError::NameTooLong`],
    /// [`RegistryError::ChildMustBeVolatile`], [`RegistryError::TooDeep`]. Nothing is created on an error.
    pub fn create(
        &mut self,
        path: impl Into<RegString>,
        volatility: Volatility,
    ) -> Result<KeyId, RegistryError> {
        let path = path.into();
        let components = split_absolute(&path)?;
        self.create_all(KeyId::ROOT, &components, &path, volatility)
            .map(|(key, _)| key)
    }

    /// Opens a key relative to `parent` or creates it, with every key on the way.
    ///
    /// # Errors
    /// As [`create`](Self::create), and [`RegistryError::Deleted`].
    pub fn create_at(
        &mut self,
        parent: KeyId,
        path: impl Into<RegString>,
        volatility: Volatility,
    ) -> Result<(KeyId, Disposition), RegistryError> {
        let path = path.into();
        self.key(parent)?;
        let components = split_relative(&path)?;
        self.create_all(parent, &components, &path, volatility)
    }

    /// Makes `path` a volatile link to the key at `target`, which need not exist yet.
    ///
    /// # Errors
    /// As [`create`](Self::create), and [`RegistryError::Exists`] if there is a key at `path`.
    pub fn create_link(
        &mut self,
        path: impl Into<RegString>,
        target: impl Into<RegString>,
    ) -> Result<KeyId, RegistryError> {
        let (path, target) = (path.into(), target.into());
        let target = split_absolute(&target)?;
        let components = split_absolute(&path)?;
        let Some((last, parents)) = components.split_last() else {
            return Err(RegistryError::Exists(path.to_string()));
        };
        let (parent, _) = self.create_all(KeyId::ROOT, parents, &path, Volatility::Persistent)?;
        if self.key(parent)?.subkeys.contains_key(&last.fold()) {
            return Err(RegistryError::Exists(path.to_string()));
        }
        let (link, _) = self.create_all(
            parent,
            std::slice::from_ref(last),
            &path,
            Volatility::Volatile,
        )?;
        self.key_mut(link)?.link = Some(target);
        Ok(link)
    }

    /// Deletes a key that has no subkeys.
    ///
    /// # Errors
    /// [`RegistryError::CannotDelete`] for a key with subkeys and for the roots, [`RegistryError::Deleted`].
    pub fn delete(&mut self, key: KeyId) -> Result<(), RegistryError> {
        let node = self.key(key)?;
        let Some(parent) = node
            .parent
            .filter(|_| node.depth > 1 && node.subkeys.is_empty())
        else {
            return Err(RegistryError::CannotDelete(self.nt_path(key)?.to_string()));
        };
        let folded = node.name.fold();
        Arc::make_mut(&mut self.keys)[key.0] = None;
        let clock = self.clock;
        let parent = self.key_mut(parent)?;
        parent.subkeys.remove(&folded);
        parent.last_write = clock;
        Ok(())
    }

    /// Deletes a key with everything under it.
    ///
    /// # Errors
    /// [`RegistryError::CannotDelete`] for the roots, [`RegistryError::Deleted`].
    pub fn delete_tree(&mut self, key: KeyId) -> Result<(), RegistryError> {
        if self.key(key)?.depth < 2 {
            return Err(RegistryError::CannotDelete(self.nt_path(key)?.to_string()));
        }
        let mut pending = vec![key];
        let mut order = Vec::new();
        while let Some(next) = pending.pop() {
            order.push(next);
            pending.extend(self.key(next)?.subkeys.values());
        }
        for key in order.into_iter().rev() {
            self.delete(key)?;
        }
        Ok(())
    }

    /// Gives a key another name, in place.
    ///
    /// # Errors
    /// [`RegistryError::Exists`], [`RegistryError::BadName`], [`RegistryError::NameTooLong`],
    /// [`RegistryError::CannotDelete`] for the roots.
    pub fn rename(&mut self, key: KeyId, name: impl Into<RegString>) -> Result<(), RegistryError> {
        let name = name.into();
        check_key_name(&name)?;
        let node = self.key(key)?;
        let Some(parent) = node.parent.filter(|_| node.depth > 1) else {
            return Err(RegistryError::CannotDelete(self.nt_path(key)?.to_string()));
        };
        let old = node.name.fold();
        let new = name.fold();
        let siblings = &self.key(parent)?.subkeys;
        if siblings.get(&new).is_some_and(|&other| other != key) {
            return Err(RegistryError::Exists(name.to_string()));
        }
        let siblings = &mut self.key_mut(parent)?.subkeys;
        siblings.remove(&old);
        siblings.insert(new, key);
        let clock = self.clock;
        let node = self.key_mut(key)?;
        node.name = name;
        node.last_write = clock;
        Ok(())
    }

    /// Whether the key has not been deleted.
    #[must_use]
    pub fn is_alive(&self, key: KeyId) -> bool {
        self.key(key).is_ok()
    }

    /// The last component of the key's path, as it was created.
    ///
    /// # Errors
    /// [`RegistryError::Deleted`].
    pub fn name(&self, key: KeyId) -> Result<&RegString, RegistryError> {
        Ok(&self.key(key)?.name)
    }

    /// The key's path, `\Registry\Machine\…` with each name as it was created.
    ///
    /// # Errors
    /// [`RegistryError::Deleted`].
    pub fn nt_path(&self, key: KeyId) -> Result<RegString, RegistryError> {
        let mut names = Vec::new();
        let mut next = Some(key);
        while let Some(id) = next {
            let node = self.key(id)?;
            names.push(&node.name);
            next = node.parent;
        }
        let mut path = Vec::new();
        for name in names.into_iter().rev() {
            path.push(BACKSLASH);
            path.extend_from_slice(name.units());
        }
        Ok(RegString::from(path))
    }

    /// The key's path as regedit writes it, `HKEY_LOCAL_MACHINE\…`; [`None`] for `\Registry`.
    ///
    /// # Errors
    /// [`RegistryError::Deleted`].
    pub fn hkey_path(&self, key: KeyId) -> Result<Option<RegString>, RegistryError> {
        let path = self.nt_path(key)?;
        let components = split_relative(&RegString::from(path.units()[1..].to_vec()))?;
        let Some(hive) = components.get(1) else {
            return Ok(None);
        };
        let hive = if hive.eq_ignore_case(&RegString::from("Machine")) {
            "HKEY_LOCAL_MACHINE"
        } else {
            "HKEY_USERS"
        };
        let mut text: Vec<u16> = hive.encode_utf16().collect();
        for component in &components[2..] {
            text.push(BACKSLASH);
            text.extend_from_slice(component.units());
        }
        Ok(Some(RegString::from(text)))
    }

    /// The key that this one is in; [`None`] for `\Registry`.
    ///
    /// # Errors
    /// [`RegistryError::Deleted`].
    pub fn parent(&self, key: KeyId) -> Result<Option<KeyId>, RegistryError> {
        Ok(self.key(key)?.parent)
    }

    /// Whether the key is saved.
    ///
    /// # Errors
    /// [`RegistryError::Deleted`].
    pub fn volatility(&self, key: KeyId) -> Result<Volatility, RegistryError> {
        Ok(self.key(key)?.volatility)
    }

    /// Whether the key stands for another one.
    ///
    /// # Errors
    /// [`RegistryError::Deleted`].
    pub fn is_link(&self, key: KeyId) -> Result<bool, RegistryError> {
        Ok(self.key(key)?.link.is_some())
    }

    /// When the key last changed, by the clock of [`set_clock`](Self::set_clock).
    ///
    /// # Errors
    /// [`RegistryError::Deleted`].
    pub fn last_write_time(&self, key: KeyId) -> Result<u64, RegistryError> {
        Ok(self.key(key)?.last_write)
    }

    /// How many subkeys the key has.
    ///
    /// # Errors
    /// [`RegistryError::Deleted`].
    pub fn subkey_count(&self, key: KeyId) -> Result<usize, RegistryError> {
        Ok(self.key(key)?.subkeys.len())
    }

    /// The subkey at `index` in the order of names; [`None`] past the end
    /// (`STATUS_NO_MORE_ENTRIES`).
    ///
    /// # Errors
    /// [`RegistryError::Deleted`].
    pub fn subkey_at(&self, key: KeyId, index: usize) -> Result<Option<KeyId>, RegistryError> {
        Ok(self.key(key)?.subkeys.values().nth(index).copied())
    }

    /// The subkeys in the order of names.
    ///
    /// # Errors
    /// [`RegistryError::Deleted`].
    pub fn subkeys(&self, key: KeyId) -> Result<impl Iterator<Item = KeyId> + '_, RegistryError> {
        Ok(self.key(key)?.subkeys.values().copied())
    }

    /// The value of a name; the empty name is the key's default value.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`], [`RegistryError::Deleted`].
    pub fn value(&self, key: KeyId, name: impl Into<RegString>) -> Result<&Value, RegistryError> {
        let name = name.into();
        match self.key(key)?.values.get(&name.fold()) {
            Some((_, value)) => Ok(value),
            None => Err(RegistryError::NotFound(format!(
                "{}: \"{name}\"",
                self.nt_path(key)?
            ))),
        }
    }

    /// How many values the key has.
    ///
    /// # Errors
    /// [`RegistryError::Deleted`].
    pub fn value_count(&self, key: KeyId) -> Result<usize, RegistryError> {
        Ok(self.key(key)?.values.len())
    }

    /// The value at `index` in the order in which they were set; [`None`] past the end.
    ///
    /// # Errors
    /// [`RegistryError::Deleted`].
    pub fn value_at(
        &self,
        key: KeyId,
        index: usize,
    ) -> Result<Option<(&RegString, &Value)>, RegistryError> {
        Ok(self
            .key(key)?
            .values
            .get_index(index)
            .map(|(_, (name, value))| (name, value)))
    }

    /// The values in the order in which they were first set.
    ///
    /// # Errors
    /// [`RegistryError::Deleted`].
    pub fn values(
        &self,
        key: KeyId,
    ) -> Result<impl Iterator<Item = (&RegString, &Value)> + '_, RegistryError> {
        Ok(self
            .key(key)?
            .values
            .values()
            .map(|(name, value)| (name, value)))
    }

    /// Sets a value; an existing one keeps its place and the case of its name.
    ///
    /// # Errors
    /// [`RegistryError::NameTooLong`], [`RegistryError::Deleted`].
    pub fn set_value(
        &mut self,
        key: KeyId,
        name: impl Into<RegString>,
        value: Value,
    ) -> Result<(), RegistryError> {
        let name = name.into();
        check_value_name(&name)?;
        let clock = self.clock;
        let node = self.key_mut(key)?;
        node.last_write = clock;
        match node.values.entry(name.fold()) {
            indexmap::map::Entry::Occupied(mut slot) => slot.get_mut().1 = value,
            indexmap::map::Entry::Vacant(slot) => {
                slot.insert((name, value));
            }
        }
        Ok(())
    }

    /// Deletes a value and gives it back.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`], [`RegistryError::Deleted`].
    pub fn delete_value(
        &mut self,
        key: KeyId,
        name: impl Into<RegString>,
    ) -> Result<Value, RegistryError> {
        let name = name.into();
        let clock = self.clock;
        let path = self.nt_path(key)?;
        let node = self.key_mut(key)?;
        let Some((_, value)) = node.values.shift_remove(&name.fold()) else {
            return Err(RegistryError::NotFound(format!("{path}: \"{name}\"")));
        };
        node.last_write = clock;
        Ok(value)
    }

    /// Deletes every volatile key, as a reboot does; links stay.
    pub fn drop_volatile(&mut self) {
        let doomed: Vec<KeyId> = self
            .keys
            .iter()
            .enumerate()
            .filter_map(|(index, key)| key.as_ref().map(|key| (KeyId(index), key)))
            .filter(|(_, key)| key.volatility == Volatility::Volatile && key.link.is_none())
            .map(|(id, _)| id)
            .collect();
        // A volatile key's children are volatile too, so deleting all of them leaves no orphan.
        for id in doomed {
            let _ = self.delete_tree(id);
        }
    }

    fn key(&self, id: KeyId) -> Result<&Key, RegistryError> {
        self.keys
            .get(id.0)
            .and_then(Option::as_deref)
            .ok_or(RegistryError::Deleted)
    }

    fn key_mut(&mut self, id: KeyId) -> Result<&mut Key, RegistryError> {
        Arc::make_mut(&mut self.keys)
            .get_mut(id.0)
            .and_then(Option::as_mut)
            .map(Arc::make_mut)
            .ok_or(RegistryError::Deleted)
    }

    /// Follows `components` from `from`, and links wherever they are met.
    fn walk(
        &self,
        from: KeyId,
        components: &[RegString],
        path: &RegString,
        links: usize,
    ) -> Result<KeyId, RegistryError> {
        let mut at = self.follow(from, path, links)?;
        for component in components {
            let Some(&next) = self.key(at)?.subkeys.get(&component.fold()) else {
                return Err(RegistryError::NotFound(path.to_string()));
            };
            at = self.follow(next, path, links)?;
        }
        Ok(at)
    }

    fn follow(&self, at: KeyId, path: &RegString, links: usize) -> Result<KeyId, RegistryError> {
        match &self.key(at)?.link {
            None => Ok(at),
            Some(_) if links >= MAX_LINKS => Err(RegistryError::LinkLoop(path.to_string())),
            Some(target) => self.walk(KeyId::ROOT, target, path, links + 1),
        }
    }

    fn create_all(
        &mut self,
        from: KeyId,
        components: &[RegString],
        path: &RegString,
        volatility: Volatility,
    ) -> Result<(KeyId, Disposition), RegistryError> {
        let mut at = self.follow(from, path, 0)?;
        let mut rest = components;
        while let Some((component, after)) = rest.split_first() {
            let Some(&next) = self.key(at)?.subkeys.get(&component.fold()) else {
                break;
            };
            at = self.follow(next, path, 0)?;
            rest = after;
        }
        if rest.is_empty() {
            return Ok((at, Disposition::Opened));
        }
        // Everything is checked before the first key is made.
        let node = self.key(at)?;
        if node.volatility == Volatility::Volatile && volatility == Volatility::Persistent {
            return Err(RegistryError::ChildMustBeVolatile(path.to_string()));
        }
        if node.depth == 0 {
            // `\Registry` has its hives and no other keys.
            return Err(RegistryError::BadPath(path.to_string()));
        }
        if node.depth + rest.len() > MAX_DEPTH {
            return Err(RegistryError::TooDeep(path.to_string()));
        }
        for component in rest {
            check_key_name(component)?;
        }
        for component in rest {
            at = self.insert(at, component.clone(), volatility);
        }
        Ok((at, Disposition::Created))
    }

    fn insert(&mut self, parent: KeyId, name: RegString, volatility: Volatility) -> KeyId {
        let id = KeyId(self.keys.len());
        let folded = name.fold();
        let clock = self.clock;
        let mut depth = 1;
        if let Ok(parent) = self.key_mut(parent) {
            parent.subkeys.insert(folded, id);
            parent.last_write = clock;
            depth = parent.depth + 1;
        }
        let key = Key {
            name,
            parent: Some(parent),
            depth,
            volatility,
            link: None,
            subkeys: BTreeMap::new(),
            values: IndexMap::new(),
            last_write: clock,
        };
        Arc::make_mut(&mut self.keys).push(Some(Arc::new(key)));
        id
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

/// Two registries are equal if saving them gives the same keys and values:
/// names to the letter, values in order, volatile keys left out.
impl PartialEq for Registry {
    fn eq(&self, other: &Self) -> bool {
        fn same(left: &Registry, a: KeyId, right: &Registry, b: KeyId) -> bool {
            let (Ok(a), Ok(b)) = (left.key(a), right.key(b)) else {
                return false;
            };
            let kept = |registry: &Registry, key: &Key| -> Vec<KeyId> {
                let is_kept = |id: &KeyId| {
                    registry
                        .key(*id)
                        .is_ok_and(|key| key.volatility == Volatility::Persistent)
                };
                key.subkeys.values().copied().filter(is_kept).collect()
            };
            let (sub_a, sub_b) = (kept(left, a), kept(right, b));
            (a.depth == 0 || a.name.eq_ignore_case(&b.name))
                && (a.depth <= 1 || a.name == b.name)
                && a.values.values().eq(b.values.values())
                && sub_a.len() == sub_b.len()
                && sub_a
                    .iter()
                    .zip(&sub_b)
                    .all(|(&x, &y)| same(left, x, right, y))
        }
        same(self, KeyId::ROOT, other, KeyId::ROOT)
    }
}

impl Eq for Registry {}

fn check_key_name(name: &RegString) -> Result<(), RegistryError> {
    let length = name.units().len();
    if length > MAX_KEY_NAME {
        return Err(RegistryError::NameTooLong {
            name: name.to_string(),
            length,
            limit: MAX_KEY_NAME,
        });
    }
    // The kernel would take NUL and line breaks; the text format cannot hold them in
    // the name of a key, and a key that a reboot loses is worse than a refusal.
    let forbidden = [BACKSLASH, 0, u16::from(b'\r'), u16::from(b'\n')];
    if length == 0 || name.units().iter().any(|unit| forbidden.contains(unit)) {
        return Err(RegistryError::BadName(name.to_string()));
    }
    Ok(())
}

fn check_value_name(name: &RegString) -> Result<(), RegistryError> {
    let length = name.units().len();
    if length > MAX_VALUE_NAME {
        return Err(RegistryError::NameTooLong {
            name: name.to_string(),
            length,
            limit: MAX_VALUE_NAME,
        });
    }
    Ok(())
}

fn split_relative(path: &RegString) -> Result<Vec<RegString>, RegistryError> {
    let mut units = path.units();
    // One trailing backslash is harmless and common.
    if let Some((&BACKSLASH, before)) = units.split_last() {
        units = before;
    }
    if units.is_empty() && path.units().is_empty() {
        return Ok(Vec::new());
    }
    units
        .split(|&unit| unit == BACKSLASH)
        .map(|component| {
            if component.is_empty() {
                Err(RegistryError::BadName(path.to_string()))
            } else {
                Ok(RegString::from(component.to_vec()))
            }
        })
        .collect()
}

/// Gives the components below `\Registry`.
fn split_absolute(path: &RegString) -> Result<Vec<RegString>, RegistryError> {
    let bad = || RegistryError::BadPath(path.to_string());
    let native = path.units().first() == Some(&BACKSLASH);
    let rest = if native {
        &path.units()[1..]
    } else {
        path.units()
    };
    let mut components = split_relative(&RegString::from(rest.to_vec())).map_err(|_| bad())?;
    if components.is_empty() {
        return Err(bad());
    }
    let first = components.remove(0);
    if native {
        return if first.eq_ignore_case(&RegString::from("Registry")) {
            Ok(components)
        } else {
            Err(bad())
        };
    }
    let prefix: &[&str] = match first.to_string().to_ascii_uppercase().as_str() {
        "HKEY_LOCAL_MACHINE" | "HKLM" => &["Machine"],
        "HKEY_USERS" | "HKU" => &["User"],
        "HKEY_CLASSES_ROOT" | "HKCR" => &["Machine", "SOFTWARE", "Classes"],
        _ => return Err(bad()),
    };
    Ok(prefix
        .iter()
        .map(|&name| RegString::from(name))
        .chain(components)
        .collect())
}
