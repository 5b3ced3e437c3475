//! Who is let in, and who is trusted.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};

use tempfile::TempDir;
use tributary_connector::ConnectorSettings;
use tributary_stack::{Authority, MySql, MySqlProduct};

use crate::server::{databases, films, products, run, start, start_with};
use crate::support::{Recorder, Running};

/// What sources need.
async fn granted(sql: &mut mysql_async::Conn, product: MySqlProduct, user: &str) {
    let client = if product == MySqlProduct::MariaDb { "binlog monitor" } else { "replication client" };
    run(sql, &format!("grant select, replication slave, {client} on *.* to {user}")).await;
}

async fn streams(settings: &ConnectorSettings) {
    let running = Running::streaming(settings, &Recorder::new()).await;
    running.stop().await;
}

async fn refused(settings: &ConnectorSettings, text: &str) {
    let error = Running::start(settings, &Recorder::new()).error().await.to_string();
    assert!(error.contains(text), "{text:?} is not in: {error}");
    assert!(!error.contains("s3cret"), "{error}");
}

fn at(server: &MySql, user: &str, host: &str, parameters: &str) -> ConnectorSettings {
    films(&format!("mysql://{user}@{host}:{}?{parameters}", server.port()), &["t"])
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_are_proved_in_every_way_of_mariadb() {
    if !products().contains(&MySqlProduct::MariaDb) {
        return;
    }
    let (server, mut sql) = start_with(MySqlProduct::MariaDb, &[], true).await;
    run(&mut sql, "create table films.t (id int primary key)").await;
    for (method, plugin) in [("ed25519", "auth_ed25519"), ("parsec", "auth_parsec")] {
        run(&mut sql, &format!("install soname '{plugin}'")).await;
        let user = format!("{method}_user");
        run(&mut sql, &format!("create user {user} identified via {method} using password('s3cret ü')")).await;
        granted(&mut sql, MySqlProduct::MariaDb, &user).await;
        // Each time with another nonce.
        for _ in 0..3 {
            streams(&at(&server, &format!("{user}:s3cret%20%C3%BC"), "127.0.0.1", "ssl-mode=DISABLED")).await;
        }
        refused(&at(&server, &format!("{user}:s3cret"), "127.0.0.1", ""), "Access denied").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_are_proved_in_every_way_of_mysql() {
    if !products().contains(&MySqlProduct::MySql) {
        return;
    }
    let (server, mut sql) = start(MySqlProduct::MySql, &[]).await;
    run(&mut sql, "create table films.t (id int primary key)").await;
    run(&mut sql, "create user films identified by 's3cret ü'").await;
    granted(&mut sql, MySqlProduct::MySql, "films").await;
    let login = "films:s3cret%20%C3%BC";
    for mode in ["REQUIRED", "PREFERRED", "DISABLED"] {
        // The first time the server does not know the password yet: over TLS it is sent, else encrypted for the server's key.
        run(&mut sql, "flush privileges").await;
        streams(&at(&server, login, "127.0.0.1", &format!("ssl-mode={mode}"))).await;
        streams(&at(&server, login, "127.0.0.1", &format!("ssl-mode={mode}"))).await;
    }
    refused(&at(&server, "films:s3cret", "127.0.0.1", ""), "Access denied").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_and_clients_prove_who_they_are() {
    for product in products() {
        let folder = TempDir::with_prefix_in("tls", "/tmp").expect("a folder");
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).expect("enterable");
        let new = |name| Authority::new(folder.path(), name).expect("an authority");
        let (ours, other) = (new("ours"), new("other"));
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("written");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("readable");
            path.display().to_string()
        };
        let (certificate, key) = ours.sign("localhost").expect("signed");
        let (server_certificate, server_key) = (write("server.crt", &certificate), write("server.key", &key));
        let (certificate, key) = ours.sign("certified").expect("signed");
        let (certificate, key) = (write("client.crt", &certificate), write("client.key", &key));
        let root = ours.file().display().to_string();
        let settings = [("ssl-ca", &*root), ("ssl-cert", &*server_certificate), ("ssl-key", &*server_key)];
        let (server, mut sql) = start(product, &settings).await;
        // The key is the server's alone, as far as who owns it can be said.
        if let Ok(owner) = std::fs::metadata(server.data_dir()) {
            let _ = chown(&server_key, Some(owner.uid()), Some(owner.gid()));
        }
        run(&mut sql, "create table films.t (id int primary key)").await;
        run(&mut sql, "create user checked identified by 's3cret'").await;
        run(&mut sql, "create user certified identified by 's3cret' require subject '/CN=certified'").await;
        run(&mut sql, "create user secured identified by 's3cret' require ssl").await;
        for user in ["checked", "certified", "secured"] {
            granted(&mut sql, product, user).await;
        }
        let full = format!("ssl-mode=VERIFY_IDENTITY&ssl-ca={root}");
        streams(&at(&server, "checked:s3cret", "localhost", &full)).await;
        streams(&at(&server, "checked:s3cret", "127.0.0.1", &format!("ssl-mode=VERIFY_CA&ssl-ca={root}"))).await;
        streams(&at(&server, "secured:s3cret", "127.0.0.1", "ssl-mode=REQUIRED")).await;
        streams(&at(&server, "secured:s3cret", "127.0.0.1", "")).await;
        refused(&at(&server, "secured:s3cret", "127.0.0.1", "ssl-mode=DISABLED"), "Access denied").await;
        refused(&at(&server, "checked:s3cret", "127.0.0.1", &full), "not valid for name").await;
        let stranger = format!("ssl-mode=VERIFY_IDENTITY&ssl-ca={}", other.file().display());
        refused(&at(&server, "checked:s3cret", "localhost", &stranger), "UnknownIssuer").await;
        // The client's certificate.
        let shown = format!("{full}&ssl-cert={certificate}&ssl-key={key}");
        streams(&at(&server, "certified:s3cret", "localhost", &shown)).await;
        refused(&at(&server, "certified:s3cret", "localhost", &full), "Access denied").await;
        refused(&at(&server, "certified:s3cret", "localhost", &format!("{full}&ssl-cert={certificate}")), "both files")
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_hosts_the_one_that_takes_writes_is_read() {
    for product in products() {
        let (replica, mut sql) = start(product, &[("read-only", "1"), ("server-id", "7")]).await;
        run(&mut sql, "create table films.t (id int primary key)").await;
        for mut db in databases("hosts").await.into_iter().filter(|db| crate::server::product(db.is_mariadb) == product)
        {
            db.run("create table t (id int primary key)").await;
            let (recorder, mut settings) = (Recorder::new(), db.settings(&["t"]));
            // Nobody is at the first, the second is read-only.
            let own = db.url.trim_end_matches('/').rsplit_once('@').expect("a host").1.to_owned();
            let url = format!("mysql://root@127.0.0.1:1,127.0.0.1:{},{own}?connect-timeout=5", replica.port());
            crate::server::mysql_mut(&mut settings).url = url.as_str().into();
            let running = Running::streaming(&settings, &recorder).await;
            db.run("insert into t values (1)").await;
            recorder.wait(1).await;
            running.stop().await;
            let url = "mysql://root@127.0.0.1:1,127.0.0.1:2";
            crate::server::mysql_mut(&mut settings).url = url.into();
            Running::start(&settings, &recorder).wait_down("127.0.0.1:2").await;
            db.remove().await;
        }
    }
}
