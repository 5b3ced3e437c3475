//! The HTTP graph against a real HTTP server in this process, with answers made by each test.

mod batches;
mod failures;
mod fan_out;
mod patience;
mod poison;
mod server;

use std::time::Duration;

use tributary_dsl::plan::{
    Apart, BrakeSettings, BuildSettings, FanOutPlan, FieldKind, Form, GraphPlan, IndexPlan, InverseField, LeafType,
    Paging, Question, Representation, RetrySettings, RootIds, SelectedField, Selection, SentAs, StorePlan,
};

pub(crate) fn leaf(name: &str) -> SelectedField {
    SelectedField { identity: name == "id", ..SelectedField::new(name, FieldKind::Leaf(LeafType::Keyword)) }
}

pub(crate) fn hidden(name: &str) -> SelectedField {
    SelectedField { hidden: true, ..leaf(name) }
}

pub(crate) fn object(name: &str, vertex: bool, fields: Vec<SelectedField>) -> SelectedField {
    let selection = Selection { fields };
    SelectedField { kind: FieldKind::Object { vertex, nested: false, selection }, ..leaf(name) }
}

/// A question that takes a list of ids.
pub(crate) fn together(query: &str, variable: &str, root: &str, representation: Option<Representation>) -> Question {
    let form = Form::Together { query: query.into(), variable: variable.into(), root: root.into(), representation };
    Question {
        operation: "Movies".into(),
        form,
        way: Vec::new(),
        key: "id".into(),
        sent_as: SentAs::Text,
        constants: Default::default(),
    }
}

/// A question that takes one id, asked once for each.
pub(crate) fn apart(root: &str, selected: &str) -> Question {
    let apart = Apart {
        declared: String::new(),
        id_type: "ID!".into(),
        before: format!("{root}(id: "),
        after: ")".into(),
        selected: selected.into(),
        directives: String::new(),
        fragments: String::new(),
    };
    Question { form: Form::Apart(apart), ..together("", "", "", None) }
}

/// An index of movies; `many`: by a list of ids, otherwise each by an alias.
pub(crate) fn index(many: bool, fields: Vec<SelectedField>) -> IndexPlan {
    let fetch = if many {
        together("query Movies($ids: [ID!]!) { movies(ids: $ids) { __typename id title } }", "ids", "movies", None)
    } else {
        apart("movie", "{ __typename id title }")
    };
    IndexPlan {
        name: "movies".into(),
        place: Default::default(),
        root_type: "Movie".into(),
        fetch,
        selection: Selection { fields },
        edges: Vec::new(),
        hidden: 0,
        values: Default::default(),
        root_ids: RootIds::Table { source: "studio".into(), table: "public.movie".into() },
        store: StorePlan::Embedded,
        build: BuildSettings {
            batch: 100,
            concurrency: 4,
            deadline: Duration::from_secs(60),
            debounce: Duration::ZERO,
        },
        retry: RetrySettings { attempts: 3, initial: Duration::from_millis(1), max: Duration::from_millis(1) },
        brake: BrakeSettings { percent: 1, least: 100 },
        refresh: Duration::from_millis(100),
    }
}

fn movies(many: bool) -> IndexPlan {
    index(many, vec![hidden("__typename"), leaf("id"), leaf("title")])
}

fn plan(endpoint: &str) -> GraphPlan {
    GraphPlan {
        endpoint: endpoint.into(),
        place: Default::default(),
        headers: Default::default(),
        timeout: Duration::from_secs(30),
        concurrency: 4,
        vertices: Default::default(),
        fan_outs: Default::default(),
        probe: false,
        lag: Duration::ZERO,
        hidden: Default::default(),
        probes: Default::default(),
    }
}

fn fan_out(question: Question, path: &[&str]) -> FanOutPlan {
    FanOutPlan {
        type_name: "Talent".into(),
        inverses: vec![InverseField {
            key: "p0".into(),
            path: path.iter().map(|s| (*s).to_owned()).collect(),
            parent_type: "Movie".into(),
        }],
        question,
    }
}

fn paging() -> Paging {
    Paging { query: "query Roots { movies }".into(), key: "movies".into(), cursor: SentAs::Text }
}

fn of_talents() -> Option<Representation> {
    Some(Representation { type_name: "Talent".into(), key: "id".into() })
}

fn ids(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|i| i.to_string()).collect()
}
