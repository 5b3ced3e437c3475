//! A source and its replica: the replica takes over, with everything that was read, or without.

use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;
use tributary_connector::ConnectorSettings;
use tributary_stack::{MySql, MySqlProduct};

use crate::server::{films, products, run, start};
use crate::support::{Recorder, Running, until};

/// A source, a replica of it, and sessions at both.
struct Pair {
    product: MySqlProduct,
    source: MySql,
    sql: Conn,
    replica: MySql,
    replica_sql: Conn,
}

impl Pair {
    async fn start(product: MySqlProduct) -> Self {
        let of_mysql: &[(&str, &str)] = &[("enforce-gtid-consistency", "ON"), ("gtid-mode", "ON")];
        let of_mariadb: &[(&str, &str)] = &[("log-slave-updates", "ON"), ("gtid-strict-mode", "ON")];
        let own = if product == MySqlProduct::MySql { of_mysql } else { of_mariadb };
        let (source, mut sql) = start(product, &[own, &[("server-id", "1")]].concat()).await;
        run(&mut sql, "create table films.t (id int primary key, x varchar(20))").await;
        let (replica, mut replica_sql) = start(product, &[own, &[("server-id", "2")]].concat()).await;
        // What it made itself is nothing that the source has.
        run(&mut replica_sql, "drop database films").await;
        let port = source.port();
        match product {
            MySqlProduct::MySql => {
                run(&mut replica_sql, "reset binary logs and gtids").await;
                let change = format!(
                    "change replication source to source_host = '127.0.0.1', source_port = {port}, source_user = 'root', \
                     source_auto_position = 1, get_source_public_key = 1"
                );
                run(&mut replica_sql, &change).await;
                run(&mut replica_sql, "start replica").await;
            }
            MySqlProduct::MariaDb => {
                run(&mut replica_sql, "reset master").await;
                // From the beginning of the source's log.
                run(&mut replica_sql, "set global gtid_slave_pos = ''").await;
                let change = format!(
                    "change master to master_host = '127.0.0.1', master_port = {port}, master_user = 'root', \
                     master_use_gtid = slave_pos"
                );
                run(&mut replica_sql, &change).await;
                run(&mut replica_sql, "start slave").await;
            }
        }
        run(&mut replica_sql, "set global read_only = 1").await;
        let mut pair = Self { product, source, sql, replica, replica_sql };
        pair.caught_up().await;
        pair
    }

