//! A plan of an index of movies, and documents of it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value as Json, json};
use tributary_dsl::plan::{
    BrakeSettings, BuildSettings, FieldKind, Form, IndexPlan, LeafType, Question, RetrySettings, RootIds,
    SelectedField, Selection, SentAs, StorePlan,
};
use tributary_indexer::store::{Document, DocumentWrite, WriteAction};

pub fn leaf(key: &str, kind: LeafType) -> SelectedField {
    selected(key, FieldKind::Leaf(kind))
}

fn selected(key: &str, kind: FieldKind) -> SelectedField {
    SelectedField::new(key, kind)
}

pub fn object(key: &str, nested: bool, fields: Vec<SelectedField>) -> SelectedField {
    selected(key, FieldKind::Object { vertex: true, nested, selection: Selection { fields } })
}

pub fn text(analyzer: &str) -> LeafType {
    LeafType::Text { analyzer: analyzer.to_owned() }
}

pub fn movies(name: &str, store: StorePlan) -> IndexPlan {
    let fields = vec![
        leaf("id", LeafType::Keyword),
        leaf("title", text("english")),
        leaf("tagline", text("standard")),
        leaf("runtimeMin", LeafType::Long),
        leaf("rating", LeafType::Double),
        leaf("released", LeafType::Date),
        leaf("sequel", LeafType::Boolean),
        leaf("facts", LeafType::Object),
        leaf("notes", LeafType::Ignore),
        object("distributor", false, vec![leaf("id", LeafType::Keyword), leaf("name", LeafType::Keyword)]),
        object("talents", true, vec![leaf("id", LeafType::Keyword), leaf("name", LeafType::Keyword)]),
    ];
    IndexPlan {
        name: name.to_owned(),
        place: Default::default(),
        root_type: "Movie".to_owned(),
        fetch: Question {
            operation: "Movies".to_owned(),
            form: Form::Together {
                query: String::new(),
                variable: "ids".to_owned(),
                root: "movies".to_owned(),
                representation: None,
            },
            way: Vec::new(),
            key: "id".to_owned(),
            sent_as: SentAs::Text,
            constants: Default::default(),
        },
        selection: Selection { fields },
        edges: Vec::new(),
        hidden: 0,
        values: Default::default(),
        root_ids: RootIds::Table { source: "studio".to_owned(), table: "public.movie".into() },
        store,
        build: BuildSettings {
            batch: 100,
            concurrency: 4,
            deadline: Duration::from_secs(60),
            debounce: Duration::from_millis(10),
        },
        retry: RetrySettings { attempts: 3, initial: Duration::from_millis(100), max: Duration::from_secs(1) },
        brake: BrakeSettings { percent: 1, least: 100 },
        refresh: Duration::from_millis(100),
    }
}

pub fn put(id: &str, stamp: u64, content: Json, refs: &[&str]) -> DocumentWrite {
    let refs = refs.iter().map(|r| (*r).to_owned()).collect();
    let document = Document { content, refs, hash: format!("hash-{stamp}") };
    DocumentWrite { id: id.to_owned(), stamp, action: WriteAction::Put(Arc::new(document)) }
}

/// A small document that embeds its root alone.
pub fn small(id: &str, stamp: u64) -> DocumentWrite {
    put(id, stamp, json!({ "id": id, "title": format!("Movie {id}") }), &[&format!("Movie:{id}")])
}

pub fn delete(id: &str, stamp: u64) -> DocumentWrite {
    DocumentWrite { id: id.to_owned(), stamp, action: WriteAction::Delete }
}
