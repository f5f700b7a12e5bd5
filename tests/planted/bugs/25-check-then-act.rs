// SPDX-License-Identifier: MIT OR Apache-2.0

//! The first open makes the session and the last close ends it, by a count that is
//! looked at before and changed afterwards: two opens at once are both the first.
//!
//! ntsim: bug check `RPNC`, the driver's own assertion that there is no session yet.

use std::sync::atomic::{AtomicU32, Ordering};

use dmf::prelude::*;
use dmf::wdf::{FileAnswer, FileClose, FileCreate};

dmf::driver!(Shared<false>);
dmf::driver!(Shared<true>);

pub struct Shared<const FIXED: bool> {
    opens: AtomicU32,
    session: SpinLock<Session>,
}

#[derive(Default)]
struct Session {
    /// Used by the twin in place of `opens`.
    opens: u32,
    buffer: Option<[u8; 64]>,
}

impl Session {
    fn begin(&mut self) {
        assert!(self.buffer.is_none(), "there is a session already");
        self.buffer = Some([0; 64]);
    }

    fn end(&mut self) {
        assert!(self.buffer.take().is_some(), "there is no session");
    }
}

impl<const FIXED: bool> Device for Shared<FIXED> {
    fn modules(_: &mut Modules<'_, Self>) -> Result<Self> {
        Ok(Self {
            opens: AtomicU32::new(0),
            session: SpinLock::new(Session::default()),
        })
    }

    fn file_create(&self, _: &mut FileCreate<'_>) -> FileAnswer {
        if FIXED {
            self.session.with(|session| {
                if session.opens == 0 {
                    session.begin();
                }
                session.opens += 1;
            });
        } else {
            if self.opens.load(Ordering::SeqCst) == 0 {
                self.session.with(Session::begin);
            }
            self.opens.fetch_add(1, Ordering::SeqCst);
        }
        FileAnswer::Accepted
    }

    fn file_close(&self, _: &mut FileClose<'_>) {
        if FIXED {
            self.session.with(|session| {
                session.opens -= 1;
                if session.opens == 0 {
                    session.end();
                }
            });
        } else if self.opens.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.session.with(Session::end);
        }
    }
}
