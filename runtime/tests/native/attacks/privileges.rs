//! R6, R7: capabilities and users.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use libtest_mimic::Trial;
use rustix::fs::XattrFlags;

use crate::site::{Container, copy_self, fields, program, scratch, shell};

pub fn tests() -> Vec<Trial> {
    trials![
        r6_capabilities_are_the_list_and_never_inheritable,
        r6_file_capabilities_give_nothing_away,
        r6_an_inheritable_file_capability_finds_nothing_to_combine_with,
        r7_a_user_that_is_no_number_is_no_root,
    ]
}

fn r6_capabilities_are_the_list_and_never_inheritable() {
    let sets = |container: Container| fields(&container.output());
    let expected = garboard_runtime::spec::capabilities::DEFAULT
        .iter()
        .fold(0_u64, |mask, c| mask | 1 << garboard_runtime::spec::capabilities::number(*c).unwrap());
    let expected = format!("{expected:016x}");
    let none = "0000000000000000";
    let root = sets(shell("cat /proc/self/status"));
    let found = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(|set| root[set].as_str());
    assert_eq!(found, [none, &expected, &expected, &expected, none]);
    let user = sets(shell("cat /proc/self/status").options(|o| o.user = Some("web".to_owned())));
    let found = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(|set| user[set].as_str());
    assert_eq!(found, [none, none, none, &expected, none]);
    // Control: where a launch says so, they are inheritable, and ambient ones reach a user's program.
    let given = sets(shell("cat /proc/self/status").options(|o| o.user = Some("web".to_owned())).change(|l| {
        let bit = 1 << 10;
        let sets = &mut l.process.capabilities;
        (sets.effective, sets.permitted, sets.inheritable, sets.ambient) = (bit, bit, bit, bit);
    }));
    let bit = "0000000000000400";
    let found = ["CapInh", "CapPrm", "CapEff", "CapAmb"].map(|set| given[set].as_str());
    assert_eq!(found, [bit; 4]);
}

const NET_BIND_SERVICE: u32 = 10;
const NET_ADMIN: u32 = 12;

/// A layer with the probe as `/capped`, which has a file capability (`struct vfs_cap_data`, version 2).
fn capped(permitted: u32, inheritable: u32, effective: bool) -> PathBuf {
    let layer = scratch(&format!("r6-{permitted}-{inheritable}"));
    let file = layer.join("capped");
    copy_self(&file);
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).unwrap();
    let magic = 0x0200_0000 | u32::from(effective);
    let data: Vec<u8> = [magic, permitted, inheritable, 0, 0].iter().flat_map(|word| word.to_le_bytes()).collect();
    rustix::fs::setxattr(&file, "security.capability", &data, XattrFlags::empty()).unwrap();
    layer
}

/// The program with file capabilities, started by an ordinary user of the container.
fn run_by_user(layer: &std::path::Path) -> Container {
    program(&["/capped", "probe", "status"]).layer(layer).options(|o| o.user = Some("web".to_owned()))
}

fn permitted(container: Container) -> u64 {
    u64::from_str_radix(&fields(&container.output())["CapPrm"], 16).unwrap()
}

fn r6_file_capabilities_give_nothing_away() {
    let in_bounds = capped(1 << NET_BIND_SERVICE, 0, true);
    assert_eq!(permitted(run_by_user(&in_bounds)), 0, "no_new_privs");
    let gained = permitted(run_by_user(&in_bounds).options(|o| o.no_new_privileges = false));
    assert_eq!(gained, 1 << NET_BIND_SERVICE, "control: without no_new_privs it gains what is in the bounding set");

    let beyond = capped(1 << NET_ADMIN, 0, true);
    let refused = run_by_user(&beyond).options(|o| o.no_new_privileges = false).refusal();
    assert!(refused.contains("exec /capped: operation not permitted (EPERM)"), "beyond the bounding set: {refused}");
    let gained =
        run_by_user(&beyond).options(|o| (o.no_new_privileges, o.cap_add) = (false, vec!["NET_ADMIN".to_owned()]));
    assert_eq!(permitted(gained), 1 << NET_ADMIN, "control: declared, it gains it");
}

fn r6_an_inheritable_file_capability_finds_nothing_to_combine_with() {
    let layer = capped(0, 1 << NET_BIND_SERVICE, false);
    let by_user = || run_by_user(&layer).options(|o| o.no_new_privileges = false);
    assert_eq!(permitted(by_user()), 0);
    // Control: the flaw itself, an inheritable set that isn't empty.
    let flawed = by_user().change(|l| {
        let sets = &mut l.process.capabilities;
        (sets.permitted, sets.inheritable) = (1 << NET_BIND_SERVICE, 1 << NET_BIND_SERVICE);
    });
    assert_eq!(permitted(flawed), 1 << NET_BIND_SERVICE, "control");
}

fn r7_a_user_that_is_no_number_is_no_root() {
    for user in ["1x", "0x0", " 0", "-0"] {
        let made = shell("id -u").options(|o| o.user = Some(user.to_owned())).decide();
        assert!(made.is_err(), "{user:?} became uid {}", made.unwrap().process.uid);
    }
    assert_eq!(shell("id -u").options(|o| o.user = Some("1".to_owned())).output(), "1\n", "control");
}
