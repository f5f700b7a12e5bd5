// SPDX-License-Identifier: MIT OR Apache-2.0

//! The records of the framework's interface, as drivers lay them out.
//!
//! Only what the simulator reads is named; a test compares sizes and offsets
//! with `openwdk/abi/kmdf-1.33.json`.

use crate::access::UnicodeString;

use super::object::Handle;

/// `WDF_OBJECT_ATTRIBUTES`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct ObjectAttributes {
    pub(crate) size: u32,
    pub(crate) evt_cleanup: usize,
    pub(crate) evt_destroy: usize,
    pub(crate) execution_level: u32,
    pub(crate) synchronization_scope: u32,
    pub(crate) parent: Handle,
    pub(crate) context_size_override: usize,
    pub(crate) context_type: *const ContextTypeInfo,
}

/// `WDF_OBJECT_CONTEXT_TYPE_INFO`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct ContextTypeInfo {
    pub(crate) size: u32,
    pub(crate) name: *const u8,
    pub(crate) context_size: usize,
    pub(crate) unique_type: *const ContextTypeInfo,
    pub(crate) evt_get_unique_type: usize,
}

/// `WDF_DRIVER_GLOBALS`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct DriverGlobals {
    pub(crate) driver: Handle,
    pub(crate) driver_flags: u32,
    pub(crate) driver_tag: u32,
    pub(crate) driver_name: [u8; 32],
    pub(crate) displace_driver_unload: u8,
}

/// `WDF_DRIVER_CONFIG`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct DriverConfig {
    pub(crate) size: u32,
    pub(crate) evt_device_add: usize,
    pub(crate) evt_unload: usize,
    pub(crate) init_flags: u32,
    pub(crate) pool_tag: u32,
}

/// `WDF_DRIVER_VERSION_AVAILABLE_PARAMS`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct VersionAvailableParams {
    pub(crate) size: u32,
    pub(crate) major: u32,
    pub(crate) minor: u32,
}

/// `WDF_PNPPOWER_EVENT_CALLBACKS`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct PnpPowerCallbacks {
    pub(crate) size: u32,
    pub(crate) d0_entry: usize,
    pub(crate) d0_entry_post_interrupts_enabled: usize,
    pub(crate) d0_exit: usize,
    pub(crate) d0_exit_pre_interrupts_disabled: usize,
    pub(crate) prepare_hardware: usize,
    pub(crate) release_hardware: usize,
    pub(crate) self_managed_io_cleanup: usize,
    pub(crate) self_managed_io_flush: usize,
    pub(crate) self_managed_io_init: usize,
    pub(crate) self_managed_io_suspend: usize,
    pub(crate) self_managed_io_restart: usize,
    pub(crate) surprise_removal: usize,
    pub(crate) query_remove: usize,
    pub(crate) query_stop: usize,
    pub(crate) usage_notification: usize,
    pub(crate) relations_query: usize,
    pub(crate) usage_notification_ex: usize,
}

/// `WDF_POWER_POLICY_EVENT_CALLBACKS`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct PowerPolicyCallbacks {
    pub(crate) size: u32,
    pub(crate) arm_wake_from_s0: usize,
    pub(crate) disarm_wake_from_s0: usize,
    pub(crate) wake_from_s0_triggered: usize,
    pub(crate) arm_wake_from_sx: usize,
    pub(crate) disarm_wake_from_sx: usize,
    pub(crate) wake_from_sx_triggered: usize,
    pub(crate) arm_wake_from_sx_with_reason: usize,
}

/// `WDF_FILEOBJECT_CONFIG`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct FileObjectConfig {
    pub(crate) size: u32,
    pub(crate) evt_create: usize,
    pub(crate) evt_close: usize,
    pub(crate) evt_cleanup: usize,
    pub(crate) auto_forward_cleanup_close: u32,
    pub(crate) class: u32,
}

/// `WDF_DEVICE_STATE`: its size and seven `WDF_TRI_STATE`s.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct DeviceState {
    pub(crate) size: u32,
    pub(crate) flags: [u32; 7],
}

/// `WDF_TIMER_CONFIG`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct TimerConfig {
    pub(crate) size: u32,
    pub(crate) evt_timer: usize,
    pub(crate) period: u32,
    pub(crate) automatic_serialization: u8,
    pub(crate) tolerable_delay: u32,
    /// The next field is aligned to eight bytes.
    pub(crate) reserved: u32,
    pub(crate) use_high_resolution_timer: u8,
}

/// `WDF_WORKITEM_CONFIG`; `WDF_DPC_CONFIG` has the same layout.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct CallbackConfig {
    pub(crate) size: u32,
    pub(crate) evt: usize,
    pub(crate) automatic_serialization: u8,
}

