// SPDX-License-Identifier: MIT OR Apache-2.0
//
// The driver in C that `cargo xtask bench` compares with benches/rust.
//
// It does by hand what AlertableSleep and ScheduledTask of dmf-modules do for
// the other one, as a C programmer would who knows the rules: one lock for each
// slot and each task, no callback of a task beside another one of the same, no
// abort that gets lost, nothing freed that is in use, every status looked at.
// What it leaves out is in benches/README.md.

#include <ntddk.h>
#include <initguid.h>
#include <wdf.h>

#define POOL_TAG 'hcnB'

DEFINE_GUID(GUID_DEVINTERFACE_BENCH, 0x3f9be6c2, 0x64a7, 0x4c55, 0x9b, 0x8e, 0x08, 0xd3, 0xa7, 0xd1, 0xf2, 0x01);

#define IOCTL_BENCH_NOTHING CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_BENCH_ABORT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_BENCH_EXECUTE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_ANY_ACCESS)

// In units of 100 ns.
#define SECONDS(n) ((LONGLONG)(n) * 10 * 1000 * 1000)
#define SLEEP_TIME SECONDS(3600)

// ---- Delays that somebody else can cut short ------------------------------------

typedef enum _SLEEP_OUTCOME {
    SleepElapsed,
    SleepAborted,
    SleepClosing,
} SLEEP_OUTCOME;

// Under the lock: the event is signaled if the slot is aborted or closing.
typedef struct _SLOT {
    KEVENT Event;
    KSPIN_LOCK Lock;
    // How often the slot was aborted, so that a reset does not take away an
    // abort that came after the one that the sleeper saw.
    ULONG64 Aborts;
    BOOLEAN Aborted;
    BOOLEAN Occupied;
    // Nobody has woken the sleeper yet.
    BOOLEAN Waiting;
    BOOLEAN Closing;
} SLOT, *PSLOT;

typedef struct _SLEEP {
    // Held by each call, so that the memory is not freed under it.
    EX_RUNDOWN_REF Rundown;
    ULONG Count;
    SLOT Slots[];
} SLEEP, *PSLEEP;

