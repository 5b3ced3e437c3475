//! `steps:` of a stream.

use tributary_event::{ColumnType, JsonType};
use tributary_expression::{Content, Path, Program, Shape};

use super::answers::{self, Answers};
use super::lookups::{content, never_found, waits_in_vain};
use super::programs::{looking, program};
use super::queries::{KeyQuery, look};
use super::remembering::{self, Ground};
use super::{Asked, calls, columns};
use crate::diagnostic::Spot;
use crate::keys::streams::{self, steps as key};
use crate::keys::values::NameOf;
use crate::plan::{
    BatchSettings, CacheSettings, CallPlan, EnrichPlan, LookupPlan, LookupTable, Missing, ServiceKind, ServicePlan,
    Step, StepPlan, StreamInput, Wait,
};
use crate::suggest::suggestion;
use crate::yaml::{At, Map, Reader, Text};

/// What names of steps begin with that were given none.
const WORDS: [&str; 9] = ["changed", "filter", "transform", "enrich", "lookup", "call", "split", "dedupe", "collapse"];

/// The steps, and the shape of what comes out of the last one, if all could be read.
pub(super) fn read(
    r: &mut Reader,
    stream: &Map,
    first: Option<Shape>,
    asked: &Asked,
    ground: &Ground,
) -> (Vec<Step>, Option<Shape>) {
    let (mut steps, mut shape): (Vec<Step>, _) = (Vec::new(), first);
    let path = stream.path_of(streams::STEPS.name);
    for (place, node) in r.optional(stream, &streams::STEPS).into_iter().flatten().enumerate() {
        let at = At { path: &path, key: None, example: "{ filter: .op == \"c\" }" };
        let Some(map) = r.map(&node, at, &key::STEP) else {
            shape = None;
            continue;
        };
        let given = r.optional(&map, &key::NAME);
        let on_error = r.optional(&map, &key::ON_ERROR);
        let (plan, left) = step(r, &map, shape.as_ref(), asked, &steps, ground);
        known_columns(r, &map, ground.from);
        shape = left;
        let given = given.filter(|given| NameOf::STEP.check(r, &given.value, &given.shown, &given.spot));
        let Some(plan) = plan else { continue };
        let name = match given {
            Some(given) => {
                let is_usual = WORDS.iter().any(|word| {
                    let number = given.value.strip_prefix(word).and_then(|rest| rest.strip_prefix('-'));
                    number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
                });
                if is_usual || given.value == "from" {
                    let message = format!("`{}` is what a step without a name is called", given.shown);
                    r.found.push(given.spot.error(message).help("give it a name of its own, such as `only-released`"));
                }
                if steps.iter().any(|step| step.name == given.value) {
                    let message = format!("two steps have the name `{}`", given.shown);
                    r.found.push(given.spot.error(message).help("give one of the two another name"));
                }
                given.value
            }
            None => format!("{}-{}", plan.word(), place + 1),
        };
        steps.push(Step { name, plan, on_error });
    }
    (steps, shape)
}

