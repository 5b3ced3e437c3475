//! The command line: what can be said, with help that teaches it; how a command begins (`entry`), what people see of it (`output`, `logs`),
//! and how it ends (`exit`).

mod entry;
pub mod exit;
pub mod logs;
pub mod output;

pub use self::entry::cli;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Keeps search indexes in step with databases.
#[derive(Debug, Parser)]
#[command(name = "tributary", version, arg_required_else_help = true, after_long_help = EXAMPLES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// How log lines look. By default text on a terminal, JSON elsewhere.
    #[arg(long, global = true, value_enum, env = "TRIBUTARY_LOG_FORMAT")]
    pub log_format: Option<LogFormat>,
    /// What is logged: a level (error, warn, info, debug, trace), or per module (info,tributary_connector=debug).
    /// Left out, info; of `test`, nothing.
    #[arg(long, global = true, env = "TRIBUTARY_LOG")]
    pub log: Option<String>,
}

impl Cli {
    /// What is logged.
    pub fn log_filter(&self) -> &str {
        let usual = if matches!(self.command, Command::Test { .. }) { "off" } else { "info" };
        self.log.as_deref().unwrap_or(usual)
    }
}

const EXAMPLES: &str = "\
A pipeline is a YAML file that names databases, a GraphQL endpoint and indexes, with one GraphQL query per index.
A first hour usually goes:

  tributary init --graph URL --source URL   proposes pipeline.yaml and its query
  tributary check pipeline.yaml          is it right? every error at once, each with its place and remedy
  tributary plan pipeline.yaml           what would run: mappings, queries, how each edge finds its parents
  tributary run pipeline.yaml            build every document, then follow the databases' logs
  tributary search pipeline.yaml movies 'title:alien'
  tributary get pipeline.yaml movies 42
  tributary dlq list pipeline.yaml       what was set aside, and why
  tributary reload pipeline.yaml         what it says of streams now, without a new start
  tributary test pipeline.yaml cases.yaml   do streams make of changes what they should?
  tributary tap pipeline.yaml priced     what flows through a stream, step by step
  tributary audit pipeline.yaml          is anything lost, doubled or stale?
  tributary resume-deletes pipeline.yaml movies   lets deletes go on that wait because they are many