    fn word(&self) -> &'static str {
        if self.product == MySqlProduct::MySql { "replica" } else { "slave" }
    }

    async fn insert(&mut self, id: i64) {
        run(&mut self.sql, &format!("insert into films.t values ({id}, 'x')")).await;
    }

    /// Lets a source read the replica, and no other server.
    fn read_replica(&self, settings: &mut ConnectorSettings) {
        crate::server::mysql_mut(settings).url =
            format!("mysql://root@127.0.0.1:{}", self.replica.port()).as_str().into();
    }

    /// Waits until the replica has every row.
    async fn caught_up(&mut self) {
        const COUNT: &str = "select count(*) from films.t";
        let all: Option<i64> = self.sql.query_first(COUNT).await.expect("a count");
        let replica = &mut self.replica_sql;
        until("the replica has every row", async || {
            replica.query_first::<i64, _>(COUNT).await.is_ok_and(|count| count == all)
        })
        .await;
    }

    /// The replica follows nobody any more, and takes writes.
    async fn promote(&mut self) {
        let word = self.word();
        run(&mut self.replica_sql, &format!("stop {word}")).await;
        run(&mut self.replica_sql, &format!("reset {word} all")).await;
        run(&mut self.replica_sql, "set global read_only = 0").await;
    }

    /// Both servers, the source first.
    fn url(&self) -> String {
        let (first, second) = (self.source.port(), self.replica.port());
        format!("mysql://root@127.0.0.1:{first},127.0.0.1:{second}?connect-timeout=5")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_has_everything_takes_over() {
    for product in products() {
        let mut pair = Pair::start(product).await;
        let (recorder, settings) = (Recorder::new(), films(&pair.url(), &["t"]));
        let running = Running::streaming(&settings, &recorder).await;
        for id in 1..=3 {
            pair.insert(id).await;
        }
        recorder.wait(3).await;
        pair.caught_up().await;
        pair.source.kill().await.expect("killed");
        // Meanwhile the replica is all that can be reached, and has all that was read.
        pair.promote().await;
        for id in 4..=6 {
            run(&mut pair.replica_sql, &format!("insert into films.t values ({id}, 'y')")).await;
        }
        let records = recorder.wait(6).await;
        let ids: Vec<_> = records.iter().filter_map(|r| r.get("/after/id").as_i64()).collect();
        assert_eq!(ids, [1, 2, 3, 4, 5, 6]);
        running.wait_up().await;
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_behind_is_waited_for() {
    for product in products() {
        let mut pair = Pair::start(product).await;
        let (recorder, mut settings) = (Recorder::new(), films(&pair.url(), &["t"]));
        let running = Running::streaming(&settings, &recorder).await;
        pair.insert(1).await;
        recorder.wait(1).await;
        pair.caught_up().await;
        let word = pair.word();
        // It has received what it does not apply.
        run(&mut pair.replica_sql, &format!("stop {word} sql_thread")).await;
        pair.insert(2).await;
        recorder.wait(2).await;
        running.stop().await;
        pair.read_replica(&mut settings);
        let running = Running::start(&settings, &recorder);
        running.wait_down("lacks what was read already").await;
        run(&mut pair.replica_sql, &format!("start {word} sql_thread")).await;
        pair.caught_up().await;
        running.wait_up().await;
        pair.insert(3).await;
        let records = recorder.wait(3).await;
        let ids: Vec<_> = records.iter().filter_map(|r| r.get("/after/id").as_i64()).collect();
        assert_eq!(ids, [1, 2, 3]);
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_lost_what_was_published_stops_the_source() {
    for product in products() {
        let mut pair = Pair::start(product).await;
        let (recorder, settings) = (Recorder::new(), films(&pair.url(), &["t"]));
        let running = Running::streaming(&settings, &recorder).await;
        pair.insert(1).await;
        recorder.wait(1).await;
        pair.caught_up().await;
        let word = pair.word();
        run(&mut pair.replica_sql, &format!("stop {word}")).await;
        pair.insert(2).await;
        pair.insert(3).await;
        recorder.wait(3).await;
        pair.source.kill().await.expect("killed");
        pair.promote().await;
        // As many as were lost, so that a number alone tells nothing.
        for id in 11..=14 {
            run(&mut pair.replica_sql, &format!("insert into films.t values ({id}, 'y')")).await;
        }
        let error = running.error().await.to_string();
        match product {
            MySqlProduct::MySql => assert!(error.contains("it follows no server that has them"), "{error}"),
            MySqlProduct::MariaDb => assert!(error.contains("diverged") || error.contains("lacks"), "{error}"),
        }
        assert!(error.contains("tributary reindex"), "{error}");
        assert_eq!(recorder.len(), 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_that_a_replica_made_itself_are_captured_and_those_it_purged_are_missed() {
    for product in products() {
        let mut pair = Pair::start(product).await;
        let (recorder, mut settings) = (Recorder::new(), films(&pair.url(), &["t"]));
        let running = Running::streaming(&settings, &recorder).await;
        pair.insert(1).await;
        recorder.wait(1).await;
        pair.caught_up().await;
        running.stop().await;
        pair.promote().await;
        run(&mut pair.replica_sql, "insert into films.t values (7, 'own')").await;
        pair.read_replica(&mut settings);
        let running = Running::streaming(&settings, &recorder).await;
        recorder.wait(2).await;
        running.stop().await;
        run(&mut pair.replica_sql, "insert into films.t values (8, 'own')").await;
        if product == MySqlProduct::MariaDb {
            run(&mut pair.replica_sql, "set global slave_connections_needed_for_purge = 0").await;
        }
        let sql = &mut pair.replica_sql;
        // What a reader that has just ended had open is kept for a moment.
        until("the log is purged", async || {
            run(sql, "flush binary logs").await;
            run(sql, "purge binary logs before now() + interval 1 day").await;
            sql.query::<mysql_async::Row, _>("show binary logs").await.expect("files").len() == 1
        })
        .await;
        let error = Running::start(&settings, &recorder).error().await.to_string();
        assert!(error.contains("changes since then are lost"), "{error}");
        assert_eq!(recorder.len(), 2);
    }
}
