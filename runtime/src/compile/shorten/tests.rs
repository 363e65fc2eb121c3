//! A shorter filter says the same.

use proptest::prelude::*;

use super::*;

const NATIVE: u32 = 0xc000_003e;

/// Runs a filter as the kernel would.
pub(in super::super) fn run(filter: &[u8], architecture: u32, number: u32, arguments: [u64; 6]) -> u32 {
    let mut data = [0_u8; 64];
    data[0..4].copy_from_slice(&number.to_ne_bytes());
    data[4..8].copy_from_slice(&architecture.to_ne_bytes());
    for (n, argument) in arguments.iter().enumerate() {
        data[16 + n * 8..24 + n * 8].copy_from_slice(&argument.to_ne_bytes());
    }
    let (mut a, mut at) = (0_u32, 0_usize);
    loop {
        let step = Step::from_bytes(filter[at * 8..at * 8 + 8].try_into().unwrap());
        at += 1;
        let way = match step.code {
            LOAD => {
                a = u32::from_ne_bytes(data[step.k as usize..step.k as usize + 4].try_into().unwrap());
                0
            }
            AND => {
                a &= step.k;
                0
            }
            JUMP => step.k as usize,
            RETURN => return step.k,
            IF_ANY_BIT => usize::from(if a & step.k != 0 { step.yes } else { step.no }),
            _ => usize::from(if step.decide(a).expect("a comparison") { step.yes } else { step.no }),
        };
        at += way;
    }
}

fn bytes(steps: &[Step]) -> Vec<u8> {
    steps.iter().flat_map(|step| step.to_bytes()).collect()
}

fn step(code: u16, yes: u8, no: u8, k: u32) -> Step {
    Step { code, yes, no, k }
}

/// Many numbers, each compared by itself.
fn list(numbers: impl Iterator<Item = u32>) -> Vec<Step> {
    let mut steps = vec![step(LOAD, 0, 0, 4), step(IF_EQUAL, 1, 0, NATIVE), step(RETURN, 0, 0, 7), step(LOAD, 0, 0, 0)];
    for number in numbers {
        steps.extend([step(IF_EQUAL, 0, 1, number), step(RETURN, 0, 0, 1)]);
    }
    steps.push(step(RETURN, 0, 0, 2));
    steps
}

#[test]
fn neighbours_are_compared_at_their_ends() {
    let filter = bytes(&list((10..200).chain(300..301)));
    let shorter = shorten(&filter).unwrap();
    assert!(shorter.len() / 8 < 20, "{} steps", shorter.len() / 8);
    for number in (0..400).chain([u32::MAX]) {
        assert_eq!(run(&shorter, NATIVE, number, [0; 6]), run(&filter, NATIVE, number, [0; 6]), "{number}");
    }
    assert_eq!(run(&shorter, 1, 10, [0; 6]), 7);
}

#[test]
fn an_exception_takes_one_step() {
    let exceptions = [50, 60, 61, 70, 80, 90, 100, 199];
    let filter = bytes(&list((10..200).filter(|number| !exceptions.contains(number))));
    let shorter = shorten(&filter).unwrap();
    // Besides a test for each but for the neighbours, there are two for the ends, and where many are, one for some of them.
    assert!(shorter.len() / 8 < 7 + exceptions.len() + 4, "{} steps", shorter.len() / 8);
    for number in (0..400).chain([u32::MAX]) {
        assert_eq!(run(&shorter, NATIVE, number, [0; 6]), run(&filter, NATIVE, number, [0; 6]), "{number}");
    }
}

#[test]
fn what_a_mask_leaves_nothing_of_is_not_looked_at() {
    let masked = |mask| {
        let steps = [
            step(LOAD, 0, 0, 4),
            step(IF_EQUAL, 1, 0, NATIVE),
            step(RETURN, 0, 0, 7),
            step(LOAD, 0, 0, 0),
            step(IF_EQUAL, 0, 6, 10),
            step(LOAD, 0, 0, 20),
            step(AND, 0, 0, mask),
            step(IF_EQUAL, 0, 3, 0),
            step(LOAD, 0, 0, 16),
            step(IF_EQUAL, 0, 1, 5),
            step(RETURN, 0, 0, 1),
            step(RETURN, 0, 0, 2),
        ];
        (bytes(&steps), shorten(&bytes(&steps)).unwrap_or_else(|| bytes(&steps)))
    };
    for mask in [0, 1] {
        let (filter, shorter) = masked(mask);
        for argument in [5, 6, 5 | 1 << 32, 5 | 2 << 32] {
            let of = |filter: &[u8]| run(filter, NATIVE, 10, [argument; 6]);
            assert_eq!(of(&shorter), of(&filter), "{mask} {argument:#x}");
        }
    }
    assert_eq!(masked(1).1.len() - masked(0).1.len(), 3 * 8);
}

