use super::*;

impl Input for &[u8] {}

fn parse(bytes: &[u8]) -> io::Result<Vec<(Member, Vec<u8>)>> {
    let mut tarball = Tarball::new(bytes, 4096);
    let mut members = Vec::new();
    while let Some(member) = tarball.next_member()? {
        let mut data = Vec::new();
        tarball.read_to_end(&mut data)?;
        members.push((member, data));
    }
    Ok(members)
}

fn header(name: &str, kind: u8, size: u64) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_size(size);
    header.set_mode(0o644);
    header.set_cksum();
    header.as_bytes().to_vec()
}

fn data(bytes: &[u8]) -> Vec<u8> {
    let mut data = bytes.to_vec();
    data.resize(data.len().next_multiple_of(512), 0);
    data
}

fn member(name: &str, kind: u8, content: &[u8]) -> Vec<u8> {
    [header(name, kind, content.len() as u64), data(content)].concat()
}

#[test]
fn long_names_and_records_apply_to_the_next_member_only() {
    let long = "d/".repeat(150) + "file";
    let bytes = [
        member("././@LongLink", b'L', format!("{long}\0").as_bytes()),
        member("short", b'0', b"one"),
        member("pax", b'x', b"14 path=named\n12 uid=1000\n"),
        member("x", b'0', b""),
        member("last", b'0', b"two"),
        vec![0; 1024],
    ]
    .concat();
    let members = parse(&bytes).unwrap();
    assert_eq!(members[0].0.name, long.as_bytes());
    assert_eq!(members[0].1, b"one");
    assert_eq!((members[1].0.name.as_slice(), members[1].0.uid), (&b"named"[..], 1000));
    assert_eq!((members[2].0.name.as_slice(), members[2].0.uid), (&b"last"[..], 0));
    assert_eq!(members[2].1, b"two");
}

/// As all readers have it, whatever version it says.
#[test]
fn the_magic_tells_that_a_name_has_a_prefix() {
    for version in [b"00", b"\0\0", b"  "] {
        let mut header = tar::Header::new_ustar();
        let ustar = header.as_ustar_mut().unwrap();
        ustar.prefix[..3].copy_from_slice(b"a/b");
        ustar.name[..1].copy_from_slice(b"c");
        ustar.version = *version;
        header.set_size(0);
        header.set_mode(0o644);
        header.set_cksum();
        assert_eq!(parse(header.as_bytes()).unwrap()[0].0.name, b"a/b/c", "{version:?}");
    }
}

#[test]
fn every_cut_is_an_error_or_a_shorter_archive() {
    let bytes = [member("a", b'0', &[7; 700]), member("b", b'0', b"b"), vec![0; 1024]].concat();
    let whole = parse(&bytes).unwrap();
    assert_eq!(whole.len(), 2);
    for cut in 0..bytes.len() - 1024 {
        match parse(&bytes[..cut]) {
            Err(_) => {}
            // Behind a member's data a cut can't be told from an archive without its end; the layer's digest tells.
            Ok(members) => {
                let ends = [0..=0, 512 + 700..=512 + 1024, 512 + 1024 + 512 + 1..=512 + 1024 + 1024];
                assert!(ends.iter().any(|end| end.contains(&cut)), "{cut}");
                assert!(members.iter().zip(&whole).all(|(found, wanted)| found == wanted));
            }
        }
    }
}

#[test]
fn garbage_behind_the_end_is_an_error() {
    let mut bytes = [member("a", b'0', b"a"), vec![0; 10240]].concat();
    assert_eq!(parse(&bytes).unwrap().len(), 1);
    *bytes.last_mut().unwrap() = 1;
    assert!(parse(&bytes).unwrap_err().to_string().contains("follows the end"));
}

#[test]
fn extension_headers_are_bounded() {
    let bytes = [member("x", b'x', &[b'0'; 5000]), member("a", b'0', b"")].concat();
    assert!(parse(&bytes).unwrap_err().to_string().contains("extension_bytes"));
    let declared = header("x", b'L', 1 << 40);
    assert!(parse(&declared).unwrap_err().to_string().contains("extension_bytes"));
}

