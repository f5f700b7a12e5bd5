// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a [`Stop`](crate::Stop) carries beside its sentence: what every context
//! was doing, who held what, and how it came to that.
//!
//! All of it is gathered when the simulation stops, from what the kernel knows
//! then and from the trace; nothing is kept for it before. So a machine whose
//! [trace is off](crate::Settings::trace) reports no last calls and no history
//! of the IRQL, and says so.
//!
//! As text, a stop has 100 columns ([`Styled`] for a terminal, `Display` without
//! colours). As JSON it is documented in
//! [docs/report-format.md](https://github.com/dmf-rs/dmf/blob/main/docs/report-format.md).
//!
//! # Vocabulary
//! - *context*: a thread or a DPC, as in the trace.
//! - *to hold*: to be who must give a lock back before others can have it.

mod text;

use serde::Serialize;

use crate::image::symbols::Location;
use crate::image::unwind::Unwinder;
use crate::ke::dispatcher::{Object, ThreadId};
use crate::kernel::{Context, ContextId, DISPATCH_LEVEL, Kernel, State};
use crate::trace::{Event, Line};
use crate::wdf;

pub use text::Styled;

/// The version of a stop's JSON.
pub const VERSION: u32 = 1;

/// A function in a backtrace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Frame {
    /// The driver's image; nothing for code of the host program.
    pub module: Option<String>,
    /// The function, or where in the image the code is if there are no symbols.
    pub function: String,
    /// How far into the function; 0 if it was inlined.
    pub offset: u32,
    /// The source file.
    pub file: Option<String>,
    /// The line in it, counted from 1.
    pub line: Option<u32>,
    /// Whether it was inlined into the frame that follows.
    pub inlined: bool,
}

/// A parameter of a bug check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Parameter {
    /// Its value, in hexadecimal with `0x`, since JSON's numbers end at 2<sup>53</sup>.
    pub value: String,
    /// What it means; empty if that is not known.
    pub meaning: String,
}

/// What sort of context it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ContextKind {
    /// A thread.
    Thread,
    /// A DPC.
    Dpc,
}

/// What a context is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ContextState {
    /// It made the call that ended the simulation.
    Running,
    /// It could run.
    Ready,
    /// It waits for something.
    Waiting,
    /// A DPC that has not begun.
    Queued,
}

/// A thread or DPC at the moment of the stop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ContextReport {
    /// Its number in the trace; 0 for a DPC that has not begun.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: ContextKind,
    /// What it is about.
    pub state: ContextState,
    /// Its IRQL.
    pub irql: u8,
    /// What it waits for, if it waits.
    pub wait: Option<WaitReport>,
    /// The calls that it is in, outermost first.
    pub calls: Vec<String>,
    /// Where the innermost of them was made, innermost frame first.
    pub backtrace: Vec<Frame>,
}

/// A wait.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WaitReport {
    /// For what; nothing if it is a delay, or a wait of the framework's own.
    pub objects: Vec<Awaited>,
    /// Whether all of them are needed.
    pub all: bool,
    /// When it times out, in 100 ns units since the first boot.
    pub until: Option<u64>,
    /// Whether an alert ends it.
    pub alertable: bool,
    /// Whether it is a delay.
    pub delay: bool,
}

/// Something that is waited for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Awaited {
    /// Its name in the trace.
    pub name: String,
    /// Who holds it, if it is something to hold.
    pub held_by: Vec<String>,
}

/// A lock that is held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LockReport {
    /// Its name in the trace.
    pub name: String,
    /// By whom.
    pub held_by: Vec<String>,
    /// Whether they have it only shared.
    pub shared: bool,
    /// Who waits for it.
    pub waiters: Vec<String>,
    /// The trace's line of the call that took it, if the trace is on.
    pub acquired: Option<String>,
}

