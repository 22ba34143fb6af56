//! Errors as one line.

/// An error and what caused it, on one line: `what: why: the deepest why`.
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        // Some errors repeat their cause in their own text.
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{said}")]
    struct Error {
        said: &'static str,
        source: std::io::Error,
    }

    #[test]
    fn a_cause_is_printed_once() {
        for (said, printed) in [
            ("read FILE", "read FILE: out of luck"),
            ("read FILE: out of luck", "read FILE: out of luck"),
            ("read FILE: out of luck; name another", "read FILE: out of luck; name another"),
        ] {
            let source = std::io::Error::other("out of luck");
            assert_eq!(error_chain(&Error { said, source }), printed);
        }
    }
}
