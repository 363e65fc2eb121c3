//! Lines as they are called.

mod tables;

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use super::commands::PAGES;
use super::*;

fn read(line: &[&str]) -> Parsed<Arguments> {
    Arguments::read(lexopt::Parser::from_args(line))
}

/// The line in words, as a shell would split it.
fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

fn understood(line: &str) -> Arguments {
    read(&words(line)).unwrap_or_else(|instead| panic!("{line}: {instead:?}"))
}

fn refused(line: &[&str]) -> String {
    match read(line) {
        Err(Instead::Refuse(why)) => why,
        other => panic!("{line:?}: {other:?}"),
    }
}

fn same(one: &str, other: &str) {
    assert_eq!(format!("{:?}", understood(one)), format!("{:?}", understood(other)), "{one}");
}

#[test]
fn flags_are_taken_apart() {
    same("run -db /b -f c.json a", "run --detach --bundle=/b --config c.json a");
    same("run -db=/b a", "run a --bundle /b --detach");
    same("kill -ra a KILL", "kill --all a --regex KILL");
    same("delete a -f", "delete --force -- a");
    same("exec -tu 1:2 a b", "exec --tty=true --user=1:2 -- a b");
    same(
        "--log=/l --log-format=json --systemd-cgroup list -qfjson",
        "--log-format json --systemd-cgroup --log /l list -f json -q",
    );
    let arguments = understood("--root /r --debug --rootless exec -e A=b --env C=d --cap CAP_KILL -g 1 -g2 a");
    assert!(arguments.global.debug && arguments.global.rootless.as_deref() == Some("true"));
    let Command::Exec(exec) = arguments.command else { panic!() };
    assert_eq!(
        (exec.env, exec.cap, exec.additional_gids),
        (vec!["A=b".into(), "C=d".into()], vec!["CAP_KILL".into()], vec![1, 2])
    );
    assert_eq!(understood("--rootless= list").global.rootless.as_deref(), Some(""));
    // A value that looks like a command is none, nor is one that looks like a flag, but isn't.
    assert_eq!(understood("--root run state a").name, "state");
    same("checkpoint --status-fd -1 a", "checkpoint a");
    same("update --memory -1 --cpu-quota -1 -r - a", "update --memory=-1 --cpu-quota=-1 --resources=- a");
    // `--tty` takes a value only with `=`.
    for (line, tty) in [("exec --tty=false a b", false), ("exec --tty a false", true), ("exec -td a", true)] {
        let Command::Exec(exec) = understood(line).command else { panic!() };
        assert_eq!((exec.tty, exec.name.id.as_str()), (tty, "a"), "{line}");
    }
}

/// As runc's callers may write them.
#[test]
fn long_flags_may_have_one_hyphen() {
    same("-root /r -log=/l -debug list -format json -quiet", "--root /r --log /l --debug list --format json --quiet");
    same("run -bundle /b -detach a", "run --bundle /b --detach a");
    same("exec -env A=b -tty=false a -detach b -env", "exec --env A=b --tty=false a --detach b -env");
    same("-rootless false -root=/r list", "--rootless=false --root /r list");
    same("delete -- -force", "delete -- -force");
    let Command::Kill(kill) = understood("kill -- a -all").command else { panic!() };
    assert_eq!((kill.all, kill.signal.as_str()), (false, "-all"));
    let Command::Delete(delete) = understood("delete -- -force").command else { panic!() };
    assert_eq!((delete.force, delete.name.id.as_str()), (false, "-force"));
}

#[test]
fn a_value_that_may_be_missing_may_be_a_word_of_its_own() {
    for (line, rootless) in [
        ("--rootless true list", "true"),
        ("--rootless auto --root /r list", "auto"),
        ("--rootless false list", "false"),
        ("--rootless list", "true"),
    ] {
        assert_eq!(understood(line).global.rootless.as_deref(), Some(rootless), "{line}");
    }
    // Where a program may be called so, it isn't taken.
    let Command::Exec(exec) = understood("exec a -t true").command else { panic!() };
    assert_eq!((exec.tty, exec.command), (true, vec!["true".to_owned()]));
}

#[test]
fn the_last_word_counts() {
    same("--root /a --debug --root=/b --debug list", "--root /b --debug list");
    same("run -d -b /a -d --bundle /b a", "run -db /b a");
    same("exec --tty=true -t --tty=false -u 1 --user 2:3 a", "exec --tty=false -u 2:3 a");
    same("update --memory 1m --memory 2m a", "update --memory 2m a");
    // One that is wrong is wrong all the same.
    assert!(refused(&words("--log-format xml --log-format json list")).contains("invalid value 'xml'"));
}

#[test]
fn values_need_not_be_text_where_they_are_paths() {
    let wrong = OsString::from_vec(b"/\xff".to_vec());
    let line = |flag: &str| [flag.into(), wrong.clone(), "a".into()];
    let create =
        |flag| Arguments::read(lexopt::Parser::from_args([OsString::from("create")].into_iter().chain(line(flag))));
    let Command::Create(made) = create("--bundle").unwrap().command else { panic!() };
    assert_eq!(made.making.bundle, std::path::Path::new(&wrong));
    let Err(Instead::Refuse(why)) = create("--preserve-fds") else { panic!() };
    assert!(why.contains("invalid value '/\u{fffd}' for '--preserve-fds <N>': it isn't UTF-8"), "{why}");
}

#[test]
fn a_container_may_begin_with_a_hyphen() {
    for (line, id) in [
        ("state -x", "-x"),
        ("state --x", "--x"),
        ("state -- --help", "--help"),
        ("delete -f -x", "-x"),
        ("delete -fx", "-fx"),
        ("kill -9 x", "-9"),
        ("create -b -1 --one", "--one"),
        ("create -", "-"),
        ("exec -d -x --x", "-x"),
        ("update -- -r", "-r"),
        ("state help", "help"),
    ] {
        let arguments = format!("{:?}", understood(line));
        assert!(arguments.contains(&format!("Name {{ id: {id:?} }}")), "{line}: {arguments}");
    }
}

