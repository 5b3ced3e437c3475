//! Services and streams in `tributary plan`: what each step does, and what each sink guarantees.

use std::fmt::Write;

use tributary_expression::Program;

use super::public_url;
use super::text::{block, leaf_name, line, size, store, time};
use crate::keys::streams::MAX_EVENT;
use crate::plan::{
    CallPlan, ConductorFlavor, ConductorPlan, DeliveryOrder, DeliveryPlan, EnrichPlan, FileFormat, Keep, LeafType,
    LookupTable, Missing, OnError, Origin, ServiceKind, ServicePlan, SinkPlan, Start, Step, StepPlan, StreamInput,
    StreamPlan, TopicSink, Wait, WebhookFormat,
};

pub(super) fn service(out: &mut String, service: &ServicePlan) {
    let kind = match service.kind {
        ServiceKind::Graphql => "GraphQL",
        ServiceKind::Rest => "HTTP",
    };
    line(out, 0, format_args!("\nservice {} ({kind}): {}", service.name, public_url(&service.url)));
    let mut limits = format!("at most {} requests at a time, {} each", service.concurrency, time(service.timeout));
    if let Some(rate) = service.rate {
        let _ = write!(limits, ", {} in {}", rate.requests, time(rate.per));
    }
    let breaker = &service.breaker;
    let slow = breaker.slow.map_or_else(String::new, |slow| format!(" or are slower than {}", time(slow)));
    let window = time(breaker.window);
    line(out, 1, format_args!("{limits}"));
    line(
        out,
        1,
        format_args!(
            "left alone for {} when {} % of the requests of {window} fail{slow}",
            time(breaker.pause),
            breaker.failures
        ),
    );
}

pub(super) fn stream(out: &mut String, stream: &StreamPlan) {
    let inputs: Vec<String> = stream.from.iter().map(StreamInput::shown).collect();
    line(out, 0, format_args!("\nstream {} of {}", stream.name, inputs.join(", ")));
    let letters: Vec<String> = stream.ops.iter().map(|op| op.letter().to_string()).collect();
    let is_of_tables = stream.from.iter().all(|input| matches!(input.origin, Origin::Table { .. }));
    let start = match (stream.start, is_of_tables) {
        (Start::Now, true) => "what changes from now on",
        (Start::Now, false) => "what comes from now on",
        (Start::First, true) => "the first change that its topics still have",
        (Start::First, false) => "the first record that its topic still has",
    };
    let changes = if is_of_tables { format!("changes: {}; ", letters.join(", ")) } else { String::new() };
    line(out, 1, format_args!("{changes}begins with {start}"));
    if stream.max_event != MAX_EVENT.left_out.0 {
        line(out, 1, format_args!("events of at most {}", size(stream.max_event)));
    }
    for step in &stream.steps {
        self::step(out, step, stream.on_error);
    }
    for sink in &stream.topics {
        topic(out, sink);
    }
    for delivery in &stream.deliveries {
        self::delivery(out, delivery);
    }
}

fn fails(step: &Step, of_stream: OnError) -> &'static str {
    match step.on_error.unwrap_or(of_stream) {
        OnError::Stop => "stands still where it fails",
        OnError::DeadLetter => "sets aside what it fails for, and later events of its key",
    }
}

fn step(out: &mut String, step: &Step, on_error: OnError) {
    let name = &step.name;
    match &step.plan {
        StepPlan::Changed(columns) => line(out, 1, format_args!("{name}: updates of {}", columns.join(", "))),
        StepPlan::Filter(program) | StepPlan::Transform(program) => {
            let fails = if program.can_fail() { format!(" ({})", fails(step, on_error)) } else { String::new() };
            line(out, 1, format_args!("{name}{fails}:"));
            block(out, program.text().trim_end());
        }
        StepPlan::Split { each, into } => line(out, 1, format_args!("{name}: an event for each of {each}, as {into}")),
        StepPlan::Call(plan) => {
            let (into, function) = (&plan.into, plan.function.name());
            let with: Vec<&str> = plan.with.iter().map(|program| program.text().trim()).collect();
            let becomes = if into.is_root() { "the event becomes".to_owned() } else { format!("{into} is") };
            let with = with.join(", ");
            line(out, 1, format_args!("{name}: {becomes} {function}({with}) ({})", fails(step, on_error)));
            line(out, 2, format_args!("{}", plan.function));
        }
        StepPlan::Enrich(plan) => enrich(out, step, plan, on_error),
        StepPlan::Dedupe(plan) => {
            let (within, fails) = (time(plan.within), fails(step, on_error));
            let ends = format!("an event ends here if one of its key came less than {within} before");
            line(out, 1, format_args!("{name}: {ends}, in its partition ({fails})"));
            line(
                out,
                2,
                format_args!("key: {}; memory for each partition: {}", plan.by.text().trim(), size(plan.limit)),
            );
        }
        StepPlan::Collapse(plan) => {
            let (period, fails) = (time(plan.period), fails(step, on_error));
            let last = format!("of the events of a key within {period} the last flows on");
            line(out, 1, format_args!("{name}: {last}, in its partition ({fails})"));
            let held = format!("at most {} events of each partition are held, or {}", plan.keys, size(plan.limit));
            line(out, 2, format_args!("key: {}; {held}", plan.by.text().trim()));
        }
        StepPlan::Lookup(plan) => {
            let (table, into) = (&plan.table, &plan.into);
            let fails = fails(step, on_error);
            line(out, 1, format_args!("{name}: {into} is what {table} has ({fails}); {}", missing(plan.missing)));
            line(out, 2, format_args!("key: {}", plan.key.text().trim()));
            let wait = match plan.wait {
                Wait::Nothing => "as it is then: eventually it has what the source changed before the event",
                Wait::Position => "once it has all changes before the event's own",
            };
            line(out, 2, format_args!("{wait}"));
        }
    }
}

