//! What is behind an error.

use std::error::Error;

/// What caused an error, from its own cause down, each once. Not the error itself: that of an HTTP client prints the URL, which may hold
/// credentials. `None`: it tells no cause.
pub fn causes(error: &dyn Error) -> Option<String> {
    let mut texts: Vec<String> = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        texts.push(cause.to_string());
        next = cause.source();
    }
    // Many errors print their cause themselves.
    texts.dedup_by(|inner, outer| outer.ends_with(inner.as_str()));
    (!texts.is_empty()).then(|| texts.join(": "))
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::*;

    #[derive(Debug)]
    struct Told(&'static str, Option<Box<Told>>);

    impl fmt::Display for Told {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Told {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_deref().map(|cause| cause as &(dyn Error + 'static))
        }
    }

    #[test]
    fn causes_are_told_once_and_without_what_they_caused() {
        let of = |text, cause: Option<Told>| Told(text, cause.map(Box::new));
        assert_eq!(causes(&of("https://a:secret@b", None)), None);
        let error = of("https://a:secret@b", Some(of("cannot connect: refused", Some(of("refused", None)))));
        assert_eq!(causes(&error).as_deref(), Some("cannot connect: refused"));
        let error = of("", Some(of("cannot connect", Some(of("refused", None)))));
        assert_eq!(causes(&error).as_deref(), Some("cannot connect: refused"));
    }
}
