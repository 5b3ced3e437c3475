//! Logging in: handshake, TLS, and the ways to prove a password.
//!
//! Reference: MySQL Source Code Documentation, "Connection Phase"; MariaDB Knowledge Base, "Connection" and "Authentication Plugin - ed25519".

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mysql_common::crypto::encrypt;
use mysql_common::scramble::{
    create_response_for_ed25519, create_response_for_parsec, scramble_native, scramble_sha256,
};
use rustls::pki_types::{CertificateDer, ServerName};
use x509_cert::der::Decode as _;
use x509_cert::der::asn1::UintRef;
use x509_cert::spki::SubjectPublicKeyInfoRef;

use super::super::cursor::{Cursor, Malformed};
use super::Wire;
use super::failure::{ServerError, untrusted};
use crate::error::ConnectorError;
use crate::net::tls::TlsMode;
use crate::net::{Socket, Stream};

const LOGGING_IN: &str = "logging in";
const PARSEC: &str = "parsec";
/// What we can, and want: long passwords and flags, the protocol of 4.1, transactions, and methods by their names.
const CAPABILITIES: u32 = 0x1 | 0x4 | 0x200 | 0x2000 | 0x8000 | 0x8_0000 | 0x20_0000;
const TLS: u32 = 0x800;
/// The largest packet that we take.
const LARGEST: u32 = 1 << 30;
/// utf8mb4_general_ci.
const COLLATION: u8 = 45;

/// What the server says first.
pub(super) struct Greeting {
    capabilities: u32,
    nonce: Vec<u8>,
    method: String,
}

pub(super) fn greeting(packet: &[u8]) -> Result<Greeting, Malformed> {
    let mut cursor = Cursor(packet);
    if cursor.u8()? != 10 {
        return Err(Malformed("it speaks another version of the protocol"));
    }
    cursor.until_zero();
    cursor.u32()?;
    let mut nonce = cursor.take(8)?.to_vec();
    cursor.u8()?;
    let low = cursor.u16()?;
    cursor.take(3)?;
    let high = cursor.u16()?;
    let length = usize::from(cursor.u8()?);
    cursor.take(10)?;
    nonce.extend_from_slice(cursor.take(length.saturating_sub(8).max(13))?);
    nonce.truncate(20);
    let method = String::from_utf8_lossy(cursor.until_zero()).into_owned();
    Ok(Greeting { capabilities: u32::from(high) << 16 | u32::from(low), nonce, method })
}

impl Wire {
    /// What the server says first.
    async fn greeted(&mut self) -> Result<Greeting, ConnectorError> {
        let packet = self.packet().await?;
        if let Some((0xff, error)) = packet.split_first() {
            return Err(ServerError::read(error).classify(&self.endpoint, LOGGING_IN));
        }
        greeting(&packet).map_err(|e| {
            let place = format!("url of the source ({})", self.endpoint.place());
            ConnectorError::settings(
                place,
                format!("what answers there is no MySQL server: {e}"),
                "check host and port",
            )
        })
    }

