// SPDX-License-Identifier: MIT OR Apache-2.0

//! The I/O callbacks, in one place: what [`Device`](crate::Device) and
//! [`Instance`](crate::module::Instance) have as trait methods, and how the
//! dispatcher calls them.
//!
//! # Order
//!
//! What comes to the default queue is *offered*: to the modules in the order in
//! which they were added, a module before its children, and at last to the
//! device. The first that takes it ends that. A request that nobody takes is
//! completed with `STATUS_NOT_SUPPORTED`, as DMF does it, and in a
//! [filter](super::DeviceInit::filter) goes to the next lower driver; a file that nobody
//! says anything about may be opened.
//!
//! Cleanup and close of a file are told to everybody, in the reverse order.

use super::file::{FileAnswer, FileCleanup, FileClose, FileCreate};
use super::queue::{IoStop, QueueCallback};
use super::request::{Io, RequestId};

/// One call of the authors' functions.
pub(crate) enum IoEvent<'a> {
    /// `None` once it is handled.
    Request(&'a mut QueueCallback<'a>, Option<Io>),
    Stop(IoStop<'a>),
    Resume(RequestId),
    Create(FileCreate<'a>, FileAnswer),
    Cleanup(FileCleanup<'a>),
    Close(FileClose<'a>),
}

impl IoEvent<'_> {
    /// Whether nobody else is to be asked.
    pub(crate) fn is_over(&self) -> bool {
        match self {
            Self::Request(_, request) => request.is_none(),
            Self::Stop(stop) => stop.is_answered(),
            Self::Create(_, answer) => !matches!(answer, FileAnswer::Declined),
            Self::Resume(_) | Self::Cleanup(_) | Self::Close(_) => false,
        }
    }

    /// Whether the device is asked before its modules, and the last module first.
    pub(crate) fn is_downward(&self) -> bool {
        matches!(self, Self::Cleanup(_) | Self::Close(_))
    }
}

/// The trait methods.
macro_rules! io_hooks {
    () => {
        /// Called with each read that comes to the default queue and that no
        /// module before this one has taken.
        ///
        /// # IRQL
        /// `PASSIVE_LEVEL`
        ///
        /// C counterpart: [`EvtIoRead`][ms].
        ///
        /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfio/nc-wdfio-evt_wdf_io_queue_io_read
        fn io_read(
            &self,
            cx: &mut $crate::wdf::QueueCallback<'_>,
            request: $crate::wdf::Request<$crate::wdf::Read>,
        ) -> $crate::wdf::Offer<$crate::wdf::Read> {
            let _ = cx;
            $crate::wdf::Offer::Declined(request)
        }

        /// As [`io_read`](Self::io_read), with each write.
        ///
        /// # IRQL
        /// `PASSIVE_LEVEL`
        ///
        /// C counterpart: [`EvtIoWrite`][ms].
        ///
        /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfio/nc-wdfio-evt_wdf_io_queue_io_write
        fn io_write(
            &self,
            cx: &mut $crate::wdf::QueueCallback<'_>,
            request: $crate::wdf::Request<$crate::wdf::Write>,
        ) -> $crate::wdf::Offer<$crate::wdf::Write> {
            let _ = cx;
            $crate::wdf::Offer::Declined(request)
        }

        /// As [`io_read`](Self::io_read), with each IOCTL.
        ///
        /// # IRQL
        /// `PASSIVE_LEVEL`
        ///
        /// C counterpart: [`EvtIoDeviceControl`][ms].
        ///
        /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfio/nc-wdfio-evt_wdf_io_queue_io_device_control
        fn device_control(
            &self,
            cx: &mut $crate::wdf::QueueCallback<'_>,
            request: $crate::wdf::Request<$crate::wdf::Ioctl>,
        ) -> $crate::wdf::Offer<$crate::wdf::Ioctl> {
            let _ = cx;
            $crate::wdf::Offer::Declined(request)
        }

        /// As [`io_read`](Self::io_read), with each IOCTL from another driver.
        ///
        /// # IRQL
        /// `PASSIVE_LEVEL`
        ///
        /// C counterpart: [`EvtIoInternalDeviceControl`][ms].
        ///
        /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfio/nc-wdfio-evt_wdf_io_queue_io_internal_device_control
        fn internal_device_control(
            &self,
            cx: &mut $crate::wdf::QueueCallback<'_>,
            request: $crate::wdf::Request<$crate::wdf::InternalIoctl>,
        ) -> $crate::wdf::Offer<$crate::wdf::InternalIoctl> {
            let _ = cx;
            $crate::wdf::Offer::Declined(request)
        }

        /// Called for each request of the default queue that the driver still
        /// has when the device is about to lose power or to be removed. Until
        /// it is completed or answered by [`IoStop`](crate::wdf::IoStop), power stays.
        ///
        /// # IRQL
        /// `PASSIVE_LEVEL`
        ///
        /// C counterpart: [`EvtIoStop`][ms].
        ///
        /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfio/nc-wdfio-evt_wdf_io_queue_io_stop
        fn io_stop(&self, stop: &mut $crate::wdf::IoStop<'_>) {
            let _ = stop;
        }

        /// Called for each request whose stop was acknowledged, when the device
        /// has power again.
        ///
        /// # IRQL
        /// `PASSIVE_LEVEL`
        ///
        /// C counterpart: [`EvtIoResume`][ms].
        ///
        /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfio/nc-wdfio-evt_wdf_io_queue_io_resume
        fn io_resume(&self, request: $crate::wdf::RequestId) {
            let _ = request;
        }

        /// Called when somebody opens the device and no module before this one
        /// has answered.
        ///
        /// # IRQL
        /// `PASSIVE_LEVEL`
        ///
        /// C counterpart: [`EvtDeviceFileCreate`][ms].
        ///
        /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nc-wdfdevice-evt_wdf_device_file_create
        fn file_create(&self, cx: &mut $crate::wdf::FileCreate<'_>) -> $crate::wdf::FileAnswer {
            let _ = cx;
            $crate::wdf::FileAnswer::Declined
        }

        /// Called when the last handle to a file was closed. Requests of the
        /// file may still be there.
        ///
        /// # IRQL
        /// `PASSIVE_LEVEL`
        ///
        /// C counterpart: [`EvtFileCleanup`][ms].
        ///
        /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nc-wdfdevice-evt_wdf_file_cleanup
        fn file_cleanup(&self, cx: &mut $crate::wdf::FileCleanup<'_>) {
            let _ = cx;
        }

        /// Called when a file is gone: its handles are closed and its requests
        /// completed.
        ///
        /// # IRQL
        /// `PASSIVE_LEVEL`
        ///
        /// C counterpart: [`EvtFileClose`][ms].
        ///
        /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nc-wdfdevice-evt_wdf_file_close
        fn file_close(&self, cx: &mut $crate::wdf::FileClose<'_>) {
            let _ = cx;
        }
    };
}
pub(crate) use io_hooks;

/// Calls the trait method that goes with an event.
macro_rules! call_io {
    ($this:expr, $event:expr) => {{
        use $crate::wdf::Offer;
        use $crate::wdf::dispatch::IoEvent;
        use $crate::wdf::request::Io;

        /// What is left of an offer.
        macro_rules! left {
            ($offer:expr, $kind:ident) => {
                match $offer {
                    Offer::Handled => None,
                    Offer::Declined(request) => Some(Io::$kind(request)),
                }
            };
        }

        let this = $this;
        match $event {
            IoEvent::Request(cx, request) => {
                *request = match request.take() {
                    None => None,
                    Some(Io::Read(request)) => left!(this.io_read(cx, request), Read),
                    Some(Io::Write(request)) => left!(this.io_write(cx, request), Write),
                    Some(Io::Ioctl(request)) => left!(this.device_control(cx, request), Ioctl),
                    Some(Io::InternalIoctl(request)) => {
                        left!(this.internal_device_control(cx, request), InternalIoctl)
                    }
                };
            }
            IoEvent::Stop(stop) => this.io_stop(stop),
            IoEvent::Resume(request) => this.io_resume(*request),
            IoEvent::Create(cx, answer) => *answer = this.file_create(cx),
            IoEvent::Cleanup(cx) => this.file_cleanup(cx),
            IoEvent::Close(cx) => this.file_close(cx),
        }
    }};
}
pub(crate) use call_io;