fn enrich(out: &mut String, step: &Step, plan: &EnrichPlan, on_error: OnError) {
    let (service, into) = (&plan.service, &plan.into);
    line(out, 1, format_args!("{}: {service} is asked ({}); its answer is {into}", step.name, fails(step, on_error)));
    line(out, 2, format_args!("key: {}", plan.key.text().trim()));
    let together = match plan.call.is_list() {
        true => format!("up to {} keys at a time, gathered for {}", plan.batch.max, time(plan.batch.linger)),
        false => "one key at a time".to_owned(),
    };
    let cached = match &plan.cache {
        Some(cache) => format!("answers are kept for {}, absence for {}", time(cache.ttl), time(cache.missing)),
        None => "no answer is kept".to_owned(),
    };
    line(out, 2, format_args!("{together}; {cached}; {}", missing(plan.missing)));
    match &plan.call {
        CallPlan::Graphql { query, .. } => block(out, query.trim_end()),
        CallPlan::Rest { shown, body, .. } => {
            let body = body.as_ref().map_or_else(String::new, |body| format!(" {}", body.text().trim()));
            block(out, &format!("{shown}{body}"));
        }
    }
}

fn missing(missing: Missing) -> &'static str {
    match missing {
        Missing::Keep => "an event of an unknown key flows on with null",
        Missing::Drop => "an event of an unknown key ends here",
        Missing::Error => "an unknown key is a failure",
    }
}

pub(super) fn table(out: &mut String, table: &LookupTable) {
    let place = match table.keep {
        Keep::Memory => "in memory",
        Keep::Disk => "on disk",
    };
    let (name, limit) = (&table.name, size(table.limit));
    match &table.captured {
        Some(captured) => {
            let columns = match captured.columns.as_slice() {
                [] => "all columns".to_owned(),
                columns => columns.join(", "),
            };
            line(out, 0, format_args!("\ntable {name} of {}: whole {place}, by its key: {columns}", captured.table));
        }
        None => {
            let key = table.key.as_ref().map_or("the record's key".to_owned(), |key| key.text().trim().to_owned());
            line(out, 0, format_args!("\ntable {name} of the topic {}: whole {place}, by {key}", table.topic));
        }
    }
    let old = table.max_age.map(|age| format!("; down when its newest change is older than {}", time(age)));
    line(out, 1, format_args!("at most {limit}{}", old.unwrap_or_default()));
}

fn topic(out: &mut String, sink: &TopicSink) {
    let key = sink.key.as_ref().map_or("the key that it came with".to_owned(), |key| key.text().trim().to_owned());
    let kept = if sink.compact { ", compacted" } else { "" };
    let headers = if sink.cloud_events { ", with CloudEvents headers" } else { "" };
    line(out, 1, format_args!("to topic {}{kept}{headers}: exactly once; key: {key}", sink.name));
    when(out, sink.when.as_ref());
}

fn when(out: &mut String, when: Option<&Program>) {
    if let Some(when) = when {
        line(out, 2, format_args!("when {}", when.text().trim()));
    }
}

