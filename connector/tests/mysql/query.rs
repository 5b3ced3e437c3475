//! The statement of a change, where it is asked for.

use serde_json::Value as Json;
use tributary_connector::mysql;
use tributary_connector::{ConnectorSettings, Independent, SourceSettings};

use crate::server::{databases, mysql_mut};
use crate::support::{Record, Recorder, Running};

/// Bytes of a statement that go with its rows.
const MOST: usize = 64 << 10;

/// What is said of a server that is fit.
async fn notes(settings: &ConnectorSettings) -> Vec<String> {
    let SourceSettings::MySql(source) = &settings.source else { panic!("a MySQL source") };
    mysql::inspect(source, &Independent).await.expect("it is fit")
}

/// Operation, id and statement of each record.
fn told(records: &[Record]) -> Vec<(String, i64, Json)> {
    let id = |record: &Record| record.key.as_ref().and_then(|key| key["id"].as_i64()).unwrap_or_default();
    records.iter().map(|record| (record.op().to_owned(), id(record), record.get("/source/query"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_have_their_statement_where_it_is_asked_for() {
    for mut db in databases("query").await {
        let variable = if db.is_mariadb { "binlog_annotate_row_events" } else { "binlog_rows_query_log_events" };
        db.run("create table t (id int primary key, x varchar(20))").await;
        db.run("create table other (id int primary key)").await;
        let without = db.settings(&["t"]);
        let mut with = ConnectorSettings::mysql(&format!("{}_q", db.name), db.url.as_str().into(), [""; 0]);
        mysql_mut(&mut with).tables = without.source.tables().to_vec();
        mysql_mut(&mut with).query = true;

        let is_on: Vec<i64> = db.rows(&format!("select @@global.{variable}")).await;
        let said: Vec<String> = notes(&with).await.into_iter().filter(|note| note.contains(variable)).collect();
        assert_eq!(said.is_empty(), is_on == [1], "{said:?}");
        let remedy =
            if db.is_mariadb { "run: SET GLOBAL binlog_annotate" } else { "run: SET PERSIST binlog_rows_query" };
        assert!(said.iter().all(|note| note.contains(remedy)), "{said:?}");
        assert!(!notes(&without).await.iter().any(|note| note.contains(variable)));

        let (asked, unasked) = (Recorder::new(), Recorder::new());
        let running = Running::streaming(&with, &asked).await;
        let other = Running::streaming(&without, &unasked).await;
        db.run(&format!("set session {variable} = 1")).await;
        if !db.is_mariadb {
            db.run("set session binlog_transaction_compression = on").await;
        }
        let mut expected = Vec::new();
        let mut expect = |op: &str, id: i64, query: Option<&str>| expected.push((op.to_owned(), id, Json::from(query)));

        let two = "insert into t values (1, 'a'), (2, 'é\"') -- of two";
        db.run(two).await;
        (1..=2).for_each(|id| expect("c", id, Some(two)));

        // Several in a transaction, one of which does not say, and of two tables.
        let update = "update t set x = 'b' where id = 1";
        let delete = "delete t, other from t join other on t.id = other.id";
        db.run("begin").await;
        db.run("insert into other values (2)").await;
        db.run(update).await;
        db.run(&format!("set session {variable} = 0")).await;
        db.run("insert into t values (3, 'c')").await;
        db.run(&format!("set session {variable} = 1")).await;
        db.run("savepoint a").await;
        db.run("insert into t values (4, 'gone')").await;
        db.run("rollback to a").await;
        db.run(delete).await;
        db.run("commit").await;
        expect("u", 1, Some(update));
        expect("c", 3, None);
        expect("d", 2, Some(delete));
        expect("tombstone", 2, None);

        // The values of a prepared statement stand in it.
        db.run("prepare p from 'insert into t values (?, ?)'").await;
        db.run("set @id = 5, @x = 'p'").await;
        db.run("execute p using @id, @x").await;
        expect("c", 5, Some("insert into t values (5, 'p')"));

        if !db.is_mariadb {
            db.run("set session binlog_transaction_compression = off").await;
        }
        let held = "insert into t values (6, 'xa')";
        db.run(&format!("xa start '{}'", db.name)).await;
        db.run(held).await;
        db.run(&format!("xa end '{}'", db.name)).await;
        if db.is_mariadb {
            db.run(&format!("xa commit '{}' one phase", db.name)).await;
        } else {
            db.run(&format!("xa prepare '{}'", db.name)).await;
            db.run(&format!("xa commit '{}'", db.name)).await;
        }
        expect("c", 6, Some(held));

        let long = format!("insert into t values (7, 'long') /* {} */", "é".repeat(MOST));
        db.run(&long).await;
        let beginning = &long[..long.floor_char_boundary(MOST)];
        expect("c", 7, Some(beginning));
        db.run("truncate table t").await;
        expect("t", 0, None);

        let records = asked.wait(expected.len()).await;
        running.stop().await;
        assert_eq!(told(&records), expected, "(MariaDB: {})", db.is_mariadb);
        let records = unasked.wait(expected.len()).await;
        other.stop().await;
        let silent: Vec<_> = expected.into_iter().map(|(op, id, _)| (op, id, Json::Null)).collect();
        assert_eq!(told(&records), silent);
        db.remove().await;
    }
}
