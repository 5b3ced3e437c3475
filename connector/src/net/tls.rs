//! TLS towards a database: how much of it, and who is trusted.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tributary_transport::tls;

use crate::error::ConnectorError;

/// How much TLS. The names are libpq's; MySQL has the same by other names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsMode {
    /// Never.
    Disable,
    /// If the server offers it; its certificate is not checked.
    Prefer,
    /// Always; the certificate is not checked, unless a root certificate is named.
    Require,
    /// Always; the certificate must come from a known authority.
    VerifyCa,
    /// Always; the certificate must come from a known authority and name the host.
    VerifyFull,
}

/// Who is trusted, and what is shown of us.
#[derive(Debug, Clone)]
pub(crate) struct Trust<'a> {
    /// The server.
    pub place: String,
    pub mode: TlsMode,
    /// PEM file of trusted roots instead of the system's.
    pub root: Option<&'a Path>,
    /// PEM files of the client's certificate and of its key.
    pub client: (Option<&'a Path>, Option<&'a Path>),
    /// What the URL calls the three files.
    pub parameters: [&'static str; 3],
}

impl Trust<'_> {
    /// The client's configuration; `None` if TLS is disabled.
    pub(crate) fn config(&self) -> Result<Option<Arc<ClientConfig>>, ConnectorError> {
        let roots = match (self.mode, self.root) {
            (TlsMode::Disable, _) => return Ok(None),
            (TlsMode::Prefer, _) | (TlsMode::Require, None) => None,
            // As libpq: `require` with a root certificate behaves as `verify-ca`.
            (TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull, _) => Some(self.roots()?),
        };
        let [root_parameter, certificate_parameter, key_parameter] = self.parameters;
        let config = tls::client(roots, self.mode == TlsMode::VerifyFull).map_err(|e| {
            ConnectorError::settings(
                self.place.clone(),
                e.to_string(),
                format!("install the package ca-certificates, or name a file with {root_parameter}"),
            )
        })?;
        let config = match self.client {
            (None, None) => config.with_no_client_auth(),
            (Some(certificate), Some(key)) => {
                let (chain, key) = self.identity(certificate, key)?;
                let wrong = |e: rustls::Error| unfit(certificate, certificate_parameter, &e);
                config.with_client_auth_cert(chain, key).map_err(wrong)?
            }
            _ => {
                return Err(ConnectorError::settings(
                    self.place.clone(),
                    format!("one of {certificate_parameter} and {key_parameter} is set, and the other is not"),
                    "name both files",
                ));
            }
        };
        Ok(Some(Arc::new(config)))
    }

    /// The client's certificates and key.
    fn identity(
        &self,
        certificate: &Path,
        key: &Path,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), ConnectorError> {
        let [_, certificate_parameter, key_parameter] = self.parameters;
        let wrong = |e: rustls::pki_types::pem::Error| unfit(certificate, certificate_parameter, &e);
        let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(certificate).map_err(wrong)?.collect();
        let chain = chain.map_err(wrong)?;
        let key = PrivateKeyDer::from_pem_file(key).map_err(|e| unfit(key, key_parameter, &e))?;
        Ok((chain, key))
    }

    fn roots(&self) -> Result<RootCertStore, ConnectorError> {
        let Some(path) = self.root else { return Ok(tls::system_roots()) };
        let wrong = |cause: String| {
            ConnectorError::settings(
                format!("{} {}", self.parameters[0], path.display()),
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
}

fn unfit(path: &Path, parameter: &str, cause: &dyn std::fmt::Display) -> ConnectorError {
    ConnectorError::settings(
        format!("{parameter} {}", path.display()),
        cause.to_string(),
        "name a readable PEM file; certificate and key must belong together",
    )
}
