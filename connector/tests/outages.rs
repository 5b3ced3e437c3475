//! What a connector says while the transport is away: the same trouble once.

use crate::logs;
use crate::support::{Database, Recorder, Running};

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_the_transport_is_told_once_however_often_an_append_is_tried() {
    logs::listen();
    let db = Database::create("outage").await;
    db.run("create table thing (id bigint primary key)").await;
    let settings = db.settings(&["thing"]);
    let transport = Recorder::new();
    let running = Running::streaming(&settings, &transport).await;
    // Every other append fails, and then many in a row.
    for id in 0..4 {
        transport.fail(1);
        db.run(&format!("insert into thing values ({id})")).await;
        transport.wait(id as usize + 1).await;
    }
    transport.fail(4);
    db.run("insert into thing values (4)").await;
    transport.wait(5).await;
    let told = logs::warnings(&settings.name);
    assert_eq!(told.iter().filter(|text| text.contains("does not accept events")).count(), 1, "{told:?}");
    running.stop().await;
    db.remove().await;
}
