//! How a container is asked whether it works: its `healthcheck` over its image's HEALTHCHECK, field by field, as Docker does it.

use std::time::Duration;

use anyhow::Result;
use garboard_config as config;
use garboard_runtime::plan::{HealthCheck, HealthTest};
use garboard_runtime::spec;
use serde::Deserialize;

use super::faults;
use super::plan::{Compiled, millis};

/// Docker's, and Compose's.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(30);
const DEFAULT_START_INTERVAL: Duration = Duration::from_secs(5);
const DEFAULT_RETRIES: u32 = 3;
/// As for what is declared: nothing in an appliance should wait longer.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
/// An image's test has so many bytes at most; the kernel takes 128 KiB as one argument.
const TEST_LIMIT: usize = 64 << 10;

/// What of an image's configuration is about its health check. Docker alone has it there.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Configuration {
    config: Option<Inner>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Inner {
    healthcheck: Option<Own>,
    /// SHELL: what executes a script.
    shell: Option<Vec<String>>,
}

/// Times are in nanoseconds; 0: not said.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Own {
    test: Option<Vec<String>>,
    interval: i64,
    timeout: i64,
    start_period: i64,
    start_interval: i64,
    retries: i64,
}

/// The check of a container whose image has this configuration. What the declaration overrides may be wrong in the image.
pub fn of(container: &config::Container, image: &[u8]) -> Result<Option<HealthCheck>> {
    let Some(declared) = &container.supervision.health else { return Ok(None) };
    let Inner { healthcheck, shell } = serde_json::from_slice::<Configuration>(image)
        .map_err(|error| wrong(&format!("it can't be read: {error}")))?
        .config
        .unwrap_or_default();
    let own = healthcheck.unwrap_or_default();
    let test = match &declared.test {
        Some(declared) => Some(test(declared)),
        None => own_test(own.test.unwrap_or_default(), shell)?,
    };
    let Some(test) = test else {
        return if declared.is_undeclared() { Ok(None) } else { Err(nothing_asked()) };
    };
    let time = |declared: Option<Duration>, own, name, shortest, default| match declared {
        Some(declared) => Ok(millis(declared)),
        None => own_time(own, name, shortest, default).map(millis),
    };
    let shortest = config::HealthCheck::SHORTEST;
    Ok(Some(HealthCheck {
        test,
        interval_ms: time(declared.interval, own.interval, "interval", shortest, DEFAULT_INTERVAL)?,
        timeout_ms: time(declared.timeout, own.timeout, "timeout", shortest, DEFAULT_INTERVAL)?,
        retries: match declared.retries {
            Some(declared) => declared,
            None => own_retries(own.retries)?,
        },
        start_period_ms: time(declared.start_period, own.start_period, "start_period", Duration::ZERO, Duration::ZERO)?,
        start_interval_ms: time(
            declared.start_interval,
            own.start_interval,
            "start_interval",
            shortest,
            DEFAULT_START_INTERVAL,
        )?,
        restart: declared.restart,
    }))
}

fn test(declared: &config::HealthTest) -> HealthTest {
    match declared {
        config::HealthTest::Exec(words) => HealthTest::Exec(words.clone()),
        config::HealthTest::Tcp(port) => HealthTest::Tcp(*port),
        config::HealthTest::Http { port, path } => HealthTest::Http { port: *port, path: path.clone() },
    }
}

/// The image's test, if it has one.
fn own_test(words: Vec<String>, shell: Option<Vec<String>>) -> Result<Option<HealthTest>> {
    let Some((kind, words)) = words.split_first() else { return Ok(None) };
    let shell =
        shell.filter(|shell| !shell.is_empty()).unwrap_or_else(|| ["/bin/sh", "-c"].map(str::to_owned).to_vec());
    let words = match kind.as_str() {
        "NONE" => return Ok(None),
        "CMD" => words.to_vec(),
        "CMD-SHELL" if !words.is_empty() => [shell.as_slice(), words].concat(),
        _ => return Err(wrong("its test isn't one of CMD, CMD-SHELL and NONE with what belongs to it")),
    };
    if words.first().is_none_or(String::is_empty) {
        return Err(wrong("its test names no program"));
    }
    if words.iter().any(|word| word.contains('\0')) {
        return Err(wrong("its test has a zero byte, which no program can be given"));
    }
    if words.iter().map(String::len).sum::<usize>() > TEST_LIMIT {
        return Err(wrong(&format!("its test is longer than {} KiB", TEST_LIMIT >> 10)));
    }
    Ok(Some(HealthTest::Exec(words)))
}