/// A step, and what it leaves, as far as both are known.
fn step(
    r: &mut Reader,
    map: &Map,
    shape: Option<&Shape>,
    asked: &Asked,
    before: &[Step],
    ground: &Ground,
) -> (Option<StepPlan>, Option<Shape>) {
    if let Some(text) = r.optional(map, &key::FILTER) {
        let compiled = filter(r, &text, shape);
        let left = shape.filter(|_| compiled.is_some()).cloned();
        return (compiled.map(StepPlan::Filter), left);
    }
    if let Some(text) = r.optional(map, &key::TRANSFORM) {
        let compiled = transform(r, &text, shape);
        let left = compiled.as_ref().map(Program::leaves);
        return (compiled.map(StepPlan::Transform), left);
    }
    if let Some(columns) = r.optional(map, &key::CHANGED) {
        let columns = columns.into_iter().map(|column| column.value).collect();
        return (Some(StepPlan::Changed(columns)), shape.cloned());
    }
    if let Some(split) = r.optional(map, &key::SPLIT) {
        let each = r.required(&split, &key::SPLIT_EACH);
        let into = r.required(&split, &key::SPLIT_INTO).and_then(|(path, text)| {
            let read: Vec<String> = each.iter().map(|(each, _)| each.to_string()).collect();
            below(r, (shape, &read), path, &text)
        });
        let left = shape.cloned().zip(into.clone()).map(|(shape, into)| shape.with(&into));
        return (each.zip(into).map(|((each, _), into)| StepPlan::Split { each, into }), left);
    }
    if let Some(enrich_map) = r.optional(map, &key::ENRICH) {
        let plan = enrich(r, &enrich_map, shape, asked.services);
        let left = shape.cloned().zip(plan.as_ref());
        let left = left.map(|(shape, (plan, content))| shape.with_described(&plan.into, content));
        return (plan.map(|(plan, _)| StepPlan::Enrich(Box::new(plan))), left);
    }
    if let Some(lookup_map) = r.optional(map, &key::LOOKUP) {
        let plan = lookup(r, &lookup_map, shape, asked.tables, ground);
        let left = shape.cloned().zip(plan.as_ref()).map(|(shape, plan)| {
            let table = asked.tables.iter().find(|table| table.name == plan.table);
            match table.and_then(|table| content(r, table, plan.missing)) {
                Some(content) => shape.with_described(&plan.into, &content),
                None => shape.with(&plan.into),
            }
        });
        return (plan.map(|plan| StepPlan::Lookup(Box::new(plan))), left);
    }
    if let Some(call_map) = r.optional(map, &key::CALL) {
        let plan = calls::call(r, &call_map, shape);
        let left = shape.zip(plan.as_ref()).map(|(shape, plan)| calls::leaves(shape, plan));
        return (plan.map(|plan| StepPlan::Call(Box::new(plan))), left);
    }
    if let Some(dedupe) = r.optional(map, &key::DEDUPE) {
        let plan = remembering::dedupe(r, map, &dedupe, shape, before, ground);
        return (plan.map(|plan| StepPlan::Dedupe(Box::new(plan))), shape.cloned());
    }
    if let Some(collapse) = r.optional(map, &key::COLLAPSE) {
        let plan = remembering::collapse(r, map, &collapse, shape, before, ground);
        return (plan.map(|plan| StepPlan::Collapse(Box::new(plan))), shape.cloned());
    }
    (None, None)
}

/// Refuses columns that none of the tables has.
fn known_columns(r: &mut Reader, map: &Map, from: &[StreamInput]) {
    if map.node(&key::CHANGED).is_none() {
        return;
    }
    let known: Option<Vec<Vec<ColumnType>>> = from.iter().map(|input| columns(r, input)).collect();
    let Some(known) = known.filter(|known| !known.is_empty()) else { return };
    let names: Vec<&str> = known.iter().flatten().map(|column| column.name.as_str()).collect();
    for column in r.optional(map, &key::CHANGED).into_iter().flatten() {
        if !names.contains(&column.value.as_str()) {
            let message = format!("no table of this stream has a column `{}`", column.shown);
            let help = suggestion(&column.value, names.iter().copied());
            r.found.push(column.spot.error(message).maybe_help(help));
        }
    }
}

fn lookup(
    r: &mut Reader,
    map: &Map,
    shape: Option<&Shape>,
    tables: &[LookupTable],
    ground: &Ground,
) -> Option<LookupPlan> {
    let table = r.required(map, &key::TABLE).and_then(|name| {
        let found = tables.iter().find(|table| table.name == name.value);
        if found.is_none() {
            let names = tables.iter().map(|table| table.name.as_str());
            let help = suggestion(&name.value, names).unwrap_or_else(|| "describe it under `tables`".to_owned());
            r.found.push(name.spot.error(format!("there is no table `{}`", name.shown)).help(help));
        }
        found
    });
    let (key, into) = key_and_place(r, map, shape);
    if let (Some(table), Some(key)) = (table, &key)
        && let Some((message, help)) = never_found(r, table, key, ground)
    {
        r.error(map.key_place(&key::ENRICH_KEY), message, Some(help));
    }
    let (missing, wait) = (r.value(map, &key::MISSING), r.value(map, &key::WAIT));
    if let (Some(table), Wait::Position) = (table, wait)
        && let Some((message, help)) = waits_in_vain(table, ground.sources)
    {
        r.error(map.key_place(&key::WAIT), message, Some(help.to_owned()));
    }
    Some(LookupPlan { table: table?.name.clone(), key: key?, into: into?, missing, wait })
}

