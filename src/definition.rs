//! From a pipeline's file to its checked plan: reads files and variables, asks the graph for its schema, prints what is wrong.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use tributary_dsl::plan::{IndexPlan, Plan};
use tributary_dsl::{Definition, Diagnostic, Inputs, Schema, check, parse};
use tributary_indexer::graph::{Graph, GraphError};

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

/// A pipeline whose text was read. Its graph was not asked yet.
pub struct Draft {
    file: PathBuf,
    definition: Definition,
    found: Vec<Diagnostic>,
    surroundings: Surroundings,
}

/// Why there is no schema to check a pipeline against.
pub enum NoSchema {
    /// The graph did not tell it.
    Graph(GraphError),
    /// It was told, or written in a file, and is none; or there is no such file.
    Failure(Failure),
}

impl From<NoSchema> for Failure {
    fn from(none: NoSchema) -> Self {
        match none {
            NoSchema::Graph(error) => Self::of(error.class, error.message),
            NoSchema::Failure(failure) => failure,
        }
    }
}

/// Reads and checks a pipeline. Prints every diagnostic on standard error.
pub async fn load(file: &Path) -> Result<Plan, Failure> {
    read(file)?.load().await
}

/// Reads the text of a pipeline.
pub fn read(file: &Path) -> Result<Draft, Failure> {
    let text = std::fs::read_to_string(file)
        .map_err(|e| Failure::NotFound(format!("cannot read the pipeline {}: {e}", file.display())))?;
    let folder = file.parent().map(Path::to_owned).unwrap_or_default();
    let surroundings = Surroundings { folder };
    let (definition, found) = parse(&file.display().to_string(), &text, &surroundings);
    let Some(definition) = definition else { return Err(refuse(&found)) };
    Ok(Draft { file: file.to_owned(), definition, found, surroundings })
}

impl Draft {
    /// Checks the pipeline against the schema, which is asked for once. Prints every diagnostic.
    pub async fn load(&self) -> Result<Plan, Failure> {
        match self.schema().await {
            Ok(schema) => self.plan(&schema),
            Err(none) => {
                // What is wrong with the text is worth saying even where the graph cannot be asked.
                print(&self.found);
                Err(none.into())
            }
        }
    }

    /// Reads its file again, as it is now.
    ///
    /// # Errors
    /// The file cannot be read, or is no pipeline.
    pub fn read_again(&self) -> Result<Self, Failure> {
        read(&self.file)
    }

    /// What is written.
    pub fn definition(&self) -> &Definition {
        &self.definition
    }

    /// Refuses a text that is wrong whatever the graph says. Prints every diagnostic then.
    pub fn text_is_right(&self) -> Result<(), Failure> {
        if self.found.iter().any(Diagnostic::is_error) { Err(refuse(&self.found)) } else { Ok(()) }
    }

    /// The schema, of the file that is named or of the graph.
    pub async fn schema(&self) -> Result<Schema, NoSchema> {
        let definition = &self.definition;
        if definition.indexes().next().is_none() {
            return Schema::from_sdl("type Query { nothing: ID }", "no graph")
                .map_err(|found| NoSchema::Failure(refuse(&found)));
        }
        if let Some(file) = definition.schema_file() {
            let text = self.surroundings.file(file).map_err(|e| NoSchema::Failure(Failure::NotFound(e)))?;
            return Schema::from_sdl(&text, file).map_err(|found| NoSchema::Failure(refuse(&found)));
        }
        let graph = crate::backends::graph_client(definition.endpoint(), definition.headers())
            .map_err(|e| NoSchema::Failure(Failure::of(e.class, e.message)))?;
        let json = graph.introspect().await.map_err(NoSchema::Graph)?;
        Schema::from_introspection(&json)
            .map_err(|e| NoSchema::Failure(Failure::Stopped(format!("{}: {e}", definition.endpoint()))))
    }

    /// Checks the pipeline against the schema. Prints every diagnostic.
    pub fn plan(&self, schema: &Schema) -> Result<Plan, Failure> {
        let mut found = self.found.clone();
        match check(&self.definition, schema) {
            Ok((plan, warnings)) => {
                found.extend(warnings);
                found.extend(unfit(&plan));
                if found.iter().any(Diagnostic::is_error) {
                    return Err(refuse(&found));
                }
                print(&found);
                Ok(plan)
            }
            Err(more) => {
                found.extend(more);
                Err(refuse(&found))
            }
        }
    }
}

/// Why stores cannot hold the documents, as far as that is known without asking them.
fn unfit(plan: &Plan) -> Vec<Diagnostic> {
    let unfit = |index: &IndexPlan| {
        let problem = tributary_indexer::store::check(index).err()?;
        Some(index.place.error(format!("index `{}`: {problem}", index.name)))
    };
    plan.indexes.iter().filter_map(unfit).collect()
}

fn refuse(found: &[Diagnostic]) -> Failure {
    print(found);
    Failure::Pipeline { errors: found.iter().filter(|d| d.is_error()).count() }
}

/// Prints diagnostics on standard error.
pub fn print(found: &[Diagnostic]) {
    let color = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    for diagnostic in found {
        let _ = writeln!(std::io::stderr(), "{}\n", diagnostic.render(color));
    }
}
