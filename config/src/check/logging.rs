//! What of the containers' output is kept, and whether there is room for it.

use super::{Draft, value};
use crate::appliance::Data;
use crate::container::KeptLog;
use crate::keys::LoggingKeys;
use crate::problems::Problems;
use crate::read::{At, Field};

/// Some lines of the greatest length have to fit a file.
const MIN_FILE: u64 = 64 << 10;
/// Four files of it are some days of an ordinary service, and a quarter of the smallest usual partition.
const DEFAULT_FILE: u64 = 4 << 20;
const DEFAULT_FILES: u32 = 4;

/// What is kept of a container's log, with its place.
pub(super) fn kept(field: Option<Field<LoggingKeys>>, problems: &mut Problems) -> Option<At<KeptLog>> {
    let Field { key: span, value: keys, .. } = field?;
    let options = value(keys.options).unwrap_or_default();
    if let Some(size) = options.max_size.as_ref().filter(|field| field.value.0 < MIN_FILE) {
        problems
            .error(&size.span, format!("a log file of {} bytes is too small", size.value.0))
            .help("write at least \"64k\"; a size without a unit is in bytes");
    }
    let file_size = value(options.max_size).map_or(DEFAULT_FILE, |size| size.0);
    let files = value(options.max_file).map_or(DEFAULT_FILES, |count| count.0);
    Some(At { span, value: KeptLog { file_size, files } })
}

/// All kept logs together must fit the data partition as it is built. It is told once, at the one with which they don't.
pub(super) fn check_room(drafts: &[Draft], data: &Data, problems: &mut Problems) {
    let room = data.size.unwrap_or(Data::DEFAULT_SIZE);
    let mut together = 0_u64;
    for draft in drafts {
        let Some(kept) = &draft.kept_log else { continue };
        together = together.saturating_add(kept.value.total());
        if together > room {
            let mebibytes = |bytes: u64| bytes.div_ceil(1 << 20);
            problems
                .error(
                    &kept.span,
                    format!(
                        "with this the kept logs may take {} MiB, and the data partition has {}",
                        mebibytes(together),
                        room >> 20
                    ),
                )
                .help(format!(
                    "lower `max-size` or `max-file`, or write size = \"{}m\" in [data], or more for the volumes",
                    mebibytes(together)
                ));
            return;
        }
    }
}
