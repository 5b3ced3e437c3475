//! Where the database is, and how to log in: the connection URL, with TLS as its `ssl-mode` says.
//!
//! Reference: MySQL Reference Manual, "Connecting to the Server Using URI-Like Strings" and "Command Options for Encrypted Connections".

use std::path::{Path, PathBuf};
use std::time::Duration;

use mysql_async::{ClientIdentity, OptsBuilder, SslOpts};
use tributary_dsl::plan::Secret;
use url::{Url, form_urlencoded};

const REMEDY: &str = "write it as mysql://user:password@host:3306/database?ssl-mode=VERIFY_IDENTITY";

/// What URLs begin with.
const SCHEMES: [&str; 2] = ["mysql://", "mariadb://"];

/// How to reach a database.
pub(in crate::sql) struct Endpoint {
    pub(super) options: OptsBuilder,
    /// A server without TLS is spoken to without it.
    pub(super) may_be_plain: bool,
    /// Server and database as messages name them.
    pub(in crate::sql) place: String,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("place", &self.place).finish_non_exhaustive()
    }
}

/// What the URL says of TLS.
#[derive(Default)]
struct Tls {
    mode: Option<String>,
    authority: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

impl Endpoint {
    /// Whether a URL leads to one of these servers.
    pub(in crate::sql) fn is_meant(url: &Secret) -> bool {
        SCHEMES.iter().any(|scheme| url.reveal().starts_with(scheme))
    }

    /// Reads a URL. `Err`: what is wrong with it, without quoting it, for it holds a password.
    pub(in crate::sql) fn parse(url: &Secret) -> Result<Self, String> {
        let wrong = |cause: &str| format!("the url of the database cannot be used: {cause}; {REMEDY}");
        if !Self::is_meant(url) {
            return Err(wrong("it does not begin with mysql:// or mariadb://"));
        }
        let url = Url::parse(url.reveal()).map_err(|e| wrong(&e.to_string()))?;
        let text = |part: &str| {
            let decoded = form_urlencoded::parse(format!("x={}", part.replace('+', "%2B")).as_bytes())
                .next()
                .map(|p| p.1.into_owned());
            decoded.unwrap_or_default()
        };
        let mut tls = Tls::default();
        let mut socket = None;
        for (name, value) in url.query_pairs() {
            let path = || Some(PathBuf::from(&*value));
            match &*name {
                "ssl-mode" => tls.mode = Some(value.to_ascii_uppercase()),
                "ssl-ca" => tls.authority = path(),
                "ssl-cert" => tls.certificate = path(),
                "ssl-key" => tls.key = path(),
                "socket" => socket = Some(value.into_owned()),
                _ => {
                    return Err(wrong(&format!(
                        "{name:?} is none of its parameters: ssl-mode, ssl-ca, ssl-cert, ssl-key, socket"
                    )));
                }
            }
        }
        let host = url.host_str().filter(|host| !host.is_empty()).unwrap_or("localhost").to_owned();
        let host = host.trim_matches(['[', ']']).to_owned();
        let port = url.port().unwrap_or(3306);
        let database = text(url.path().trim_start_matches('/'));
        let user = Some(text(url.username())).filter(|user| !user.is_empty()).unwrap_or("root".to_owned());
        let (ssl, may_be_plain) = match &socket {
            Some(_) => (None, true),
            None => tls.options().map_err(|cause| wrong(&cause))?,
        };
        let place = match &socket {
            Some(path) => format!("MySQL {path}/{database}"),
            None => format!("MySQL {host}:{port}/{database}"),
        };
        let options = OptsBuilder::default()
            .ip_or_hostname(host)
            .tcp_port(port)
            .prefer_socket(socket.is_some())
            .socket(socket)
            .user(Some(user))
            .pass(url.password().map(text))
            .db_name(Some(database).filter(|name| !name.is_empty()))
            .ssl_opts(ssl)
            .tcp_keepalive(Some(Duration::from_secs(10)))
            // Rows that are as they should be already count as found: a mark that stays where it is was moved.
            .client_found_rows(true)
            .stmt_cache_size(Some(0));
        Ok(Self { options, may_be_plain, place })
    }
}

impl Tls {
    /// The client's options, none without TLS, and whether it may do without.
    fn options(self) -> Result<(Option<SslOpts>, bool), String> {
        let (checks, names, may_be_plain) = match self.mode.as_deref() {
            Some("DISABLED") => return Ok((None, true)),
            None | Some("PREFERRED") => (self.authority.is_some(), false, self.authority.is_none()),
            Some("REQUIRED") => (self.authority.is_some(), false, false),
            Some("VERIFY_CA") => (true, false, false),
            Some("VERIFY_IDENTITY") => (true, true, false),
            Some(mode) => {
                return Err(format!(
                    "ssl-mode {mode:?} is none of DISABLED, PREFERRED, REQUIRED, VERIFY_CA, VERIFY_IDENTITY"
                ));
            }
        };
        if checks && !names {
            // The driver gives up at the first connection, with a message that does not say why.
            return Err("who signed the server's certificate is checked together with its name alone: set \
                        ssl-mode=VERIFY_IDENTITY, or leave ssl-ca out and set ssl-mode=REQUIRED"
                .into());
        }
        let readable = |path: &Path| {
            std::fs::metadata(path).map_err(|e| format!("{} cannot be read: {e}", path.display())).map(drop)
        };
        [&self.authority, &self.certificate, &self.key].into_iter().flatten().try_for_each(|path| readable(path))?;
        let mut ssl =
            SslOpts::default().with_danger_accept_invalid_certs(!checks).with_danger_skip_domain_validation(!names);
        if let Some(authority) = self.authority {
            ssl = ssl.with_root_certs(vec![authority.into()]).with_disable_built_in_roots(true);
        }
        match (self.certificate, self.key) {
            (None, None) => {}
            (Some(certificate), Some(key)) => {
                ssl = ssl.with_client_identity(Some(ClientIdentity::new(certificate.into(), key.into())));
            }
            _ => return Err("one of ssl-cert and ssl-key is set, and the other is not".into()),
        }
        Ok((Some(ssl), may_be_plain))
    }
}

#[cfg(test)]
mod tests {
    use mysql_async::Opts;

