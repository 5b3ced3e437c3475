//! Where the server is, and how to log in: the connection URL, with TLS as its `ssl-mode` says; several hosts with commas between them.
//!
//! Reference: MySQL Reference Manual, "Connecting to the Server Using URI-Like Strings" and "Command Options for Encrypted Connections".

use std::path::{Path, PathBuf};
use std::time::Duration;

use mysql_async::{ClientIdentity, OptsBuilder, SslOpts};
use url::{Url, form_urlencoded};

use super::session::literal;
use crate::error::ConnectorError;
use crate::net::tls::{TlsMode, Trust};
use crate::settings::Secret;

const PLACE: &str = "url of the source";
const REMEDY: &str = "write it as mysql://user:password@host:3306?ssl-mode=VERIFY_IDENTITY";
/// What URLs begin with.
const SCHEMES: [&str; 2] = ["mysql://", "mariadb://"];

/// A server and a user.
#[derive(Debug, Clone)]
pub(in crate::mysql) struct Endpoint {
    pub host: String,
    pub port: u16,
    pub user: String,
    pub password: Secret,
    pub tls: TlsMode,
    root: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    pub connect_timeout: Duration,
    /// Whom the server takes the user for, once one has logged in (`user@host`, as `current_user()` has it).
    pub account: Option<String>,
}

/// The endpoints of a URL, one a host.
pub(in crate::mysql) fn endpoints(url: &Secret) -> Result<Vec<Endpoint>, ConnectorError> {
    let text = url.expose();
    let after_scheme = text.find("://").map_or(0, |at| at + 3);
    let end = text[after_scheme..].find(['/', '?']).map_or(text.len(), |at| after_scheme + at);
    let begin = text[after_scheme..end].rfind('@').map_or(after_scheme, |at| after_scheme + at + 1);
    let (head, tail) = (&text[..begin], &text[end..]);
    text[begin..end].split(',').map(|host| Endpoint::parse(&format!("{head}{host}{tail}"))).collect()
}

