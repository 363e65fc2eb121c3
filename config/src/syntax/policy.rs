//! `restart` and `security_opt`.

use serde_json::{Value, json};

use super::digits::decimal;
use super::path::FilePath;
use crate::container::{Restart, Seccomp};
use crate::errors::quote;
use crate::read::{Fault, Word, nearest};

/// `restart`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RestartPolicy(pub(crate) Restart);

/// One entry of `security_opt`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SecurityOption {
    NoNewPrivileges(bool),
    Seccomp(Seccomp),
}

impl Word for RestartPolicy {
    const EXPECTED: &'static str = "a restart policy such as \"always\"";

    fn parse(text: &str) -> Result<Self, Fault> {
        let policy = match text {
            "no" => Restart::No,
            "always" => Restart::Always,
            "on-failure" => Restart::OnFailure(None),
            "unless-stopped" => Restart::UnlessStopped,
            _ => match text.strip_prefix("on-failure:") {
                Some(times) => Restart::OnFailure(Some(retries(times)?)),
                None => return Err(unknown(text)),
            },
        };
        Ok(Self(policy))
    }

    fn word_schema() -> Value {
        json!({ "type": "string", "pattern": "^(no|always|on-failure(:[1-9][0-9]*)?|unless-stopped)$" })
    }
}

fn retries(text: &str) -> Result<u32, Fault> {
    decimal::<u32>(text).filter(|times| *times > 0).ok_or_else(|| {
        Fault::new(format!("{} isn't a number of restarts", quote(text)))
            .help("write \"on-failure:3\", or \"no\" for none at all")
    })
}

fn unknown(text: &str) -> Fault {
    let fault = Fault::new(format!("{} isn't a restart policy", quote(text)));
    match nearest(text, ["always", "on-failure", "unless-stopped"]) {
        Some(word) => fault.help(format!("did you mean \"{word}\"?")),
        None => fault.help("write one of: \"no\", \"always\", \"on-failure\", \"on-failure:3\", \"unless-stopped\""),
    }
}

impl Word for SecurityOption {
    const EXPECTED: &'static str = "a security option such as \"no-new-privileges:true\"";

    fn parse(text: &str) -> Result<Self, Fault> {
        let separator = text.find(['=', ':']);
        let (name, value) = match separator {
            Some(at) => (&text[..at], Some(&text[at + 1..])),
            None => (text, None),
        };
        match (name, value) {
            ("no-new-privileges", None | Some("true")) => Ok(Self::NoNewPrivileges(true)),
            ("no-new-privileges", Some("false")) => Ok(Self::NoNewPrivileges(false)),
            ("seccomp", Some("default" | "builtin")) => Ok(Self::Seccomp(Seccomp::Default)),
            ("seccomp", Some("unconfined")) => Ok(Self::Seccomp(Seccomp::Unconfined)),
            ("seccomp", Some(path)) => FilePath::parse(path).map(|path: FilePath| Self::Seccomp(Seccomp::Profile(path.0))),
            ("apparmor" | "label" | "systempaths", _) => {
                Err(Fault::new(format!("the security option {} isn't supported here yet", quote(name))).help("leave it out"))
            }
            _ => Err(Fault::new(format!("{} isn't a security option", quote(text)))
                .help("write one of: \"no-new-privileges:true\", \"no-new-privileges:false\", \"seccomp=unconfined\", \"seccomp=FILE\"")),
        }
    }

    fn word_schema() -> Value {
        json!({ "type": "string", "pattern": "^(no-new-privileges([:=](true|false))?|seccomp[:=].+)$" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restart_policies() {
        for (text, policy) in [
            ("no", Some(Restart::No)),
            ("always", Some(Restart::Always)),
            ("on-failure", Some(Restart::OnFailure(None))),
            ("on-failure:3", Some(Restart::OnFailure(Some(3)))),
            ("unless-stopped", Some(Restart::UnlessStopped)),
            ("on-failure:0", None),
            ("on-failure:", None),
            ("on-failure:+3", None),
            ("on-failure:03", None),
            ("on-failure:x", None),
            ("Always", None),
            ("", None),
        ] {
            assert_eq!(RestartPolicy::parse(text).ok().map(|policy| policy.0), policy, "{text:?}");
        }
        assert_eq!(RestartPolicy::parse("on_failure").unwrap_err().help.unwrap(), "did you mean \"on-failure\"?");
    }

    #[test]
    fn security_options() {
        for text in ["no-new-privileges", "no-new-privileges:true", "no-new-privileges=true"] {
            assert_eq!(SecurityOption::parse(text), Ok(SecurityOption::NoNewPrivileges(true)), "{text}");
        }
        assert_eq!(SecurityOption::parse("no-new-privileges:false"), Ok(SecurityOption::NoNewPrivileges(false)));
        assert_eq!(SecurityOption::parse("seccomp:unconfined"), Ok(SecurityOption::Seccomp(Seccomp::Unconfined)));
        assert_eq!(SecurityOption::parse("seccomp=default"), Ok(SecurityOption::Seccomp(Seccomp::Default)));
        assert_eq!(
            SecurityOption::parse("seccomp=a:b.json"),
            Ok(SecurityOption::Seccomp(Seccomp::Profile("a:b.json".into())))
        );
        for text in ["", "seccomp", "seccomp=", "no-new-privileges:yes", "apparmor=unconfined", "label:disable", "foo"]
        {
            assert!(SecurityOption::parse(text).is_err(), "{text:?}");
        }
    }
}
