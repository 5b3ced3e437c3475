//! The name in the certificate of a server whose authority is known, where the name itself is not to be checked (`VERIFY_CA`).
//!
//! The driver of our other sessions checks an authority only together with a name. So it is told one that the certificate has, as it was
//! shown to a connection of ours that checked the authority; the driver then checks both.

use rustls::pki_types::{CertificateDer, ServerName};
use std::net::IpAddr;
use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use super::Wire;
use super::endpoint::Endpoint;
use crate::error::ConnectorError;

/// A name of the server, to which a connection is opened; none: it has no TLS.
pub(in crate::mysql) async fn certified_name(endpoint: &Endpoint) -> Result<Option<String>, ConnectorError> {
    let mut wire = Wire::reach(endpoint).await?;
    let shown = wire.shown().await?;
    wire.close().await;
    let Some(certificate) = shown else { return Ok(None) };
    match name_of(&certificate) {
        Some(name) => Ok(Some(name)),
        None => Err(ConnectorError::Authentication {
            place: endpoint.place(),
            cause: "its certificate has no names (subjectAltName), so sessions of SQL cannot check who signed it"
                .into(),
            remedy: "give the server a certificate with its host names, or use ssl-mode=REQUIRED without ssl-ca".into(),
        }),
    }
}

/// A name by which the certificate can be checked.
fn name_of(certificate: &CertificateDer<'_>) -> Option<String> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let (_, names) = certificate.tbs_certificate.get::<SubjectAltName>().ok()??;
    names.0.iter().find_map(|name| {
        let name = match name {
            // Any name below it does.
            GeneralName::DnsName(name) => name.as_str().replacen('*', "any", 1),
            GeneralName::IpAddress(address) => {
                let four = <[u8; 4]>::try_from(address.as_bytes()).map(IpAddr::from);
                four.or_else(|_| <[u8; 16]>::try_from(address.as_bytes()).map(IpAddr::from)).ok()?.to_string()
            }
            _ => return None,
        };
        ServerName::try_from(name.as_str()).is_ok().then_some(name)
    })
}
