// SPDX-License-Identifier: MIT OR Apache-2.0

//! A trace as lanes with bars: what the formats that are looked at draw.
//!
//! # Vocabulary
//! - *lane*: a thread, a DPC, a device, or the machine. Contexts of one name share
//!   a lane unless they lived at the same time.
//! - *bar*: a call, a callback, a wait or a state of a device, from one line of
//!   the trace to another. Bars of a lane nest: two either have nothing in common or one
//!   is inside the other, one level deeper.
//! - *mark*: what happened at one point: a message, an act of the machine.
//!
//! # Time
//! Virtual time stands still while contexts run, so many lines have one time.
//! To keep their order and nesting visible, each line is *placed* at least 1 ns
//! after the one before: the place of a line is its time, or later by at most as
//! many nanoseconds as lines came before it at that time.

#![expect(clippy::similar_names, reason = "lines and lanes are what it is about")]

use std::collections::{BTreeMap, HashMap};

use super::file::Trace;
use super::{Event, Line};

/// Lanes with bars.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeline {
    /// The machine's first, then devices, then threads and DPCs in the order of
    /// their first lines.
    pub lanes: Vec<Lane>,
    /// The lane of each line.
    pub lane_of: Vec<usize>,
    /// The place of each line, in nanoseconds, and that of the end; see the
    /// [module](self).
    pub places: Vec<u64>,
}

/// What a lane is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneKind {
    /// The machine itself.
    Machine,
    /// A framework device's states.
    Device,
    /// A thread.
    Thread,
    /// A DPC.
    Dpc,
}

impl LaneKind {
    /// A word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Machine => "machine",
            Self::Device => "device",
            Self::Thread => "thread",
            Self::Dpc => "dpc",
        }
    }
}

/// A row of the timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lane {
    /// Its name.
    pub name: String,
    /// What it is of.
    pub kind: LaneKind,
    /// Its bars, by where they begin, outer ones first.
    pub bars: Vec<Bar>,
    /// The lines that are marks.
    pub marks: Vec<usize>,
}

/// What a bar is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BarKind {
    /// The driver called.
    Call,
    /// The driver was called.
    Callback,
    /// A context waits, inside a call.
    Wait,
    /// A device is in a state.
    State,
}

impl BarKind {
    /// A word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::Callback => "callback",
            Self::Wait => "wait",
            Self::State => "state",
        }
    }
}

/// Something that takes a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bar {
    /// What it is.
    pub kind: BarKind,
    /// The function's or the state's name.
    pub name: String,
    /// The line at which it begins. A wait begins after it.
    pub first: usize,
    /// The line with which it ends. A wait ends before it; what is open has the
    /// number of lines here.
    pub last: usize,
    /// How many bars it is inside of.
    pub depth: usize,
    /// Whether it had not ended when the trace did.
    pub open: bool,
}

impl Bar {
    /// From where to where it goes, where `places` are those of the lines and of the end.
    #[must_use]
    pub fn span(&self, places: &[u64]) -> (u64, u64) {
        let end = |line: usize| places[line].saturating_add(u64::from(line + 1 < places.len()));
        if self.kind == BarKind::Wait {
            (end(self.first), places[self.last])
        } else {
            (places[self.first], end(self.last))
        }
    }
}

/// A context's bars that have not ended.
#[derive(Default)]
struct Open {
    lane: usize,
    /// Indices of the lane's bars, the innermost last.
    stack: Vec<usize>,
    /// Its last line.
    last: usize,
}