/// What is asked for, and where the answer is put.
fn key_and_place(r: &mut Reader, map: &Map, shape: Option<&Shape>) -> (Option<Program>, Option<Path>) {
    let key = r.required(map, &key::ENRICH_KEY);
    let key = key.and_then(|text| looking(r, &text, shape, "a key"));
    let read = key.as_ref().map(Program::reads).unwrap_or_default();
    let into = r.required(map, &key::INTO).and_then(|(path, text)| below(r, (shape, &read), path, &text));
    (key, into)
}

fn filter(r: &mut Reader, text: &Text, shape: Option<&Shape>) -> Option<Program> {
    let compiled = looking(r, text, shape, "a filter");
    if let Some(compiled) = &compiled
        && !compiled.is_condition()
    {
        let message = format!("a filter says whether an event flows on, and this answers {}", compiled.answer());
        r.found.push(text.spot.error(message).help("compare it with something, such as `.after.price != null`"));
    }
    compiled
}

fn transform(r: &mut Reader, text: &Text, shape: Option<&Shape>) -> Option<Program> {
    let compiled = program(r, text, shape);
    if compiled.as_ref().is_some_and(Program::only_looks) {
        let warning = text.spot.warning("this program changes nothing of the event");
        r.found.push(warning.help("assign something, such as `.title = .after.title`, or remove the step"));
    }
    if let Some(left) = compiled.as_ref().map(Program::leaves).filter(|left| !left.is_object()) {
        let message = format!("after this there is no event, for `.` is {left:?}");
        r.found.push(text.spot.error(message).help("an event has fields: `. = { \"title\": .after.title }`"));
    }
    compiled
}

/// Refuses a place that would take that of the whole event, and tells of one that takes another value's.
fn below(r: &mut Reader, known: (Option<&Shape>, &[String]), path: Path, text: &Text) -> Option<Path> {
    if !path.is_root() {
        taken(r, known, &path, text);
        return Some(path);
    }
    let message = "this would take the place of the whole event".to_owned();
    r.found.push(
        text.spot.error(message).help("name a field, such as `.movie`; a `transform` after it can keep that alone"),
    );
    None
}

/// Tells of a place where events have a value already that the step does not read: one that it reads is replaced on purpose.
pub(super) fn taken(r: &mut Reader, (shape, read): (Option<&Shape>, &[String]), place: &Path, text: &Text) {
    let (name, inside) = (place.to_string(), format!("{place}."));
    let is_read = read.iter().any(|path| *path == name || path.starts_with(&inside));
    if !is_read && shape.is_some_and(|shape| shape.has(place)) {
        let message = format!("events have `{}` already, and this takes its place", text.shown);
        let help = "name a field that they do not have; where it is meant so, a `transform` before it can move the other one away (`.old = del(…)`)";
        r.found.push(text.spot.warning(message).help(help));
    }
}

