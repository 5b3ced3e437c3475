//! Where the database is, and how to log in: the connection URL, with TLS as its `sslmode` says.
//!
//! Reference: PostgreSQL documentation, libpq, "Connection URIs", "Parameter Key Words" and "SSL Support".

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};
use tributary_dsl::plan::Secret;
use tributary_transport::tls;
use url::form_urlencoded;

use super::super::failure::causes;

const REMEDY: &str = "write it as postgres://user:password@host:5432/database?sslmode=verify-full";

/// How to reach a database.
pub(in crate::sql) struct Endpoint {
    pub(super) config: Config,
    /// None: without TLS.
    pub(super) tls: Option<Arc<ClientConfig>>,
    /// Server and database as messages name them.
    pub(in crate::sql) place: String,
    /// The URL's `options` say how long a statement may take.
    pub(super) limits_statements: bool,
}

/// What of TLS is ours to interpret.
#[derive(Default)]
struct Tls {
    mode: Option<String>,
    roots: Option<PathBuf>,
    system: bool,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

impl Endpoint {
    /// Reads a URL. `Err`: what is wrong with it, without quoting it, for it holds a password.
    pub(in crate::sql) fn parse(url: &Secret) -> Result<Self, String> {
        let wrong = |cause: &str| format!("the url of the database cannot be used: {cause}; {REMEDY}");
        let (head, query) = url.reveal().split_once('?').unwrap_or((url.reveal(), ""));
        if !head.starts_with("postgres://") && !head.starts_with("postgresql://") {
            return Err(wrong("it does not begin with postgres://"));
        }
        let mut given = Tls::default();
        let mut rest = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let Some((key, value)) = form_urlencoded::parse(pair.as_bytes()).next() else { continue };
            match &*key {
                "sslmode" => given.mode = Some(value.into_owned()),
                "sslrootcert" if value == "system" => given.system = true,
                "sslrootcert" => given.roots = Some(PathBuf::from(&*value)),
                "sslcert" => given.certificate = Some(PathBuf::from(&*value)),
                "sslkey" => given.key = Some(PathBuf::from(&*value)),
                _ => rest.push(pair),
            }
        }
        let mut config: Config =
            format!("{head}?{}", rest.join("&")).parse().map_err(|e: tokio_postgres::Error| wrong(&causes(&e)))?;
        if config.get_user().is_none() {
            config.user("postgres");
        }
        if config.get_dbname().is_none() {
            let user = config.get_user().unwrap_or("postgres").to_owned();
            config.dbname(user);
        }
        if config.get_hosts().is_empty() {
            config.host("localhost");
        }
        let says = |name: &str| rest.iter().any(|pair| pair.starts_with(name));
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(Duration::from_secs(10));
        }
        if !says("keepalives") {
            config.keepalives_idle(Duration::from_secs(10)).keepalives_interval(Duration::from_secs(5));
            config.keepalives_retries(3);
        }
        if !says("tcp_user_timeout") {
            config.tcp_user_timeout(Duration::from_secs(30));
        }
        if config.get_application_name().is_none() {
            config.application_name("tributary");
        }
        let on_socket = config.get_hosts().iter().all(|host| !matches!(host, Host::Tcp(_)));
        let tls = if on_socket { None } else { given.client().map_err(|cause| wrong(&cause))? };
        config.ssl_mode(match (&tls, given.mode.as_deref()) {
            (None, _) => SslMode::Disable,
            (Some(_), None | Some("allow" | "prefer")) if !given.system => SslMode::Prefer,
            (Some(_), _) => SslMode::Require,
        });
        let limits_statements = config.get_options().is_some_and(|options| options.contains("statement_timeout"));
        Ok(Self { place: place(&config), config, tls, limits_statements })
    }
}

