//! Which compression a stream has, by its first bytes, and how to undo it.
//!
//! Media types aren't asked: Docker archives have none and some registries' are wrong. The diff id decides in the end.

use std::io::{self, BufRead, BufReader, Read};

/// Largest window accepted from a zstd stream (128 MiB, `--ultra -22` without `--long`): memory the decoder needs.
const ZSTD_WINDOW_LOG: u32 = 27;
/// Bytes read from the source at a time.
const BUFFER: usize = 256 << 10;

/// Decompresses `raw`. Cut-off streams and bytes behind the end are errors; several gzip members or zstd frames are one stream.
pub(crate) fn decoder<'a>(raw: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut head = [0; HEAD];
    let mut raw = raw;
    let mut filled = 0;
    while filled < head.len() {
        match raw.read(&mut head[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    let whole = BufReader::with_capacity(BUFFER, io::Cursor::new(head).take(filled as u64).chain(raw));
    Ok(match coding(&head[..filled])? {
        Coding::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(whole)),
        Coding::Zstd => Box::new(zstd_decoder(whole)?),
        Coding::Plain => Box::new(whole),
    })
}

/// So many bytes tell how a stream is compressed.
const HEAD: usize = 10;

/// How a stream is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    Plain,
    Gzip,
    Zstd,
}

/// Looks at a stream's first bytes. A compression that isn't understood is an error that names it.
pub(crate) fn coding(head: &[u8]) -> io::Result<Coding> {
    let unknown = match head {
        [0x1f, 0x8b, ..] => return Ok(Coding::Gzip),
        // A frame, or a skippable frame before one.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => return Ok(Coding::Zstd),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => "xz",
        // The last six are pi: a plain tar may begin with a file whose name begins like the first four.
        [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, 0x53, 0x59, ..] => "bzip2",
        [0x04, 0x22, 0x4d, 0x18, ..] => "LZ4",
        _ => return Ok(Coding::Plain),
    };
    let message = format!("it is compressed by {unknown}, which isn't understood: use gzip, zstd or no compression");
    Err(io::Error::new(io::ErrorKind::Unsupported, message))
}

fn zstd_decoder<'a, R: BufRead + 'a>(input: R) -> io::Result<impl Read + 'a> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG)?;
    Ok(decoder)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd_frame(bytes: &[u8]) -> Vec<u8> {
        zstd::encode_all(bytes, 3).unwrap()
    }

    fn decode(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        decoder(bytes)?.read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn every_compression_comes_back() {
        let text = b"some text, some text, some text".repeat(1000);
        for bytes in [text.clone(), gzip(&text), zstd_frame(&text)] {
            assert_eq!(decode(&bytes).unwrap(), text);
        }
        assert_eq!(decode(b"").unwrap(), b"");
        assert_eq!(decode(b"ab").unwrap(), b"ab");
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (head, name) in
            [(&b"\xfd7zXZ\0\0\x04"[..], "xz"), (b"BZh91AY&SY\x17", "bzip2"), (b"\x04\x22\x4d\x18\x64", "LZ4")]
        {
            let error = decode(head).unwrap_err().to_string();
            assert!(error.contains(&format!("compressed by {name}, ")), "{error}");
        }
        assert_eq!(decode(b"BZh9/name").unwrap(), b"BZh9/name");
    }

    #[test]
    fn streams_of_several_parts_are_one() {
        for code in [gzip, zstd_frame] {
            assert_eq!(decode(&[code(b"one"), code(b"two")].concat()).unwrap(), b"onetwo");
        }
    }

    #[test]
    fn cut_off_streams_are_errors() {
        let text: Vec<u8> = (0..5000u32).flat_map(u32::to_le_bytes).collect();
        for whole in [gzip(&text), zstd_frame(&text)] {
            for cut in 4..whole.len() {
                assert!(decode(&whole[..cut]).is_err(), "{cut} of {}", whole.len());
            }
        }
    }

    #[test]
    fn trailing_garbage_is_an_error() {
        for whole in [gzip(b"text"), zstd_frame(b"text")] {
            for garbage in [&b"garbage garbage"[..], b"x", &[0; 16]] {
                assert!(decode(&[&whole, garbage].concat()).is_err());
            }
        }
    }

    #[test]
    fn a_huge_window_is_an_error() {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(28).unwrap();
        encoder.write_all(b"text").unwrap();
        assert!(decode(&encoder.finish().unwrap()).is_err());
    }
}
