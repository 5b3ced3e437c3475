//! Character sets of one byte that the web has no tables of.
//!
//! Reference: MySQL Reference Manual, "Supported Character Sets and Collations". Taken from the servers, which agree: MySQL 9.7 and
//! MariaDB 11.8, `CONVERT(x USING utf8mb4)` of every byte. Where Unicode has tables of vendors, of `cp850`, `cp852`, `hp8` and `macce`,
//! they say the same.

/// What the bytes of a character set are.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) struct Codepage {
    /// Bytes below it are the characters with their numbers: those of ASCII, and control characters.
    first: u8,
    /// Sixteen characters a row, from `first` on; U+FFFD, or behind the end of a row: there is none.
    rows: &'static [&'static str],
}

impl Codepage {
    /// The character of a byte; none: servers have `?` for it.
    pub(super) fn character(&self, byte: u8) -> Option<char> {
        let Some(at) = byte.checked_sub(self.first) else { return Some(char::from(byte)) };
        let row = self.rows.get(usize::from(at / 16))?;
        row.chars().nth(usize::from(at % 16)).filter(|c| *c != char::REPLACEMENT_CHARACTER)
    }
}

/// Armenian (ARMSCII-8), with some marks of ASCII once more.
pub(super) const ARMSCII8: &Codepage = &Codepage {
    first: 0xa0,
    rows: &[
        "\u{a0}❁§։)(»«—.՝,-՟…՜",
        "՛՞ԱաԲբԳգԴդԵեԶզԷէ",
        "ԸըԹթԺժԻիԼլԽխԾծԿկ",
        "ՀհՁձՂղՃճՄմՅյՆնՇշ",
        "ՈոՉչՊպՋջՌռՍսՎվՏտ",
        "ՐրՑցՒւՓփՔքՕօՖֆ’'",
    ],
};

/// Western European of DOS.
pub(super) const CP850: &Codepage = &Codepage {
    first: 0x80,
    rows: &[
        "ÇüéâäàåçêëèïîìÄÅ",
        "ÉæÆôöòûùÿÖÜø£Ø×ƒ",
        "áíóúñÑªº¿®¬½¼¡«»",
        "░▒▓│┤ÁÂÀ©╣║╗╝¢¥┐",
        "└┴┬├─┼ãÃ╚╔╩╦╠═╬¤",
        "ðÐÊËÈıÍÎÏ┘┌█▄¦Ì▀",
        "ÓßÔÒõÕµþÞÚÛÙýÝ¯´",
        "\u{ad}±‗¾¶§÷¸°¨·¹³²■\u{a0}",
    ],
};

/// Central European of DOS.
pub(super) const CP852: &Codepage = &Codepage {
    first: 0x80,
    rows: &[
        "ÇüéâäůćçłëŐőîŹÄĆ",
        "ÉĹĺôöĽľŚśÖÜŤťŁ×č",
        "áíóúĄąŽžĘę¬źČş«»",
        "░▒▓│┤ÁÂĚŞ╣║╗╝Żż┐",
        "└┴┬├─┼Ăă╚╔╩╦╠═╬¤",
        "đĐĎËďŇÍÎě┘┌█▄ŢŮ▀",
        "ÓßÔŃńňŠšŔÚŕŰýÝţ´",
        "\u{ad}˝˛ˇ˘§÷¸°¨˙űŘř■\u{a0}",
    ],
};

/// Western European of DEC.
pub(super) const DEC8: &Codepage = &Codepage {
    first: 0xa0,
    rows: &[
        "\u{a0}¡¢£\u{fffd}¥\u{fffd}§¤©ª«",
        "°±²³\u{fffd}µ¶·\u{fffd}¹º»¼½\u{fffd}¿",
        "ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏ",
        "\u{fffd}ÑÒÓÔÕÖŒØÙÚÛÜŸ\u{fffd}ß",
        "àáâãäåæçèéêëìíîï",
        "\u{fffd}ñòóôõöœøùúûüÿ",
    ],
};

