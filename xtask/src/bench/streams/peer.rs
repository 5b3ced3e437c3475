//! Benthos' core, the engine of Redpanda Connect: built of its module with a small program around it (`benthos.go`).
//!
//! Batches of a thousand, and as many threads as there are cores, are what it is quickest with. It promises less: a file is not forced to
//! the disk, and records of topics come at least once.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tokio::process::Command;
use tributary_stack::{cache_folder, run_command};

use super::{Run, output, said};

const PROGRAM: &str = include_str!("benthos.go");
const MODULE: &str = "module peer\n\ngo 1.25\n\nrequire (\n\tgithub.com/redpanda-data/benthos/v4 v4.76.0\n\tgithub.com/twmb/franz-go v1.22.3\n)\n";

/// What our filter that drops does.
pub(super) const DROPS: &str = "root = if this.after.runtime_min != 1 { deleted() }";
/// What our filter and program that map do.
pub(super) const MAPS: &str = r#"root = if this.after.imdb_votes == 0 { deleted() } else { {"id": this.after.id, "title": this.after.title, "votes": this.after.imdb_votes} }"#;

/// The program, built.
pub(super) struct Peer(PathBuf);

impl Peer {
    /// Builds it, unless it is there.
    pub async fn build() -> Result<Self> {
        let folder = cache_folder()?.join("benthos-4.76.0");
        std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let program = folder.join("peer");
        let is_there = std::fs::read_to_string(folder.join("main.go")).is_ok_and(|text| text == PROGRAM);
        if !is_there || !program.exists() {
            println!("building Benthos …");
            std::fs::write(folder.join("go.mod"), MODULE).context("writing go.mod")?;
            std::fs::write(folder.join("main.go"), PROGRAM).context("writing main.go")?;
            for words in [&["mod", "tidy"][..], &["build", "-o", "peer", "."]] {
                let mut go = Command::new("go");
                go.args(words).current_dir(&folder);
                run_command(go, "Go 1.25 or later is needed, and its proxy of modules must be reached").await?;
            }
        }
        Ok(Self(program))
    }

    /// Runs a stream to its end.
    pub async fn run(&self, folder: &Path, config: &str) -> Result<Run> {
        let file = folder.join("benthos.yaml");
        std::fs::write(&file, config).with_context(|| format!("writing {}", file.display()))?;
        said(&output(Command::new(&self.0).arg(&file)).await?)
    }
}

/// A stream of lines of a file into another one.
pub(super) fn of_lines(mapping: &str, from: &Path, to: &Path) -> String {
    let input = format!(
        "  broker:\n    inputs: [{{ file: {{ paths: [{from:?}], scanner: {{ lines: {{ }} }} }} }}]\n    batching: {{ count: 1000 }}\n"
    );
    config(&input, mapping, &format!("  file: {{ path: {to:?}, codec: lines }}\n"))
}

/// A stream of so many records of a topic into another one.
pub(super) fn of_topics(mapping: &str, brokers: &str, from: &str, to: &str, events: u32) -> String {
    let input = format!("  topic: {{ brokers: {brokers:?}, topic: {from:?}, events: {events} }}\n");
    config(&input, mapping, &format!("  topic: {{ brokers: {brokers:?}, topic: {to:?} }}\n"))
}

fn config(input: &str, mapping: &str, output: &str) -> String {
    format!(
        "input:\n{input}pipeline:\n  processors:\n    - mapping: |\n        {mapping}\noutput:\n{output}logger: {{ level: ERROR }}\n"
    )
}
