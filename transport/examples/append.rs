//! Measures a transport: `cargo run --release -p tributary-transport --example append -- embedded DIR | kafka BROKERS`.
//!
//! Prints records a second and CPU seconds a million for appending and for reading a million records of 700 bytes, and
//! the latency of appending one record, alone and until a consumer has it.
#![allow(clippy::print_stdout)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use tributary_transport::{
    Batch, Checkpoint, ConsumerSettings, Delivery, Embedded, EmbeddedSettings, Kafka, KafkaSettings, Purpose,
    Retention, TopicSpec, Transport,
};

type Failure = Box<dyn std::error::Error>;

const RECORDS: u64 = 1_000_000;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let transport: Arc<dyn Transport> = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["embedded", directory] => {
            let start = Instant::now();
            let log = Embedded::open(directory, EmbeddedSettings::default())?;
            println!("open_ms={}", start.elapsed().as_millis());
            Arc::new(log)
        }
        ["kafka", brokers] => {
            let settings = KafkaSettings {
                checkpoint_topic: "append-checkpoints".into(),
                ..KafkaSettings::single_broker(brokers)
            };
            Arc::new(Kafka::connect(settings)?)
        }
        _ => return Err("arguments: embedded DIR | kafka BROKERS".into()),
    };
    let run = std::process::id();
    let topic: Arc<str> = format!("append-{run}").into();
    let retention = Retention::Delete { age: None, bytes: None };
    transport.ensure_topics(&[TopicSpec { name: topic.to_string(), partitions: 4, retention }]).await?;
    let mut producer = transport.producer(&format!("append-{run}"), Purpose::Source).await?;

    for batch_bytes in [4 << 20, 1 << 20] {
        let (start, cpu) = (Instant::now(), cpu_seconds());
        let mut batch = Batch::new();
        for n in 0..RECORDS {
            record(&mut batch, &topic, n);
            if batch.size() >= batch_bytes || n + 1 == RECORDS {
                batch.checkpoint = Some(Checkpoint { name: "place".into(), content: n.to_string().into() });
                producer.append(&batch).await?;
                batch.clear();
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        println!(
            "append batch_bytes={batch_bytes} records_per_second={:.0} cpu_seconds_per_million={:.2} rss_mib={} peak_mib={}",
            RECORDS as f64 / seconds,
            cpu_seconds() - cpu,
            status("VmRSS:") >> 10,
            status("VmHWM:") >> 10
        );
    }

    let settings = ConsumerSettings {
        group: format!("append-{run}"),
        topics: vec![topic.to_string()],
        max_records: 500,
        from_start: true,
    };
    let mut consumer = transport.consumer(settings).await?;
    let (start, cpu) = (Instant::now(), cpu_seconds());
    let mut read = 0;
    while read < 2 * RECORDS {
        if let Delivery::Records(records) = consumer.next().await? {
            read += records.len() as u64;
        }
    }
    println!(
        "read records_per_second={:.0} cpu_seconds_per_million={:.2} rss_mib={} peak_mib={}",
        read as f64 / start.elapsed().as_secs_f64(),
        (cpu_seconds() - cpu) / 2.0,
        status("VmRSS:") >> 10,
        status("VmHWM:") >> 10
    );

    let mut append = Vec::new();
    let mut heard = Vec::new();
    for n in 0..300 {
        let mut batch = Batch::new();
        record(&mut batch, &topic, n);
        batch.checkpoint = Some(Checkpoint { name: "place".into(), content: n.to_string().into() });
        let start = Instant::now();
        let reading = async {
            while !matches!(consumer.next().await?, Delivery::Records(_)) {}
            Ok::<_, tributary_transport::TransportError>(start.elapsed())
        };
        let appending = async {
            producer.append(&batch).await?;
            Ok(start.elapsed())
        };
        let (appended, delivered) = tokio::try_join!(appending, reading)?;
        append.push(appended);
        heard.push(delivered);
        if n % 2 == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    println!("single append {} until_consumed {}", quantiles(append), quantiles(heard));
    Ok(())
}

fn record(batch: &mut Batch, topic: &Arc<str>, n: u64) {
    use std::io::Write;
    let word = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    batch.write(
        topic,
        0,
        |out| write!(out, r#"{{"id":{n}}}"#).is_ok(),
        |out| {
            write!(
                out,
                r#"{{"before":null,"after":{{"id":{n},"title":"Movie number {n} {word:x}","released":{},"note":"{:x}{:x}{:x}","budget":"{}.00","created_at":"2026-11-21T04:34:45.{:06}Z"}},"source":{{"version":"0.1.0","connector":"postgresql","name":"studio","ts_ms":1795235685000,"snapshot":"false","db":"studio","sequence":"[null,\"{word}\"]","ts_us":1795235685000000,"ts_ns":1795235685000000000,"schema":"public","table":"movie","txId":{},"lsn":{},"xmin":null}},"transaction":{{"id":"{}:{}","total_order":{n},"data_collection_order":{n}}},"op":"c","ts_ms":1795235685123,"ts_us":1795235685123456,"ts_ns":1795235685123456000}}"#,
                1900 + n % 120,
                word.rotate_left(13),
                word.rotate_left(29),
                word.wrapping_mul(31),
                n * 37 % 1_000_000,
                n % 1_000_000,
                1000 + n / 100,
                24_000_000 + n * 200,
                1000 + n / 100,
                24_000_000 + n * 200,
            )
            .is_ok()
        },
    );
}

fn quantiles(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |q: usize| times[(times.len() - 1) * q / 100].as_secs_f64() * 1000.0;
    format!("p50_ms={:.2} p95_ms={:.2} p99_ms={:.2}", at(50), at(95), at(99))
}

fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

fn status(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or(0)
}
