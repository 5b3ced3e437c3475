//! The first span of a change's trace: from its commit until its event is durable.

use tributary_event::ChangeEvent;
use tributary_event::clock::now_us;
use tributary_event::traces::{self, Context, Span, SpanKind};

/// A capture that is traced, and not durable yet.
pub(crate) struct Traced {
    context: Context,
    table: String,
    op: char,
    sequence: u64,
    commit_us: i64,
}

impl Traced {
    /// That of an event, if its change is traced.
    pub(crate) fn of(event: &ChangeEvent) -> Option<Self> {
        let context = traces::of_change(event)?;
        let table = format!("{}.{}", event.table.schema, event.table.name);
        // A row that was read by a dump has no commit of its own.
        let commit_us = if event.commit_us > 0 { event.commit_us } else { event.capture_us };
        Some(Self { context, table, op: event.op.letter(), sequence: event.sequence, commit_us })
    }

    /// It is durable.
    pub(crate) fn end(self, source: &str) {
        let Self { context, table, op, sequence, commit_us } = self;
        let attributes = vec![
            ("tributary.source", source.to_owned()),
            ("tributary.table", table.clone()),
            ("tributary.op", op.to_string()),
            ("tributary.sequence", sequence.to_string()),
        ];
        traces::record(Span {
            context,
            parent: None,
            name: format!("capture {table}"),
            kind: SpanKind::Producer,
            begun_us: commit_us,
            // The database's clock may be ahead of ours.
            ended_us: now_us().max(commit_us),
            attributes,
            error: None,
        });
    }
}
