//! How one container is watched.

use std::time::Duration;

use super::value;
use crate::keys::{ContainerKeys, HealthKeys, HealthWords, OnUnhealthy};
use crate::problems::Problems;
use crate::read::{Field, Table};
use crate::supervision::{HealthCheck, HealthTest, Supervision};
use crate::syntax::Period;

const DEFAULT_START_TIMEOUT: Duration = Duration::from_secs(60);
/// Compose's.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(30);
const DEFAULT_START_INTERVAL: Duration = Duration::from_secs(5);
const DEFAULT_RETRIES: u32 = 3;
/// Asked more often, the answers would be most of what the machine does.
const SHORTEST: Duration = Duration::from_millis(100);

pub(super) fn supervision(keys: &mut ContainerKeys, problems: &mut Problems) -> Supervision {
    let notify = keys.notify.as_ref().is_some_and(|field| field.value.0);
    if let Some(field) = keys.watchdog.as_ref().filter(|_| !notify) {
        problems
            .error(&field.key, "`watchdog` without `notify`: the container couldn't say that it lives")
            .help("add notify = true if its program calls sd_notify, or use a `healthcheck`");
    }
    let watchdog = keys.watchdog.is_some().then(|| long_enough(keys.watchdog.take(), Duration::ZERO, problems));
    Supervision {
        notify,
        start_timeout: long_enough(keys.start_timeout.take(), DEFAULT_START_TIMEOUT, problems),
        watchdog,
        health: keys.healthcheck.take().and_then(|field| health_check(field, problems)),
        on_failure: value(keys.on_failure.take()).unwrap_or_default(),
        reads_status: keys.status.is_some(),
    }
}

/// The check; `None`: there is none, or it is wrong.
fn health_check(field: Field<HealthKeys>, problems: &mut Problems) -> Option<HealthCheck> {
    let Field { key: place, value: keys, .. } = field;
    let disabled = keys.disable.as_ref().is_some_and(|field| field.value.0);
    let none = matches!(keys.test.as_ref().map(|field| &field.value), Some(HealthWords::None));
    let ways = [
        keys.test.as_ref().map(|field| field.key.clone()),
        keys.tcp.as_ref().map(|field| field.key.clone()),
        keys.http.as_ref().map(|field| field.key.clone()),
    ];
    let mut given = ways.into_iter().flatten();
    let first = given.next();
    if let (Some(first), Some(second)) = (&first, &given.next()) {
        problems
            .error(second, "a health check asks one question")
            .help("leave out one of `test`, `tcp` and `http`")
            .related(first, "asked here already");
    }
    let unread = ["test", "tcp", "http"].into_iter().any(|key| keys.given(key));
    if first.is_none() && !disabled && !unread {
        problems.error(&place, "this health check asks nothing").help(
            "add test = [\"CMD\", \"program\"], tcp = 80 or http = \"http://localhost/\"; or disable = true for no check",
        );
    }
    let test = match (keys.test, keys.tcp, keys.http) {
        (Some(Field { value: HealthWords::Exec(words), .. }), ..) => Some(HealthTest::Exec(words)),
        (_, Some(port), _) => u16::try_from(port.value.get()).ok().map(HealthTest::Tcp),
        (_, _, Some(url)) => Some(HealthTest::Http { port: url.value.port, path: url.value.path }),
        _ => None,
    };
    let interval = long_enough(keys.interval, DEFAULT_INTERVAL, problems);
    let timeout = long_enough(keys.timeout, DEFAULT_INTERVAL, problems);
    let start_interval = long_enough(keys.start_interval, DEFAULT_START_INTERVAL, problems);
    let health = HealthCheck {
        test: test?,
        interval,
        timeout,
        retries: keys.retries.and_then(|field| u32::try_from(field.value.get()).ok()).unwrap_or(DEFAULT_RETRIES),
        start_period: value(keys.start_period).map_or(Duration::ZERO, |period| period.0),
        start_interval,
        restart: !matches!(value(keys.on_unhealthy), Some(OnUnhealthy::Ignore)),
    };
    (!disabled && !none).then_some(health)
}

/// A declared duration, noted if it is too short to be meant.
fn long_enough(field: Option<Field<Period>>, default: Duration, problems: &mut Problems) -> Duration {
    let Some(field) = field else { return default };
    if field.value.0 < SHORTEST {
        problems.error(&field.span, "less than a tenth of a second is too short").help("write \"100ms\" or more");
    }
    field.value.0
}
