//! A great many containers at once.

use garboard_runtime::plan::Restart;

use crate::rig::{Rig, find, shell, with};

/// By name.
pub const TESTS: &[(&str, fn())] = &[(
    "many::there_is_no_process_but_theirs_and_few_descriptors_of_each",
    there_is_no_process_but_theirs_and_few_descriptors_of_each,
)];

const FEW: usize = 20;
const MANY: usize = 200;
/// Of each container: its output.
const DESCRIPTORS: usize = 1;

/// So many that run, of which the first has a process of its own besides.
fn running(count: usize) -> Rig {
    let container = |number: usize| {
        let script = if number == 0 { "sleep 10000 & wait" } else { "exec sleep 10000" };
        with(Restart::Always, shell(&format!("c{number}"), script))
    };
    let mut rig = Rig::new((0..count).map(container).collect());
    rig.wait("running", |status| status["ready"] == true);
    rig
}

fn children(pid: i32) -> Vec<i32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

fn there_is_no_process_but_theirs_and_few_descriptors_of_each() {
    let few = running(FEW).least_descriptors();
    let mut rig = running(MANY);
    let each = (rig.least_descriptors() - few).div_ceil(MANY - FEW);
    assert!(each <= DESCRIPTORS, "{each} descriptors of each");

    let status = rig.status();
    let mut own: Vec<i32> = rig.children().iter().map(|child| child.0).collect();
    let pid = |number: usize| find(&status, &format!("c{number}"))["pid"].as_i64().unwrap() as i32;
    let mut declared: Vec<i32> = (0..MANY).map(pid).collect();
    own.sort_unstable();
    declared.sort_unstable();
    assert_eq!(own, declared, "PID 1's children are the containers");
    let beneath: Vec<i32> = declared.iter().copied().filter(|pid| !children(*pid).is_empty()).collect();
    assert_eq!(beneath, [pid(0)], "only that one has a child, and it is seen");
}
