//! Kafka with TLS and logins: our protocol and librdkafka read the same properties, and what only librdkafka does goes through it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD, Engine as _};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tributary_event::ErrorClass;
use tributary_stack::{Authority, KafkaOptions};
use tributary_transport::{Appending, Kafka, KafkaSettings, Purpose, Transport, TransportError};

use crate::tools::{Bench, kafka_options, values};

const LOGIN: usize = 0;
const MUTUAL: usize = 1;

struct World {
    brokers: tributary_stack::Kafka,
    folder: tempfile::TempDir,
    ours: Authority,
    other: Authority,
}

impl World {
    /// A broker with one listener for logins and one for clients with certificates, both with TLS.
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [ours, other] = ["ours", "other"].map(|name| Authority::new(folder.path(), name).unwrap());
        let (certificate, key) = ours.sign("127.0.0.1").unwrap();
        let line = |pem: &str| pem.replace("\r\n", "\n").replace('\n', "\\n");
        let listener = |listener: &str, name: &str| format!("listener.name.{listener}.{name}");
        let module = "org.apache.kafka.common.security";
        let scram = format!("{module}.scram.ScramLoginModule required;");
        let bearer =
            format!("{module}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub=\"broker\";");
        let plain = format!("{module}.plain.PlainLoginModule required user_tom=\"s3cret\";");
        let settings = [
            ("sasl.enabled.mechanisms".to_owned(), "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER".to_owned()),
            (listener("login", "plain.sasl.jaas.config"), plain),
            (listener("login", "scram-sha-256.sasl.jaas.config"), scram.clone()),
            (listener("login", "scram-sha-512.sasl.jaas.config"), scram),
            (listener("login", "oauthbearer.sasl.jaas.config"), bearer),
            (listener("mutual", "ssl.client.auth"), "required".to_owned()),
            ("ssl.keystore.type".to_owned(), "PEM".to_owned()),
            ("ssl.keystore.certificate.chain".to_owned(), line(&certificate)),
            ("ssl.keystore.key".to_owned(), line(&key)),
            ("ssl.truststore.type".to_owned(), "PEM".to_owned()),
            ("ssl.truststore.certificates".to_owned(), line(&std::fs::read_to_string(ours.file()).unwrap())),
        ];
        let listeners = [("LOGIN", "SASL_SSL"), ("MUTUAL", "SSL")];
        let options = KafkaOptions {
            settings: settings.into(),
            listeners: listeners.map(|(name, protocol)| (name.to_owned(), protocol.to_owned())).into(),
            users: vec![("tom".to_owned(), "s3cret".to_owned())],
            ..kafka_options()
        };
        Self { brokers: tributary_stack::Kafka::start(options).await.unwrap(), folder, ours, other }
    }

    async fn refused(&self, listener: usize, properties: &[(&str, &str)]) -> TransportError {
        let mut settings = KafkaSettings::single_broker(self.brokers.further(listener).unwrap());
        settings.properties = properties.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        match Kafka::connect(settings) {
            Ok(kafka) => kafka.producer("refused", Purpose::Source).await.err().expect("it is refused"),
            Err(error) => error,
        }
    }

    /// Writes in either way, where our protocol can, and reads with librdkafka.
    async fn works(&self, case: &str, listener: usize, properties: &[(&str, &str)]) {
        for appending in [Appending::Fitting, Appending::Library] {
            let mut settings = KafkaSettings::single_broker(self.brokers.further(listener).unwrap());
            settings.properties = properties.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
            settings.appending = appending;
            let bench = Bench::new(Arc::new(Kafka::connect(settings).unwrap()), case);
            let topic = bench.topic("t", 2).await;
            let mut producer = bench.producer().await;
            bench.append(&mut producer, &topic, &[("k", "one"), ("k", "two")]).await;
            assert_eq!(values(&bench.all(&topic).await), ["one", "two"], "{case}");
        }
    }
}

