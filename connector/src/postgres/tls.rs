//! TLS towards PostgreSQL by libpq's `sslmode`.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::endpoint::{Endpoint, TlsMode};
use crate::error::ConnectorError;

/// The client's configuration for an endpoint; `None` if TLS is disabled.
pub(super) fn config(endpoint: &Endpoint) -> Result<Option<Arc<ClientConfig>>, ConnectorError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let inner = match (endpoint.tls, &endpoint.root_certificate) {
        (TlsMode::Disable, _) => return Ok(None),
        (TlsMode::Prefer, _) | (TlsMode::Require, None) => None,
        // As libpq: `require` with a root certificate behaves as `verify-ca`.
        (TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull, _) => {
            let roots = Arc::new(roots(endpoint)?);
            let verifier =
                WebPkiServerVerifier::builder_with_provider(roots, provider.clone()).build().map_err(|e| {
                    ConnectorError::settings(
                        endpoint.place(),
                        format!("there are no trusted certificates: {e}"),
                        "install the package ca-certificates, or name a file with sslrootcert",
                    )
                })?;
            Some(verifier)
        }
    };
    let verifier = Verifier { inner, check_name: endpoint.tls == TlsMode::VerifyFull, provider: provider.clone() };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| ConnectorError::settings(endpoint.place(), e.to_string(), "report this as a defect"))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
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
    let mut store = RootCertStore::empty();
    match &endpoint.root_certificate {
        Some(path) => {
            let wrong = |cause: String| {
                ConnectorError::settings(
                    format!("sslrootcert {}", path.display()),
                    cause,
                    "name a readable PEM file with at least one certificate",
                )
            };
            for certificate in CertificateDer::pem_file_iter(path).map_err(|e| wrong(e.to_string()))? {
                let certificate = certificate.map_err(|e| wrong(e.to_string()))?;
                store.add(certificate).map_err(|e| wrong(e.to_string()))?;
            }
        }
        None => {
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    Ok(store)
}

/// Checks as much as the mode asks for: nothing, the authority, or the authority and the name.
#[derive(Debug)]
struct Verifier {
    inner: Option<Arc<WebPkiServerVerifier>>,
    check_name: bool,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(inner) = &self.inner else { return Ok(ServerCertVerified::assertion()) };
        match inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.check_name => Ok(ServerCertVerified::assertion()),
            result => result,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
