// SPDX-License-Identifier: MIT OR Apache-2.0

//! How a simulation ends before its time: bug checks, and what only a
//! simulator can notice.
//!
//! A stop is a value, never a crash of the process. It says what happened in
//! one sentence, names the rule with its bug-check code and parameters as
//! Windows would report them, and carries what an engineer asks for next
//! ([`report`]): the thread, its IRQL and how it came to it, the
//! calls it was in, backtraces, what all others wait for, and how to replay it.
//!
//! ```
//! use ntsim::Machine;
//!
//! let stop = Machine::with_seed(7)
//!     .run_thread("main", || panic!("out of coffee"))
//!     .expect_err("it panics");
//! let report = stop.to_string();
//! assert!(report.contains("the driver panicked: out of coffee"));
//! assert!(report.contains("replay: seed 7, strategy random"));
//! let json = serde_json::to_value(&stop).unwrap();
//! assert_eq!(json["contexts"][0]["name"], "main");
//! ```

use serde::Serialize;
use serde::ser::{SerializeStruct, Serializer};

use crate::fault::Fault;
use crate::kernel::Kernel;
use crate::origin::Related;
use crate::report::{
    self, ContextReport, DeviceReport, Frame, IrqlChange, LockReport, Parameter, Styled,
};
use crate::rules::{self, Rule};
use crate::strategy::Divergence;

/// Why the simulation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopKind {
    /// The kernel stopped the machine, as Windows would.
    BugCheck {
        /// The bug check code, e.g. `0xC4`.
        code: u32,
        /// Its four parameters.
        parameters: [u64; 4],
    },
    /// The driver used something that ntsim does not simulate.
    NotSimulated,
    /// Calls without end while virtual time stands still.
    Livelock,
    /// Something is left behind for which Windows has no bug check.
    Leak,
    /// Against the documentation, and Windows does not notice.
    Misuse,
    /// Threads wait for each other, or for something that can never happen:
    /// nothing is left to run.
    Deadlock,
    /// The same, where at the end of the chain somebody waits for an event, a
    /// semaphore or a timer that nobody is left to signal.
    LostWakeUp,
    /// It takes longer than the settings let it: steps, virtual time, or the
    /// processor's time between two calls ([`Settings`](crate::Settings)).
    Watchdog,
    /// The test cut the power.
    PowerCut,
    /// The kernel could not go on after what breaks a [rule](crate::rules) that is off.
    Unchecked,
    /// The run is not the one of the schedule that it replays.
    Diverged,
}

impl StopKind {
    /// A short name, for what is no bug check.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::BugCheck { .. } => "BUG_CHECK",
            Self::NotSimulated => "NOT_SIMULATED",
            Self::Livelock => "LIVELOCK",
            Self::Leak => "LEAK",
            Self::Misuse => "MISUSE",
            Self::Deadlock => "DEADLOCK",
            Self::LostWakeUp => "LOST_WAKE_UP",
            Self::Watchdog => "WATCHDOG",
            Self::PowerCut => "POWER_CUT",
            Self::Unchecked => "UNCHECKED",
            Self::Diverged => "SCHEDULE_DIVERGED",
        }
    }
}

/// The report of a simulation that was ended.
#[derive(Clone, Debug)]
pub struct Stop {
    /// What sort of end it was.
    pub kind: StopKind,
    /// The bug check's symbolic name, or another short name.
    pub name: String,
    /// What happened, in one sentence.
    pub message: String,
    /// The [rule](crate::rules) that was broken, if the table has it.
    pub rule: Option<&'static str>,
    /// Who ran: the thread's or DPC's name.
    pub context: String,
    /// Its number in the trace; 0 for the machine.
    pub context_id: u32,
    /// The IRQL it ran at.
    pub irql: u8,
    /// Virtual time, in 100 ns units since the first boot.
    pub time: u64,
    /// The calls and callbacks the context was in, outermost first.
    pub calls: Vec<String>,
    /// Frames, innermost first, with symbols where there are any.
    pub backtrace: Vec<Frame>,
    /// What happened before and explains it.
    pub related: Vec<Related>,
    /// All threads and DPCs, that one first.
    pub contexts: Vec<ContextReport>,
    /// The locks that are held.
    pub locks: Vec<LockReport>,
    /// The context's last lines of the trace.
    pub last_calls: Vec<String>,
    /// The last changes of its IRQL.
    pub irql_history: Vec<IrqlChange>,
    /// The framework's devices.
    pub devices: Vec<DeviceReport>,
    /// The last lines of the trace, of everybody.
    pub last: Vec<String>,
    /// Whether there was a trace to take calls and history from.
    pub traced: bool,
    /// The seed that decided the schedule.
    pub seed: u64,
    /// What to type, or to set, to see it again.
    pub replay: String,
}