/// An identity provider: answers whoever asks as the client `tributary` with a token for tom, which has no signature, for the broker of
/// this test trusts those. Its address, and how often it gave one.
async fn token_endpoint() -> (String, Arc<AtomicUsize>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}/token", listener.local_addr().unwrap());
    let given = Arc::new(AtomicUsize::new(0));
    let count = given.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut stream = BufReader::new(stream);
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") && stream.read_line(&mut head).await.unwrap() > 0 {}
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
            let claims = format!(r#"{{"sub":"tom","iat":{now},"exp":{}}}"#, now + 60);
            let encoded = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
            let token = format!("{}.{}.", encoded(r#"{"alg":"none"}"#), encoded(&claims));
            // The client says who it is by basic authentication.
            let known = head.contains(&BASE64_STANDARD.encode("tributary:s3cret"));
            let (status, body) = match known {
                true => ("200 OK", format!(r#"{{"access_token":"{token}","token_type":"Bearer","expires_in":60}}"#)),
                false => ("401 Unauthorized", r#"{"error":"invalid_client"}"#.to_owned()),
            };
            count.fetch_add(usize::from(known), Ordering::AcqRel);
            let head = format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\n");
            let answer = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
            stream.get_mut().write_all(answer.as_bytes()).await.unwrap();
            let _ = stream.get_mut().shutdown().await;
        }
    });
    (endpoint, given)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_logins_and_certificates_are_checked_on_both_sides() {
    let world = World::start().await;
    let authority = world.ours.file().to_str().unwrap();
    let base = [("security.protocol", "sasl_ssl"), ("ssl.ca.location", authority), ("sasl.username", "tom")];
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let right = [base.as_slice(), &[("sasl.mechanism", mechanism), ("sasl.password", "s3cret")]].concat();
        world.works(mechanism, LOGIN, &right).await;
        let wrong = [base.as_slice(), &[("sasl.mechanism", mechanism), ("sasl.password", "wrong")]].concat();
        let error = world.refused(LOGIN, &wrong).await;
        assert_eq!(error.class, ErrorClass::Fatal, "{error}");
        assert!(error.to_string().contains("check sasl.username and sasl.password"), "{error}");
        assert!(!error.to_string().contains("wrong"), "{error}");
    }

    // Tokens, which only librdkafka makes; these have no signature.
    let token = [("sasl.mechanism", "OAUTHBEARER"), ("enable.sasl.oauthbearer.unsecure.jwt", "true")];
    let token = [&base[..2], &token, &[("sasl.oauthbearer.config", "principal=tom")]].concat();
    world.works("token", LOGIN, &token).await;
    let (endpoint, asked) = token_endpoint().await;
    let provider = [
        ("sasl.mechanism", "OAUTHBEARER"),
        ("sasl.oauthbearer.method", "oidc"),
        ("sasl.oauthbearer.token.endpoint.url", endpoint.as_str()),
        ("sasl.oauthbearer.client.id", "tributary"),
        ("sasl.oauthbearer.client.secret", "s3cret"),
    ];
    world.works("oidc", LOGIN, &[&base[..2], &provider].concat()).await;
    assert!(asked.load(Ordering::Acquire) > 0, "nobody asked for a token");
    let login = [("sasl.mechanism", "PLAIN"), ("sasl.username", "tom"), ("sasl.password", "s3cret")];
    let stranger = world.other.file().to_str().unwrap();
    let untrusted = [login.as_slice(), &[("security.protocol", "SASL_SSL"), ("ssl.ca.location", stranger)]].concat();
    let error = world.refused(LOGIN, &untrusted).await;
    assert_eq!(error.class, ErrorClass::Fatal, "{error}");
    assert!(error.to_string().contains("ssl.ca.location"), "{error}");
    let unchecked = [untrusted.as_slice(), &[("enable.ssl.certificate.verification", "false")]].concat();
    world.works("unchecked", LOGIN, &unchecked).await;

    let (certificate, key) = world.ours.sign("tom").unwrap();
    let file = |name: &str, text: &str| {
        let path = world.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (certificate, key) = (file("tom.crt", &certificate), file("tom.key", &key));
    let tls = [("security.protocol", "ssl"), ("ssl.ca.location", authority)];
    let certified =
        [tls.as_slice(), &[("ssl.certificate.location", &certificate), ("ssl.key.location", &key)]].concat();
    world.works("certified", MUTUAL, &certified).await;
    let inline = (std::fs::read_to_string(&certificate).unwrap(), std::fs::read_to_string(&key).unwrap());
    let inline = [tls.as_slice(), &[("ssl.certificate.pem", &inline.0), ("ssl.key.pem", &inline.1)]].concat();
    world.works("inline", MUTUAL, &inline).await;
    // What only librdkafka does.
    let openssl = |arguments: &[&str]| {
        let done = std::process::Command::new("openssl").args(arguments).output().expect("openssl runs");
        assert!(done.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    };
    let path = |name: &str| world.folder.path().join(name).to_str().unwrap().to_owned();
    let (locked, store) = (path("locked.key"), path("tom.p12"));
    openssl(&["pkcs8", "-topk8", "-in", &key, "-out", &locked, "-passout", "pass:open"]);
    openssl(&["pkcs12", "-export", "-in", &certificate, "-inkey", &key, "-out", &store, "-passout", "pass:open"]);
    let locked = [("ssl.certificate.location", certificate.as_str()), ("ssl.key.location", &locked)];
    let unlocked = [tls.as_slice(), &locked, &[("ssl.key.password", "open")]].concat();
    world.works("locked-key", MUTUAL, &unlocked).await;
    let store = [("ssl.keystore.location", store.as_str()), ("ssl.keystore.password", "open")];
    world.works("keystore", MUTUAL, &[tls.as_slice(), &store].concat()).await;
    let ciphers = [certified.as_slice(), &[("ssl.cipher.suites", "ECDHE-ECDSA-AES256-GCM-SHA384")]].concat();
    world.works("ciphers", MUTUAL, &ciphers).await;
    let kerberos = [("security.protocol", "sasl_plaintext"), ("sasl.mechanism", "GSSAPI")];
    let error = world.refused(LOGIN, &kerberos).await;
    assert!(error.class == ErrorClass::Fatal && error.to_string().contains("--features gssapi"), "{error}");
    // Half of a pair, a file that is none, and what even librdkafka cannot do are refused before anything is connected.
    for (properties, named) in [
        (&[tls.as_slice(), &[("ssl.certificate.location", &certificate)]].concat(), "set both"),
        (&[tls.as_slice(), &[("ssl.certificate.location", &key), ("ssl.key.location", &key)]].concat(), "PEM"),
        (&[("security.protocol", "ssl"), ("ssl.ca.location", "/nowhere.pem")].to_vec(), "/nowhere.pem"),
        (&[tls.as_slice(), &locked].concat(), "ssl.key.password"),
        (&[tls.as_slice(), &locked, &[("ssl.key.password", "x")]].concat(), "ssl.key.location"),
        (&base.to_vec(), "SCRAM-SHA-256"),
    ] {
        let error = world.refused(MUTUAL, properties).await;
        assert_eq!(error.class, ErrorClass::Fatal, "{error}");
        assert!(error.to_string().contains(named), "{named}: {error}");
    }
}