/// A change of the stopping context's IRQL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct IrqlChange {
    /// When, in 100 ns units since the first boot.
    pub time: u64,
    /// The IRQL before.
    pub from: u8,
    /// The IRQL after.
    pub to: u8,
    /// The call that made it.
    pub by: String,
}

/// A framework device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeviceReport {
    /// Its handle's name in the trace.
    pub name: String,
    /// Its instance id; empty for a control device.
    pub instance: String,
    /// Its `WDF_DEVICE_PNP_STATE`.
    pub pnp: &'static str,
    /// Its `WDF_DEVICE_POWER_STATE`.
    pub power: &'static str,
}

/// What was gathered at a stop.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Gathered {
    pub(crate) calls: Vec<String>,
    pub(crate) backtrace: Vec<Frame>,
    pub(crate) contexts: Vec<ContextReport>,
    pub(crate) locks: Vec<LockReport>,
    pub(crate) last_calls: Vec<String>,
    pub(crate) irql_history: Vec<IrqlChange>,
    pub(crate) devices: Vec<DeviceReport>,
    pub(crate) last: Vec<String>,
}

/// How many lines of the trace a report repeats.
const LAST_LINES: usize = 16;
/// How many calls of the stopping context.
const LAST_CALLS: usize = 12;
/// How many changes of its IRQL.
const IRQL_CHANGES: usize = 8;
/// How many contexts have a backtrace: who starts more is not helped by all of them.
const BACKTRACES: usize = 64;

/// Gathers all that the report of a stop needs. `own` is the backtrace of the
/// stopping context, where it is known better than from its last call.
pub(crate) fn gather(k: &Kernel, own: Option<&[u64]>) -> Gathered {
    let locks = held_locks(k);
    let (mut contexts, stacks) = contexts(k, &locks, own);
    for (report, frames) in contexts.iter_mut().zip(locate(k, &stacks)) {
        report.backtrace = frames;
    }
    let (mut calls, mut backtrace) = (Vec::new(), Vec::new());
    if let Some(running) = contexts
        .iter()
        .find(|report| report.state == ContextState::Running)
    {
        calls.clone_from(&running.calls);
        backtrace.clone_from(&running.backtrace);
    }
    contexts.extend(k.queued_dpcs().map(|name| ContextReport {
        id: 0,
        name: name.to_owned(),
        kind: ContextKind::Dpc,
        state: ContextState::Queued,
        irql: DISPATCH_LEVEL,
        wait: None,
        calls: Vec::new(),
        backtrace: Vec::new(),
    }));
    let locks = lock_reports(k, &locks, &contexts);
    Gathered {
        calls,
        backtrace,
        locks,
        contexts,
        last_calls: k.current.map(|id| last_calls(k, id)).unwrap_or_default(),
        irql_history: k.current.map(|id| irql_history(k, id)).unwrap_or_default(),
        devices: wdf::pnp::describe(k),
        last: shown(k.trace.iter().rev().take(LAST_LINES)),
    }
}

/// Lines that come last first, as text in order.
fn shown<'a>(lines: impl Iterator<Item = &'a Line>) -> Vec<String> {
    let mut lines: Vec<_> = lines.map(ToString::to_string).collect();
    lines.reverse();
    lines
}

/// A lock that is held, before it is described.
struct Held {
    address: usize,
    name: String,
    holders: Vec<ContextId>,
    shared: bool,
}

