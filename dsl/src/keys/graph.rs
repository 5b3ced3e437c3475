//! Keys of `graph`.

use std::time::Duration;

use super::tables::{TABLES, Table};
use super::values::HttpUrl;
use crate::plan::LeafType;
use crate::yaml::{
    Entries, Hidden, Is, Items, Key, Keys, Line, Means, Names, Period, Required, Rule, Share, Whole, Words, key,
};

pub(crate) static GRAPH: Keys = Keys {
    keys: &[&ENDPOINT, &HEADERS, &TIMEOUT, &CONCURRENCY, &SCHEMA, &VERTICES, &TYPES, &EDGES, &SCALARS, &PROBE, &LAG],
    rules: &[],
};

pub(crate) static ENDPOINT: Key<HttpUrl, Required> = key(
    "endpoint",
    HttpUrl { instead: "send it as `graph.headers`" },
    Required,
    "http://localhost:4000/graphql",
    "URL of the GraphQL endpoint.",
);

/// Names of headers.
pub(crate) static HEADER_NAMES: Names =
    Names { mark: "<header>", pattern: Some("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"), example: "authorization" };

pub(crate) static HEADERS: Key<Entries, Means> = key(
    "headers",
    Entries { names: &HEADER_NAMES, value: &Hidden, some: false },
    Means("none"),
    "{ authorization: \"Bearer ${TOKEN}\" }",
    "Headers of every request to it.",
);

pub(crate) static TIMEOUT: Key<Period, Is<Duration>> = key(
    "timeout",
    Period { least: Duration::from_millis(1) },
    Is(Duration::from_secs(10)),
    "30s",
    "The longest that one request may take.",
);

pub(crate) static CONCURRENCY: Key<Whole<usize>, Is<usize>> = key(
    "concurrency",
    Whole { least: 1, most: 1000 },
    Is(4),
    "8",
    "Requests in flight at most, of all indexes together.",
);

pub(crate) static SCHEMA: Key<Line, Means> = key(
    "schema",
    Line("file"),
    Means("the endpoint is asked"),
    "schema.graphql",
    "A file with the schema, in GraphQL's schema language. Relative to the pipeline's file.",
);

pub(crate) static VERTICES: Key<Entries, Required> = key(
    "vertices",
    Entries { names: &TABLES, value: &RULES, some: true },
    Required,
    "public.movie: [{ type: Movie, id: \"{id}\" }]",
    "Which vertices of the graph a row of a table is, or touches: a change of the row changes the documents that show them. An \
     empty list says that no document shows the table.",
);

pub(crate) static RULES: Items = Items { value: &&RULE, some: false };

pub(crate) static RULE: Keys = Keys { keys: &[&TYPE, &ID], rules: &[] };

pub(crate) static TYPE: Key<Line, Required> =
    key("type", Line("type"), Required, "Movie", "The GraphQL type of the vertex.");

pub(crate) static ID: Key<Line, Required> = key(
    "id",
    Line("id template"),
    Required,
    "\"{id}\"",
    "How the vertex's id is made of the row: text with columns in braces, such as `\"{tenant}/{number}\"`. In braces there may be a \
     function: `base64(…)`, `base64url(…)`, `json(…, …)` (an array; numbers as numbers), `concat(…, …)`, `text(…)` (a number as text), \
     `lower(…)`, `upper(…)`, `date(…)` (a date as `2024-01-31`), `trim(…)` (`char(n)` without the blanks that fill it up), of columns, texts in \
     single quotes and functions, as in `\"{base64(json('Movie', id))}\"`. Braces \
     themselves are written twice; a column with other characters than letters, digits and `_.-$` in its name is quoted as in SQL: \
     `'{\"odd}column\"}'`.",
);

static TYPE_NAMES: Names = Names { mark: "<type>", pattern: Some("^[_A-Za-z][_0-9A-Za-z]*$"), example: "Movie" };

pub(crate) static TYPES: Key<Entries, Means> = key(
    "types",
    Entries { names: &TYPE_NAMES, value: &&TYPE_KEYS, some: false },
    Means("they are found in the schema"),
    "Movie: { id: rowId, field: allMovies, argument: where.id.in }",
    "Which field has the id of vertices of a type, and how they are fetched by it, to find the documents that show them.",
);

pub(crate) static TYPE_KEYS: Keys = Keys {
    keys: &[&KEY_FIELD, &FIELD, &ARGUMENT, &HIDDEN],
    rules: &[Rule::Some, Rule::Needs("field", "argument"), Rule::Needs("argument", "field")],
};

pub(crate) static KEY_FIELD: Key<Line, Means> = key(
    "id",
    Line("field"),
    Means("`id`"),
    "rowId",
    "The field of the type whose value is the id that the rules of `vertices` make; of any scalar type.",
);