#[test]
fn what_follows_is_another_programs() {
    for (line, command, detached) in [
        ("exec a", "", false),
        ("exec a b -d", "b -d", false),
        ("exec a b --help -- c", "b --help -- c", false),
        ("exec a -- -d b", "-d b", false),
        ("exec -- a -- b", "-- b", false),
        ("exec a -- -- b", "-- b", false),
        ("exec a --unknown -d", "--unknown -d", false),
        ("exec a -d b", "b", true),
        ("exec a -dx b", "-dx b", false),
        ("exec a - -d", "- -d", false),
    ] {
        let Command::Exec(exec) = understood(line).command else { panic!() };
        assert_eq!((exec.command.join(" ").as_str(), exec.detach), (command, detached), "{line}");
    }
    for (line, options, format) in [
        ("ps a -ef", "-ef", Format::Table),
        ("ps a -fL", "-fL", Format::Table),
        ("ps a --format json", "", Format::Json),
        ("ps --format json a -x --format", "-x --format", Format::Json),
        ("ps -fjson a aux", "aux", Format::Json),
    ] {
        let Command::Ps(ps) = understood(line).command else { panic!() };
        assert_eq!((ps.options.join(" ").as_str(), ps.format), (options, format), "{line}");
    }
}

#[test]
fn what_is_wrong_is_named() {
    for (line, why) in [
        ("", "required argument '<COMMAND>' is missing"),
        ("--", "required argument '<COMMAND>' is missing"),
        ("unknown", "unknown command 'unknown'"),
        ("RUN a", "unknown command 'RUN'"),
        ("--unknown list", "unknown flag '--unknown'"),
        ("--deb list", "unknown flag '--deb'"),
        ("-x list", "unknown flag '-x'"),
        ("--rootless yes list", "unknown command 'yes'"),
        ("--debug true list", "unknown command 'true'"),
        ("-rooot /r list", "unknown flag '-r'"),
        ("--debug=x list", "unexpected value 'x' for '--debug'"),
        ("--version=1", "unexpected value '1' for '--version'"),
        ("--root", "a value is required for '--root <DIR>' but none was supplied"),
        ("--log= list", "a value is required for '--log <FILE>' but none was supplied"),
        ("--root --debug list", "a value is required for '--root <DIR>' but none was supplied"),
        ("--log-format=xml list", "invalid value 'xml' for '--log-format <FORMAT>' [possible values: text, json]"),
        ("list --root /x", "unknown flag '--root'"),
        ("list -v", "unknown flag '-v'"),
        ("list -qx", "unknown flag '-x'"),
        ("list -q=x", "unexpected argument for option '-q': \"x\""),
        ("list a", "unexpected argument 'a'"),
        ("list -", "unexpected argument '-'"),
        ("list -- -q", "unexpected argument '-q'"),
        ("features -- --help", "unexpected argument '--help'"),
        ("help unknown", "unknown command 'unknown'"),
        ("help run list", "unexpected argument 'list'"),
        ("create", "required argument '<CONTAINER>' is missing"),
        ("run -b a", "required argument '<CONTAINER>' is missing"),
        ("run --bundle", "a value is required for '--bundle <DIR>' but none was supplied"),
        ("create --bundle -- a", "a value is required for '--bundle <DIR>' but none was supplied"),
        ("run a b", "unexpected argument 'b'"),
        ("run a --unknown", "unknown flag '--unknown'"),
        ("run --unknown a", "unexpected argument 'a', as '--unknown' is no flag and was taken for the container"),
        ("run --preserve-fds x a", "invalid value 'x' for '--preserve-fds <N>': invalid digit found in string"),
        ("run --preserve-fds -1 a", "invalid value '-1' for '--preserve-fds <N>': invalid digit found in string"),
        (
            "exec -g 4294967296 a",
            "invalid value '4294967296' for '--additional-gids <GID>': number too large to fit in target type",
        ),
        ("exec --tty=x a", "invalid value 'x' for '--tty[=<TTY>]' [possible values: true, false]"),
        ("kill a -9", "unknown flag '-9'"),
        ("kill a KILL b", "unexpected argument 'b'"),
        (
            "update --memory 1x a",
            "invalid value '1x' for '--memory <BYTES>': \"1x\" is no number of bytes such as 67108864 or 64m, nor -1",
        ),
        (
            "update --blkio-weight= a",
            "invalid value '' for '--blkio-weight <WEIGHT>': cannot parse integer from empty string",
        ),
        ("events --interval 0s a", "invalid value '0s' for '--interval <TIME>': it must be above 0"),
        ("checkpoint --empty-ns pid a", "invalid value 'pid' for '--empty-ns <NAMESPACE>' [possible values: network]"),
        (
            "restore --manage-cgroups-mode SOFT a",
            "invalid value 'SOFT' for '--manage-cgroups-mode <MODE>' [possible values: soft, full, strict, ignore]",
        ),
    ] {
        let name = words(line).into_iter().find(|word| PAGES.iter().any(|page| page.name == *word));
        // What stands before the command is the program's.
        let found = refused(&words(line));
        let program = format!("{why}; try 'garboard-runtime --help'");
        let command = name.map(|name| format!("{name}: {why}; try 'garboard-runtime {name} --help'"));
        assert!(found == program || Some(&found) == command.as_ref(), "{line}: {found}");
    }
    assert_eq!(refused(&["list", ""]), "list: unexpected argument ''; try 'garboard-runtime list --help'");
}
