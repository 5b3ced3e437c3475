//! What the search index must hold: every document put together from rows of the databases, apart from GraphQL and from Tributary.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::Databases;
use super::database::Row;

const MOVIES: &str = "select id, title, released, votes from movie";
const TALENTS: &str = "select movie_id, id, name from movie_talent join talent on id = talent_id order by id";
const DEALS: &str = "select movie_id, d.id, amount_usd, v.id, v.name, country from deal d left join vendor v on v.id = vendor_id order by d.id";

/// All documents by id, as they must be now, while nothing changes.
///
/// # Errors
/// If a database does not answer.
pub async fn documents(databases: &Databases) -> anyhow::Result<BTreeMap<String, Json>> {
    let Databases { films, contracts } = databases;
    let number = |cell: &Option<String>| cell.as_ref().and_then(|text| text.parse::<i64>().ok());
    let talent = |row: &Row| json!({ "id": row[1], "name": row[2] });
    let deal = |row: &Row| {
        let vendor = row[3].as_ref().map(|id| json!({ "id": id, "name": row[4], "country": row[5] }));
        json!({ "id": row[1], "amountUsd": number(&row[2]), "vendor": vendor })
    };
    let mut talents = of_movies(films.rows(TALENTS).await?, talent);
    let mut deals = of_movies(contracts.rows(DEALS).await?, deal);
    let document = |row: Row| {
        let id = row[0].clone()?;
        let of = |lists: &mut BTreeMap<String, Vec<Json>>| lists.remove(&id).unwrap_or_default();
        let document = json!({
            "id": id, "title": row[1], "released": row[2], "votes": number(&row[3]),
            "talents": of(&mut talents), "deals": of(&mut deals),
        });
        Some((id, document))
    };
    Ok(films.rows(MOVIES).await?.into_iter().filter_map(document).collect())
}

/// Rows by the movie that their first column names.
fn of_movies(rows: Vec<Row>, shown: impl Fn(&Row) -> Json) -> BTreeMap<String, Vec<Json>> {
    let mut lists: BTreeMap<String, Vec<Json>> = BTreeMap::new();
    for row in rows {
        lists.entry(row[0].clone().unwrap_or_default()).or_default().push(shown(&row));
    }
    lists
}
