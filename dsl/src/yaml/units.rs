//! Values with units: `5ms`, `16MiB`.

use std::time::Duration;

const TIMES: [(&str, u64); 5] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
const SIZES: [(&str, u64); 8] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
];

/// A duration. `Err` is the remedy.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    scaled(text, &TIMES, "write a duration such as `5ms`, `10s`, `2m`, `1h` or `7d`").map(Duration::from_millis)
}

/// A number of bytes. `Err` is the remedy.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    scaled(text, &SIZES, "write a size such as `512KiB`, `16MiB` or `10GiB`")
}

fn scaled(text: &str, units: &[(&str, u64)], remedy: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: Option<u64> = text[..digits].parse().ok();
    let unit = units.iter().find(|(name, _)| *name == text[digits..].trim_start()).map(|(_, factor)| *factor);
    match (number, unit) {
        (Some(number), Some(unit)) => number.checked_mul(unit).ok_or_else(|| "that is too much".to_owned()),
        _ => Err(remedy.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_in_the_value() {
        assert_eq!(duration("5ms"), Ok(Duration::from_millis(5)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("7d"), Ok(Duration::from_secs(604_800)));
        assert_eq!(bytes("16MiB"), Ok(16 << 20));
        assert_eq!(bytes("1 GB"), Ok(1_000_000_000));
        for text in ["", "5", "ms", "-5s", "1.5s", "5 parsecs", "99999999999999999d"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
