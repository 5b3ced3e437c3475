//! Debian's packages, fetched with apt and unpacked into a folder of the cache, of another release than the machine's if need be.
//!
//! apt is given lists and a cache of its own, one source, and the word that nothing is installed. So it needs no root, leaves the machine
//! as it is, and fetches all that the wanted packages depend on, down to the C library; it checks the archive's signature and the
//! digests. The programs are started by the loader that comes with that C library.

use super::artifact::{self, Claim};
use crate::server::command;
use anyhow::{Context as _, Result, bail, ensure};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use tokio::process::Command;

/// What signs Debian's releases, where Debian keeps it.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// What os-release(5) says of this machine.
struct System(String);

impl System {
    fn here() -> Self {
        Self(std::fs::read_to_string("/etc/os-release").unwrap_or_default())
    }

    fn says(&self, key: &str) -> &str {
        let value = self.0.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        value.unwrap_or_default().trim_matches('"')
    }

    fn is_debian(&self) -> bool {
        self.says("ID") == "debian"
    }
}

/// Whether packages can be had: whether this machine runs Debian.
pub(crate) fn is_here() -> bool {
    System::here().is_debian()
}

/// Packages to be had from one release.
#[derive(Debug)]
pub(crate) struct Packages {
    /// The release's code name.
    pub(crate) suite: &'static str,
    /// The package that is wanted.
    pub(crate) name: &'static str,
    /// How its version begins, epoch included.
    pub(crate) version: &'static str,
}

/// Unpacked packages.
#[derive(Debug)]
pub(crate) struct Tree {
    root: PathBuf,
    /// The folders of the shared libraries.
    libraries: Vec<PathBuf>,
}

impl Packages {
    /// The packages, fetched if they are not in the cache.
    pub(crate) async fn fetch(&self, artifact: &str) -> Result<Tree> {
        Tree::open(self.unpacked(artifact, false).await?)
    }

    /// The package without what it depends on: files that programs of another one load.
    pub(crate) async fn fetch_alone(&self, artifact: &str) -> Result<PathBuf> {
        self.unpacked(artifact, true).await
    }

    async fn unpacked(&self, artifact: &str, alone: bool) -> Result<PathBuf> {
        Ok(match artifact::claim(artifact).await? {
            Claim::Present(path) => path,
            Claim::Absent(making) => {
                let source = self.source().await?;
                eprintln!("fetching {} of Debian's {} with apt", self.name, self.suite);
                let apt = making.partial.join("apt");
                for folder in ["state/lists/partial", "cache/archives/partial"] {
                    let folder = apt.join(folder);
                    std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
                }
                write(&apt.join("status"), "")?;
                write(&apt.join("sources.list"), &source)?;
                let remedy = || format!("Debian's archive must be reachable, and have {} {}", self.name, self.version);
                command::run(private_apt(&apt, &["update"]), &remedy()).await?;
                let archives = apt.join("cache/archives");
                let mut fetching = match alone {
                    true => private_apt(&apt, &["download", self.name]),
                    false => private_apt(&apt, &["install", "--download-only", "--yes", self.name]),
                };
                fetching.current_dir(&archives);
                command::run(fetching, &remedy()).await?;
                self.unpack(&archives, &making.partial).await?;
                std::fs::remove_dir_all(&apt).with_context(|| format!("removing {}", apt.display()))?;
                making.finish()?
            }
        })
    }

    /// A line of apt's list of sources: the release, from where the machine has its own.
    async fn source(&self) -> Result<String> {
        let name = self.name;
        let remedy = format!("{name} is fetched with apt from Debian's archive, so this machine must run Debian");
        let system = System::here();
        ensure!(system.is_debian(), "{remedy}; it runs {:?}", system.says("ID"));
        let own = system.says("VERSION_CODENAME");
        let mut targets = Command::new("apt-get");
        targets.args(["indextargets", "--format", "$(RELEASE) $(COMPONENT) $(REPO_URI)", "Identifier: Packages"]);
        let targets = command::run(targets, &remedy).await?;
        let of_main = targets.lines().filter_map(|line| {
            let mut words = line.splitn(3, ' ');
            let (release, component, archive) = (words.next()?, words.next()?, words.next()?);
            let suits = component == "main" && archive.starts_with("http");
            suits.then_some((release == own, archive))
        });
        // A machine that follows a release by its role ("stable") has no source of that code name.
        let Some((_, archive)) = of_main.max_by_key(|(is_own, _)| *is_own) else {
            bail!("{remedy}; apt knows no archive with the component main here");
        };
        let signed = if Path::new(KEYRING).exists() { format!("[signed-by={KEYRING}] ") } else { String::new() };
        Ok(format!("deb {signed}{archive} {} main\n", self.suite))
    }

