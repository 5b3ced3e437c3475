//! movie-graph
