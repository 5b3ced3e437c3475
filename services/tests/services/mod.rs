//! One file for each matter; [`server`] is what they run against, [`plans`] what they ask it by.

mod falling;
mod graphql;
mod metrics;
mod outages;
mod plans;
mod poison;
mod random;
mod rest;
mod server;
mod together;
mod traced;