    /// Unpacks what was fetched, but for Perl, which no server needs.
    async fn unpack(&self, archives: &Path, into: &Path) -> Result<()> {
        let mut is_there = false;
        let wanted = format!("{}_{}", self.name, self.version.replace(':', "%3a"));
        let entries = std::fs::read_dir(archives).with_context(|| format!("listing {}", archives.display()))?;
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !name.ends_with(".deb") || name.starts_with("perl") || name.starts_with("libperl") {
                continue;
            }
            is_there |= name.starts_with(&wanted);
            let mut dpkg = Command::new("dpkg-deb");
            dpkg.arg("--extract").arg(&path).arg(into);
            command::run(dpkg, "dpkg-deb comes with Debian, and needs room in the cache folder").await?;
        }
        ensure!(
            is_there,
            "Debian's {} has no {} {} any more: set the version that it has in {}",
            self.suite,
            self.name,
            self.version,
            file!()
        );
        Ok(())
    }
}

/// apt-get with these arguments, which looks at nothing of the machine's but its settings, such as a proxy.
fn private_apt(folder: &Path, arguments: &[&str]) -> Command {
    let mut apt = Command::new("apt-get");
    apt.arg("--quiet").arg("--quiet");
    let places = [
        ("Dir::State", "state"),
        ("Dir::State::status", "status"),
        ("Dir::Cache", "cache"),
        ("Dir::Etc::sourcelist", "sources.list"),
        ("Dir::Etc::sourceparts", "absent"),
        ("Dir::Etc::preferences", "absent"),
        ("Dir::Etc::preferencesparts", "absent"),
    ];
    for (name, place) in places {
        apt.arg("-o").arg(format!("{name}={}", folder.join(place).display()));
    }
    let settings = [
        "APT::Default-Release=",
        "APT::Install-Recommends=false",
        "APT::Sandbox::User=",
        "APT::Update::Error-Mode=any",
        "Acquire::Languages=none",
        "Acquire::Retries=3",
        "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
        "Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false",
        "Debug::NoLocking=true",
    ];
    apt.args(settings.iter().flat_map(|setting| ["-o", setting]));
    apt.args(arguments);
    apt
}

impl Tree {
    fn open(root: PathBuf) -> Result<Self> {
        let mut libraries = Vec::new();
        for lib in ["usr/lib", "lib"] {
            let entries = std::fs::read_dir(root.join(lib)).into_iter().flatten().flatten();
            libraries.extend(entries.map(|entry| entry.path()).filter(|path| {
                path.is_dir() && path.file_name().is_some_and(|name| name.to_string_lossy().ends_with("-linux-gnu"))
            }));
        }
        Ok(Self { root, libraries })
    }

    /// A place within the packages.
    pub(crate) fn path(&self, place: &str) -> PathBuf {
        self.root.join(place)
    }

    /// A shared library of the packages, below the folder of such.
    pub(crate) fn library(&self, place: &str) -> Result<PathBuf> {
        let found = self.libraries.iter().map(|folder| folder.join(place)).find(|path| path.is_file());
        found.with_context(|| format!("{} has no {place}: remove that folder to fetch it again", self.root.display()))
    }

    /// The command line that starts a program of the packages, to be followed by its arguments.
    pub(crate) fn line(&self, program: &str) -> Result<Vec<OsString>> {
        let is_loader = |path: &PathBuf| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("ld-linux")) && path.is_file()
        };
        let files = self.libraries.iter().flat_map(|folder| std::fs::read_dir(folder).into_iter().flatten().flatten());
        let loader = files.map(|entry| entry.path()).find(is_loader);
        let remedy = || format!("{} has no loader: remove that folder to fetch it again", self.root.display());
        let loader = loader.with_context(remedy)?;
        let libraries = std::env::join_paths(&self.libraries).context("the cache folder's name has a colon")?;
        let program = self.root.join(program).into_os_string();
        Ok(vec![
            loader.into_os_string(),
            "--library-path".into(),
            libraries,
            "--argv0".into(),
            program.clone(),
            program,
        ])
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_says_what_it_runs() {
        let system =
            System("PRETTY_NAME=\"Debian GNU/Linux 12\"\nID_LIKE=x\nID=debian\nVERSION_CODENAME=bookworm\n".into());
        assert!(system.is_debian());
        assert_eq!(system.says("VERSION_CODENAME"), "bookworm");
        assert!(!System("ID=ubuntu\nID_LIKE=debian\n".into()).is_debian());
    }
}
