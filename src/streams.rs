//! The streams of a running pipeline. They need no graph: they begin as soon as the transport has their topics.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tributary_dsl::Definition;
use tributary_event::Health;
use tributary_indexer::request::names;
use tributary_processor::{Lag, Parked, Stream, Taps, Tasks, supervise};
use tributary_transport::{DeadLetters, Retention, TopicSpec, Transport};

use crate::backends::retention;
use crate::exit::Failure;

/// The topics that streams write.
pub fn topics(definition: &Definition) -> impl Iterator<Item = TopicSpec> {
    let retention = retention(definition);
    let partitions = definition.transport().partitions();
    definition.streams().iter().flat_map(|stream| &stream.topics).map(move |sink| TopicSpec {
        name: sink.name.clone(),
        partitions,
        retention: if sink.compact { Retention::Compact } else { retention.clone() },
    })
}

/// Runs them until shutdown or a fatal error.
///
/// # Errors
/// What does not pass by itself.
pub async fn run(
    definition: &Definition,
    transport: Arc<dyn Transport>,
    health: &Health,
    taps: Arc<Taps>,
    shutdown: CancellationToken,
) -> Result<(), Failure> {
    let mut tasks: Tasks<Failure> = JoinSet::new();
    let letters = DeadLetters::new(transport.clone(), names::dead_letters(definition.pipeline()));
    for plan in definition.streams() {
        let stream = Stream {
            pipeline: definition.pipeline().to_owned(),
            plan: Arc::new(plan.clone()),
            transport: transport.clone(),
            enrichers: HashMap::new(),
            taps: taps.clone(),
            parked: Arc::new(Parked::new(letters.clone(), format!("stream {}", plan.name))),
            reading: health.part(format!("reader of stream {}", plan.name)),
            working: health.part(format!("stream {}", plan.name)),
            lag: Lag::default(),
        };
        let shutdown = shutdown.clone();
        tasks.spawn(async move { stream.run(shutdown).await.map_err(|e| Failure::Stopped(e.to_string())) });
    }
    supervise(&mut tasks, &shutdown, Failure::Stopped).await
}
