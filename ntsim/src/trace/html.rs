// SPDX-License-Identifier: MIT OR Apache-2.0

//! A trace as a page with a timeline: one file, which needs no network.
//!
//! The page holds the [timeline](super::timeline) as JSON and draws it on a
//! canvas, so that a trace of 100,000 lines can be zoomed and panned. It has
//! two scales: *steps*, where each line is as wide as any other and a break stands for
//! the time that went by, and *time*. `timeline.check()` in the page, run when it
//! is opened with `#check`, checks it: its outcome is in the document, for a
//! headless browser to read.

#![expect(clippy::similar_names, reason = "lines and lanes are what it is about")]

use serde_json::{Value, json};

use super::file::Trace;
use super::timeline::Timeline;

const PAGE: &str = include_str!("html/page.html");
const STYLE: &str = include_str!("html/page.css");
const SCRIPT: &str = include_str!("html/page.js");

/// The trace as the contents of a page.
#[must_use]
pub fn show(trace: &Trace<'_>) -> String {
    // `<` could end the element that the data is in; JSON has another way to write it.
    let data = data(trace).to_string().replace('<', "\\u003c");
    let title = if trace.title.is_empty() {
        "ntsim".to_owned()
    } else {
        format!("{} · ntsim", trace.title)
    };
    PAGE.replace("{{title}}", &escape(&title))
        .replace("{{style}}", STYLE)
        .replace("{{script}}", SCRIPT)
        .replace("{{data}}", &data)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// Texts that occur often, each once.
#[derive(Default)]
struct Texts {
    numbers: std::collections::HashMap<String, usize>,
    texts: Vec<String>,
}

impl Texts {
    fn number(&mut self, text: &str) -> usize {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        self.texts.push(text.to_owned());
        self.numbers.insert(text.to_owned(), self.texts.len() - 1);
        self.texts.len() - 1
    }
}

/// What the page draws. Lines and bars are arrays, since there are many:
/// `[time, lane, irql, depth, kind, text, context]` and `[kind, name, first, last, depth, open]`.
fn data(trace: &Trace<'_>) -> Value {
    let timeline = Timeline::of(trace);
    let mut texts = Texts::default();
    let lines: Vec<Value> = (trace.lines.iter())
        .zip(&timeline.lane_of)
        .map(|(line, lane)| {
            let kind = line.what.kind_number();
            let text = texts.number(&line.what.to_string());
            json!([
                line.time,
                lane,
                line.irql,
                line.depth,
                kind,
                text,
                line.context
            ])
        })
        .collect();
    let lanes: Vec<Value> = (timeline.lanes.iter())
        .map(|lane| {
            let bars: Vec<Value> = (lane.bars.iter())
                .map(|bar| {
                    let name = texts.number(&bar.name);
                    let kind = bar.kind as usize;
                    json!([kind, name, bar.first, bar.last, bar.depth, usize::from(bar.open)])
                })
                .collect();
            json!({ "name": lane.name, "kind": lane.kind.name(), "bars": bars, "marks": lane.marks })
        })
        .collect();
    let stop = trace.stop.as_ref().map(|stop| {
        json!({
            "time": stop.time, "name": stop.name, "message": stop.message,
            "context": stop.context, "report": stop.report,
        })
    });
    json!({
        "title": trace.title,
        "seed": trace.seed.to_string(),
        "strategy": trace.strategy,
        "places": timeline.places,
        "texts": texts.texts,
        "lines": lines,
        "lanes": lanes,
        "stop": stop,
    })
}
