//! What a server says of workflows: of a definition, and of those that were started for an event.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde::de::IgnoredAny;

/// The definition of a workflow (`WorkflowDef`).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Definition {
    name: String,
    input_parameters: Option<Vec<String>>,
    /// What inputs have that are not given.
    input_template: Option<BTreeMap<String, IgnoredAny>>,
}

/// The parameters of a definition that an input of these fields will never have. `Err`: it is no definition of the workflow.
pub(super) fn lacking(body: &[u8], workflow: &str, fields: Option<&[String]>) -> Result<Vec<String>, ()> {
    let definition: Definition = serde_json::from_slice(body).map_err(drop)?;
    if definition.name != workflow {
        return Err(());
    }
    let Some(fields) = fields else { return Ok(Vec::new()) };
    let template = definition.input_template.unwrap_or_default();
    let given: BTreeSet<&str> = fields.iter().chain(template.keys()).map(String::as_str).collect();
    let parameters = definition.input_parameters.unwrap_or_default();
    Ok(parameters.into_iter().filter(|parameter| !given.contains(parameter.as_str())).collect())
}

/// A workflow that was started (`Workflow`).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Started {
    correlation_id: Option<String>,
    workflow_name: Option<String>,
}

/// Whether a list has a workflow that was started for a correlation id: a search index may find others too. `Err`: it is no list of
/// workflows.
pub(super) fn has(body: &[u8], workflow: &str, id: &str) -> Result<bool, ()> {
    let list: Vec<Started> = serde_json::from_slice(body).map_err(drop)?;
    let fits = |said: &Option<String>, wanted: &str| said.as_deref().is_none_or(|said| said == wanted);
    Ok(list.iter().any(|one| fits(&one.correlation_id, id) && fits(&one.workflow_name, workflow)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_that_an_input_never_has_are_known() {
        let body =
            br#"{"name":"w","version":3,"inputParameters":["a","b","c"],"inputTemplate":{"b":{"x":1}},"tasks":[]}"#;
        let fields = ["a".to_owned(), "z".to_owned()];
        assert_eq!(lacking(body, "w", Some(&fields)), Ok(vec!["c".to_owned()]));
        assert_eq!(lacking(body, "w", None), Ok(vec![]));
        assert_eq!(lacking(br#"{"name":"w"}"#, "w", Some(&fields)), Ok(vec![]));
        assert_eq!((lacking(body, "v", None), lacking(b"<html>", "w", None)), (Err(()), Err(())));
    }

    #[test]
    fn only_a_workflow_of_this_id_counts() {
        let list = br#"[{"correlationId":"a:1","workflowName":"w","input":{"x":[1]}},{"correlationId":"a:2"}]"#;
        assert_eq!(
            (has(list, "w", "a:1"), has(list, "w", "a:2"), has(list, "w", "a:3")),
            (Ok(true), Ok(true), Ok(false))
        );
        assert_eq!((has(list, "v", "a:1"), has(b"[]", "w", "a:1")), (Ok(false), Ok(false)));
        assert_eq!((has(b"{}", "w", "a:1"), has(b"[{", "w", "a:1")), (Err(()), Err(())));
    }
}
