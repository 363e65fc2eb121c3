//! A filter of the same meaning in fewer steps.
//!
//! libseccomp compares a call's number with every one that a profile names. The kernel checks and compiles those hundreds of steps at each
//! start of a container, and where it hides constants from attackers (`net.core.bpf_jit_harden`), it copies all of them again for each one.
//! But most numbers have neighbours with the same answer: only the ends of such ranges have to be told apart, and single numbers in
//! them. Steps that look at arguments stay what they are.

mod order;

use std::collections::{BTreeSet, HashMap};

use self::order::{Order, Weight};
use super::bpf::{
    AND, ARCHITECTURE, ARGUMENTS, IF_ANY_BIT, IF_EQUAL, IF_GREATER, IF_GREATER_EQUAL, JUMP, LOAD, NUMBER, RETURN, Step,
};

/// A conditional jump's offset is a byte; this leaves room for steps in between.
const FAR: usize = 250;
/// A range has so many exceptions at most: they are looked for one after the other.
const EXCEPTIONS: usize = 4;
/// A call's arguments are compared so many times in a row at most: each takes some of the stack here.
const DEEPEST: usize = 512;
/// Numbers from this one on are no system calls in any kernel so far.
const CALLS: u32 = 512;

/// What the accumulator holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Holds {
    Number,
    Architecture,
    Argument,
    /// Nothing of an argument: a mask has left none of its bits.
    Zero,
}

/// What a call gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Answer(u32),
    /// It depends on arguments.
    Depends,
}

/// The shorter filter; `None` if this one isn't of the kind that can be shortened: with one answer for all but a few architectures.
pub(super) fn shorten(filter: &[u8]) -> Option<Vec<u8>> {
    let (steps, rest) = filter.as_chunks::<8>();
    let steps: Vec<Step> = steps.iter().map(|bytes| Step::from_bytes(*bytes)).collect();
    if !rest.is_empty() {
        return None;
    }
    // Values between two of these can't be told apart, neither numbers nor architectures.
    let compared = steps.iter().filter(|step| !matches!(step.code, LOAD | JUMP | RETURN | AND)).map(|step| step.k);
    let limits: BTreeSet<u32> = compared.flat_map(|k| [Some(k), k.checked_add(1)]).flatten().chain([0]).collect();

    let of = |architecture| Source { steps: &steps, architecture };
    let foreign = of(0).outcome(None)?;
    let Outcome::Answer(answer) = foreign else { return None };
    let mut target = Backwards::default();
    let mut next = target.answer(answer);
    for architecture in limits.iter().copied().filter(|architecture| of(*architecture).outcome(None) != Some(foreign)) {
        // Nothing but equality finds it below.
        if !limits.contains(&architecture.checked_add(1)?) {
            return None;
        }
        let calls = target.calls(of(architecture), &limits)?;
        next = target.test(Step::plain(IF_EQUAL, architecture), calls, next);
    }
    target.load(ARCHITECTURE, next);
    let shorter: Vec<u8> = target.steps.iter().rev().flat_map(|step| step.to_bytes()).collect();
    (shorter.len() < filter.len()).then_some(shorter)
}

/// What the numbers of a range lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaf {
    Answer(u32),
    /// The place of what looks at arguments.
    Place(usize),
}

/// Numbers, up to where the next range begins.
#[derive(Debug, Clone)]
struct Range {
    first: u32,
    leaf: Leaf,
    /// Single numbers that lead elsewhere.
    exceptions: Vec<(u32, Leaf)>,
}

/// The filter for calls of one architecture.
#[derive(Clone, Copy)]
struct Source<'a> {
    steps: &'a [Step],
    architecture: u32,
}

impl Source<'_> {
    /// The accumulator's value, if it is no argument's.
    fn known(self, holds: Holds, number: Option<u32>) -> Option<u32> {
        match holds {
            Holds::Number => number,
            Holds::Architecture => Some(self.architecture),
            Holds::Argument => None,
            Holds::Zero => Some(0),
        }
    }

    /// What calls with this number get, or all of them. `None`: it isn't known how to say that.
    fn outcome(self, number: Option<u32>) -> Option<Outcome> {
        let (mut at, mut holds) = (0_usize, Holds::Argument);
        loop {
            let step = self.steps.get(at)?;
            at = at.checked_add(1)?;
            match step.code {
                LOAD => match loaded(step.k)? {
                    Holds::Argument => return Some(Outcome::Depends),
                    other => holds = other,
                },
                JUMP => at = at.checked_add(usize::try_from(step.k).ok()?)?,
                RETURN => return Some(Outcome::Answer(step.k)),
                _ => {
                    let decided = step.decide(self.known(holds, number)?)?;
                    at = at.checked_add(usize::from(if decided { step.yes } else { step.no }))?;
                }
            }
        }
    }
}

