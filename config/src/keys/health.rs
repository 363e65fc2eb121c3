//! `healthcheck`.

use serde_json::{Value, json};
use toml::de::DeValue;

use crate::errors::quote;
use crate::problems::Problems;
use crate::read::{At, Choice, Fault, Int, Item, List, Shape, Switch, Text, Word, keys, wrong_type};
use crate::supervision::OnFailure;
use crate::syntax::{Period, decimal};

keys! {
    /// `healthcheck`: whether the container works, asked again and again. One of `test`, `tcp` and `http` says how; what is left out is as in
    /// the image's HEALTHCHECK, if it has one.
    pub(crate) struct HealthKeys ("a health check") requires [] {
        /// A program in the container that ends with status 0 if it works: ["CMD", "program", "argument"], ["CMD-SHELL", "script"], or
        /// a string for the container's /bin/sh. ["NONE"]: no check. A shell's `$NAME` is written with one dollar sign, not with Compose's two.
        test: HealthWords,
        /// A TCP port of the container that accepts connections if it works.
        tcp: Int<1, 65_535>,
        /// An address in the container that answers with a status from 200 to 399 if it works: "http://localhost:8080/health".
        http: HttpUrl,
        /// From an answer to the next question. Default: "30s".
        interval: Period,
        /// No answer within this is a bad one. Default: "30s".
        timeout: Period,
        /// So many bad answers in a row make the container unhealthy. Default: 3.
        retries: Int<1, 1000>,
        /// Bad answers don't count for so long after its start, until the first good one. Default: "0s".
        start_period: Period,
        /// The interval during that time. Default: "5s".
        start_interval: Period,
        /// "restart" (the default): an unhealthy container is stopped, and that counts as a failure for its `restart` policy. "ignore": it
        /// goes on and is shown as unhealthy.
        on_unhealthy: OnUnhealthy,
        /// No check. Default: false.
        disable: Switch,
    }
    refused {
        "command" => "it is called `test`, as in Compose",
        "cmd" => "it is called `test`, as in Compose",
        "port" => "it is called `tcp` here",
        "url" => "it is called `http` here",
    }
}

/// `test`, in Compose's forms.
#[derive(Debug)]
pub(crate) enum HealthWords {
    /// `["NONE"]`
    None,
    /// Program and arguments.
    Exec(Vec<String>),
}

impl HealthWords {
    fn shell(script: &str) -> Self {
        Self::Exec(["/bin/sh", "-c", script].map(str::to_owned).to_vec())
    }
}

impl Shape for HealthWords {
    fn read(item: &Item<'_>, problems: &mut Problems) -> Option<Self> {
        match item.get_ref() {
            DeValue::String(_) => Text::read(item, problems).map(|script| Self::shell(&script.0)),
            DeValue::Array(_) => {
                let list = List::<Text>::read(item, problems)?;
                let words: Vec<&str> = list.0.iter().map(|At { value, .. }| value.0.as_str()).collect();
                match words.as_slice() {
                    ["NONE"] => Some(Self::None),
                    ["CMD-SHELL", script] => Some(Self::shell(script)),
                    ["CMD", program, ..] if !program.is_empty() => {
                        Some(Self::Exec(words.iter().skip(1).map(|word| (*word).to_owned()).collect()))
                    }
                    _ => {
                        problems.error(&item.span(), "this says not how the program is executed").help(
                            "write [\"CMD\", \"program\", \"argument\"], [\"CMD-SHELL\", \"one script\"] or [\"NONE\"], as in Compose; or a \
                             string for the container's shell",
                        );
                        None
                    }
                }
            }
            _ => {
                wrong_type(item, "a string, or a list such as [\"CMD\", \"program\", \"argument\"]", problems);
                None
            }
        }
    }

    fn schema() -> Value {
        json!({ "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" }, "minItems": 1 }] })
    }
}

/// A URL of the container itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HttpUrl {
    pub(crate) port: u16,
    pub(crate) path: String,
}

