//! A moment as RFC 3339 writes it → as MySQL and MariaDB do, in UTC. Both want no `Z`, and not both know offsets.

use tributary_event::calendar::{civil_from_days, days_from_civil};

/// `2026-01-31T09:30:00.25+01:00` → `2026-01-31 08:30:00.25`; none: it is no such moment.
pub(super) fn of_mysql(text: &str) -> Option<String> {
    let (date, rest) = text.split_once(['T', 't', ' '])?;
    let at = rest.find(['Z', 'z', '+', '-'])?;
    let (time, zone) = rest.split_at(at);
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let (clock, fraction) = time.split_once('.').map_or((time, None), |(clock, fraction)| (clock, Some(fraction)));
    let [hour, minute, second] = numbers(clock, ':', [2, 2, 2])?;
    if fraction.is_some_and(|digits| digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit())) {
        return None;
    }
    let offset = match zone {
        "Z" | "z" => 0,
        zone => {
            let [hours, minutes] = numbers(&zone[1..], ':', [2, 2])?;
            let minutes = hours * 60 + minutes;
            if zone.starts_with('-') { -minutes } else { minutes }
        }
    };
    let fits = (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second < 60;
    if !fits || civil_from_days(days_from_civil(year, month, day)) != (year, month, day) {
        // What there is not in the calendar, the server refuses.
        return None;
    }
    let minutes = days_from_civil(year, month, day) * 1_440 + hour * 60 + minute - offset;
    let (year, month, day) = civil_from_days(minutes.div_euclid(1_440));
    let of_day = minutes.rem_euclid(1_440);
    let fraction = fraction.map(|digits| format!(".{digits}")).unwrap_or_default();
    Some(format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{second:02}{fraction}", of_day / 60, of_day % 60))
}

/// Numbers of so many digits each.
fn numbers<const N: usize>(text: &str, between: char, digits: [usize; N]) -> Option<[i64; N]> {
    let mut parts = text.split(between);
    let mut all = [0; N];
    for (number, digits) in all.iter_mut().zip(digits) {
        let part = parts.next().filter(|part| part.len() == digits && part.bytes().all(|b| b.is_ascii_digit()))?;
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_told_in_utc() {
        let told = |text: &str| of_mysql(text).unwrap_or_else(|| "as it was".to_owned());
        assert_eq!(told("2026-01-31T09:30:00.25Z"), "2026-01-31 09:30:00.25");
        assert_eq!(told("2026-01-01T00:30:00+01:00"), "2025-12-31 23:30:00");
        assert_eq!(told("2024-02-28 23:30:00-01:30"), "2024-02-29 01:00:00");
        for other in [
            "2026-01-31",
            "2026-02-30T00:00:00Z",
            "2026-01-31 09:30:00",
            "x",
            "2026-01-31T09:30:00.Z",
            "2026-01-31T9:30:00Z",
        ] {
            assert_eq!(told(other), "as it was");
        }
    }
}
