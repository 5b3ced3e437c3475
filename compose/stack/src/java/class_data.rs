//! Class-data archives: a memory image of a server's classes, recorded once, that halves the time it needs to start
//! (JEP 350). Without one a server starts all the same.

use super::Installation;
use crate::cache::artifact::{self, Claim, Making};
use anyhow::Result;
use std::ffi::OsString;
use std::path::PathBuf;

/// What a Java process does about class data.
pub(crate) enum ClassData {
    /// It reads this archive.
    Read(PathBuf),
    /// It writes the archive when it stops in good order.
    Record(Making),
    /// There is no archive.
    Absent,
}

/// The archive of an installation; the caller records it if it is absent. It extends the archive of the runtime's own
/// classes, so there is none where the runtime has none.
pub(crate) async fn claim(installation: &Installation) -> Result<ClassData> {
    if !installation.runtime.has_class_data() {
        return Ok(ClassData::Absent);
    }
    let name = format!("class-data/{}-{}.jsa", installation.part.name, installation.fingerprint());
    Ok(match artifact::claim(&name).await? {
        Claim::Present(path) => ClassData::Read(path),
        Claim::Absent(making) => {
            eprintln!("preparing {} to start faster", installation.part.name);
            ClassData::Record(making)
        }
    })
}

impl ClassData {
    /// The option for the Java runtime.
    pub(super) fn option(&self) -> Option<OsString> {
        let (name, path) = match self {
            ClassData::Read(path) => ("-XX:SharedArchiveFile=", path),
            ClassData::Record(making) => ("-XX:ArchiveClassesAtExit=", &making.partial),
            ClassData::Absent => return None,
        };
        let mut option = OsString::from(name);
        option.push(path);
        Some(option)
    }

    /// Puts a recorded archive in its place, after the process stopped.
    pub(crate) fn finish(self) -> Result<ClassData> {
        match self {
            ClassData::Record(making) if making.partial.is_file() => Ok(ClassData::Read(making.finish()?)),
            ClassData::Record(making) => {
                eprintln!("no class-data archive was written to {}; starting without one", making.partial.display());
                Ok(ClassData::Absent)
            }
            other => Ok(other),
        }
    }

    /// Whether the process is to record.
    pub(crate) fn records(&self) -> bool {
        matches!(self, ClassData::Record(_))
    }
}
