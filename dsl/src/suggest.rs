//! "Did you mean …?"

/// The candidate most like a name, if one is like it at all.
pub(crate) fn closest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = name.to_lowercase();
    let mut best: Option<(f64, &str)> = None;
    for candidate in candidates {
        let other = candidate.to_lowercase();
        let mut likeness = strsim::jaro_winkler(&lower, &other);
        if strsim::osa_distance(&lower, &other) <= 1 + name.chars().count() / 5 {
            likeness += 0.5;
        }
        if likeness > 0.84 && best.is_none_or(|(b, _)| likeness > b) {
            best = Some((likeness, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// "did you mean `x`?", if something is like it.
pub(crate) fn did_you_mean<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    closest(name, candidates).map(|candidate| format!("did you mean `{candidate}`?"))
}

/// "did you mean `x`?", or else what there is: "one of `a`, `b`".
pub(crate) fn suggestion<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str> + Clone) -> Option<String> {
    did_you_mean(name, candidates.clone()).or_else(|| {
        let all = listed(candidates.clone());
        match candidates.into_iter().count() {
            0 => None,
            1 => Some(format!("expected {all}")),
            _ => Some(format!("expected one of {all}")),
        }
    })
}

/// `a`, `b`, `c` (and 12 more).
pub(crate) fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    const SHOWN: usize = 12;
    let names: Vec<&str> = names.into_iter().collect();
    let mut text = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        text.push_str(&format!(" and {} more", names.len() - SHOWN));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_found_and_far_ones_are_not() {
        let keys = ["url", "tables", "slot", "publication"];
        assert_eq!(closest("tabels", keys), Some("tables"));
        assert_eq!(closest("Url", keys), Some("url"));
        assert_eq!(closest("replication", keys), Some("publication"));
        assert_eq!(closest("headers", keys), None);
    }
}
