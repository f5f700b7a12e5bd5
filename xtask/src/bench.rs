// SPDX-License-Identifier: MIT OR Apache-2.0

//! `cargo xtask bench`: what a driver on dmf costs, beside one in C that does
//! the same by hand; with `--throughput`, how fast the simulator is
//! (`benches/throughput`).
//!
//! Both images run in the same simulator. What is compared is counted, so it is
//! the same on every machine and every run: instructions inside of the image,
//! bytes of pool for each instance, bytes of the image. `benches/README.md` says
//! what the drivers do.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use ntsim::count::Instructions;
use ntsim::registry::{Value, Volatility};
use ntsim::store::MachineDir;
use ntsim::{File, Machine, Settings, Strategy};
use object::{Object, ObjectSection};
use serde::Serialize;

use crate::ToolchainOption;
use crate::image::{self, Built, Profile};
use crate::setup::{self, ImageToolchain};

/// Both drivers' hardware id, service and device interface.
const HARDWARE_ID: &str = r"Root\DmfBench";
const PARAMETERS: &str = r"\Registry\Machine\System\CurrentControlSet\Services\DmfBench\Parameters";
const INTERFACE: &str = "{3f9be6c2-64a7-4c55-9b8e-08d3a7d1f201}";

/// `CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800 + n, METHOD_BUFFERED, FILE_ANY_ACCESS)`.
const fn control(n: u32) -> u32 {
    0x22 << 16 | (0x800 + n) << 2
}
const NOTHING: u32 = control(0);
const ABORT: u32 = control(1);
const EXECUTE: u32 = control(2);

/// The goal: how many instructions a driver on dmf executes for one of the other.
const GOAL: f64 = 1.25;
/// What the tests hold deferred execution to: another compiler gives other counts.
const ROOM: f64 = 1.3;
/// Bytes of DMF's `AlertableSleep` for one event, of which a quarter may be used.
const DMF_ALERTABLE_SLEEP: u64 = 2_200;
/// Bytes of DMF's `ScheduledTask`, of which half may be used. See `benches/README.md`.
const DMF_SCHEDULED_TASK: u64 = 2_800;

const EXAMPLES: &str = "Examples:
  cargo xtask bench                       a driver on dmf beside one in C, counted
  cargo xtask bench --profile             and which functions the instructions are in
  cargo xtask bench --throughput          how fast the simulator is, beside Shuttle
  cargo xtask bench --throughput --only calls";

/// Compare a driver on dmf with one in C: instructions, pool and image size.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Bench {
    /// Measure the simulator instead: schedules, lives, calls, timers, pool, memory
    #[arg(long, conflicts_with = "profile")]
    throughput: bool,
    /// Of the simulator, only the sections whose name contains this
    #[arg(long, value_name = "TEXT", requires = "throughput")]
    only: Option<String>,
    /// Tell the figures as JSON on standard output
    #[arg(long)]
    json: bool,
    /// Show which functions the instructions of each operation are in
    #[arg(long)]
    profile: bool,
    #[command(flatten)]
    toolchain: ToolchainOption,
}

