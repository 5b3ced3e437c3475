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

/// Why our own protocol cannot be spoken with these properties.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::kafka) enum Refusal {
    /// They ask for what only librdkafka does.
    Unspoken(String),
    /// Nothing could be done with them.
    Wrong(String),
}

/// Properties of TLS that are understood here.
const TLS: [&str; 7] = [
    "ssl.ca.location",
    "ssl.ca.pem",
    "ssl.certificate.location",
    "ssl.certificate.pem",
    "ssl.endpoint.identification.algorithm",
    "ssl.key.location",
    "ssl.key.pem",
];

/// Properties of logins that are understood here.
const SASL: [&str; 4] = ["sasl.mechanism", "sasl.mechanisms", "sasl.password", "sasl.username"];

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
    /// Reads the properties. What is wrong names the property, the cause and the remedy.
    pub fn new(properties: &BTreeMap<String, String>) -> Result<Self, Refusal> {
        let property = |name: &str| properties.get(name).map(String::as_str).filter(|value| !value.is_empty());
        let protocol = property("security.protocol").unwrap_or("plaintext").to_lowercase();
        let (tls, sasl) = match protocol.as_str() {
            "plaintext" => (false, false),
            "ssl" => (true, false),
            "sasl_plaintext" => (false, true),
            "sasl_ssl" => (true, true),
            other => {
                let text = format!("security.protocol is {other:?}; say plaintext, ssl, sasl_plaintext or sasl_ssl");
                return Err(Refusal::Wrong(text));
            }
        };
        // Of one that we did not look at we would not know what it forbids.
        let unknown = properties.keys().find(|name| {
            property(name).is_some()
                && ((tls && name.starts_with("ssl.") && !TLS.contains(&name.as_str()))
                    || (sasl && name.starts_with("sasl.") && !SASL.contains(&name.as_str())))
        });
        if let Some(name) = unknown {
            return Err(Refusal::Unspoken(format!("{name} is set")));
        }
        let tls = if tls { Some(Arc::new(tls_config(&property)?)) } else { None };
        let login = if sasl { Some(login(&property)?) } else { None };
        Ok(Self { tls, login })
    }
}

fn login<'a>(property: &impl Fn(&str) -> Option<&'a str>) -> Result<Login, Refusal> {
    let named = property("sasl.mechanism").or_else(|| property("sasl.mechanisms"));
    let mechanism = match named.map(str::to_uppercase).as_deref() {
        Some("PLAIN") => Mechanism::Plain,
        Some("SCRAM-SHA-256") => Mechanism::Scram(Hash::Sha256),
        Some("SCRAM-SHA-512") => Mechanism::Scram(Hash::Sha512),
        Some(other) => return Err(Refusal::Unspoken(format!("sasl.mechanism is {other}"))),
        None => {
            let text = "sasl.mechanism is not set; say PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER";
            return Err(Refusal::Wrong(text.into()));
        }
    };
    let wanted = |name: &str| {
        let absent = || Refusal::Wrong(format!("{name} is not set; the mechanism needs it"));
        property(name).map(str::to_owned).ok_or_else(absent)
    };
    Ok(Login { mechanism, user: wanted("sasl.username")?, password: wanted("sasl.password")? })
}

fn tls_config<'a>(property: &impl Fn(&str) -> Option<&'a str>) -> Result<ClientConfig, Refusal> {
    let verify = flag(property("enable.ssl.certificate.verification"), true)?;
    let roots = if verify { Some(roots(property)?) } else { None };
    let check_name = match property("ssl.endpoint.identification.algorithm") {
        None | Some("https") => true,
        Some("none") => false,
        Some(other) => {
            let text = format!("ssl.endpoint.identification.algorithm is {other:?}; say https or none");
            return Err(Refusal::Wrong(text));
        }
    };
    let config = tls::client(roots, check_name)
        .map_err(|e| Refusal::Wrong(format!("{e}; install the package ca-certificates, or set ssl.ca.location")))?;
    let pair = (pem(property, "ssl.certificate", certificates)?, pem(property, "ssl.key", private_key)?);
    match pair {
        (None, None) => Ok(config.with_no_client_auth()),
        // librdkafka takes kinds of keys that we do not; where they do not belong together, it says so.
        (Some(chain), Some(key)) => config
            .with_client_auth_cert(chain, key)
            .map_err(|e| Refusal::Unspoken(format!("ssl.certificate.location and ssl.key.location: {e}"))),
        _ => {
            let text = "one of ssl.certificate.location and ssl.key.location is set, and the other is not; set both";
            Err(Refusal::Wrong(text.into()))
        }
    }
}

