//! Numbers and truths as documents have them: as such, or as text, as scalars for long numbers are often answered. Pure.
//!
//! What is read is what all servers read, and as the same number: decimal digits of a bounded length, with a point and an
//! exponent. (One server knows `0x1p3` and `1d` too; one takes a number of 44 digits for 0.)

use serde_json::Value as Json;

/// Characters of a whole number as text.
const MAX_WHOLE: usize = 30;
/// The exponent of a whole number as text: more has no 64 bits, or is 0.
const MAX_WHOLE_EXPONENT: i32 = 18;
/// Characters of any number as text.
const MAX_LENGTH: usize = 300;

/// A whole number of 64 bits; a fraction is cut off.
pub fn whole(value: &Json) -> Option<i64> {
    match value {
        Json::Number(number) => number.as_i64().or_else(|| {
            // 2^63: the first number above.
            let float = number.as_f64().filter(|_| number.is_f64())?;
            (float.abs() < 9_223_372_036_854_775_808.0).then_some(float as i64)
        }),
        Json::String(text) if text.len() <= MAX_WHOLE => {
            let Decimal { negative, whole, fraction, exponent } = decimal(text)?;
            if exponent.abs() > MAX_WHOLE_EXPONENT {
                return None;
            }
            let point = usize::try_from(whole.len() as i32 + exponent).unwrap_or(0);
            let digits = whole.chars().chain(fraction.chars()).chain(std::iter::repeat('0')).take(point);
            let text: String = negative.then_some('-').into_iter().chain(['0']).chain(digits).collect();
            text.parse().ok()
        }
        _ => None,
    }
}

/// A number of double precision.
pub fn fractional(value: &Json) -> Option<f64> {
    let number = match value {
        Json::Number(number) => number.as_f64()?,
        Json::String(text) if text.len() <= MAX_LENGTH => {
            decimal(text)?;
            text.parse().ok()?
        }
        _ => return None,
    };
    number.is_finite().then_some(number)
}

/// True or false.
pub fn truth(value: &Json) -> Option<bool> {
    match value {
        Json::Bool(truth) => Some(*truth),
        Json::String(text) => text.parse().ok(),
        _ => None,
    }
}

/// `[+-]digits[.digits][e[+-]digits]`, with a digit before or after the point.
struct Decimal<'a> {
    negative: bool,
    whole: &'a str,
    fraction: &'a str,
    exponent: i32,
}

fn decimal(text: &str) -> Option<Decimal<'_>> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        None => (unsigned, 0),
        Some((mantissa, exponent)) => {
            let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            let fits = (1..=4).contains(&digits.len()) && are_digits(digits);
            (mantissa, if fits { exponent.parse().ok()? } else { return None })
        }
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let fits = are_digits(whole) && are_digits(fraction) && !(whole.is_empty() && fraction.is_empty());
    fits.then_some(Decimal { negative: text.starts_with('-'), whole, fraction, exponent })
}

fn are_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}
