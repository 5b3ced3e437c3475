//! Keys of files in a folder or a bucket.

use std::time::Duration;

use super::{NAME, ON_ERROR, RETRY};
use crate::keys::values::HttpUrl;
use crate::plan::FileFormat;
use crate::yaml::{Folder, Hidden, Is, Key, Keys, Line, Means, Period, Required, Rule, Size, Words, key};

pub(crate) static FILES: Key<&Keys, Means> = key(
    "files",
    &FILES_KEYS,
    Means("another sink"),
    "folder: s3://lake/movies",
    "Files in a folder or a bucket. Each event is in one of them, once; a file is never changed.",
);

static FILES_KEYS: Keys =
    Keys { keys: &[&FOLDER, &S3, &FILE_FORMAT, &SIZE, &EVERY, &NAME, &ON_ERROR, &RETRY], rules: &[] };

pub(crate) static FOLDER: Key<Folder, Required> = key(
    "folder",
    Folder,
    Required,
    "/var/lake/movies",
    "The folder; every process of the pipeline must see the same one. Relative to where `tributary` is started. Or where in a bucket: \
     `s3://bucket/folder`, `gs://bucket/folder` or `az://container/folder`; how it is reached, and by whom, say the usual variables \
     (`AWS_…`, `GOOGLE_…`, `AZURE_…`), the role of the machine, or `s3`. The store must keep conditional writes (`If-Match`, `If-None-Match`).",
);

pub(crate) static S3: Key<&Keys, Means> = key(
    "s3",
    &S3_KEYS,
    Means("as the variables `AWS_…` or the machine's role say"),
    "endpoint: \"http://localhost:9000\"\naccess_key: ${LAKE_KEY}\nsecret_key: ${LAKE_SECRET}",
    "How the S3 of an `s3://` folder is reached.",
);

static S3_KEYS: Keys = Keys {
    keys: &[&ENDPOINT, &REGION, &ACCESS_KEY, &SECRET_KEY],
    rules: &[Rule::Some, Rule::Needs("access_key", "secret_key"), Rule::Needs("secret_key", "access_key")],
};

pub(crate) static ENDPOINT: Key<HttpUrl, Means> = key(
    "endpoint",
    HttpUrl { instead: "write `access_key` and `secret_key`" },
    Means("that of AWS"),
    "\"http://localhost:9000\"",
    "URL of another server that speaks S3; buckets are the first part of its paths.",
);

pub(crate) static REGION: Key<Line, Means> =
    key("region", Line("region"), Means("`us-east-1`"), "eu-central-1", "The region.");

pub(crate) static ACCESS_KEY: Key<Hidden, Means> =
    key("access_key", Hidden, Means("as `s3` says"), "${LAKE_KEY}", "The id of an access key. It is never printed.");

pub(crate) static SECRET_KEY: Key<Hidden, Means> =
    key("secret_key", Hidden, Means("as `s3` says"), "${LAKE_SECRET}", "Its secret. It is never printed.");

pub(crate) static FILE_FORMAT: Key<Words<FileFormat>, Is<FileFormat>> = key(
    "format",
    Words(&[("jsonl", FileFormat::JsonLines), ("parquet", FileFormat::Parquet)]),
    Is(FileFormat::JsonLines),
    "parquet",
    "A line of JSON for each event, or Parquet with a column for each of its fields.",
);

pub(crate) static SIZE: Key<Size, Is<u64>> = key(
    "size",
    Size { least: 1 << 10, most: 1 << 30 },
    Is(8 << 20),
    "64MiB",
    "A file is ended when so many bytes of events have gathered.",
);

pub(crate) static EVERY: Key<Period, Is<Duration>> = key(
    "every",
    Period { least: Duration::from_millis(100) },
    Is(Duration::from_secs(10)),
    "1m",
    "And when its first event has waited so long.",
);