/// What there is at an offset.
fn loaded(offset: u32) -> Option<Holds> {
    match offset {
        NUMBER => Some(Holds::Number),
        ARCHITECTURE => Some(Holds::Architecture),
        ARGUMENTS.. => Some(Holds::Argument),
        _ => None,
    }
}

/// A filter that is written from its end, as jumps only lead forward. A place is how many steps follow, it included.
#[derive(Default)]
struct Backwards {
    steps: Vec<Step>,
    /// What was written, by what it does and where it goes on: what is to do the same is the same.
    written: HashMap<Written, usize>,
}

/// Code and constant of a step, and the places where it goes on: if the test holds, and else.
type Written = (u16, u32, usize, usize);

impl Backwards {
    fn push(&mut self, step: Step) -> usize {
        self.steps.push(step);
        self.steps.len()
    }

    /// So that the next step that is written is followed by the one at `place`.
    fn follow(&mut self, place: usize) {
        let distance = self.steps.len().saturating_sub(place);
        if distance > 0 {
            self.push(Step::plain(JUMP, u32::try_from(distance).unwrap_or(u32::MAX)));
        }
    }

    /// The place, or one nearby that leads there.
    fn near(&mut self, place: usize) -> usize {
        if self.steps.len().saturating_sub(place) > FAR {
            self.follow(place);
            return self.steps.len();
        }
        place
    }

    fn load(&mut self, offset: u32, next: usize) -> usize {
        // What is loaded anew at once need not be loaded.
        let overwritten = next.checked_sub(1).and_then(|index| self.steps.get(index)).is_some_and(|s| s.code == LOAD);
        if overwritten {
            return next;
        }
        self.then(Step::plain(LOAD, offset), next)
    }

    /// A step that goes on at one place.
    fn then(&mut self, step: Step, next: usize) -> usize {
        self.once((step.code, step.k, next, next), |target| {
            target.follow(next);
            target.push(step)
        })
    }

    fn test(&mut self, step: Step, yes: usize, no: usize) -> usize {
        self.once((step.code, step.k, yes, no), |target| {
            let (yes, no) = (target.near(yes), target.near(no));
            let offset = |place: usize| u8::try_from(target.steps.len().saturating_sub(place)).unwrap_or(u8::MAX);
            let step = Step { yes: offset(yes), no: offset(no), ..step };
            target.push(step)
        })
    }

    /// Where this was written, or is now.
    fn once(&mut self, what: Written, write: impl FnOnce(&mut Self) -> usize) -> usize {
        if let Some(place) = self.written.get(&what) {
            return *place;
        }
        let place = write(self);
        self.written.insert(what, place);
        place
    }

    /// An answer that is within reach already, or another one.
    fn answer(&mut self, k: u32) -> usize {
        let mut steps = self.steps.iter().enumerate().rev().take(FAR);
        let found = steps.find(|(_, step)| step.code == RETURN && step.k == k).map(|(index, _)| index + 1);
        found.unwrap_or_else(|| self.push(Step::plain(RETURN, k)))
    }

    /// What all calls of an architecture get.
    fn calls(&mut self, source: Source<'_>, limits: &BTreeSet<u32>) -> Option<usize> {
        let mut ranges: Vec<(u32, Leaf)> = Vec::new();
        for number in limits.iter().copied() {
            let leaf = match source.outcome(Some(number))? {
                Outcome::Answer(k) => Leaf::Answer(k),
                Outcome::Depends => Leaf::Place(self.remains(source, number)?),
            };
            if ranges.last().is_none_or(|last| last.1 != leaf) {
                ranges.push((number, leaf));
            }
        }
        let ranges = with_exceptions(&ranges);
        let order = Order::of(&weights(&ranges));
        let tree = self.tree(&ranges, 0, &order)?;
        Some(self.load(NUMBER, tree))
    }

    fn place(&mut self, leaf: Leaf) -> usize {
        match leaf {
            Leaf::Answer(k) => self.answer(k),
            Leaf::Place(place) => place,
        }
    }

