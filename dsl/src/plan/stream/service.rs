//! Services: what streams ask, and how gently.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::plan::Secret;

/// A service that steps ask. Its limits hold for all of them together.
#[derive(Debug, Clone)]
pub struct ServicePlan {
    /// Its name.
    pub name: String,
    /// What it speaks.
    pub kind: ServiceKind,
    /// Its URL; of a GraphQL service the endpoint, of another one what paths are put behind.
    pub url: String,
    /// Headers sent with every request.
    pub headers: BTreeMap<String, Secret>,
    /// The longest one request may take.
    pub timeout: Duration,
    /// Requests in flight at most.
    pub concurrency: usize,
    /// Requests in a time at most.
    pub rate: Option<RateLimit>,
    /// When it is left alone for a while.
    pub breaker: BreakerSettings,
}

/// What a service speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceKind {
    /// GraphQL over HTTP.
    Graphql,
    /// JSON over HTTP.
    Rest,
}

/// Requests in a time at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// So many.
    pub requests: u32,
    /// In this time.
    pub per: Duration,
}

/// When a service is left alone for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerSettings {
    /// Percent of the requests of a window that failed, or were slow, from 1 to 100.
    pub failures: u8,
    /// A request that takes longer counts as failed.
    pub slow: Option<Duration>,
    /// The requests that count are those of this time.
    pub window: Duration,
    /// How long it is left alone before one request tries it.
    pub pause: Duration,
}
