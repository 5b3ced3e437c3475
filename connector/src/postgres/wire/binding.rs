//! Channel binding: proof that the server that knows the password is the one at the end of the TLS connection.
//!
//! Reference: RFC 5929, 4.1 (`tls-server-end-point`); PostgreSQL documentation, "SASL Authentication".

use ring::digest::{Algorithm, SHA256, SHA384, SHA512, digest};
use x509_cert::Certificate;
use x509_cert::der::Decode as _;

/// The hash of the server's certificate, by the hash function of its signature; none where that has none (Ed25519).
pub(in crate::postgres) fn end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let parsed = Certificate::from_der(certificate).ok()?;
    let algorithm = hash_of(&parsed.signature_algorithm.oid.to_string())?;
    Some(digest(algorithm, certificate).as_ref().to_vec())
}

fn hash_of(signature: &str) -> Option<&'static Algorithm> {
    match signature {
        // RSA with MD5 or SHA-1 (which are replaced by SHA-256), RSA and ECDSA with SHA-256.
        "1.2.840.113549.1.1.4" | "1.2.840.113549.1.1.5" | "1.2.840.10045.4.1" => Some(&SHA256),
        "1.2.840.113549.1.1.11" | "1.2.840.10045.4.3.2" => Some(&SHA256),
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => Some(&SHA384),
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => Some(&SHA512),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn arbitrary_bytes_are_no_certificate(bytes: Vec<u8>) {
            prop_assert_eq!(end_point(&bytes), None);
        }
    }
}
