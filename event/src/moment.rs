//! A moment as text: RFC 3339, in UTC.

use crate::calendar::civil_from_days;

/// The last moment that has four digits of a year, microseconds since the Unix epoch.
const END: i64 = 253_402_300_799_999_999;
/// The first one.
const BEGIN: i64 = -62_167_219_200_000_000;

/// A moment, microseconds since the Unix epoch, as `2026-01-31T09:30:00.250000Z`; none before the year 0 and after 9999.
pub fn rfc3339(us: i64) -> Option<String> {
    if !(BEGIN..=END).contains(&us) {
        return None;
    }
    let (seconds, us) = (us.div_euclid(1_000_000), us.rem_euclid(1_000_000));
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil_from_days(days);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    Some(format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{us:06}Z"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_the_calendar() {
        let told = |us| rfc3339(us).expect("a moment");
        assert_eq!(told(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(told(-1), "1969-12-31T23:59:59.999999Z");
        assert_eq!(told(951_782_400_000_000), "2000-02-29T00:00:00.000000Z");
        assert_eq!(told(1_614_265_330_250_000), "2021-02-25T15:02:10.250000Z");
        assert_eq!(told(END), "9999-12-31T23:59:59.999999Z");
        assert_eq!(told(BEGIN), "0000-01-01T00:00:00.000000Z");
        assert_eq!((rfc3339(END + 1), rfc3339(BEGIN - 1)), (None, None));
    }
}