fn held_locks(k: &Kernel) -> Vec<Held> {
    let name = |address: usize| k.name_of(address).unwrap_or("a lock").to_owned();
    let one = |address: usize, holder: ContextId| Held {
        address,
        name: name(address),
        holders: vec![holder],
        shared: false,
    };
    let of_thread = |address: usize, owner: ThreadId| {
        let context = k.threads.get(&owner)?.context?;
        Some(one(address, context))
    };
    let mutexes = k.ke.objects.iter().filter_map(|(address, object)| {
        let Object::Mutex {
            owner: Some(owner), ..
        } = object
        else {
            return None;
        };
        of_thread(*address, *owner)
    });
    let fast = crate::ex::fast_mutex::held(k).filter_map(|(address, owner)| {
        // Its event is a dispatcher object too, but the mutex's name says more.
        of_thread(address, owner)
    });
    let spin = (k.ke.spin_locks.iter()).map(|(address, holder)| one(*address, *holder));
    let shared = crate::ex::shared_lock::held(k).map(|(address, holders, shared)| Held {
        address,
        name: name(address),
        holders,
        shared,
    });
    let resources = crate::ex::resource::held(k).map(|(address, holders, shared)| Held {
        address,
        name: name(address),
        holders,
        shared,
    });
    let framework = wdf::lock::held(k).map(|(handle, holder, whole)| {
        let mut held = one(handle, holder);
        if whole {
            held.name = format!("the lock of {}", held.name);
        }
        held
    });
    let mut all: Vec<_> = mutexes
        .chain(fast)
        .chain(spin)
        .chain(shared)
        .chain(resources)
        .chain(framework)
        .collect();
    // The maps they are from have no order of their own.
    all.sort_by(|a, b| (&a.holders, &a.name).cmp(&(&b.holders, &b.name)));
    all
}

/// A context's name, with its number where others have the same name.
fn label(k: &Kernel, id: ContextId) -> String {
    let Some(context) = k.contexts().find(|(other, _)| *other == id) else {
        return "a thread that has ended".to_owned();
    };
    let name = &context.1.name;
    if k.contexts().filter(|(_, c)| c.name == *name).count() > 1 {
        format!("{name} (context {})", id.0)
    } else {
        name.clone()
    }
}

fn labels(k: &Kernel, ids: &[ContextId]) -> Vec<String> {
    ids.iter().map(|id| label(k, *id)).collect()
}

/// The contexts, and the code addresses of their stacks.
fn contexts(
    k: &Kernel,
    locks: &[Held],
    own: Option<&[u64]>,
) -> (Vec<ContextReport>, Vec<Vec<u64>>) {
    let unwinder = k
        .settings
        .backtraces
        .then(|| Unwinder::new(&k.io.loaded_images()));
    let (mut reports, mut stacks) = (Vec::new(), Vec::new());
    // The stopping one first: its backtrace is wanted whatever their number.
    let mut all: Vec<_> = k.contexts().collect();
    all.sort_by_key(|(id, _)| (Some(*id) != k.current, *id));
    for (id, context) in all {
        let running = k.current == Some(id);
        let state = match context.state {
            _ if running => ContextState::Running,
            State::Ready => ContextState::Ready,
            State::Waiting | State::Spinning(_) => ContextState::Waiting,
        };
        let calls: Vec<_> = k
            .open_calls(id)
            .map(|(name, args)| format!("{name}({args})"))
            .collect();
        let wait = (state == ContextState::Waiting)
            .then(|| describe_wait(k, context, locks, calls.last()));
        let stack = match (&unwinder, own) {
            (None, _) => Vec::new(),
            (_, Some(own)) if running => own.to_vec(),
            (Some(unwinder), _) if stacks.len() < BACKTRACES => k
                .innermost_call(id)
                .filter(|registers| registers.rip != 0)
                .map(|registers| unwinder.walk_live(&registers))
                .unwrap_or_default(),
            _ => Vec::new(),
        };
        stacks.push(stack);
        reports.push(ContextReport {
            id: id.0,
            name: context.name.clone(),
            kind: if context.thread.is_some() {
                ContextKind::Thread
            } else {
                ContextKind::Dpc
            },
            state,
            irql: context.irql,
            wait,
            calls,
            backtrace: Vec::new(),
        });
    }
    (reports, stacks)
}