/// A bug check about to happen.
#[derive(Clone, Debug)]
pub struct BugCheck {
    pub(crate) code: u32,
    pub(crate) parameters: [u64; 4],
    pub(crate) message: String,
    /// The code addresses of the context's stack, where they are known already.
    pub(crate) stack: Option<Vec<u64>>,
}

/// The bug check of `wdk-panic`: the letters `RPNC`.
pub const RUST_PANIC: u32 = u32::from_be_bytes(*b"RPNC");

impl BugCheck {
    /// A bug check with its code, parameters and the sentence that explains it.
    pub(crate) fn new(code: u32, parameters: [u64; 4], message: impl Into<String>) -> Self {
        Self {
            code,
            parameters,
            message: message.into(),
            stack: None,
        }
    }

    /// Driver Verifier's `DRIVER_VERIFIER_DETECTED_VIOLATION`.
    pub(crate) fn verifier(rule: u64, parameters: [u64; 3], message: impl Into<String>) -> Self {
        Self::new(
            0xC4,
            [rule, parameters[0], parameters[1], parameters[2]],
            message,
        )
    }

    /// KMDF's `WDF_VIOLATION`.
    pub(crate) fn wdf(rule: u64, parameters: [u64; 3], message: impl Into<String>) -> Self {
        Self::new(
            0x10D,
            [rule, parameters[0], parameters[1], parameters[2]],
            message,
        )
    }

    pub(crate) fn rust_panic(message: &str) -> Self {
        Self::new(
            RUST_PANIC,
            [0; 4],
            format!("the driver panicked: {message}"),
        )
    }
}

/// The symbolic name of a bug check code.
#[must_use]
pub fn bug_check_name(code: u32) -> &'static str {
    match code {
        0x01 => "APC_INDEX_MISMATCH",
        0x0C => "MAXIMUM_WAIT_OBJECTS_EXCEEDED",
        0x0A => "IRQL_NOT_LESS_OR_EQUAL",
        0x18 => "REFERENCE_BY_POINTER",
        0x1E => "KMODE_EXCEPTION_NOT_HANDLED",
        0x4A => "IRQL_GT_ZERO_AT_SYSTEM_SERVICE",
        0x50 => "PAGE_FAULT_IN_NONPAGED_AREA",
        0x7E => "SYSTEM_THREAD_EXCEPTION_NOT_HANDLED",
        0x7F => "UNEXPECTED_KERNEL_MODE_TRAP",
        0xB8 => "ATTEMPTED_SWITCH_FROM_DPC",
        0x93 => "INVALID_KERNEL_HANDLE",
        0xBE => "ATTEMPTED_WRITE_TO_READONLY_MEMORY",
        0xC1 => "SPECIAL_POOL_DETECTED_MEMORY_CORRUPTION",
        0xC2 => "BAD_POOL_CALLER",
        0xC4 => "DRIVER_VERIFIER_DETECTED_VIOLATION",
        0xC7 => "TIMER_OR_DPC_INVALID",
        0xC8 => "IRQL_UNEXPECTED_VALUE",
        0xC9 => "DRIVER_VERIFIER_IOMANAGER_VIOLATION",
        0xCC => "PAGE_FAULT_IN_FREED_SPECIAL_POOL",
        0xCE => "DRIVER_UNLOADED_WITHOUT_CANCELLING_PENDING_OPERATIONS",
        0xD1 => "DRIVER_IRQL_NOT_LESS_OR_EQUAL",
        0xD5 => "DRIVER_PAGE_FAULT_IN_FREED_SPECIAL_POOL",
        0xD6 => "DRIVER_PAGE_FAULT_BEYOND_END_OF_ALLOCATION",
        0xE1 => "WORKER_THREAD_RETURNED_AT_BAD_IRQL",
        0xE3 => "RESOURCE_NOT_OWNED",
        0xE4 => "WORKER_INVALID",
        0xFC => "ATTEMPTED_EXECUTE_OF_NOEXECUTE_MEMORY",
        0x9F => "DRIVER_POWER_STATE_FAILURE",
        0x10D => "WDF_VIOLATION",
        0x1D5 => "DRIVER_PNP_WATCHDOG",
        0x133 => "DPC_WATCHDOG_VIOLATION",
        0x139 => "KERNEL_SECURITY_CHECK_FAILURE",
        0x4000_008A => "THREAD_TERMINATE_HELD_MUTEX",
        RUST_PANIC => "RUST_PANIC",
        _ => "BUG_CHECK",
    }
}

