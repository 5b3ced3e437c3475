//! The HTTP graph against a real HTTP server in this process, with answers made by each test.

mod batches;
mod failures;
mod fan_out;
mod patience;
mod poison;
mod server;

use std::time::Duration;

use tributary_dsl::plan::{
    Access, BuildSettings, FanOutPlan, FetchPlan, FieldKind, GraphPlan, IndexPlan, InverseField, LeafType,
    RetrySettings, RootIds, SelectedField, Selection, StorePlan,
};

pub(crate) fn leaf(name: &str) -> SelectedField {
    SelectedField {
        key: name.into(),
        name: name.into(),
        on: None,
        hidden: false,
        list: false,
        kind: FieldKind::Leaf(LeafType::Keyword),
    }
}

pub(crate) fn hidden(name: &str) -> SelectedField {
    SelectedField { hidden: true, ..leaf(name) }
}

pub(crate) fn object(name: &str, vertex: bool, fields: Vec<SelectedField>) -> SelectedField {
    let selection = Selection { fields };
    SelectedField { kind: FieldKind::Object { vertex, nested: false, selection }, ..leaf(name) }
}

/// An index of movies; `many`: by a list of ids, otherwise one by one.
pub(crate) fn index(many: bool, fields: Vec<SelectedField>) -> IndexPlan {
    let (query, variable, root_key) = if many {
        ("query Movies($ids: [ID!]!) { movies(ids: $ids) { __typename id title } }", "ids", "movies")
    } else {
        ("query Movies($id: ID!) { movie(id: $id) { __typename id title } }", "id", "movie")
    };
    IndexPlan {
        name: "movies".into(),
        root_type: "Movie".into(),
        fetch: FetchPlan {
            query: query.into(),
            operation: "Movies".into(),
            variable: variable.into(),
            many,
            root_key: root_key.into(),
        },
        selection: Selection { fields },
        edges: Vec::new(),
        root_ids: RootIds::Table { source: "studio".into(), table: "public.movie".into() },
        store: StorePlan::Embedded,
        build: BuildSettings {
            batch: 100,
            concurrency: 4,
            deadline: Duration::from_secs(60),
            debounce: Duration::ZERO,
        },
        retry: RetrySettings { attempts: 3, initial: Duration::from_millis(1), max: Duration::from_millis(1) },
        refresh: Duration::from_millis(100),
    }
}

fn movies(many: bool) -> IndexPlan {
    index(many, vec![hidden("__typename"), leaf("id"), leaf("title")])
}

fn plan(endpoint: &str) -> GraphPlan {
    GraphPlan {
        endpoint: endpoint.into(),
        headers: Default::default(),
        timeout: Duration::from_secs(30),
        concurrency: 4,
        vertices: Default::default(),
        fan_outs: Default::default(),
    }
}

fn fan_out(access: Access, path: &[&str]) -> FanOutPlan {
    FanOutPlan {
        type_name: "Talent".into(),
        access,
        inverses: vec![InverseField {
            key: "p0".into(),
            path: path.iter().map(|s| (*s).to_owned()).collect(),
            parent_type: "Movie".into(),
        }],
        query: "query FanOut { whatever }".into(),
    }
}

fn ids(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|i| i.to_string()).collect()
}
