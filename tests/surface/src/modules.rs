// SPDX-License-Identifier: MIT OR Apache-2.0

//! The module core: a module of each open policy, children, locks, callbacks,
//! modules made at run time.

use core::marker::PhantomData;

use dmf::device::AssignResources;
use dmf::irql::Level;
use dmf::module::{
    Callback, Client, Close, Create, DynamicInstance, Function, Instance, Link, LockKind, Locked,
    ModuleConfig, ModuleConfigExt, Open, OpenPolicy, Register, Signature, Spin, TakenAt,
    Unregister, Wait,
};
use dmf::prelude::*;
use dmf::wdf::{InternalIoctl, Offer, QueueCallback, Request};

use crate::tell::Teller;
use crate::{Surface, hooks::hooks, interface};

const POLICIES: [OpenPolicy; 7] = [
    OpenPolicy::Create,
    OpenPolicy::PrepareHardware,
    OpenPolicy::D0EntrySystemPowerUp,
    OpenPolicy::D0Entry,
    OpenPolicy::NotifyPrepareHardware,
    OpenPolicy::NotifyD0Entry,
    OpenPolicy::NotifyCreate,
];

/// A part of the device that opens by the policy of this number.
#[derive(Clone)]
pub struct Part<const P: usize>(Link<PartState<P>>);

pub struct PartState<const P: usize> {
    sum: Handle<Sum<Spin>>,
    asked: Callback<Asked>,
}

struct PartConfig<O: 'static, const P: usize>(Function<O, Asked>);

/// What a part asks of its owner.
#[derive(Debug)]
pub enum Asked {}

impl Signature for Asked {
    type Arguments<'a> = &'a str;
    type Output = usize;
}

impl<const P: usize> Module for Part<P> {
    type Instance = PartState<P>;
    fn over(instance: Link<PartState<P>>) -> Self {
        Part(instance)
    }
}

impl<const P: usize> Part<P> {
    /// Asks the owner, and adds the answer up.
    pub fn ask(&self, irql: &mut Irql<'_, Passive>, question: &str) -> Result<usize> {
        let this = self.0.enter()?;
        let mut argument = question;
        let answer = this.asked.call(&mut argument)?;
        this.sum.add(irql, answer)
    }
}

impl<O: Send + Sync + 'static, const P: usize> ModuleConfig<O> for PartConfig<O, P> {
    type Module = Part<P>;
    fn create(self, cx: &mut Create<'_, O, PartState<P>>) -> Result<PartState<P>> {
        Ok(PartState {
            asked: cx.bind::<Asked>(self.0),
            sum: cx.module(SumConfig::<Spin>(PhantomData))?,
        })
    }
}

impl<const P: usize> Instance for PartState<P> {
    const OPEN: OpenPolicy = POLICIES[P];

    fn open(&self, _: &mut Open<'_>) -> Result {
        dmf::println!("{:?}: open", Self::OPEN);
        Ok(())
    }
    fn closing(&self) {
        dmf::println!("{:?}: closing", Self::OPEN);
    }
    fn close(&self, _: &mut Close<'_>) {
        dmf::println!("{:?}: close", Self::OPEN);
    }
    fn register(&self, cx: &mut Register<'_>) -> Result {
        let opener = cx.opener();
        dmf::println!("{:?}: register: {:?}", Self::OPEN, opener.open(cx.irql()));
        Ok(())
    }
    fn unregister(&self, _: &mut Unregister<'_>) {
        dmf::println!("{:?}: unregister", Self::OPEN);
    }
    fn assign_resources(&self, cx: &mut AssignResources<'_>) -> Result {
        let _ = cx.resources();
        dmf::println!("{:?}: assign", Self::OPEN);
        Ok(())
    }
    fn prepare_hardware(&self, cx: &mut PrepareHardware<'_>) -> Result {
        dmf::println!("{:?}: prepare {}", Self::OPEN, cx.assigned().len());
        Ok(())
    }
    fn d0_entry(&self, cx: &mut D0Entry<'_>) -> Result {
        dmf::println!("{:?}: from {}", Self::OPEN, cx.previous_state());
        Ok(())
    }
    fn self_managed_io_init(&self, _: &mut SelfManagedIoInit<'_>) -> Result {
        dmf::println!("{:?}: io init", Self::OPEN);
        Ok(())
    }
    fn surprise_removal(&self, _: &mut SurpriseRemoval<'_>) {
        dmf::println!("{:?}: gone", Self::OPEN);
    }
    hooks!(format_args!("{:?}", Self::OPEN));

