// SPDX-License-Identifier: MIT OR Apache-2.0

//! The KMDF headers: types, function enumeration, function pointers and calls.

use super::abi::Abi;
use super::{GENERATED, Outputs};
use std::collections::BTreeSet;
use std::fmt::Write as _;

const DIR: &str = "openwdk/include/wdf/kmdf/1.33";

pub fn generate(abi: &Abi, outputs: &mut Outputs) -> Result<(), String> {
    outputs.insert(format!("{DIR}/wdftypes.h").into(), types(abi)?);
    outputs.insert(format!("{DIR}/wdffuncenum.h").into(), function_enum(abi)?);
    outputs.insert(format!("{DIR}/wdffunctions.h").into(), functions(abi)?);
    Ok(())
}

fn begin(guard: &str, what: &str) -> String {
    format!(
        "/* SPDX-License-Identifier: MIT OR Apache-2.0\n *\n * {GENERATED}\n * {what}\n */\n\
         #ifndef OPENWDK_{guard}_H\n#define OPENWDK_{guard}_H\n\n"
    )
}

fn types(abi: &Abi) -> Result<String, String> {
    let mut out = begin(
        "WDFTYPES",
        "Handles, enumerations, structures and callbacks of KMDF 1.33.",
    );
    for (name, value) in abi.constants() {
        let _ = writeln!(out, "#define {name} {value}");
    }
    out.push_str("\ntypedef void (*WDFFUNC)(void);\n\n");

    let records = abi.structs()?;
    let unions: BTreeSet<&str> = abi
        .typedefs()
        .filter_map(|(_, t)| t.strip_prefix("union "))
        .collect();
    let keyword = |name: &str| {
        if unions.contains(name) {
            "union"
        } else {
            "struct"
        }
    };

    for (name, values) in abi.enums()? {
        let _ = writeln!(out, "enum {name} {{");
        for (item, value) in values {
            let _ = writeln!(out, "    {item} = {value},");
        }
        out.push_str("};\n\n");
    }
    for (name, _) in &records {
        let _ = writeln!(out, "{} {name};", keyword(name));
    }
    out.push('\n');

    // Typedefs in the order of the data, which is the order of declaration; a callback's
    // function type brings its pointer type with it.
    let callbacks: BTreeSet<&str> = abi.callbacks().collect();
    let mut pointers = BTreeSet::new();
    for (name, ty) in abi.typedefs() {
        let _ = match (name, ty) {
            ("WDFFUNC", _) => Ok(()),
            // The base of all handles, to which C converts the others by itself.
            ("WDFOBJECT", _) => writeln!(out, "typedef HANDLE WDFOBJECT;"),
            (_, "HANDLE") => writeln!(out, "DECLARE_HANDLE({name});"),
            ("PFN_GET_UNIQUE_CONTEXT_TYPE", _) => {
                writeln!(
                    out,
                    "typedef PCWDF_OBJECT_CONTEXT_TYPE_INFO (*{name})(void);"
                )
            }
            _ if name.starts_with("EVT_") && ty.contains('(') => {
                let (returns, params) = ty.split_once('(').unwrap_or((ty, ")"));
                let params = named_parameters(params.trim_end_matches(')'));
                writeln!(out, "typedef {} {name}({params});", returns.trim())
            }
            _ => match ty.strip_suffix('*') {
                Some(target) => writeln!(
                    out,
                    "typedef {}*{name};",
                    target.trim_end().to_owned() + " "
                ),
                None => writeln!(out, "typedef {ty} {name};"),
            },
        };
        let pointer = name.replacen("EVT_", "PFN_", 1);
        if name.starts_with("EVT_") && callbacks.contains(pointer.as_str()) {
            let _ = writeln!(out, "typedef {name} *{pointer};");
            pointers.insert(pointer);
        }
    }
    if let Some(missing) = callbacks.iter().find(|c| !pointers.contains(**c)) {
        return Err(format!(
            "kmdf-1.33.json: callback {missing} has no EVT_ typedef"
        ));
    }
    out.push('\n');

    for (name, record) in &records {
        let _ = writeln!(out, "{} {name} {{", keyword(name));
        let mut end = 0;
        for (field, info) in record.fields()? {
            // A gap that the field's own alignment does not explain was asked for in the source.
            if info.offset > end && info.offset - end >= info.size.clamp(1, 8) {
                out.push_str("    POINTER_ALIGNMENT");
            }
            end = end.max(info.offset + info.size);
            if info.ty.contains("(unnamed") {
                let body = unnamed(name, field).ok_or_else(|| {
                    format!("wdf.rs: no definition for the unnamed type of {name}.{field}")
                })?;
                let _ = writeln!(out, "    {body} {field};");
            } else if let Some((ty, count)) = info.ty.trim_end_matches(']').split_once('[') {
                let _ = writeln!(out, "    {ty} {field}[{count}];");
            } else {
                let _ = writeln!(out, "    {} {field};", info.ty);
            }
        }
        out.push_str("};\n");
        let _ = writeln!(
            out,
            "C_ASSERT(sizeof({} {name}) == {});\n",
            keyword(name),
            record.size
        );
    }
    out.push_str("#endif\n");
    Ok(out)
}

