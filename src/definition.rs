//! From a pipeline's file to its checked plan: reads files and variables, asks the graph for its schema, prints what is wrong.

#[cfg(feature = "wasm")]
mod components;
mod described;
pub mod planning;

use std::collections::BTreeSet;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tributary_dsl::plan::{IndexPlan, Plan};
use tributary_dsl::written::Stream;
#[cfg(feature = "wasm")]
use tributary_dsl::{ComponentLimits, Unusable};
use tributary_dsl::{Definition, Diagnostic, Inputs, Schema, check, parse};
use tributary_event::{ColumnType, TableName};
use tributary_expression::FunctionSet;
#[cfg(feature = "wasm")]
use tributary_expression::{Function, Signature};
use tributary_indexer::graph::{Graph, GraphError};

use self::described::Described;
use crate::cli::exit::Failure;
use crate::functions::Functions;

/// A pipeline's file, and what this program adds to it.
#[derive(Debug, Clone)]
pub struct PipelineFile {
    /// Where it is.
    pub path: PathBuf,
    /// The functions that it may call, and streams that stand behind its own.
    pub functions: Arc<Functions>,
}

/// Files beside the pipeline's, the environment's variables, and what this program adds.
#[derive(Clone)]
struct Surroundings {
    folder: PathBuf,
    functions: Arc<Functions>,
    described: Described,
    /// The files that were named.
    named: Arc<Mutex<BTreeSet<PathBuf>>>,
    #[cfg(feature = "wasm")]
    components: crate::definition::components::Components,
}

impl Inputs for Surroundings {
    fn file(&self, path: &str) -> Result<String, String> {
        let path = self.folder.join(path);
        self.named.lock().unwrap_or_else(PoisonError::into_inner).insert(path.clone());
        std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))
    }

    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn functions(&self) -> FunctionSet {
        self.functions.functions().clone()
    }

    #[cfg(feature = "wasm")]
    fn component(&self, path: &str, limits: ComponentLimits, signature: Signature) -> Result<Function, Unusable> {
        let path = self.folder.join(path);
        self.named.lock().unwrap_or_else(PoisonError::into_inner).insert(path.clone());
        self.components.function(&path, limits, signature)
    }

    fn streams(&self) -> &[Stream] {
        self.functions.streams()
    }

    fn columns(&self, table: &TableName) -> Option<Vec<ColumnType>> {
        self.described.columns(table)
    }

    fn schema(&self, service: &str) -> Option<Arc<Schema>> {
        self.described.schema(service)
    }
}

/// A pipeline whose text was read. Its graph was not asked yet.
pub struct Draft {
    file: PipelineFile,
    text: String,
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
pub async fn load(file: &PipelineFile) -> Result<Plan, Failure> {
    read(file).await?.load().await
}

/// Reads the text of a pipeline. Where it is wrong as long as nothing is known of what flows through its streams, sources and services
/// are asked, or what they said before holds.
pub async fn read(file: &PipelineFile) -> Result<Draft, Failure> {
    let draft = Draft::written(file)?;
    if draft.is_right() || draft.definition.streams().is_empty() {
        return Ok(draft);
    }
    let kept = Described::kept(draft.definition.data(), draft.definition.pipeline());
    let draft = draft.with(kept)?;
    if draft.is_right() {
        return Ok(draft);
    }
    let (draft, silent) = draft.described().await?;
    if !draft.is_right() {
        silent.iter().for_each(|why| warn(&format!("{why}; with it a program below may be right")));
    }
    Ok(draft)
}

/// The same, and everybody is asked in any case. With it comes why somebody could not be asked.
pub async fn read_described(file: &PipelineFile) -> Result<(Draft, Vec<String>), Failure> {
    let draft = Draft::written(file)?;
    if draft.definition.streams().is_empty() {
        return Ok((draft, Vec::new()));
    }
    let kept = Described::kept(draft.definition.data(), draft.definition.pipeline());
    draft.with(kept)?.described().await
}

impl Draft {
    /// What is written, of which nothing else is known.
    pub fn written(file: &PipelineFile) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(&file.path)
            .map_err(|e| Failure::NotFound(format!("cannot read the pipeline {}: {e}", file.path.display())))?;
        let folder = file.path.parent().map(Path::to_owned).unwrap_or_default();
        let functions = file.functions.clone();
        let surroundings = Surroundings {
            folder,
            functions,
            described: Described::default(),
            named: Arc::default(),
            #[cfg(feature = "wasm")]
            components: Default::default(),
        };
        Self::of(file, text, surroundings)
    }

    fn of(file: &PipelineFile, text: String, surroundings: Surroundings) -> Result<Self, Failure> {
        let (definition, found) = parse(&file.path.display().to_string(), &text, &surroundings);
        let Some(definition) = definition else { return Err(refuse(&found)) };
        Ok(Self { file: file.clone(), text, definition, found, surroundings })
    }

    /// The same text, where this is known.
    fn with(self, described: Described) -> Result<Self, Failure> {
        let surroundings = Surroundings { described, ..self.surroundings };
        Self::of(&self.file, self.text, surroundings)
    }

    /// The same text, where sources and services were asked; what they said is kept.
    async fn described(self) -> Result<(Self, Vec<String>), Failure> {
        let (described, silent) = Described::ask(&self.definition, self.surroundings.described.clone()).await;
        described.keep(self.definition.data(), self.definition.pipeline());
        Ok((self.with(described)?, silent))
    }

    fn is_right(&self) -> bool {
        !self.found.iter().any(Diagnostic::is_error)
    }

    /// Checks the pipeline against the schema, which is asked for once. Prints every diagnostic.
    pub async fn load(&self) -> Result<Plan, Failure> {
        match self.schema().await {
            Ok(schema) => self.plan(&schema),
            // That the file cannot be read was found with the rest of the text.
            Err(NoSchema::Failure(Failure::NotFound(_))) if !self.is_right() => Err(refuse(&self.found)),
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
    pub async fn read_again(&self) -> Result<Self, Failure> {
        read(&self.file).await
    }

    /// The files that it is written in: its own, and those that it names.
    pub fn files(&self) -> Vec<PathBuf> {
        let named = self.surroundings.named.lock().unwrap_or_else(PoisonError::into_inner);
        std::iter::once(self.file.path.clone()).chain(named.iter().cloned()).collect()
    }

    /// What this program adds to the pipeline.
    pub fn functions(&self) -> &Arc<Functions> {
        &self.file.functions
    }

    /// What is written.
    pub fn definition(&self) -> &Definition {
        &self.definition
    }

    /// Refuses a text that is wrong whatever the graph says. Prints every diagnostic then.
    pub fn text_is_right(&self) -> Result<(), Failure> {
        if self.is_right() { Ok(()) } else { Err(refuse(&self.found)) }
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

/// Prints a warning that is about no place.
pub fn warn(text: &str) {
    let _ = writeln!(std::io::stderr(), "warning: {text}\n");
}

/// Prints diagnostics on standard error.
pub fn print(found: &[Diagnostic]) {
    let color = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    for diagnostic in found {
        let _ = writeln!(std::io::stderr(), "{}\n", diagnostic.render(color));
    }
}