impl Timeline {
    /// Draws a trace.
    ///
    /// # Panics
    /// Never: each device has a lane.
    #[must_use]
    pub fn of(trace: &Trace<'_>) -> Self {
        let lines = &trace.lines;
        let (mut lanes, lane_of) = lanes(lines);
        let places = places(trace);
        let mut open: BTreeMap<u32, Open> = BTreeMap::new();
        let mut states: HashMap<&str, usize> = HashMap::new();
        for (at, line) in lines.iter().enumerate() {
            let lane = lane_of[at];
            match &line.what {
                Event::Machine(text) if line.context == 0 => {
                    lanes[lane].marks.push(at);
                    // No context outlives the machine.
                    if text == BOOT {
                        for (_, left) in std::mem::take(&mut open) {
                            left.end(&mut lanes, at);
                        }
                    }
                    continue;
                }
                Event::Device { device, state } => {
                    let lane = (lanes.iter())
                        .position(|lane| lane.kind == LaneKind::Device && lane.name == *device);
                    let bars = &mut lanes[lane.expect("each device has a lane")].bars;
                    if let Some(before) = states.remove(device.as_str()) {
                        let before: &mut Bar = &mut bars[before];
                        before.last = at.saturating_sub(1).max(before.first);
                        before.open = false;
                    }
                    let ends = *state == "removed";
                    bars.push(Bar {
                        kind: BarKind::State,
                        name: (*state).to_owned(),
                        first: at,
                        last: if ends { at } else { lines.len() },
                        depth: 0,
                        open: !ends,
                    });
                    if !ends {
                        states.insert(device, bars.len() - 1);
                    }
                }
                _ => {}
            }
            let context = open.entry(line.context).or_insert_with(|| Open {
                lane,
                last: at,
                ..Open::default()
            });
            context.take(&mut lanes[lane], lines, at);
        }
        for (_, left) in open {
            left.end(&mut lanes, lines.len());
        }
        for lane in &mut lanes {
            lane.bars.sort_by_key(|bar| (bar.first, bar.depth));
        }
        Self {
            lanes,
            lane_of,
            places,
        }
    }
}

/// What [`Machine::reboot`](crate::Machine::reboot) notes.
const BOOT: &str = "the machine boots";
/// The call that a thread ends itself with.
const TERMINATE: &str = "PsTerminateSystemThread";

impl Open {
    /// Takes a line of this context.
    fn take(&mut self, lane: &mut Lane, lines: &[Line], at: usize) {
        let line = &lines[at];
        self.wait(lane, lines, at);
        let depth = self.stack.len();
        let mut bar = |kind, name: &str, open: bool| {
            lane.bars.push(Bar {
                kind,
                name: name.to_owned(),
                first: at,
                last: at,
                depth,
                open,
            });
            lane.bars.len() - 1
        };
        match &line.what {
            Event::Call { name, .. } => _ = bar(BarKind::Call, name, false),
            Event::Enter { name, .. } => self.stack.push(bar(BarKind::Call, name, true)),
            Event::Callback { name, .. } => self.stack.push(bar(BarKind::Callback, name, true)),
            Event::Return { name, .. } => {
                // One that was left by a panic, or filtered out, ends with what it is in.
                let found = (self.stack.iter()).rposition(|bar| lane.bars[*bar].name == *name);
                if let Some(found) = found {
                    for ended in self.stack.drain(found..) {
                        lane.bars[ended].last = at;
                        lane.bars[ended].open = false;
                    }
                }
            }
            Event::Print(_) | Event::Machine(_) => lane.marks.push(at),
            Event::Device { .. } => {}
        }
        self.last = at;
    }

    /// Draws the wait that this line ends, if it ends one: inside a call of the
    /// driver, time went by, or nothing was told between entry and return.
    fn wait(&self, lane: &mut Lane, lines: &[Line], at: usize) {
        let Some(&inner) = self.stack.last() else {
            return;
        };
        let call = &lane.bars[inner];
        if call.kind != BarKind::Call {
            return;
        }
        let blocked = call.first == self.last
            && matches!(lines[at].what, Event::Return { .. })
            && at > self.last + 1;
        if blocked || lines[at].time > lines[self.last].time {
            let name = call.name.clone();
            lane.bars.push(Bar {
                kind: BarKind::Wait,
                name,
                first: self.last,
                last: at,
                depth: self.stack.len(),
                open: false,
            });
        }
    }

    /// Ends what is open with line `to`.
    fn end(self, lanes: &mut [Lane], to: usize) {
        let lane = &mut lanes[self.lane];
        // Who has given itself up makes no more lines.
        let inner = self.stack.last().map(|bar| &lane.bars[*bar]);
        let gone = inner.is_some_and(|bar| bar.name == TERMINATE);
        let to = if gone { self.last } else { to };
        for bar in &self.stack {
            lane.bars[*bar].last = to.max(self.last);
        }
        if let Some(&inner) = self.stack.last()
            && lane.bars[inner].kind == BarKind::Call
            && to > self.last
        {
            let name = lane.bars[inner].name.clone();
            lane.bars.push(Bar {
                kind: BarKind::Wait,
                name,
                first: self.last,
                last: to,
                depth: self.stack.len(),
                open: true,
            });
        }
    }
}

