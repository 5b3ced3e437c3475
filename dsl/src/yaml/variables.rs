//! `${NAME}`, `${NAME:-default}` and `$$` in values.

/// A value with its variables filled in.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Filled {
    pub text: String,
    /// Whether a variable's value is in it.
    pub variable: bool,
}

/// Why variables could not be filled in; the text to point at, the cause, the remedy.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unfilled {
    pub mark: String,
    pub message: String,
    pub help: String,
}

/// Fills in variables. All that are missing are told, not only the first.
pub(super) fn fill(text: &str, variable: impl Fn(&str) -> Option<String>) -> Result<Filled, Vec<Unfilled>> {
    let mut filled = Filled { text: String::new(), variable: false };
    let mut missing = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        filled.text.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("$$") {
            filled.text.push('$');
            rest = after;
        } else if let Some(after) = rest.strip_prefix("${") {
            let Some(end) = after.find('}') else {
                let help = "write `${NAME}`, or `$$` for a dollar sign itself".to_owned();
                missing.push(Unfilled { mark: "${".into(), message: "`${` without its `}`".into(), help });
                return Err(missing);
            };
            let (name, default) = match after[..end].split_once(":-") {
                Some((name, default)) => (name, Some(default)),
                None => (&after[..end], None),
            };
            filled.variable = true;
            let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if name.is_empty() || !name.chars().all(word) {
                missing.push(Unfilled {
                    mark: format!("${{{name}"),
                    message: format!("`${{{name}}}` names no variable"),
                    help: "a name has letters, digits and `_`; a default is written `${NAME:-default}`".into(),
                });
            } else {
                let value = variable(name).filter(|value| default.is_none() || !value.is_empty());
                match value.or_else(|| default.map(str::to_owned)) {
                    Some(value) => filled.text.push_str(&value),
                    None => missing.push(Unfilled {
                        mark: format!("${{{name}}}"),
                        message: format!("the variable `{name}` is not set"),
                        help: format!("set it, or write `${{{name}:-default}}`"),
                    }),
                }
            }
            rest = &after[end + 1..];
        } else {
            filled.text.push('$');
            rest = &rest[1..];
        }
    }
    filled.text.push_str(rest);
    if missing.is_empty() { Ok(filled) } else { Err(missing) }
}

#[cfg(test)]
mod tests {

    #[test]
    fn variables_are_filled_in() {
        let fill = |text: &str| {
            super::fill(text, |name| match name {
                "A" => Some("1".into()),
                "EMPTY" => Some(String::new()),
                _ => None,
            })
        };
        let text = |t: &str| fill(t).map(|f| f.text);
        assert_eq!(text("x${A}y${B:-2}$$z$"), Ok("x1y2$z$".into()));
        assert_eq!(text("${EMPTY}"), Ok(String::new()));
        assert_eq!(text("${EMPTY:-d}"), Ok("d".into()));
        assert_eq!(fill("${B} ${C}").map_err(|e| e.len()), Err(2));
        assert_eq!(fill("${B").map_err(|e| e.len()), Err(1));
        assert_eq!(fill("${}").map_err(|e| e.len()), Err(1));
    }
}
