//! How one container is watched.

use std::time::Duration;

use super::value;
use crate::keys::{ContainerKeys, HealthKeys, HealthWords, OnUnhealthy};
use crate::problems::Problems;
use crate::read::Field;
use crate::supervision::{HealthCheck, HealthTest, Supervision};
use crate::syntax::Period;

const DEFAULT_START_TIMEOUT: Duration = Duration::from_secs(60);

pub(super) fn supervision(keys: &mut ContainerKeys, problems: &mut Problems) -> Supervision {
    let notify = keys.notify.as_ref().is_some_and(|field| field.value.0);
    if let Some(field) = keys.watchdog.as_ref().filter(|_| !notify) {
        problems
            .error(&field.key, "`watchdog` without `notify`: the container couldn't say that it lives")
            .help("add notify = true if its program calls sd_notify, or use a `healthcheck`");
    }
    let watchdog = keys.watchdog.take().map(|field| long_enough(field, problems));
    Supervision {
        notify,
        start_timeout: keys.start_timeout.take().map_or(DEFAULT_START_TIMEOUT, |field| long_enough(field, problems)),
        watchdog,
        health: match keys.healthcheck.take() {
            Some(field) => health_check(field.value, problems),
            None => Some(HealthCheck::default()),
        },
        on_failure: value(keys.on_failure.take()).unwrap_or_default(),
        reads_status: keys.status.is_some(),
    }
}

/// The check; `None`: there is to be none.
fn health_check(keys: HealthKeys, problems: &mut Problems) -> Option<HealthCheck> {
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
    let test = match (keys.test, keys.tcp, keys.http) {
        (Some(Field { value: HealthWords::Exec(words), .. }), ..) => Some(HealthTest::Exec(words)),
        (_, Some(port), _) => u16::try_from(port.value.get()).ok().map(HealthTest::Tcp),
        (_, _, Some(url)) => Some(HealthTest::Http { port: url.value.port, path: url.value.path }),
        _ => None,
    };
    let health = HealthCheck {
        test,
        interval: keys.interval.map(|field| long_enough(field, problems)),
        timeout: keys.timeout.map(|field| long_enough(field, problems)),
        retries: keys.retries.and_then(|field| u32::try_from(field.value.get()).ok()),
        start_period: value(keys.start_period).map(|period| period.0),
        start_interval: keys.start_interval.map(|field| long_enough(field, problems)),
        restart: !matches!(value(keys.on_unhealthy), Some(OnUnhealthy::Ignore)),
    };
    (!disabled && !none).then_some(health)
}

/// A declared duration, noted if it is too short to be meant.
fn long_enough(field: Field<Period>, problems: &mut Problems) -> Duration {
    if field.value.0 < HealthCheck::SHORTEST {
        problems.error(&field.span, "less than a tenth of a second is too short").help("write \"100ms\" or more");
    }
    field.value.0
}