/// What a PEM text has that is given as `<name>.pem`, or in the file that `<name>.location` names.
fn pem<'a, T>(
    property: &impl Fn(&str) -> Option<&'a str>,
    name: &str,
    parse: impl FnOnce(&[u8]) -> Result<T, String>,
) -> Result<Option<T>, Refusal> {
    let (inline, location) = (format!("{name}.pem"), format!("{name}.location"));
    let remedy = "name a readable PEM file";
    if let Some(text) = property(&inline) {
        let wrong = |e| Refusal::Wrong(format!("{inline}: {e}; give it in PEM"));
        return parse(text.as_bytes()).map(Some).map_err(wrong);
    }
    let Some(path) = property(&location) else { return Ok(None) };
    let wrong = |cause: String| Refusal::Wrong(format!("{location} {path}: {cause}; {remedy}"));
    if Path::new(path).is_dir() {
        return Err(Refusal::Unspoken(format!("{location} is a folder")));
    }
    let text = std::fs::read(path).map_err(|e| wrong(e.to_string()))?;
    parse(&text).map(Some).map_err(wrong)
}

fn private_key(text: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    let encrypted = text.windows(ENCRYPTED.len()).any(|bytes| bytes == ENCRYPTED);
    PrivateKeyDer::from_pem_slice(text)
        .map_err(|e| if encrypted { "it is encrypted, and ssl.key.password is not set".into() } else { e.to_string() })
}

/// Stands in encrypted keys, of either form.
const ENCRYPTED: &[u8] = b"ENCRYPTED";

fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(text).collect::<Result<_, _>>().map_err(|e| e.to_string())?;
    if found.is_empty() { Err("it has no certificate".into()) } else { Ok(found) }
}

fn roots<'a>(property: &impl Fn(&str) -> Option<&'a str>) -> Result<RootCertStore, Refusal> {
    let mut store = RootCertStore::empty();
    // librdkafka's word for the system's own.
    let own = property("ssl.ca.location").is_some_and(|path| path == "probe");
    match if own { None } else { pem(property, "ssl.ca", certificates)? } {
        Some(authorities) => {
            for authority in authorities {
                // librdkafka is less strict about what an authority's certificate looks like.
                store.add(authority).map_err(|e| Refusal::Unspoken(format!("ssl.ca.location: {e}")))?;
            }
        }
        None => store = tls::system_roots(),
    }
    Ok(store)
}

fn flag(value: Option<&str>, default: bool) -> Result<bool, Refusal> {
    match value {
        None => Ok(default),
        Some("true") => Ok(true),
        Some("false") => Ok(false),
        Some(other) => {
            Err(Refusal::Wrong(format!("enable.ssl.certificate.verification is {other:?}; say true or false")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Refusal, Security};

    fn refusal(properties: &[(&str, &str)]) -> Option<Refusal> {
        let properties = properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Security::new(&properties).err()
    }

    #[test]
    fn what_we_do_not_speak_is_told_from_what_is_wrong() {
        let login = [("security.protocol", "sasl_plaintext"), ("sasl.username", "u"), ("sasl.password", "p")];
        let with = |more: &[(&str, &str)]| refusal(&[login.as_slice(), more].concat());
        assert_eq!(with(&[("sasl.mechanism", "scram-sha-256")]), None);
        // It is of TLS, which is not used.
        assert_eq!(with(&[("sasl.mechanisms", "PLAIN"), ("ssl.keystore.location", "k")]), None);
        for (name, value) in [
            ("sasl.mechanism", "OAUTHBEARER"),
            ("sasl.mechanism", "GSSAPI"),
            ("sasl.oauthbearer.method", "oidc"),
            ("sasl.kerberos.service.name", "kafka"),
        ] {
            let refused = with(&[(name, value)]);
            assert!(matches!(&refused, Some(Refusal::Unspoken(text)) if text.contains(name)), "{name}: {refused:?}");
        }
        let refused = with(&[]);
        assert!(matches!(&refused, Some(Refusal::Wrong(text)) if text.contains("sasl.mechanism")), "{refused:?}");

        let tls = |name, value| refusal(&[("security.protocol", "ssl"), (name, value)]);
        for (name, value) in [
            ("ssl.keystore.location", "k"),
            ("ssl.key.password", "p"),
            ("ssl.crl.location", "c"),
            ("ssl.cipher.suites", "c"),
            ("ssl.ca.location", "/"),
        ] {
            let refused = tls(name, value);
            assert!(matches!(&refused, Some(Refusal::Unspoken(text)) if text.contains(name)), "{name}: {refused:?}");
        }
        for (name, value) in [
            ("ssl.endpoint.identification.algorithm", "ftp"),
            ("enable.ssl.certificate.verification", "perhaps"),
            ("ssl.ca.location", "/nowhere.pem"),
            ("ssl.ca.pem", "nothing"),
        ] {
            let refused = tls(name, value);
            assert!(matches!(&refused, Some(Refusal::Wrong(text)) if text.contains(name)), "{name}: {refused:?}");
        }
    }
}
