// SPDX-License-Identifier: MIT OR Apache-2.0

//! Where in a driver a call comes from, as one number.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use crate::image::unwind::Unwinder;
use crate::kernel::Kernel;

/// The call stacks from which a fallible call was made, each as a number.
///
/// The number is the same wherever the driver is loaded, so it can be kept from
/// run to run: as a value, or as a file with one number to the line, which is
/// how it is shown and parsed. It means another place once the driver was built
/// anew. For a driver that is linked into the host program it is made of all
/// functions on the stack, which are known on Linux only.
///
/// ```
/// use ntsim::inject::Stacks;
///
/// let stacks: Stacks = "00000000000000a7\n000000000000beef\n".parse().unwrap();
/// assert_eq!(stacks.len(), 2);
/// assert_eq!(stacks.to_string().parse::<Stacks>().unwrap(), stacks);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Stacks(BTreeSet<u64>);

impl Stacks {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// True if it is new.
    pub(super) fn insert(&mut self, stack: u64) -> bool {
        self.0.insert(stack)
    }
}

impl fmt::Display for Stacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|stack| writeln!(f, "{stack:016x}"))
    }
}

/// A line that is not the number of a stack.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: \"{text}\" is no stack; it is one of hexadecimal digits")]
pub struct NoStack {
    /// Counted from 1.
    pub line: usize,
    /// What it says.
    pub text: String,
}

impl FromStr for Stacks {
    type Err = NoStack;

    fn from_str(text: &str) -> Result<Self, NoStack> {
        let lines = text.lines().enumerate();
        let lines = lines.filter(|(_, line)| !line.trim().is_empty());
        lines
            .map(|(index, line)| {
                u64::from_str_radix(line.trim(), 16).map_err(|_| NoStack {
                    line: index + 1,
                    text: line.to_owned(),
                })
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// An unwinder for what is loaded. Making one takes longer than using it.
#[derive(Default)]
pub(super) struct Walker(Option<(Vec<Range<usize>>, Unwinder)>);

/// The code addresses on the stack of the call that is being served, innermost
/// first; none outside of a context.
pub(super) fn addresses(k: &Kernel) -> Vec<u64> {
    let images = k.io.loaded_images();
    walk(k, &Unwinder::new(&images))
}

fn walk(k: &Kernel, unwinder: &Unwinder) -> Vec<u64> {
    let Some(id) = k.current else {
        return Vec::new();
    };
    let Some(registers) = k.innermost_call(id) else {
        return Vec::new();
    };
    // Beyond the base is the stack of whoever resumed the coroutine.
    let stack = registers.rsp..k.context(id).stack.end as u64;
    unwinder.walk(&registers, |address| {
        let inside = stack.contains(&address);
        inside
            .then(|| crate::memory::peek_u64(usize::try_from(address).ok()?))
            .flatten()
    })
}

/// The number of the stack from which `name` is called.
pub(super) fn here(k: &mut Kernel, name: &str) -> u64 {
    let loaded: Vec<_> = (k.io.loaded_images().iter())
        .map(|image| image.addresses())
        .collect();
    let fresh = match k.inject.walker.0.take() {
        Some((of, unwinder)) if of == loaded => (of, unwinder),
        _ => {
            let unwinder = Unwinder::new(&k.io.loaded_images());
            (loaded, unwinder)
        }
    };
    let addresses = walk(k, &fresh.1);
    k.inject.walker.0 = Some(fresh);
    let mut hash = Fnv::new();
    hash.add(name.as_bytes());
    let image_of = |address: u64| {
        let address = usize::try_from(address).ok()?;
        let mut images = k.io.loaded_images().into_iter();
        let image = images.find(|image| image.addresses().contains(&address))?;
        Some((image.image().name(), (address - image.base()) as u64))
    };
    for address in addresses {
        match image_of(address) {
            Some((image, offset)) => {
                hash.add(image.as_bytes());
                hash.add(&offset.to_le_bytes());
            }
            // What of the simulator lies between an image's functions says nothing.
            None if k.calls_from_image() => {}
            None => {
                let anchor = here as fn(&mut Kernel, &str) -> u64 as usize as u64;
                hash.add(&address.wrapping_sub(anchor).to_le_bytes());
            }
        }
    }
    hash.0
}

/// FNV-1a: the same on each machine and in each release, unlike the hash of `std`.
struct Fnv(u64);

impl Fnv {
    const fn new() -> Self {
        Self(0xCBF2_9CE4_8422_2325)
    }

    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_stacks_says_which_line_is_none() {
        let error = "12\n\nxyz\n".parse::<Stacks>().unwrap_err();
        let text = "line 3: \"xyz\" is no stack; it is one of hexadecimal digits";
        assert_eq!(error.to_string(), text);
    }

    #[test]
    fn the_hash_is_that_of_the_reference() {
        // http://www.isthe.com/chongo/tech/comp/fnv/: the value of "a".
        let mut hash = Fnv::new();
        hash.add(b"a");
        assert_eq!(hash.0, 0xAF63_DC4C_8601_EC8C);
    }
}
