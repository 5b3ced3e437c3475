//! `x demo --streams`: a stream of budget rises, told with what services know, in a topic, a webhook, files, a table and an index.
//!
//! Everything of a run lies in `target/demo`, as that of the other demo: the pipeline as it is run, its data, and the Parquet files.

mod event;
mod found;
mod outside;
mod scenario;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use tokio::process::Child;

use self::outside::{Mood, Outside};
use super::{Demo, binary, relative, stop, tributary, until_ended};
use crate::interrupt::unless_interrupted;
use crate::tools::repository;

/// The pipeline's name.
const PIPELINE: &str = "movie-streams";
/// The pipeline, what it asks the catalog for, and its cases.
const COMMITTED: [&str; 3] = ["streams.yaml", "titles.graphql", "streams.cases.yaml"];

/// What the demo of streams has around it, and its process.
struct Site {
    demo: Demo,
    outside: Outside,
    pipeline: PathBuf,
    process: Child,
    /// Whether no line is printed for a change.
    quiet: bool,
}

/// Runs the demo of streams on servers that run; they are stopped at its end.
pub(super) async fn run(demo: Demo, once: bool) -> Result<ExitCode> {
    let outside = Outside::start(if once { Mood::Moody } else { Mood::Reliable }).await?;
    println!("  {:<14} {}/prices, and a receiver of webhooks at /raised", "prices", outside.url());
    prepare(&demo).await?;
    let pipeline = write(&demo, &outside)?;
    println!("$ {} run {}\n", relative(&binary()), relative(&pipeline));
    let process = start(&pipeline, once, &outside)?;
    let mut site = Site { demo, outside, pipeline, process, quiet: once };
    let result = match once {
        true => unless_interrupted(Box::pin(scenario::run(&mut site))).await,
        false => follow(&mut site).await,
    };
    site.stop().await?;
    site.demo.service.stop().await;
    site.demo.servers.stop().await?;
    result
}

impl Site {
    /// Starts the process again.
    fn start(&mut self) -> Result<()> {
        // What it said of the one that was killed is not true of this one.
        let _ = std::fs::remove_file(self.data().join(format!("{PIPELINE}.running.json")));
        self.process = start(&self.pipeline, self.quiet, &self.outside)?;
        Ok(())
    }

    /// Ends the process in good order, if it runs.
    async fn stop(&mut self) -> Result<()> {
        stop(&mut self.process).await
    }

    fn data(&self) -> PathBuf {
        self.demo.folder.join("data")
    }

    fn files(&self) -> PathBuf {
        self.demo.folder.join("files")
    }
}

fn start(pipeline: &std::path::Path, quiet: bool, outside: &Outside) -> Result<Child> {
    let mut arguments = vec!["run".to_owned(), pipeline.display().to_string()];
    arguments.extend(quiet.then(|| "--quiet".to_owned()));
    tributary(&arguments, &[(SECRET, outside.secret())])
}

/// Lets the log have former values, and makes a schema for what is derived.
async fn prepare(demo: &Demo) -> Result<()> {
    const SQL: &str = "ALTER TABLE movie REPLICA IDENTITY FULL; CREATE SCHEMA derived";
    let (client, connection) = tokio_postgres::connect(&demo.database_url, tokio_postgres::NoTls).await?;
    let driving = tokio::spawn(connection);
    client.batch_execute(SQL).await.with_context(|| SQL.to_owned())?;
    drop(client);
    driving.await?.context("closing the connection")
}

/// Writes the pipeline with this run's addresses, and what it needs, into the demo's folder; answers its path.
fn write(demo: &Demo, outside: &Outside) -> Result<PathBuf> {
    let committed = repository().join("compose/demo");
    let mut paths = Vec::new();
    for name in COMMITTED {
        let text =
            std::fs::read_to_string(committed.join(name)).with_context(|| format!("reading the demo's {name}"))?;
        let values = [
            ("STUDIO_URL", demo.database_url.clone()),
            ("GRAPH_URL", demo.service.url()),
            ("OUTSIDE_URL", outside.url()),
            ("FILES", demo.folder.join("files").display().to_string()),
            ("TRIBUTARY_LISTEN", "127.0.0.1:0".to_owned()),
            ("TRIBUTARY_DATA", demo.folder.join("data").display().to_string()),
        ];
        let path = demo.folder.join(name);
        std::fs::write(&path, fill(&text, &values)?).with_context(|| format!("writing {}", path.display()))?;
        paths.push(path);
    }
    std::fs::write(demo.folder.join("database-url"), &demo.database_url).context("writing the database's address")?;
    paths.into_iter().next().context("the demo has no pipeline")
}

/// The variable with the webhook's secret, which may not stand in the file.
const SECRET: &str = "WEBHOOK_SECRET";

/// The text with a value in place of each `${NAME}` or `${NAME:-otherwise}`, but for the secret.
fn fill(text: &str, values: &[(&str, String)]) -> Result<String> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let Some((variable, behind)) = after.split_once('}') else { bail!("a ${{ without a }} behind it") };
        let name = variable.split(":-").next().unwrap_or_default();
        if name == SECRET {
            filled += &format!("{before}${{{variable}}}");
            rest = behind;
            continue;
        }
        let Some((_, value)) = values.iter().find(|(known, _)| *known == name) else {
            bail!("the demo has no value for ${{{name}}}; give it one in xtask/src/demo/streams/mod.rs");
        };
        filled += before;
        filled += value;
        rest = behind;
    }
    Ok(filled + rest)
}

/// Shows what to try and runs until interrupted, or until `tributary` ends by itself.
async fn follow(site: &mut Site) -> Result<ExitCode> {
    let (client, connection) = tokio_postgres::connect(&site.demo.database_url, tokio_postgres::NoTls).await?;
    let driving = tokio::spawn(connection);
    unless_interrupted(scenario::until_captured(&client, site)).await?;
    drop(client);
    driving.await?.context("closing the connection")?;
    let (tributary, pipeline) = (relative(&binary()), relative(&site.pipeline));
    let (folder, files) = (relative(&site.demo.folder), relative(&site.files()));
    println!(
        "
Try, in another terminal:
  ./x sql \"UPDATE movie SET budget_usd = budget_usd + 2000000 WHERE id = 1144\"
  ./x sql \"UPDATE movie SET budget_usd = budget_usd * 1.1 WHERE title LIKE 'Star Wars%'\"
  ./x sql \"SELECT id, title, budget_usd, rise_usd, ticket_usd FROM derived.raised\"
  {tributary} search {pipeline} raised 'title:alien'
  {tributary} tap {pipeline} raised/told
  {tributary} plan {pipeline}
  {tributary} test {pipeline} {folder}/streams.cases.yaml
  find {files} -name '*.parquet'
Every webhook that arrives prints a line here. Ctrl-C stops everything.
"
    );
    until_ended(&mut site.process).await
}

#[cfg(test)]
mod tests {
    use super::fill;

    #[test]
    fn variables_are_filled_in() {
        let values = [("A", "1".to_owned())];
        assert_eq!(fill("x ${A} ${A:-b:-c}/y", &values).expect("filled"), "x 1 1/y");
        assert!(fill("${B}", &values).expect_err("unknown").to_string().contains("${B}"));
    }
}
