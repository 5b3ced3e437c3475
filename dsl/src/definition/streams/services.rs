//! `services:`: what steps of streams ask.

use super::secrets;
use crate::definition::headers::headers;
use crate::diagnostic::Spot;
use crate::keys::SERVICES;
use crate::keys::streams::services as key;
use crate::keys::values::NameOf;
use crate::plan::{BreakerSettings, ServiceKind, ServicePlan, StepPlan, StreamPlan};
use crate::yaml::{Map, Reader};

/// The services, as far as they could be read, and where they are named.
pub(in crate::definition) fn read(r: &mut Reader, pipeline: &Map) -> Vec<(ServicePlan, Spot)> {
    let mut services = Vec::new();
    let Some(entries) = r.optional(pipeline, &SERVICES) else { return services };
    for entry in entries.entries() {
        NameOf::SERVICE.check_key(r, &entry.0);
        let spot = r.spot(entry.0.place);
        let example = "{ graphql: http://localhost:4000/graphql }";
        let Some(map) = r.entry(&entries, entry, &&key::SERVICE, example) else { continue };
        let graphql = r.optional(&map, &key::GRAPHQL).map(|url| (ServiceKind::Graphql, url));
        let rest = r.optional(&map, &key::REST).map(|url| (ServiceKind::Rest, url));
        secrets::in_headers(r, &map, &key::HEADERS);
        let headers = headers(r, &map, &key::HEADERS).unwrap_or_default();
        let timeout = r.value(&map, &key::TIMEOUT);
        let concurrency = r.value(&map, &key::CONCURRENCY);
        let rate = r.optional(&map, &key::RATE);
        let breaker = breaker(r, &map);
        let Some((kind, url)) = graphql.or(rest) else { continue };
        let (name, url) = (entry.0.name.clone(), url.value.trim_end_matches('/').to_owned());
        services.push((ServicePlan { name, kind, url, headers, timeout, concurrency, rate, breaker }, spot));
    }
    services
}

fn breaker(r: &mut Reader, service: &Map) -> BreakerSettings {
    match r.optional(service, &key::BREAKER) {
        Some(map) => BreakerSettings {
            failures: r.value(&map, &key::FAILURES),
            slow: r.optional(&map, &key::SLOW),
            window: r.value(&map, &key::WINDOW),
            pause: r.value(&map, &key::PAUSE),
        },
        None => BreakerSettings {
            failures: key::FAILURES.left_out.0,
            slow: None,
            window: key::WINDOW.left_out.0,
            pause: key::PAUSE.left_out.0,
        },
    }
}

/// Tells of services that no step asks.
pub(super) fn unused(r: &mut Reader, services: &[(ServicePlan, Spot)], streams: &[StreamPlan]) {
    let asked: Vec<&str> = streams
        .iter()
        .flat_map(|stream| &stream.steps)
        .filter_map(|step| match &step.plan {
            StepPlan::Enrich(plan) => Some(plan.service.as_str()),
            _ => None,
        })
        .collect();
    // Where something is wrong, the step that asks may be what is wrong.
    if r.found.iter().any(crate::Diagnostic::is_error) {
        return;
    }
    for (service, spot) in services {
        if !asked.contains(&service.name.as_str()) {
            let warning = spot.warning(format!("no step asks the service `{}`", service.name));
            r.found.push(warning.help("name it in an `enrich` step, or remove it"));
        }
    }
}
