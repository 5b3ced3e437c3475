//! What services do for streams, against servers that speak HTTP in this process.

mod services;
