// SPDX-License-Identifier: MIT OR Apache-2.0

//! [`Callback`]: a function of an owner, callable without knowing the owner's type.

use core::fmt;
use core::marker::PhantomData;
use core::ptr::NonNull;

use super::Owner;
use super::node::{self, Header, Reference};
use crate::status::Result;

/// The arguments and the result of a kind of callback.
///
/// ```
/// use dmf::module::Signature;
///
/// /// "The temperature changed."
/// #[derive(Debug)]
/// pub struct Changed<'a> { pub reading: &'a i32 }
///
/// #[derive(Debug)]
/// pub enum OnChanged {}
///
/// impl Signature for OnChanged {
///     type Arguments<'a> = Changed<'a>;
///     type Output = ();
/// }
/// ```
///
/// No C counterpart: there each callback has a function type of its own.
pub trait Signature: 'static {
    /// What the function is given, besides its owner.
    type Arguments<'a>;
    /// What it returns.
    type Output;
}

/// A function of `O` with this signature: `fn(&self, &mut Arguments<'_>) -> Output`.
pub type Function<O, S> =
    for<'o, 'b, 'a> fn(&'o O, &'b mut <S as Signature>::Arguments<'a>) -> <S as Signature>::Output;

/// Calls a function whose type has been forgotten.
type Call<S> = unsafe fn(
    NonNull<Header>,
    *const (),
    &mut <S as Signature>::Arguments<'_>,
) -> Result<<S as Signature>::Output>;

/// A function tied to its owner, of whatever type that is.
///
/// A module keeps one for each function that its config was given, so that the
/// module's own type does not depend on the owner's.
///
/// No C counterpart: there a callback gets a `DMFMODULE` and finds its owner by it.
///
/// # Invariants
/// `function` is a `Function<O, S>`, `owner` is to a `Node<O>`, and `call` is
/// `call::<O, S>`, for one and the same `O`.
pub struct Callback<S: Signature> {
    owner: Reference,
    function: *const (),
    call: Call<S>,
    signature: PhantomData<fn(S)>,
}

// SAFETY: a function pointer can be called from any thread, and its owner is
// `Send` and `Sync`, which `new` requires.
unsafe impl<S: Signature> Send for Callback<S> {}
// SAFETY: as above.
unsafe impl<S: Signature> Sync for Callback<S> {}

impl<S: Signature> Callback<S> {
    pub(super) fn new<O: Send + Sync + 'static>(
        owner: &Owner<O>,
        function: Function<O, S>,
    ) -> Self {
        // INVARIANT: `owner` is to a `Node<O>`.
        Self {
            owner: owner.0.clone(),
            function: function as *const (),
            call: call::<O, S>,
            signature: PhantomData,
        }
    }

    /// Calls the function. The owner is not dropped meanwhile.
    ///
    /// # Errors
    /// `STATUS_INVALID_DEVICE_STATE` if the owner has not been made yet, or is
    /// gone; the function is then not called.
    pub fn call(&self, arguments: &mut S::Arguments<'_>) -> Result<S::Output> {
        // SAFETY: the invariant.
        unsafe { (self.call)(self.owner.node(), self.function, arguments) }
    }
}

/// # Safety
/// `function` is a `Function<O, S>`, and `node` is the header of a `Node<O>`
/// whose memory is valid.
unsafe fn call<O: 'static, S: Signature>(
    node: NonNull<Header>,
    function: *const (),
    arguments: &mut S::Arguments<'_>,
) -> Result<S::Output> {
    // SAFETY: the caller's promise.
    let owner = unsafe { node::enter_alive::<O>(node) }?;
    // SAFETY: the caller's promise.
    let function: Function<O, S> = unsafe { core::mem::transmute(function) };
    Ok(function(&owner, arguments))
}

impl<S: Signature> fmt::Debug for Callback<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Callback").finish_non_exhaustive()
    }
}