fn own_time(nanoseconds: i64, name: &str, shortest: Duration, default: Duration) -> Result<Duration> {
    let known = match u64::try_from(nanoseconds) {
        Ok(0) => Some(default),
        Ok(given) => Some(Duration::from_nanos(given)).filter(|given| (shortest..=LONGEST).contains(given)),
        Err(_) => None,
    };
    known.ok_or_else(|| {
        let range = if shortest.is_zero() { "up to a day".to_owned() } else { format!("from {shortest:?} to a day") };
        wrong(&format!("its {name} of {nanoseconds} ns isn't {range}"))
    })
}

fn own_retries(given: i64) -> Result<u32> {
    match u32::try_from(given) {
        Ok(0) => Ok(DEFAULT_RETRIES),
        Ok(given) if given <= config::HealthCheck::MOST_RETRIES => Ok(given),
        _ => Err(wrong(&format!("its retries of {given} aren't from 1 to {}", config::HealthCheck::MOST_RETRIES))),
    }
}

fn wrong(what: &str) -> anyhow::Error {
    let way = "declare it in `healthcheck`, or healthcheck = { disable = true }";
    spec::Error::new("healthcheck", format!("the image's HEALTHCHECK can't be used, {what}: {way}")).into()
}

fn nothing_asked() -> anyhow::Error {
    let what = "it asks nothing, as the image has no HEALTHCHECK to go with it: add test = [\"CMD\", \"program\"], tcp = 80 or \
                http = \"http://localhost/\"";
    spec::Error::new("healthcheck", what).into()
}