/// Names for the parameters of a callback type, of which the data has the types only.
fn named_parameters(params: &str) -> String {
    let mut seen = BTreeSet::new();
    let list: Vec<String> = params
        .split(',')
        .map(str::trim)
        .enumerate()
        .map(|(i, ty)| {
            let base = match ty {
                "WDFDEVICE" => "Device",
                "WDFDRIVER" => "Driver",
                "WDFOBJECT" => "Object",
                "WDFREQUEST" => "Request",
                "WDFQUEUE" => "Queue",
                "WDFTIMER" => "Timer",
                "WDFWORKITEM" => "WorkItem",
                "WDFDPC" => "Dpc",
                "WDFFILEOBJECT" => "FileObject",
                "WDFINTERRUPT" => "Interrupt",
                "WDFCONTEXT" => "Context",
                "PWDFDEVICE_INIT" => "DeviceInit",
                _ => "Argument",
            };
            if base != "Argument" && seen.insert(base) {
                format!("{ty} {base}")
            } else {
                format!("{ty} Argument{}", i + 1)
            }
        })
        .collect();
    list.join(", ")
}

/// The members of the types that have no name of their own, as documented for their structure.
fn unnamed(record: &str, field: &str) -> Option<&'static str> {
    const NOTIFICATION: [&str; 3] = [
        "union { struct { WDF_DEVICE_PNP_STATE CurrentState; WDF_DEVICE_PNP_STATE NewState; } EnterState; struct { WDF_DEVICE_PNP_STATE CurrentState; } PostProcessState; struct { WDF_DEVICE_PNP_STATE CurrentState; WDF_DEVICE_PNP_STATE NewState; } LeaveState; }",
        "union { struct { WDF_DEVICE_POWER_STATE CurrentState; WDF_DEVICE_POWER_STATE NewState; } EnterState; struct { WDF_DEVICE_POWER_STATE CurrentState; } PostProcessState; struct { WDF_DEVICE_POWER_STATE CurrentState; WDF_DEVICE_POWER_STATE NewState; } LeaveState; }",
        "union { struct { WDF_DEVICE_POWER_POLICY_STATE CurrentState; WDF_DEVICE_POWER_POLICY_STATE NewState; } EnterState; struct { WDF_DEVICE_POWER_POLICY_STATE CurrentState; } PostProcessState; struct { WDF_DEVICE_POWER_POLICY_STATE CurrentState; WDF_DEVICE_POWER_POLICY_STATE NewState; } LeaveState; }",
    ];
    Some(match (record, field) {
        ("_WDF_MEMORY_DESCRIPTOR", "u") => {
            "union { struct { PVOID Buffer; ULONG Length; } BufferType; struct { PMDL Mdl; ULONG BufferLength; } MdlType; struct { WDFMEMORY Memory; PWDFMEMORY_OFFSET Offsets; } HandleType; }"
        }
        ("_WDF_DEVICE_PNP_NOTIFICATION_DATA", "Data") => NOTIFICATION[0],
        ("_WDF_DEVICE_POWER_NOTIFICATION_DATA", "Data") => NOTIFICATION[1],
        ("_WDF_DEVICE_POWER_POLICY_NOTIFICATION_DATA", "Data") => NOTIFICATION[2],
        ("_WDF_REQUEST_PARAMETERS", "Parameters") => {
            "union { struct { PIO_SECURITY_CONTEXT SecurityContext; ULONG Options; USHORT POINTER_ALIGNMENT FileAttributes; USHORT ShareAccess; ULONG POINTER_ALIGNMENT EaLength; } Create; struct { size_t Length; ULONG POINTER_ALIGNMENT Key; LONGLONG DeviceOffset; } Read; struct { size_t Length; ULONG POINTER_ALIGNMENT Key; LONGLONG DeviceOffset; } Write; struct { size_t OutputBufferLength; size_t POINTER_ALIGNMENT InputBufferLength; ULONG POINTER_ALIGNMENT IoControlCode; PVOID Type3InputBuffer; } DeviceIoControl; struct { PVOID Arg1; PVOID Arg2; ULONG POINTER_ALIGNMENT IoControlCode; PVOID Arg4; } Others; }"
        }
        ("_WDF_REQUEST_COMPLETION_PARAMS", "Parameters") => {
            "union { struct { WDFMEMORY Buffer; size_t Length; size_t Offset; } Write; struct { WDFMEMORY Buffer; size_t Length; size_t Offset; } Read; struct { ULONG IoControlCode; struct { WDFMEMORY Buffer; size_t Offset; } Input; struct { WDFMEMORY Buffer; size_t Offset; size_t Length; } Output; } Ioctl; struct { union { PVOID Ptr; ULONG_PTR Value; } Argument1; union { PVOID Ptr; ULONG_PTR Value; } Argument2; union { PVOID Ptr; ULONG_PTR Value; } Argument3; union { PVOID Ptr; ULONG_PTR Value; } Argument4; } Others; struct { PWDF_USB_REQUEST_COMPLETION_PARAMS Completion; } Usb; }"
        }
        ("_WDF_IO_QUEUE_CONFIG", "Settings") => {
            "union { struct { ULONG NumberOfPresentedRequests; } Parallel; }"
        }
        ("_WDF_IO_FORWARD_PROGRESS_RESERVED_POLICY_SETTINGS", "Policy") => {
            "union { struct { PFN_WDF_IO_WDM_IRP_FOR_FORWARD_PROGRESS EvtIoWdmIrpForForwardProgress; } ExaminePolicy; }"
        }
        ("_WDF_USB_CONTROL_SETUP_PACKET", "Packet") => {
            "struct { union { struct { BYTE Recipient : 2; BYTE Reserved : 3; BYTE Type : 2; BYTE Dir : 1; } Request; BYTE Byte; } bm; BYTE bRequest; union { struct { BYTE LowByte; BYTE HiByte; } Bytes; USHORT Value; } wValue; union { struct { BYTE LowByte; BYTE HiByte; } Bytes; USHORT Value; } wIndex; USHORT wLength; }"
        }
        ("_WDF_USB_CONTROL_SETUP_PACKET", "Generic") => "struct { UCHAR Bytes[8]; }",
        ("_WDF_USB_REQUEST_COMPLETION_PARAMS", "Parameters") => {
            "union { struct { WDFMEMORY Buffer; USHORT LangID; UCHAR StringIndex; UCHAR RequiredSize; } DeviceString; struct { WDFMEMORY Buffer; WDF_USB_CONTROL_SETUP_PACKET SetupPacket; ULONG Length; } DeviceControlTransfer; struct { WDFMEMORY Buffer; } DeviceUrb; struct { WDFMEMORY Buffer; size_t Length; size_t Offset; } PipeWrite; struct { WDFMEMORY Buffer; size_t Length; size_t Offset; } PipeRead; struct { WDFMEMORY Buffer; } PipeUrb; }"
        }
        ("_WDF_USB_DEVICE_SELECT_CONFIG_PARAMS", "Types") => {
            "union { struct { PUSB_CONFIGURATION_DESCRIPTOR ConfigurationDescriptor; PUSB_INTERFACE_DESCRIPTOR *InterfaceDescriptors; ULONG NumInterfaceDescriptors; } Descriptor; struct { PURB Urb; } Urb; struct { UCHAR NumberConfiguredPipes; WDFUSBINTERFACE ConfiguredUsbInterface; } SingleInterface; struct { UCHAR NumberInterfaces; PWDF_USB_INTERFACE_SETTING_PAIR Pairs; UCHAR NumberOfConfiguredInterfaces; } MultiInterface; }"
        }
        ("_WDF_USB_INTERFACE_SELECT_SETTING_PARAMS", "Types") => {
            "union { struct { PUSB_INTERFACE_DESCRIPTOR InterfaceDescriptor; } Descriptor; struct { UCHAR SettingIndex; } Interface; struct { PURB Urb; } Urb; }"
        }
        _ => return None,
    })
}