fn places(trace: &Trace<'_>) -> Vec<u64> {
    let mut next = 0;
    let mut places: Vec<_> = (trace.lines.iter())
        .map(|line| {
            let place = line.time.saturating_mul(100).max(next);
            next = place.saturating_add(1);
            place
        })
        .collect();
    let end = trace.stop.as_ref().map_or(0, |stop| stop.time);
    // Room for what begins with the last line and has not ended.
    places.push(end.saturating_mul(100).max(next.saturating_add(1)));
    places
}

/// Until which line each context needs its lane.
fn ends(lines: &[Line]) -> HashMap<u32, usize> {
    /// The last line, how many calls and callbacks are open then, and whether it
    /// has given itself up.
    #[derive(Default)]
    struct Life {
        last: usize,
        open: usize,
        gone: bool,
    }
    let mut lives: HashMap<u32, Life> = HashMap::new();
    let mut boots = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let life = lives.entry(line.context).or_default();
        life.last = at;
        match &line.what {
            Event::Enter { name, .. } => {
                life.open += 1;
                life.gone = *name == TERMINATE;
            }
            Event::Callback { .. } => life.open += 1,
            Event::Return { .. } => life.open = life.open.saturating_sub(1),
            Event::Machine(text) if text == BOOT => boots.push(at),
            _ => {}
        }
    }
    let end = |life: Life| {
        if life.open == 0 || life.gone {
            return life.last;
        }
        let boot = boots.iter().find(|boot| **boot > life.last);
        boot.copied().unwrap_or(lines.len())
    };
    (lives.into_iter())
        .map(|(id, life)| (id, end(life)))
        .collect()
}