    /// The certificate that the server shows, which is checked; none: it has no TLS.
    pub(super) async fn shown(&mut self) -> Result<Option<CertificateDer<'static>>, ConnectorError> {
        let greeting = self.greeted().await?;
        self.secure(&greeting).await?;
        let Stream::Tls(stream) = &self.stream else { return Ok(None) };
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        Ok(chain.first().map(|certificate| certificate.clone().into_owned()))
    }

    pub(super) async fn log_in(&mut self) -> Result<(), ConnectorError> {
        let greeting = self.greeted().await?;
        let secured = self.secure(&greeting).await?;
        let user = self.endpoint.user.clone();
        let (mut method, mut nonce) = (greeting.method, greeting.nonce);
        let proof = self.proof(&method, &nonce).unwrap_or_default();
        let mut content = head(if secured { CAPABILITIES | TLS } else { CAPABILITIES });
        content.extend_from_slice(user.as_bytes());
        content.push(0);
        // Shorter than 251 bytes, whatever the method.
        content.push(proof.len() as u8);
        content.extend_from_slice(&proof);
        content.extend_from_slice(method.as_bytes());
        content.push(0);
        self.send(&content).await?;
        loop {
            let packet = self.packet().await?;
            match packet.split_first() {
                Some((0, _)) => return Ok(()),
                Some((0xff, error)) => return Err(ServerError::read(error).classify(&self.endpoint, LOGGING_IN)),
                Some((0xfe, rest)) => {
                    let mut cursor = Cursor(rest);
                    method = String::from_utf8_lossy(cursor.until_zero()).into_owned();
                    nonce = nonce_of(cursor.0).to_vec();
                    let proof = self.proof(&method, &nonce).ok_or_else(|| self.unsupported(&method))?;
                    self.send(&proof).await?;
                }
                Some((b'P', salt) | (1, [b'P', salt @ ..])) if method == PARSEC => {
                    let proof = self.signed(&nonce, salt)?;
                    self.send(&proof).await?;
                }
                // The password is known already; `OK` follows.
                Some((1, [3])) => {}
                Some((1, [4])) if secured => {
                    let password = self.password();
                    self.send(&password).await?;
                }
                Some((1, [4])) => self.encrypted(&nonce).await?,
                _ => return Err(self.unexpected("an answer to the login that is none")),
            }
        }
    }

    /// Asks for TLS as the mode says; whether it was established.
    async fn secure(&mut self, greeting: &Greeting) -> Result<bool, ConnectorError> {
        let Some(config) = self.endpoint.trust().config()? else { return Ok(false) };
        if greeting.capabilities & TLS == 0 {
            if self.endpoint.trust().mode == TlsMode::Prefer {
                return Ok(false);
            }
            return Err(ConnectorError::Authentication {
                place: self.endpoint.place(),
                cause: "ssl-mode asks for TLS, and the server offers none".into(),
                remedy: "give the server a certificate (ssl_cert, ssl_key), or lower ssl-mode in the source's url"
                    .into(),
            });
        }
        self.send(&head(CAPABILITIES | TLS)).await?;
        let place = self.endpoint.place();
        let name =
            ServerName::try_from(self.endpoint.host.clone()).map_err(|e| untrusted(&self.endpoint, e.to_string()))?;
        let Stream::Plain(socket) = std::mem::replace(&mut self.stream, Stream::Plain(Socket::Lost)) else {
            return Err(self.unexpected("a connection that is secured already"));
        };
        match tokio_rustls::TlsConnector::from(config).connect(name, socket).await {
            Ok(stream) => self.stream = Stream::Tls(Box::new(stream)),
            Err(error) if error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) => {
                return Err(untrusted(&self.endpoint, error.to_string()));
            }
            // The server went away meanwhile.
            Err(error) => return Err(ConnectorError::unreachable(place, error)),
        }
        Ok(true)
    }

    /// What proves the password by a method; none: the method is not known.
    fn proof(&self, method: &str, nonce: &[u8]) -> Option<Vec<u8>> {
        let password = self.endpoint.password.expose().as_bytes();
        Some(match method {
            "mysql_native_password" => scramble_native(nonce, password).map_or_else(Vec::new, |proof| proof.to_vec()),
            "caching_sha2_password" => scramble_sha256(nonce, password).map_or_else(Vec::new, |proof| proof.to_vec()),
            "client_ed25519" => create_response_for_ed25519(password, nonce).to_vec(),
            // The server tells the salt when it is asked, by nothing.
            PARSEC => Vec::new(),
            _ => return None,
        })
    }

    /// The server's nonce and one of ours, signed with a key that is made of the password and its salt.
    fn signed(&self, nonce: &[u8], salt: &[u8]) -> Result<Vec<u8>, ConnectorError> {
        let nonce: &[u8; 32] = nonce.try_into().map_err(|_| self.unexpected("a nonce of parsec that is none"))?;
        let (rounds, salt) = parsec_salt(salt).ok_or_else(|| self.unexpected("a salt of parsec that is none"))?;
        let password = self.endpoint.password.expose().as_bytes();
        Ok(create_response_for_parsec(password, nonce, rounds, salt).to_vec())
    }

    /// The password itself, with its end.
    fn password(&self) -> Vec<u8> {
        let mut password = self.endpoint.password.expose().as_bytes().to_vec();
        password.push(0);
        password
    }

    /// Sends the password, encrypted for the server's key.
    async fn encrypted(&mut self, nonce: &[u8]) -> Result<(), ConnectorError> {
        self.send(&[2]).await?;
        let packet = self.packet().await?;
        let key = match packet.split_first() {
            Some((1, key)) => key,
            Some((0xff, error)) => return Err(ServerError::read(error).classify(&self.endpoint, LOGGING_IN)),
            _ => return Err(self.unexpected("a key that is none")),
        };
        let mut password = self.password();
        for (byte, mask) in password.iter_mut().zip(nonce.iter().cycle()) {
            *byte ^= mask;
        }
        let sealed = sealed(&password, key).ok_or_else(|| self.unexpected("a key that is none"))?;
        self.send(&sealed).await
    }

    fn unsupported(&self, method: &str) -> ConnectorError {
        ConnectorError::Authentication {
            place: self.endpoint.place(),
            cause: format!("it asks for the method {method:?}"),
            remedy: "give the user caching_sha2_password, mysql_native_password, ed25519 or parsec".into(),
        }
    }
}

