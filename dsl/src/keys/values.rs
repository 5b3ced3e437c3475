//! Values with a form of their own: names, URLs, addresses.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::Value as Json;

use crate::diagnostic::Spot;
use crate::yaml::{At, Documented, Kind, MappingKey, Node, Printed, Reader, Text, pattern};

/// What has a name that becomes a part of topics, slots and aliases.
pub(crate) struct NameOf {
    what: &'static str,
    underscore: bool,
}

/// The longest name.
const MAX_NAME: usize = 100;
/// The longest name of a PostgreSQL slot or publication.
pub(crate) const MAX_SERVER_NAME: usize = 63;

impl NameOf {
    pub const PIPELINE: Self = Self { what: "a pipeline", underscore: false };
    pub const SOURCE: Self = Self { what: "a source", underscore: true };
    pub const INDEX: Self = Self { what: "an index", underscore: true };
    pub const STREAM: Self = Self { what: "a stream", underscore: true };
    pub const SERVICE: Self = Self { what: "a service", underscore: true };
    pub const TABLE: Self = Self { what: "a table", underscore: true };
    pub const STEP: Self = Self { what: "a step", underscore: true };
    pub const SINK: Self = Self { what: "a sink", underscore: true };
    /// A name with underscores.
    pub const PATTERN: &str = "^[a-z0-9][a-z0-9_-]{0,99}$";

    /// Refuses what is no name.
    pub fn check(&self, r: &mut Reader, name: &str, shown: &str, spot: &Spot) -> bool {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || (self.underscore && c == '_');
        let first = name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        if name.len() <= MAX_NAME && first && name.chars().all(fits) {
            return true;
        }
        let marks = if self.underscore { "digits, `-` and `_`" } else { "digits and `-`" };
        let proposal: String = name.to_ascii_lowercase().chars().map(|c| if fits(c) { c } else { '-' }).collect();
        let proposal: String = proposal.trim_matches(['-', '_']).chars().take(MAX_NAME).collect();
        let such_as = if proposal.is_empty() { String::new() } else { format!(", such as `{proposal}`") };
        let help = match name.len() > MAX_NAME {
            true => format!("a name has {MAX_NAME} characters at most"),
            false => format!("a name has lower-case letters, {marks}{such_as}"),
        };
        r.found.push(spot.error(format!("`{shown}` is no name for {}", self.what)).help(help));
        false
    }

    /// Refuses a key of a mapping that is no name.
    pub fn check_key(&self, r: &mut Reader, key: &MappingKey) {
        let spot = r.spot(key.place);
        self.check(r, &key.name, &key.name, &spot);
    }
}