/// The lanes, empty, and which each line is in.
fn lanes(lines: &[Line]) -> (Vec<Lane>, Vec<usize>) {
    let new = |name: String, kind| Lane {
        name,
        kind,
        bars: Vec::new(),
        marks: Vec::new(),
    };
    let mut lanes = vec![new("machine".to_owned(), LaneKind::Machine)];
    for line in lines {
        if let Event::Device { device, .. } = &line.what
            && !lanes.iter().any(|lane| lane.name == *device)
        {
            lanes.push(new(device.clone(), LaneKind::Device));
        }
    }
    let ends = ends(lines);
    // Which lanes a name has, and until which line each is taken.
    let mut named: HashMap<&str, Vec<(usize, usize)>> = HashMap::new();
    let mut lane_of_context: HashMap<u32, usize> = HashMap::from([(0, 0)]);
    let mut lane_of = Vec::with_capacity(lines.len());
    for (at, line) in lines.iter().enumerate() {
        let lane = *lane_of_context.entry(line.context).or_insert_with(|| {
            let end = ends[&line.context];
            let taken = named.entry(&line.who).or_default();
            if let Some((lane, until)) = taken.iter_mut().find(|(_, until)| *until < at) {
                *until = end;
                return *lane;
            }
            let name = match taken.len() {
                0 => line.who.clone(),
                others => format!("{} ({})", line.who, others + 1),
            };
            // A thread begins at PASSIVE_LEVEL.
            let kind = if line.irql >= 2 {
                LaneKind::Dpc
            } else {
                LaneKind::Thread
            };
            lanes.push(new(name, kind));
            taken.push((lanes.len() - 1, end));
            lanes.len() - 1
        });
        lane_of.push(lane);
    }
    (lanes, lane_of)
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    pub(crate) fn trace(lines: Vec<Line>) -> Trace<'static> {
        Trace {
            title: String::new(),
            seed: 0,
            strategy: String::new(),
            lines: Cow::Owned(lines),
            stop: None,
        }
    }

    fn line(time: u64, context: u32, who: &str, what: Event) -> Line {
        Line {
            time,
            context,
            who: who.to_owned(),
            irql: 0,
            depth: 0,
            what,
        }
    }

    fn enter(name: &'static str) -> Event {
        Event::Enter {
            name,
            args: String::new(),
        }
    }

    fn leave(name: &'static str) -> Event {
        Event::Return {
            name,
            result: String::new(),
        }
    }

    fn called(name: &'static str) -> Event {
        Event::Callback {
            name,
            args: String::new(),
        }
    }

    fn call(name: &'static str) -> Event {
        Event::Call {
            name,
            args: String::new(),
            result: String::new(),
        }
    }

    /// Bars as `kind name first..=last depth`.
    fn bars(lane: &Lane) -> Vec<String> {
        (lane.bars.iter())
            .map(|bar| {
                let open = if bar.open { " open" } else { "" };
                format!(
                    "{} {} {}..={} {}{open}",
                    bar.kind.name(),
                    bar.name,
                    bar.first,
                    bar.last,
                    bar.depth
                )
            })
            .collect()
    }

    #[test]
    fn calls_nest_in_callbacks_and_waits_in_calls() {
        let timeline = Timeline::of(&trace(vec![
            line(0, 1, "a", called("EvtX")),
            line(0, 1, "a", call("KeY")),
            line(0, 1, "a", enter("KeWait")),
            line(0, 2, "b", call("KeSet")),
            line(5, 1, "a", leave("KeWait")),
            line(5, 1, "a", leave("EvtX")),
        ]));
        assert_eq!(
            bars(&timeline.lanes[1]),
            [
                "callback EvtX 0..=5 0",
                "call KeY 1..=1 1",
                "call KeWait 2..=4 1",
                "wait KeWait 2..=4 2",
            ]
        );
        assert_eq!(bars(&timeline.lanes[2]), ["call KeSet 3..=3 0"]);
        assert_eq!(timeline.places, [0, 1, 2, 3, 500, 501, 503]);
        let spans: Vec<_> = (timeline.lanes[1].bars.iter())
            .map(|bar| bar.span(&timeline.places))
            .collect();
        assert_eq!(spans, [(0, 502), (1, 2), (2, 501), (3, 500)]);
    }

    #[test]
    fn who_never_returns_waits_to_the_end_and_who_gave_itself_up_does_not() {
        let timeline = Timeline::of(&trace(vec![
            line(0, 1, "a", enter("KeWait")),
            line(0, 2, "b", enter("PsTerminateSystemThread")),
            line(9, 3, "c", call("KeSet")),
        ]));
        assert_eq!(
            bars(&timeline.lanes[1]),
            ["call KeWait 0..=3 0 open", "wait KeWait 0..=3 1 open"]
        );
        assert_eq!(
            bars(&timeline.lanes[2]),
            ["call PsTerminateSystemThread 1..=1 0 open"]
        );
    }

    #[test]
    fn contexts_of_one_name_share_a_lane_unless_they_meet() {
        let timeline = Timeline::of(&trace(vec![
            line(0, 1, "user", call("A")),
            line(0, 2, "user", call("B")),
            line(0, 1, "user", call("C")),
            line(0, 3, "user", call("D")),
        ]));
        let names: Vec<_> = timeline.lanes.iter().map(|lane| &lane.name).collect();
        assert_eq!(names, ["machine", "user", "user (2)"]);
        assert_eq!(timeline.lane_of, [1, 2, 1, 1]);
        let waits = Timeline::of(&trace(vec![
            line(0, 1, "user", enter("KeWait")),
            line(0, 2, "user", call("B")),
        ]));
        assert_eq!(waits.lane_of, [1, 2], "the first never ends");
    }

    #[test]
    fn a_device_is_in_one_state_at_a_time() {
        let state = |state| Event::Device {
            device: "WDFDEVICE#1".to_owned(),
            state,
        };
        let timeline = Timeline::of(&trace(vec![
            line(0, 1, "PnP", state("added")),
            line(0, 1, "PnP", state("D0")),
            line(3, 1, "PnP", call("X")),
            line(4, 1, "PnP", state("removed")),
        ]));
        assert_eq!(timeline.lanes[1].kind, LaneKind::Device);
        assert_eq!(
            bars(&timeline.lanes[1]),
            [
                "state added 0..=0 0",
                "state D0 1..=2 0",
                "state removed 3..=3 0"
            ]
        );
    }

    #[test]
    fn a_return_without_its_call_is_left_out() {
        let timeline = Timeline::of(&trace(vec![
            line(0, 1, "a", leave("KeX")),
            line(0, 1, "a", called("EvtY")),
            line(0, 1, "a", enter("KeLost")),
            line(0, 1, "a", leave("EvtY")),
        ]));
        assert_eq!(
            bars(&timeline.lanes[1]),
            ["callback EvtY 1..=3 0", "call KeLost 2..=3 1"]
        );
    }
}
