//! What people see: progress of first builds, one line a change, and log lines that do not tear them apart.

use std::io::{IsTerminal, Write};
use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tributary_indexer::engine::IndexHandle;
use tributary_indexer::report::{ChangeReport, Verdicts};

fn bars() -> &'static MultiProgress {
    static BARS: OnceLock<MultiProgress> = OnceLock::new();
    BARS.get_or_init(MultiProgress::new)
}

/// Writes log lines to standard error, above the progress bars.
#[derive(Debug, Clone, Copy)]
pub struct LogWriter;

impl<'a> tracing_subscriber::fmt::MakeWriter<'a> for LogWriter {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        Self
    }
}

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        bars().suspend(|| std::io::stderr().write_all(bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

/// Prints a line on standard output, above the progress bars. A closed pipe is no reason to panic.
pub fn line(text: &str) {
    bars().suspend(|| {
        let _ = writeln!(std::io::stdout(), "{text}");
    });
}

/// One change, in one line.
pub fn change(report: &ChangeReport) -> String {
    let documents = |n: u64| if n == 1 { "1 document".to_owned() } else { format!("{n} documents") };
    let mut parts = Vec::new();
    for (n, what) in [
        (report.built, "built"),
        (report.unchanged, "unchanged"),
        (report.deleted, "deleted"),
        (report.dead_letters, "set aside"),
        (report.elsewhere, "in other processes"),
    ] {
        if n > 0 {
            parts.push(format!("{n} {what}"));
        }
    }
    if parts.is_empty() {
        return format!("{}  {} → no document affected", report.label, report.index);
    }
    let (affected, ms) = (documents(report.affected), report.latency.as_millis());
    format!("{}  {} → {affected}: {}, searchable after {ms} ms", report.label, report.index, parts.join(", "))
}

/// What became of documents that were not built, to go behind the number of those that were.
fn others(verdicts: Verdicts) -> String {
    let mut text = String::new();
    for (n, what) in [(verdicts.deleted, "not in the graph"), (verdicts.set_aside, "set aside")] {
        if n > 0 {
            text.push_str(&format!(", {n} {what}"));
        }
    }
    text
}

/// How often progress is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// So many looks in a row must find no build waiting: the number is up to half a second old.
const IDLE_LOOKS: u32 = 10;
/// The same where other processes may have built what this one asked for. While a group of consumers forms, the number can
/// be older.
const IDLE_LOOKS_OF_OTHERS: u32 = 300;

/// Shows the first build of an index until it is over. On no terminal it prints a line every few seconds.
pub async fn show_first_build(index: IndexHandle) {
    let progress = &index.context.reports.progress;
    let name = index.context.plan.name.clone();
    let terminal = std::io::stderr().is_terminal();
    let started = std::time::Instant::now();
    let mut bar: Option<ProgressBar> = None;
    let mut ticks = 0_u64;
    let mut idle = 0;
    loop {
        let (listed, verdicts) = (progress.listed.load(Ordering::Acquire), progress.verdicts());
        let finished = verdicts.all();
        let listing = progress.listing.load(Ordering::Acquire);
        let total = progress.expected.load(Ordering::Acquire).max(listed);
        // Of a listing that was interrupted, a part was built by an earlier process, and a part of what is built now was asked
        // for by it.
        let resumed = progress.resumed.load(Ordering::Acquire);
        let all = !listing && finished >= listed.saturating_sub(resumed);
        idle = if !listing && index.builds_waiting() == Some(0) { idle + 1 } else { 0 };
        let at_once = all && resumed == 0 && listed > 0;
        if at_once || all && idle >= IDLE_LOOKS || idle >= IDLE_LOOKS_OF_OTHERS {
            if let Some(bar) = bar.take() {
                bar.finish_and_clear();
            }
            if finished == 0 {
                return;
            }
            let seconds = started.elapsed().as_secs_f64();
            line(&format!(
                "{name}: {} documents built{} in {seconds:.1} s ({:.0}/s); following the log",
                verdicts.built,
                others(verdicts),
                finished as f64 / seconds
            ));
            return;
        }
        if listed > 0 && (listing || finished < listed) {
            if terminal {
                let bar = bar.get_or_insert_with(|| new_bar(&name, total));
                bar.set_length(total);
                bar.set_position(finished);
                bar.set_message(others(verdicts));
            } else if ticks.is_multiple_of(50) {
                line(&format!("{name}: {} of {total} documents built{}", verdicts.built, others(verdicts)));
            }
        }
        ticks += 1;
        tokio::time::sleep(LOOK).await;
    }
}

fn new_bar(name: &str, total: u64) -> ProgressBar {
    let bar = bars().add(ProgressBar::new(total));
    let template = "{prefix} {wide_bar} {pos}/{len} documents{msg}, {per_sec}, {eta} left";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_prefix(name.to_owned());
    bar
}
