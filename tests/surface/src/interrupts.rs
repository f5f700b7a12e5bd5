// SPDX-License-Identifier: MIT OR Apache-2.0

//! Interrupts: one at the device's IRQL, one that is handled at `PASSIVE_LEVEL`,
//! one that is chosen among the resources.

use dmf::prelude::*;
use dmf::wdf::{
    Affinity, Claim, Interrupt, InterruptConfig, InterruptDpc, InterruptWork, Isr, Priority,
    Sharing,
};

use crate::Surface;
use crate::tell::Teller;

dmf::isr_state! {
    /// What an ISR counts.
    #[derive(Debug, Default)]
    pub struct Counts {
        raised: u32,
        enabled: bool,
    }
}

#[derive(Debug)]
pub struct Lines {
    line: Interrupt<Counts>,
    slow: Interrupt<u32, Passive>,
    chosen: Interrupt<u32>,
}

impl Lines {
    pub fn new(add: &mut Modules<'_, Surface>) -> Result<Self> {
        let line = InterruptConfig::new(isr)
            .policy(Affinity::All, Priority::High)
            .dpc(Surface::served)
            .enable(|cx| {
                cx.state().enabled = true;
                Ok(())
            })
            .disable(|cx| {
                cx.state().enabled = false;
                Ok(())
            });
        let slow = InterruptConfig::passive(slow_isr)
            .sharing(Sharing::Exclusive)
            .work_item(Surface::worked_off);
        let chosen = InterruptConfig::new(|cx: &mut Isr<'_, u32>| {
            *cx.state() += 1;
            Claim::Mine
        });
        Ok(Self {
            line: Interrupt::new(add, line, Counts::default())?,
            slow: Interrupt::new(add, slow, 0)?,
            chosen: Interrupt::declare(add, chosen, 0)?,
        })
    }

    /// Takes the third interrupt.
    pub fn prepare(&self, cx: &PrepareHardware<'_>) {
        let resources = cx.assigned();
        for resource in resources.iter() {
            dmf::println!("resource: {:?} {:?}", resource.raw, resource.translated);
        }
        dmf::println!("no resource: {:?}", resources.get(99).is_none());
        for index in [0, 99, 4, 3] {
            dmf::println!("chosen {index}: {:?}", self.chosen.create(cx, index));
        }
    }
}

fn isr(cx: &mut Isr<'_, Counts>) -> Claim {
    cx.state().raised += 1;
    let _ = cx.defer();
    Claim::Mine
}

fn slow_isr(cx: &mut Isr<'_, u32, Passive>) -> Claim {
    let (count, irql) = cx.parts();
    dmf::sync::delay(irql, Duration::from_millis(1));
    *count += 1;
    let count = *count;
    dmf::println!("slow isr: {count}, {:?}", cx.defer());
    Claim::Mine
}

impl Surface {
    fn served(&self, _: &mut InterruptDpc<'_>) {
        let raised = self.lines.line.with(|counts| counts.raised);
        dmf::println!("interrupt dpc: {raised}");
    }
    fn worked_off(&self, cx: &mut InterruptWork<'_>) {
        let count = self.lines.slow.with_passive(cx.irql(), |count| *count);
        dmf::println!("interrupt work item: {count}");
    }
}

pub fn interrupts(me: &Surface, irql: &mut Irql<'_, Passive>, tell: &mut Teller) -> Result {
    let lines = &me.lines;
    tell.value("line", lines.line.info());
    tell.value("slow", lines.slow.info());
    tell.value("chosen", lines.chosen.info());
    tell.value(
        "raised",
        lines.line.with(|counts| (counts.raised, counts.enabled)),
    );
    lines
        .line
        .with_value(5, |counts, more: u32| counts.raised += more);
    tell.value("raised", lines.line.with(|counts| counts.raised));
    tell.value("slow", lines.slow.with_passive(irql, |count| *count));
    tell.value("chosen", lines.chosen.with(|count| *count));
    tell.value("inactive", lines.line.report_inactive());
    tell.value("active", lines.line.report_active());
    Ok(())
}