/// What the first parameter tells that says which rule of several was broken.
const fn fixed_parameter(code: u32) -> &'static str {
    match code {
        0xC2 => "the kind of violation, that",
        0xC4 => "the verifier's number",
        _ => "the number",
    }
}

/// What the parameters of bug checks mean that no rule of the table makes. See the
/// [bug check reference](https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-code-reference2).
const fn meanings(code: u32) -> &'static [&'static str] {
    match code {
        0x0A | 0xD1 => &[
            "the address that was accessed",
            "the IRQL then",
            "0: read, 1: write, 8: execute",
            "the address of the instruction",
        ],
        0x1E | 0x7E => &["the exception's status", "the address of the instruction"],
        0x50 => &[
            "the address that was accessed",
            "0: read, 1: write, 8: execute",
            "the address of the instruction",
        ],
        0x7F => &["the processor's trap number"],
        0xC4 | 0xC9 => &["which rule of Driver Verifier"],
        0xC8 => &["the IRQL now", "the IRQL that it should be"],
        0x10D => &["which rule of the framework"],
        0x139 => &["the kind of corruption"],
        _ => &[],
    }
}

/// The text of a panic's payload.
pub(crate) fn panic_message(payload: &(dyn std::any::Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "a payload that is not text".to_owned()
    }
}

impl Stop {
    pub(crate) fn here(k: &Kernel, kind: StopKind, message: String) -> Self {
        Self::with_stack(k, kind, message, None)
    }

    fn with_stack(k: &Kernel, kind: StopKind, message: String, stack: Option<&[u64]>) -> Self {
        let (context, context_id, irql) = match k.current {
            Some(id) => {
                let context = k.context(id);
                (context.name.clone(), id.0, context.irql)
            }
            None => ("machine".to_owned(), 0, 0),
        };
        let gathered = report::gather(k, stack);
        let settings = &k.settings;
        Self {
            kind,
            name: kind.name().to_owned(),
            message,
            rule: None,
            context,
            context_id,
            irql,
            time: k.boot_offset + k.now,
            calls: gathered.calls,
            backtrace: gathered.backtrace,
            related: Vec::new(),
            contexts: gathered.contexts,
            locks: gathered.locks,
            last_calls: gathered.last_calls,
            irql_history: gathered.irql_history,
            devices: gathered.devices,
            last: gathered.last,
            traced: settings.trace,
            seed: settings.seed,
            replay: settings.replay.clone().unwrap_or_else(|| {
                format!("seed {}, strategy {}", settings.seed, settings.strategy)
            }),
        }
    }

    pub(crate) fn bug_check(k: &Kernel, check: BugCheck) -> Self {
        let kind = StopKind::BugCheck {
            code: check.code,
            parameters: check.parameters,
        };
        let mut stop = Self::with_stack(k, kind, check.message, check.stack.as_deref());
        bug_check_name(check.code).clone_into(&mut stop.name);
        stop
    }

    pub(crate) fn not_simulated(k: &Kernel, what: &str) -> Self {
        let message = format!("the driver called {what}, which ntsim does not simulate");
        Self::here(k, StopKind::NotSimulated, message)
    }

    pub(crate) fn livelock(k: &Kernel, call: &str) -> Self {
        let message = format!(
            "{} calls without virtual time moving, the last to {call}: the driver polls without waiting",
            k.settings.livelock_limit
        );
        Self::here(k, StopKind::Livelock, message)
    }

    /// A driver that runs on without a call.
    pub(crate) fn watchdog(k: &Kernel, fault: &Fault) -> Self {
        let limit = k.settings.processor_limit.unwrap_or_default();
        let message = format!("no call in {limit:?} of the processor's time: {fault}");
        let stack = (k.settings.backtraces).then(|| fault.backtrace(&k.io.loaded_images()));
        Self::with_stack(k, StopKind::Watchdog, message, stack.as_deref())
    }

