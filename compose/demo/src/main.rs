//! `movie-graph`: serves the demo's movies through GraphQL, and fills their database first if asked to.

use anyhow::Context as _;
use clap::Parser;
use movie_graph::{LoadOptions, Service, Settings, create_schema, load};
use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

/// Serves a PostgreSQL database of movies through GraphQL.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The database, for example postgres://postgres@127.0.0.1:5432/movies
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database_url: String,
    /// The address to listen on; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:4000")]
    listen: SocketAddr,
    /// The most connections to the database at a time
    #[arg(long, default_value_t = 8)]
    pool_size: usize,
    /// Fill the database first, unless it holds movies already
    #[arg(long)]
    load: bool,
    /// How often the 3,201 movies are written
    #[arg(long, default_value_t = 1, requires = "load")]
    copies: u32,
    /// Milliseconds that every request waits for its answer, as in front of a service far away
    #[arg(long, default_value_t = 0)]
    delay: u64,
    /// Say with every answer how far the database, which is a standby, has replayed its log (X-Tributary-Position)
    #[arg(long)]
    say_position: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Arguments { database_url, listen, pool_size, load: fill, copies, delay, say_position } = Arguments::parse();
    let mut out = std::io::stdout();
    if fill {
        let report = load(&database_url, LoadOptions { copies, ..LoadOptions::default() }).await?;
        let verb = if report.filled { "loaded" } else { "found" };
        writeln!(out, "{verb} {} movies and {} talents", report.movies, report.talents)?;
    } else if !say_position {
        // A standby has what its primary has.
        create_schema(&database_url).await?;
    }
    let service = Service::start(Settings { database_url, listen, pool_size }).await?;
    service.faults().set_delay(Duration::from_millis(delay));
    service.faults().say_position(say_position);
    writeln!(out, "listening on {}", service.url())?;
    interrupted().await?;
    service.stop().await;
    Ok(())
}

/// Waits for Ctrl-C or, where there is one, a termination signal.
async fn interrupted() -> anyhow::Result<()> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminated = signal(SignalKind::terminate()).context("waiting for a termination signal")?;
        tokio::select! {
            result = tokio::signal::ctrl_c() => result.context("waiting for Ctrl-C"),
            _ = terminated.recv() => Ok(()),
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await.context("waiting for Ctrl-C")
}
