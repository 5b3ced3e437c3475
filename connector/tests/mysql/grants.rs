//! What the user may do: what lacks is named with the statement that grants it, and nothing more is asked for than what is used.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tributary_connector::{ConnectorSettings, Independent, SourceSettings, mysql};
use tributary_event::TableName;
use tributary_stack::MySqlProduct;

use crate::server::{Database, databases, films, mysql_mut, products, run, start};
use crate::support::{Recorder, Running};

/// The settings with another user, whose password is `x`.
fn settings_of(db: &Database, tables: &[&str], user: &str) -> ConnectorSettings {
    let mut settings = db.settings(tables);
    mysql_mut(&mut settings).url = db.url.replace("root@", &format!("{user}:x@")).as_str().into();
    settings
}

/// What a look at the server says: notes, or an error.
async fn told(settings: &ConnectorSettings) -> Result<Vec<String>, String> {
    let SourceSettings::MySql(source) = &settings.source else { panic!("a MySQL source") };
    mysql::inspect(source, &Independent).await.map_err(|error| error.to_string())
}

/// The statement that a message asks for.
fn remedy(message: &str) -> String {
    message.split_once("run: ").unwrap_or_else(|| panic!("no remedy in {message:?}")).1.to_owned()
}

/// Runs what is asked for until nothing is.
async fn granted(db: &mut Database, settings: &ConnectorSettings) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        let messages = told(settings).await.unwrap_or_else(|error| vec![error]);
        if messages.is_empty() {
            return all;
        }
        for message in messages {
            let statement = remedy(&message);
            assert!(!all.contains(&statement), "{message} did not help");
            db.run(&statement).await;
            all.push(statement);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lacks_is_named_and_is_enough() {
    for mut db in databases("grants").await {
        let user = format!("u_{}", db.name);
        db.run("create table t (a int, b int, c int, primary key (b, a))").await;
        db.run("create table hidden (id int primary key)").await;
        db.run(&format!("create user {user} identified by 'x'")).await;
        let (name, watch) = (db.name.clone(), if db.is_mariadb { "BINLOG MONITOR" } else { "REPLICATION CLIENT" });
        let settings = settings_of(&db, &["t"], &user);
        let recorder = Recorder::new();
        let error = Running::start(&settings, &recorder).error().await.to_string();
        assert_eq!(remedy(&error), format!("GRANT REPLICATION SLAVE ON *.* TO '{user}'@'%';"), "{error}");
        let expected = [
            format!("GRANT REPLICATION SLAVE ON *.* TO '{user}'@'%';"),
            format!("GRANT SELECT ON `{name}`.`t` TO '{user}'@'%';"),
            format!("GRANT {watch} ON *.* TO '{user}'@'%';"),
        ];
        assert_eq!(granted(&mut db, &settings).await, expected);
        let running = Running::streaming(&settings, &recorder).await;
        db.run("insert into t values (1, 2, 3)").await;
        let records = recorder.wait(1).await;
        assert_eq!(records[0].key, Some(serde_json::json!({"b": 2, "a": 1})));
        running.stop().await;
        // Of several hosts, one may be a replica.
        let mut several = settings.clone();
        let host = db.url.trim_end_matches('/').rsplit_once('@').expect("a host").1.to_owned();
        mysql_mut(&mut several).url = format!("mysql://{user}:x@127.0.0.1:1,{host}").as_str().into();
        let replicas =
            if db.is_mariadb { vec![format!("GRANT SLAVE MONITOR ON *.* TO '{user}'@'%';")] } else { vec![] };
        assert_eq!(granted(&mut db, &several).await, replicas);
        // Nobody knows whether a table is there that may not be seen.
        for table in ["hidden", "absent"] {
            let error = told(&settings_of(&db, &[table], &user)).await.expect_err("refused");
            assert_eq!(remedy(&error), format!("GRANT SELECT ON `{name}`.`{table}` TO '{user}'@'%';"), "{error}");
        }
        db.run(&format!("revoke select on t from {user}")).await;
        db.run(&format!("grant select (a) on t to {user}")).await;
        let error = told(&settings).await.expect_err("some columns alone may be seen");
        assert_eq!(remedy(&error), expected[1], "{error}");
        db.run(&format!("grant select on {name}.* to {user}")).await;
        let error = told(&settings_of(&db, &["absent"], &user)).await.expect_err("it does not exist");
        assert!(error.contains("it does not exist"), "{error}");
        db.run(&format!("drop user {user}")).await;
        db.remove().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_through_a_role_is_enough() {
    for mut db in databases("roles").await {
        let (user, role, name) = (format!("u_{}", db.name), format!("r_{}", db.name), db.name.clone());
        db.run("create table t (id int primary key)").await;
        db.run(&format!("create role {role}")).await;
        db.run(&format!("grant replication slave on *.* to {role}")).await;
        db.run(&format!("grant select on {name}.t to {role}")).await;
        db.run(&format!("create user {user} identified by 'x'")).await;
        db.run(&format!("grant {role} to {user}")).await;
        let settings = settings_of(&db, &["t"], &user);
        let error = told(&settings).await.expect_err("the role is not active");
        assert!(error.contains("GRANT REPLICATION SLAVE"), "{error}");
        let word = if db.is_mariadb { "for" } else { "to" };
        db.run(&format!("set default role {role} {word} {user}")).await;
        let notes = told(&settings).await.expect("enough");
        assert!(notes.len() == 1 && notes[0].contains("cannot be told"), "{notes:?}");
        let recorder = Recorder::new();
        let running = Running::streaming(&settings, &recorder).await;
        db.run("insert into t values (1)").await;
        recorder.wait(1).await;
        running.stop().await;
        db.run(&format!("drop user {user}")).await;
        db.run(&format!("drop role {role}")).await;
        db.remove().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_gtids_the_end_of_the_log_must_be_told() {
    if !products().contains(&MySqlProduct::MySql) {
        return;
    }
    let off = [("gtid-mode", "OFF"), ("enforce-gtid-consistency", "OFF"), ("innodb-native-foreign-keys", "ON")];
    let (server, mut sql) = start(MySqlProduct::MySql, &off).await;
    run(&mut sql, "create table t (id int primary key)").await;
    run(&mut sql, "create table c (id int primary key, t int, foreign key (t) references t (id) on delete cascade)")
        .await;
    run(&mut sql, "create user reader identified by 'x'").await;
    run(&mut sql, "grant replication slave on *.* to reader").await;
    run(&mut sql, "grant select on films.* to reader").await;
    let settings = films(&format!("mysql://reader:x@127.0.0.1:{}", server.port()), &["t", "c"]);
    let error = told(&settings).await.expect_err("refused");
    assert_eq!(remedy(&error), "GRANT REPLICATION CLIENT ON *.* TO 'reader'@'%';", "{error}");
    run(&mut sql, &remedy(&error)).await;
    // Its foreign keys are those of before 9.6.
    let notes = told(&settings).await.expect("enough");
    assert!(notes.len() == 1 && notes[0].contains("table films.c") && notes[0].contains("9.6"), "{notes:?}");
    let recorder = Recorder::new();
    let running = Running::streaming(&settings, &recorder).await;
    run(&mut sql, "insert into t values (1)").await;
    recorder.wait(1).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cascades_that_are_in_no_log_are_told_with_what_ends_them() {
    for mut db in databases("cascades").await {
        db.run("create table p (id int primary key, x int unique)").await;
        db.run(
            "create table t (id int primary key, `a b` int, c int, constraint `k 1` foreign key (`a b`) references p (id) on delete cascade, \
             foreign key (c) references p (x) on delete set null on update cascade)",
        )
        .await;
        let (recorder, settings) = (Recorder::new(), db.settings(&["p", "t"]));
        let notes = told(&settings).await.expect("nothing is refused");
        let running = Running::streaming(&settings, &recorder).await;
        db.run("insert into p values (1, 1), (2, 2)").await;
        db.run("insert into t values (1, 1, 2), (2, 2, 1)").await;
        recorder.wait(4).await;
        if db.is_mariadb {
            let all = notes.join("\n");
            assert!(notes.len() == 2 && all.contains("by CASCADE when rows are deleted in `p`"), "{all}");
            assert!(
                all.contains("by SET NULL when rows are deleted and by CASCADE when rows change their key"),
                "{all}"
            );
            for note in &notes {
                db.run(&remedy(note)).await;
            }
            assert_eq!(told(&settings).await, Ok(vec![]));
            db.refuses("delete from p where id = 1").await;
        } else {
            assert_eq!(notes, [""; 0], "9.7 logs them");
            db.run("delete from p where id = 1").await;
            let records = recorder.wait(9).await;
            let mut ops: Vec<&str> = records[4..].iter().map(|record| record.op()).collect();
            ops.retain(|op| *op != "tombstone");
            ops.sort_unstable();
            assert_eq!(ops, ["d", "d", "u"], "a row of each table goes, and one forgets its parent");
        }
        running.stop().await;
        db.remove().await;
    }
}

/// Commands that a server was sent over a way of ours.
struct Way {
    port: u16,
    commands: Arc<AtomicUsize>,
}

impl Way {
    /// A way to the server at a port, over connections without TLS.
    async fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let commands = Arc::new(AtomicUsize::new(0));
        let counted = commands.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", server)).await.expect("the server");
                let (mut from, mut to) = client.into_split();
                let (mut answers, mut asks) = server.into_split();
                tokio::spawn(async move { tokio::io::copy(&mut answers, &mut to).await });
                let counted = counted.clone();
                tokio::spawn(async move {
                    let mut packet = vec![0; 4];
                    while from.read_exact(&mut packet[..4]).await.is_ok() {
                        let length = u32::from_le_bytes([packet[0], packet[1], packet[2], 0]) as usize;
                        packet.resize(4 + length, 0);
                        let whole = from.read_exact(&mut packet[4..]).await.is_ok();
                        if !whole || asks.write_all(&packet).await.is_err() {
                            break;
                        }
                        // Later packets of the same exchange count on.
                        counted.fetch_add(usize::from(packet[3] == 0), Ordering::Relaxed);
                    }
                });
            }
        });
        Self { port, commands }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_tables_take_hardly_more_commands_than_one() {
    const TABLES: usize = 400;
    for mut db in databases("many").await {
        let (user, name) = (format!("u_{}", db.name), db.name.clone());
        let tables: Vec<String> = (0..TABLES).map(|at| format!("t{at}")).collect();
        for table in &tables {
            let parent = if table == "t300" { ", foreign key (b) references t0 (b) on delete cascade" } else { "" };
            db.run(&format!(
                "create table {table} (a int, b int, c text, primary key (c(9), a), unique key (b) {parent})"
            ))
            .await;
        }
        let watch = if db.is_mariadb { "binlog monitor" } else { "replication client" };
        db.run(&format!("create user {user} identified by ''")).await;
        db.run(&format!("grant replication slave, {watch} on *.* to {user}")).await;
        for table in &tables {
            db.run(&format!("grant select on {name}.{table} to {user}")).await;
        }
        let port = db.url.trim_end_matches('/').rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        let way = Way::to(port.expect("a port")).await;
        let url = format!("mysql://{user}@127.0.0.1:{}?ssl-mode=DISABLED", way.port);
        let settings = |tables: &[String]| {
            let tables = tables.iter().map(|table| TableName::new(name.as_str(), table.as_str()));
            ConnectorSettings::mysql(&name, url.as_str().into(), tables)
        };
        // What a check sends, and what a first start does.
        let commands = async |tables: &[String]| {
            let settings = settings(tables);
            let before = way.commands.load(Ordering::Relaxed);
            let notes = told(&settings).await.expect("enough");
            let checked = way.commands.load(Ordering::Relaxed);
            Running::streaming(&settings, &Recorder::new()).await.stop().await;
            (notes, checked - before, way.commands.load(Ordering::Relaxed) - checked)
        };
        let (_, check, start) = commands(&tables[..1]).await;
        let (notes, check_all, start_all) = commands(&tables).await;
        let said =
            format!("MariaDB: {}; {check} and {start} commands, then {check_all} and {start_all}", db.is_mariadb);
        eprintln!("{said}");
        assert!(check > 5 && check_all <= check + 10 && start_all <= start + 20, "{said}");
        assert_eq!(notes.iter().filter(|note| note.contains("t300`")).count(), usize::from(db.is_mariadb), "{notes:?}");
        // Of many, the one that lacks is named.
        db.run(&format!("revoke select on {name}.t333 from {user}")).await;
        let error = told(&settings(&tables)).await.expect_err("one may not be seen");
        assert_eq!(remedy(&error), format!("GRANT SELECT ON `{name}`.`t333` TO '{user}'@'%';"), "{error}");
        db.run(&format!("grant select on {name}.* to {user}")).await;
        let mut cased = tables.clone();
        cased[1] = "T1".to_owned();
        let error = told(&settings(&cased)).await.expect_err("no such table");
        assert!(error.contains(&format!("did you mean {name}.t1?")), "{error}");
        db.run(&format!("drop user {user}")).await;
        db.remove().await;
    }
}
