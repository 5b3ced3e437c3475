//! `audit`: is anything lost, doubled or stale? Through the running pipeline where there is one (it may hold the embedded log and
//! stores), else on transport, stores, sources and graph themselves.

use std::sync::Arc;
use std::time::Duration;

use tributary_dsl::plan::Plan;
use tributary_event::Health;
use tributary_event::clock::now_us;
use tributary_indexer::audit::{self, Audit, Scope, Subject};

use crate::backends;
use crate::cli::exit::Failure;
use crate::cli::output::line;
use crate::definition::{self, PipelineFile};
use crate::run::record::{self, expect_ok};

/// The indexes of a pipeline that does not run here.
fn subjects(plan: &Arc<Plan>) -> Result<Vec<Subject>, Failure> {
    let graph = backends::graph(plan, true)?;
    let mut roots = backends::roots(plan, &graph, &Health::default(), true)?;
    let mut subjects = Vec::new();
    for index in &plan.indexes {
        let store = backends::store_for_reading(plan, index)?;
        if let Some(roots) = roots.remove(&index.name) {
            subjects.push(Subject { plan: index.clone(), store, roots, graph: graph.clone() });
        }
    }
    Ok(subjects)
}

/// `audit`.
pub async fn audit(file: &PipelineFile, since: Duration, documents: usize, json: bool) -> Result<(), Failure> {
    let draft = definition::read(file).await?;
    draft.text_is_right()?;
    let definition = draft.definition();
    let since_ms = now_us() / 1_000 - i64::try_from(since.as_millis()).unwrap_or(i64::MAX / 2);
    let scope = Scope { since_ms, documents };
    let audit: Audit = match record::find(definition.data(), definition.pipeline()).await {
        Some(running) => {
            let parameters = [("since_ms", since_ms.to_string()), ("documents", documents.to_string())];
            let answer = expect_ok(running.get_slowly("/audit", &parameters).await?)?;
            serde_json::from_value(answer)
                .map_err(|e| Failure::Stopped(format!("the running pipeline answered something else: {e}")))?
        }
        None => {
            let plan = Arc::new(draft.load().await?);
            let transport = backends::transport(draft.definition()).await?;
            // Streams alone have topics to look at, and no graph.
            let subjects = if plan.indexes.is_empty() { Vec::new() } else { subjects(&plan)? };
            let audited = audit::audit(&plan, &transport, &subjects, scope).await;
            audited.map_err(|e| Failure::of(e.class, e.message))?
        }
    };
    if json {
        line(&serde_json::to_string_pretty(&audit).unwrap_or_default());
    } else {
        table(&audit).iter().for_each(|text| line(text));
    }
    if audit.is_well() { Ok(()) } else { Err(Failure::Stopped("the audit found what is told above".into())) }
}

/// An audit as people read it.
fn table(audit: &Audit) -> Vec<String> {
    let width = audit.topics.iter().map(|topic| topic.topic.len()).max().unwrap_or(0).max(5);
    let mut lines = vec![format!(
        "{:width$}  {:>10}  {:>8}  {:>8}  {:>8}  {:>10}",
        "TOPIC", "RECORDS", "MISSING", "DOUBLED", "LATE", "UNNUMBERED"
    )];
    for topic in &audit.topics {
        lines.push(format!(
            "{:width$}  {:>10}  {:>8}  {:>8}  {:>8}  {:>10}",
            topic.topic, topic.records, topic.missing, topic.doubled, topic.reordered, topic.unnumbered
        ));
        lines.extend(topic.findings.iter().map(|finding| format!("  {finding}")));
    }
    let width = audit.indexes.iter().map(|index| index.index.len()).max().unwrap_or(0).max(5);
    lines.push(String::new());
    lines.push(format!(
        "{:width$}  {:>10}  {:>10}  {:>9}  {:>8}  {:>8}  {:>8}  {:>8}",
        "INDEX", "ROOTS", "DOCUMENTS", "SET ASIDE", "MISSING", "EXTRA", "COMPARED", "STALE"
    ));
    for index in &audit.indexes {
        lines.push(format!(
            "{:width$}  {:>10}  {:>10}  {:>9}  {:>8}  {:>8}  {:>8}  {:>8}",
            index.index,
            index.roots,
            index.documents,
            index.set_aside,
            index.missing,
            index.extra,
            index.compared,
            index.stale
        ));
        lines.extend(index.named.iter().map(|named| format!("  {named}")));
    }
    lines
}