/// A name.
pub(crate) struct Name(pub &'static NameOf);

impl Documented for Name {
    fn word(&self) -> String {
        "name".to_owned()
    }

    fn schema(&self) -> Json {
        pattern("^[a-z0-9][a-z0-9-]{0,99}$")
    }
}

impl Kind for Name {
    type Value = String;

    fn read(&self, r: &mut Reader, node: &Arc<Node>, at: At) -> Option<String> {
        let text = r.text(node, at)?;
        self.0.check(r, &text.value, &text.shown, &text.spot).then_some(text.value)
    }
}

/// The name of a slot or a publication.
pub(crate) struct ServerName(pub &'static str);

impl Documented for ServerName {
    fn word(&self) -> String {
        "name".to_owned()
    }

    fn schema(&self) -> Json {
        pattern("^[a-z0-9_]{1,63}$")
    }
}

impl Kind for ServerName {
    type Value = String;

    fn read(&self, r: &mut Reader, node: &Arc<Node>, at: At) -> Option<String> {
        let text = r.text(node, at)?;
        let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if text.value.len() <= MAX_SERVER_NAME && text.value.chars().all(word) {
            return Some(text.value);
        }
        let help = format!("a name has lower-case letters, digits and `_`, {MAX_SERVER_NAME} at most");
        r.found.push(text.spot.error(format!("`{}` is no name of a {}", text.shown, self.0)).help(help));
        None
    }
}

/// The URL of a database.
pub(crate) struct DatabaseUrl {
    /// What it starts with, the usual one of each kind of database first.
    pub schemes: &'static [&'static str],
    /// What to write.
    pub example: &'static str,
}

/// Databases that changes come from.
pub(crate) const SOURCE_URL: DatabaseUrl = DatabaseUrl {
    schemes: &["postgres://", "postgresql://"],
    example: "write `postgres://user:password@host:5432/database`",
};

/// The same, of MySQL and MariaDB.
pub(crate) const MYSQL_URL: DatabaseUrl =
    DatabaseUrl { schemes: &["mysql://", "mariadb://"], example: "write `mysql://user:password@host:3306`" };

/// Databases that rows go to.
pub(crate) const TABLE_URL: DatabaseUrl = DatabaseUrl {
    schemes: &["postgres://", "postgresql://", "mysql://", "mariadb://"],
    example: "write `postgres://user:password@host:5432/database` or `mysql://user:password@host:3306/database`",
};

impl Documented for DatabaseUrl {
    fn word(&self) -> String {
        "URL".to_owned()
    }

    fn schema(&self) -> Json {
        pattern(&format!("^({})", self.schemes.join("|")))
    }
}

impl Kind for DatabaseUrl {
    type Value = Text;

    fn read(&self, r: &mut Reader, node: &Arc<Node>, at: At) -> Option<Text> {
        let text = r.text(node, at)?;
        if self.schemes.iter().any(|scheme| text.value.starts_with(scheme)) {
            return Some(text);
        }
        let quoted: Vec<String> = self.schemes.iter().map(|scheme| format!("`{scheme}`")).collect();
        let schemes = match &*quoted {
            [most @ .., last] if !most.is_empty() => format!("{} or {last}", most.join(", ")),
            all => all.concat(),
        };
        let message = format!("`{}` must start with {schemes}", at.path);
        r.found.push(text.spot.error(message).help(self.example));
        None
    }
}

/// An HTTP URL without a user in it.
pub(crate) struct HttpUrl {
    /// What to do with a user and a password.
    pub instead: &'static str,
}

impl Documented for HttpUrl {
    fn word(&self) -> String {
        "URL".to_owned()
    }

    fn schema(&self) -> Json {
        pattern("^https?://[^/@]+(/|$)")
    }
}

impl Kind for HttpUrl {
    type Value = Text;

    fn read(&self, r: &mut Reader, node: &Arc<Node>, at: At) -> Option<Text> {
        let text = r.text(node, at)?;
        let path = at.path;
        let rest = text.value.strip_prefix("http://").or_else(|| text.value.strip_prefix("https://"));
        let (message, help) = match rest.map(|rest| rest.split('/').next().unwrap_or_default()) {
            None if text.value.contains(['@', '/']) || text.shown != text.value => {
                (format!("`{path}` must start with `http://` or `https://`"), r.such_as(at))
            }
            None => {
                let help = format!("write `http://{}`", text.value);
                (format!("`{path}` must start with `http://` or `https://`"), help)
            }
            Some("") => (format!("`{path}` names no host"), r.such_as(at)),
            Some(host) if host.contains('@') => {
                (format!("`{path}` must not hold a user or a password"), self.instead.to_owned())
            }
            Some(_) => return Some(text),
        };
        r.found.push(text.spot.error(message).help(help));
        None
    }
}

/// An address to listen on.
pub(crate) struct Address;

impl Documented for Address {
    fn word(&self) -> String {
        "IP address and port".to_owned()
    }

    fn schema(&self) -> Json {
        pattern(r"^([0-9.]+|\[[0-9a-fA-F:.]+\]):[0-9]+$")
    }
}

impl Kind for Address {
    type Value = SocketAddr;

    fn read(&self, r: &mut Reader, node: &Arc<Node>, at: At) -> Option<SocketAddr> {
        let text = r.text(node, at)?;
        let address = text.value.parse().ok();
        if address.is_none() {
            let message = format!("`{}` must be an IP address and a port, not `{}`", at.path, text.shown);
            r.found.push(text.spot.error(message).help(r.such_as(at)));
        }
        address
    }
}

impl Printed for Address {
    fn print(&self, value: &SocketAddr) -> String {
        value.to_string()
    }
}
