//! The folder of an embedded index: tantivy's files, and `mapping.json` with what it was made for.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde_json::Value as Json;
use tantivy::directory::MmapDirectory;
use tantivy::directory::error::LockError;
use tantivy::schema::Schema;
use tantivy::{Index, IndexSettings, ReloadPolicy, TantivyError};
use tributary_dsl::plan::Selection;
use tributary_event::ErrorClass;

use super::directory::CommitDirectory;
use super::filters::Filters;
use super::schema::{self, Layout};
use super::{Shared, Versions, analyzers, rebuild};
use crate::documents::mapping::{self, Dialect, Fields, UNINDEXED};
use crate::store::{Prepared, StoreError};

const MAPPING: &str = "mapping.json";

/// Where the index `name` is.
pub(super) fn of(data: &Path, name: &str) -> PathBuf {
    data.join("indexes").join(name)
}

/// Opens the index, or creates it. One of an earlier version is made anew first.
pub(super) fn open(folder: &Path, name: &str, shape: &Selection) -> Result<(Shared, Prepared), StoreError> {
    let fields = fields(shape)?;
    let schema = schema::build(&fields).map_err(|reason| StoreError::new(ErrorClass::Fatal, reason))?;
    rebuild::finish(folder).map_err(|e| io(folder, "be put in place", e))?;
    std::fs::create_dir_all(folder).map_err(|e| io(folder, "be created", e))?;
    let directory = || CommitDirectory::open(folder).map_err(|e| error(folder, "be opened", e.into()));
    let exists = Index::exists(&directory()?).map_err(|e| error(folder, "be opened", e.into()))?;
    let exists = exists && !remove_empty(folder, name, shape, directory()?)?;
    let (mut index, prepared) = if exists {
        check(folder, shape)?;
        let open = || Index::open(directory()?).map_err(|e| error(folder, "be opened", e));
        let mut index = open()?;
        if index.schema() != schema {
            rebuild::rebuild(folder, name, &index, |folder| {
                std::fs::create_dir_all(folder).map_err(|e| io(folder, "be created", e))?;
                let mut index = create(folder, schema, shape)?;
                index.set_tokenizers(analyzers::manager());
                let layout = Layout::of(&index.schema(), &fields).map_err(|e| error(folder, "be created", e))?;
                Ok((index, layout))
            })?;
            index = open()?;
        }
        (index, Prepared::Existing)
    } else {
        let created = create(folder, schema, shape)?;
        tracing::info!(index = name, folder = %folder.display(), "index created");
        (created, Prepared::Created)
    };
    index.set_tokenizers(analyzers::manager());
    Ok((shared(folder, name, index, Some(&fields))?, prepared))
}

/// Removes an index that has no document and was made for another query: nothing is lost with it.
fn remove_empty(folder: &Path, name: &str, shape: &Selection, directory: CommitDirectory) -> Result<bool, StoreError> {
    if check(folder, shape).is_ok() {
        return Ok(false);
    }
    let failed = |e: TantivyError| error(folder, "be opened", e);
    let index = Index::open(directory).map_err(failed)?;
    let reader: tantivy::IndexReader =
        index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into().map_err(failed)?;
    if reader.searcher().num_docs() > 0 {
        return Ok(false);
    }
    // Whoever else writes it has its lock.
    let lock: tantivy::IndexWriter<tantivy::TantivyDocument> =
        index.writer_with_num_threads(1, 15_000_000).map_err(failed)?;
    tracing::info!(index = name, "the index is empty and the query has changed; it is made anew");
    drop(lock);
    std::fs::remove_dir_all(folder)
        .and_then(|()| std::fs::create_dir_all(folder))
        .map_err(|e| io(folder, "be made anew", e))?;
    Ok(true)
}

fn create(folder: &Path, schema: Schema, shape: &Selection) -> Result<Index, StoreError> {
    // The mapping goes first: an index without one cannot be checked, a mapping without an index is written again.
    write_mapping(folder, shape)?;
    // A thread of its own for compression pays for large segments only; ours are as small as a refresh interval.
    let settings = IndexSettings { docstore_compress_dedicated_thread: false, ..IndexSettings::default() };
    let directory = CommitDirectory::open(folder).map_err(|e| error(folder, "be opened", e.into()))?;
    Index::create(directory, schema, settings).map_err(|e| error(folder, "be created", e))
}

