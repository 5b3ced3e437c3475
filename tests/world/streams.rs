//! A pipeline of streams alone.

use super::World;

impl World {
    /// Gives the pipeline services and streams, and takes its graph and its index away.
    pub fn define_streams(&self, streams: &str) {
        let text = std::fs::read_to_string(self.pipeline()).expect("the pipeline");
        let head = text.split_once("\ngraph:").expect("a graph").0;
        let tail = text.split_once("\nhttp:").expect("a listener").1;
        std::fs::write(self.pipeline(), format!("{head}\n{streams}\nhttp:{tail}")).expect("the pipeline");
    }
}