impl Endpoint {
    fn parse(url: &str) -> Result<Self, ConnectorError> {
        let wrong = |cause: &str| ConnectorError::settings(PLACE, cause, REMEDY);
        if !SCHEMES.iter().any(|scheme| url.starts_with(scheme)) {
            return Err(wrong("it does not begin with mysql:// or mariadb://"));
        }
        let url = Url::parse(url).map_err(|e| wrong(&e.to_string()))?;
        let text = |part: &str| {
            let decoded = form_urlencoded::parse(format!("x={}", part.replace('+', "%2B")).as_bytes())
                .next()
                .map(|p| p.1.into_owned());
            decoded.unwrap_or_default()
        };
        let host = url.host_str().filter(|host| !host.is_empty()).unwrap_or("localhost").to_owned();
        let mut endpoint = Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: url.port().unwrap_or(3306),
            user: Some(text(url.username())).filter(|user| !user.is_empty()).unwrap_or("root".to_owned()),
            password: Secret::new(url.password().map(text).unwrap_or_default()),
            tls: TlsMode::Prefer,
            root: None,
            certificate: None,
            key: None,
            connect_timeout: Duration::from_secs(10),
            account: None,
        };
        for (name, value) in url.query_pairs() {
            let path = || Some(PathBuf::from(&*value));
            match &*name {
                "ssl-mode" => {
                    endpoint.tls = match &*value.to_ascii_uppercase() {
                        "DISABLED" => TlsMode::Disable,
                        "PREFERRED" => TlsMode::Prefer,
                        "REQUIRED" => TlsMode::Require,
                        "VERIFY_CA" => TlsMode::VerifyCa,
                        "VERIFY_IDENTITY" => TlsMode::VerifyFull,
                        mode => {
                            return Err(wrong(&format!(
                                "ssl-mode {mode:?} is none of DISABLED, PREFERRED, REQUIRED, VERIFY_CA, VERIFY_IDENTITY"
                            )));
                        }
                    }
                }
                "ssl-ca" => endpoint.root = path(),
                "ssl-cert" => endpoint.certificate = path(),
                "ssl-key" => endpoint.key = path(),
                "connect-timeout" => {
                    let seconds = value.parse().ok().filter(|seconds| *seconds > 0);
                    let seconds = seconds.ok_or_else(|| wrong("connect-timeout is no number of seconds"))?;
                    endpoint.connect_timeout = Duration::from_secs(seconds);
                }
                _ => {
                    return Err(wrong(&format!(
                        "{name:?} is none of its parameters: ssl-mode, ssl-ca, ssl-cert, ssl-key, connect-timeout"
                    )));
                }
            }
        }
        Ok(endpoint)
    }

    /// The server as messages name it.
    pub(in crate::mysql) fn place(&self) -> String {
        format!("MySQL {}:{}", self.host, self.port)
    }

    /// The account as `GRANT` names it.
    pub(in crate::mysql) fn grantee(&self) -> String {
        let (user, host) = match &self.account {
            Some(account) => account.rsplit_once('@').unwrap_or((account, "%")),
            None => (self.user.as_str(), "%"),
        };
        format!("{}@{}", literal(user), literal(host))
    }

    /// Who is trusted.
    pub(in crate::mysql) fn trust(&self) -> Trust<'_> {
        // A named authority is to be checked, as `require` does.
        let mode = if self.tls == TlsMode::Prefer && self.root.is_some() { TlsMode::VerifyCa } else { self.tls };
        Trust {
            place: self.place(),
            mode,
            root: self.root.as_deref(),
            client: (self.certificate.as_deref(), self.key.as_deref()),
            parameters: ["ssl-ca", "ssl-cert", "ssl-key"],
        }
    }

    /// Whether it is checked who signed the server's certificate, and not for whom.
    pub(in crate::mysql) fn checks_authority_alone(&self) -> bool {
        match self.trust().mode {
            TlsMode::VerifyCa => true,
            TlsMode::Require => self.root.is_some(),
            TlsMode::Disable | TlsMode::Prefer | TlsMode::VerifyFull => false,
        }
    }

    /// How sessions of SQL are opened; `plain`: without TLS, for the server has none. `name`: what its certificate is checked for.
    pub(in crate::mysql) fn options(&self, plain: bool, name: Option<String>) -> Result<OptsBuilder, ConnectorError> {
        // What is wrong with files is said as for the stream.
        let trust = self.trust();
        trust.config()?;
        let tls = (trust.mode != TlsMode::Disable && !plain).then(|| {
            let checks = self.root.is_some() || matches!(trust.mode, TlsMode::VerifyCa | TlsMode::VerifyFull);
            let mut ssl = SslOpts::default()
                .with_danger_accept_invalid_certs(!checks)
                .with_danger_skip_domain_validation(!checks)
                .with_danger_tls_hostname_override(name);
            let path = |path: &Path| path.to_owned();
            if let Some(root) = &self.root {
                ssl = ssl.with_root_certs(vec![path(root).into()]).with_disable_built_in_roots(true);
            }
            if let (Some(certificate), Some(key)) = (&self.certificate, &self.key) {
                let identity = ClientIdentity::new(path(certificate).into(), path(key).into());
                ssl = ssl.with_client_identity(Some(identity));
            }
            ssl
        });
        Ok(OptsBuilder::default()
            .ip_or_hostname(self.host.clone())
            .tcp_port(self.port)
            .prefer_socket(false)
            .user(Some(self.user.clone()))
            .pass(Some(self.password.expose()).filter(|password| !password.is_empty()))
            .ssl_opts(tls)
            .tcp_keepalive(Some(Duration::from_secs(10)))
            .stmt_cache_size(Some(0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_share_everything_else() {
        let all = endpoints(&"mysql://an%40a:p%2Fw+@[::1]:33,b?ssl-mode=required".into()).expect("a URL");
        let hosts: Vec<(&str, u16)> = all.iter().map(|e| (e.host.as_str(), e.port)).collect();
        assert_eq!(hosts, [("::1", 33), ("b", 3306)]);
        assert!(all.iter().all(|e| e.user == "an@a" && e.password.expose() == "p/w+" && e.tls == TlsMode::Require));
    }

    #[test]
    fn mistakes_are_explained_without_the_password() {
        for url in [
            "postgres://u:hunter2@h/d",
            "mysql://u:hunter2@h/d?ssl-mode=on",
            "mysql://u:hunter2@h?x=1",
            "mysql://u:hunter2@h:port",
        ] {
            let error = endpoints(&url.into()).expect_err(url).to_string();
            assert!(!error.contains("hunter2") && error.contains("mysql://user"), "{error}");
        }
    }
}
