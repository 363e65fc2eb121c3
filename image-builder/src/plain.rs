//! Foreign text for a terminal: what comes from images, machines and their names must not steer it.

fn steers(c: char) -> bool {
    c.is_control() && c != '\t'
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// The text with all in it escaped that steers a terminal or hides something from its reader, line ends included.
pub fn plain(text: &str) -> String {
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

/// JSON that means the same, with that escaped as JSON has it. What is below the blank was escaped when it was written, but for the
/// line ends and blanks between values.
pub fn plain_json(json: &str) -> String {
    json.chars().fold(String::with_capacity(json.len()), |mut out, c| {
        if steers(c) && c > ' ' {
            out.push_str(&format!("\\u{:04x}", u32::from(c)))
        } else {
            out.push(c)
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_steers_no_terminal() {
        assert_eq!(plain("a\tb\u{1b}[2J\u{202e}\r\n"), "a\tb\\u{1b}[2J\\u{202e}\\u{d}\\u{a}");
        assert_eq!(plain_lines("a\u{9b}\nb\u{200b}\n"), "a\\u{9b}\nb\\u{200b}\n");
    }

    #[test]
    fn foreign_text_in_json_steers_none_and_means_the_same() {
        let all: String = ('\0'..='\u{3000}').chain(['\u{feff}', '\u{1f6a2}', '"', '\\']).collect();
        let value = serde_json::json!({ &all: [&all, "ship \u{8239}"] });
        for text in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
            let printed = plain_json(&text);
            assert!(!printed.chars().any(|c| steers(c) && c != '\n'), "{printed:?}");
            assert!(printed.contains("\\u007f\\u0080") && printed.contains("ship \u{8239}"), "{printed:?}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&printed).unwrap(), value);
        }
    }
}