fn describe_wait(
    k: &Kernel,
    context: &Context,
    locks: &[Held],
    call: Option<&String>,
) -> WaitReport {
    let awaited = |address: usize, or: &str| Awaited {
        name: k.name_of(address).unwrap_or(or).to_owned(),
        held_by: locks
            .iter()
            .filter(|lock| lock.address == address)
            .flat_map(|lock| labels(k, &lock.holders))
            .collect(),
    };
    if let State::Spinning(key) = context.state {
        return WaitReport {
            objects: vec![awaited(key, "a lock")],
            ..WaitReport::default()
        };
    }
    let thread = context.thread.and_then(|thread| k.threads.get(&thread));
    if let Some(wait) = thread.and_then(|thread| thread.wait.as_ref()) {
        return WaitReport {
            objects: (wait.objects.iter())
                .map(|object| awaited(*object, "ptr"))
                .collect(),
            all: wait.all,
            until: wait.due().map(|due| k.boot_offset.saturating_add(due)),
            alertable: wait.alertable,
            delay: wait.objects.is_empty(),
        };
    }
    // A wait of the framework's own: for a lock that its call names, if for one.
    let objects = locks
        .iter()
        .filter(|lock| call.is_some_and(|call| names(call, &lock.name)))
        .map(|lock| awaited(lock.address, "a lock"))
        .collect();
    WaitReport {
        objects,
        ..WaitReport::default()
    }
}

/// Whether a call's text has `name` as the value of an argument.
fn names(call: &str, name: &str) -> bool {
    call.split(['(', ')', ',', ' '])
        .filter_map(|word| word.split_once('='))
        .any(|(_, value)| value == name)
}

fn lock_reports(k: &Kernel, locks: &[Held], contexts: &[ContextReport]) -> Vec<LockReport> {
    let waits_for = |context: &&ContextReport, name: &str| {
        context
            .wait
            .as_ref()
            .is_some_and(|wait| wait.objects.iter().any(|object| object.name == name))
    };
    locks
        .iter()
        .map(|lock| LockReport {
            name: lock.name.clone(),
            held_by: labels(k, &lock.holders),
            shared: lock.shared,
            waiters: contexts
                .iter()
                .filter(|context| waits_for(context, &lock.name))
                .map(|context| label(k, ContextId(context.id)))
                .collect(),
            acquired: acquired(k, lock),
        })
        .collect()
}

/// The line that tells of the last call that can have taken the lock.
fn acquired(k: &Kernel, lock: &Held) -> Option<String> {
    let holder = lock.holders.first()?.0;
    let line = k.trace.iter().rev().find(|line| {
        let (Event::Call { name, args, .. } | Event::Enter { name, args }) = &line.what else {
            return false;
        };
        line.context == holder
            && ["Acquire", "WaitFor"]
                .iter()
                .any(|verb| name.contains(verb))
            && names(args, &lock.name)
    });
    line.map(ToString::to_string)
}

fn last_calls(k: &Kernel, id: ContextId) -> Vec<String> {
    shown(lines_of(k, id).take(LAST_CALLS))
}

/// A context's lines, the last one first.
fn lines_of(k: &Kernel, id: ContextId) -> impl Iterator<Item = &Line> {
    (k.trace.iter().rev()).filter(move |line| line.context == id.0)
}

/// The last changes of a context's IRQL: each line has the IRQL after its call,
/// so between two lines that differ lies the call of the second.
fn irql_history(k: &Kernel, id: ContextId) -> Vec<IrqlChange> {
    let mut changes = Vec::new();
    let mut after = k.context(id).irql;
    let mut by = k.open_calls(id).last().map_or_else(
        || "the end of its function".to_owned(),
        |(name, args)| format!("{name}({args})"),
    );
    let mut time = k.boot_offset + k.now;
    for line in lines_of(k, id) {
        if line.irql != after {
            changes.push(IrqlChange {
                time,
                from: line.irql,
                to: after,
                by,
            });
            if changes.len() == IRQL_CHANGES {
                break;
            }
        }
        after = line.irql;
        time = line.time;
        by = line.what.to_string();
    }
    changes.reverse();
    changes
}

