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
    let mut head = [0; 4];
    let mut raw = raw;
    let mut filled = 0;
    while filled < head.len() {
        match raw.read(&mut head[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    let whole = BufReader::with_capacity(BUFFER, io::Cursor::new(head).take(filled as u64).chain(raw));
    Ok(match head {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(whole)),
        // A frame, or a skippable frame before one.
        [0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18] => Box::new(zstd_decoder(whole)?),
        _ => Box::new(whole),
    })
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
