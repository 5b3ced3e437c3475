//! The account that a server runs under: PostgreSQL refuses to run as root, so root hands it to `nobody`.

use anyhow::{Context as _, Result};
use std::path::Path;

/// A user and a group by number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Account {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// The overflow user of Linux, named `nobody` nearly everywhere.
const NOBODY: Account = Account { uid: 65534, gid: 65534 };

/// Whether this process runs as root.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The account for servers that refuse root; `None` when this process is not root and needs no other account.
pub(crate) fn unprivileged() -> Option<Account> {
    is_root().then(|| std::fs::read_to_string("/etc/passwd").ok().and_then(|text| find(&text)).unwrap_or(NOBODY))
}

/// Finds `nobody` in the text of a passwd file (`name:password:uid:gid:…`).
fn find(passwd: &str) -> Option<Account> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next()? != "nobody" {
            return None;
        }
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(Account { uid, gid })
    })
}

/// Gives a file or folder (not its content) to the account.
pub(crate) fn give(path: &Path, account: Option<Account>) -> Result<()> {
    let Some(Account { uid, gid }) = account else { return Ok(()) };
    std::os::unix::fs::chown(path, Some(uid), Some(gid))
        .with_context(|| format!("giving {} to user {uid}, which the server runs under", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_found_in_a_passwd_file() {
        let text = "root:x:0:0:root:/root:/bin/bash\nnobody:x:99:98:nobody:/:/bin/false\n";
        let account = find(text).unwrap();
        assert_eq!((account.uid, account.gid), (99, 98));
        assert!(find("root:x:0:0:root:/root:/bin/bash\n").is_none());
    }
}
