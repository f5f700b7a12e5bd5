// SPDX-License-Identifier: MIT OR Apache-2.0

//! KMDF objects.
//!
//! | Object | Here | Belongs to |
//! |---|---|---|
//! | `WDFDRIVER` | [`Driver`] | KMDF |
//! | `WDFDEVICE_INIT` | [`DeviceInit`], [`ControlConfig`] | device-add |
//! | `WDFDEVICE` | [`Device`](crate::Device), [`ControlDevice`] | KMDF; the device, module or driver that it was added to |
//! | `WDFOBJECT` | [`Object`] | its owners, counted |
//! | `WDFSPINLOCK`, `WDFWAITLOCK` | [`SpinLock`], [`WaitLock`] | their one owner |
//! | `WDFMEMORY`, `WDFLOOKASIDE` | [`Memory`], [`Lookaside`] | their one owner |
//! | `WDFCOLLECTION`, `WDFSTRING` | [`Collection`], [`WdfString`] | their one owner |
//! | `WDFKEY` | [`registry::Key`](crate::registry::Key) | its one owner |
//! | `WDFTIMER`, `WDFWORKITEM`, `WDFDPC`, `WDFINTERRUPT` | [`Timer`], [`WorkItem`], [`Dpc`], [`Interrupt`] | the device or module that they call |
//! | `WDFQUEUE` | [`DefaultQueue`], [`QueueConfig`], [`ManualQueue`] | KMDF |
//! | `WDFREQUEST` | [`Request`], [`Cancelable`] | its one owner |
//! | `WDFFILEOBJECT` | [`File`] | KMDF |
//! | `WDFREQUEST` of the driver's own | [`OwnRequest`], [`OwnSender`], [`Canceller`] | its one owner |
//! | `WDFIOTARGET` | [`IoTarget`], [`Sender`], [`RemoteTarget`] | KMDF; the device or module that has it |
//! | `WDFCMRESLIST` | [`Resources`] | the callback |
//!
//! What a device has that is no object:
//!
//! | What | Here |
//! |---|---|
//! | its interface, by which programs find it | [`DeviceInterface`] |
//! | its properties | [`Property`] |
//! | its idling and waking | [`PowerPolicy`], [`InD0`] |
//! | that it failed | [`Failure`] |
//! | the bytes of direct I/O | [`DirectInput`], [`DirectOutput`] |
//!
//! # Timers and work items
//!
//! They are made while their owner is made, by [`Modules::timer`] and
//! [`Modules::work_item`], and the framework owns them: it stops and deletes
//! them after the owner was dropped. What the owner holds is a link, whose
//! functions say `STATUS_INVALID_DEVICE_STATE` before and after that.
//!
//! [`Modules::timer`]: crate::module::Modules::timer
//! [`Modules::work_item`]: crate::module::Modules::work_item

mod bound;
mod collection;
pub mod control;
mod device_init;
mod direct;
pub(crate) mod dispatch;
mod dpc;
mod driver;
mod failure;
pub(crate) mod file;
mod interface;
pub mod interrupt;
mod io_target;
mod lock;
mod memory;
pub(crate) mod object;
mod own_request;
pub mod power;
mod property;
mod queue;
pub(crate) mod request;
mod resources;
mod security;
mod timer;
mod values;
mod work_item;

pub use bound::Called;
pub use collection::{Collection, WdfString};
pub use control::{ControlConfig, ControlDevice, ControlHandle, ShutdownMoment};
pub use device_init::{
    Characteristics, DeviceInit, DeviceType, IoType, PowerOwnership, PowerPaging,
};
pub use direct::{DirectInput, DirectOutput, Mdl};
pub use dpc::{Cancelled, Dpc, DpcRun, Queued};
pub use driver::Driver;
pub use failure::{Afterwards, Failure};
pub use file::{File, FileAnswer, FileCleanup, FileClose, FileCreate};
pub use interface::{DeviceInterface, Guid, InterfaceState};
pub use interrupt::{
    Affinity, Claim, Dirql, Interrupt, InterruptConfig, InterruptDpc, InterruptInfo, InterruptWork,
    Isr, IsrState, Priority, Sharing, Trigger,
};
pub use io_target::{IoTarget, RemoteTarget, Sender, Sent, SentIo, TargetAccess, TargetState};
pub use lock::{SpinLock, WaitLock};
pub use memory::{Lookaside, Memory};
pub use object::{Context, KmdfObject, Object, ObjectRef};
pub use own_request::{Canceller, OwnRequest, OwnSender, Unsent};
pub use power::{
    IdleSettings, InD0, PowerPolicy, SleepState, UserControl, WaitForD0, WakeSettings,
};
pub use property::{Property, PropertyValue, Strings};
pub use queue::{
    DefaultQueue, Destination, IoStop, ManualQueue, ManualQueueConfig, Queue, QueueCallback,
    QueueConfig, QueueControl, QueueState, RequestType, StopReason,
};
pub use request::{
    Cancelable, Control, ControlKind, DirectRequest, HasInput, HasOutput, InternalIoctl, Ioctl,
    Kind, Offer, Read, Refused, Request, RequestId, Requestor, Taken, Transfer, TypedRequest,
    Write,
};
pub use resources::{Assigned, Resource, Resources};
pub use security::Sddl;
pub use timer::{Precision, Timer, TimerConfig, TimerFired};
pub use work_item::{WorkItem, WorkItemRun};