impl Word for HttpUrl {
    const EXPECTED: &'static str = "an address such as \"http://localhost:8080/health\"";

    fn parse(text: &str) -> Result<Self, Fault> {
        let wrong = |why: &str| {
            Fault::new(format!("{} {why}", quote(text))).help("write it like this: \"http://localhost:8080/health\"")
        };
        if text.starts_with("https://") {
            return Err(Fault::new("a health check speaks plain HTTP")
                .help("ask a plain port, or the TCP port by `tcp`, or let a program in the container ask by `test`"));
        }
        let rest = text.strip_prefix("http://").ok_or_else(|| wrong("isn't an address that begins with http://"))?;
        let (authority, path) = match rest.find(['/', '?']) {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !authority.ends_with(']') => (host, port),
            _ => (authority, "80"),
        };
        if !matches!(host, "localhost" | "127.0.0.1" | "[::1]") {
            return Err(Fault::new(format!("the host {} isn't the container itself", quote(host)))
                .help("write localhost: the question is asked from inside the container's network"));
        }
        let port = decimal(port).filter(|number| *number > 0).ok_or_else(|| wrong("has no port from 1 to 65535"))?;
        // It is written into a request line as it is.
        if !path.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
            return Err(wrong(
                "has a path with spaces, a fragment or other than ASCII characters: write those as %20 and the like",
            ));
        }
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self { port, path })
    }

    fn word_schema() -> Value {
        json!({ "type": "string", "pattern": r"^http://(localhost|127\.0\.0\.1|\[::1\])(:[1-9][0-9]{0,4})?([/?][!-~]*)?$" })
    }
}

/// What follows when the check finds the container unhealthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnUnhealthy {
    Restart,
    Ignore,
}

impl Choice for OnUnhealthy {
    const WHAT: &'static str = "an answer to ill health";
    const CHOICES: &'static [(&'static str, Self)] = &[("restart", Self::Restart), ("ignore", Self::Ignore)];
}

impl Choice for OnFailure {
    const WHAT: &'static str = "an answer to a failure";
    const CHOICES: &'static [(&'static str, Self)] =
        &[("ignore", Self::Ignore), ("restart", Self::Restart), ("reboot", Self::Reboot), ("poweroff", Self::PowerOff)];
    const REFUSED: &'static [(&'static str, &'static str)] = &[
        ("always", "that is a `restart` policy; this is about a container that its policy has given up"),
        ("no", "it is called \"ignore\" here"),
    ];
}

/// `status`: what a container may ask about the appliance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReadStatus;

impl Choice for ReadStatus {
    const WHAT: &'static str = "a right to the status";
    const CHOICES: &'static [(&'static str, Self)] = &[("read", Self)];
    const REFUSED: &'static [(&'static str, &'static str)] =
        &[("control", "a container can't stop or start others; \"read\" lets it ask how they are")];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_the_container() {
        let read = |text: &str| HttpUrl::parse(text).ok().map(|url| (url.port, url.path));
        let some = |port, path: &str| Some((port, path.to_owned()));
        for (text, url) in [
            ("http://localhost:8080/health", some(8080, "/health")),
            ("http://localhost", some(80, "/")),
            ("http://127.0.0.1/a?b=c", some(80, "/a?b=c")),
            ("http://[::1]:81?x", some(81, "/?x")),
            ("http://[::1]", some(80, "/")),
            ("http://example.org/", None),
            ("https://localhost/", None),
            ("localhost:80", None),
            ("http://localhost:0/", None),
            ("http://localhost:+80/", None),
            ("http://localhost:080/", None),
            ("http://localhost:65536/", None),
            ("http://localhost/a b", None),
            ("http://localhost/a\r\nHost: x", None),
            ("http://localhost/#x", None),
            ("http://user@localhost/", None),
        ] {
            assert_eq!(read(text), url, "{text:?}");
        }
    }
}
