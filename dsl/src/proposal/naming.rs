//! Names of one thing in several styles.

/// A name without its way of writing: `movie_talent`, `MovieTalents` and `movie-talent` are alike.
pub(crate) fn alike(name: &str) -> String {
    let plain: String = name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect();
    singular(&plain)
}

/// Plurals that follow no rule.
const IRREGULAR: [(&str, &str); 8] = [
    ("people", "person"),
    ("children", "child"),
    ("women", "woman"),
    ("men", "man"),
    ("mice", "mouse"),
    ("geese", "goose"),
    ("feet", "foot"),
    ("teeth", "tooth"),
];

fn singular(plain: &str) -> String {
    for (plural, one) in IRREGULAR {
        if let Some(stem) = plain.strip_suffix(plural) {
            return format!("{stem}{one}");
        }
    }
    for (plural, one) in [("ies", "y"), ("sses", "ss"), ("xes", "x"), ("ches", "ch"), ("shes", "sh")] {
        if let Some(stem) = plain.strip_suffix(plural).filter(|stem| !stem.is_empty()) {
            return format!("{stem}{one}");
        }
    }
    match plain.strip_suffix('s') {
        Some(stem) if !stem.is_empty() && !stem.ends_with('s') => stem.to_owned(),
        _ => plain.to_owned(),
    }
}

/// The name of the index of a type: `movies` of `Movie`, `user-accounts` of `UserAccount`.
pub(crate) fn index(type_name: &str) -> String {
    let mut name = String::new();
    for c in type_name.chars() {
        match c {
            c if c.is_ascii_uppercase() => {
                if !name.is_empty() && !name.ends_with('-') {
                    name.push('-');
                }
                name.push(c.to_ascii_lowercase());
            }
            c if c.is_ascii_alphanumeric() => name.push(c),
            _ => name.push('-'),
        }
    }
    let name = name.trim_matches('-').to_owned();
    if name.ends_with('s') { name } else { format!("{name}s") }
}

/// A field's name without what generated names say about the key that they follow: `movieTalents` of `movieTalentsByMovieId`,
/// `movies` of `moviesConnection`.
pub(crate) fn short(field: &str) -> &str {
    let by = field.find("By").filter(|at| *at > 0 && field[at + 2..].starts_with(|c: char| c.is_ascii_uppercase()));
    let without = by.map_or(field, |at| &field[..at]);
    without.strip_suffix("Connection").filter(|rest| !rest.is_empty()).unwrap_or(without)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn styles_and_numbers_do_not_matter() {
        for (a, b) in [
            ("movie_talents", "MovieTalent"),
            ("categories", "Category"),
            ("boxes", "Box"),
            ("class", "Class"),
            ("people", "Person"),
        ] {
            assert_eq!(alike(a), alike(b));
        }
        assert_ne!(alike("movie"), alike("movie_talent"));
        assert_eq!(index("UserAccount"), "user-accounts");
        assert_eq!(short("movieTalentsByMovieId"), "movieTalents");
        assert_eq!(short("moviesConnection"), "movies");
        assert_eq!(short("standBy"), "standBy");
    }
}