/// The nonce of a method that the server changes to. Those of 20 bytes, which have no zeros, are followed by one.
pub(super) fn nonce_of(data: &[u8]) -> &[u8] {
    match data {
        [nonce @ .., 0] if data.len() != 32 => nonce,
        _ => data,
    }
}

/// A password that is encrypted for a server's key; none: that is no key of RSA, or one that this cannot be encrypted for.
pub(super) fn sealed(password: &[u8], key: &[u8]) -> Option<Vec<u8>> {
    // What the padding takes, and twice what servers may have.
    const PADDING: usize = 2 * 20 + 2;
    const LARGEST: usize = 2 * 16_384 / 8;
    let body = key.strip_prefix(b"-----BEGIN PUBLIC KEY-----")?;
    let end = memchr::memmem::find(body, b"-----END PUBLIC KEY-----")?;
    let body: Vec<u8> = body[..end].iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let content = STANDARD.decode(&body).ok()?;
    let key = SubjectPublicKeyInfoRef::from_der(&content).ok()?;
    let [modulus, exponent] = <[UintRef<'_>; 2]>::from_der(key.subject_public_key.as_bytes()?).ok()?;
    let (bytes, odd) = (modulus.as_bytes(), modulus.as_bytes().last().is_some_and(|last| last & 1 == 1));
    let fits = odd && (password.len() + PADDING + 1..=LARGEST).contains(&bytes.len()) && exponent.as_bytes().len() <= 8;
    // It is written anew, so that it is read as it was here.
    fits.then(|| encrypt(password, &pem(&content)))
}

fn pem(content: &[u8]) -> Vec<u8> {
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----", STANDARD.encode(content)).into_bytes()
}

/// What follows the method's letter: the rounds by which the key is made, and the salt.
pub(super) fn parsec_salt(data: &[u8]) -> Option<(u32, &[u8; 18])> {
    let (factor, salt) = data.split_first()?;
    // Eight times what the server can be asked for, and no work without end.
    (*factor <= 6).then_some(())?;
    Some((1024 << factor, salt.try_into().ok()?))
}

/// What begins an answer to the greeting.
fn head(capabilities: u32) -> Vec<u8> {
    let mut head = capabilities.to_le_bytes().to_vec();
    head.extend_from_slice(&LARGEST.to_le_bytes());
    head.push(COLLATION);
    head.extend_from_slice(&[0; 23]);
    head
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_greeting_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let mut packet = vec![10];
            packet.extend_from_slice(&bytes);
            let _ = (greeting(&bytes), greeting(&packet));
            let _ = (nonce_of(&bytes), parsec_salt(&bytes));
        }
    }

    #[test]
    fn a_nonce_ends_with_a_zero_of_its_own_or_with_one_that_is_no_part_of_it() {
        let (mut short, mut long) = ([7; 21], [7; 32]);
        (short[20], long[31]) = (0, 0);
        assert_eq!((nonce_of(&short).len(), nonce_of(&long).len()), (20, 32));
        assert_eq!(nonce_of(&[&long[..], &[0]].concat()), long);
    }

    #[test]
    fn a_password_is_sealed_for_keys_alone_that_it_fits() {
        let key = "-----BEGIN PUBLIC KEY-----\n\
             MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDGTm3kh2sBHAwuAB7jf+WlmW7f\n\
             ZlLqD8JSjTjg9l8aI8d4xDcrPs6sHQVTwREWqmTSA3UZXm2uLW/rpDK6FIw9FZx4\n\
             uhLbHVoObbyDDMKcxzGDnIHcKsVlr+iCj8um7FZmnIQj94TiVl5+DodyWwfY89xN\n\
             okXKpki16bpFUG8euwIDAQAB\n\
             -----END PUBLIC KEY-----";
        assert_eq!(sealed(&[7; 80], key.as_bytes()).map(|sealed| sealed.len()), Some(128));
        assert_eq!(sealed(&[7; 90], key.as_bytes()), None, "it is longer than the key lets it be");
        for cut in 0..key.len() {
            assert_eq!(sealed(b"x", &key.as_bytes()[..cut]), None, "{cut}");
        }
        let body = |content: &[u8]| sealed(b"x", &pem(content));
        assert_eq!((body(b""), body(&[0x30, 0x84]), body(&[0x30, 3, 2, 1, 0])), (None, None, None));
    }

    #[test]
    fn rounds_have_a_limit() {
        let salt = |factor: u8| [&[factor][..], &[9; 18]].concat();
        assert_eq!(parsec_salt(&salt(3)), Some((8192, &[9; 18])));
        assert_eq!((parsec_salt(&salt(7)), parsec_salt(&salt(3)[..18])), (None, None));
    }
}