#[test]
fn ambiguities_are_errors() {
    let both =
        |kind, records: &[u8]| [member("x", kind, b"a\0"), member("x", b'x', records), member("f", b'2', b"")].concat();
    for (bytes, what) in [
        (member("l", b'1', b"data"), "type has none"),
        (member("v", b'V', b""), "unknown type"),
        ([member("x", b'L', b"a\0"), member("x", b'L', b"b\0"), member("f", b'0', b"")].concat(), "two extension"),
        (member("x", b'L', b"a\0"), "ends behind"),
        ([member("g", b'g', b"9 path=a\n"), member("f", b'0', b"")].concat(), "global"),
        ([member("g", b'g', b"8 uid=0\n"), member("f", b'0', b"")].concat(), "global"),
        ([member("g", b'g', b"8 gid=0\n"), member("f", b'0', b"")].concat(), "global"),
        ([member("g", b'g', b"11 mtime=1\n"), member("f", b'0', b"")].concat(), "global"),
        (both(b'L', b"9 path=b\n"), "a PAX record and a GNU header"),
        (both(b'K', b"14 linkpath=b\n"), "a PAX record and a GNU header"),
        (vec![1; 512], "checksum"),
    ] {
        let message = parse(&bytes).unwrap_err().to_string();
        assert!(message.contains(what), "{message}");
    }
    // Controls: a long name beside records of other things; `git archive` leaves a comment.
    assert_eq!(parse(&both(b'L', b"14 linkpath=b\n")).unwrap()[0].0.name, b"a");
    let comment = [member("g", b'g', b"13 comment=a\n"), member("f", b'0', b"")].concat();
    assert_eq!(parse(&comment).unwrap().len(), 1);
}

/// The same file, `xy` at offset 1024 of 5000 bytes, in every form of sparse member.
#[test]
fn sparse_members_in_every_form() {
    let record = |text: &str| format!("{} {text}\n", text.len() + 4);
    let old_gnu = {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..1].copy_from_slice(b"f");
        header.set_entry_type(tar::EntryType::GNUSparse);
        header.set_size(2);
        let gnu = header.as_gnu_mut().unwrap();
        gnu.set_real_size(5000);
        gnu.sparse[0].set_offset(1024);
        gnu.sparse[0].set_length(2);
        header.set_cksum();
        [header.as_bytes().to_vec(), data(b"xy")].concat()
    };
    let pax = |records: &[&str], content: &[u8]| {
        let records: String = records.iter().map(|text| record(text)).collect();
        [member("p", b'x', records.as_bytes()), member("GNUSparseFile.0/f", b'0', content)].concat()
    };
    let v00 = pax(
        &[
            "GNU.sparse.size=5000",
            "GNU.sparse.numblocks=1",
            "GNU.sparse.offset=1024",
            "GNU.sparse.numbytes=2",
            "path=f",
        ],
        b"xy",
    );
    let v01 = pax(&["GNU.sparse.size=5000", "GNU.sparse.map=1024,2", "GNU.sparse.name=f"], b"xy");
    let v10_data = [data(b"1\n1024\n2\n"), b"xy".to_vec()].concat();
    let v10 =
        pax(&["GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.realsize=5000", "GNU.sparse.name=f"], &v10_data);
    for (form, bytes) in [("old", old_gnu), ("0.0", v00), ("0.1", v01), ("1.0", v10)] {
        let bytes = [bytes, member("next", b'0', b"n"), vec![0; 1024]].concat();
        let members = parse(&bytes).unwrap_or_else(|e| panic!("{form}: {e}"));
        assert_eq!(members.len(), 2, "{form}");
        let (file, content) = &members[0];
        assert_eq!((file.name.as_slice(), file.size, file.stored), (&b"f"[..], 5000, 2), "{form}");
        assert_eq!(file.sparse.as_ref().unwrap().extents, [Extent { offset: 1024, length: 2 }], "{form}");
        assert_eq!(content, b"xy", "{form}");
    }
}

#[test]
fn hostile_sparse_maps_are_errors() {
    for map in ["0,3,1,2", "4999,2", "18446744073709551615,2", "0", "0,1", "x,2"] {
        let records: String = [format!("GNU.sparse.map={map}"), "GNU.sparse.size=5000".into()]
            .map(|t| format!("{} {t}\n", t.len() + 4))
            .concat();
        assert!(parse(&[member("p", b'x', records.as_bytes()), member("f", b'0', b"xy")].concat()).is_err(), "{map}");
    }
}
