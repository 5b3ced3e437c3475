//! TLS towards PostgreSQL by libpq's `sslmode`.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tributary_transport::tls;

use super::endpoint::{Endpoint, TlsMode};
use crate::error::ConnectorError;

/// The client's configuration for an endpoint; `None` if TLS is disabled.
pub(super) fn config(endpoint: &Endpoint) -> Result<Option<Arc<ClientConfig>>, ConnectorError> {
    let roots = match (endpoint.tls, &endpoint.root_certificate) {
        (TlsMode::Disable, _) => return Ok(None),
        (TlsMode::Prefer, _) | (TlsMode::Require, None) => None,
        // As libpq: `require` with a root certificate behaves as `verify-ca`.
        (TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull, _) => Some(roots(endpoint)?),
    };
    let config = tls::client(roots, endpoint.tls == TlsMode::VerifyFull).map_err(|e| {
        ConnectorError::settings(
            endpoint.place(),
            e.to_string(),
            "install the package ca-certificates, or name a file with sslrootcert",
        )
    })?;
    let config = match (&endpoint.client_certificate, &endpoint.client_key) {
        (None, None) => config.with_no_client_auth(),
        (Some(certificate), Some(key)) => {
            let (chain, key) = client(certificate, key)?;
            let wrong = |e: rustls::Error| unfit(certificate, "sslcert", &e);
            config.with_client_auth_cert(chain, key).map_err(wrong)?
        }
        _ => {
            return Err(ConnectorError::settings(
                endpoint.place(),
                "one of sslcert and sslkey is set, and the other is not",
                "name both files",
            ));
        }
    };
    Ok(Some(Arc::new(config)))
}

/// The client's certificates and key.
fn client(
    certificate: &Path,
    key: &Path,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), ConnectorError> {
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(certificate).map_err(|e| unfit(certificate, "sslcert", &e))?.collect();
    let chain = chain.map_err(|e| unfit(certificate, "sslcert", &e))?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|e| unfit(key, "sslkey", &e))?;
    Ok((chain, key))
}

fn unfit(path: &Path, parameter: &str, cause: &dyn std::fmt::Display) -> ConnectorError {
    ConnectorError::settings(
        format!("{parameter} {}", path.display()),
        cause.to_string(),
        "name a readable PEM file; certificate and key must belong together",
    )
}

fn roots(endpoint: &Endpoint) -> Result<RootCertStore, ConnectorError> {
    let Some(path) = &endpoint.root_certificate else { return Ok(tls::system_roots()) };
    let wrong = |cause: String| {
        ConnectorError::settings(
            format!("sslrootcert {}", path.display()),
            cause,
            "name a readable PEM file with at least one certificate",
        )
    };
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|e| wrong(e.to_string()))? {
        let certificate = certificate.map_err(|e| wrong(e.to_string()))?;
        store.add(certificate).map_err(|e| wrong(e.to_string()))?;
    }
    Ok(store)
}