/// The step, and what it puts into events.
fn enrich(
    r: &mut Reader,
    map: &Map,
    shape: Option<&Shape>,
    services: &[(ServicePlan, Spot)],
) -> Option<(EnrichPlan, Content)> {
    let service = r.required(map, &key::SERVICE).and_then(|name| {
        let found = services.iter().map(|(service, _)| service).find(|service| service.name == name.value);
        if found.is_none() {
            let names = services.iter().map(|(service, _)| service.name.as_str());
            let help = suggestion(&name.value, names).unwrap_or_else(|| "describe it under `services`".to_owned());
            r.found.push(name.spot.error(format!("there is no service `{}`", name.shown)).help(help));
        }
        found
    });
    let (key, into) = key_and_place(r, map, shape);
    let call = match service.map(|service| service.kind) {
        Some(ServiceKind::Graphql) => graphql(r, map, service.map_or("", |service| &service.name), key.as_ref()),
        Some(ServiceKind::Rest) => rest(r, map).map(|call| (call, Content::any())),
        None => None,
    };
    let batch = match r.optional(map, &key::BATCH) {
        Some(batch) => BatchSettings { max: r.value(&batch, &key::MAX), linger: r.value(&batch, &key::LINGER) },
        None => BatchSettings { max: key::MAX.left_out.0, linger: key::LINGER.left_out.0 },
    };
    let cache = r.optional(map, &key::CACHE).and_then(|cache| {
        let ttl = r.required(&cache, &key::TTL);
        let (missing, max) = (r.value(&cache, &key::TTL_MISSING), r.value(&cache, &key::CACHE_MAX));
        let changes = r.value(&cache, &key::CACHE_CHANGES);
        Some(CacheSettings { ttl: ttl?, missing, max, changes })
    });
    let missing = r.value(map, &key::MISSING);
    let (call, content) = call?;
    let content = if missing == Missing::Keep { content.or_null() } else { content };
    let plan = EnrichPlan { service: service?.name.clone(), call, key: key?, into: into?, batch, cache, missing };
    Some((plan, content))
}

/// Where an element of an answer has its key, and where the answer lies.
fn places(r: &mut Reader, map: &Map) -> (Vec<String>, Option<Vec<String>>) {
    let matched = r.optional(map, &key::MATCH);
    let matched = names(r, matched).unwrap_or_else(|| vec!["id".to_owned()]);
    let each = r.optional(map, &key::EACH);
    (matched, names(r, each))
}

/// A path as names of fields.
fn names(r: &mut Reader, found: Option<(Path, Text)>) -> Option<Vec<String>> {
    let (path, text) = found?;
    let names = path.names();
    if names.is_none() {
        let error = text.spot.error("this path goes through a list");
        r.found.push(error.help("write names of fields alone, such as `.data.prices`"));
    }
    names
}

/// The query of a service, and what the answer for a key is.
fn graphql(r: &mut Reader, map: &Map, service: &str, key: Option<&Program>) -> Option<(CallPlan, Content)> {
    for (there, name) in [(map.node(&key::REQUEST).is_some(), "request"), (map.node(&key::BODY).is_some(), "body")] {
        if there {
            let place = map.key_place(if name == "body" { &key::BODY } else { &key::REQUEST });
            let help = "a GraphQL service is asked by a `query`: the file that has it";
            r.error(place, format!("`{name}` is for services of another kind"), Some(help.into()));
            return None;
        }
    }
    let file = r.needed(map, &key::QUERY)?;
    let (matched, each) = places(r, map);
    let text = match r.inputs.file(&file.value) {
        Ok(text) => text,
        Err(problem) => {
            r.found.push(file.spot.error(format!("cannot read the query: {problem}")));
            return None;
        }
    };
    let query = match look(&text) {
        Ok(query) => query,
        Err((message, help)) => {
            r.found.push(file.spot.error(format!("`{}` cannot be asked with: {message}", file.shown)).help(help));
            return None;
        }
    };
    let each = each.or_else(|| query.field.clone().map(|field| vec![field]));
    if each.is_none() {
        let message = format!("the query in `{}` has several fields", file.shown);
        r.found.push(file.spot.error(message).help("say which of them is the answer: `each: .movies`"));
    }
    let each = each?;
    let content = match r.inputs.schema(service) {
        Some(schema) => {
            let answers = answers::check(&file.value, &text, &query.document, &query.variable, &schema);
            described(r, map, answers, (&each, &matched), &query, key)
        }
        None => Content::any(),
    };
    let (operation, variable, is_list) = (query.operation, query.variable, query.is_list);
    Some((CallPlan::Graphql { query: text, operation, variable, is_list, each, matched }, content))
}