pub(crate) static FIELD: Key<Line, Means> = key(
    "field",
    Line("field"),
    Means("it is found in the schema"),
    "movies",
    "The field of `Query` that answers vertices by their ids: as a list, as a connection, or one of them (then many are asked for \
     in one request, by aliases).",
);

pub(crate) static ARGUMENT: Key<Line, Means> = key(
    "argument",
    Line("argument"),
    Means("it is found in the schema"),
    "ids",
    "The field's argument that takes the ids, or one id; or a path into an input object, such as `where.id.in`.",
);

pub(crate) static HIDDEN: Key<Share, Is<u8>> = key(
    "hidden",
    Share,
    Is(0),
    "20%",
    "How many of the rows that rules map to the type the graph may not know by their ids: drafts, what was deleted softly, what a role \
     may not see. Where it knows fewer, `check` and the first build say that the rules make wrong ids of a part of the rows.",
);

pub(crate) static EDGES: Key<Entries, Means> = key(
    "edges",
    Entries {
        names: &Names {
            mark: "<type.field>",
            pattern: Some(r"^[_A-Za-z][_0-9A-Za-z]*\.[_A-Za-z][_0-9A-Za-z]*$"),
            example: "Movie.distributor",
        },
        value: &&HINT,
        some: false,
    },
    Means("they are found in the schema and in `vertices`"),
    "Movie.distributor: { stored_in: parent }",
    "How the vertices that show a changed one through a field are found, where that is not plain. `tributary plan` shows what was \
     found.",
);

pub(crate) static HINT: Keys = Keys {
    keys: &[&INVERSE, &STORED_IN, &EDGE_TABLES, &LIMIT],
    rules: &[Rule::Some, Rule::Apart("stored_in", "tables")],
};

const FOUND: Means = Means("it is found in the schema and in `vertices`");

pub(crate) static INVERSE: Key<Line, Means> =
    key("inverse", Line("field"), FOUND, "movies", "The field of the shown type that leads back.");

pub(crate) static STORED_IN: Key<Words<()>, Means> = key(
    "stored_in",
    Words(&[("parent", ())]),
    FOUND,
    "parent",
    "The edge is a column of the showing row itself (a foreign key), so a change of the edge is a change of that row.",
);

pub(crate) static EDGE_TABLES: Key<Items, Means> = key(
    "tables",
    Items { value: &Table, some: true },
    FOUND,
    "[public.movie_talent]",
    "The edge is a row of these tables, whose rules in `vertices` name both of its ends.",
);

pub(crate) static LIMIT: Key<Words<()>, Means> = key(
    "limit",
    Words(&[("none", ())]),
    Means("the server may have one"),
    "none",
    "The server answers all of the list where the query leaves out how many it wants, though there is an argument for that. Without this \
     word such a list counts as one that is shown in part.",
);

pub(crate) static SCALARS: Key<Entries, Means> = key(
    "scalars",
    Entries {
        names: &Names { mark: "<scalar>", pattern: Some("^[_A-Za-z][_0-9A-Za-z]*$"), example: "Money" },
        value: &LEAVES,
        some: false,
    },
    Means("common names are known"),
    "{ Money: double, Json: object }",
    "How values of a custom scalar are indexed: as the type of the field in the index.",
);

pub(crate) static LAG: Key<Period, Is<Duration>> = key(
    "lag",
    Period { least: Duration::ZERO },
    Is(Duration::from_secs(1)),
    "0s",
    "The longest time that the graph may be behind the database's log: by a replica that it reads, by a cache in front of it. What \
     changed is fetched once more after that time. `0s`: it reads the primary, without a cache. A graph that says with its answers how \
     far it has come is waited for instead (`X-Tributary-Position`, see dsl/GRAPHS.md).",
);

pub(crate) static PROBE: Key<Words<bool>, Is<bool>> = key(
    "probe",
    Words(&[("on", true), ("off", false)]),
    Is(true),
    "off",
    "Whether ids that rules of `vertices` make of rows are compared with those that the graph answers, by `check` and before a first \
     build; a mismatch stops, and says which template would fit.",
);

/// Kinds of fields. Text is analyzed as the standard analyzer does.
pub(crate) static LEAVES: Words<Leaf> = Words(&[
    ("long", Leaf(|| LeafType::Long)),
    ("double", Leaf(|| LeafType::Double)),
    ("boolean", Leaf(|| LeafType::Boolean)),
    ("keyword", Leaf(|| LeafType::Keyword)),
    ("text", Leaf(|| LeafType::Text { analyzer: "standard".into() })),
    ("date", Leaf(|| LeafType::Date)),
    ("object", Leaf(|| LeafType::Object)),
    ("ignore", Leaf(|| LeafType::Ignore)),
]);

/// A kind of field.
#[derive(Clone)]
pub(crate) struct Leaf(pub fn() -> LeafType);
