//! The graph, in a runtime of its own: when that ends, so does every connection at that moment, as those of a process that is killed.

use std::time::Duration;

use anyhow::{Context as _, Result};
use movie_graph::{Service, Settings};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Mutex;

use super::schedule::Harm;

/// How late a late graph answers.
const LATE: Duration = Duration::from_secs(3);

pub(super) struct Graph {
    settings: Settings,
    running: Mutex<Option<Running>>,
}

struct Running {
    service: Service,
    runtime: Ending,
}

/// A runtime that ends without waiting for anybody, which is all that may be done where others run.
struct Ending(Option<Runtime>);

impl Drop for Ending {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

async fn run(settings: Settings) -> Result<Running> {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().context("a runtime")?;
    let started = runtime.spawn(Service::start(settings));
    let runtime = Ending(Some(runtime));
    Ok(Running { service: started.await.context("starting the graph")??, runtime })
}

impl Graph {
    pub(super) async fn start(settings: Settings) -> Result<Self> {
        let running = run(settings.clone()).await?;
        let settings = Settings { listen: running.service.address(), ..settings };
        Ok(Self { settings, running: Mutex::new(Some(running)) })
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(super) async fn hurt(&self, harm: Harm) {
        let mut running = self.running.lock().await;
        let faults = running.as_ref().map(|running| running.service.faults());
        match harm {
            Harm::Pause => faults.iter().for_each(|faults| faults.set_delay(Duration::from_secs(3600))),
            Harm::Late => faults.iter().for_each(|faults| faults.set_late(LATE)),
            // The runtime first: a service that is dropped says goodbye.
            Harm::Kill => drop(running.take().map(|Running { service, runtime }| (drop(runtime), service))),
            Harm::Stop => {
                if let Some(running) = running.take() {
                    running.service.stop().await;
                }
            }
            // Relays to it are cut; it goes on.
            Harm::Cut => {}
        }
    }

    /// A service that was paused, and answers nothing to those who asked meanwhile, is one that is started anew.
    pub(super) async fn heal(&self, harm: Harm) -> Result<()> {
        let mut running = self.running.lock().await;
        if harm == Harm::Late {
            running.iter().for_each(|running| running.service.faults().set_late(Duration::ZERO));
            return Ok(());
        }
        if let Some(running) = running.take() {
            running.service.stop().await;
        }
        *running = Some(run(self.settings.clone()).await?);
        Ok(())
    }

    pub(super) async fn stop(&self) {
        if let Some(running) = self.running.lock().await.take() {
            running.service.stop().await;
        }
    }
}
