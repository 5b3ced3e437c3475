//! Exact decimals as Kafka Connect encodes them: big-endian two's complement of the unscaled value.

/// Parses `-12.50` into its unscaled value's bytes and its scale. `None` for NaN, infinities and nonsense.
pub(super) fn unscaled(text: &str, scale: Option<u16>) -> Option<(Vec<u8>, u16)> {
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
    let all = whole.bytes().chain(fraction.bytes()).chain(std::iter::repeat_n(b'0', padding));
    Some((twos_complement(all.map(|b| b - b'0'), negative), scale))
}

/// The shortest big-endian two's complement of a decimal number, as `BigInteger.toByteArray`.
fn twos_complement(digits: impl Iterator<Item = u8>, negative: bool) -> Vec<u8> {
    // Little-endian limbs of 32 bits, multiplied by ten and added to, digit by digit.
    let mut limbs: Vec<u32> = vec![0];
    for digit in digits {
        let mut carry = u64::from(digit);
        for limb in &mut limbs {
            let next = u64::from(*limb) * 10 + carry;
            *limb = next as u32;
            carry = next >> 32;
        }
        if carry > 0 {
            limbs.push(carry as u32);
        }
    }
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
    let redundant =
        |pair: &[u8]| matches!(pair, [0x00, b] if b & 0x80 == 0) || matches!(pair, [0xff, b] if b & 0x80 != 0);
    let start = bytes.windows(2).take_while(|pair| redundant(pair)).count();
    bytes.split_off(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_encode_like_big_integer_to_byte_array() {
        let bytes = |text, scale| unscaled(text, scale).expect("a decimal").0;
        assert_eq!(bytes("0", None), [0]);
        assert_eq!(bytes("1.27", Some(2)), [0x7f]);
        assert_eq!(bytes("1.28", Some(2)), [0x00, 0x80]);
        assert_eq!(bytes("-1.28", Some(2)), [0x80]);
        assert_eq!(bytes("-1.29", Some(2)), [0xff, 0x7f]);
        assert_eq!(bytes("1.5", Some(2)), [0x00, 0x96]);
        assert_eq!(bytes("18446744073709551616", None), [1, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(unscaled("12.345", None).map(|(_, s)| s), Some(3));
        assert_eq!(unscaled("NaN", None), None);
        assert_eq!(unscaled("-Infinity", Some(2)), None);
    }
}
