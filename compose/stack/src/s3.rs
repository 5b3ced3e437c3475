//! An object store that speaks S3: S3Proxy in front of a folder, started from its Maven jars. It knows its one user by signatures (V4), and
//! keeps conditional writes.

use crate::java::{ClassData, Installation, JavaPart, claim_class_data};
use crate::server::Server;
use crate::server::port::{self, Port};
use crate::server::probe::Probe;
use crate::server::run_folder::RunFolder;
use anyhow::{Context as _, Result};
use std::path::PathBuf;

static PART: JavaPart = JavaPart {
    name: "s3",
    pom: include_str!("../s3/pom.xml"),
    sources: &[],
    main_class: "org.gaul.s3proxy.Main",
    options: &["-Djava.awt.headless=true"],
};

const LOGGING: &str = include_str!("../s3/logback.xml");

/// A running object store. Dropping it kills it and removes what it holds.
#[derive(Debug)]
pub struct S3 {
    server: Server,
    port: Port,
    buckets: PathBuf,
}

impl S3 {
    /// The id of the key of its user.
    pub const ACCESS_KEY: &'static str = "tributary";
    /// The secret of that key.
    pub const SECRET_KEY: &'static str = "not-a-secret";

    /// Fetches its jars if needed, starts it, and waits until it answers.
    ///
    /// # Errors
    /// If the jars cannot be fetched, or it does not start; the error shows the end of its log.
    pub async fn start() -> Result<S3> {
        let (installation, class_data) = Box::pin(install()).await?;
        boot(&installation, &class_data).await
    }

    /// Its URL.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port.number)
    }

    /// Makes a bucket: the folder that has its objects, each a file of the same name.
    ///
    /// # Errors
    /// If the folder cannot be made.
    pub fn bucket(&self, name: &str) -> Result<PathBuf> {
        let folder = self.buckets.join(name);
        std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        Ok(folder)
    }

    /// Ends it with SIGKILL; what it holds stays.
    ///
    /// # Errors
    /// If its process does not go away.
    pub async fn kill(&self) -> Result<()> {
        self.server.kill().await
    }

    /// Starts it again unless it runs, and waits until it answers.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn start_again(&self) -> Result<()> {
        self.server.start_again().await
    }
}

/// Fetches what it needs; the first time, it also starts it to record its class data.
pub(crate) async fn install() -> Result<(Installation, ClassData)> {
    let installation = PART.install().await?;
    let mut class_data = claim_class_data(&installation).await?;
    if class_data.records() {
        boot(&installation, &class_data).await?.server.stop().await?;
        class_data = class_data.finish()?;
    }
    Ok((installation, class_data))
}

async fn boot(installation: &Installation, class_data: &ClassData) -> Result<S3> {
    let folder = RunFolder::make("s3", None).await?;
    let port = port::take(None)?;
    let buckets = folder.path.join("data");
    let settings = format!(
        "s3proxy.endpoint=http://127.0.0.1:{port}\ns3proxy.authorization=aws-v2-or-v4\ns3proxy.identity={user}\n\
         s3proxy.credential={secret}\njclouds.provider=filesystem-nio2\njclouds.identity=none\njclouds.credential=none\n\
         jclouds.filesystem.basedir={buckets}\n",
        port = port.number,
        user = S3::ACCESS_KEY,
        secret = S3::SECRET_KEY,
        buckets = buckets.display()
    );
    let (file, logging) = (folder.path.join("s3proxy.conf"), folder.path.join("logback.xml"));
    std::fs::create_dir_all(&buckets).with_context(|| format!("making {}", buckets.display()))?;
    std::fs::write(&file, settings).with_context(|| format!("writing {}", file.display()))?;
    std::fs::write(&logging, LOGGING).with_context(|| format!("writing {}", logging.display()))?;
    let options = [format!("-Dlogback.configurationFile={}", logging.display())];
    let launch = installation.launch("256m", class_data, &options, &["--properties".into(), file.into()]);
    let server = Server::start("s3", launch, Probe::Port(port.number), folder).await?;
    Ok(S3 { server, port, buckets })
}
