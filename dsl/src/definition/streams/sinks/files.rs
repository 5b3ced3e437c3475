//! Files in a folder or a bucket.

use std::borrow::Cow;
use std::path::PathBuf;

use super::{Surroundings, secrets};
use crate::keys::streams::sinks as key;
use crate::plan::{BucketPlan, DeliveryPlan, FilesPlace, FilesPlan, S3Plan, SinkPlan};
use crate::yaml::{Map, Reader};

/// What begins the URL of a bucket.
const STORES: [&str; 3] = ["s3://", "gs://", "az://"];

/// The sink, if its files are those of no other one.
pub(super) fn read(r: &mut Reader, map: &Map, around: &Surroundings, before: &[DeliveryPlan]) -> Option<FilesPlan> {
    let folder = r.required(map, &key::FOLDER);
    let s3 = r.optional(map, &key::S3).map(|map| s3(r, &map));
    let place = folder.and_then(|folder| place(r, map, folder, s3));
    let mut others = around.sinks(before);
    let is_taken = others.any(|other| match (other, &place) {
        (SinkPlan::Files(other), Some(place)) => other.place.is(place),
        _ => false,
    });
    if is_taken {
        let message = "two sinks have this folder";
        r.error(map.key_place(&key::FOLDER), message, Some("give one of the two another folder".into()));
        return None;
    }
    let format = r.value(map, &key::FILE_FORMAT);
    let (size, every) = (r.value(map, &key::SIZE), r.value(map, &key::EVERY));
    Some(FilesPlan { place: place?, format, size, every })
}

fn place(r: &mut Reader, map: &Map, folder: Cow<'static, str>, s3: Option<S3Plan>) -> Option<FilesPlace> {
    let is_s3 = folder.starts_with("s3://");
    if s3.is_some() && !is_s3 {
        let message = "`s3` says how an S3 is reached, and this folder is in none";
        r.error(map.key_place(&key::S3), message, Some("write `folder: s3://bucket/folder`, or leave `s3` out".into()));
        return None;
    }
    if !folder.contains("://") {
        return Some(FilesPlace::Folder(PathBuf::from(folder.into_owned())));
    }
    let Some(rest) = STORES.iter().find_map(|store| folder.strip_prefix(store)) else {
        let message = "the URL of a bucket begins with `s3://`, `gs://` or `az://`";
        r.error(map.key_place(&key::FOLDER), message, Some("such as `s3://lake/movies`".into()));
        return None;
    };
    // What a name must not have to mean the same in every store.
    let is_plain = |part: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-=".contains(c);
        !part.is_empty() && part.chars().all(plain) && !part.chars().all(|c| c == '.')
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if !rest.split('/').all(is_plain) {
        let message =
            "the URL of a bucket has its name, and names of folders of letters, digits, `.`, `_`, `-` and `=`";
        r.error(map.key_place(&key::FOLDER), message, Some("such as `s3://lake/movies`".into()));
        return None;
    }
    let url = folder.strip_suffix('/').unwrap_or(&folder).to_owned();
    Some(FilesPlace::Bucket(BucketPlan { url, s3: s3.unwrap_or_default() }))
}

fn s3(r: &mut Reader, map: &Map) -> S3Plan {
    secrets::written(r, map, &key::SECRET_KEY);
    let access_key = r.optional(map, &key::ACCESS_KEY).zip(r.optional(map, &key::SECRET_KEY));
    S3Plan {
        endpoint: r.optional(map, &key::ENDPOINT).map(|url| url.value),
        region: r.optional(map, &key::REGION).map(|region| region.value),
        access_key,
    }
}