/// Opens the index to read, beside a process that writes it.
pub(super) fn open_read_only(folder: &Path, name: &str) -> Result<Shared, StoreError> {
    let exists = folder.is_dir()
        && MmapDirectory::open(folder).is_ok_and(|directory| Index::exists(&directory).unwrap_or(false));
    if !exists {
        let message = format!("there is no index in {}: `tributary run` creates and fills it", folder.display());
        return Err(StoreError::new(ErrorClass::Fatal, message));
    }
    let mut index = Index::open_in_dir(folder).map_err(|e| error(folder, "be opened", e))?;
    index.set_tokenizers(analyzers::manager());
    if index.schema().get_field(UNINDEXED).is_err() {
        let message = format!(
            "the index in {} is of an earlier version: `tributary run` makes it anew when it starts",
            folder.display()
        );
        return Err(StoreError::new(ErrorClass::Fatal, message));
    }
    shared(folder, name, index, None)
}

/// What is shared; `fields` to write.
fn shared(folder: &Path, name: &str, index: Index, fields: Option<&Fields>) -> Result<Shared, StoreError> {
    let layout =
        Layout::of(&index.schema(), fields.unwrap_or(&Fields::new())).map_err(|e| error(folder, "be opened", e))?;
    let reader = index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into();
    let reader = reader.map_err(|e| error(folder, "be opened", e))?;
    let (folder, name) = (folder.to_owned(), name.to_owned());
    let filters = Arc::new(Filters::new(layout.id, fields.is_some()));
    Ok(Shared { folder, name, index, reader, layout, filters, versions: Mutex::new(Versions::default()) })
}

fn fields(shape: &Selection) -> Result<Fields, StoreError> {
    mapping::fields(shape).map_err(|e| StoreError::caused(ErrorClass::Fatal, e.to_string(), e))
}

fn planned(shape: &Selection) -> Result<Json, StoreError> {
    mapping::mapping(shape, Dialect::Elasticsearch).map_err(|e| StoreError::caused(ErrorClass::Fatal, e.to_string(), e))
}

/// Compares the plan with what the folder was made for.
pub(super) fn check(folder: &Path, shape: &Selection) -> Result<Prepared, StoreError> {
    let file = folder.join(MAPPING);
    let text = std::fs::read(&file).map_err(|e| io(&file, "be read", e))?;
    let found: Json = serde_json::from_slice(&text).map_err(|e| io(&file, "be read", e.into()))?;
    let differences = mapping::differences(&planned(shape)?, &found);
    if differences.is_empty() {
        return Ok(Prepared::Existing);
    }
    let message = format!(
        "the index in {} has another mapping than the query of `{}` asks for:\n  {}\nundo the change of the query, give the \
         pipeline's index a new name, or delete the folder {0} to have it built again",
        folder.display(),
        folder.file_name().unwrap_or_default().to_string_lossy(),
        differences.join("\n  ")
    );
    Err(StoreError::new(ErrorClass::Fatal, message))
}

fn write_mapping(folder: &Path, shape: &Selection) -> Result<(), StoreError> {
    let text = format!("{:#}\n", planned(shape)?);
    let temporary = folder.join("mapping.json.new");
    let written = std::fs::File::create(&temporary).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&temporary, folder.join(MAPPING))?;
        std::fs::File::open(folder)?.sync_all()
    });
    written.map_err(|e| io(&temporary, "be written", e))
}

fn io(path: &Path, doing: &str, error: std::io::Error) -> StoreError {
    let class = match error.kind() {
        std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::NotFound | std::io::ErrorKind::InvalidData => {
            ErrorClass::Fatal
        }
        _ => ErrorClass::Transient,
    };
    StoreError::caused(class, format!("{} cannot {doing}: {error}", path.display()), error)
}

/// A failure of tantivy, judged.
pub(super) fn error(folder: &Path, doing: &str, error: TantivyError) -> StoreError {
    let place = folder.display();
    let (class, remedy) = match &error {
        TantivyError::LockFailure(LockError::LockBusy, _) => {
            let message = format!(
                "the index in {place} is open in another process: only one `tributary run` may write it; stop the other, or \
                 give this one another data folder"
            );
            return StoreError::caused(ErrorClass::Fatal, message, error);
        }
        TantivyError::DataCorruption(_) | TantivyError::DeserializeError(_) | TantivyError::IncompatibleIndex(_) => {
            (ErrorClass::Fatal, " (delete the folder to have it built again)")
        }
        TantivyError::InvalidArgument(_) => (ErrorClass::Definite, ""),
        TantivyError::OpenDirectoryError(_) | TantivyError::SchemaError(_) | TantivyError::FieldNotFound(_) => {
            (ErrorClass::Fatal, "")
        }
        // An input or output error, or a thread of tantivy that met one: mostly a full disk.
        _ => (ErrorClass::Transient, " (is the disk full?)"),
    };
    StoreError::caused(class, format!("the index in {place} cannot {doing}: {error}{remedy}"), error)
}
