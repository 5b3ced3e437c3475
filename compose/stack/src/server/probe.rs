//! Asks a server whether it is ready, in its own protocol: an open port alone proves little.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How a part is asked.
#[derive(Clone, Debug)]
pub(crate) enum Probe {
    /// `SELECT 1` over this connection string.
    Postgres(String),
    /// The greeting of MySQL's protocol at this port: a server says it only when it lets somebody in.
    MySql(u16),
    /// Kafka's ApiVersions request at this port: a broker answers only after it joined its cluster.
    Kafka(u16),
    /// `GET` of this URL is answered with 200.
    Http(String),
    /// `POST` of a query to this URL is answered with data.
    Graphql(String),
    /// This port is open: of a server that answers only those whom it knows.
    Port(u16),
}

/// The longest that one question may take.
const PATIENCE: Duration = Duration::from_secs(5);

impl Probe {
    /// Asks once. `Err` says in words what is still missing.
    pub(crate) async fn ask(&self) -> Result<(), String> {
        let answer = async {
            match self {
                Probe::Postgres(config) => Box::pin(postgres(config)).await,
                Probe::MySql(port) => mysql(*port).await,
                Probe::Kafka(port) => kafka(*port).await,
                Probe::Http(url) => Box::pin(http(url)).await,
                Probe::Graphql(url) => Box::pin(graphql(url)).await,
                Probe::Port(port) => {
                    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, *port));
                    TcpStream::connect(address).await.map(drop).map_err(|error| error.to_string())
                }
            }
        };
        match timeout(PATIENCE, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
        }
    }
}

async fn postgres(config: &str) -> Result<(), String> {
    let describe = |error: tokio_postgres::Error| match error.as_db_error() {
        Some(refusal) => refusal.to_string(),
        None => error.to_string(),
    };
    let (client, connection) = tokio_postgres::connect(config, tokio_postgres::NoTls).await.map_err(describe)?;
    // The connection has no owner but this question: both end together.
    tokio::select! {
        result = client.simple_query("SELECT 1") => result.map(drop).map_err(describe),
        result = connection => Err(result.map_or_else(describe, |()| "the connection ended".to_owned())),
    }
}

/// MySQL's client/server protocol, "Connection Phase": a packet with the protocol's version, 10, or with an error, 255.
async fn mysql(port: u16) -> Result<(), String> {
    let greeting = async {
        let mut stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?;
        let mut head = [0; 5];
        stream.read_exact(&mut head).await?;
        Ok::<_, std::io::Error>(head[4])
    };
    match greeting.await {
        Ok(10) => Ok(()),
        Ok(first) => Err(format!("the server greets with {first}, and not with version 10 of its protocol")),
        Err(error) => Err(error.to_string()),
    }
}

/// Kafka protocol guide, "ApiVersions": key 18, version 0; the answer's body begins with an error code.
async fn kafka(port: u16) -> Result<(), String> {
    const REQUEST: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff];
    let exchange = async {
        let mut stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?;
        stream.write_all(&REQUEST).await?;
        let mut head = [0; 10];
        stream.read_exact(&mut head).await?;
        Ok::<_, std::io::Error>(i16::from_be_bytes([head[8], head[9]]))
    };
    match exchange.await {
        Ok(0) => Ok(()),
        Ok(code) => Err(format!("the broker answered with error {code}")),
        Err(error) => Err(error.to_string()),
    }
}

async fn http(url: &str) -> Result<(), String> {
    let client = reqwest::Client::builder().no_proxy().build().map_err(|error| error.to_string())?;
    let response = client.get(url).send().await.map_err(|error| error.to_string())?;
    if response.status().is_success() {
        Ok(())
    } else {
        Err(format!("GET {url} was answered with {}", response.status()))
    }
}

/// Every schema has `__typename` (GraphQL, "Type Name Introspection").
async fn graphql(url: &str) -> Result<(), String> {
    let client = reqwest::Client::builder().no_proxy().build().map_err(|error| error.to_string())?;
    let query = serde_json::json!({ "query": "{ __typename }" });
    let response = client.post(url).json(&query).send().await.map_err(|error| error.to_string())?;
    let answer: serde_json::Value = response.json().await.map_err(|error| error.to_string())?;
    match answer["data"]["__typename"].as_str() {
        Some(_) => Ok(()),
        None => Err(format!("POST {url} was answered with {answer}")),
    }
}
