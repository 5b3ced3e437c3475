//! TLS towards PostgreSQL: who is trusted, who is let in, and that passwords are bound to the connection.

use std::os::unix::fs::{PermissionsExt as _, chown};

use tempfile::TempDir;
use tributary_connector::ConnectorSettings;
use tributary_stack::{Authority, Postgres, PostgresOptions};

use crate::support::{Database, Recorder, Running, connect};

const PASSWORD: &str = "s3cret ü";

struct World {
    postgres: Postgres,
    folder: TempDir,
    ours: Authority,
    other: Authority,
}

impl World {
    /// A server whose certificate is for `localhost`, and which lets the role `certified` in by its certificate alone.
    async fn start(version: i32) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let new = |name| Authority::new(folder.path(), name).expect("an authority");
        let (ours, other) = (new("ours"), new("other"));
        let password = Some(PASSWORD.to_owned());
        let options = PostgresOptions { version: version.to_string(), password, fsync: false, ..Default::default() };
        let postgres = Postgres::start(options).await.expect("PostgreSQL starts");
        let owner = std::fs::metadata(postgres.data_dir()).expect("the data folder");
        let write = |name: &str, text: &str| {
            use std::os::unix::fs::MetadataExt as _;
            let path = postgres.data_dir().join(name);
            std::fs::write(&path, text).expect("written");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("private");
            chown(&path, Some(owner.uid()), Some(owner.gid())).expect("the server's own");
        };
        let (certificate, key) = ours.sign("localhost").expect("signed");
        write("server.crt", &certificate);
        write("server.key", &key);
        write("root.crt", &std::fs::read_to_string(ours.file()).expect("the authority"));
        let old = std::fs::read_to_string(postgres.data_dir().join("pg_hba.conf")).expect("pg_hba.conf");
        let rules = "hostssl all certified all cert\nhost all certified all reject\n";
        write("pg_hba.conf", &format!("{rules}{old}"));
        let sql = connect(&postgres.url("postgres")).await;
        sql.batch_execute("create table t (id int primary key); create role certified superuser login")
            .await
            .expect("made");
        for setting in ["ssl = on", "ssl_ca_file = 'root.crt'"] {
            sql.batch_execute(&format!("alter system set {setting}")).await.expect("set");
        }
        postgres.stop().await.expect("stops");
        postgres.start_again().await.expect("starts again");
        Self { postgres, folder, ours, other }
    }

    fn settings(&self, user: &str, host: &str, parameters: &str) -> ConnectorSettings {
        let port = self.postgres.port();
        let url = format!("postgres://{user}@{host}:{port}/postgres?{parameters}");
        ConnectorSettings::postgres("tls", url.as_str().into(), ["t"])
    }

    fn with_password(&self, host: &str, parameters: &str) -> ConnectorSettings {
        self.settings("postgres:s3cret%20%C3%BC", host, parameters)
    }
}

async fn streams(settings: &ConnectorSettings) {
    let running = Running::start(settings, &Recorder::new());
    running.wait_up().await;
    running.stop().await;
}

async fn refused(settings: &ConnectorSettings, text: &str) {
    let error = Running::start(settings, &Recorder::new()).error().await.to_string();
    assert!(error.contains(text), "{text:?} is not in: {error}");
    assert!(!error.contains("s3cret"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_and_clients_prove_who_they_are() {
    let db = Database::create("tls").await;
    let version = db.version().await;
    db.remove().await;
    let world = World::start(version).await;
    let root = format!("sslrootcert={}", world.ours.file().display());
    let full = format!("sslmode=verify-full&{root}");
    streams(&world.with_password("localhost", &format!("{full}&channel_binding=require"))).await;
    streams(&world.with_password("localhost", &format!("{full}&channel_binding=disable"))).await;
    streams(&world.with_password("127.0.0.1", &format!("sslmode=verify-ca&{root}"))).await;
    streams(&world.with_password("127.0.0.1", "sslmode=require")).await;
    refused(&world.with_password("127.0.0.1", &full), "not valid for name").await;
    let stranger = format!("sslmode=verify-full&sslrootcert={}", world.other.file().display());
    refused(&world.with_password("localhost", &stranger), "UnknownIssuer").await;
    refused(&world.with_password("localhost", "sslmode=disable&channel_binding=require"), "channel").await;
    // The client's certificate in place of a password.
    let (certificate, key) = world.ours.sign("certified").expect("signed");
    let files = ["client.crt", "client.key"].map(|name| world.folder.path().join(name));
    std::fs::write(&files[0], certificate).expect("written");
    std::fs::write(&files[1], key).expect("written");
    let [certificate, key] = files.map(|f| f.display().to_string());
    streams(&world.settings("certified", "localhost", &format!("{full}&sslcert={certificate}&sslkey={key}"))).await;
    refused(&world.settings("certified", "localhost", &full), "certificate").await;
    refused(&world.settings("certified", "localhost", &format!("{full}&sslcert={certificate}")), "name both files")
        .await;
    let swapped = format!("{full}&sslcert={key}&sslkey={certificate}");
    refused(&world.settings("certified", "localhost", &swapped), "sslkey").await;
}