impl Tls {
    /// The client's configuration; none where TLS is switched off.
    fn client(&self) -> Result<Option<Arc<ClientConfig>>, String> {
        let (checks, names) = match self.mode.as_deref() {
            // As libpq: the system's authorities sign for anybody, so the name must be checked too.
            None | Some("verify-full") if self.system => (true, true),
            Some(mode) if self.system => {
                return Err(format!("sslmode {mode:?} is too weak for sslrootcert=system; use verify-full"));
            }
            Some("disable") => return Ok(None),
            None | Some("allow" | "prefer") => (false, false),
            // As libpq: with a root certificate it behaves as `verify-ca`.
            Some("require") => (self.roots.is_some(), false),
            Some("verify-ca") => (true, false),
            Some("verify-full") => (true, true),
            Some(mode) => {
                return Err(format!("sslmode {mode:?} is none of disable, prefer, require, verify-ca, verify-full"));
            }
        };
        let roots = if checks { Some(self.roots()?) } else { None };
        let config = tls::client(roots, names)?;
        let config = match (&self.certificate, &self.key) {
            (None, None) => config.with_no_client_auth(),
            (Some(certificate), Some(key)) => {
                let unfit = |cause: &dyn std::fmt::Display| format!("sslcert and sslkey do not fit: {cause}");
                let chain = CertificateDer::pem_file_iter(certificate).map_err(|e| unfit(&e))?;
                let chain = chain.collect::<Result<Vec<_>, _>>().map_err(|e| unfit(&e))?;
                let key = PrivateKeyDer::from_pem_file(key).map_err(|e| unfit(&e))?;
                config.with_client_auth_cert(chain, key).map_err(|e| unfit(&e))?
            }
            _ => return Err("one of sslcert and sslkey is set, and the other is not".into()),
        };
        Ok(Some(Arc::new(config)))
    }

    /// The authorities that are trusted.
    fn roots(&self) -> Result<RootCertStore, String> {
        let Some(path) = &self.roots else { return Ok(tls::system_roots()) };
        let unfit = |cause: &dyn std::fmt::Display| format!("sslrootcert {} does not fit: {cause}", path.display());
        let mut store = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(path).map_err(|e| unfit(&e))? {
            store.add(certificate.map_err(|e| unfit(&e))?).map_err(|e| unfit(&e))?;
        }
        Ok(store)
    }
}

/// Hosts, ports and database.
fn place(config: &Config) -> String {
    let ports = config.get_ports();
    let port = |n: usize| ports.get(n).or(ports.first()).copied().unwrap_or(5432);
    let host = |(n, host): (usize, &Host)| match host {
        Host::Tcp(name) => format!("{name}:{}", port(n)),
        #[cfg(unix)]
        Host::Unix(path) => path.display().to_string(),
    };
    let hosts: Vec<String> = config.get_hosts().iter().enumerate().map(host).collect();
    format!("PostgreSQL {}/{}", hosts.join(","), config.get_dbname().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Endpoint, String> {
        Endpoint::parse(&Secret::new(url))
    }

    #[test]
    fn a_url_says_where_and_how() {
        let endpoint = parse("postgres://an%40a:p%2Fw@a:1,b/films?sslmode=disable&connect_timeout=3").expect("a URL");
        assert_eq!(endpoint.place, "PostgreSQL a:1,b:5432/films");
        assert_eq!(endpoint.config.get_connect_timeout(), Some(&Duration::from_secs(3)));
        assert!(endpoint.tls.is_none() && !endpoint.limits_statements);
        let mode = |url: &str| parse(url).map(|endpoint| endpoint.config.get_ssl_mode());
        assert_eq!(mode("postgres://h"), Ok(SslMode::Prefer));
        for strict in ["sslmode=require", "sslmode=verify-ca", "sslmode=verify-full", "sslrootcert=system"] {
            assert_eq!(mode(&format!("postgres://h/?{strict}")), Ok(SslMode::Require), "{strict}");
        }
        assert_eq!(mode("postgresql:///films?host=/run/postgresql"), Ok(SslMode::Disable));
        assert!(parse("postgres://h/?options=-c%20statement_timeout%3D5min").expect("a URL").limits_statements);
    }

    #[test]
    fn mistakes_are_explained_without_the_password() {
        let urls = [
            "mysql://u:hunter2@h/d",
            "hunter2",
            "postgres://u:hunter2@h/d?sslmode=on",
            "postgres://u:hunter2@h/d?sslmod=require",
            "postgres://u:hunter2@h:port/d",
            "postgres://u:hunter2@h/d?sslrootcert=system&sslmode=require",
            "postgres://u:hunter2@h/d?sslmode=verify-full&sslrootcert=/nowhere",
            "postgres://u:hunter2@h/d?sslcert=/nowhere",
        ];
        for url in urls {
            let error = parse(url).expect_err(url);
            assert!(!error.contains("hunter2") && error.contains("postgres://user"), "{error}");
        }
    }
}