Exit codes: 0 done; 1 stopped by an error while running, or an audit found something; 2 wrong usage; 3 the pipeline has errors;
4 a server could not be reached; 5 not found (the pipeline file, a document, a dead letter).";

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Propose a pipeline from a graph's schema and a database's keys: pipeline.yaml, and the query of its index.
    ///
    /// Writes the files, and checks them. The database's URL is not written: pipeline.yaml has ${DATABASE_URL} in its place.
    Init {
        /// URL of the GraphQL endpoint.
        #[arg(long)]
        graph: String,
        /// URL of the database: postgres://user:password@host/database, or mysql://user:password@host/database.
        #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
        source: String,
        /// The GraphQL type whose objects are the documents. Left out, the one that most tables refer to.
        #[arg(long)]
        root: Option<String>,
        /// A header for the graph, such as "authorization: Bearer …". May come several times.
        #[arg(long)]
        header: Vec<String>,
        /// The folder to write to.
        #[arg(long, default_value = ".")]
        folder: PathBuf,
    },
    /// Check a pipeline against its graph's schema, its tables and their ids, and say everything that is wrong with it.
    Check(Pipeline),
    /// Show what a pipeline would run: mappings, queries, and how each edge finds its parents.
    Plan(Pipeline),
    /// Draw a pipeline, from its tables to its indexes.
    Graph {
        /// Which one.
        #[command(flatten)]
        pipeline: Pipeline,
        /// Mermaid for documentation pages, DOT for Graphviz.
        #[arg(long, value_enum, default_value = "mermaid")]
        format: GraphFormat,
    },
    /// Run a pipeline: build what is new, then follow the databases' logs until stopped.
    Run {
        /// Which one.
        #[command(flatten)]
        pipeline: Pipeline,
        /// Print no line per change (the log still says what goes wrong).
        #[arg(long)]
        quiet: bool,
        /// End where the graph cannot be asked for its schema (exit code 4), or refuses our queries or us (exit code 1).
        /// Without this it is waited for, as it may be in the middle of a deployment.
        #[arg(long)]
        fail_fast: bool,
        /// Reload when the pipeline's file, or one that it names, changes: as the command `reload` does.
        #[arg(long)]
        watch: bool,
    },
    /// Build every document of an index again.
    ///
    /// A running pipeline is asked to do it; otherwise it is done here, and the command ends when every document is built.
    Reindex {
        /// Which one.
        #[command(flatten)]
        pipeline: Pipeline,
        /// The index; all of them if left out.
        index: Option<String>,
    },
    /// Let deletes go on that wait because they are too many.
    ///
    /// Documents are deleted as the graph does not know them any more. If that is said of too many within a minute (`brake` of the
    /// index), they are set aside instead, for the graph may be wrong. This asks for them once more and deletes those that it
    /// still does not know; for ten minutes no number is too large then.
    ResumeDeletes {
        /// Which one.
        #[command(flatten)]
        pipeline: Pipeline,
        /// The index; all of them if left out.
        index: Option<String>,
    },
    /// See whether anything is lost: compare sources, topics and indexes.
    ///
    /// Of the topics of tables: whether records of the last while are missing, came twice or late, by their running numbers. Of each
    /// index: roots without a document, documents without a root, and whether documents are what the graph answers now. What differs
    /// is looked at twice, ten seconds apart, for a pipeline is never quite at rest. Exit code 1 if anything is wrong.
    Audit {
        /// Which one.
        #[command(flatten)]
        pipeline: Pipeline,
        /// How far back topics are looked at: 1h, 7d.
        #[arg(long, default_value = "1d", value_parser = tributary_dsl::duration)]
        since: Duration,
        /// Documents of each index whose content is compared: so many from all over it, and so many whose root changed. 0 is none.
        #[arg(long, default_value_t = 500)]
        documents: usize,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Search an index.
    Search {
        /// Which one.
        #[command(flatten)]
        pipeline: Pipeline,
        /// The index.
        index: String,
        /// What to find, in Lucene's syntax: title:alien AND distributor.name:Fox. Left out, everything.
        #[arg(default_value = "*")]
        query: String,
        /// Hits to skip.
        #[arg(long, default_value_t = 0)]
        from: usize,
        /// Hits to show.
        #[arg(long, default_value_t = 10)]
        size: usize,
    },
    /// Show a document of an index.
    Get {
        /// Which one.
        #[command(flatten)]
        pipeline: Pipeline,
        /// The index.
        index: String,
        /// The document's id.
        id: String,
    },
    /// Let a running pipeline take what its file says of streams, services and tables now.
    ///
    /// What is the same goes on. A stream that says something else, or asks a service that does, stops and begins anew where it was,
    /// also one whose sink does not answer. Everything else in the file needs a new start, which is said. SIGHUP does the same, and run --watch does it at each change of the file.
    Reload {
        /// Which one.
        #[command(flatten)]
        pipeline: Pipeline,
        /// Only say what would be done, and why; exit code 1 if it would be refused.
        #[arg(long)]
        dry_run: bool,
    },
    /// Run cases of streams: which changes come, what services answer, what is to come of it.
    ///
    /// The engine is the one that runs pipelines; it runs on an embedded log in a folder of its own, by a clock of its own, and asks no
    /// server. Exit code 1 if a case fails.
    Test {
        /// Which one.
        #[command(flatten)]
        pipeline: Pipeline,
        /// Files with cases.
        #[arg(required_unless_present = "stream")]
        cases: Vec<PathBuf>,
        /// Only cases with these words in their name.
        #[arg(long)]
        only: Option<String>,
        /// Kill the stream again and again on the way: what comes of a case must be the same.
        #[arg(long, conflicts_with = "record")]
        crash: bool,
        /// Write cases to this file, with what services answer and what comes of it: of changes that flow through a running pipeline
        /// (--stream), or of cases that lack answers, for which the services are asked.
        #[arg(long, value_name = "FILE")]
        record: Option<PathBuf>,
        /// The stream of the running pipeline whose changes are recorded.
        #[arg(long, requires = "record", conflicts_with = "cases")]
        stream: Option<String>,
        /// How many of them.
        #[arg(long, requires = "stream", default_value_t = 1)]
        count: usize,
    },
    /// Watch what flows through the steps of streams, live.
    ///
    /// A running pipeline costs nothing for it while nobody looks. A line for each event and step: → it goes on, × it ends here, ! the
    /// step failed for it.
    Tap {
        /// Which one.
        #[command(flatten)]
        pipeline: Pipeline,
        /// A stream, or a step of one: priced, priced/filter-1, priced/from. Left out, all of them.
        target: Option<String>,
        /// Only events of which this is true, in VRL: '.after.id == 7'.
        #[arg(long = "where", value_name = "CONDITION")]
        condition: Option<String>,
        /// Events a second at most; how many were left out is said.
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
        rate: u32,
        /// End after so many.
        #[arg(long)]
        count: Option<u64>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Dead letters: what was set aside after its last try, with its cause.
    #[command(subcommand)]
    Dlq(Dlq),
    /// Print the JSON Schema of pipelines, for editors: tributary schema > pipeline.schema.json
    Schema,
    /// Print a completion script for a shell: tributary completions bash > /etc/bash_completion.d/tributary
    Completions {
        /// The shell.
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
}

/// What to do with dead letters.
#[derive(Debug, Subcommand)]
pub enum Dlq {
    /// List them.
    List(Pipeline),
    /// Show one whole.
    Show {
        /// Which one.
        #[command(flatten)]
        pipeline: Pipeline,
        /// Its id, as listed.
        id: String,
    },
    /// Give letters up: they are taken out, and nothing is done about them. What waits behind one in a stream waits until it is replayed.
    Discard {
        /// Which one.
        #[command(flatten)]
        pipeline: Pipeline,
        /// Their ids, as listed.
        #[arg(required = true)]
        ids: Vec<String>,
    },
    /// Try again what was set aside. Name letters, or say --all.
    Replay {
        /// Which one.
        #[command(flatten)]
        pipeline: Pipeline,
        /// Their ids, as listed.
        #[arg(required_unless_present = "all")]
        ids: Vec<String>,
        /// Every letter.
        #[arg(long, conflicts_with = "ids")]
        all: bool,
    },
}

/// Which pipeline.
#[derive(Debug, Clone, Args)]
pub struct Pipeline {
    /// The pipeline's YAML file.
    #[arg(value_name = "PIPELINE")]
    pub file: PathBuf,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines: one JSON object a line.
    Json,
}

/// The languages of `graph`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum GraphFormat {
    /// Mermaid.
    Mermaid,
    /// Graphviz.
    Dot,
}
