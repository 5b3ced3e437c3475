//! Sinks of streams that are written in Rust. Each takes any key by `with`.

use super::Written;
use super::step::keyed;

/// Where events go.
#[derive(Debug, Clone)]
pub struct Sink(Written);

impl From<Sink> for Written {
    fn from(sink: Sink) -> Self {
        sink.0
    }
}

impl Sink {
    /// A sink of any kind: its key under `to`, and what stands there.
    #[track_caller]
    pub fn new(kind: &str, value: impl Into<Written>) -> Self {
        Self(Written::keys().with(kind, value))
    }

    /// Only events of which this is true go there, in VRL.
    #[track_caller]
    pub fn when(self, condition: impl Into<Written>) -> Self {
        Self(self.0.with("when", condition))
    }
}

macro_rules! sinks {
    ($($sink:ident: $kind:literal),*) => {$(
        keyed!($sink);

        impl $sink {
            /// Only events of which this is true go there, in VRL.
            #[track_caller]
            pub fn when(self, condition: impl Into<Written>) -> Sink {
                Sink::from(self).when(condition)
            }
        }

        impl From<$sink> for Sink {
            #[track_caller]
            fn from(sink: $sink) -> Self {
                Self::new($kind, sink.0)
            }
        }
    )*};
}

sinks!(Topic: "topic", Webhook: "webhook", Sql: "sql", Files: "files", Index: "index", Conductor: "conductor");

/// A topic.
#[derive(Debug, Clone)]
pub struct Topic(Written);

impl Topic {
    /// The topic of this name.
    #[track_caller]
    pub fn named(name: &str) -> Self {
        Self(Written::keys().with("name", name))
    }

    /// The key of its records, in VRL.
    #[track_caller]
    pub fn key(self, program: impl Into<Written>) -> Self {
        self.with("key", program)
    }
}

/// A webhook.
#[derive(Debug, Clone)]
pub struct Webhook(Written);

impl Webhook {
    /// The receiver at a URL, best of a variable: `${HOOK_URL}`.
    #[track_caller]
    pub fn new(url: &str) -> Self {
        Self(Written::keys().with("url", url))
    }

    /// What requests are signed with, best of a variable.
    #[track_caller]
    pub fn secret(self, secret: &str) -> Self {
        self.with("secret", secret)
    }
}

/// A table of PostgreSQL.
#[derive(Debug, Clone)]
pub struct Sql(Written);

impl Sql {
    /// A table of the database at a URL, best of a variable, with a row for each key.
    #[track_caller]
    pub fn new(url: &str, table: &str, key: impl Into<Written>) -> Self {
        Self(Written::keys().with("url", url).with("table", table).with("key", key))
    }
}

/// Files.
#[derive(Debug, Clone)]
pub struct Files(Written);

impl Files {
    /// Files in a folder.
    #[track_caller]
    pub fn folder(folder: &str) -> Self {
        Self(Written::keys().with("folder", folder))
    }
}

/// A search index of rows.
#[derive(Debug, Clone)]
pub struct Index(Written);

impl Index {
    /// The index of this name, with a document for each key.
    #[track_caller]
    pub fn named(name: &str, key: impl Into<Written>) -> Self {
        Self(Written::keys().with("name", name).with("key", key).with("fields", Written::keys()))
    }

    /// One more field, and what kind it is of: `text`, `keyword`, `double` …
    #[track_caller]
    pub fn field(mut self, name: &str, kind: &str) -> Self {
        if let super::Form::Keys(entries) = &mut self.0.form
            && let Some((_, fields)) = entries.iter_mut().find(|(key, _)| key == "fields")
        {
            fields.put(name, kind.into());
        }
        self
    }
}

/// Workflows of Conductor.
#[derive(Debug, Clone)]
pub struct Conductor(Written);

impl Conductor {
    /// A workflow of the server at a URL; the flavor is `orkes`, or `oss`.
    #[track_caller]
    pub fn new(url: &str, workflow: &str, flavor: &str) -> Self {
        Self(Written::keys().with("url", url).with("workflow", workflow).with("flavor", flavor))
    }
}
