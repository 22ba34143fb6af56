//! What the terminal that a person looks at can show.

use std::env;

/// What may be written to an output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terminal {
    /// Colours and other ANSI sequences.
    pub colours: bool,
    /// Bars of block characters, which need UTF-8.
    pub blocks: bool,
}

impl Terminal {
    /// By this process's environment, for an output that is a terminal or not.
    pub fn of_process(is_terminal: bool) -> Self {
        Self::new(is_terminal, |name| env::var(name).ok().filter(|value| !value.is_empty()))
    }

    /// `NO_COLOR`: <https://no-color.org>. The locale of characters: POSIX, 8.2.
    fn new(is_terminal: bool, variable: impl Fn(&str) -> Option<String>) -> Self {
        let obeys = is_terminal && variable("TERM").is_some_and(|terminal| terminal != "dumb");
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(&variable).unwrap_or_default();
        let locale = locale.to_ascii_lowercase().replace('-', "");
        Self { colours: obeys && variable("NO_COLOR").is_none(), blocks: obeys && locale.contains("utf8") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dumb_terminals_and_locales_without_utf8_are_spared() {
        let shown = |is_terminal, variables: &[(&str, &str)]| {
            let of = |name: &str| {
                variables.iter().find(|(set, _)| *set == name).map(|(_, value)| (*value).to_owned())
            };
            let Terminal { colours, blocks } = Terminal::new(is_terminal, of);
            (colours, blocks)
        };
        let xterm = ("TERM", "xterm-256color");
        assert_eq!(shown(true, &[xterm, ("LANG", "ja_JP.UTF-8")]), (true, true));
        assert_eq!(shown(true, &[xterm, ("LANG", "C.utf8"), ("NO_COLOR", "1")]), (false, true));
        assert_eq!(shown(true, &[xterm, ("LC_ALL", "C"), ("LANG", "ja_JP.UTF-8")]), (true, false));
        assert_eq!(shown(true, &[xterm, ("LC_CTYPE", "C.UTF-8"), ("LANG", "C")]), (true, true));
        assert_eq!(shown(true, &[xterm]), (true, false));
        assert_eq!(shown(true, &[("TERM", "dumb"), ("LANG", "C.UTF-8")]), (false, false));
        assert_eq!(shown(true, &[("LANG", "C.UTF-8")]), (false, false));
        assert_eq!(shown(false, &[xterm, ("LANG", "C.UTF-8")]), (false, false));
    }
}
