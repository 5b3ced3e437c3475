//! The network between a connector and its database is cut: no packet arrives, and nobody is told.
//!
//! The connector that is cut off has a network namespace of its own, so these tests need root and `ip` (iproute2).

use std::fs::File;
use std::os::fd::AsFd as _;
use std::process::Command;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::sync::oneshot;
use tributary_connector::ConnectorSettings;
use tributary_stack::{Postgres, PostgresOptions};

use crate::support::{Recorder, Running, connect, until, version};

/// A network namespace that is linked to ours; removed when dropped.
struct Namespace {
    name: String,
}

impl Namespace {
    /// Our address on the link.
    const HERE: &str = "10.213.7.1";

    /// `None`, which is said, if this machine does not let us.
    fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("NOT TESTED: a network is cut as root only");
            return None;
        }
        assert!(ip("-V").is_ok(), "`ip` is missing: apt-get install iproute2");
        let name = format!("tributary{}", std::process::id());
        let namespace = Self { name: name.clone() };
        for command in [
            format!("netns add {name}"),
            format!("link add {name} type veth peer name there netns {name}"),
            format!("address add {}/30 dev {name}", Self::HERE),
            format!("link set {name} up"),
            format!("-n {name} address add 10.213.7.2/30 dev there"),
            format!("-n {name} link set there up"),
        ] {
            ip(&command).expect("a namespace");
        }
        Some(namespace)
    }

    /// Packets are lost from now on; no connection is closed.
    fn cut(&self) {
        ip(&format!("-n {} link set there down", self.name)).expect("cut");
    }

    /// Runs a connector in the namespace, on a thread of its own, until the sender is dropped.
    fn run(
        &self,
        settings: ConnectorSettings,
        recorder: Recorder,
    ) -> (oneshot::Sender<()>, std::thread::JoinHandle<()>) {
        let (alive, dead) = oneshot::channel();
        let place = File::open(format!("/run/netns/{}", self.name)).expect("the namespace");
        let thread = std::thread::spawn(move || {
            move_into_link_name_space(place.as_fd(), Some(LinkNameSpaceType::Network)).expect("entered");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let running = Running::start(&settings, &recorder);
                let _ = dead.await;
                // It has noticed by itself, or does so now.
                until("the first knows that it is cut off", async || !running.health.is_up()).await;
                running.kill().await;
            });
        });
        (alive, thread)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The kernel keeps the namespace, and its end of the link, as long as a connection in it waits for an answer.
        let _ = ip(&format!("link delete {}", self.name));
        let _ = ip(&format!("netns delete {}", self.name));
    }
}

fn ip(arguments: &str) -> Result<(), String> {
    let output = Command::new("ip").args(arguments.split(' ')).output().map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("ip {arguments}: {said}")) }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_connector_takes_over_when_the_network_of_the_first_is_cut() {
    let Some(namespace) = Namespace::new() else { return };
    let addresses = format!("127.0.0.1,{}", Namespace::HERE);
    // Sessions that ask for nothing would wait for ever.
    let settings = [("listen_addresses", addresses.as_str()), ("wal_sender_timeout", "0")];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let version = version().await.to_string();
    let options = PostgresOptions { version, settings, fsync: false, ..PostgresOptions::default() };
    let postgres = Postgres::start(options).await.expect("PostgreSQL starts");
    let hba = postgres.data_dir().join("pg_hba.conf");
    let rules = std::fs::read_to_string(&hba).expect("pg_hba.conf");
    std::fs::write(&hba, format!("host all all 10.213.7.0/30 trust\n{rules}")).expect("written");
    let sql = connect(&postgres.url("postgres")).await;
    sql.batch_execute("select pg_reload_conf(); create table t (id int primary key)").await.expect("made");

    let recorder = Recorder::new();
    let near = ConnectorSettings::postgres("cut", postgres.url("postgres").as_str().into(), ["t"]);
    let far = postgres.url("postgres").replace("127.0.0.1", Namespace::HERE);
    let far = ConnectorSettings::postgres("cut", far.as_str().into(), ["t"]);
    let (alive, first) = namespace.run(far, recorder.clone());
    until("the first streams from its namespace", async || {
        let active = "select count(*) from pg_stat_replication r join pg_replication_slots s on s.active_pid = r.pid \
            where client_addr = '10.213.7.2'";
        sql.query_one(active, &[]).await.expect("asked").get::<_, i64>(0) == 1
    })
    .await;
    let second = Running::start(&near, &recorder);
    second.wait_down("another process reads").await;
    sql.batch_execute("insert into t select generate_series(1, 1000)").await.expect("inserted");
    recorder.wait(1000).await;

    namespace.cut();
    sql.batch_execute("insert into t select generate_series(1001, 2000)").await.expect("inserted");
    let records = recorder.wait(2000).await;
    second.wait_up().await;
    let ids: Vec<i64> = records.iter().filter_map(|record| record.get("/after/id").as_i64()).collect();
    assert!(ids.iter().copied().eq(1..=2000), "each once, in order");
    second.stop().await;
    drop(alive);
    first.join().expect("the first ends");
}