    pub(crate) fn power_cut(k: &Kernel) -> Self {
        let message = format!("the power was cut before step {}", k.steps);
        Self::here(k, StopKind::PowerCut, message)
    }

    pub(crate) fn diverged(k: &Kernel, at: Divergence) -> Self {
        let Divergence { point, of, .. } = at;
        let found = at.found;
        let message = match at.expected {
            Some(expected) => format!(
                "at scheduling point {point} of {of} the schedule has {expected} to choose from, and here are {found}"
            ),
            None => format!(
                "the schedule ends after {of} scheduling points, and here is one more with {found} to choose from"
            ),
        };
        let message = format!(
            "{message}: the schedule is of another driver, other settings or another version of one of them"
        );
        Self::here(k, StopKind::Diverged, message)
    }

    /// The bug check code, if it was one.
    #[must_use]
    pub fn bug_check_code(&self) -> Option<u32> {
        match self.kind {
            StopKind::BugCheck { code, .. } => Some(code),
            _ => None,
        }
    }

    /// The row of the broken rule.
    #[must_use]
    pub fn broken_rule(&self) -> Option<&'static Rule> {
        self.rule.and_then(rules::find)
    }

    /// The bug check's parameters with what they mean; nothing if it was none.
    #[must_use]
    pub fn parameters(&self) -> Vec<Parameter> {
        let StopKind::BugCheck { code, parameters } = self.kind else {
            return Vec::new();
        };
        let meanings: Vec<String> = match self.broken_rule() {
            Some(rule) => {
                let fixed = matches!(rule.report, rules::Report::BugCheckWith(..))
                    .then(|| format!("{} of rule {}", fixed_parameter(code), rule.name));
                let others = rule.parameters.iter().map(|meaning| (*meaning).to_owned());
                fixed.into_iter().chain(others).collect()
            }
            None => meanings(code).iter().map(|&it| it.to_owned()).collect(),
        };
        parameters
            .iter()
            .enumerate()
            .map(|(index, value)| Parameter {
                value: format!("{value:#x}"),
                meaning: meanings.get(index).cloned().unwrap_or_default(),
            })
            .collect()
    }

    /// Who waits for what, a line each: `main waits for event#1 without a time-out`.
    #[must_use]
    pub fn waiting(&self) -> Vec<String> {
        self.contexts
            .iter()
            .filter_map(|context| {
                let wait = context.wait.as_ref()?;
                Some(format!("{} waits for {wait}", context.name))
            })
            .collect()
    }

    /// The report for a terminal, with colours.
    #[must_use]
    pub fn styled(&self) -> Styled<'_> {
        Styled::coloured(self)
    }
}

impl std::fmt::Display for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Styled::plain(self).fmt(f)
    }
}

impl Serialize for Stop {
    /// As `docs/report-format.md` has it.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Stop", 23)?;
        fields.serialize_field("version", &report::VERSION)?;
        fields.serialize_field("kind", self.kind.name())?;
        fields.serialize_field("code", &self.bug_check_code())?;
        fields.serialize_field("name", &self.name)?;
        fields.serialize_field("parameters", &self.parameters())?;
        fields.serialize_field("rule", &self.broken_rule())?;
        fields.serialize_field("message", &self.message)?;
        fields.serialize_field("context", &self.context)?;
        fields.serialize_field("context_id", &self.context_id)?;
        fields.serialize_field("irql", &self.irql)?;
        fields.serialize_field("time", &self.time)?;
        fields.serialize_field("calls", &self.calls)?;
        fields.serialize_field("backtrace", &self.backtrace)?;
        fields.serialize_field("related", &self.related)?;
        fields.serialize_field("contexts", &self.contexts)?;
        fields.serialize_field("locks", &self.locks)?;
        fields.serialize_field("last_calls", &self.last_calls)?;
        fields.serialize_field("irql_history", &self.irql_history)?;
        fields.serialize_field("devices", &self.devices)?;
        fields.serialize_field("last", &self.last)?;
        fields.serialize_field("traced", &self.traced)?;
        fields.serialize_field("seed", &self.seed)?;
        fields.serialize_field("replay", &self.replay)?;
        fields.end()
    }
}

impl std::error::Error for Stop {}
