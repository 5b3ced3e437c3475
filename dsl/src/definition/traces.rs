//! `traces:`: where the ways of changes are told.

use std::sync::Arc;

use super::headers::headers;
use crate::keys::{TRACES, traces as key};
use crate::plan::TracesPlan;
use crate::yaml::{Map, Reader};

/// None: none are.
pub(super) fn read(r: &mut Reader, pipeline: &Map) -> Option<Arc<TracesPlan>> {
    let map = r.optional(pipeline, &TRACES)?;
    let (url, ratio) = (r.required(&map, &key::OTLP), r.value(&map, &key::RATIO));
    let headers = headers(r, &map, &key::HEADERS).unwrap_or_default();
    Some(Arc::new(TracesPlan { url: url?.value, ratio, headers }))
}