    fn internal_device_control(
        &self,
        _: &mut QueueCallback<'_>,
        request: Request<InternalIoctl>,
    ) -> Offer<InternalIoctl> {
        if P != 3 {
            return Offer::Declined(request);
        }
        dmf::println!("{:?}: internal from {:?}", Self::OPEN, request.requestor());
        request.on(interface::DOUBLE, |value| {
            value.checked_mul(2).ok_or(NtStatus::INTEGER_OVERFLOW)
        })
    }
}

/// Adds up behind a lock of the client's choice. Can be made at run time.
#[derive(Clone)]
pub struct Sum<K: LockKind>(Link<SumState<K>>);

pub struct SumState<K: LockKind>(Locked<usize, K>);

struct SumConfig<K>(PhantomData<K>);

impl<K: LockKind> Module for Sum<K> {
    type Instance = SumState<K>;
    fn over(instance: Link<SumState<K>>) -> Self {
        Sum(instance)
    }
}

impl<K: LockKind> Sum<K> {
    pub fn add<L: Level>(&self, irql: &mut Irql<'_, L>, value: usize) -> Result<usize>
    where
        K: TakenAt<L>,
    {
        let this = self.0.enter()?;
        Ok(this.0.lock(irql, |sum, _| {
            *sum += value;
            *sum
        }))
    }
}

impl<O, K: LockKind> ModuleConfig<O> for SumConfig<K> {
    type Module = Sum<K>;
    fn create(self, _: &mut Create<'_, O, SumState<K>>) -> Result<SumState<K>> {
        Ok(SumState(Locked::new(0)?))
    }
}

impl<K: LockKind> DynamicInstance for SumState<K> {
    fn open(&self, _: &mut Open<'_>) -> Result {
        dmf::println!("sum: open");
        Ok(())
    }
    fn close(&self, _: &mut Close<'_>) {
        dmf::println!("sum: close");
    }
}

/// The parts.
pub struct Parts {
    create: Handle<Part<0>>,
    prepare: Handle<Part<1>>,
    system: Handle<Part<2>>,
    d0: Handle<Part<3>>,
    notified_prepare: Handle<Part<4>>,
    notified_d0: Handle<Part<5>>,
    notified_create: Handle<Part<6>>,
}

impl Parts {
    pub fn new(add: &mut Modules<'_, Surface>) -> Result<Self> {
        Ok(Self {
            create: add.module(PartConfig(Surface::asked))?,
            prepare: add.module(PartConfig(Surface::asked).named("the prepared part"))?,
            system: add.module(PartConfig(Surface::asked))?,
            d0: add.module(
                PartConfig(Surface::asked)
                    .named("the D0 part")
                    .post_open(Surface::opened)
                    .pre_close(Surface::closes),
            )?,
            notified_prepare: add.module(PartConfig(Surface::asked))?,
            notified_d0: add.module(PartConfig(Surface::asked))?,
            notified_create: add.module(PartConfig(Surface::asked))?,
        })
    }
}

impl Surface {
    fn asked(&self, question: &mut &str) -> usize {
        dmf::println!("asked: {question}");
        question.len()
    }
    fn opened(&self, cx: &mut Client<'_, Part<3>>) {
        let part = cx.module().clone();
        dmf::println!("opened: {:?}", part.ask(cx.irql(), "opened?"));
    }
    fn closes(&self, cx: &mut Client<'_, Part<3>>) {
        let part = cx.module().clone();
        dmf::println!("closes: {:?}", part.ask(cx.irql(), "closes?"));
    }
}

pub fn modules(me: &Surface, irql: &mut Irql<'_, Passive>, tell: &mut Teller) -> Result {
    let parts = &me.parts;
    tell.value("names", (parts.prepare.name(), parts.d0.name()));
    tell.value("create", parts.create.ask(irql, "a"));
    tell.value("prepare", parts.prepare.ask(irql, "ab"));
    tell.value("system", parts.system.ask(irql, "abc"));
    tell.value("d0", parts.d0.ask(irql, "abcd"));
    tell.value(
        "notified prepare",
        parts.notified_prepare.ask(irql, "abcde"),
    );
    tell.value("notified d0", parts.notified_d0.ask(irql, "abcdef"));
    tell.value(
        "notified create",
        parts.notified_create.ask(irql, "abcdefg"),
    );
    let slow = me.owner.create(irql, SumConfig::<Wait>(PhantomData))?;
    tell.value("made", slow.add(irql, 5));
    let kept = slow.handle().clone();
    slow.close(irql);
    tell.value("closed", kept.add(irql, 5));
    let fast = me.owner.create(irql, SumConfig::<Spin>(PhantomData))?;
    tell.value("made", fast.add(irql, 6));
    drop(fast);
    Ok(())
}
