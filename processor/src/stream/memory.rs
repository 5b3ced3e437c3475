//! What a stream remembers of a partition is found again in the partition's own records: those of the time that is remembered are read once
//! more, through the steps before the one that remembers, when the first record comes that is to be done. Nothing comes of them.
//!
//! What the topic does not keep any more is not remembered; `check` refuses a time that is longer than the topic keeps its records. How
//! long this takes is told while it lasts; meanwhile nothing of the partition is done, and nothing is lost.

use std::time::{Duration, Instant};

use tributary_event::Reporter;
use tributary_transport::{Polled, TopicPartition, Transport, TransportError};

use super::seen::Seen;
use super::steps::Steps;

/// Records that are read at a time.
const PAGE: usize = 2_000;
/// The records before a place that are looked at first to know when it is.
const LAST: u64 = 64;
/// A record is written after its event was, by clocks that differ by less.
const SKEW: Duration = Duration::from_secs(60);
/// Reading that takes longer is told.
const LONG: Duration = Duration::from_secs(3);

/// What the steps have seen before an offset.
///
/// # Errors
/// The transport does not answer.
pub(super) async fn before(
    transport: &dyn Transport,
    place: &TopicPartition,
    end: u64,
    steps: &Steps,
    health: &Reporter,
) -> Result<Option<Seen>, TransportError> {
    let Some((mut seen, within)) = steps.seen().zip(steps.within()) else { return Ok(None) };
    let begun = Instant::now();
    let ends = transport.watermarks(&place.topic).await?;
    let low = ends.get(place.partition as usize).map_or(0, |ends| ends.low);
    let mut from = match time_before(transport, place, low, end, steps).await? {
        Some(time_us) => {
            let back = i64::try_from((within + SKEW).as_millis()).unwrap_or(i64::MAX);
            transport.offset_at(place, (time_us / 1_000).saturating_sub(back)).await?.max(low)
        }
        None => low,
    };
    while from < end {
        let page = read(transport, place, from, end, PAGE).await?;
        let Some(last) = page.last() else { break };
        from = last.offset + 1;
        steps.remember(&page.iter().collect::<Vec<_>>(), &mut seen);
        seen.keep(from);
        if begun.elapsed() > LONG {
            let (topic, partition, left) = (&place.topic, place.partition, end.saturating_sub(from));
            health.down(format!(
                "it reads {topic}/{partition} again to know which keys were seen; {left} offsets are left"
            ));
        }
        tokio::task::yield_now().await;
    }
    Ok(Some(seen))
}

/// Records of a range.
async fn read(
    transport: &dyn Transport,
    place: &TopicPartition,
    from: u64,
    end: u64,
    most: usize,
) -> Result<Vec<Polled>, TransportError> {
    let mut page = transport.read(place, from, most).await?;
    page.retain(|record| record.offset < end);
    Ok(page)
}

/// The latest time of the last events before an offset; none: there are none that have one.
async fn time_before(
    transport: &dyn Transport,
    place: &TopicPartition,
    low: u64,
    end: u64,
    steps: &Steps,
) -> Result<Option<i64>, TransportError> {
    let (mut until, mut back) = (end, LAST);
    while until > low {
        let mut from = until.saturating_sub(back).max(low);
        let (begin, mut latest) = (from, None);
        while from < until {
            let page = read(transport, place, from, until, PAGE).await?;
            let Some(last) = page.last() else { break };
            from = last.offset + 1;
            latest = page.iter().filter_map(|record| steps.time_us(record)).max().max(latest);
        }
        if latest.is_some() {
            return Ok(latest);
        }
        (until, back) = (begin, back.saturating_mul(4));
    }
    Ok(None)
}
