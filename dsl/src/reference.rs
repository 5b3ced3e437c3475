//! The reference of `pipeline.yaml`, made of [`crate::keys`]: a JSON Schema for editors, and the page
//! `docs/pipeline.md` for people, which a test writes and holds to be current.

mod page;
#[cfg(test)]
mod tests;

pub use page::reference_page;

use serde_json::json;

use crate::keys::PIPELINE;
use crate::yaml::Documented;

/// The JSON Schema (draft 7) of a pipeline.
pub fn json_schema() -> String {
    let mut schema = (&PIPELINE).schema();
    schema["$schema"] = json!("http://json-schema.org/draft-07/schema#");
    schema["title"] = json!("A pipeline of Tributary");
    format!("{schema:#}\n")
}
