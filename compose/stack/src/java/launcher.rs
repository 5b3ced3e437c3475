//! Compiles our own classes, launchers and plugins, into a jar. One jar, not a folder of classes: a class-data archive covers jars only, and
//! package-private access to a server's classes needs all of them in one class loader.

use super::maven;
use super::runtime::Runtime;
use crate::cache::artifact::{self, Claim};
use crate::server::command;
use anyhow::{Context as _, Result};
use std::ffi::OsString;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use tokio::process::Command;
use zip::write::SimpleFileOptions;

const COMPILER: &str = include_str!("../../java/compiler.xml");

/// Our own classes for a part.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sources {
    /// The part's name in messages and in the cache.
    pub(crate) name: &'static str,
    /// What pins the part's jars: another pin, another jar of ours.
    pub(crate) pin: &'static str,
    /// The version of Java that runs the classes, for example `21`.
    pub(crate) release: &'static str,
    /// The sources as (path, text).
    pub(crate) files: &'static [(&'static str, &'static str)],
}

/// The jar of a part's own classes, compiled against the part's jars if it is not in the cache.
pub(crate) async fn compile(part: &Sources, runtime: &Runtime, jars: &[PathBuf]) -> Result<PathBuf> {
    let mut texts = vec![part.pin, part.release, COMPILER];
    texts.extend(part.files.iter().flat_map(|(path, text)| [*path, *text]));
    let name = format!("launchers/{}-{}.jar", part.name, artifact::hash(&texts));
    match artifact::claim(&name).await? {
        Claim::Present(path) => Ok(path),
        Claim::Absent(making) => {
            let work = making.partial.with_extension("work");
            let result = build(part, runtime, jars, &work, &making.partial).await;
            let _ = std::fs::remove_dir_all(&work);
            result.with_context(|| format!("compiling the launcher of {}", part.name))?;
            making.finish()
        }
    }
}

async fn build(part: &Sources, runtime: &Runtime, jars: &[PathBuf], work: &Path, jar: &Path) -> Result<()> {
    let (sources, classes) = (work.join("src"), work.join("classes"));
    std::fs::create_dir_all(&classes)?;
    let compiler = maven::list(&maven::fetch("compiler", COMPILER).await?)?;
    let mut ecj = Command::new(&runtime.java);
    ecj.arg("-jar").arg(compiler.first().context("the compiler's jar is missing from the cache")?);
    ecj.args(["-proc:none", "-nowarn"])
        .arg(format!("-{}", part.release))
        .arg("-cp")
        .arg(join(jars))
        .arg("-d")
        .arg(&classes);
    for (path, text) in part.files {
        let file = sources.join(path);
        std::fs::create_dir_all(file.parent().unwrap_or(&sources))?;
        std::fs::write(&file, text)?;
        ecj.arg(file);
    }
    command::run(ecj, "a source of ours does not fit the pinned jars").await?;
    pack(&classes, jar)
}

/// Writes a folder of classes as a jar, which is a zip file.
fn pack(classes: &Path, jar: &Path) -> Result<()> {
    let mut archive = zip::ZipWriter::new(File::create(jar)?);
    let options = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    let mut open = vec![classes.to_path_buf()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
                continue;
            }
            archive.start_file(path.strip_prefix(classes)?.to_string_lossy(), options)?;
            archive.write_all(&std::fs::read(&path)?)?;
        }
    }
    archive.finish()?;
    Ok(())
}

/// A class path.
pub(super) fn join(jars: &[PathBuf]) -> OsString {
    let words: Vec<_> = jars.iter().map(|path| path.as_os_str()).collect();
    words.join(":".as_ref())
}