/// Georgian.
pub(super) const GEOSTD8: &Codepage = &Codepage {
    first: 0x80,
    rows: &[
        "€\u{fffd}‚\u{fffd}„…†‡\u{fffd}‰\u{fffd}‹",
        "\u{fffd}‘’“”•–—\u{fffd}\u{fffd}\u{fffd}›",
        "\u{a0}¡¢£¤¥¦§¨©ª«¬\u{ad}®¯",
        "°±²³´µ¶·¸¹º»¼½¾¿",
        "აბგდევზჱთიკლმნჲო",
        "პჟრსტჳუფქღყშჩცძწ",
        "ჭხჴჯჰჵ",
        "\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}№",
    ],
};

/// Western European of HP (Roman-8).
pub(super) const HP8: &Codepage = &Codepage {
    first: 0xa0,
    rows: &[
        "\u{a0}ÀÂÈÊËÎÏ´ˋˆ¨˜ÙÛ₤",
        "¯Ýý°ÇçÑñ¡¿¤£¥§ƒ¢",
        "âêôûáéóúàèòùäëöü",
        "ÅîØÆåíøæÄìÖÜÉïßÔ",
        "ÁÃãÐðÍÌÓÒÕõŠšÚŸÿ",
        "Þþ·µ¶¾—¼½ªº«■»±",
    ],
};

/// Czech and Slovak of DOS (Kamenický).
pub(super) const KEYBCS2: &Codepage = &Codepage {
    first: 0x80,
    rows: &[
        "ČüéďäĎŤčěĚĹÍľĺÄÁ",
        "ÉžŽôöÓůÚýÖÜŠĽÝŘť",
        "áíóúňŇŮÔšřŕŔ¼¡«»",
        "░▒▓│┤╡╢╖╕╣║╗╝╜╛┐",
        "└┴┬├─┼╞╟╚╔╩╦╠═╬╧",
        "╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀",
        "αßΓπΣσµτΦΘΩδ∞φε∩",
        "≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}",
    ],
};

/// Central European of the Macintosh.
pub(super) const MACCE: &Codepage = &Codepage {
    first: 0x80,
    rows: &[
        "ÄĀāÉĄÖÜáąČäčĆćéŹ",
        "źĎíďĒēĖóėôöõúĚěü",
        "†°Ę£§•¶ß®©™ę¨≠ģĮ",
        "įĪ≤≥īĶ∂∑łĻļĽľĹĺŅ",
        "ņŃ¬√ńŇ∆«»…\u{a0}ňŐÕőŌ",
        "–—“”‘’÷◊ōŔŕŘ‹›řŖ",
        "ŗŠ‚„šŚśÁŤťÍŽžŪÓÔ",
        "ūŮÚůŰűŲųÝýķŻŁżĢˇ",
    ],
};

