//! What a document is: an answer of the graph becomes its content, what of that is indexed is decided, and so is how a store maps
//! it. All of it is pure.

pub mod document;
pub mod indexable;
pub mod json;
pub mod mapping;