/// Containers that wait until another one is healthy that nobody asks.
pub fn waited_for_in_vain(appliance: &config::Appliance, compiled: &[Compiled]) -> Vec<config::Fault> {
    let unasked = |name: &str| {
        let other = appliance.containers.iter().zip(compiled).find(|(other, _)| other.name == name);
        other.is_some_and(|(_, compiled)| compiled.health.is_none())
    };
    let mut found = Vec::new();
    for container in &appliance.containers {
        for dependency in &container.depends_on {
            if dependency.condition == config::Condition::Healthy && unasked(&dependency.container) {
                let other = &dependency.container;
                let what = format!("{other} has no `healthcheck`, nor has its image, so it is never healthy");
                found.push(faults::of_container(container, &spec::Error::new("depends_on", what).into()));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    /// The check of a container with these keys whose image has this HEALTHCHECK.
    fn check(keys: &str, own: &str) -> Result<Option<HealthCheck>, String> {
        let appliance = testing::appliance(&format!("name = \"x\"\n[containers.a]\nimage = \"i\"\n{keys}\n"));
        let image = format!(r#"{{"architecture":"amd64","config":{{"User":"x","Healthcheck":{own}}}}}"#);
        of(&appliance.containers[0], image.as_bytes()).map_err(|error| format!("{error:#}"))
    }

    fn exec(words: &[&str]) -> HealthTest {
        HealthTest::Exec(words.iter().map(|word| (*word).to_owned()).collect())
    }

    const OWN: &str = r#"{"Test":["CMD","ask","it"],"Interval":2000000000,"Timeout":3000000000,"StartPeriod":4000000000,
        "StartInterval":500000000,"Retries":7}"#;

    #[test]
    fn an_image_s_own_is_asked_as_it_says() {
        let expected = HealthCheck {
            test: exec(&["ask", "it"]),
            interval_ms: 2000,
            timeout_ms: 3000,
            retries: 7,
            start_period_ms: 4000,
            start_interval_ms: 500,
            restart: true,
        };
        assert_eq!(check("", OWN), Ok(Some(expected)));
        let defaults = check("", r#"{"Test":["CMD-SHELL","a || b"],"Interval":0}"#).unwrap().unwrap();
        assert_eq!(defaults.test, exec(&["/bin/sh", "-c", "a || b"]));
        let times = [defaults.interval_ms, defaults.timeout_ms, defaults.start_period_ms, defaults.start_interval_ms];
        assert_eq!((times, defaults.retries), ([30_000, 30_000, 0, 5_000], 3));
    }

    #[test]
    fn a_script_is_for_the_image_s_shell() {
        let image = br#"{"config":{"Shell":["/bin/bash","-ec"],"Healthcheck":{"Test":["CMD-SHELL","x"]}}}"#;
        let appliance = testing::appliance("name = \"x\"\n[containers.a]\nimage = \"i\"\n");
        let made = of(&appliance.containers[0], image).unwrap().unwrap();
        assert_eq!(made.test, exec(&["/bin/bash", "-ec", "x"]));
    }

    #[test]
    fn what_is_declared_comes_first_field_by_field() {
        let own = check("", OWN).unwrap().unwrap();
        let slower = check("healthcheck = { interval = \"1m\" }", OWN);
        assert_eq!(slower, Ok(Some(HealthCheck { interval_ms: 60_000, ..own.clone() })));
        let shown = check("healthcheck = { on_unhealthy = \"ignore\", start_period = \"0s\", retries = 1 }", OWN);
        let expected = HealthCheck { restart: false, start_period_ms: 0, retries: 1, ..own.clone() };
        assert_eq!(shown, Ok(Some(expected)));
        let other = check("healthcheck = { tcp = 80 }", OWN);
        assert_eq!(other, Ok(Some(HealthCheck { test: HealthTest::Tcp(80), ..own })));
        let alone = check("healthcheck = { tcp = 80 }", r#"{"Test":["NONE"]}"#).unwrap().unwrap();
        assert_eq!((alone.test, alone.interval_ms), (HealthTest::Tcp(80), 30_000));
    }

    #[test]
    fn none_is_none() {
        for own in ["null", "{}", r#"{"Test":[]}"#, r#"{"Test":null,"Interval":5}"#, r#"{"Test":["NONE"]}"#] {
            assert_eq!(check("", own), Ok(None), "{own}");
            let error = check("healthcheck = { interval = \"1s\" }", own).unwrap_err();
            assert!(error.contains("asks nothing"), "{own}: {error}");
        }
        for off in ["disable = true", "test = [\"NONE\"]", "disable = true, interval = \"1s\""] {
            assert_eq!(check(&format!("healthcheck = {{ {off} }}"), OWN), Ok(None), "{off}");
        }
        let appliance = testing::appliance("name = \"x\"\n[containers.a]\nimage = \"i\"\n");
        for image in ["{}", r#"{"config":null}"#, r#"{"config":{}}"#] {
            assert_eq!(of(&appliance.containers[0], image.as_bytes()).unwrap(), None, "{image}");
        }
    }

    #[test]
    fn what_can_not_be_asked_is_refused_unless_it_is_overridden() {
        let long = format!(r#"{{"Test":["CMD","{}"]}}"#, "x".repeat(TEST_LIMIT + 1));
        let day = 24 * 60 * 60 * 1_000_000_000_i64;
        let with = |field: &str| format!(r#"{{"Test":["CMD","x"],{field}}}"#);
        for (own, words, instead) in [
            (r#"{"Test":["CMD"]}"#.to_owned(), "names no program", "tcp = 1"),
            (r#"{"Test":["CMD",""]}"#.to_owned(), "names no program", "tcp = 1"),
            (r#"{"Test":["CMD-SHELL"]}"#.to_owned(), "CMD-SHELL", "tcp = 1"),
            (r#"{"Test":["curl","x"]}"#.to_owned(), "CMD-SHELL", "tcp = 1"),
            (r#"{"Test":["CMD","a\u0000b"]}"#.to_owned(), "zero byte", "tcp = 1"),
            (long, "longer than 64 KiB", "tcp = 1"),
            (with("\"Interval\":1000000"), "interval of 1000000 ns isn't from 100ms to a day", "interval = \"1s\""),
            (with("\"Interval\":-1"), "interval of -1 ns", "interval = \"1s\""),
            (with(&format!("\"Timeout\":{}", day + 1)), "timeout of", "timeout = \"1s\""),
            (with("\"StartPeriod\":-5"), "start_period of -5 ns isn't up to a day", "start_period = \"1s\""),
            (with("\"StartInterval\":1"), "start_interval of 1 ns", "start_interval = \"1s\""),
            (with("\"Retries\":1001"), "retries of 1001", "retries = 1"),
            (with("\"Retries\":-1"), "retries of -1", "retries = 1"),
            (with("\"Retries\":\"many\""), "can't be read", "disable = true"),
            ("\"often\"".to_owned(), "can't be read", "disable = true"),
        ] {
            let error = check("", &own).unwrap_err();
            assert!(error.contains(words) && error.contains("disable = true"), "{error}");
            assert!(check(&format!("healthcheck = {{ {instead} }}"), &own).is_ok(), "{own} with {instead}");
        }
    }

    #[test]
    fn nobody_waits_for_the_health_of_one_that_is_not_asked() {
        let text = "name = \"x\"\n[containers.a]\nimage = \"i\"\n[containers.b]\nimage = \"i\"\n\
                    depends_on = { a = { condition = \"service_healthy\" } }\n";
        let appliance = testing::appliance(text);
        let found = |image: &[u8]| {
            let compiled = appliance.containers.iter().map(|container| Compiled {
                launch: testing::launch(),
                stop_signal: 15,
                exposed_ports: Vec::new(),
                health: of(container, image).unwrap(),
                warnings: Vec::new(),
            });
            waited_for_in_vain(&appliance, &compiled.collect::<Vec<_>>())
        };
        assert_eq!(found(br#"{"config":{"Healthcheck":{"Test":["CMD","x"]}}}"#), []);
        let faults = found(b"{}");
        let errors = garboard_config::place("x", text, faults);
        let places: Vec<_> = errors.iter().map(|error| (error.place.line, error.message.as_str())).collect();
        let message = "container b: depends_on: a has no `healthcheck`, nor has its image, so it is never healthy";
        assert_eq!(places, [(6, message)]);
    }
}
