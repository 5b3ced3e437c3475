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

/// A duration as pipelines have it: `5ms`, `1h`, `7d`.
///
/// # Errors
/// It is none; the text is the remedy.
pub fn duration(text: &str) -> Result<Duration, String> {
    scaled(text, &TIMES, "write a duration such as `5ms`, `10s`, `2m`, `1h` or `7d`").map(Duration::from_millis)
}

/// A number of bytes. `Err` is the remedy.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    scaled(text, &SIZES, "write a size such as `512KiB`, `16MiB` or `10GiB`")
}

/// What [`duration`] takes, as a regular expression.
pub(super) fn duration_pattern() -> String {
    pattern(&TIMES)
}

/// What [`bytes`] takes, as a regular expression.
pub(super) fn bytes_pattern() -> String {
    pattern(&SIZES)
}

fn pattern(units: &[(&str, u64)]) -> String {
    let names: Vec<&str> = units.iter().map(|(name, _)| *name).collect();
    format!("^[0-9]+\\s*({})$", names.join("|"))
}

/// As it would be written, in the largest unit that fits without a rest.
pub(crate) fn print_duration(duration: Duration) -> String {
    print(duration.as_millis() as u64, &TIMES)
}

/// The same of a number of bytes.
pub(crate) fn print_bytes(bytes: u64) -> String {
    print(bytes, &SIZES[..5])
}

fn print(number: u64, units: &[(&str, u64)]) -> String {
    let fits = units.iter().rev().find(|(_, factor)| number > 0 && number.is_multiple_of(*factor));
    let (name, factor) = fits.copied().unwrap_or(units[0]);
    format!("{}{name}", number / factor)
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
        for (printed, millis) in [("0ms", 0), ("1500ms", 1500), ("2m", 120_000), ("7d", 604_800_000)] {
            assert_eq!(print_duration(Duration::from_millis(millis)), printed);
            assert_eq!(duration(printed), Ok(Duration::from_millis(millis)));
        }
        assert_eq!(print_bytes(10 << 30), "10GiB");
        assert_eq!(print_bytes(1000), "1000B");
        for text in ["", "5", "ms", "-5s", "1.5s", "5 parsecs", "99999999999999999d"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