/// Swedish, of seven bits: letters stand where ASCII has brackets and the like.
pub(super) const SWE7: &Codepage = &Codepage {
    first: 0x40,
    rows: &["ÉABCDEFGHIJKLMNO", "PQRSTUVWXYZÄÖÅÜ_", "éabcdefghijklmno", "pqrstuvwxyzäöåü"],
};

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::charset::Charset;
    use super::*;

    fn text(charset: &str, raw: &[u8], replace: bool) -> Option<String> {
        let owner = Bytes::copy_from_slice(raw);
        let charset = Charset::named(charset).expect("a character set");
        charset.decode(&owner, &owner, replace).map(|text| text.to_string())
    }

    #[test]
    fn texts_are_those_of_the_character_set() {
        let texts: [(&str, &[u8], &str); 9] = [
            ("armscii8", b"\xd0\xb3\xdb\xb3\xeb\xef\xb3\xdd \xa3", "Հայաստան ։"),
            ("cp850", b"Stra\xe1e, \x87a co\x96te 5 \xd5", "Straße, ça coûte 5 ı"),
            ("cp852", b"\x9d\xa2d\xab, Gy\x8br", "Łódź, Győr"),
            ("dec8", b"\xd7uvre, Lou\xfds, \xa8", "Œuvre, Louÿs, ¤"),
            ("geostd8", b"\xd8\xc0\xd2\xc8\xc5\xc4\xcb\xc9, \xfd 1, 5 \x80", "ქართველი, № 1, 5 €"),
            ("hp8", b"\xdasterreich, l'\xc5t\xc5, \xaf", "Österreich, l'été, ₤"),
            ("keybcs2", b"\x92lu\x9fou\x87k\x98 k\x96\xa4", "Žluťoučký kůň"),
            ("macce", b"\xfc\x97d\x90, Gy\xcer", "Łódź, Győr"),
            ("swe7", b"[ngstr|m i ]re, `n {r ^ber", "Ängström i Åre, én är Über"),
        ];
        for (charset, raw, expected) in texts {
            assert_eq!(text(charset, raw, false).as_deref(), Some(expected), "{charset}");
        }
    }

    #[test]
    fn every_byte_is_a_character_but_for_those_that_servers_have_none_for() {
        let sets: [(&str, &Codepage, Vec<u8>); 9] = [
            ("armscii8", ARMSCII8, vec![]),
            ("cp850", CP850, vec![]),
            ("cp852", CP852, vec![]),
            ("dec8", DEC8, vec![0xa4, 0xa6, 0xac, 0xad, 0xae, 0xaf, 0xb4, 0xb8, 0xbe, 0xd0, 0xde, 0xf0, 0xfe, 0xff]),
            (
                "geostd8",
                GEOSTD8,
                [0x81, 0x83, 0x88, 0x8a]
                    .into_iter()
                    .chain(0x8c..=0x90)
                    .chain(0x98..=0x9a)
                    .chain(0x9c..=0x9f)
                    .chain(0xe6..=0xfc)
                    .chain([0xfe, 0xff])
                    .collect(),
            ),
            ("hp8", HP8, vec![0xff]),
            ("keybcs2", KEYBCS2, vec![]),
            ("macce", MACCE, vec![]),
            ("swe7", SWE7, (0x7f..=0xff).collect()),
        ];
        for (charset, page, without) in sets {
            assert!(page.first % 16 == 0 && page.rows.iter().all(|row| row.chars().count() <= 16), "{charset}");
            let none: Vec<u8> = (0..=0xff).filter(|byte| page.character(*byte).is_none()).collect();
            assert_eq!(none, without, "{charset}");
            for byte in 0..=0xff {
                let character = page.character(byte).map(String::from);
                assert_eq!(text(charset, &[byte], false), character, "{charset} {byte:#x}");
                let replaced = character.unwrap_or("\u{fffd}".to_owned());
                assert_eq!(
                    text(charset, &[b' ', byte, b' '], true),
                    Some(format!(" {replaced} ")),
                    "{charset} {byte:#x}"
                );
            }
        }
    }

    #[test]
    fn bytes_below_0x80_are_ascii_but_for_the_letters_of_swe7() {
        let ascii: Vec<u8> = (0..0x80).collect();
        for charset in ["armscii8", "cp850", "cp852", "dec8", "geostd8", "hp8", "keybcs2", "macce"] {
            assert_eq!(text(charset, &ascii, false).as_deref(), std::str::from_utf8(&ascii).ok(), "{charset}");
        }
        let others: String =
            (0..0x80).filter(|byte| SWE7.character(*byte) != Some(char::from(*byte))).map(char::from).collect();
        assert_eq!(others, "@[\\]^`{|}~\u{7f}");
        assert_eq!(text("swe7", b"@[\\]^`{|}~", false).as_deref(), Some("ÉÄÖÅÜéäöåü"));
    }

    #[test]
    fn two_bytes_are_one_character_in_armscii8_alone() {
        let twice = |page: &Codepage| {
            let of = |byte| page.character(byte);
            (0x80..=0xff)
                .filter(|high| (0..*high).any(|byte| of(*high).is_some() && of(byte) == of(*high)))
                .collect::<Vec<u8>>()
        };
        assert_eq!(twice(ARMSCII8), [0xa4, 0xa5, 0xa9, 0xab, 0xac, 0xff]);
        for page in [CP850, CP852, DEC8, GEOSTD8, HP8, KEYBCS2, MACCE, SWE7] {
            assert!(twice(page).is_empty(), "{page:?}");
        }
    }
}