    /// Tells ranges apart, of which the first one is so many-th of all.
    fn tree(&mut self, ranges: &[Range], first: usize, order: &Order) -> Option<usize> {
        if let [range] = ranges {
            return Some(self.range(range));
        }
        let (below, above) = ranges.split_at_checked(order.below(first, ranges.len()))?;
        let k = above.first()?.first;
        let middle = first.checked_add(below.len())?;
        // What is written last is what comes next, so that one of the two ways need not be a jump.
        let (below, above) = if leads_elsewhere(below) {
            (self.tree(below, first, order)?, self.tree(above, middle, order)?)
        } else {
            let above = self.tree(above, middle, order)?;
            (self.tree(below, first, order)?, above)
        };
        Some(self.test(Step::plain(IF_GREATER_EQUAL, k), above, below))
    }

    fn range(&mut self, range: &Range) -> usize {
        let usual = self.place(range.leaf);
        range.exceptions.iter().fold(usual, |next, (number, leaf)| {
            let yes = self.place(*leaf);
            self.test(Step::plain(IF_EQUAL, *number), yes, next)
        })
    }

    /// What remains of a filter when the number is known: the steps that look at arguments.
    fn remains(&mut self, source: Source<'_>, number: u32) -> Option<usize> {
        self.from(source, number, (0, Holds::Argument), (&mut HashMap::new(), DEEPEST))
    }

    fn from(
        &mut self,
        source: Source<'_>,
        number: u32,
        (at, holds): (usize, Holds),
        (written, depth): (&mut HashMap<(usize, Holds), usize>, usize),
    ) -> Option<usize> {
        let depth = depth.checked_sub(1)?;
        if let Some(place) = written.get(&(at, holds)) {
            return Some(*place);
        }
        let step = *source.steps.get(at)?;
        let next = at.checked_add(1)?;
        let way = |offset: u8| next.checked_add(usize::from(offset));
        let place = match (step.code, source.known(holds, Some(number))) {
            (LOAD, _) => {
                let holds = loaded(step.k)?;
                let place = self.from(source, number, (next, holds), (written, depth))?;
                if holds == Holds::Argument { self.load(step.k, place) } else { place }
            }
            (JUMP, _) => {
                let to = next.checked_add(usize::try_from(step.k).ok()?)?;
                self.from(source, number, (to, holds), (written, depth))?
            }
            (RETURN, _) => self.answer(step.k),
            (_, Some(value)) => {
                let to = way(if step.decide(value)? { step.yes } else { step.no })?;
                self.from(source, number, (to, holds), (written, depth))?
            }
            (AND, None) if step.k == 0 => self.from(source, number, (next, Holds::Zero), (written, depth))?,
            (AND, None) => {
                let place = self.from(source, number, (next, holds), (written, depth))?;
                self.then(step, place)
            }
            (IF_EQUAL | IF_GREATER | IF_GREATER_EQUAL | IF_ANY_BIT, None) => {
                let yes = self.from(source, number, (way(step.yes)?, holds), (written, depth))?;
                let no = self.from(source, number, (way(step.no)?, holds), (written, depth))?;
                self.test(step, yes, no)
            }
            _ => return None,
        };
        written.insert((at, holds), place);
        Some(place)
    }
}

/// The ranges, of which some have exceptions: a single number between two ranges of the same answer takes one test that way instead of
/// two.
fn with_exceptions(ranges: &[(u32, Leaf)]) -> Vec<Range> {
    let mut wider: Vec<Range> = Vec::new();
    let mut ranges = ranges.iter().copied().peekable();
    while let Some((first, leaf)) = ranges.next() {
        let after = ranges.peek().filter(|(end, _)| Some(*end) == first.checked_add(1)).map(|(_, leaf)| *leaf);
        match wider.last_mut() {
            Some(range) if after == Some(range.leaf) && range.exceptions.len() < EXCEPTIONS => {
                range.exceptions.push((first, leaf));
                ranges.next();
            }
            _ => wider.push(Range { first, leaf, exceptions: Vec::new() }),
        }
    }
    wider
}

fn weights(ranges: &[Range]) -> Vec<Weight> {
    let ends = ranges.iter().skip(1).map(|range| range.first).chain([u32::MAX]);
    let weight = |(range, end): (&Range, u32)| Weight {
        calls: end.min(CALLS).saturating_sub(range.first),
        elsewhere: range.exceptions.is_empty(),
    };
    ranges.iter().zip(ends).map(weight).collect()
}

/// Whether it is nothing but steps that stand elsewhere.
fn leads_elsewhere(ranges: &[Range]) -> bool {
    matches!(ranges, [range] if range.exceptions.is_empty())
}

#[cfg(test)]
pub(super) mod tests;
