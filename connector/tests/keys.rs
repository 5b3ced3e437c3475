//! Pages of keys.

use tributary_connector::postgres::{KeyPager, table_columns};
use tributary_event::Value;

use crate::support::{Database, postgres};

#[tokio::test]
async fn pages_visit_every_key_once_in_order() {
    let db = Database::create("pages").await;
    db.run(
        "create table t (name text, n int, flag bool, primary key (n, name)); \
            insert into t select 'it''s ' || g, g % 7, g % 2 = 0 from generate_series(1, 1000) g",
    )
    .await;
    let settings = db.settings(&["t"]);
    let mut pager = KeyPager::open(postgres(&settings), "public.t", &[]).await.expect("opens");
    let (mut seen, mut after): (Vec<Vec<Value>>, Option<Vec<String>>) = (Vec::new(), None);
    loop {
        let page = pager.page(after.as_deref(), 97).await.expect("a page");
        let last = page.len() < 97;
        after = page.last().map(|row| row.place.clone()).or(after);
        seen.extend(page.into_iter().map(|row| row.values));
        if last {
            break;
        }
    }
    let expected: Vec<Vec<Value>> = db
        .sql
        .query("select n, name from t order by n, name", &[])
        .await
        .expect("rows")
        .iter()
        .map(|row| vec![Value::Int(row.get::<_, i32>(0).into()), Value::text(row.get::<_, String>(1))])
        .collect();
    assert_eq!(seen, expected);
    let last: Vec<Vec<Value>> = pager.last(3).await.expect("the last rows").into_iter().map(|row| row.values).collect();
    assert_eq!(last, expected.iter().rev().take(3).cloned().collect::<Vec<_>>());
    let mut flags = KeyPager::open(postgres(&settings), "t", &["flag".into()]).await.expect("opens");
    let page = flags.page(None, 1).await.expect("a page");
    assert_eq!(page[0].values.len(), 1);
    assert!(matches!(page[0].values[0], Value::Bool(_)));
    db.remove().await;
}

#[tokio::test]
async fn what_is_missing_is_named_with_suggestions() {
    let db = Database::create("pages_missing").await;
    db.run("create table movie (id int primary key, title text); create table loose (x int)").await;
    let settings = db.settings(&["movie"]);
    let error = async |table: &str, columns: &[String]| {
        KeyPager::open(postgres(&settings), table, columns).await.err().expect("an error").to_string()
    };
    assert!(error("public.movies", &[]).await.contains("did you mean public.movie?"));
    assert!(error("movie", &["titel".into()]).await.contains("its columns are id, title"));
    assert!(error("loose", &[]).await.contains("no primary key"));
    let info = table_columns(postgres(&settings), "movie").await.expect("columns");
    assert_eq!((info.primary_key.as_slice(), info.schema.columns.len()), (&["id".to_owned()][..], 2));
    db.remove().await;
}
