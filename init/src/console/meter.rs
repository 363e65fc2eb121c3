//! How busy each container is, from how much processor time it has used by then and by now.

/// Shorter times say little, in milliseconds.
const SHORTEST_MS: u64 = 900;

/// The last look, and what it said.
#[derive(Debug, Default)]
pub struct Meter {
    at: Option<u64>,
    used_us: Vec<u64>,
    /// Thousandths of one processor.
    load: Vec<Option<u64>>,
}

impl Meter {
    /// Whether enough time has passed for another look.
    pub fn is_due(&self, now: u64) -> bool {
        self.at.is_none_or(|at| now.saturating_sub(at) >= SHORTEST_MS)
    }

    /// Looks at `now` (milliseconds) at how much each has used (microseconds); too soon after the last look, it doesn't.
    pub fn look(&mut self, now: u64, used_us: impl Iterator<Item = u64>) {
        if !self.is_due(now) {
            return;
        }
        let passed = self.at.map(|at| now.saturating_sub(at));
        let used_us: Vec<u64> = used_us.collect();
        let load = |(index, used): (usize, &u64)| {
            // Less than before: its cgroup is a new one.
            let more = used.checked_sub(*self.used_us.get(index)?)?;
            more.checked_div(passed?)
        };
        self.load = used_us.iter().enumerate().map(load).collect();
        (self.at, self.used_us) = (Some(now), used_us);
    }

    /// Of one processor, for people: `0.3%`, `250%`.
    pub fn text(&self, index: usize) -> String {
        match self.load.get(index).copied().flatten() {
            None => "-".to_owned(),
            Some(load @ 0..100) => {
                format!("{}.{}%", load.checked_div(10).unwrap_or(0), load.checked_rem(10).unwrap_or(0))
            }
            Some(load) => format!("{}%", load.checked_div(10).unwrap_or(0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_shares_of_a_processor() {
        let mut meter = Meter::default();
        meter.look(1_000, [5_000_000, 0, 9_000].into_iter());
        assert_eq!(meter.text(0), "-", "one look says nothing");
        meter.look(1_500, [6_000_000, 0, 0].into_iter());
        assert_eq!(meter.text(0), "-", "too soon");
        meter.look(2_000, [7_500_000, 3_000, 0].into_iter());
        assert_eq!([0, 1, 2, 3].map(|i| meter.text(i)), ["250%", "0.3%", "-", "-"]);
    }
}