#[test]
fn each_architecture_has_its_own_numbers() {
    const OTHER: u32 = 0x4000_0003;
    let second = list(40..90);
    let mut steps = list(10..60);
    // Where the first one gives up, the second one looks at the architecture.
    let to_second = steps.len() - 3;
    steps[2] = step(JUMP, 0, 0, u32::try_from(to_second).unwrap());
    steps.extend(second);
    let at = steps.len() - list(40..90).len() + 1;
    steps[at].k = OTHER;
    let filter = bytes(&steps);
    let shorter = shorten(&filter).unwrap();
    assert!(shorter.len() / 8 < 20, "{} steps", shorter.len() / 8);
    for architecture in [NATIVE, OTHER, OTHER + 1, 0, u32::MAX] {
        for number in 0..100 {
            let of = |filter: &[u8]| run(filter, architecture, number, [0; 6]);
            assert_eq!(of(&shorter), of(&filter), "{architecture:#x} {number}");
        }
    }
    assert_eq!(
        [run(&shorter, NATIVE, 10, [0; 6]), run(&shorter, OTHER, 10, [0; 6]), run(&shorter, 0, 10, [0; 6])],
        [1, 2, 7]
    );
}

#[test]
fn what_is_far_apart_is_reached_by_longer_jumps() {
    // An answer of its own for every second number.
    let mut steps = list(0..0);
    steps.pop();
    for number in 0..900 {
        steps.extend([step(IF_EQUAL, 0, 1, 2 * number), step(RETURN, 0, 0, 100 + number)]);
    }
    // So that there is something to be saved.
    steps.extend((0..2000).flat_map(|n| [step(IF_EQUAL, 0, 1, 10_000 + n), step(RETURN, 0, 0, 1)]));
    steps.push(step(RETURN, 0, 0, 2));
    let filter = bytes(&steps);
    let shorter = shorten(&filter).unwrap();
    for number in 0..13_000 {
        assert_eq!(run(&shorter, NATIVE, number, [0; 6]), run(&filter, NATIVE, number, [0; 6]), "{number}");
    }
}

#[test]
fn what_is_not_understood_stays() {
    let with = |steps: &[Step]| shorten(&bytes(&[&list(0..50)[..4], steps, &list(0..50)[4..]].concat()));
    assert!(with(&[]).is_some());
    for (what, code, k) in [
        ("a bit of the number", IF_ANY_BIT, 1),
        ("a part of the number", AND, 1),
        ("the program's place", LOAD, 8),
        ("an unknown step", 0x80, 0),
    ] {
        assert!(with(&[step(code, 0, 0, k)]).is_none(), "{what}");
    }
    assert!(shorten(&[]).is_none() && shorten(&[0; 7]).is_none());
    // Another architecture has an opinion of its own about numbers.
    let mut two = list(0..50);
    two[2] = step(LOAD, 0, 0, 0);
    assert!(shorten(&bytes(&two)).is_none());
}

/// Steps that lead forward, as the kernel wants them.
fn any_filter() -> impl Strategy<Value = Vec<Step>> {
    let load = prop_oneof![3 => Just(0_u32), 2 => Just(4), 3 => (4_u32..16).prop_map(|n| n * 4)];
    let value = prop_oneof![4 => 0_u32..12, 1 => Just(NATIVE), 1 => any::<u32>()];
    let one = prop_oneof![
        3 => load.prop_map(|k| step(LOAD, 0, 0, k)),
        1 => value.clone().prop_map(|k| step(AND, 0, 0, k)),
        1 => (0_u32..4).prop_map(|k| step(JUMP, 0, 0, k)),
        2 => (0_u32..4).prop_map(|k| step(RETURN, 0, 0, k)),
        8 => (prop_oneof![Just(IF_EQUAL), Just(IF_GREATER), Just(IF_GREATER_EQUAL), Just(IF_ANY_BIT)], 0_u8..6, 0_u8..6, value)
            .prop_map(|(code, yes, no, k)| step(code, yes, no, k)),
    ];
    proptest::collection::vec(one, 1..40).prop_map(|middle| {
        let mut steps =
            vec![step(LOAD, 0, 0, 4), step(IF_EQUAL, 1, 0, NATIVE), step(RETURN, 0, 0, 9), step(LOAD, 0, 0, 0)];
        steps.extend(middle);
        // Wherever a jump leads, there is an answer.
        steps.extend((0..8).map(|k| step(RETURN, 0, 0, k)));
        steps
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_shorter_filter_says_the_same(steps in any_filter(), seed in any::<[u64; 6]>()) {
        let filter = bytes(&steps);
        if let Some(shorter) = shorten(&filter) {
            prop_assert!(shorter.len() < filter.len());
            let constants = steps.iter().map(|step| step.k).flat_map(|k| [k, k.wrapping_add(1), k.wrapping_sub(1)]);
            let numbers: BTreeSet<u32> = (0..16).chain(constants.clone()).collect();
            let mut arguments = vec![[0; 6], [1; 6], [u64::MAX; 6], seed];
            arguments.extend(constants.clone().map(|k| [u64::from(k); 6]));
            arguments.extend(constants.map(|k| [u64::from(k) << 32 | seed[0] & 15; 6]));
            for number in numbers {
                for argument in &arguments {
                    for architecture in (0..13).chain([NATIVE - 1, NATIVE, NATIVE + 1, u32::MAX]) {
                        let (a, b) = (run(&shorter, architecture, number, *argument), run(&filter, architecture, number, *argument));
                        prop_assert_eq!(a, b, "{:#x} {}", architecture, number);
                    }
                }
            }
        }
    }

    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = shorten(&bytes);
    }
}
