// SPDX-License-Identifier: MIT OR Apache-2.0

//! The raw kernel interface, the same for both kernels.
//!
//! On Windows this is `wdk-sys`, elsewhere `ntsim-sys`. Both come from bindgen
//! with the same settings, so names and shapes are the same. They differ in the
//! ABI of functions only: `"C"` on Windows, and `"C-unwind"` on the host, where
//! a panic in a driver unwinds into the simulator, which reports it.
//!
//! Handles of this crate's types convert to and from these types in `unsafe`
//! functions; nothing else in a driver needs this module.

#[cfg(not(kernel))]
pub use ntsim_sys::*;
#[cfg(kernel)]
pub use wdk_sys::*;

/// Defines a function that the kernel calls, with the ABI of the kernel
/// underneath.
macro_rules! callback {
    (
        $(#[$meta:meta])*
        $vis:vis unsafe fn $name:ident $(<$generic:ident: $bound:path>)? (
            $($arg:ident: $ty:ty),* $(,)?
        ) $(-> $ret:ty)? $body:block
    ) => {
        #[cfg(kernel)]
        $(#[$meta])*
        $vis unsafe extern "C" fn $name $(<$generic: $bound>)? ($($arg: $ty),*) $(-> $ret)? $body

        #[cfg(not(kernel))]
        $(#[$meta])*
        $vis unsafe extern "C-unwind" fn $name $(<$generic: $bound>)? ($($arg: $ty),*) $(-> $ret)? $body
    };
}

/// The functions of KMDF that this crate calls.
///
/// In C these are inline functions of the WDF headers that fetch a pointer from
/// the table which the loader filled at bind time. These do the same.
pub(crate) mod kmdf {
    #![allow(non_snake_case, reason = "the names are those of KMDF")]

    #[allow(clippy::wildcard_imports, reason = "nearly all types of the interface")]
    use super::*;

    macro_rules! functions {
        ($(
            $(#[$meta:meta])*
            fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)?
                = $index:ident, $pointer:ident;
        )*) => {$(
            $(#[$meta])*
            ///
            /// # Safety
            /// As documented for the function of that name.
            pub(crate) unsafe fn $name($($arg: $ty),*) $(-> $ret)? {
                // SAFETY: KMDF wrote the table's address before it called
                // DriverEntry, and does not change it afterwards.
                let table = unsafe { WdfFunctions };
                // SAFETY: the driver was bound to KMDF 1.33 or later, so the
                // table has at least the 458 entries of that version.
                let entry = unsafe { table.add(_WDFFUNCENUM::$index as usize) };
                // SAFETY: as above; entries do not change.
                let function: WDFFUNC = unsafe { entry.read() };
                // SAFETY: the entry at this index has this type, and both are
                // an optional function pointer.
                let function: $pointer = unsafe { core::mem::transmute(function) };
                // SAFETY: the table has no empty entries.
                let function = unsafe { function.unwrap_unchecked() };
                // SAFETY: as for the table.
                let globals = unsafe { WdfDriverGlobals };
                // SAFETY: the caller's promise.
                unsafe { function(globals, $($arg),*) }
            }
        )*};
    }

    functions! {
        /// Creates the framework driver object.
        fn WdfDriverCreate(
            driver: PDRIVER_OBJECT,
            path: PCUNICODE_STRING,
            attributes: PWDF_OBJECT_ATTRIBUTES,
            config: PWDF_DRIVER_CONFIG,
            out: *mut WDFDRIVER,
        ) -> NTSTATUS = WdfDriverCreateTableIndex, PFN_WDFDRIVERCREATE;
        /// Opens the driver's Parameters key.
        fn WdfDriverOpenParametersRegistryKey(
            driver: WDFDRIVER,
            access: ACCESS_MASK,
            attributes: PWDF_OBJECT_ATTRIBUTES,
            out: *mut WDFKEY,
        ) -> NTSTATUS
            = WdfDriverOpenParametersRegistryKeyTableIndex, PFN_WDFDRIVEROPENPARAMETERSREGISTRYKEY;
        /// Opens the driver's persistent-state key.
        fn WdfDriverOpenPersistentStateRegistryKey(
            driver: WDFDRIVER,
            access: ACCESS_MASK,
            attributes: PWDF_OBJECT_ATTRIBUTES,
            out: *mut WDFKEY,
        ) -> NTSTATUS
            = WdfDriverOpenPersistentStateRegistryKeyTableIndex,
              PFN_WDFDRIVEROPENPERSISTENTSTATEREGISTRYKEY;
        /// Registers the PnP and power callbacks of a device.
        fn WdfDeviceInitSetPnpPowerEventCallbacks(
            init: PWDFDEVICE_INIT,
            callbacks: PWDF_PNPPOWER_EVENT_CALLBACKS,
        ) = WdfDeviceInitSetPnpPowerEventCallbacksTableIndex,
            PFN_WDFDEVICEINITSETPNPPOWEREVENTCALLBACKS;
        /// Says whether a device may carry a special file.
        fn WdfDeviceSetSpecialFileSupport(
            device: WDFDEVICE,
            file: WDF_SPECIAL_FILE_TYPE,
            supported: BOOLEAN,
        ) = WdfDeviceSetSpecialFileSupportTableIndex, PFN_WDFDEVICESETSPECIALFILESUPPORT;
        /// Creates a device.
        fn WdfDeviceCreate(
            init: *mut PWDFDEVICE_INIT,
            attributes: PWDF_OBJECT_ATTRIBUTES,
            out: *mut WDFDEVICE,
        ) -> NTSTATUS = WdfDeviceCreateTableIndex, PFN_WDFDEVICECREATE;
        /// Creates a general object.
        fn WdfObjectCreate(
            attributes: PWDF_OBJECT_ATTRIBUTES,
            out: *mut WDFOBJECT,
        ) -> NTSTATUS = WdfObjectCreateTableIndex, PFN_WDFOBJECTCREATE;
        /// Deletes an object and its children.
        fn WdfObjectDelete(object: WDFOBJECT) = WdfObjectDeleteTableIndex, PFN_WDFOBJECTDELETE;
        /// The context of a type in an object.
        fn WdfObjectGetTypedContextWorker(
            object: WDFOBJECT,
            info: PCWDF_OBJECT_CONTEXT_TYPE_INFO,
        ) -> PVOID
            = WdfObjectGetTypedContextWorkerTableIndex, PFN_WDFOBJECTGETTYPEDCONTEXTWORKER;
        /// Creates a timer.
        fn WdfTimerCreate(
            config: PWDF_TIMER_CONFIG,
            attributes: PWDF_OBJECT_ATTRIBUTES,
            out: *mut WDFTIMER,
        ) -> NTSTATUS = WdfTimerCreateTableIndex, PFN_WDFTIMERCREATE;
        /// Starts a timer, or moves its due time.
        fn WdfTimerStart(timer: WDFTIMER, due: LONGLONG) -> BOOLEAN
            = WdfTimerStartTableIndex, PFN_WDFTIMERSTART;
        /// Stops a timer.
        fn WdfTimerStop(timer: WDFTIMER, wait: BOOLEAN) -> BOOLEAN
            = WdfTimerStopTableIndex, PFN_WDFTIMERSTOP;
        /// Creates a work item.
        fn WdfWorkItemCreate(
            config: PWDF_WORKITEM_CONFIG,
            attributes: PWDF_OBJECT_ATTRIBUTES,
            out: *mut WDFWORKITEM,
        ) -> NTSTATUS = WdfWorkItemCreateTableIndex, PFN_WDFWORKITEMCREATE;
        /// Queues a work item.
        fn WdfWorkItemEnqueue(item: WDFWORKITEM)
            = WdfWorkItemEnqueueTableIndex, PFN_WDFWORKITEMENQUEUE;
        /// Waits until a work item is neither queued nor running.
        fn WdfWorkItemFlush(item: WDFWORKITEM)
            = WdfWorkItemFlushTableIndex, PFN_WDFWORKITEMFLUSH;
        /// Writes a `REG_DWORD` value.
        fn WdfRegistryAssignULong(key: WDFKEY, name: PCUNICODE_STRING, value: ULONG) -> NTSTATUS
            = WdfRegistryAssignULongTableIndex, PFN_WDFREGISTRYASSIGNULONG;
        /// Closes a key.
        fn WdfRegistryClose(key: WDFKEY) = WdfRegistryCloseTableIndex, PFN_WDFREGISTRYCLOSE;
    }

    // I/O: queues, requests, files, interfaces, targets.
    functions! {
        /// Creates an I/O queue.
        fn WdfIoQueueCreate(
            device: WDFDEVICE,
            config: PWDF_IO_QUEUE_CONFIG,
            attributes: PWDF_OBJECT_ATTRIBUTES,
            out: *mut WDFQUEUE,
        ) -> NTSTATUS = WdfIoQueueCreateTableIndex, PFN_WDFIOQUEUECREATE;
        /// Sends a device's requests of one type to a queue.
        fn WdfDeviceConfigureRequestDispatching(
            device: WDFDEVICE,
            queue: WDFQUEUE,
            kind: WDF_REQUEST_TYPE,
        ) -> NTSTATUS = WdfDeviceConfigureRequestDispatchingTableIndex, PFN_WDFDEVICECONFIGUREREQUESTDISPATCHING;
        /// Takes the next request out of a manual queue.
        fn WdfIoQueueRetrieveNextRequest(
            queue: WDFQUEUE,
            out: *mut WDFREQUEST,
        ) -> NTSTATUS = WdfIoQueueRetrieveNextRequestTableIndex, PFN_WDFIOQUEUERETRIEVENEXTREQUEST;
        /// Takes the next request of a file out of a manual queue.
        fn WdfIoQueueRetrieveRequestByFileObject(
            queue: WDFQUEUE,
            file: WDFFILEOBJECT,
            out: *mut WDFREQUEST,
        ) -> NTSTATUS = WdfIoQueueRetrieveRequestByFileObjectTableIndex, PFN_WDFIOQUEUERETRIEVEREQUESTBYFILEOBJECT;
        /// Lets a queue deliver again.
        fn WdfIoQueueStart(
            queue: WDFQUEUE,
        ) = WdfIoQueueStartTableIndex, PFN_WDFIOQUEUESTART;
        /// Stops a queue's deliveries and waits for its requests in the driver.
        fn WdfIoQueueStopSynchronously(
            queue: WDFQUEUE,
        ) = WdfIoQueueStopSynchronouslyTableIndex, PFN_WDFIOQUEUESTOPSYNCHRONOUSLY;
        /// Cancels a queue's requests and waits for those in the driver.
        fn WdfIoQueuePurgeSynchronously(
            queue: WDFQUEUE,
        ) = WdfIoQueuePurgeSynchronouslyTableIndex, PFN_WDFIOQUEUEPURGESYNCHRONOUSLY;
        /// Says how a device's reads and writes get at their bytes.
        fn WdfDeviceInitSetIoType(
            init: PWDFDEVICE_INIT,
            io_type: WDF_DEVICE_IO_TYPE,
        ) = WdfDeviceInitSetIoTypeTableIndex, PFN_WDFDEVICEINITSETIOTYPE;
        /// What a queue does now, and how many requests it has.
        fn WdfIoQueueGetState(
            queue: WDFQUEUE,
            waiting: PULONG,
            owned: PULONG,
        ) -> WDF_IO_QUEUE_STATE = WdfIoQueueGetStateTableIndex, PFN_WDFIOQUEUEGETSTATE;
        /// Stops a queue's deliveries.
        fn WdfIoQueueStop(
            queue: WDFQUEUE,
            complete: PFN_WDF_IO_QUEUE_STATE,
            context: WDFCONTEXT,
        ) = WdfIoQueueStopTableIndex, PFN_WDFIOQUEUESTOP;
        /// Lets a queue take no more requests.
        fn WdfIoQueueDrain(
            queue: WDFQUEUE,
            complete: PFN_WDF_IO_QUEUE_STATE,
            context: WDFCONTEXT,
        ) = WdfIoQueueDrainTableIndex, PFN_WDFIOQUEUEDRAIN;
        /// Lets a queue take no more requests, and waits until it is empty.
        fn WdfIoQueueDrainSynchronously(
            queue: WDFQUEUE,
        ) = WdfIoQueueDrainSynchronouslyTableIndex, PFN_WDFIOQUEUEDRAINSYNCHRONOUSLY;
        /// Cancels a queue's requests.
        fn WdfIoQueuePurge(
            queue: WDFQUEUE,
            complete: PFN_WDF_IO_QUEUE_STATE,
            context: WDFCONTEXT,
        ) = WdfIoQueuePurgeTableIndex, PFN_WDFIOQUEUEPURGE;
        /// Cancels a queue's requests, stops its deliveries and waits.
        fn WdfIoQueueStopAndPurgeSynchronously(
            queue: WDFQUEUE,
        ) = WdfIoQueueStopAndPurgeSynchronouslyTableIndex, PFN_WDFIOQUEUESTOPANDPURGESYNCHRONOUSLY;
        /// Finds a request in a manual queue.
        fn WdfIoQueueFindRequest(
            queue: WDFQUEUE,
            found: WDFREQUEST,
            file: WDFFILEOBJECT,
            parameters: PWDF_REQUEST_PARAMETERS,
            out: *mut WDFREQUEST,
        ) -> NTSTATUS = WdfIoQueueFindRequestTableIndex, PFN_WDFIOQUEUEFINDREQUEST;
        /// Takes a found request out of its queue.
        fn WdfIoQueueRetrieveFoundRequest(
            queue: WDFQUEUE,
            found: WDFREQUEST,
            out: *mut WDFREQUEST,
        ) -> NTSTATUS = WdfIoQueueRetrieveFoundRequestTableIndex, PFN_WDFIOQUEUERETRIEVEFOUNDREQUEST;
        /// Who is told that a manual queue is no longer empty.
        fn WdfIoQueueReadyNotify(
            queue: WDFQUEUE,
            ready: PFN_WDF_IO_QUEUE_STATE,
            context: WDFCONTEXT,
        ) -> NTSTATUS = WdfIoQueueReadyNotifyTableIndex, PFN_WDFIOQUEUEREADYNOTIFY;
        /// The description of a request's input pages.
        fn WdfRequestRetrieveInputWdmMdl(
            request: WDFREQUEST,
            mdl: *mut PMDL,
        ) -> NTSTATUS = WdfRequestRetrieveInputWdmMdlTableIndex, PFN_WDFREQUESTRETRIEVEINPUTWDMMDL;
        /// The description of a request's output pages.
        fn WdfRequestRetrieveOutputWdmMdl(
            request: WDFREQUEST,
            mdl: *mut PMDL,
        ) -> NTSTATUS = WdfRequestRetrieveOutputWdmMdlTableIndex, PFN_WDFREQUESTRETRIEVEOUTPUTWDMMDL;
        /// How many bytes of a request's buffer were transferred so far.
        fn WdfRequestGetInformation(
            request: WDFREQUEST,
        ) -> ULONG_PTR = WdfRequestGetInformationTableIndex, PFN_WDFREQUESTGETINFORMATION;
        /// Sets how many bytes were transferred.
        fn WdfRequestSetInformation(
            request: WDFREQUEST,
            information: ULONG_PTR,
        ) = WdfRequestSetInformationTableIndex, PFN_WDFREQUESTSETINFORMATION;
        /// Whether a request comes from user mode.
        fn WdfRequestGetRequestorMode(
            request: WDFREQUEST,
        ) -> KPROCESSOR_MODE = WdfRequestGetRequestorModeTableIndex, PFN_WDFREQUESTGETREQUESTORMODE;
        /// Completes a request.
        fn WdfRequestCompleteWithInformation(
            request: WDFREQUEST,
            status: NTSTATUS,
            information: ULONG_PTR,
        ) = WdfRequestCompleteWithInformationTableIndex, PFN_WDFREQUESTCOMPLETEWITHINFORMATION;
        /// Registers a cancel routine.
        fn WdfRequestMarkCancelableEx(
            request: WDFREQUEST,
            cancel: PFN_WDF_REQUEST_CANCEL,
        ) -> NTSTATUS = WdfRequestMarkCancelableExTableIndex, PFN_WDFREQUESTMARKCANCELABLEEX;
        /// Takes the cancel routine back.
        fn WdfRequestUnmarkCancelable(
            request: WDFREQUEST,
        ) -> NTSTATUS = WdfRequestUnmarkCancelableTableIndex, PFN_WDFREQUESTUNMARKCANCELABLE;
        /// Whether somebody wants the request cancelled.
        fn WdfRequestIsCanceled(
            request: WDFREQUEST,
        ) -> BOOLEAN = WdfRequestIsCanceledTableIndex, PFN_WDFREQUESTISCANCELED;
        /// A request's input buffer.
        fn WdfRequestRetrieveInputBuffer(
            request: WDFREQUEST,
            minimum: usize,
            buffer: *mut PVOID,
            length: *mut usize,
        ) -> NTSTATUS = WdfRequestRetrieveInputBufferTableIndex, PFN_WDFREQUESTRETRIEVEINPUTBUFFER;
        /// A request's output buffer.
        fn WdfRequestRetrieveOutputBuffer(
            request: WDFREQUEST,
            minimum: usize,
            buffer: *mut PVOID,
            length: *mut usize,
        ) -> NTSTATUS = WdfRequestRetrieveOutputBufferTableIndex, PFN_WDFREQUESTRETRIEVEOUTPUTBUFFER;
        /// Gives a request to another queue of the device.
        fn WdfRequestForwardToIoQueue(
            request: WDFREQUEST,
            queue: WDFQUEUE,
        ) -> NTSTATUS = WdfRequestForwardToIoQueueTableIndex, PFN_WDFREQUESTFORWARDTOIOQUEUE;
        /// Puts a request back to the head of its queue.
        fn WdfRequestRequeue(
            request: WDFREQUEST,
        ) -> NTSTATUS = WdfRequestRequeueTableIndex, PFN_WDFREQUESTREQUEUE;
        /// Answers `EvtIoStop`.
        fn WdfRequestStopAcknowledge(
            request: WDFREQUEST,
            requeue: BOOLEAN,
        ) = WdfRequestStopAcknowledgeTableIndex, PFN_WDFREQUESTSTOPACKNOWLEDGE;
        /// The file that a request belongs to.
        fn WdfRequestGetFileObject(
            request: WDFREQUEST,
        ) -> WDFFILEOBJECT = WdfRequestGetFileObjectTableIndex, PFN_WDFREQUESTGETFILEOBJECT;
        /// A request's parameters.
        fn WdfRequestGetParameters(
            request: WDFREQUEST,
            parameters: PWDF_REQUEST_PARAMETERS,
        ) = WdfRequestGetParametersTableIndex, PFN_WDFREQUESTGETPARAMETERS;
        /// A request's status after it was sent.
        fn WdfRequestGetStatus(
            request: WDFREQUEST,
        ) -> NTSTATUS = WdfRequestGetStatusTableIndex, PFN_WDFREQUESTGETSTATUS;
        /// Passes a request on as it is.
        fn WdfRequestFormatRequestUsingCurrentType(
            request: WDFREQUEST,
        ) = WdfRequestFormatRequestUsingCurrentTypeTableIndex, PFN_WDFREQUESTFORMATREQUESTUSINGCURRENTTYPE;
        /// Who is told when a sent request is completed.
        fn WdfRequestSetCompletionRoutine(
            request: WDFREQUEST,
            routine: PFN_WDF_REQUEST_COMPLETION_ROUTINE,
            context: WDFCONTEXT,
        ) = WdfRequestSetCompletionRoutineTableIndex, PFN_WDFREQUESTSETCOMPLETIONROUTINE;
        /// Sends a request to a target.
        fn WdfRequestSend(
            request: WDFREQUEST,
            target: WDFIOTARGET,
            options: PWDF_REQUEST_SEND_OPTIONS,
        ) -> BOOLEAN = WdfRequestSendTableIndex, PFN_WDFREQUESTSEND;
        /// Makes a request.
        fn WdfRequestCreate(
            attributes: PWDF_OBJECT_ATTRIBUTES,
            target: WDFIOTARGET,
            request: *mut WDFREQUEST,
        ) -> NTSTATUS = WdfRequestCreateTableIndex, PFN_WDFREQUESTCREATE;
        /// Makes a request fit to be formatted and sent again.
        fn WdfRequestReuse(
            request: WDFREQUEST,
            params: PWDF_REQUEST_REUSE_PARAMS,
        ) -> NTSTATUS = WdfRequestReuseTableIndex, PFN_WDFREQUESTREUSE;
        /// Asks for the cancellation of a request that was sent.
        fn WdfRequestCancelSentRequest(
            request: WDFREQUEST,
        ) -> BOOLEAN = WdfRequestCancelSentRequestTableIndex, PFN_WDFREQUESTCANCELSENTREQUEST;
        /// Makes a request a read.
        fn WdfIoTargetFormatRequestForRead(
            target: WDFIOTARGET,
            request: WDFREQUEST,
            output: WDFMEMORY,
            part: PWDFMEMORY_OFFSET,
            offset: PLONGLONG,
        ) -> NTSTATUS = WdfIoTargetFormatRequestForReadTableIndex, PFN_WDFIOTARGETFORMATREQUESTFORREAD;
        /// Makes a request a write.
        fn WdfIoTargetFormatRequestForWrite(
            target: WDFIOTARGET,
            request: WDFREQUEST,
            input: WDFMEMORY,
            part: PWDFMEMORY_OFFSET,
            offset: PLONGLONG,
        ) -> NTSTATUS = WdfIoTargetFormatRequestForWriteTableIndex, PFN_WDFIOTARGETFORMATREQUESTFORWRITE;
        /// Makes a request an IOCTL.
        fn WdfIoTargetFormatRequestForIoctl(
            target: WDFIOTARGET,
            request: WDFREQUEST,
            code: ULONG,
            input: WDFMEMORY,
            input_part: PWDFMEMORY_OFFSET,
            output: WDFMEMORY,
            output_part: PWDFMEMORY_OFFSET,
        ) -> NTSTATUS = WdfIoTargetFormatRequestForIoctlTableIndex, PFN_WDFIOTARGETFORMATREQUESTFORIOCTL;
        /// Makes a request an IOCTL that only drivers send.
        fn WdfIoTargetFormatRequestForInternalIoctl(
            target: WDFIOTARGET,
            request: WDFREQUEST,
            code: ULONG,
            input: WDFMEMORY,
            input_part: PWDFMEMORY_OFFSET,
            output: WDFMEMORY,
            output_part: PWDFMEMORY_OFFSET,
        ) -> NTSTATUS = WdfIoTargetFormatRequestForInternalIoctlTableIndex, PFN_WDFIOTARGETFORMATREQUESTFORINTERNALIOCTL;
        /// Makes a target for another device.
        fn WdfIoTargetCreate(
            device: WDFDEVICE,
            attributes: PWDF_OBJECT_ATTRIBUTES,
            target: *mut WDFIOTARGET,
        ) -> NTSTATUS = WdfIoTargetCreateTableIndex, PFN_WDFIOTARGETCREATE;
        /// Connects a target to a device.
        fn WdfIoTargetOpen(
            target: WDFIOTARGET,
            params: PWDF_IO_TARGET_OPEN_PARAMS,
        ) -> NTSTATUS = WdfIoTargetOpenTableIndex, PFN_WDFIOTARGETOPEN;
        /// Disconnects a target.
        fn WdfIoTargetClose(
            target: WDFIOTARGET,
        ) = WdfIoTargetCloseTableIndex, PFN_WDFIOTARGETCLOSE;
        /// Lets a target deliver.
        fn WdfIoTargetStart(
            target: WDFIOTARGET,
        ) -> NTSTATUS = WdfIoTargetStartTableIndex, PFN_WDFIOTARGETSTART;
        /// Keeps a target from delivering.
        fn WdfIoTargetStop(
            target: WDFIOTARGET,
            action: WDF_IO_TARGET_SENT_IO_ACTION,
        ) = WdfIoTargetStopTableIndex, PFN_WDFIOTARGETSTOP;
        /// Cancels what a target has.
        fn WdfIoTargetPurge(
            target: WDFIOTARGET,
            action: WDF_IO_TARGET_PURGE_IO_ACTION,
        ) = WdfIoTargetPurgeTableIndex, PFN_WDFIOTARGETPURGE;
        /// What a target does with requests.
        fn WdfIoTargetGetState(
            target: WDFIOTARGET,
        ) -> WDF_IO_TARGET_STATE = WdfIoTargetGetStateTableIndex, PFN_WDFIOTARGETGETSTATE;
        /// The next lower driver.
        fn WdfDeviceGetIoTarget(
            device: WDFDEVICE,
        ) -> WDFIOTARGET = WdfDeviceGetIoTargetTableIndex, PFN_WDFDEVICEGETIOTARGET;
        /// Reads from a target and waits.
        fn WdfIoTargetSendReadSynchronously(
            target: WDFIOTARGET,
            request: WDFREQUEST,
            output: PWDF_MEMORY_DESCRIPTOR,
            offset: PLONGLONG,
            options: PWDF_REQUEST_SEND_OPTIONS,
            count: PULONG_PTR,
        ) -> NTSTATUS = WdfIoTargetSendReadSynchronouslyTableIndex, PFN_WDFIOTARGETSENDREADSYNCHRONOUSLY;
        /// Writes to a target and waits.
        fn WdfIoTargetSendWriteSynchronously(
            target: WDFIOTARGET,
            request: WDFREQUEST,
            input: PWDF_MEMORY_DESCRIPTOR,
            offset: PLONGLONG,
            options: PWDF_REQUEST_SEND_OPTIONS,
            count: PULONG_PTR,
        ) -> NTSTATUS = WdfIoTargetSendWriteSynchronouslyTableIndex, PFN_WDFIOTARGETSENDWRITESYNCHRONOUSLY;
        /// Sends an IOCTL to a target and waits.
        fn WdfIoTargetSendIoctlSynchronously(
            target: WDFIOTARGET,
            request: WDFREQUEST,
            code: ULONG,
            input: PWDF_MEMORY_DESCRIPTOR,
            output: PWDF_MEMORY_DESCRIPTOR,
            options: PWDF_REQUEST_SEND_OPTIONS,
            count: PULONG_PTR,
        ) -> NTSTATUS = WdfIoTargetSendIoctlSynchronouslyTableIndex, PFN_WDFIOTARGETSENDIOCTLSYNCHRONOUSLY;
        /// Registers a device interface.
        fn WdfDeviceCreateDeviceInterface(
            device: WDFDEVICE,
            class: *const GUID,
            reference: PCUNICODE_STRING,
        ) -> NTSTATUS = WdfDeviceCreateDeviceInterfaceTableIndex, PFN_WDFDEVICECREATEDEVICEINTERFACE;
        /// Enables or disables a device interface.
        fn WdfDeviceSetDeviceInterfaceState(
            device: WDFDEVICE,
            class: *const GUID,
            reference: PCUNICODE_STRING,
            enabled: BOOLEAN,
        ) = WdfDeviceSetDeviceInterfaceStateTableIndex, PFN_WDFDEVICESETDEVICEINTERFACESTATE;
        /// Allocates a record for a control device.
        fn WdfControlDeviceInitAllocate(driver: WDFDRIVER, sddl: PCUNICODE_STRING) -> PWDFDEVICE_INIT
            = WdfControlDeviceInitAllocateTableIndex, PFN_WDFCONTROLDEVICEINITALLOCATE;
        /// Asks to be told of the system's shutdown.
        fn WdfControlDeviceInitSetShutdownNotification(init: PWDFDEVICE_INIT, notification: PFN_WDF_DEVICE_SHUTDOWN_NOTIFICATION, flags: UCHAR)
            = WdfControlDeviceInitSetShutdownNotificationTableIndex, PFN_WDFCONTROLDEVICEINITSETSHUTDOWNNOTIFICATION;
        /// Lets users open a control device.
        fn WdfControlFinishInitializing(device: WDFDEVICE)
            = WdfControlFinishInitializingTableIndex, PFN_WDFCONTROLFINISHINITIALIZING;
        /// Frees a record for a control device.
        fn WdfDeviceInitFree(init: PWDFDEVICE_INIT)
            = WdfDeviceInitFreeTableIndex, PFN_WDFDEVICEINITFREE;
        /// Sets who may open a device.
        fn WdfDeviceInitAssignSDDLString(init: PWDFDEVICE_INIT, sddl: PCUNICODE_STRING) -> NTSTATUS
            = WdfDeviceInitAssignSDDLStringTableIndex, PFN_WDFDEVICEINITASSIGNSDDLSTRING;
        /// Sets a device's setup class.
        fn WdfDeviceInitSetDeviceClass(init: PWDFDEVICE_INIT, class: *const GUID)
            = WdfDeviceInitSetDeviceClassTableIndex, PFN_WDFDEVICEINITSETDEVICECLASS;
        /// Chooses who decides on the device's power.
        fn WdfDeviceInitSetPowerPolicyOwnership(init: PWDFDEVICE_INIT, owner: BOOLEAN)
            = WdfDeviceInitSetPowerPolicyOwnershipTableIndex, PFN_WDFDEVICEINITSETPOWERPOLICYOWNERSHIP;
        /// The path of an interface.
        fn WdfDeviceRetrieveDeviceInterfaceString(device: WDFDEVICE, class: *const GUID, reference: PCUNICODE_STRING, string: WDFSTRING) -> NTSTATUS
            = WdfDeviceRetrieveDeviceInterfaceStringTableIndex, PFN_WDFDEVICERETRIEVEDEVICEINTERFACESTRING;
        /// Reads a property of a device.
        fn WdfDeviceQueryProperty(device: WDFDEVICE, property: DEVICE_REGISTRY_PROPERTY::Type, length: ULONG, buffer: PVOID, needed: PULONG) -> NTSTATUS
            = WdfDeviceQueryPropertyTableIndex, PFN_WDFDEVICEQUERYPROPERTY;
        /// Says that a device has failed.
        fn WdfDeviceSetFailed(device: WDFDEVICE, action: WDF_DEVICE_FAILED_ACTION)
            = WdfDeviceSetFailedTableIndex, PFN_WDFDEVICESETFAILED;
        /// Gives a device a name that user mode can open.
        fn WdfDeviceCreateSymbolicLink(
            device: WDFDEVICE,
            name: PCUNICODE_STRING,
        ) -> NTSTATUS = WdfDeviceCreateSymbolicLinkTableIndex, PFN_WDFDEVICECREATESYMBOLICLINK;
        /// Registers the file callbacks of a device.
        fn WdfDeviceInitSetFileObjectConfig(
            init: PWDFDEVICE_INIT,
            config: PWDF_FILEOBJECT_CONFIG,
            attributes: PWDF_OBJECT_ATTRIBUTES,
        ) = WdfDeviceInitSetFileObjectConfigTableIndex, PFN_WDFDEVICEINITSETFILEOBJECTCONFIG;
        /// The name that a file was opened by.
        fn WdfFileObjectGetFileName(
            file: WDFFILEOBJECT,
        ) -> PUNICODE_STRING = WdfFileObjectGetFileNameTableIndex, PFN_WDFFILEOBJECTGETFILENAME;
        /// Gives an object one more context.
        fn WdfObjectAllocateContext(
            object: WDFOBJECT,
            attributes: PWDF_OBJECT_ATTRIBUTES,
            out: *mut PVOID,
        ) -> NTSTATUS = WdfObjectAllocateContextTableIndex, PFN_WDFOBJECTALLOCATECONTEXT;
        /// Counts one more owner of an object.
        fn WdfObjectReferenceActual(
            object: WDFOBJECT,
            tag: PVOID,
            line: LONG,
            file: PCCH,
        ) = WdfObjectReferenceActualTableIndex, PFN_WDFOBJECTREFERENCEACTUAL;
        /// Counts one owner of an object less.
        fn WdfObjectDereferenceActual(
            object: WDFOBJECT,
            tag: PVOID,
            line: LONG,
            file: PCCH,
        ) = WdfObjectDereferenceActualTableIndex, PFN_WDFOBJECTDEREFERENCEACTUAL;
    }

    functions! {
        /// The framework's version, as text.
        fn WdfDriverRetrieveVersionString(driver: WDFDRIVER, string: WDFSTRING) -> NTSTATUS
            = WdfDriverRetrieveVersionStringTableIndex, PFN_WDFDRIVERRETRIEVEVERSIONSTRING;
        /// Whether the framework has at least a version.
        fn WdfDriverIsVersionAvailable(driver: WDFDRIVER, version_available_params: PWDF_DRIVER_VERSION_AVAILABLE_PARAMS) -> BOOLEAN
            = WdfDriverIsVersionAvailableTableIndex, PFN_WDFDRIVERISVERSIONAVAILABLE;
        /// Sets the device's type.
        fn WdfDeviceInitSetDeviceType(device_init: PWDFDEVICE_INIT, device_type: ULONG)
            = WdfDeviceInitSetDeviceTypeTableIndex, PFN_WDFDEVICEINITSETDEVICETYPE;
        /// Chooses whether the device has one user at a time.
        fn WdfDeviceInitSetExclusive(device_init: PWDFDEVICE_INIT, is_exclusive: BOOLEAN)
            = WdfDeviceInitSetExclusiveTableIndex, PFN_WDFDEVICEINITSETEXCLUSIVE;
        /// Names the device object.
        fn WdfDeviceInitAssignName(device_init: PWDFDEVICE_INIT, device_name: PCUNICODE_STRING) -> NTSTATUS
            = WdfDeviceInitAssignNameTableIndex, PFN_WDFDEVICEINITASSIGNNAME;
        /// Sets the device's characteristics.
        fn WdfDeviceInitSetCharacteristics(device_init: PWDFDEVICE_INIT, device_characteristics: ULONG, or_in_values: BOOLEAN)
            = WdfDeviceInitSetCharacteristicsTableIndex, PFN_WDFDEVICEINITSETCHARACTERISTICS;
        /// What the system is about to do.
        fn WdfDeviceGetSystemPowerAction(device: WDFDEVICE) -> POWER_ACTION::Type
            = WdfDeviceGetSystemPowerActionTableIndex, PFN_WDFDEVICEGETSYSTEMPOWERACTION;
        /// Registers the wake callbacks of a device.
        fn WdfDeviceInitSetPowerPolicyEventCallbacks(device_init: PWDFDEVICE_INIT, power_policy_event_callbacks: PWDF_POWER_POLICY_EVENT_CALLBACKS)
            = WdfDeviceInitSetPowerPolicyEventCallbacksTableIndex, PFN_WDFDEVICEINITSETPOWERPOLICYEVENTCALLBACKS;
        /// Says that the device must not be powered from pageable code.
        fn WdfDeviceInitSetPowerNotPageable(device_init: PWDFDEVICE_INIT)
            = WdfDeviceInitSetPowerNotPageableTableIndex, PFN_WDFDEVICEINITSETPOWERNOTPAGEABLE;
        /// Says that it may be.
        fn WdfDeviceInitSetPowerPageable(device_init: PWDFDEVICE_INIT)
            = WdfDeviceInitSetPowerPageableTableIndex, PFN_WDFDEVICEINITSETPOWERPAGEABLE;
        /// Makes the driver a filter.
        fn WdfFdoInitSetFilter(device_init: PWDFDEVICE_INIT)
            = WdfFdoInitSetFilterTableIndex, PFN_WDFFDOINITSETFILTER;
        /// Says when an idle device is powered down.
        fn WdfDeviceAssignS0IdleSettings(device: WDFDEVICE, settings: PWDF_DEVICE_POWER_POLICY_IDLE_SETTINGS) -> NTSTATUS
            = WdfDeviceAssignS0IdleSettingsTableIndex, PFN_WDFDEVICEASSIGNS0IDLESETTINGS;
        /// Says whether the device wakes the system.
        fn WdfDeviceAssignSxWakeSettings(device: WDFDEVICE, settings: PWDF_DEVICE_POWER_POLICY_WAKE_SETTINGS) -> NTSTATUS
            = WdfDeviceAssignSxWakeSettingsTableIndex, PFN_WDFDEVICEASSIGNSXWAKESETTINGS;
        /// Takes a power reference.
        fn WdfDeviceStopIdleNoTrack(device: WDFDEVICE, wait_for_d0: BOOLEAN) -> NTSTATUS
            = WdfDeviceStopIdleNoTrackTableIndex, PFN_WDFDEVICESTOPIDLENOTRACK;
        /// Gives a power reference back.
        fn WdfDeviceResumeIdleNoTrack(device: WDFDEVICE)
            = WdfDeviceResumeIdleNoTrackTableIndex, PFN_WDFDEVICERESUMEIDLENOTRACK;
        /// Opens a key of the device.
        fn WdfDeviceOpenRegistryKey(device: WDFDEVICE, device_instance_key_type: ULONG, desired_access: ACCESS_MASK, key_attributes: PWDF_OBJECT_ATTRIBUTES, key: *mut WDFKEY) -> NTSTATUS
            = WdfDeviceOpenRegistryKeyTableIndex, PFN_WDFDEVICEOPENREGISTRYKEY;
        /// Creates a DPC.
        fn WdfDpcCreate(config: PWDF_DPC_CONFIG, attributes: PWDF_OBJECT_ATTRIBUTES, dpc: *mut WDFDPC) -> NTSTATUS
            = WdfDpcCreateTableIndex, PFN_WDFDPCCREATE;
        /// Queues a DPC.
        fn WdfDpcEnqueue(dpc: WDFDPC) -> BOOLEAN
            = WdfDpcEnqueueTableIndex, PFN_WDFDPCENQUEUE;
        /// Takes a DPC out of the queue.
        fn WdfDpcCancel(dpc: WDFDPC, wait: BOOLEAN) -> BOOLEAN
            = WdfDpcCancelTableIndex, PFN_WDFDPCCANCEL;
        /// Creates a spin lock.
        fn WdfSpinLockCreate(spin_lock_attributes: PWDF_OBJECT_ATTRIBUTES, spin_lock: *mut WDFSPINLOCK) -> NTSTATUS
            = WdfSpinLockCreateTableIndex, PFN_WDFSPINLOCKCREATE;
        /// Takes a spin lock.
        fn WdfSpinLockAcquire(spin_lock: WDFSPINLOCK)
            = WdfSpinLockAcquireTableIndex, PFN_WDFSPINLOCKACQUIRE;
        /// Gives a spin lock back.
        fn WdfSpinLockRelease(spin_lock: WDFSPINLOCK)
            = WdfSpinLockReleaseTableIndex, PFN_WDFSPINLOCKRELEASE;
        /// Creates a wait lock.
        fn WdfWaitLockCreate(lock_attributes: PWDF_OBJECT_ATTRIBUTES, lock: *mut WDFWAITLOCK) -> NTSTATUS
            = WdfWaitLockCreateTableIndex, PFN_WDFWAITLOCKCREATE;
        /// Takes a wait lock.
        fn WdfWaitLockAcquire(lock: WDFWAITLOCK, timeout: PLONGLONG) -> NTSTATUS
            = WdfWaitLockAcquireTableIndex, PFN_WDFWAITLOCKACQUIRE;
        /// Gives a wait lock back.
        fn WdfWaitLockRelease(lock: WDFWAITLOCK)
            = WdfWaitLockReleaseTableIndex, PFN_WDFWAITLOCKRELEASE;
        /// Opens a key below a key.
        fn WdfRegistryOpenKey(parent_key: WDFKEY, key_name: PCUNICODE_STRING, desired_access: ACCESS_MASK, key_attributes: PWDF_OBJECT_ATTRIBUTES, key: *mut WDFKEY) -> NTSTATUS
            = WdfRegistryOpenKeyTableIndex, PFN_WDFREGISTRYOPENKEY;
        /// Creates or opens a key below a key.
        fn WdfRegistryCreateKey(parent_key: WDFKEY, key_name: PCUNICODE_STRING, desired_access: ACCESS_MASK, create_options: ULONG, create_disposition: PULONG, key_attributes: PWDF_OBJECT_ATTRIBUTES, key: *mut WDFKEY) -> NTSTATUS
            = WdfRegistryCreateKeyTableIndex, PFN_WDFREGISTRYCREATEKEY;
        /// The kernel's handle of a key.
        fn WdfRegistryWdmGetHandle(key: WDFKEY) -> HANDLE
            = WdfRegistryWdmGetHandleTableIndex, PFN_WDFREGISTRYWDMGETHANDLE;
        /// Deletes a key.
        fn WdfRegistryRemoveKey(key: WDFKEY) -> NTSTATUS
            = WdfRegistryRemoveKeyTableIndex, PFN_WDFREGISTRYREMOVEKEY;
        /// Deletes a value.
        fn WdfRegistryRemoveValue(key: WDFKEY, value_name: PCUNICODE_STRING) -> NTSTATUS
            = WdfRegistryRemoveValueTableIndex, PFN_WDFREGISTRYREMOVEVALUE;
        /// Reads a value of any type.
        fn WdfRegistryQueryValue(key: WDFKEY, value_name: PCUNICODE_STRING, value_length: ULONG, value: PVOID, value_length_queried: PULONG, value_type: PULONG) -> NTSTATUS
            = WdfRegistryQueryValueTableIndex, PFN_WDFREGISTRYQUERYVALUE;
        /// Writes a value of any type.
        fn WdfRegistryAssignValue(key: WDFKEY, value_name: PCUNICODE_STRING, value_type: ULONG, value_length: ULONG, value: PVOID) -> NTSTATUS
            = WdfRegistryAssignValueTableIndex, PFN_WDFREGISTRYASSIGNVALUE;
        /// Allocates a buffer.
        fn WdfMemoryCreate(attributes: PWDF_OBJECT_ATTRIBUTES, pool_type: POOL_TYPE, pool_tag: ULONG, buffer_size: usize, memory: *mut WDFMEMORY, buffer: *mut PVOID) -> NTSTATUS
            = WdfMemoryCreateTableIndex, PFN_WDFMEMORYCREATE;
        /// The buffer of a memory object.
        fn WdfMemoryGetBuffer(memory: WDFMEMORY, buffer_size: *mut usize) -> PVOID
            = WdfMemoryGetBufferTableIndex, PFN_WDFMEMORYGETBUFFER;
        /// Creates a lookaside list.
        fn WdfLookasideListCreate(lookaside_attributes: PWDF_OBJECT_ATTRIBUTES, buffer_size: usize, pool_type: POOL_TYPE, memory_attributes: PWDF_OBJECT_ATTRIBUTES, pool_tag: ULONG, lookaside: *mut WDFLOOKASIDE) -> NTSTATUS
            = WdfLookasideListCreateTableIndex, PFN_WDFLOOKASIDELISTCREATE;
        /// Takes a buffer from a lookaside list.
        fn WdfMemoryCreateFromLookaside(lookaside: WDFLOOKASIDE, memory: *mut WDFMEMORY) -> NTSTATUS
            = WdfMemoryCreateFromLookasideTableIndex, PFN_WDFMEMORYCREATEFROMLOOKASIDE;
        /// Creates a string.
        fn WdfStringCreate(unicode_string: PCUNICODE_STRING, string_attributes: PWDF_OBJECT_ATTRIBUTES, string: *mut WDFSTRING) -> NTSTATUS
            = WdfStringCreateTableIndex, PFN_WDFSTRINGCREATE;
        /// The text of a string.
        fn WdfStringGetUnicodeString(string: WDFSTRING, unicode_string: PUNICODE_STRING)
            = WdfStringGetUnicodeStringTableIndex, PFN_WDFSTRINGGETUNICODESTRING;
        /// Creates a collection.
        fn WdfCollectionCreate(collection_attributes: PWDF_OBJECT_ATTRIBUTES, collection: *mut WDFCOLLECTION) -> NTSTATUS
            = WdfCollectionCreateTableIndex, PFN_WDFCOLLECTIONCREATE;
        /// Counts the items of a collection.
        fn WdfCollectionGetCount(collection: WDFCOLLECTION) -> ULONG
            = WdfCollectionGetCountTableIndex, PFN_WDFCOLLECTIONGETCOUNT;
        /// Adds an item to a collection.
        fn WdfCollectionAdd(collection: WDFCOLLECTION, object: WDFOBJECT) -> NTSTATUS
            = WdfCollectionAddTableIndex, PFN_WDFCOLLECTIONADD;
        /// Removes an item of a collection.
        fn WdfCollectionRemoveItem(collection: WDFCOLLECTION, index: ULONG)
            = WdfCollectionRemoveItemTableIndex, PFN_WDFCOLLECTIONREMOVEITEM;
        /// An item of a collection.
        fn WdfCollectionGetItem(collection: WDFCOLLECTION, index: ULONG) -> WDFOBJECT
            = WdfCollectionGetItemTableIndex, PFN_WDFCOLLECTIONGETITEM;
        /// Creates an interrupt.
        fn WdfInterruptCreate(device: WDFDEVICE, configuration: PWDF_INTERRUPT_CONFIG, attributes: PWDF_OBJECT_ATTRIBUTES, interrupt: *mut WDFINTERRUPT) -> NTSTATUS
            = WdfInterruptCreateTableIndex, PFN_WDFINTERRUPTCREATE;
        /// Queues the interrupt's DPC.
        fn WdfInterruptQueueDpcForIsr(interrupt: WDFINTERRUPT) -> BOOLEAN
            = WdfInterruptQueueDpcForIsrTableIndex, PFN_WDFINTERRUPTQUEUEDPCFORISR;
        /// Queues the interrupt's work item.
        fn WdfInterruptQueueWorkItemForIsr(interrupt: WDFINTERRUPT) -> BOOLEAN
            = WdfInterruptQueueWorkItemForIsrTableIndex, PFN_WDFINTERRUPTQUEUEWORKITEMFORISR;
        /// What was assigned to an interrupt.
        fn WdfInterruptGetInfo(interrupt: WDFINTERRUPT, info: PWDF_INTERRUPT_INFO)
            = WdfInterruptGetInfoTableIndex, PFN_WDFINTERRUPTGETINFO;
        /// To which processors an interrupt goes.
        fn WdfInterruptSetPolicy(interrupt: WDFINTERRUPT, policy: WDF_INTERRUPT_POLICY, priority: WDF_INTERRUPT_PRIORITY, target_processor_set: KAFFINITY)
            = WdfInterruptSetPolicyTableIndex, PFN_WDFINTERRUPTSETPOLICY;
        /// The device may raise the interrupt.
        fn WdfInterruptReportActive(interrupt: WDFINTERRUPT)
            = WdfInterruptReportActiveTableIndex, PFN_WDFINTERRUPTREPORTACTIVE;
        /// The device does not raise the interrupt.
        fn WdfInterruptReportInactive(interrupt: WDFINTERRUPT)
            = WdfInterruptReportInactiveTableIndex, PFN_WDFINTERRUPTREPORTINACTIVE;
        /// Counts the descriptors of a resource list.
        fn WdfCmResourceListGetCount(list: WDFCMRESLIST) -> ULONG
            = WdfCmResourceListGetCountTableIndex, PFN_WDFCMRESOURCELISTGETCOUNT;
        /// A descriptor of a resource list.
        fn WdfCmResourceListGetDescriptor(list: WDFCMRESLIST, index: ULONG) -> PCM_PARTIAL_RESOURCE_DESCRIPTOR
            = WdfCmResourceListGetDescriptorTableIndex, PFN_WDFCMRESOURCELISTGETDESCRIPTOR;
    }
}

/// The size of `T` for the `Size` field that each WDF structure starts with.
pub(crate) const fn size_field<T>() -> ULONG {
    assert!(size_of::<T>() <= u32::MAX as usize);
    // Checked above.
    #[allow(clippy::cast_possible_truncation, reason = "checked above")]
    {
        size_of::<T>() as ULONG
    }
}
