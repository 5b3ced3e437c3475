//! What the search index must hold: every document recomputed from the tables by SQL, apart from GraphQL and from Tributary.

use std::collections::BTreeMap;

use serde_json::Value as Json;

/// One statement, so one snapshot. Names and encodings are those of the demo's `movies.graphql`.
pub const DOCUMENTS: &str = r#"
SELECT m.id::text, json_build_object(
    'id', m.id::text, 'title', m.title, 'released', m.released::text,
    'mpaa', CASE m.mpaa WHEN 'PG-13' THEN 'PG_13' WHEN 'NC-17' THEN 'NC_17' WHEN 'Not Rated' THEN 'NOT_RATED' ELSE upper(m.mpaa) END,
    'runtimeMin', m.runtime_min, 'imdbRating', m.imdb_rating::float8, 'imdbVotes', m.imdb_votes,
    'budgetUsd', m.budget_usd, 'grossUsd', m.gross_usd,
    'distributor', (SELECT json_build_object('id', d.id::text, 'name', d.name) FROM distributor d WHERE d.id = m.distributor_id),
    'genre', (SELECT json_build_object('id', g.id::text, 'name', g.name) FROM genre g WHERE g.id = m.genre_id),
    'talents', coalesce((SELECT json_agg(json_build_object('id', t.id::text, 'name', t.name) ORDER BY t.id)
        FROM movie_talent mt JOIN talent t ON t.id = mt.talent_id WHERE mt.movie_id = m.id), '[]'),
    'screenings', coalesce((SELECT json_agg(json_build_object('id', s.id::text,
            'startsAt', to_char(s.starts_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
            'venue', (SELECT json_build_object('id', v.id::text, 'name', v.name, 'city', v.city) FROM venue v WHERE v.id = s.venue_id))
        ORDER BY s.id) FROM screening s WHERE s.movie_id = m.id), '[]'))::text
FROM movie m"#;

/// All documents by id, as they must be now.
pub async fn documents(client: &tokio_postgres::Client) -> anyhow::Result<BTreeMap<String, Json>> {
    documents_of(client, DOCUMENTS).await
}

/// All documents by id that a statement computes: of each the id and its JSON, both as text.
pub async fn documents_of(client: &tokio_postgres::Client, sql: &str) -> anyhow::Result<BTreeMap<String, Json>> {
    let rows = client.query(sql, &[]).await?;
    rows.iter().map(|row| Ok((row.get::<_, String>(0), serde_json::from_str(row.get::<_, &str>(1))?))).collect()
}

/// The differences between what is and what must be, a line each; empty if there are none.
pub fn differences(expected: &BTreeMap<String, Json>, actual: &BTreeMap<String, Json>) -> Vec<String> {
    let mut found = Vec::new();
    for (id, must) in expected {
        match actual.get(id) {
            None => found.push(format!("document {id} is missing")),
            Some(is) => compare(&format!("document {id}"), must, is, &mut found),
        }
    }
    found.extend(
        actual.keys().filter(|id| !expected.contains_key(*id)).map(|id| format!("document {id} should not exist")),
    );
    found
}

fn compare(path: &str, must: &Json, is: &Json, found: &mut Vec<String>) {
    match (must, is) {
        (Json::Object(a), Json::Object(b)) => {
            for (key, must) in a {
                compare(&format!("{path}.{key}"), must, b.get(key).unwrap_or(&Json::Null), found);
            }
            found.extend(b.keys().filter(|k| !a.contains_key(*k)).map(|k| format!("{path}.{k} should not exist")));
        }
        (Json::Array(a), Json::Array(b)) if a.len() == b.len() => {
            for (i, (must, is)) in a.iter().zip(b).enumerate() {
                compare(&format!("{path}[{i}]"), must, is, found);
            }
        }
        (Json::Number(a), Json::Number(b)) if a.as_f64() == b.as_f64() => {}
        (must, is) if must == is => {}
        (must, is) => found.push(format!("{path} is {is}, must be {must}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn differences_are_found_in_both_directions() {
        let expected = BTreeMap::from([("1".into(), json!({"a": 1, "b": [1]})), ("2".into(), json!({}))]);
        let actual = BTreeMap::from([("1".into(), json!({"a": 1.0, "b": [2], "c": null})), ("3".into(), json!({}))]);
        let found = differences(&expected, &actual);
        assert_eq!(
            found,
            [
                "document 1.b[0] is 2, must be 1",
                "document 1.c should not exist",
                "document 2 is missing",
                "document 3 should not exist"
            ]
        );
    }
}
