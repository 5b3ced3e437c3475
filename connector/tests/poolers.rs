//! What answers in the place of a server: poolers, and what does not speak the protocol at all. It is a mistake in the url, not an
//! outage.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tributary_connector::ConnectorSettings;
use tributary_event::ErrorClass;

use crate::support::{Recorder, Running};

/// Listens, and answers every startup message (after a refusal of TLS) with these bytes.
async fn answering(answer: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            tokio::spawn(answer_one(connection, answer.clone()));
        }
    });
    address
}

async fn answer_one(mut connection: TcpStream, answer: Vec<u8>) -> std::io::Result<()> {
    const SSL_REQUEST: u32 = 80_877_103;
    loop {
        let length = connection.read_u32().await?;
        let kind = connection.read_u32().await?;
        if kind == SSL_REQUEST {
            connection.write_all(b"N").await?;
            continue;
        }
        let mut rest = vec![0; (length as usize).saturating_sub(8)];
        connection.read_exact(&mut rest).await?;
        connection.write_all(&answer).await?;
        return connection.shutdown().await;
    }
}

/// As PgBouncer writes it.
fn fatal(code: &str, message: &str) -> Vec<u8> {
    let body = format!("SFATAL\0C{code}\0M{message}\0\0");
    [b"E", &(body.len() as u32 + 4).to_be_bytes()[..], body.as_bytes()].concat()
}

fn settings(address: SocketAddr) -> ConnectorSettings {
    ConnectorSettings::postgres("pooled", format!("postgres://ann:hunter2@{address}/films").as_str().into(), ["t"])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_in_the_url_is_refused_with_the_way_to_the_server() {
    for message in [
        "unsupported startup parameter: options",
        "unsupported startup parameter in options: statement_timeout",
        "unsupported startup parameter: replication",
        "bouncer config error",
        "no such user: ann",
        "no such database: films",
    ] {
        let address = answering(fatal("08P01", message)).await;
        let error = Running::start(&settings(address), &Recorder::new()).error().await;
        let said = error.to_string();
        assert_eq!(error.class(), ErrorClass::Fatal, "{said}");
        assert!(said.contains(message) && said.contains("PostgreSQL server's own host and port"), "{said}");
        assert!(said.contains(&address.to_string()) && !said.contains("hunter2"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_speaks_something_else_is_refused() {
    for banner in ["HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", "SSH-2.0-OpenSSH_9.2\r\n"] {
        let address = answering(banner.as_bytes().to_vec()).await;
        let error = Running::start(&settings(address), &Recorder::new()).error().await;
        let said = error.to_string();
        assert_eq!(error.class(), ErrorClass::Fatal, "{said}");
        assert!(said.contains(&address.to_string()) && said.contains("does not speak PostgreSQL's protocol"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_accepts_and_says_nothing_is_away() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let url = format!("postgres://ann:hunter2@{address}/films?connect_timeout=1");
    let running = Running::start(&ConnectorSettings::postgres("mute", url.as_str().into(), ["t"]), &Recorder::new());
    running.wait_down("it accepts connections, and has said nothing").await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_without_its_server_is_waited_for() {
    for (code, message) in
        [("08P01", "client_login_timeout (server down)"), ("08006", "pgbouncer cannot connect to server")]
    {
        let address = answering(fatal(code, message)).await;
        let running = Running::start(&settings(address), &Recorder::new());
        running.wait_down(message).await;
        running.stop().await;
    }
}