fn function_enum(abi: &Abi) -> Result<String, String> {
    let mut out = begin("WDFFUNCENUM", "The places of the functions in the table.");
    out.push_str("typedef enum _WDFFUNCENUM {\n");
    for (name, f) in abi.functions()? {
        let _ = writeln!(out, "    {name}TableIndex = {},", f.index);
    }
    let _ = writeln!(
        out,
        "    WdfFunctionTableNumEntries = {},\n}} WDFFUNCENUM;\n\n#endif",
        abi.function_count
    );
    Ok(out)
}

fn functions(abi: &Abi) -> Result<String, String> {
    let mut out = begin(
        "WDFFUNCTIONS",
        "The type of every function and the call through the table.",
    );
    for (name, f) in abi.functions()? {
        let (Some(returns), Some(params)) = (&f.returns, &f.params) else {
            continue;
        };
        let returns = return_type(name, returns);
        let pointer = format!("PFN_{}", name.to_uppercase());
        let mut declared = Vec::new();
        let mut passed = vec!["WdfDriverGlobals".to_owned()];
        for param in &params[1..] {
            let (ty, ident) = param.rsplit_once(' ').ok_or_else(|| {
                format!("kmdf-1.33.json, {name}: parameter {param:?} has no name")
            })?;
            declared.push(format!("{ty} {ident}"));
            passed.push(ident.to_owned());
        }
        let mut all = vec!["PWDF_DRIVER_GLOBALS DriverGlobals".to_owned()];
        all.extend(declared.iter().cloned());
        let _ = writeln!(out, "typedef {returns} (*{pointer})({});", all.join(", "));
        let list = if declared.is_empty() {
            "void".to_owned()
        } else {
            declared.join(", ")
        };
        let give = if returns == "void" { "" } else { "return " };
        let _ = writeln!(
            out,
            "FORCEINLINE {returns} {name}({list})\n{{\n    {give}(({pointer})WdfFunctions[{name}TableIndex])({});\n}}\n",
            passed.join(", ")
        );
    }
    out.push_str("#endif\n");
    Ok(out)
}