/// `WDF_IO_QUEUE_CONFIG`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct QueueConfig {
    pub(crate) size: u32,
    pub(crate) dispatch_type: u32,
    pub(crate) power_managed: u32,
    pub(crate) allow_zero_length_requests: u8,
    pub(crate) default_queue: u8,
    pub(crate) evt_io_default: usize,
    pub(crate) evt_io_read: usize,
    pub(crate) evt_io_write: usize,
    pub(crate) evt_io_device_control: usize,
    pub(crate) evt_io_internal_device_control: usize,
    pub(crate) evt_io_stop: usize,
    pub(crate) evt_io_resume: usize,
    pub(crate) evt_io_canceled_on_queue: usize,
    /// `Settings.Parallel.NumberOfPresentedRequests`.
    pub(crate) presented_requests: u32,
    pub(crate) driver: Handle,
}

/// `WDF_MEMORY_DESCRIPTOR`, with its union as two words.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct MemoryDescriptor {
    pub(crate) kind: u32,
    /// A buffer's address, or a `WDFMEMORY`.
    pub(crate) first: usize,
    /// A buffer's length in the low half, or the address of offsets.
    pub(crate) second: usize,
}

/// `WDF_REQUEST_SEND_OPTIONS`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct SendOptions {
    pub(crate) size: u32,
    pub(crate) flags: u32,
    pub(crate) timeout: i64,
}

/// `WDF_REQUEST_PARAMETERS`, with its union as four words.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct RequestParameters {
    pub(crate) size: u16,
    pub(crate) minor_function: u8,
    pub(crate) kind: u32,
    pub(crate) parameters: [u64; 4],
}

/// `WDFMEMORY_OFFSET`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct MemoryOffset {
    pub(crate) buffer_offset: usize,
    pub(crate) buffer_length: usize,
}

/// `WDF_REQUEST_COMPLETION_PARAMS`, with its union as six words.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct CompletionParams {
    pub(crate) size: u32,
    pub(crate) kind: u32,
    pub(crate) status: i32,
    pub(crate) information: usize,
    pub(crate) parameters: [u64; 6],
}

impl CompletionParams {
    #[expect(clippy::cast_possible_truncation, reason = "72 bytes")]
    pub(crate) const SIZE: u32 = size_of::<Self>() as u32;

    /// Of a request that was not completed yet.
    pub(crate) const NOTHING: Self = Self {
        size: Self::SIZE,
        kind: 0xFF,
        status: 0,
        information: 0,
        parameters: [0; 6],
    };
}

/// `WDF_REQUEST_REUSE_PARAMS`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct ReuseParams {
    pub(crate) size: u32,
    pub(crate) flags: u32,
    pub(crate) status: i32,
    pub(crate) new_irp: usize,
}

