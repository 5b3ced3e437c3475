//! SCRAM as a client (RFC 5802, RFC 7677), for SASL towards Kafka.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::rand::SecureRandom as _;
use ring::{digest, hmac, pbkdf2};
use std::num::NonZeroU32;

/// The hash of a mechanism.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hash {
    Sha256,
    Sha512,
}

/// An exchange that has sent its first message.
pub(super) struct Scram {
    hash: Hash,
    password: String,
    nonce: String,
    /// The first message without its header.
    bare: String,
}

/// What a correct server proves at the end.
pub(super) struct Expected(String);

impl Scram {
    /// Begins an exchange. Errors only if the system has no randomness.
    pub fn new(hash: Hash, user: &str, password: &str) -> Result<Self, String> {
        let mut random = [0; 24];
        ring::rand::SystemRandom::new().fill(&mut random).map_err(|_| "the system has no random numbers")?;
        Ok(Self::with_nonce(hash, user, password, BASE64.encode(random)))
    }

    fn with_nonce(hash: Hash, user: &str, password: &str, nonce: String) -> Self {
        let user = user.replace('=', "=3D").replace(',', "=2C");
        let bare = format!("n={user},r={nonce}");
        Self { hash, password: password.to_owned(), nonce, bare }
    }

    /// The client's first message.
    pub fn first(&self) -> String {
        format!("n,,{}", self.bare)
    }

    /// The client's last message, and what the server must answer. `challenge` is the server's first message.
    pub fn last(self, challenge: &str) -> Result<(String, Expected), String> {
        let field = |name: &str| challenge.split(',').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
        let (Some(nonce), Some(salt), Some(rounds)) = (field("r"), field("s"), field("i")) else {
            return Err("the server's first message of SCRAM is incomplete".into());
        };
        if !nonce.starts_with(&self.nonce) {
            return Err("the server's first message of SCRAM answers somebody else".into());
        }
        let salt = BASE64.decode(salt).map_err(|_| "the server's salt is no base64")?;
        let rounds: u32 = rounds.parse().map_err(|_| "the server's number of iterations is none")?;
        // With fewer an impostor could guess the password from our proof (RFC 7677, section 4); with more it would keep us busy.
        let rounds = NonZeroU32::new(rounds).filter(|n| (4096..=1_000_000).contains(&n.get()));
        let rounds = rounds.ok_or("the server's number of iterations is out of range")?;
        let (kdf, mac, sum) = match self.hash {
            Hash::Sha256 => (pbkdf2::PBKDF2_HMAC_SHA256, hmac::HMAC_SHA256, &digest::SHA256),
            Hash::Sha512 => (pbkdf2::PBKDF2_HMAC_SHA512, hmac::HMAC_SHA512, &digest::SHA512),
        };
        let mut salted = vec![0; sum.output_len()];
        pbkdf2::derive(kdf, rounds, &salt, self.password.as_bytes(), &mut salted);
        let sign = |key: &[u8], text: &[u8]| hmac::sign(&hmac::Key::new(mac, key), text);
        let client_key = sign(&salted, b"Client Key");
        let stored = digest::digest(sum, client_key.as_ref());
        let without_proof = format!("c=biws,r={nonce}");
        let text = format!("{},{challenge},{without_proof}", self.bare);
        let signature = sign(stored.as_ref(), text.as_bytes());
        let proof: Vec<u8> = client_key.as_ref().iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
        let server_key = sign(&salted, b"Server Key");
        let expected = BASE64.encode(sign(server_key.as_ref(), text.as_bytes()));
        Ok((format!("{without_proof},p={}", BASE64.encode(proof)), Expected(expected)))
    }
}

impl Expected {
    /// Checks the server's last message: who does not know the password's hash cannot write it.
    pub fn check(&self, message: &str) -> Result<(), String> {
        match message.split(',').next().and_then(|part| part.strip_prefix("v=")) {
            Some(signature) if signature == self.0 => Ok(()),
            _ => Err("the server does not prove that it knows the password".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Hash, Scram};

    /// The example of RFC 7677, section 3.
    #[test]
    fn the_example_of_the_specification() {
        let scram = Scram::with_nonce(Hash::Sha256, "user", "pencil", "rOprNGfwEbeRWgbNEkqO".into());
        assert_eq!(scram.first(), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let challenge = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let (last, expected) = scram.last(challenge).unwrap();
        assert_eq!(
            last,
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        expected.check("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=").unwrap();
        expected.check("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G5=").unwrap_err();
        expected.check("e=other-error").unwrap_err();
    }

    #[test]
    fn a_challenge_for_somebody_else_is_refused() {
        for challenge in ["", "r=x,s=,i=1", "r=mine1,s=!,i=1", "r=mine1,s=,i=4095", "r=mine1,s=,i=4000000000"] {
            let scram = Scram::with_nonce(Hash::Sha512, "u", "p", "mine".into());
            assert!(scram.last(challenge).is_err(), "{challenge}");
        }
    }
}
