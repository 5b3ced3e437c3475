//! Signatures of Standard Webhooks: HMAC-SHA256 over id, time and body, one for each secret.
//!
//! Reference: Standard Webhooks 1.0.0, "Signature scheme" (symmetric, `v1`).

use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use base64::engine::{DecodePaddingMode, GeneralPurposeConfig as Config};
use ring::hmac::{self, Context, HMAC_SHA256};
use tributary_dsl::plan::Secret;

/// What a secret begins with whose rest is base64.
const PREFIX: &str = "whsec_";
/// Base64 whose padding may be missing.
const LENIENT: GeneralPurpose = {
    let config: GeneralPurposeConfig = Config::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    GeneralPurpose::new(&base64::alphabet::STANDARD, config)
};

/// The keys of a webhook, the newest first.
pub(super) struct Keys(Vec<hmac::Key>);

impl Keys {
    /// Reads secrets. `Err`: what is wrong with one of them, without showing it.
    pub(super) fn new(secrets: &[Secret]) -> Result<Self, String> {
        let key = |secret: &Secret| {
            let text = secret.reveal();
            let bytes = match text.strip_prefix(PREFIX) {
                Some(rest) => LENIENT.decode(rest).map_err(|_| {
                    format!(
                        "a secret begins with {PREFIX}, and what follows is no base64; copy it again from the receiver"
                    )
                })?,
                None => text.as_bytes().to_vec(),
            };
            if bytes.is_empty() {
                return Err("a secret is empty; set one, or remove it to send without a signature".to_owned());
            }
            Ok(hmac::Key::new(HMAC_SHA256, &bytes))
        };
        secrets.iter().map(key).collect::<Result<_, _>>().map(Self)
    }

    /// The value of `webhook-signature`; none without secrets.
    pub(super) fn sign(&self, id: &str, seconds: u64, body: &[u8]) -> Option<String> {
        let sign = |key: &hmac::Key| {
            let mut context = Context::with_key(key);
            context.update(format!("{id}.{seconds}.").as_bytes());
            context.update(body);
            format!("v1,{}", STANDARD.encode(context.sign()))
        };
        let signatures: Vec<String> = self.0.iter().map(sign).collect();
        (!signatures.is_empty()).then(|| signatures.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sign(secrets: &[&str]) -> Option<String> {
        let secrets: Vec<Secret> = secrets.iter().map(|text| Secret::new(*text)).collect();
        let keys = Keys::new(&secrets).expect("keys");
        keys.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#)
    }

    #[test]
    fn the_signature_is_the_one_of_the_specification() {
        const KNOWN: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        let known = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        assert_eq!(sign(&[known]).as_deref(), Some(KNOWN));
        let both = sign(&["the new one", known]).expect("signed");
        let (new, old) = both.split_once(' ').expect("two signatures");
        assert_eq!((old, Some(new)), (KNOWN, sign(&["the new one"]).as_deref()));
        assert_ne!(new, old);
        assert_eq!(sign(&[]), None);
    }

    #[test]
    fn secrets_that_cannot_be_used_are_refused_without_showing_them() {
        let refused = |text: &str| Keys::new(&[Secret::new(text)]).err().expect("refused");
        let error = refused("whsec_hunter2!");
        assert!(error.contains("base64") && !error.contains("hunter2"), "{error}");
        assert!(refused("").contains("empty") && refused("whsec_").contains("empty"));
        // A key whose padding was lost on the way is the same key.
        assert_eq!(sign(&["whsec_YWI="]), sign(&["whsec_YWI"]));
        assert_eq!(sign(&["whsec_YWI"]), sign(&["ab"]));
    }
}