static NTSTATUS SleepCreate(ULONG Count, PSLEEP *Sleep)
{
    PSLEEP sleep;
    ULONG index;

    if (Count == 0 || Count > (MAXULONG - sizeof(SLEEP)) / sizeof(SLOT)) {
        return STATUS_INVALID_PARAMETER;
    }
    sleep = ExAllocatePool2(POOL_FLAG_NON_PAGED, sizeof(SLEEP) + Count * sizeof(SLOT), POOL_TAG);
    if (sleep == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    ExInitializeRundownProtection(&sleep->Rundown);
    // Shut until it is opened.
    ExWaitForRundownProtectionRelease(&sleep->Rundown);
    sleep->Count = Count;
    for (index = 0; index < Count; index++) {
        KeInitializeEvent(&sleep->Slots[index].Event, NotificationEvent, FALSE);
        KeInitializeSpinLock(&sleep->Slots[index].Lock);
    }
    *Sleep = sleep;
    return STATUS_SUCCESS;
}

static void SleepOpen(PSLEEP Sleep)
{
    ULONG index;

    for (index = 0; index < Sleep->Count; index++) {
        PSLOT slot = &Sleep->Slots[index];
        slot->Aborted = FALSE;
        slot->Closing = FALSE;
        KeClearEvent(&slot->Event);
    }
    ExReInitializeRundownProtection(&Sleep->Rundown);
}

// Wakes all sleepers, and waits until they have left.
static void SleepClose(PSLEEP Sleep)
{
    ULONG index;

    for (index = 0; index < Sleep->Count; index++) {
        PSLOT slot = &Sleep->Slots[index];
        KIRQL irql;
        KeAcquireSpinLock(&slot->Lock, &irql);
        slot->Closing = TRUE;
        slot->Waiting = FALSE;
        KeSetEvent(&slot->Event, IO_NO_INCREMENT, FALSE);
        KeReleaseSpinLock(&slot->Lock, irql);
    }
    ExWaitForRundownProtectionRelease(&Sleep->Rundown);
}

static void SleepFree(PSLEEP Sleep)
{
    ExFreePoolWithTag(Sleep, POOL_TAG);
}

// Why there is no sleep, or no more. The lock is held.
static SLEEP_OUTCOME SlotInterruption(PSLOT Slot, PULONG64 Seen)
{
    if (Slot->Closing) {
        return SleepClosing;
    }
    *Seen = Slot->Aborts;
    return SleepAborted;
}

// Sleeps on a slot for a time, or for ever if it is negative. PASSIVE_LEVEL.
static NTSTATUS SleepSleep(PSLEEP Sleep, ULONG Index, LONGLONG Time, SLEEP_OUTCOME *Outcome, PULONG64 Seen)
{
    LARGE_INTEGER timeout;
    NTSTATUS status;
    PSLOT slot;
    KIRQL irql;

    if (!ExAcquireRundownProtection(&Sleep->Rundown)) {
        return STATUS_INVALID_DEVICE_STATE;
    }
    if (Index >= Sleep->Count) {
        ExReleaseRundownProtection(&Sleep->Rundown);
        return STATUS_INVALID_PARAMETER;
    }
    slot = &Sleep->Slots[Index];
    status = STATUS_SUCCESS;

    KeAcquireSpinLock(&slot->Lock, &irql);
    if (slot->Occupied) {
        status = STATUS_DEVICE_BUSY;
    } else if (slot->Closing || slot->Aborted) {
        *Outcome = SlotInterruption(slot, Seen);
    } else {
        slot->Occupied = TRUE;
        slot->Waiting = TRUE;
        KeReleaseSpinLock(&slot->Lock, irql);

        timeout.QuadPart = -Time;
        status = KeWaitForSingleObject(&slot->Event, Executive, KernelMode, FALSE, Time < 0 ? NULL : &timeout);

        KeAcquireSpinLock(&slot->Lock, &irql);
        if (status == STATUS_TIMEOUT && slot->Waiting) {
            *Outcome = SleepElapsed;
        } else {
            // Also if the time was over in the moment of the abort: whoever
            // aborted was told that there was a sleeper.
            *Outcome = SlotInterruption(slot, Seen);
        }
        slot->Occupied = FALSE;
        slot->Waiting = FALSE;
        status = STATUS_SUCCESS;
    }
    KeReleaseSpinLock(&slot->Lock, irql);
    ExReleaseRundownProtection(&Sleep->Rundown);
    return status;
}

// Wakes the sleeper, or makes the next sleep return at once. <= DISPATCH_LEVEL.
static NTSTATUS SleepAbort(PSLEEP Sleep, ULONG Index, PBOOLEAN Woken)
{
    PSLOT slot;
    KIRQL irql;

    if (!ExAcquireRundownProtection(&Sleep->Rundown)) {
        return STATUS_INVALID_DEVICE_STATE;
    }
    if (Index >= Sleep->Count) {
        ExReleaseRundownProtection(&Sleep->Rundown);
        return STATUS_INVALID_PARAMETER;
    }
    slot = &Sleep->Slots[Index];
    KeAcquireSpinLock(&slot->Lock, &irql);
    slot->Aborted = TRUE;
    slot->Aborts++;
    *Woken = slot->Waiting;
    slot->Waiting = FALSE;
    KeSetEvent(&slot->Event, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLock(&slot->Lock, irql);
    ExReleaseRundownProtection(&Sleep->Rundown);
    return STATUS_SUCCESS;
}

// Clears the aborts that a sleeper has seen. Tells whether there was a later one.
static NTSTATUS SleepResetForReuse(PSLEEP Sleep, ULONG Index, ULONG64 Seen, PBOOLEAN StillAborted)
{
    PSLOT slot;
    KIRQL irql;

    if (!ExAcquireRundownProtection(&Sleep->Rundown)) {
        return STATUS_INVALID_DEVICE_STATE;
    }
    if (Index >= Sleep->Count) {
        ExReleaseRundownProtection(&Sleep->Rundown);
        return STATUS_INVALID_PARAMETER;
    }
    slot = &Sleep->Slots[Index];
    KeAcquireSpinLock(&slot->Lock, &irql);
    *StillAborted = slot->Aborted && slot->Aborts != Seen;
    if (!*StillAborted) {
        slot->Aborted = FALSE;
        // A sleeper that was woken and has not looked yet needs the event; it
        // clears it no later than by its own reset.
        if (!slot->Closing && !(slot->Occupied && !slot->Waiting)) {
            KeClearEvent(&slot->Event);
        }
    }
    KeReleaseSpinLock(&slot->Lock, irql);
    ExReleaseRundownProtection(&Sleep->Rundown);
    return STATUS_SUCCESS;
}

// ---- Work that runs once --------------------------------------------------------

typedef struct _DEVICE_CONTEXT DEVICE_CONTEXT, *PDEVICE_CONTEXT;

typedef enum _TASK_RESULT {
    TaskSuccess,
    TaskSuccessButTryAgain,
    TaskFail,
    TaskFailButTryAgain,
} TASK_RESULT;

typedef TASK_RESULT TASK_ROUTINE(PDEVICE_CONTEXT Device, ULONG Attempt);

// The context of the task's timer.
typedef struct _TASK {
    PDEVICE_CONTEXT Device;
    TASK_ROUTINE *Routine;
    WDFTIMER Timer;
    WDFWORKITEM WorkItem;
    // Held by each call from outside.
    EX_RUNDOWN_REF Rundown;
    // Signaled while nobody runs the task.
    KEVENT Idle;
    LONGLONG InitialDelay;
    LONGLONG RetryOnFail;
    LONGLONG RetryOnSuccess;
    // The rest is under the lock.
    KSPIN_LOCK Lock;
    // When the timer is due, if it is armed; else what is left of its time.
    LONGLONG Due;
    ULONG Runs;
    ULONG Attempts;
    // Between the moment at which the task may begin and the one at which it may not.
    BOOLEAN Up;
    BOOLEAN Cancelled;
    BOOLEAN Done;
    BOOLEAN Running;
    // What the timer is for: at most one of these.
    BOOLEAN Armed;
    BOOLEAN Fired;
    BOOLEAN Remembered;
    BOOLEAN Persistent;
} TASK, *PTASK;

WDF_DECLARE_CONTEXT_TYPE_WITH_NAME(TASK, TaskOfTimer);

typedef struct _TASK_POINTER {
    PTASK Task;
} TASK_POINTER;

WDF_DECLARE_CONTEXT_TYPE_WITH_NAME(TASK_POINTER, TaskOfWorkItem);

static EVT_WDF_TIMER TaskTimerFired;
static EVT_WDF_WORKITEM TaskWorkItemRuns;

static NTSTATUS TaskCreate(WDFDEVICE Device, PDEVICE_CONTEXT Context, TASK_ROUTINE *Routine, PTASK *Task)
{
    WDF_OBJECT_ATTRIBUTES attributes;
    WDF_TIMER_CONFIG timerConfig;
    WDF_WORKITEM_CONFIG workItemConfig;
    WDFTIMER timer;
    NTSTATUS status;
    PTASK task;

    WDF_TIMER_CONFIG_INIT(&timerConfig, TaskTimerFired);
    timerConfig.AutomaticSerialization = FALSE;
    WDF_OBJECT_ATTRIBUTES_INIT_CONTEXT_TYPE(&attributes, TASK);
    attributes.ParentObject = Device;
    attributes.ExecutionLevel = WdfExecutionLevelPassive;
    status = WdfTimerCreate(&timerConfig, &attributes, &timer);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    task = TaskOfTimer(timer);
    task->Timer = timer;

    WDF_WORKITEM_CONFIG_INIT(&workItemConfig, TaskWorkItemRuns);
    workItemConfig.AutomaticSerialization = FALSE;
    WDF_OBJECT_ATTRIBUTES_INIT_CONTEXT_TYPE(&attributes, TASK_POINTER);
    attributes.ParentObject = Device;
    status = WdfWorkItemCreate(&workItemConfig, &attributes, &task->WorkItem);
    if (!NT_SUCCESS(status)) {
        // The timer goes with the device, which will not be made.
        return status;
    }
    TaskOfWorkItem(task->WorkItem)->Task = task;

    task->Device = Context;
    task->Routine = Routine;
    KeInitializeSpinLock(&task->Lock);
    KeInitializeEvent(&task->Idle, NotificationEvent, TRUE);
    ExInitializeRundownProtection(&task->Rundown);
    ExWaitForRundownProtectionRelease(&task->Rundown);
    *Task = task;
    return STATUS_SUCCESS;
}

static LONGLONG Now(void)
{
    ULONG64 counter;
    return (LONGLONG)KeQueryInterruptTimePrecise(&counter);
}

// Starts the timer, or remembers to. The lock is held.
static void TaskArm(PTASK Task, LONGLONG Delay)
{
    if (Task->Up) {
        Task->Due = Now() + Delay;
        Task->Armed = TRUE;
        // Under the lock, so that the timer is what the task says.
        WdfTimerStart(Task->Timer, -Delay);
    } else {
        Task->Due = Delay;
        Task->Remembered = TRUE;
    }
}

// Whether there is something to do and nobody who does it. The lock is held.
static BOOLEAN TaskWantsWorker(PTASK Task)
{
    return !Task->Running && Task->Up && !Task->Cancelled && (Task->Fired || Task->Runs > 0);
}

static void TaskOpen(PTASK Task, BOOLEAN Up)
{
    Task->Cancelled = FALSE;
    Task->Done = FALSE;
    Task->Up = Up;
    ExReInitializeRundownProtection(&Task->Rundown);
}

// The task may run from now on; what was pending when it had to stop goes on.
static void TaskResume(PTASK Task)
{
    BOOLEAN work;
    KIRQL irql;

    KeAcquireSpinLock(&Task->Lock, &irql);
    Task->Up = TRUE;
    if (Task->Remembered) {
        Task->Remembered = FALSE;
        if (!Task->Done && !Task->Cancelled) {
            TaskArm(Task, Task->Due);
        }
    }
    work = TaskWantsWorker(Task);
    KeReleaseSpinLock(&Task->Lock, irql);
    if (work) {
        WdfWorkItemEnqueue(Task->WorkItem);
    }
}

// The moment of the task has come: it is to run after its delay.
static void TaskBegin(PTASK Task)
{
    KIRQL irql;

    KeAcquireSpinLock(&Task->Lock, &irql);
    if (!Task->Armed && !Task->Fired && !Task->Remembered && !Task->Done && !Task->Cancelled) {
        Task->Remembered = TRUE;
        Task->Due = Task->InitialDelay;
    }
    KeReleaseSpinLock(&Task->Lock, irql);
    TaskResume(Task);
}

// The task must not run any more. Waits until it does not. PASSIVE_LEVEL.
static void TaskPause(PTASK Task)
{
    KIRQL irql;

    KeAcquireSpinLock(&Task->Lock, &irql);
    Task->Up = FALSE;
    if (Task->Armed) {
        LONGLONG now = Now();
        Task->Armed = FALSE;
        Task->Remembered = TRUE;
        Task->Due = Task->Due > now ? Task->Due - now : 0;
    } else if (Task->Fired) {
        Task->Fired = FALSE;
        Task->Remembered = TRUE;
        Task->Due = 0;
    }
    KeReleaseSpinLock(&Task->Lock, irql);
    WdfTimerStop(Task->Timer, TRUE);
    KeWaitForSingleObject(&Task->Idle, Executive, KernelMode, FALSE, NULL);
}

// Forgets what is pending, and waits until nobody uses the task. PASSIVE_LEVEL.
static void TaskClose(PTASK Task)
{
    KIRQL irql;

    ExWaitForRundownProtectionRelease(&Task->Rundown);
    KeAcquireSpinLock(&Task->Lock, &irql);
    Task->Up = FALSE;
    Task->Cancelled = TRUE;
    Task->Armed = FALSE;
    Task->Fired = FALSE;
    Task->Remembered = FALSE;
    Task->Runs = 0;
    KeReleaseSpinLock(&Task->Lock, irql);
    WdfTimerStop(Task->Timer, TRUE);
    KeWaitForSingleObject(&Task->Idle, Executive, KernelMode, FALSE, NULL);
    WdfWorkItemFlush(Task->WorkItem);
}

// Has the task run once more on a worker thread. <= DISPATCH_LEVEL.
static NTSTATUS TaskExecuteDeferred(PTASK Task)
{
    NTSTATUS status = STATUS_SUCCESS;
    BOOLEAN work = FALSE;
    KIRQL irql;

    if (!ExAcquireRundownProtection(&Task->Rundown)) {
        return STATUS_INVALID_DEVICE_STATE;
    }
    KeAcquireSpinLock(&Task->Lock, &irql);
    if (Task->Cancelled) {
        status = STATUS_CANCELLED;
    } else if (Task->Runs == MAXULONG) {
        status = STATUS_INTEGER_OVERFLOW;
    } else {
        Task->Runs++;
        work = TaskWantsWorker(Task);
    }
    KeReleaseSpinLock(&Task->Lock, irql);
    if (work) {
        WdfWorkItemEnqueue(Task->WorkItem);
    }
    ExReleaseRundownProtection(&Task->Rundown);
    return status;
}

DECLARE_CONST_UNICODE_STRING(TimesRunName, L"TimesRun");

// Whether the registry says that the task has run. What cannot be read has not.
static BOOLEAN TaskHasRun(void)
{
    NTSTATUS status;
    ULONG times = 0;
    WDFKEY key;

    status = WdfDriverOpenParametersRegistryKey(WdfGetDriver(), KEY_READ, WDF_NO_OBJECT_ATTRIBUTES, &key);
    if (NT_SUCCESS(status)) {
        status = WdfRegistryQueryULong(key, &TimesRunName, &times);
        WdfRegistryClose(key);
    }
    if (!NT_SUCCESS(status)) {
        if (status != STATUS_OBJECT_NAME_NOT_FOUND) {
            DbgPrintEx(DPFLTR_IHVDRIVER_ID, DPFLTR_WARNING_LEVEL, "bench: reading TimesRun: %08x\n", status);
        }
        return FALSE;
    }
    return times > 0;
}

static void TaskWriteHasRun(void)
{
    NTSTATUS status;
    WDFKEY key;

    status = WdfDriverOpenParametersRegistryKey(WdfGetDriver(), KEY_WRITE, WDF_NO_OBJECT_ATTRIBUTES, &key);
    if (NT_SUCCESS(status)) {
        status = WdfRegistryAssignULong(key, &TimesRunName, 1);
        WdfRegistryClose(key);
    }
    if (!NT_SUCCESS(status)) {
        DbgPrintEx(DPFLTR_IHVDRIVER_ID, DPFLTR_WARNING_LEVEL, "bench: writing TimesRun: %08x\n", status);
    }
}

// An attempt whose result counts.
static TASK_RESULT TaskAttempt(PTASK Task, ULONG Attempt)
{
    TASK_RESULT result;

    // Each time, because another device of the driver may have done it meanwhile.
    if (Task->Persistent && TaskHasRun()) {
        return TaskSuccess;
    }
    result = Task->Routine(Task->Device, Attempt);
    if (Task->Persistent && result == TaskSuccess) {
        TaskWriteHasRun();
    }
    return result;
}

// Acts on the result of an attempt. The lock is held.
static void TaskFinish(PTASK Task, TASK_RESULT Result)
{
    switch (Result) {
    case TaskSuccess:
        Task->Done = TRUE;
        Task->Attempts = 0;
        break;
    case TaskSuccessButTryAgain:
        if (!Task->Cancelled) {
            TaskArm(Task, Task->RetryOnSuccess);
        }
        break;
    case TaskFailButTryAgain:
        if (!Task->Cancelled) {
            TaskArm(Task, Task->RetryOnFail);
        }
        break;
    case TaskFail:
        Task->Attempts = 0;
        break;
    }
}

// Does what there is to do, unless somebody else does already: callbacks of one
// task do not overlap. PASSIVE_LEVEL.
static void TaskRun(PTASK Task, BOOLEAN TimerFired)
{
    TASK_RESULT result;
    ULONG attempt;
    KIRQL irql;

    KeAcquireSpinLock(&Task->Lock, &irql);
    // Stopped or paused meanwhile if it is not armed.
    if (TimerFired && Task->Armed) {
        Task->Armed = FALSE;
        Task->Fired = TRUE;
    }
    if (!TaskWantsWorker(Task)) {
        KeReleaseSpinLock(&Task->Lock, irql);
        return;
    }
    Task->Running = TRUE;
    KeClearEvent(&Task->Idle);
    while (Task->Up && !Task->Cancelled) {
        if (Task->Fired) {
            Task->Fired = FALSE;
            if (Task->Done) {
                continue;
            }
            attempt = ++Task->Attempts;
            KeReleaseSpinLock(&Task->Lock, irql);
            result = TaskAttempt(Task, attempt);
            KeAcquireSpinLock(&Task->Lock, &irql);
            TaskFinish(Task, result);
        } else if (Task->Runs > 0) {
            Task->Runs--;
            KeReleaseSpinLock(&Task->Lock, irql);
            (void)Task->Routine(Task->Device, 1);
            KeAcquireSpinLock(&Task->Lock, &irql);
        } else {
            break;
        }
    }
    Task->Running = FALSE;
    KeSetEvent(&Task->Idle, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLock(&Task->Lock, irql);
}

static void TaskTimerFired(WDFTIMER Timer)
{
    TaskRun(TaskOfTimer(Timer), TRUE);
}

static void TaskWorkItemRuns(WDFWORKITEM WorkItem)
{
    TaskRun(TaskOfWorkItem(WorkItem)->Task, FALSE);
}

// ---- The driver -----------------------------------------------------------------

struct _DEVICE_CONTEXT {
    // The first is slept on; the others are there to weigh them.
    PSLEEP *Sleeps;
    ULONG SleepCount;
    // The first is executed on demand; the others are there to weigh them.
    PTASK *Tasks;
    ULONG TaskCount;
    PTASK Handshake;
    PTASK Provision;
    PETHREAD Sleeper;
    volatile LONG Stopping;
    volatile LONG Handshakes;
    volatile LONG Provisions;
    volatile LONG Executions;
};

WDF_DECLARE_CONTEXT_TYPE_WITH_NAME(DEVICE_CONTEXT, DeviceGetContext);

DRIVER_INITIALIZE DriverEntry;
static EVT_WDF_DRIVER_DEVICE_ADD DeviceAdd;
static EVT_WDF_OBJECT_CONTEXT_CLEANUP DeviceCleanup;
static EVT_WDF_DEVICE_PREPARE_HARDWARE PrepareHardware;
static EVT_WDF_DEVICE_RELEASE_HARDWARE ReleaseHardware;
static EVT_WDF_DEVICE_D0_ENTRY D0Entry;
static EVT_WDF_DEVICE_D0_EXIT D0Exit;
static EVT_WDF_IO_QUEUE_IO_DEVICE_CONTROL DeviceControl;
static KSTART_ROUTINE Sleeper;

// Succeeds at the third attempt.
static TASK_RESULT Handshake(PDEVICE_CONTEXT Device, ULONG Attempt)
{
    UNREFERENCED_PARAMETER(Attempt);
    return InterlockedIncrement(&Device->Handshakes) % 3 == 0 ? TaskSuccess : TaskFailButTryAgain;
}

// Succeeds at the second attempt.
static TASK_RESULT Provision(PDEVICE_CONTEXT Device, ULONG Attempt)
{
    UNREFERENCED_PARAMETER(Attempt);
    return InterlockedIncrement(&Device->Provisions) % 2 == 0 ? TaskSuccess : TaskFailButTryAgain;
}

static TASK_RESULT Execute(PDEVICE_CONTEXT Device, ULONG Attempt)
{
    UNREFERENCED_PARAMETER(Attempt);
    InterlockedIncrement(&Device->Executions);
    return TaskSuccess;
}

// Sleeps until told to stop.
static void Sleeper(PVOID StartContext)
{
    PDEVICE_CONTEXT device = StartContext;
    SLEEP_OUTCOME outcome;
    BOOLEAN stillAborted;
    ULONG64 seen;

    for (;;) {
        if (!NT_SUCCESS(SleepSleep(device->Sleeps[0], 0, SLEEP_TIME, &outcome, &seen))) {
            break;
        }
        if (outcome == SleepElapsed) {
            continue;
        }
        if (outcome == SleepClosing || !NT_SUCCESS(SleepResetForReuse(device->Sleeps[0], 0, seen, &stillAborted))) {
            break;
        }
        if (device->Stopping) {
            break;
        }
    }
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static void DeviceControl(WDFQUEUE Queue, WDFREQUEST Request, size_t OutputBufferLength, size_t InputBufferLength, ULONG IoControlCode)
{
    PDEVICE_CONTEXT device = DeviceGetContext(WdfIoQueueGetDevice(Queue));
    NTSTATUS status;
    BOOLEAN woken;

    UNREFERENCED_PARAMETER(OutputBufferLength);
    UNREFERENCED_PARAMETER(InputBufferLength);
    switch (IoControlCode) {
    case IOCTL_BENCH_NOTHING:
        status = STATUS_SUCCESS;
        break;
    case IOCTL_BENCH_ABORT:
        status = device->SleepCount == 0 ? STATUS_NOT_FOUND : SleepAbort(device->Sleeps[0], 0, &woken);
        break;
    case IOCTL_BENCH_EXECUTE:
        status = device->TaskCount == 0 ? STATUS_NOT_FOUND : TaskExecuteDeferred(device->Tasks[0]);
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    WdfRequestComplete(Request, status);
}

static NTSTATUS PrepareHardware(WDFDEVICE Device, WDFCMRESLIST Raw, WDFCMRESLIST Translated)
{
    PDEVICE_CONTEXT device = DeviceGetContext(Device);
    ULONG index;

    UNREFERENCED_PARAMETER(Raw);
    UNREFERENCED_PARAMETER(Translated);
    for (index = 0; index < device->SleepCount; index++) {
        SleepOpen(device->Sleeps[index]);
    }
    for (index = 0; index < device->TaskCount; index++) {
        TaskOpen(device->Tasks[index], TRUE);
    }
    TaskOpen(device->Handshake, FALSE);
    TaskOpen(device->Provision, FALSE);
    TaskBegin(device->Provision);
    return STATUS_SUCCESS;
}

static NTSTATUS ReleaseHardware(WDFDEVICE Device, WDFCMRESLIST Translated)
{
    PDEVICE_CONTEXT device = DeviceGetContext(Device);
    ULONG index;

    UNREFERENCED_PARAMETER(Translated);
    TaskClose(device->Provision);
    TaskClose(device->Handshake);
    for (index = device->TaskCount; index > 0; index--) {
        TaskClose(device->Tasks[index - 1]);
    }
    for (index = device->SleepCount; index > 0; index--) {
        SleepClose(device->Sleeps[index - 1]);
    }
    return STATUS_SUCCESS;
}

static NTSTATUS D0Entry(WDFDEVICE Device, WDF_POWER_DEVICE_STATE PreviousState)
{
    PDEVICE_CONTEXT device = DeviceGetContext(Device);
    NTSTATUS status;
    HANDLE thread;

    UNREFERENCED_PARAMETER(PreviousState);
    if (device->SleepCount > 0) {
        device->Stopping = FALSE;
        status = PsCreateSystemThread(&thread, THREAD_ALL_ACCESS, NULL, NULL, NULL, Sleeper, device);
        if (!NT_SUCCESS(status)) {
            return status;
        }
        // The handle gives access to what was just made: it cannot fail.
        status = ObReferenceObjectByHandle(thread, THREAD_ALL_ACCESS, *PsThreadType, KernelMode, (PVOID *)&device->Sleeper, NULL);
        NT_ASSERT(NT_SUCCESS(status));
        ZwClose(thread);
    }
    TaskBegin(device->Handshake);
    TaskResume(device->Provision);
    return STATUS_SUCCESS;
}

static NTSTATUS D0Exit(WDFDEVICE Device, WDF_POWER_DEVICE_STATE TargetState)
{
    PDEVICE_CONTEXT device = DeviceGetContext(Device);
    BOOLEAN woken;

    UNREFERENCED_PARAMETER(TargetState);
    TaskPause(device->Provision);
    TaskPause(device->Handshake);
    if (device->Sleeper != NULL) {
        InterlockedExchange(&device->Stopping, TRUE);
        (void)SleepAbort(device->Sleeps[0], 0, &woken);
        KeWaitForSingleObject(device->Sleeper, Executive, KernelMode, FALSE, NULL);
        ObDereferenceObject(device->Sleeper);
        device->Sleeper = NULL;
    }
    return STATUS_SUCCESS;
}

// How many of a thing the driver's Parameters key asks for; one if it does not say.
static ULONG Count(PCUNICODE_STRING Name)
{
    NTSTATUS status;
    ULONG count;
    WDFKEY key;

    status = WdfDriverOpenParametersRegistryKey(WdfGetDriver(), KEY_READ, WDF_NO_OBJECT_ATTRIBUTES, &key);
    if (!NT_SUCCESS(status)) {
        return 1;
    }
    status = WdfRegistryQueryULong(key, Name, &count);
    WdfRegistryClose(key);
    return NT_SUCCESS(status) ? count : 1;
}

static void DeviceCleanup(WDFOBJECT Object)
{
    PDEVICE_CONTEXT device = DeviceGetContext(Object);
    ULONG index;

    for (index = device->SleepCount; index > 0; index--) {
        SleepFree(device->Sleeps[index - 1]);
    }
    if (device->Sleeps != NULL) {
        ExFreePoolWithTag(device->Sleeps, POOL_TAG);
    }
    if (device->Tasks != NULL) {
        ExFreePoolWithTag(device->Tasks, POOL_TAG);
    }
}

static NTSTATUS DeviceFill(WDFDEVICE Device)
{
    DECLARE_CONST_UNICODE_STRING(sleepsName, L"Sleeps");
    DECLARE_CONST_UNICODE_STRING(tasksName, L"Tasks");
    PDEVICE_CONTEXT device = DeviceGetContext(Device);
    NTSTATUS status;
    ULONG count;

    count = Count(&sleepsName);
    if (count > 0) {
        device->Sleeps = ExAllocatePool2(POOL_FLAG_NON_PAGED, (SIZE_T)count * sizeof(PSLEEP), POOL_TAG);
        if (device->Sleeps == NULL) {
            return STATUS_INSUFFICIENT_RESOURCES;
        }
    }
    for (; device->SleepCount < count; device->SleepCount++) {
        status = SleepCreate(1, &device->Sleeps[device->SleepCount]);
        if (!NT_SUCCESS(status)) {
            return status;
        }
    }
    count = Count(&tasksName);
    if (count > 0) {
        device->Tasks = ExAllocatePool2(POOL_FLAG_NON_PAGED, (SIZE_T)count * sizeof(PTASK), POOL_TAG);
        if (device->Tasks == NULL) {
            return STATUS_INSUFFICIENT_RESOURCES;
        }
    }
    for (; device->TaskCount < count; device->TaskCount++) {
        status = TaskCreate(Device, device, Execute, &device->Tasks[device->TaskCount]);
        if (!NT_SUCCESS(status)) {
            return status;
        }
    }
    status = TaskCreate(Device, device, Handshake, &device->Handshake);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    device->Handshake->InitialDelay = SECONDS(1);
    device->Handshake->RetryOnFail = SECONDS(2);
    status = TaskCreate(Device, device, Provision, &device->Provision);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    device->Provision->InitialDelay = SECONDS(10);
    device->Provision->RetryOnFail = SECONDS(10);
    device->Provision->Persistent = TRUE;
    return STATUS_SUCCESS;
}

static NTSTATUS DeviceAdd(WDFDRIVER Driver, PWDFDEVICE_INIT DeviceInit)
{
    WDF_PNPPOWER_EVENT_CALLBACKS callbacks;
    WDF_OBJECT_ATTRIBUTES attributes;
    WDF_IO_QUEUE_CONFIG queueConfig;
    WDFDEVICE device;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(Driver);
    WDF_PNPPOWER_EVENT_CALLBACKS_INIT(&callbacks);
    callbacks.EvtDevicePrepareHardware = PrepareHardware;
    callbacks.EvtDeviceReleaseHardware = ReleaseHardware;
    callbacks.EvtDeviceD0Entry = D0Entry;
    callbacks.EvtDeviceD0Exit = D0Exit;
    WdfDeviceInitSetPnpPowerEventCallbacks(DeviceInit, &callbacks);

    WDF_OBJECT_ATTRIBUTES_INIT_CONTEXT_TYPE(&attributes, DEVICE_CONTEXT);
    attributes.EvtCleanupCallback = DeviceCleanup;
    status = WdfDeviceCreate(&DeviceInit, &attributes, &device);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    status = WdfDeviceCreateDeviceInterface(device, &GUID_DEVINTERFACE_BENCH, NULL);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    WDF_IO_QUEUE_CONFIG_INIT_DEFAULT_QUEUE(&queueConfig, WdfIoQueueDispatchParallel);
    queueConfig.EvtIoDeviceControl = DeviceControl;
    WDF_OBJECT_ATTRIBUTES_INIT(&attributes);
    attributes.ExecutionLevel = WdfExecutionLevelPassive;
    status = WdfIoQueueCreate(device, &queueConfig, &attributes, WDF_NO_HANDLE);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    return DeviceFill(device);
}

NTSTATUS DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    WDF_DRIVER_CONFIG config;

    WDF_DRIVER_CONFIG_INIT(&config, DeviceAdd);
    config.DriverPoolTag = POOL_TAG;
    return WdfDriverCreate(DriverObject, RegistryPath, WDF_NO_OBJECT_ATTRIBUTES, &config, WDF_NO_HANDLE);
}