/// The simulator's own code, of which the calls say enough.
const OWN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/");
/// Where the language's library and the coroutines are compiled.
const LIBRARIES: [&str; 3] = ["/rustc/", "/library/", "/corosensei-"];

/// Names the code addresses of stacks.
pub(crate) fn locate(k: &Kernel, stacks: &[Vec<u64>]) -> Vec<Vec<Frame>> {
    if stacks.iter().all(Vec::is_empty) {
        return vec![Vec::new(); stacks.len()];
    }
    let images: Vec<_> = k.io.images_with_symbols(&k.settings.symbol_path);
    let borrowed: Vec<_> = images
        .iter()
        .map(|(loaded, symbols)| (*loaded, symbols.as_ref()))
        .collect();
    stacks
        .iter()
        .map(|stack| {
            let located = crate::image::symbols::locate(stack, &borrowed);
            let all: Vec<_> = located.into_iter().flat_map(frames).collect();
            let mut shown = all.clone();
            let mut innermost = true;
            shown.retain(|frame| {
                let own = is_own(frame);
                // Where it happened is told, even if it is in a library.
                let shown = !own && (innermost || !is_library(frame));
                innermost &= own;
                shown
            });
            if shown.is_empty() { all } else { shown }
        })
        .collect()
}

fn is_own(frame: &Frame) -> bool {
    frame.module.is_none()
        && (frame
            .file
            .as_ref()
            .is_some_and(|file| file.starts_with(OWN))
            || frame.function.starts_with("ntsim::"))
}

fn is_library(frame: &Frame) -> bool {
    let file = frame.file.as_deref().unwrap_or_default();
    frame.module.is_none()
        && (LIBRARIES.iter().any(|library| file.contains(library))
            || ["__rust_try", "stack_init_trampoline"].contains(&frame.function.as_str()))
}

fn frames(location: Location) -> Vec<Frame> {
    let module = location.image.as_ref().map(|(name, _)| name.clone());
    if location.frames.is_empty() {
        return vec![Frame {
            function: match &location.image {
                Some((_, rva)) => format!("{rva:#x}"),
                None => "(unknown code)".to_owned(),
            },
            module,
            offset: 0,
            file: None,
            line: None,
            inlined: false,
        }];
    }
    location
        .frames
        .into_iter()
        .map(|frame| Frame {
            module: module.clone(),
            function: frame.function,
            offset: frame.offset,
            file: frame.file,
            line: frame.line,
            inlined: frame.inlined,
        })
        .collect()
}

impl std::fmt::Display for Frame {
    /// `sensor.sys!poll+0x12 at poll.rs:9`, and no address that would differ in
    /// another run.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(module) = &self.module {
            write!(f, "{module}!")?;
        }
        f.write_str(&self.function)?;
        if self.offset != 0 {
            write!(f, "+{:#x}", self.offset)?;
        }
        if self.inlined {
            f.write_str(" (inlined)")?;
        }
        if let Some(file) = &self.file {
            write!(f, " at {file}")?;
            if let Some(line) = self.line {
                write!(f, ":{line}")?;
            }
        }
        Ok(())
    }
}

impl std::fmt::Display for WaitReport {
    /// `event#3, held by thread#1, until 1.0156250 s`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.delay {
            f.write_str("a delay")?;
        } else if self.objects.is_empty() {
            f.write_str("the framework")?;
        }
        for (index, object) in self.objects.iter().enumerate() {
            if index > 0 {
                f.write_str(if self.all { " and " } else { " or " })?;
            }
            f.write_str(&object.name)?;
            if !object.held_by.is_empty() {
                write!(f, " (held by {})", object.held_by.join(", "))?;
            }
        }
        match self.until {
            Some(until) => write!(f, " until {} s", crate::trace::Seconds(until)),
            None if self.delay => Ok(()),
            None => f.write_str(" without a time-out"),
        }
    }
}
