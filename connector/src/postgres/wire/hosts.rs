//! Which of several hosts: a URL may name a primary and its standbys, in any order, as libpq's may.
//!
//! The log is read where writes are made, so of several hosts the one that is not in recovery is chosen, each time anew:
//! after a failover it is another one.
//!
//! Reference: PostgreSQL documentation, libpq, "Connection URIs" and `target_session_attrs`.

use tributary_event::ErrorClass;

use super::endpoint::{Endpoint, Target};
use super::sql::Sql;
use crate::error::ConnectorError;
use crate::settings::Secret;

/// The endpoints of a URL, one a host.
pub(in crate::postgres) fn endpoints(url: &Secret) -> Result<Vec<Endpoint>, ConnectorError> {
    let text = url.expose();
    let after_scheme = text.find("://").map_or(0, |at| at + 3);
    let end = text[after_scheme..].find(['/', '?']).map_or(text.len(), |at| after_scheme + at);
    let begin = text[after_scheme..end].rfind('@').map_or(after_scheme, |at| after_scheme + at + 1);
    let (head, tail) = (&text[..begin], &text[end..]);
    text[begin..end].split(',').map(|host| Endpoint::parse(&Secret::new(format!("{head}{host}{tail}")))).collect()
}

/// The endpoint to talk to now.
///
/// # Errors
/// The URL cannot be understood; or, of several hosts, none can be reached and accepts writes, which is transient.
pub(in crate::postgres) async fn find(url: &Secret) -> Result<Endpoint, ConnectorError> {
    let mut endpoints = endpoints(url)?;
    let chooses = endpoints.len() > 1 || endpoints.iter().any(|e| e.target == Some(Target::Primary));
    if !chooses {
        return Ok(endpoints.remove(0));
    }
    let (mut causes, mut standbys) = (Vec::new(), 0);
    let mut definite = None;
    for endpoint in &endpoints {
        match standby(endpoint).await {
            Ok(true) if endpoint.target != Some(Target::Any) => {
                standbys += 1;
                causes.push(format!("{}:{} is a standby", endpoint.host, endpoint.port));
            }
            Ok(_) => return Ok(endpoint.clone()),
            Err(ConnectorError::Unreachable { cause, .. }) => {
                causes.push(format!("{}:{}: {cause}", endpoint.host, endpoint.port));
            }
            Err(error) => definite = definite.or(Some(error)),
        }
    }
    if standbys == endpoints.len() {
        return Err(ConnectorError::Server {
            place: "the servers of the source's url".into(),
            cause: format!("there is no primary among them: {}", causes.join("; ")),
            remedy: "promote one of them, name the primary too, or read from a standby with target_session_attrs=any; until \
                     then the source waits"
                .into(),
            class: ErrorClass::Transient,
        });
    }
    // A wrong password is no outage, unless another host may still come back.
    match definite {
        Some(error) if causes.is_empty() => Err(error),
        Some(error) => Err(ConnectorError::unreachable("a primary server", format!("{}; {error}", causes.join("; ")))),
        None => Err(ConnectorError::unreachable("a primary server", causes.join("; "))),
    }
}

async fn standby(endpoint: &Endpoint) -> Result<bool, ConnectorError> {
    let sql = Sql::connect(endpoint).await?;
    let rows = sql.query("asking whether it is a standby", "select pg_is_in_recovery()", &[]).await?;
    Ok(rows.first().is_some_and(|row| row.get(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_share_everything_else() {
        let all = endpoints(&"postgres://u:p,w@a:1,b,[::1]:3/films?connect_timeout=3".into()).expect("a URL");
        let hosts: Vec<(&str, u16)> = all.iter().map(|e| (e.host.as_str(), e.port)).collect();
        assert_eq!(hosts, [("a", 1), ("b", 5432), ("::1", 3)]);
        assert!(all.iter().all(|e| e.user == "u" && e.database == "films" && e.connect_timeout.as_secs() == 3));
        assert!(all.iter().all(|e| e.password.as_ref().is_some_and(|p| p.expose() == "p,w")));
        assert_eq!(endpoints(&"postgres:///films?host=/run/postgresql".into()).expect("a URL").len(), 1);
        assert!(endpoints(&"nonsense,,".into()).is_err());
    }
}
