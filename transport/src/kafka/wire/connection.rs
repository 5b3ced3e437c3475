//! One connection to a broker: requests go out one behind the other, answers come back in their order.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use rdkafka::error::RDKafkaErrorCode as Code;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tributary_event::ErrorClass;

use super::codec::{Body, Put, Reply};
use super::request::{api_versions, authenticate, handshake, read_api_versions, read_authenticate, read_handshake};
use super::scram::Scram;
use super::security::{Login, Mechanism, Security};
use super::version::{
    API_VERSIONS, Api, NEEDED, SASL_AUTHENTICATE, SASL_HANDSHAKE, Spoken, UNSUPPORTED_VERSION, Versions,
};

/// How long a connection may take until it can be used.
const OPEN: Duration = Duration::from_secs(10);
/// How long a piece of a request may take until it is sent.
const STILL: Duration = Duration::from_secs(30);
/// Bytes of such a piece.
const PIECE: usize = 64 << 10;
/// The largest answer that is read; the largest that brokers give is their metadata.
const ANSWER: u32 = 64 << 20;

fn still() -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::TimedOut, format!("nothing of a request could be sent for {STILL:?}"))
}

/// A connection that cannot be used, or not any more.
#[derive(Debug)]
pub(in crate::kafka) struct Broken {
    /// The broker and we have no version of a request in common.
    pub code: Option<Code>,
    pub class: ErrorClass,
    pub text: String,
}

impl Broken {
    fn lost(cause: impl fmt::Display) -> Self {
        Self { code: None, class: ErrorClass::Transient, text: cause.to_string() }
    }