impl Bench {
    /// Does the job; fails if a figure is over the limit that the tests hold it to.
    pub fn execute(&self, workspace: &Path) -> Result<ExitCode> {
        let tools = setup::ensure_image_toolchain(workspace, self.toolchain.toolchain)?;
        if self.throughput {
            return self.throughput(workspace, &tools);
        }
        let (c, rust) = measure_both(workspace, &tools)?;
        let rows = compare(&c, &rust);
        if self.json {
            println!("{}", serde_json::to_string_pretty(&rows)?);
        } else {
            print_table(&rows);
        }
        if self.profile {
            for (c, rust) in c.operations.iter().zip(&rust.operations) {
                println!("\n{}", c.name);
                for (language, operation) in [("C", c), ("Rust", rust)] {
                    for (function, count) in &operation.functions {
                        println!("  {language:<4} {count:>6}  {function}");
                    }
                }
            }
        }
        let over: Vec<_> = rows.iter().filter(|row| row.is_over()).collect();
        for row in &over {
            eprintln!("over the limit: {}", row.what);
        }
        Ok(if over.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

impl Bench {
    /// Runs the program that measures the simulator, with an image of the sensor.
    fn throughput(&self, workspace: &Path, tools: &ImageToolchain) -> Result<ExitCode> {
        let built = image::build_driver(workspace, tools, "sensor", Profile::Driver)?;
        let inf = built.inf.context("the package sensor has no .inx file")?;
        let mut command = Command::new("cargo");
        command.current_dir(workspace).args([
            "run",
            "--release",
            "--package=throughput",
            "--",
            "--sensor",
        ]);
        command.arg(inf);
        if let Some(only) = &self.only {
            command.args(["--only", only]);
        }
        if self.json {
            command.arg("--json");
        }
        let status = command.status().context("cannot start cargo")?;
        Ok(if status.success() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

/// Checks the limits, as a part of the test suite.
///
/// # Errors
/// Names what is over its limit.
pub fn check(workspace: &Path, tools: &ImageToolchain) -> Result<()> {
    let (c, rust) = measure_both(workspace, tools)?;
    let rows = compare(&c, &rust);
    print_table(&rows);
    let over: Vec<_> = rows
        .iter()
        .filter(|row| row.is_over())
        .map(|row| row.what.as_str())
        .collect();
    if over.is_empty() {
        Ok(())
    } else {
        bail!(
            "over the limit: {}; `cargo xtask bench --profile` tells where the instructions are",
            over.join(", ")
        )
    }
}

/// What one driver costs.
struct Measured {
    operations: Vec<Operation>,
    /// Bytes of pool for one more instance.
    sleep_bytes: usize,
    task_bytes: usize,
    text_bytes: u64,
    image_bytes: u64,
}

struct Operation {
    name: &'static str,
    held: Option<f64>,
    count: u64,
    /// By function, the most expensive first; negative where the request alone costs more.
    functions: Vec<(String, i64)>,
}

/// One line of the comparison.
#[derive(Serialize)]
struct Row {
    what: String,
    unit: &'static str,
    c: u64,
    rust: u64,
    ratio: f64,
    /// What `rust` should be at most.
    goal: Option<u64>,
    /// What it may be at most: the goal, or a little more than it is now.
    held: Option<u64>,
}

impl Row {
    fn is_over(&self) -> bool {
        self.held.is_some_and(|held| self.rust > held)
    }

    fn misses_goal(&self) -> bool {
        self.goal.is_some_and(|goal| self.rust > goal)
    }
}

fn measure_both(workspace: &Path, tools: &ImageToolchain) -> Result<(Measured, Measured)> {
    let c = image::build_c_driver(workspace, tools, &workspace.join("benches/c"), "bench_c")?;
    let rust = image::build_driver(workspace, tools, "bench_rust", Profile::Driver)?;
    let measured = |built: &Built| {
        image::verify(&built.sys)?;
        measure(built).with_context(|| format!("measuring {}", built.sys.display()))
    };
    Ok((measured(&c)?, measured(&rust)?))
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "counts far below 2^53"
)]
fn compare(c: &Measured, rust: &Measured) -> Vec<Row> {
    let row = |what: &str, unit, c: u64, rust: u64, limit: Option<(u64, u64)>| Row {
        what: what.to_owned(),
        unit,
        c,
        rust,
        ratio: rust as f64 / c as f64,
        goal: limit.map(|(goal, _)| goal),
        held: limit.map(|(_, held)| held),
    };
    let both = |limit: u64| Some((limit, limit));
    let operations = c.operations.iter().zip(&rust.operations).map(|(c, rust)| {
        let times = |ratio: f64| (c.count as f64 * ratio) as u64;
        let limit = c.held.map(|held| (times(GOAL), times(held)));
        row(c.name, "instructions", c.count, rust.count, limit)
    });
    let mut rows: Vec<_> = operations.collect();
    rows.extend([
        row(
            "one more AlertableSleep",
            "bytes of pool",
            c.sleep_bytes as u64,
            rust.sleep_bytes as u64,
            both(DMF_ALERTABLE_SLEEP / 4),
        ),
        row(
            "one more ScheduledTask",
            "bytes of pool",
            c.task_bytes as u64,
            rust.task_bytes as u64,
            both(DMF_SCHEDULED_TASK / 2),
        ),
        row("code (.text)", "bytes", c.text_bytes, rust.text_bytes, None),
        row("image", "bytes", c.image_bytes, rust.image_bytes, None),
    ]);
    rows
}

fn print_table(rows: &[Row]) {
    println!(
        "{:<36} {:>13} {:>7} {:>7} {:>6} {:>7}",
        "", "unit", "C", "Rust", "ratio", "goal"
    );
    for row in rows {
        let goal = row.goal.map_or(String::new(), |goal| goal.to_string());
        let verdict = if row.is_over() {
            "  over the limit"
        } else if row.misses_goal() {
            "  not met"
        } else {
            ""
        };
        println!(
            "{:<36} {:>13} {:>7} {:>7} {:>6.2} {:>7}{verdict}",
            row.what, row.unit, row.c, row.rust, row.ratio, goal
        );
    }
}

/// Counts everything of one driver.
fn measure(built: &Built) -> Result<Measured> {
    let inf = built
        .inf
        .as_deref()
        .context("the driver has no .inx file")?;
    let bytes = std::fs::read(&built.sys)
        .with_context(|| format!("cannot read {}", built.sys.display()))?;
    let parsed = object::File::parse(&*bytes)?;
    let text = parsed
        .section_by_name(".text")
        .context("no section .text")?
        .size();
    let one = pool(inf, 1, 1)?;
    Ok(Measured {
        operations: operations(inf)?,
        sleep_bytes: pool(inf, 2, 1)? - one,
        task_bytes: pool(inf, 1, 2)? - one,
        text_bytes: text,
        image_bytes: bytes.len() as u64,
    })
}

/// The pool that a device with so many instances has when it is started.
fn pool(inf: &Path, sleeps: u32, tasks: u32) -> Result<usize> {
    let mut bench = Machinery::new(inf, false)?;
    for (name, count) in [("Sleeps", sleeps), ("Tasks", tasks)] {
        let registry = bench.machine.registry_mut();
        let key = registry.create(PARAMETERS, Volatility::Persistent)?;
        registry.set_value(key, name, Value::dword(count))?;
    }
    bench.machine.start_device(&bench.device)?;
    Ok(bench.machine.pool().bytes)
}

/// Counts the instructions of each operation.
fn operations(inf: &Path) -> Result<Vec<Operation>> {
    let mut bench = Machinery::new(inf, true)?;
    let mut operations = Vec::new();
    let seconds = Duration::from_secs;

    bench.measure(
        &mut operations,
        "load the driver, start the device",
        None,
        |bench| Ok(bench.machine.start_device(&bench.device)?),
    )?;
    let file = bench.machine.open(INTERFACE)?;
    // Everything has been done once, and the sleeper sleeps.
    for code in [NOTHING, ABORT, EXECUTE] {
        bench.ioctl(file, code)?;
    }
    let nothing = bench.count(|bench| bench.ioctl(file, NOTHING))?;
    for (name, code, held) in [
        ("sleep, abort, reset: round trip", ABORT, GOAL),
        ("deferred execution, on demand", EXECUTE, ROOM),
    ] {
        bench.measure_beyond(&nothing, &mut operations, name, held, |bench| {
            bench.ioctl(file, code)
        })?;
    }
    bench.machine.close(file)?;
    ensure!(bench.machine.now() < seconds(1), "the timers have begun");
    let now = |bench: &Machinery| bench.machine.now().as_secs_f64();
    for (name, until, held) in [
        ("deferred, after the initial delay", 2, ROOM),
        ("deferred, retry", 4, ROOM),
        ("deferred, retry with success", 6, ROOM),
        ("persistent, first run", 15, 1.4),
        ("persistent, retry with success", 25, 1.65),
    ] {
        let time = Duration::from_secs_f64(f64::from(until) - now(&bench));
        bench.measure(&mut operations, name, Some(held), |bench| {
            Ok(bench.machine.run_for(time)?)
        })?;
    }
    bench.measure(&mut operations, "D0Exit, D0Entry", None, |bench| {
        bench.machine.power_down(&bench.device)?;
        Ok(bench.machine.power_up(&bench.device)?)
    })?;
    bench.machine.reboot()?;
    bench.machine.start_device(&bench.device)?;
    bench.machine.run_for(seconds(8))?;
    bench.measure(
        &mut operations,
        "persistent, has run before",
        Some(1.5),
        |bench| Ok(bench.machine.run_for(seconds(10))?),
    )?;
    let device = bench.device.clone();
    bench.machine.remove_device(&device)?;
    Ok(operations)
}

/// A machine with the driver installed and its device plugged in.
struct Machinery {
    machine: Machine,
    device: String,
}

impl Machinery {
    fn new(inf: &Path, count: bool) -> Result<Self> {
        let mut machine = Machine::boot(
            MachineDir::in_memory(),
            Settings {
                // The same order of things for both drivers.
                strategy: Strategy::RoundRobin,
                trace: false,
                count_instructions: count,
                symbol_path: inf.parent().map(PathBuf::from).into_iter().collect(),
                ..Settings::for_images()
            },
        );
        machine.install(inf)?;
        let device = machine.plug_in(HARDWARE_ID)?;
        Ok(Self { machine, device })
    }

    fn ioctl(&mut self, file: File, code: u32) -> Result<()> {
        let completion = self.machine.ioctl(file, code, &[], 0)?;
        ensure!(
            completion.is_success(),
            "control code {code:#x}: status {:#x}",
            completion.status
        );
        // Until the sleeper sleeps again, and the work item has run.
        Ok(self.machine.run_for(Duration::ZERO)?)
    }

    fn instructions(&self) -> Result<Instructions> {
        self.machine
            .instructions()
            .context("instructions are counted on x86-64 Linux only")
    }

    /// The instructions of one operation.
    fn count(&mut self, operation: impl FnOnce(&mut Self) -> Result<()>) -> Result<Instructions> {
        let before = self.instructions()?;
        operation(self)?;
        Ok(self.instructions()?.since(&before))
    }

    fn measure(
        &mut self,
        operations: &mut Vec<Operation>,
        name: &'static str,
        held: Option<f64>,
        operation: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<()> {
        let counted = self.count(operation)?;
        operations.push(Operation {
            name,
            held,
            count: counted.total(),
            functions: self.by_function(&counted),
        });
        Ok(())
    }

    /// The same, without what the request that asks for it costs by itself.
    fn measure_beyond(
        &mut self,
        request: &Instructions,
        operations: &mut Vec<Operation>,
        name: &'static str,
        held: f64,
        operation: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<()> {
        self.measure(operations, name, Some(held), operation)?;
        if let Some(operation) = operations.last_mut() {
            operation.count = operation.count.saturating_sub(request.total());
            let mut functions: BTreeMap<_, _> = operation.functions.drain(..).collect();
            for (function, count) in self.by_function(request) {
                *functions.entry(function).or_default() -= count;
            }
            operation.functions = functions
                .into_iter()
                .filter(|(_, count)| *count != 0)
                .collect();
            operation
                .functions
                .sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        }
        Ok(())
    }

    fn by_function(&self, counted: &Instructions) -> Vec<(String, i64)> {
        let functions = self.machine.by_function(counted).into_iter();
        functions
            .map(|(function, count)| (function, count.cast_signed()))
            .collect()
    }
}
