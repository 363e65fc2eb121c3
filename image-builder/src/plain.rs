//! Foreign text for a terminal: what comes from images, machines and their names must not steer it.

/// The text with all in it escaped that steers a terminal or hides something from its reader, line ends included.
pub fn plain(text: &str) -> String {
    let steers = |c: char| {
        c.is_control() && c != '\t'
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    text.chars().fold(String::new(), |mut out, c| {
        if steers(c) {
            out.extend(c.escape_unicode())
        } else {
            out.push(c)
        }
        out
    })
}

/// The same for text that may have several lines.
pub fn plain_lines(text: &str) -> String {
    text.split('\n').map(plain).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_steers_no_terminal() {
        assert_eq!(plain("a\tb\u{1b}[2J\u{202e}\r\n"), "a\tb\\u{1b}[2J\\u{202e}\\u{d}\\u{a}");
        assert_eq!(plain_lines("a\u{9b}\nb\u{200b}\n"), "a\\u{9b}\nb\\u{200b}\n");
    }
}
