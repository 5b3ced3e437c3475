//! The store of a plan: which one it is, where it is, and who asks.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path;
use object_store::{ObjectStore, Result, RetryConfig};
use tributary_dsl::plan::BucketPlan;

use super::http::Connector;

/// The store, and where in it.
pub(super) fn open(plan: &BucketPlan) -> Result<(Arc<dyn ObjectStore>, Path)> {
    // Who delivers tries again by itself, and says what it waits for.
    let retry = RetryConfig { max_retries: 2, retry_timeout: Duration::from_secs(20), ..RetryConfig::default() };
    let (scheme, rest) = plan.url.split_once("://").unwrap_or(("s3", &plan.url));
    let (bucket, folder) = rest.split_once('/').unwrap_or((rest, ""));
    let store: Arc<dyn ObjectStore> = match scheme {
        "gs" => {
            let builder = GoogleCloudStorageBuilder::from_env().with_bucket_name(bucket);
            Arc::new(builder.with_http_connector(Connector).with_retry(retry).build()?)
        }
        "az" => {
            let builder = MicrosoftAzureBuilder::from_env().with_container_name(bucket);
            Arc::new(builder.with_http_connector(Connector).with_retry(retry).build()?)
        }
        _ => {
            let mut builder = AmazonS3Builder::from_env().with_bucket_name(bucket);
            // Objects are removed one by one, for which every server has a plain request.
            builder = builder.with_disable_bulk_delete(true);
            if let Some(endpoint) = &plan.s3.endpoint {
                builder = builder.with_endpoint(endpoint).with_virtual_hosted_style_request(false);
            }
            if let Some(region) = &plan.s3.region {
                builder = builder.with_region(region);
            }
            if let Some((id, secret)) = &plan.s3.access_key {
                builder = builder.with_access_key_id(id.reveal()).with_secret_access_key(secret.reveal());
            }
            Arc::new(builder.with_http_connector(Connector).with_retry(retry).build()?)
        }
    };
    Ok((store, Path::parse(folder)?))
}
