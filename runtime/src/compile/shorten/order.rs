//! In which order ranges of numbers are told apart.
//!
//! A filter is looked through for every system call when it is loaded, so that those it always allows needn't ask it; a range with many
//! numbers is best found early. And a jump of which both ways lead elsewhere is two jumps to the kernel, which goes through all jumps
//! for each constant that it hides: a range that leads straight to an answer is best told from ranges that don't.

/// A range, to whoever only puts it in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Weight {
    /// How many system calls there are in it.
    pub(super) calls: u32,
    /// It leads to steps that stand elsewhere, such as an answer.
    pub(super) elsewhere: bool,
}

/// What a jump too many costs, in steps looked at. Between 60 (constants are not hidden) and 300 (they are).
const JUMP_TOO_MANY: u32 = 200;
/// So many ranges are put in order by looking at all orders; the work grows with the third power.
const MOST: usize = 128;

/// How to tell ranges apart: where to divide them, and then each part.
#[derive(Debug)]
pub(super) struct Order {
    /// For each range: what it costs at least to tell apart those that begin there, by how many they are, and how many of them are below
    /// the first division then.
    best: Vec<Vec<(u32, usize)>>,
}

impl Order {
    pub(super) fn of(weights: &[Weight]) -> Self {
        let ranges = if weights.len() > MOST { &[] } else { weights };
        let mut best: Vec<Vec<(u32, usize)>> = vec![vec![(0, 0); 2]; ranges.len()];
        for length in 2..=ranges.len() {
            for (first, together) in ranges.windows(length).enumerate() {
                let (least, below) = cheapest(&best, first, length);
                let twice = matches!(together, [Weight { elsewhere: true, .. }, Weight { elsewhere: true, .. }]);
                let calls = together.iter().fold(0_u32, |sum, weight| sum.saturating_add(weight.calls));
                let jump = if twice { JUMP_TOO_MANY } else { 0 };
                if let Some(of) = best.get_mut(first) {
                    of.push((least.saturating_add(calls).saturating_add(jump), below));
                }
            }
        }
        Self { best }
    }

    /// How many of `length` ranges, two at least, from the one at `first` on are told from the others by the first test.
    pub(super) fn below(&self, first: usize, length: usize) -> usize {
        self.best.get(first).and_then(|lengths| lengths.get(length)).map_or(length / 2, |(_, below)| *below)
    }
}

/// The least cost of both parts, and how many are in the lower one.
fn cheapest(best: &[Vec<(u32, usize)>], first: usize, length: usize) -> (u32, usize) {
    let cost = |first: usize, length: usize| best.get(first).and_then(|of| of.get(length)).map_or(u32::MAX, |of| of.0);
    let ways = (1..length).map(|below| {
        let (middle, above) = (first.saturating_add(below), length.saturating_sub(below));
        (cost(first, below).saturating_add(cost(middle, above)), below)
    });
    ways.min().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights(calls: &[u32]) -> Vec<Weight> {
        calls.iter().map(|calls| Weight { calls: *calls, elsewhere: true }).collect()
    }

    #[test]
    fn a_range_with_many_calls_is_found_first() {
        assert_eq!(Order::of(&weights(&[1000, 1, 1, 1])).below(0, 4), 1);
        assert_eq!(Order::of(&weights(&[1, 1, 1, 1000])).below(0, 4), 3);
    }

    #[test]
    fn a_jump_too_many_is_avoided() {
        // Halves would end in two pairs, of which each is two jumps.
        let order = Order::of(&weights(&[1, 1, 1, 1]));
        assert_ne!(order.below(0, 4), 2);
        let near: Vec<Weight> =
            weights(&[1; 4]).into_iter().map(|weight| Weight { elsewhere: false, ..weight }).collect();
        assert_eq!(Order::of(&near).below(0, 4), 2);
    }

    #[test]
    fn a_great_many_are_halved() {
        let order = Order::of(&weights(&[1; 2 * MOST]));
        assert_eq!((order.below(0, 2 * MOST), order.below(5, 7)), (MOST, 3));
    }
}