    /// A certificate that either side does not trust stays so; anything else may pass.
    fn failed(error: std::io::Error) -> Self {
        use rustls::AlertDescription as Alert;
        match error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::InvalidCertificate(_)) => {
                Self::refused(format!("{error}; check ssl.ca.location and the broker's name"))
            }
            Some(rustls::Error::AlertReceived(
                Alert::CertificateRequired
                | Alert::UnknownCA
                | Alert::BadCertificate
                | Alert::CertificateExpired
                | Alert::CertificateRevoked
                | Alert::CertificateUnknown
                | Alert::AccessDenied,
            )) => Self::refused(format!("{error}; check ssl.certificate.location and ssl.key.location")),
            _ => Self::lost(error),
        }
    }

    fn refused(text: impl Into<String>) -> Self {
        Self { code: None, class: ErrorClass::Fatal, text: text.into() }
    }

    pub(super) fn short() -> Self {
        Self::nonsense("an answer ends too early")
    }

    pub(super) fn nonsense(text: &str) -> Self {
        Self::lost(format!("{text}; is this a Kafka broker?"))
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for T {}

pub(in crate::kafka) struct Connection {
    stream: Box<dyn Stream>,
    client: String,
    versions: Versions,
    next: i32,
    /// Requests without an answer yet.
    asked: VecDeque<(i32, Spoken)>,
    /// When the broker will close it because the login is too old.
    expires: Option<Instant>,
}

impl Connection {
    /// Connects, and logs in if that is wanted. An error names the broker.
    pub async fn open(host: &str, port: u16, security: &Security, client: &str) -> Result<Self, Broken> {
        let opened = timeout(OPEN, Self::start(host, port, security, client)).await;
        let opened = opened.unwrap_or_else(|_| Err(Broken::lost(format!("no connection within {OPEN:?}"))));
        opened.map_err(|broken| Broken { text: format!("{host}:{port}: {broken}"), ..broken })
    }

    async fn start(host: &str, port: u16, security: &Security, client: &str) -> Result<Self, Broken> {
        let tcp = TcpStream::connect((host, port)).await.map_err(Broken::lost)?;
        tcp.set_nodelay(true).map_err(Broken::lost)?;
        let stream: Box<dyn Stream> = match &security.tls {
            None => Box::new(tcp),
            Some(config) => {
                let name = ServerName::try_from(host.to_owned()).map_err(|e| Broken::refused(e.to_string()))?;
                let tls = TlsConnector::from(config.clone()).connect(name, tcp).await;
                Box::new(tls.map_err(Broken::failed)?)
            }
        };
        let mut new = Self {
            stream,
            client: client.to_owned(),
            versions: Versions::untold(),
            next: 0,
            asked: VecDeque::new(),
            expires: None,
        };
        new.negotiate().await?;
        if let Some(login) = &security.login {
            new.log_in(login).await?;
        }
        Ok(new)
    }

    /// Asks the broker for its versions: again if it does not know the version of the question itself.
    async fn negotiate(&mut self) -> Result<(), Broken> {
        for again in [true, false] {
            let (code, versions) = read_api_versions(&self.ask(API_VERSIONS, api_versions).await?)?;
            self.versions = versions;
            match code {
                0 => break,
                UNSUPPORTED_VERSION if again => {}
                code => return Err(Broken::nonsense(&format!("the broker does not tell its versions (error {code})"))),
            }
        }
        NEEDED.into_iter().try_for_each(|api| self.versions.choose(api).map(drop))
    }

    async fn log_in(&mut self, login: &Login) -> Result<(), Broken> {
        let name = login.mechanism.name();
        let answer = self.ask(SASL_HANDSHAKE, |out| handshake(out, name)).await?;
        let (code, offered) = read_handshake(&answer)?;
        if code != 0 {
            let offered = offered.join(", ");
            return Err(Broken::refused(format!("the broker offers no {name}, but {offered}; set sasl.mechanism")));
        }
        match login.mechanism {
            Mechanism::Plain => {
                let token = format!("\0{}\0{}", login.user, login.password);
                self.authenticate(token.as_bytes()).await?;
            }
            Mechanism::Scram(hash) => {
                let scram = Scram::new(hash, &login.user, &login.password).map_err(Broken::refused)?;
                let challenge = self.authenticate(scram.first().as_bytes()).await?;
                let (last, expected) = scram.last(&challenge).map_err(Broken::refused)?;
                let proof = self.authenticate(last.as_bytes()).await?;
                expected.check(&proof).map_err(Broken::refused)?;
            }
        }
        Ok(())
    }

    /// One step of a login.
    async fn authenticate(&mut self, bytes: &[u8]) -> Result<String, Broken> {
        let answer = self.ask(SASL_AUTHENTICATE, |out| authenticate(out, bytes)).await?;
        let answer = read_authenticate(&answer)?;
        if answer.code != 0 {
            let text = format!("login failed: {}; check sasl.username and sasl.password", answer.message);
            return Err(Broken::refused(text));
        }
        if let Ok(lifetime @ 1..) = u64::try_from(answer.lifetime_ms) {
            // A new one is made in time.
            self.expires = Some(Instant::now() + Duration::from_millis(lifetime / 10 * 8));
        }
        Ok(String::from_utf8_lossy(&answer.bytes).into_owned())
    }

    /// Requests without an answer yet.
    pub fn waiting(&self) -> usize {
        self.asked.len()
    }

    /// Whether nothing is under way and the broker has not closed it meanwhile.
    pub async fn is_fresh(&mut self) -> bool {
        if !self.asked.is_empty() || self.expires.is_some_and(|at| at <= Instant::now()) {
            return false;
        }
        let mut byte = [0];
        let read = std::pin::pin!(self.stream.read(&mut byte));
        // Whatever it has to say, the end or more than was asked for, it cannot be used.
        futures::poll!(read).is_pending()
    }

    pub async fn send(&mut self, api: Api, body: impl FnOnce(&mut Body<'_>)) -> Result<(), Broken> {
        let spoken = self.versions.choose(api)?;
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        let mut out = Vec::with_capacity(256);
        out.i32(0); // length
        out.i16(spoken.key);
        out.i16(spoken.version);
        out.i32(number);
        out.string(&self.client);
        if spoken.flexible {
            out.unsigned(0); // no tagged fields
        }
        body(&mut Body::new(&mut out, spoken));
        let length = i32::try_from(out.len() - 4).map_err(|_| Broken::refused("a request is larger than 2 GB"))?;
        out[..4].copy_from_slice(&length.to_be_bytes());
        self.asked.push_back((number, spoken));
        // What is large may take long; what stands still does not go on.
        for piece in out.chunks(PIECE) {
            let written = timeout(STILL, self.stream.write_all(piece)).await;
            written.unwrap_or_else(|_| Err(still())).map_err(Broken::failed)?;
        }
        timeout(STILL, self.stream.flush()).await.unwrap_or_else(|_| Err(still())).map_err(Broken::failed)
    }

    /// The next answer.
    pub async fn receive(&mut self) -> Result<Reply, Broken> {
        let Some((number, spoken)) = self.asked.front().copied() else {
            return Err(Broken::nonsense("an answer without a request"));
        };
        let length = self.stream.read_u32().await.map_err(Broken::failed)?;
        if !(4..=ANSWER).contains(&length) {
            return Err(Broken::nonsense(&format!("an answer of {length} bytes")));
        }
        if self.stream.read_i32().await.map_err(Broken::failed)? != number {
            return Err(Broken::nonsense("an answer to another request"));
        }
        let mut answer = Vec::new();
        let rest = u64::from(length - 4);
        // The buffer grows with what arrives, not with what was announced.
        let read = (&mut self.stream).take(rest).read_to_end(&mut answer).await.map_err(Broken::failed)?;
        if read as u64 != rest {
            return Err(Broken::lost("the broker closed the connection"));
        }
        self.asked.pop_front();
        Reply::new(answer, spoken)
    }

    pub async fn ask(&mut self, api: Api, body: impl FnOnce(&mut Body<'_>)) -> Result<Reply, Broken> {
        self.send(api, body).await?;
        self.receive().await
    }
}
