//! From a pipeline's file to its checked plan: reads files and variables, asks the graph for its schema, prints what is wrong.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use tributary_dsl::plan::{IndexPlan, Plan};
use tributary_dsl::{Definition, Diagnostic, Inputs, Schema, check, parse};
use tributary_indexer::graph::Graph;

use crate::exit::Failure;

/// Files beside the pipeline's, and the environment's variables.
struct Surroundings {
    folder: PathBuf,
}

impl Inputs for Surroundings {
    fn file(&self, path: &str) -> Result<String, String> {
        let path = self.folder.join(path);
        std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))
    }

    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }
}

/// Reads and checks a pipeline. Prints every diagnostic on standard error.
pub async fn load(file: &Path) -> Result<Plan, Failure> {
    let text = std::fs::read_to_string(file)
        .map_err(|e| Failure::NotFound(format!("cannot read the pipeline {}: {e}", file.display())))?;
    let folder = file.parent().map(Path::to_owned).unwrap_or_default();
    let surroundings = Surroundings { folder };
    let (definition, mut found) = parse(&file.display().to_string(), &text, &surroundings);
    let Some(definition) = definition else { return Err(refuse(&found)) };
    let schema = match schema(&definition, &surroundings).await {
        Ok(schema) => schema,
        Err(failure) => {
            // What is wrong with the text is worth saying even where the graph cannot be asked.
            print(&found);
            return Err(failure);
        }
    };
    match check(&definition, &schema) {
        Ok((plan, warnings)) => {
            found.extend(warnings);
            if found.iter().any(Diagnostic::is_error) {
                return Err(refuse(&found));
            }
            print(&found);
            stores_can_hold(&plan)?;
            Ok(plan)
        }
        Err(more) => {
            found.extend(more);
            Err(refuse(&found))
        }
    }
}

/// Whether the stores can hold the documents, as far as that is known without asking them. Prints why not.
fn stores_can_hold(plan: &Plan) -> Result<(), Failure> {
    let unfit = |index: &IndexPlan| Some((index.name.clone(), tributary_indexer::store::check(index).err()?));
    let unfit: Vec<(String, String)> = plan.indexes.iter().filter_map(unfit).collect();
    for (name, problem) in &unfit {
        let _ = writeln!(std::io::stderr(), "error: index `{name}`: {problem}\n");
    }
    if unfit.is_empty() { Ok(()) } else { Err(Failure::Pipeline { errors: unfit.len() }) }
}

async fn schema(definition: &Definition, surroundings: &Surroundings) -> Result<Schema, Failure> {
    if let Some(file) = definition.schema_file() {
        let text = surroundings.file(file).map_err(Failure::NotFound)?;
        return Schema::from_sdl(&text, file).map_err(|found| refuse(&found));
    }
    let graph = crate::backends::graph_client(definition.endpoint(), definition.headers())
        .map_err(|e| Failure::of(e.class, e.message))?;
    let json = graph.introspect().await.map_err(|e| Failure::of(e.class, e.message))?;
    Schema::from_introspection(&json).map_err(|e| Failure::Stopped(format!("{}: {e}", definition.endpoint())))
}

fn refuse(found: &[Diagnostic]) -> Failure {
    print(found);
    Failure::Pipeline { errors: found.iter().filter(|d| d.is_error()).count() }
}

fn print(found: &[Diagnostic]) {
    let color = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    for diagnostic in found {
        let _ = writeln!(std::io::stderr(), "{}\n", diagnostic.render(color));
    }
}
