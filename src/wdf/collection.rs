// SPDX-License-Identifier: MIT OR Apache-2.0

//! [`Collection`]: a list of framework objects.

use core::marker::PhantomData;

use super::object::{Context, Object, Owned, no_handle, plain_attributes, raw_handle};
use crate::status::{NtStatus, Result};
use crate::sys;

/// A list of [`Object`]s, each of which it owns with others.
///
/// ```
/// # use dmf::prelude::*;
/// # dmf::driver!(Example);
/// # struct Example;
/// # impl Device for Example {
/// #     fn modules(_: &mut Modules<'_, Self>) -> Result<Self> { Ok(Example) }
/// #     fn self_managed_io_init(&self, _: &mut SelfManagedIoInit<'_>) -> Result {
/// use dmf::wdf::{Collection, Context, Object};
///
/// struct Port(u16);
/// impl Context for Port {}
///
/// let mut ports = Collection::new()?;
/// ports.push(Object::new(|| Ok(Port(1)))?)?;
/// assert_eq!(ports.get(0).map(|port| port.0), Some(1));
/// # Ok(())
/// #     }
/// # }
/// # ntsim::run_driver(Example::DRIVER_ENTRY, |_, _| ());
/// ```
///
/// # IRQL
/// `<= DISPATCH_LEVEL`
///
/// C counterpart: [`WDFCOLLECTION`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/wdf/framework-object-collections
///
/// # Invariants
/// Each item came from `Object::<T>::into_raw`.
pub struct Collection<T: Context> {
    object: Owned,
    items: PhantomData<Object<T>>,
}

impl<T: Context> Collection<T> {
    /// An empty list.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES`
    ///
    /// C counterpart: [`WdfCollectionCreate`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfcollection/nf-wdfcollection-wdfcollectioncreate
    pub fn new() -> Result<Self> {
        let mut attributes = plain_attributes();
        let mut collection = no_handle();
        // SAFETY: the arguments are valid for the length of the call.
        NtStatus::from_raw(unsafe {
            sys::kmdf::WdfCollectionCreate(&raw mut attributes, &raw mut collection)
        })
        .into_result()?;
        Ok(Self {
            // SAFETY: just created, below the driver.
            object: unsafe { Owned::new(collection.cast()) },
            items: PhantomData,
        })
    }

    /// Gives up ownership of the list and of its count of each object.
    /// [`from_raw`](Self::from_raw) takes it back.
    #[must_use]
    pub fn into_raw(self) -> sys::WDFCOLLECTION {
        core::mem::ManuallyDrop::new(self).object.raw().cast()
    }

    /// Takes over a list.
    ///
    /// # Safety
    /// The collection is valid and its parent is the driver; nobody else
    /// deletes or changes it. Each of its items came from
    /// [`Object::<T>::into_raw`], whose count goes with it; [`push`](Self::push)
    /// does that.
    #[must_use]
    pub const unsafe fn from_raw(collection: sys::WDFCOLLECTION) -> Self {
        // INVARIANT: the caller's promise.
        Self {
            // SAFETY: the caller's promise.
            object: unsafe { Owned::new(collection.cast()) },
            items: PhantomData,
        }
    }

    /// How many objects there are.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// C counterpart: [`WdfCollectionGetCount`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfcollection/nf-wdfcollection-wdfcollectiongetcount
    #[must_use]
    pub fn len(&self) -> u32 {
        // SAFETY: the collection is valid.
        unsafe { sys::kmdf::WdfCollectionGetCount(self.as_raw()) }
    }

    /// Whether there are none.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds an object at the end.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES`; the list stays as it was.
    ///
    /// C counterpart: [`WdfCollectionAdd`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfcollection/nf-wdfcollection-wdfcollectionadd
    pub fn push(&mut self, object: Object<T>) -> Result {
        // SAFETY: both are valid.
        NtStatus::from_raw(unsafe { sys::kmdf::WdfCollectionAdd(self.as_raw(), object.as_raw()) })
            .into_result()?;
        // INVARIANT: the list has taken over this owner's count.
        let _ = object.into_raw();
        Ok(())
    }

    /// The object at `index`, or `None` beyond the end.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// C counterpart: [`WdfCollectionGetItem`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfcollection/nf-wdfcollection-wdfcollectiongetitem
    #[must_use]
    pub fn get(&self, index: u32) -> Option<Object<T>> {
        // SAFETY: the collection is valid.
        let raw = unsafe { sys::kmdf::WdfCollectionGetItem(self.as_raw(), index) };
        if raw.is_null() {
            return None;
        }
        // SAFETY: the invariant. This is the list's own count, which stays there.
        let own = core::mem::ManuallyDrop::new(unsafe { Object::<T>::from_raw(raw) });
        Some(Object::clone(&own))
    }