/// The documented name of a result type, of which the data has the canonical form only.
fn return_type(name: &str, canonical: &str) -> String {
    let handle = match name {
        "WdfChildListGetDevice"
        | "WdfChildListRetrievePdo"
        | "WdfWdmDeviceGetWdfDeviceHandle"
        | "WdfDmaTransactionGetDevice"
        | "WdfFdoRetrieveNextStaticChild"
        | "WdfFileObjectGetDevice"
        | "WdfInterruptGetDevice"
        | "WdfIoQueueGetDevice"
        | "WdfIoTargetGetDevice"
        | "WdfPdoGetParent"
        | "WdfWmiProviderGetDevice"
        | "WdfWmiInstanceGetDevice" => "WDFDEVICE",
        "WdfCollectionGetItem"
        | "WdfCollectionGetFirstItem"
        | "WdfCollectionGetLastItem"
        | "WdfDpcGetParentObject"
        | "WdfObjectContextGetObject"
        | "WdfTimerGetParentObject"
        | "WdfWorkItemGetParentObject" => "WDFOBJECT",
        "WdfDeviceGetDriver" | "WdfWdmDriverGetWdfDriverHandle" => "WDFDRIVER",
        "WdfDeviceGetIoTarget" => "WDFIOTARGET",
        "WdfDeviceGetFileObject" | "WdfRequestGetFileObject" => "WDFFILEOBJECT",
        "WdfDeviceGetDefaultQueue" | "WdfRequestGetIoQueue" => "WDFQUEUE",
        "WdfDmaTransactionGetRequest" => "WDFREQUEST",
        "WdfFdoGetDefaultChildList" => "WDFCHILDLIST",
        "WdfIoTargetWdmGetTargetFileHandle" | "WdfRegistryWdmGetHandle" => "HANDLE",
        "WdfIoResourceRequirementsListGetIoResList" => "WDFIORESLIST",
        "WdfUsbTargetDeviceWdmGetConfigurationHandle" => "USBD_CONFIGURATION_HANDLE",
        "WdfUsbTargetDeviceGetInterface" => "WDFUSBINTERFACE",
        "WdfUsbInterfaceGetConfiguredPipe" => "WDFUSBPIPE",
        "WdfUsbTargetPipeWdmGetPipeHandle" => "USBD_PIPE_HANDLE",
        "WdfWmiInstanceGetProvider" => "WDFWMIPROVIDER",
        "WdfRequestGetInformation" => "ULONG_PTR",
        "WdfWmiProviderGetTracingHandle" => "ULONGLONG",
        "WdfCommonBufferGetAlignedLogicalAddress" => "PHYSICAL_ADDRESS",
        _ => "",
    };
    if !handle.is_empty() {
        return handle.to_owned();
    }
    match canonical {
        "long" => "NTSTATUS".into(),
        "void *" => "PVOID".into(),
        "unsigned char" => "BOOLEAN".into(),
        "unsigned long" => "ULONG".into(),
        "unsigned long long" => "size_t".into(),
        "unsigned short *" => "PWSTR".into(),
        "char" => "KPROCESSOR_MODE".into(),
        "struct WDFDEVICE_INIT *" => "PWDFDEVICE_INIT".into(),
        other => {
            // `struct _X *` is `PX`, `enum _X` is `X`.
            if let Some(tag) = other
                .strip_prefix("struct _")
                .and_then(|t| t.strip_suffix(" *"))
            {
                format!("P{tag}")
            } else if let Some(tag) = other.strip_prefix("enum _") {
                tag.to_owned()
            } else {
                other.to_owned()
            }
        }
    }
}