    use super::*;

    fn parse(url: &str) -> Result<Endpoint, String> {
        Endpoint::parse(&Secret::new(url))
    }

    #[test]
    fn a_url_says_where_and_how() {
        let endpoint = parse("mariadb://an%40a:p%2Fw+@[::1]:33/films?ssl-mode=disabled").expect("a URL");
        assert_eq!(endpoint.place, "MySQL ::1:33/films");
        let options = Opts::from(endpoint.options);
        assert_eq!((options.user(), options.pass(), options.db_name()), (Some("an@a"), Some("p/w+"), Some("films")));
        assert!(options.ssl_opts().is_none() && endpoint.may_be_plain);
        let ssl = |parameters: &str| {
            let endpoint = parse(&format!("mysql://h/?{parameters}")).expect("a URL");
            let ssl = Opts::from(endpoint.options).ssl_opts().cloned().expect("TLS");
            (ssl.accept_invalid_certs(), ssl.skip_domain_validation(), endpoint.may_be_plain)
        };
        assert_eq!(ssl(""), (true, true, true));
        assert_eq!(ssl("ssl-mode=REQUIRED"), (true, true, false));
        assert_eq!(ssl("ssl-mode=VERIFY_IDENTITY"), (false, false, false));
    }

    #[test]
    fn mistakes_are_explained_without_the_password() {
        let urls = [
            "postgres://u:hunter2@h/d",
            "mysql://u:hunter2@h/d?ssl-mode=on",
            "mysql://u:hunter2@h/d?sslmode=require",
            "mysql://u:hunter2@h:port/d",
            "mysql://u:hunter2@h/d?ssl-ca=/nowhere",
            "mysql://u:hunter2@h/d?ssl-cert=/",
            "mysql://u:hunter2@h/d?ssl-mode=VERIFY_CA",
            "mysql://u:hunter2@h/d?ssl-mode=REQUIRED&ssl-ca=/",
        ];
        for url in urls {
            let error = parse(url).expect_err(url);
            assert!(!error.contains("hunter2") && error.contains("mysql://user"), "{error}");
        }
    }
}
