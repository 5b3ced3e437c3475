//! What connectors say in their log: warnings are kept, by the source they are about.

use std::fmt::{Debug, Write as _};
use std::sync::{Mutex, OnceLock};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

static WARNINGS: Mutex<Vec<(String, String)>> = Mutex::new(Vec::new());

/// Keeps what is said from now on.
pub fn listen() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| tracing::subscriber::set_global_default(Listener).expect("nobody else listens"));
}

/// The warnings about a source so far.
pub fn warnings(source: &str) -> Vec<String> {
    let warnings = WARNINGS.lock().expect("lock");
    warnings.iter().filter(|(name, _)| name == source).map(|(_, text)| text.clone()).collect()
}

/// All warnings so far.
pub fn warnings_of_all() -> Vec<String> {
    WARNINGS.lock().expect("lock").iter().map(|(_, text)| text.clone()).collect()
}

struct Listener;

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN
    }

    fn event(&self, event: &Event<'_>) {
        let mut said = Said::default();
        event.record(&mut said);
        WARNINGS.lock().expect("lock").push((said.source, said.text));
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// The field `source`, and all fields as text.
#[derive(Default)]
struct Said {
    source: String,
    text: String,
}

impl Visit for Said {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "source" {
            value.clone_into(&mut self.source);
        }
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.text, "{field}={value:?} ").expect("text");
    }
}