    /// Takes the object at `index` out, or does nothing beyond the end.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// C counterpart: [`WdfCollectionRemoveItem`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfcollection/nf-wdfcollection-wdfcollectionremoveitem
    pub fn remove(&mut self, index: u32) -> Option<Object<T>> {
        // SAFETY: the collection is valid.
        let raw = unsafe { sys::kmdf::WdfCollectionGetItem(self.as_raw(), index) };
        if raw.is_null() {
            return None;
        }
        // SAFETY: the invariant; the count that the list had is taken out with it.
        let object = unsafe { Object::<T>::from_raw(raw) };
        // SAFETY: the item is there, and the collection is borrowed mutably.
        unsafe { sys::kmdf::WdfCollectionRemoveItem(self.as_raw(), index) };
        Some(object)
    }
}

impl<T: Context> Drop for Collection<T> {
    fn drop(&mut self) {
        while self.remove(0).is_some() {}
    }
}

raw_handle!(Collection<T: Context>, WDFCOLLECTION);

/// A text that is a framework object, with one owner.
///
/// ```
/// # use dmf::prelude::*;
/// # dmf::driver!(Example);
/// # struct Example;
/// # impl Device for Example {
/// #     fn modules(_: &mut Modules<'_, Self>) -> Result<Self> { Ok(Example) }
/// #     fn self_managed_io_init(&self, cx: &mut SelfManagedIoInit<'_>) -> Result {
/// # let irql = cx.irql();
/// use dmf::unicode_string;
/// use dmf::wdf::WdfString;
///
/// let name = WdfString::new(irql, unicode_string!("COM1"))?;
/// assert_eq!(name.text(irql).units(), dmf::utf16!("COM1"));
/// # Ok(())
/// #     }
/// # }
/// # ntsim::run_driver(Example::DRIVER_ENTRY, |_, _| ());
/// ```
///
/// C counterpart: [`WDFSTRING`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfstring/nf-wdfstring-wdfstringcreate
pub struct WdfString {
    object: Owned,
}

raw_handle!(WdfString, WDFSTRING);

impl WdfString {
    /// A copy of `text`.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES`
    ///
    /// C counterpart: [`WdfStringCreate`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfstring/nf-wdfstring-wdfstringcreate
    pub fn new(
        _irql: &crate::irql::Irql<'_, crate::irql::Passive>,
        text: crate::string::UnicodeStr<'_>,
    ) -> Result<Self> {
        let text = text.to_raw();
        let mut attributes = plain_attributes();
        let mut string = no_handle();
        // SAFETY: the token proves the level; the arguments are valid for the
        // length of the call.
        NtStatus::from_raw(unsafe {
            sys::kmdf::WdfStringCreate(&raw const text, &raw mut attributes, &raw mut string)
        })
        .into_result()?;
        Ok(Self {
            // SAFETY: just created, below the driver.
            object: unsafe { Owned::new(string.cast()) },
        })
    }

    /// Gives up ownership. [`from_raw`](Self::from_raw) takes it back.
    #[must_use]
    pub fn into_raw(self) -> sys::WDFSTRING {
        self.object.into_raw().cast()
    }

    /// Takes over a string.
    ///
    /// # Safety
    /// The string is valid and its parent is the driver; nobody else deletes it
    /// or assigns to it.
    #[must_use]
    pub const unsafe fn from_raw(string: sys::WDFSTRING) -> Self {
        Self {
            // SAFETY: the caller's promise.
            object: unsafe { Owned::new(string.cast()) },
        }
    }

    /// The text.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`, as long as the text is used: it may be in paged memory.
    ///
    /// C counterpart: [`WdfStringGetUnicodeString`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfstring/nf-wdfstring-wdfstringgetunicodestring
    #[must_use]
    pub fn text<'a>(
        &'a self,
        _irql: &'a crate::irql::Irql<'_, crate::irql::Passive>,
    ) -> crate::string::UnicodeStr<'a> {
        let mut raw = sys::UNICODE_STRING::default();
        // SAFETY: the string is valid, the token proves the level, and `raw` is writable.
        unsafe { sys::kmdf::WdfStringGetUnicodeString(self.as_raw(), &raw mut raw) };
        if raw.Buffer.is_null() {
            return crate::string::UnicodeStr::literal(&[]);
        }
        // SAFETY: the buffer is the object's, which does not change it as long
        // as it lives: this value has no function that assigns.
        let units = unsafe { core::slice::from_raw_parts(raw.Buffer, usize::from(raw.Length) / 2) };
        crate::string::UnicodeStr::literal(units)
    }
}
