//! Exact decimals as Kafka Connect encodes them: big-endian two's complement of the unscaled value.

/// The bytes of an unscaled value: most are short.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unscaled {
    /// The last bytes, from an index on.
    Short([u8; 8], usize),
    Long(Vec<u8>),
}

impl std::ops::Deref for Unscaled {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Short(bytes, start) => bytes.get(*start..).unwrap_or_default(),
            Self::Long(bytes) => bytes,
        }
    }
}

/// Parses `-12.50` into its unscaled value's bytes and its scale. `None` for NaN, infinities and nonsense.
pub(super) fn unscaled(text: &str, scale: Option<u16>) -> Option<(Unscaled, u16)> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit()) {
        return None;
    }
    let scale = scale.unwrap_or(fraction.len() as u16);
    if fraction.len() > usize::from(scale) {
        return None;
    }
    let padding = usize::from(scale) - fraction.len();
    let digits = whole.bytes().chain(fraction.bytes()).map(|b| b - b'0').chain(std::iter::repeat_n(0, padding));
    if whole.len() + usize::from(scale) <= SHORT_DIGITS {
        let value = digits.fold(0, |n, digit| n * 10 + i64::from(digit));
        let bytes = (if negative { -value } else { value }).to_be_bytes();
        let start = redundant(&bytes);
        return Some((Unscaled::Short(bytes, start), scale));
    }
    Some((Unscaled::Long(twos_complement(digits, negative)), scale))
}

/// As many digits as always fit 64 bits.
const SHORT_DIGITS: usize = 18;

/// How many leading bytes only repeat the sign.
fn redundant(bytes: &[u8]) -> usize {
    let repeats =
        |pair: &[u8]| matches!(pair, [0x00, b] if b & 0x80 == 0) || matches!(pair, [0xff, b] if b & 0x80 != 0);
    bytes.windows(2).take_while(|pair| repeats(pair)).count()
}

/// The shortest big-endian two's complement of a decimal number, as `BigInteger.toByteArray`.
fn twos_complement(digits: impl Iterator<Item = u8>, negative: bool) -> Vec<u8> {
    // Little-endian limbs of 64 bits, to which as many digits are added at a time as a limb holds.
    let mut limbs: Vec<u64> = Vec::new();
    let mut add = |power: u64, digits: u64| {
        let mut carry = u128::from(digits);
        for limb in &mut limbs {
            let next = u128::from(*limb) * u128::from(power) + carry;
            *limb = next as u64;
            carry = next >> 64;
        }
        if carry > 0 {
            limbs.push(carry as u64);
        }
    };
    let (mut power, mut some) = (1, 0);
    for digit in digits {
        (power, some) = (power * 10, some * 10 + u64::from(digit));
        if power == 10u64.pow(SHORT_DIGITS as u32) {
            add(power, some);
            (power, some) = (1, 0);
        }
    }
    add(power, some);
    let mut bytes: Vec<u8> = vec![0];
    bytes.extend(limbs.iter().rev().flat_map(|l| l.to_be_bytes()));
    if negative {
        let mut carry = true;
        for byte in bytes.iter_mut().rev() {
            let (next, overflow) = (!*byte).overflowing_add(u8::from(carry));
            *byte = next;
            carry = overflow;
        }
    }
    let start = redundant(&bytes);
    bytes.split_off(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn short_and_long_numbers_are_encoded_alike(value: i64, scale in 0u16..4) {
            let text = value.to_string();
            let (bytes, _) = unscaled(&text, Some(scale)).expect("a decimal");
            let digits = text.trim_start_matches('-').bytes().map(|b| b - b'0').chain(std::iter::repeat_n(0, scale.into()));
            proptest::prop_assert_eq!(&*bytes, &twos_complement(digits, value < 0)[..]);
        }
    }

    #[test]
    fn decimals_encode_like_big_integer_to_byte_array() {
        let bytes = |text, scale| unscaled(text, scale).expect("a decimal").0.to_vec();
        assert_eq!(bytes("0", None), [0]);
        assert_eq!(bytes("1.27", Some(2)), [0x7f]);
        assert_eq!(bytes("1.28", Some(2)), [0x00, 0x80]);
        assert_eq!(bytes("-1.28", Some(2)), [0x80]);
        assert_eq!(bytes("-1.29", Some(2)), [0xff, 0x7f]);
        assert_eq!(bytes("1.5", Some(2)), [0x00, 0x96]);
        assert_eq!(bytes("18446744073709551616", None), [1, 0, 0, 0, 0, 0, 0, 0, 0]);
        // 2 to the power of 192, in base 10.
        let large = "6277101735386680763835789423207666416102355444464034512896";
        assert_eq!(bytes(large, None), [&[1][..], &[0; 24]].concat());
        assert_eq!(bytes(&format!("-{large}"), None), [&[255][..], &[0; 24]].concat());
        assert_eq!(unscaled("12.345", None).map(|(_, s)| s), Some(3));
        assert_eq!(unscaled("NaN", None), None);
        assert_eq!(unscaled("-Infinity", Some(2)), None);
    }
}