/// What is answered for a key, where the schema of the service is known; what is wrong is told.
fn described(
    r: &mut Reader,
    map: &Map,
    answers: Answers,
    (each, matched): (&[String], &[String]),
    query: &KeyQuery,
    asked: Option<&Program>,
) -> Content {
    let is_right = answers.found.is_empty();
    r.found.extend(answers.found);
    if !is_right {
        return Content::any();
    }
    let whole = |number: bool| if number { "a number" } else { "text" };
    let wanted = match answers.key.as_deref() {
        Some("Int") => Some(JsonType::Integer),
        Some("String") => Some(JsonType::Text),
        _ => None,
    };
    if let (Some(wanted), Some(asked)) = (wanted, asked)
        && !asked.may_answer(wanted)
    {
        let message = format!(
            "the query takes {} as its key, and this is {}",
            whole(wanted == JsonType::Integer),
            asked.answer()
        );
        let help = if wanted == JsonType::Integer { "write `to_int!(…)`" } else { "write `to_string!(…)`" };
        r.error(map.key_place(&key::ENRICH_KEY), message, Some(help.to_owned()));
    }
    let place = map.key_place(if map.node(&key::EACH).is_some() { &key::EACH } else { &key::QUERY });
    let (mut fields, mut found) = (Some(&answers.fields), None);
    for name in each {
        let Some(known) = fields else {
            r.error(place, format!("the answer has nothing inside of what is before `{name}`"), None);
            return Content::any();
        };
        let Some(answer) = known.get(name) else {
            let message = format!("the answer has no `{name}` there");
            let help = suggestion(name, known.keys().map(String::as_str));
            r.error(place, message, help);
            return Content::any();
        };
        (fields, found) = (answer.fields.as_ref(), Some(answer));
    }
    let Some(found) = found else { return Content::any() };
    if !query.is_list {
        return found.content.clone();
    }
    // Elements are told apart by their keys.
    let mut inside = fields;
    for name in matched {
        let Some(answer) = inside.and_then(|fields| fields.get(name)) else {
            let path = matched.join(".");
            let message = format!("the elements of the answer have no `{path}`, which tells whose they are");
            let help = format!("add `{path}` to the query, or say where their key is: `match: .movieId`");
            r.error(place, message, Some(help));
            return Content::any();
        };
        inside = answer.fields.as_ref();
    }
    found.element.clone().unwrap_or_else(Content::any)
}

fn rest(r: &mut Reader, map: &Map) -> Option<CallPlan> {
    if map.node(&key::QUERY).is_some() {
        let help = "a service that is no GraphQL service is asked by a `request`, such as `GET /movies/{key}`";
        r.error(map.key_place(&key::QUERY), "`query` is for GraphQL services", Some(help.into()));
        return None;
    }
    let request = r.needed(map, &key::REQUEST)?;
    let body = r.optional(map, &key::BODY);
    let body = body.and_then(|text| looking(r, &text, Some(&Shape::any()), "a body"));
    let (matched, each) = places(r, map);
    let (method, path) = request.value.split_once(' ').map_or((request.value.as_str(), ""), |(m, p)| (m, p.trim()));
    if !["GET", "POST", "PUT"].contains(&method) || !path.starts_with('/') {
        let message = format!("`{}` is no request", request.shown);
        r.found.push(request.spot.error(message).help("write a method and a path, such as `GET /movies/{key}`"));
        return None;
    }
    let asks = |name: &str| body.as_ref().is_some_and(|body| body.reads().iter().any(|path| path.starts_with(name)));
    let (in_path, together, alone) = (path.contains("{key}"), asks(".keys"), !asks(".keys") && asks(".key"));
    if usize::from(in_path) + usize::from(together) == 0 && !alone {
        let message = "nothing of this request says which key is asked for";
        r.found.push(request.spot.error(message).help("write `{key}` in the path, or a `body` of `.keys` or `.key`"));
        return None;
    }
    if in_path && together {
        let message = "the path is of one key, and the body of several";
        r.found.push(request.spot.error(message).help("write `.key` in the body, or leave `{key}` out of the path"));
        return None;
    }
    let body = body.map(Box::new);
    let (method, path, shown) = (method.to_owned(), path.to_owned(), request.shown.clone());
    Some(CallPlan::Rest { method, path, shown, body, is_list: together, each: each.unwrap_or_default(), matched })
}
