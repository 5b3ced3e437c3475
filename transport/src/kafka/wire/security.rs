//! How connections are secured, by librdkafka's properties, which the other clients read themselves.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::scram::Hash;
use crate::tls;

/// How connections are secured.
#[derive(Clone)]
pub(in crate::kafka) struct Security {
    pub(super) tls: Option<Arc<ClientConfig>>,
    pub(super) login: Option<Login>,
}

/// Who logs in, by SASL.
#[derive(Clone)]
pub(super) struct Login {
    pub mechanism: Mechanism,
    pub user: String,
    pub password: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mechanism {
    Plain,
    Scram(Hash),
}

impl Mechanism {
    /// Its registered name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Scram(Hash::Sha256) => "SCRAM-SHA-256",
            Self::Scram(Hash::Sha512) => "SCRAM-SHA-512",
        }
    }
}

impl Security {
    /// Reads the properties. An error names the property, the cause and the remedy.
    pub fn new(properties: &BTreeMap<String, String>) -> Result<Self, String> {
        let property = |name: &str| properties.get(name).map(String::as_str).filter(|value| !value.is_empty());
        let protocol = property("security.protocol").unwrap_or("plaintext").to_lowercase();
        let (tls, sasl) = match protocol.as_str() {
            "plaintext" => (false, false),
            "ssl" => (true, false),
            "sasl_plaintext" => (false, true),
            "sasl_ssl" => (true, true),
            other => {
                return Err(format!("security.protocol is {other:?}; say plaintext, ssl, sasl_plaintext or sasl_ssl"));
            }
        };
        let tls = if tls { Some(Arc::new(tls_config(&property)?)) } else { None };
        let login = if sasl { Some(login(&property)?) } else { None };
        Ok(Self { tls, login })
    }
}

fn login<'a>(property: &impl Fn(&str) -> Option<&'a str>) -> Result<Login, String> {
    let named = property("sasl.mechanism").or_else(|| property("sasl.mechanisms"));
    let mechanism = match named.map(str::to_uppercase).as_deref() {
        Some("PLAIN") => Mechanism::Plain,
        Some("SCRAM-SHA-256") => Mechanism::Scram(Hash::Sha256),
        Some("SCRAM-SHA-512") => Mechanism::Scram(Hash::Sha512),
        other => {
            let found = other.map_or_else(|| "not set".to_owned(), |name| format!("{name:?}"));
            return Err(format!("sasl.mechanism is {found}; say PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512"));
        }
    };
    let wanted = |name: &str| {
        property(name).map(str::to_owned).ok_or_else(|| format!("{name} is not set; the mechanism needs it"))
    };
    Ok(Login { mechanism, user: wanted("sasl.username")?, password: wanted("sasl.password")? })
}

fn tls_config<'a>(property: &impl Fn(&str) -> Option<&'a str>) -> Result<ClientConfig, String> {
    for (name, remedy) in [
        ("ssl.keystore.location", "name PEM files with ssl.certificate.location and ssl.key.location"),
        ("ssl.key.password", "name a key that is not encrypted, readable by this process alone"),
        ("ssl.crl.location", "revoke at the brokers' authority instead"),
        ("ssl.engine.location", "name PEM files with ssl.certificate.location and ssl.key.location"),
    ] {
        if property(name).is_some() {
            return Err(format!("{name} is not supported; {remedy}"));
        }
    }
    let verify = flag(property("enable.ssl.certificate.verification"), true)?;
    let roots = if verify { Some(roots(property)?) } else { None };
    let check_name = match property("ssl.endpoint.identification.algorithm") {
        None | Some("https") => true,
        Some("none") => false,
        Some(other) => {
            return Err(format!("ssl.endpoint.identification.algorithm is {other:?}; say https or none"));
        }
    };
    let config = tls::client(roots, check_name)
        .map_err(|e| format!("{e}; install the package ca-certificates, or set ssl.ca.location"))?;
    let pair = (
        pem(property, "ssl.certificate", certificates)?,
        pem(property, "ssl.key", |text| PrivateKeyDer::from_pem_slice(text).map_err(|e| e.to_string()))?,
    );
    match pair {
        (None, None) => Ok(config.with_no_client_auth()),
        (Some(chain), Some(key)) => config.with_client_auth_cert(chain, key).map_err(|e| {
            format!("ssl.certificate.location and ssl.key.location: {e}; name a certificate and its own key")
        }),
        _ => Err("one of ssl.certificate.location and ssl.key.location is set, and the other is not; set both".into()),
    }
}

/// What a PEM text has that is given as `<name>.pem`, or in the file that `<name>.location` names.
fn pem<'a, T>(
    property: &impl Fn(&str) -> Option<&'a str>,
    name: &str,
    parse: impl FnOnce(&[u8]) -> Result<T, String>,
) -> Result<Option<T>, String> {
    let (inline, location) = (format!("{name}.pem"), format!("{name}.location"));
    let remedy = "name a readable PEM file";
    if let Some(text) = property(&inline) {
        return parse(text.as_bytes()).map(Some).map_err(|e| format!("{inline}: {e}; give it in PEM"));
    }
    let Some(path) = property(&location) else { return Ok(None) };
    let wrong = |cause: String| format!("{location} {path}: {cause}; {remedy}");
    if Path::new(path).is_dir() {
        return Err(wrong("it is a folder".into()));
    }
    let text = std::fs::read(path).map_err(|e| wrong(e.to_string()))?;
    parse(&text).map(Some).map_err(wrong)
}

fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(text).collect::<Result<_, _>>().map_err(|e| e.to_string())?;
    if found.is_empty() { Err("it has no certificate".into()) } else { Ok(found) }
}

fn roots<'a>(property: &impl Fn(&str) -> Option<&'a str>) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    // librdkafka's word for the system's own.
    let own = property("ssl.ca.location").is_some_and(|path| path == "probe");
    match if own { None } else { pem(property, "ssl.ca", certificates)? } {
        Some(authorities) => {
            for authority in authorities {
                store.add(authority).map_err(|e| format!("ssl.ca.location: {e}; name certificates of authorities"))?;
            }
        }
        None => store = tls::system_roots(),
    }
    Ok(store)
}

fn flag(value: Option<&str>, default: bool) -> Result<bool, String> {
    match value {
        None => Ok(default),
        Some("true") => Ok(true),
        Some("false") => Ok(false),
        Some(other) => Err(format!("enable.ssl.certificate.verification is {other:?}; say true or false")),
    }
}
