//! TLS: who is trusted.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::time::Duration;

use tributary_dsl::plan::{KnownFields, RowPlan, Secret, SqlPlan};
use tributary_event::ErrorClass;
use tributary_processor::sink::LedgerSink as _;
use tributary_sinks::Sql;
use tributary_stack::{Authority, Postgres, PostgresOptions};

use super::database::connect;
use crate::support::place;

#[tokio::test]
async fn a_server_is_trusted_as_far_as_the_url_says() {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = |name| Authority::new(folder.path(), name).expect("an authority");
    let (ours, other) = (authority("ours"), authority("other"));
    let options = PostgresOptions { password: Some("hunter2".into()), fsync: false, ..PostgresOptions::default() };
    let postgres = Postgres::start(options).await.expect("PostgreSQL starts");
    let owner = std::fs::metadata(postgres.data_dir()).expect("the data folder");
    let (certificate, key) = ours.sign("localhost").expect("signed");
    for (name, text) in [("server.crt", certificate), ("server.key", key)] {
        let path = postgres.data_dir().join(name);
        std::fs::write(&path, text).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("private");
        chown(&path, Some(owner.uid()), Some(owner.gid())).expect("the server's own");
    }
    connect(&postgres.url("postgres")).await.run("alter system set ssl = on").await;
    postgres.restart().await.expect("starts again");
    let ask = |password: &str, host: &str, parameters: String| {
        let url = format!("postgres://postgres:{password}@{host}:{}/postgres?{parameters}", postgres.port());
        let plan = SqlPlan {
            url: Secret::new(url),
            table: "public.orders".into(),
            row: RowPlan { row: None, is_envelope: true, key: vec!["id".into()], fields: KnownFields::default() },
            create: true,
            keep_deleted: Duration::ZERO,
        };
        async move { Sql::new(&plan, "s", "s").expect("a sink").next(&place(0)).await.map_err(|e| (e.class, e.message)) }
    };
    let (ours, other) = (ours.file().display().to_string(), other.file().display().to_string());
    for (host, parameters) in [
        ("localhost", format!("sslmode=verify-full&sslrootcert={ours}")),
        ("127.0.0.1", format!("sslmode=verify-ca&sslrootcert={ours}")),
        ("127.0.0.1", "sslmode=require".into()),
        ("127.0.0.1", String::new()),
        ("127.0.0.1", "sslmode=disable".into()),
    ] {
        assert_eq!(ask("hunter2", host, parameters.clone()).await, Ok(None), "{parameters}");
    }
    for (host, parameters) in [
        ("127.0.0.1", format!("sslmode=verify-full&sslrootcert={ours}")),
        ("localhost", format!("sslmode=verify-full&sslrootcert={other}")),
        ("localhost", format!("sslmode=require&sslrootcert={other}")),
        ("localhost", "sslmode=verify-full".into()),
    ] {
        let (class, why) = ask("hunter2", host, parameters).await.expect_err("not trusted");
        assert!(class == ErrorClass::Fatal && why.contains("certificate") && !why.contains("hunter2"), "{why}");
    }
    let (class, why) = ask("wrong", "127.0.0.1", String::new()).await.expect_err("no entry");
    assert!(class == ErrorClass::Fatal && why.contains("password") && !why.contains("wrong"), "{why}");
}