/// `WDF_IO_TARGET_OPEN_PARAMS`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct OpenParams {
    pub(crate) size: u32,
    pub(crate) kind: u32,
    pub(crate) evt_query_remove: usize,
    pub(crate) evt_remove_canceled: usize,
    pub(crate) evt_remove_complete: usize,
    pub(crate) target_device_object: usize,
    pub(crate) target_file_object: usize,
    pub(crate) name: UnicodeString,
    pub(crate) desired_access: u32,
    pub(crate) share_access: u32,
    pub(crate) file_attributes: u32,
    pub(crate) create_disposition: u32,
    pub(crate) create_options: u32,
    pub(crate) ea_buffer: usize,
    pub(crate) ea_buffer_length: u32,
    pub(crate) allocation_size: usize,
    pub(crate) file_information: u32,
    pub(crate) file_name: UnicodeString,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_has_the_size_that_drivers_use() {
        let json: serde_json::Value =
            serde_json::from_str(include_str!("../../../openwdk/abi/kmdf-1.33.json"))
                .expect("the file is JSON");
        for (name, size) in [
            ("_WDF_OBJECT_ATTRIBUTES", size_of::<ObjectAttributes>()),
            (
                "_WDF_OBJECT_CONTEXT_TYPE_INFO",
                size_of::<ContextTypeInfo>(),
            ),
            ("_WDF_DRIVER_GLOBALS", size_of::<DriverGlobals>()),
            ("_WDF_DRIVER_CONFIG", size_of::<DriverConfig>()),
            (
                "_WDF_DRIVER_VERSION_AVAILABLE_PARAMS",
                size_of::<VersionAvailableParams>(),
            ),
            (
                "_WDF_PNPPOWER_EVENT_CALLBACKS",
                size_of::<PnpPowerCallbacks>(),
            ),
            (
                "_WDF_POWER_POLICY_EVENT_CALLBACKS",
                size_of::<PowerPolicyCallbacks>(),
            ),
            ("_WDF_FILEOBJECT_CONFIG", size_of::<FileObjectConfig>()),
            ("_WDF_DEVICE_STATE", size_of::<DeviceState>()),
            ("_WDF_TIMER_CONFIG", size_of::<TimerConfig>()),
            (
                "_WDF_INTERRUPT_CONFIG",
                size_of::<super::super::interrupt::Config>(),
            ),
            (
                "_WDF_INTERRUPT_INFO",
                size_of::<super::super::interrupt::Info>(),
            ),
            ("_WDF_WORKITEM_CONFIG", size_of::<CallbackConfig>()),
            ("_WDF_DPC_CONFIG", size_of::<CallbackConfig>()),
            (
                "_WDF_REQUEST_COMPLETION_PARAMS",
                size_of::<CompletionParams>(),
            ),
            ("_WDF_REQUEST_REUSE_PARAMS", size_of::<ReuseParams>()),
            ("_WDF_IO_TARGET_OPEN_PARAMS", size_of::<OpenParams>()),
            ("_WDFMEMORY_OFFSET", size_of::<MemoryOffset>()),
            ("_WDF_IO_QUEUE_CONFIG", size_of::<QueueConfig>()),
            ("_WDF_REQUEST_PARAMETERS", size_of::<RequestParameters>()),
            ("_WDF_MEMORY_DESCRIPTOR", size_of::<MemoryDescriptor>()),
            ("_WDF_REQUEST_SEND_OPTIONS", size_of::<SendOptions>()),
        ] {
            assert_eq!(json["structs"][name]["size"], size, "{name}");
        }
    }

    #[test]
    fn fields_are_where_drivers_put_them() {
        let json: serde_json::Value =
            serde_json::from_str(include_str!("../../../openwdk/abi/kmdf-1.33.json"))
                .expect("the file is JSON");
        for (record, field, offset) in [
            (
                "_WDF_OBJECT_ATTRIBUTES",
                "ParentObject",
                std::mem::offset_of!(ObjectAttributes, parent),
            ),
            (
                "_WDF_OBJECT_ATTRIBUTES",
                "ContextTypeInfo",
                std::mem::offset_of!(ObjectAttributes, context_type),
            ),
            (
                "_WDF_OBJECT_CONTEXT_TYPE_INFO",
                "UniqueType",
                std::mem::offset_of!(ContextTypeInfo, unique_type),
            ),
            (
                "_WDF_DRIVER_GLOBALS",
                "DisplaceDriverUnload",
                std::mem::offset_of!(DriverGlobals, displace_driver_unload),
            ),
            (
                "_WDF_DRIVER_CONFIG",
                "DriverPoolTag",
                std::mem::offset_of!(DriverConfig, pool_tag),
            ),
            (
                "_WDF_TIMER_CONFIG",
                "AutomaticSerialization",
                std::mem::offset_of!(TimerConfig, automatic_serialization),
            ),
            (
                "_WDF_TIMER_CONFIG",
                "TolerableDelay",
                std::mem::offset_of!(TimerConfig, tolerable_delay),
            ),
            (
                "_WDF_TIMER_CONFIG",
                "UseHighResolutionTimer",
                std::mem::offset_of!(TimerConfig, use_high_resolution_timer),
            ),
            (
                "_WDF_IO_QUEUE_CONFIG",
                "EvtIoCanceledOnQueue",
                std::mem::offset_of!(QueueConfig, evt_io_canceled_on_queue),
            ),
            (
                "_WDF_IO_QUEUE_CONFIG",
                "Settings",
                std::mem::offset_of!(QueueConfig, presented_requests),
            ),
            (
                "_WDF_REQUEST_PARAMETERS",
                "Parameters",
                std::mem::offset_of!(RequestParameters, parameters),
            ),
            (
                "_WDF_PNPPOWER_EVENT_CALLBACKS",
                "EvtDeviceD0Exit",
                std::mem::offset_of!(PnpPowerCallbacks, d0_exit),
            ),
            (
                "_WDF_PNPPOWER_EVENT_CALLBACKS",
                "EvtDeviceSelfManagedIoInit",
                std::mem::offset_of!(PnpPowerCallbacks, self_managed_io_init),
            ),
            (
                "_WDF_PNPPOWER_EVENT_CALLBACKS",
                "EvtDeviceQueryStop",
                std::mem::offset_of!(PnpPowerCallbacks, query_stop),
            ),
        ] {
            assert_eq!(
                json["structs"][record]["fields"][field]["offset"], offset,
                "{record}.{field}"
            );
        }
    }

    #[test]
    fn the_table_has_the_functions_of_kmdf_at_their_indexes() {
        let json: serde_json::Value =
            serde_json::from_str(include_str!("../../../openwdk/abi/kmdf-1.33.json"))
                .expect("the file is JSON");
        let functions = json["functions"].as_object().expect("an object");
        assert_eq!(functions.len(), super::super::NAMES.len());
        for (name, function) in functions {
            let index =
                usize::try_from(function["index"].as_u64().expect("a number")).expect("small");
            assert_eq!(super::super::NAMES[index], name);
        }
    }
}
