//! How a container is watched, in the declaration's words.

use garboard_runtime::plan::{HealthTest, OnFailure, Supervision};

/// One entry for each thing that was declared.
pub fn words(supervision: &Supervision) -> Vec<String> {
    let mut words = Vec::new();
    if supervision.notify {
        words.push(format!("notify within {}", seconds(supervision.start_timeout_ms)));
    }
    if let Some(longest) = supervision.watchdog_ms {
        words.push(format!("watchdog {}", seconds(longest)));
    }
    if let Some(health) = &supervision.health {
        let test = match &health.test {
            HealthTest::Exec(words) => words.join(" "),
            HealthTest::Tcp(port) => format!("TCP port {port}"),
            HealthTest::Http { port, path } => format!("http://localhost:{port}{path}"),
        };
        let follows = if health.restart { "restart" } else { "ignore" };
        words.push(format!("healthcheck {test}, every {}, {follows}", seconds(health.interval_ms)));
    }
    match supervision.on_failure {
        OnFailure::Ignore => {}
        OnFailure::Restart => words.push("on_failure restart".to_owned()),
        OnFailure::Reboot => words.push("on_failure reboot".to_owned()),
        OnFailure::PowerOff => words.push("on_failure poweroff".to_owned()),
    }
    words
}

fn seconds(ms: u64) -> String {
    if ms.is_multiple_of(1000) { format!("{}s", ms / 1000) } else { format!("{ms}ms") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use garboard_runtime::plan::HealthCheck;

    #[test]
    fn what_is_declared_is_told() {
        assert!(words(&Supervision::default()).is_empty());
        let health = HealthCheck {
            test: HealthTest::Http { port: 80, path: "/x".into() },
            interval_ms: 1500,
            timeout_ms: 1,
            retries: 1,
            start_period_ms: 0,
            start_interval_ms: 1,
            restart: false,
        };
        let all = Supervision {
            notify: true,
            start_timeout_ms: 5000,
            watchdog_ms: Some(30_000),
            health: Some(health),
            on_failure: OnFailure::Reboot,
        };
        let expected = [
            "notify within 5s",
            "watchdog 30s",
            "healthcheck http://localhost:80/x, every 1500ms, ignore",
            "on_failure reboot",
        ];
        assert_eq!(words(&all), expected);
    }
}