fn delivery(out: &mut String, delivery: &DeliveryPlan) {
    let name = &delivery.name;
    let order = match delivery.order {
        DeliveryOrder::Key => "in order for each key",
        DeliveryOrder::Partition => "in order for each partition, one at a time",
        DeliveryOrder::None => "in any order",
    };
    let refused = match delivery.on_error {
        OnError::Stop => "what it refuses is tried until it takes it",
        OnError::DeadLetter if delivery.order == DeliveryOrder::None => "what it refuses is set aside",
        OnError::DeadLetter => "what it refuses is set aside, and later events of its key",
    };
    match &delivery.sink {
        SinkPlan::Webhook(plan) => {
            let url = host(plan.url.reveal());
            let format = match plan.format {
                WebhookFormat::Plain => "plain JSON",
                WebhookFormat::CloudEventsBinary => "CloudEvents (binary)",
                WebhookFormat::CloudEventsStructured => "CloudEvents",
            };
            let signed = match plan.secrets.len() {
                0 => "not signed".to_owned(),
                1 => "signed".to_owned(),
                n => format!("signed by {n} secrets"),
            };
            line(out, 1, format_args!("to {name} at {url}: at least once, with the same id at every try, {order}"));
            line(out, 2, format_args!("{format}, {signed}; {}; {refused}", tried(delivery)));
        }
        SinkPlan::Sql(plan) => {
            let (table, key) = (&plan.table, plan.row.key.join(", "));
            line(out, 1, format_args!("to {name}, the table {table} by {key}: exactly once"));
            let create = if plan.create { "made and widened as needed" } else { "taken as it is" };
            line(
                out,
                2,
                format_args!("the table is {create}; a row that was deleted is known for {}", time(plan.keep_deleted)),
            );
            line(out, 2, format_args!("{refused}"));
            if let Some(row) = &plan.row.row {
                block(out, row.text().trim_end());
            }
        }
        SinkPlan::Index(plan) => {
            let (store, key) = (store(&plan.store), plan.row.key.join(", "));
            let order = if delivery.order == DeliveryOrder::Key { String::new() } else { format!(", {order}") };
            line(out, 1, format_args!("to the index {name} in {store} by {key}: of each row the newest{order}"));
            let field = |(name, leaf): &(String, LeafType)| format!("{name}: {}", leaf_name(leaf));
            let fields: Vec<String> = plan.fields.iter().map(field).collect();
            line(out, 2, format_args!("{}", fields.join(", ")));
            line(out, 2, format_args!("{refused}"));
            if let Some(row) = &plan.row.row {
                block(out, row.text().trim_end());
            }
        }
        SinkPlan::Conductor(plan) => conductor(out, delivery, plan, order, refused),
        SinkPlan::Files(plan) => {
            let format = match plan.format {
                FileFormat::JsonLines => "JSON lines",
                FileFormat::Parquet => "Parquet",
            };
            line(out, 1, format_args!("to {name} in {}: exactly once", plan.place));
            line(out, 2, format_args!("{format}; a file for about {}, or {}", size(plan.size), time(plan.every)));
        }
    }
    when(out, delivery.when.as_ref());
}

fn conductor(out: &mut String, delivery: &DeliveryPlan, plan: &ConductorPlan, order: &str, refused: &str) {
    let (name, url, workflow) = (&delivery.name, host(plan.url.reveal()), &plan.workflow);
    let version = plan.version.map_or("latest version".to_owned(), |version| format!("version {version}"));
    let (server, guarantee) = match plan.flavor {
        ConductorFlavor::Orkes => ("Orkes", "at least once; one workflow for an event, as the server keeps its key"),
        ConductorFlavor::Oss => ("open source", "at least once; a workflow may start twice where the look-up lags"),
    };
    line(out, 1, format_args!("to {name} at {url}, the workflow {workflow} ({version}): {guarantee}"));
    let settle = match plan.flavor {
        ConductorFlavor::Orkes => String::new(),
        ConductorFlavor::Oss => format!(", looks up after {}", time(plan.settle)),
    };
    line(out, 2, format_args!("Conductor ({server}){settle}; {order}; {}; {refused}", tried(delivery)));
    if plan.dry_run {
        line(out, 2, format_args!("dry run: nothing is started; what would be is logged and counted"));
    }
    if let Some(input) = &plan.input {
        block(out, input.text().trim_end());
    }
}

/// How long an event is tried.
fn tried(delivery: &DeliveryPlan) -> String {
    delivery.redelivery.within.map_or("tried for ever".to_owned(), |within| format!("tried for {}", time(within)))
}

/// Of a URL what is no secret: a path may hold a token.
fn host(url: &str) -> String {
    let public = public_url(url);
    let (scheme, rest) = public.split_once("://").unwrap_or(("", &public));
    format!("{scheme}://{}", rest.split('/').next().unwrap_or_default())
}
