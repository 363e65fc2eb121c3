//! The terminal at the other end of the line: how it is read, and what it is told besides what it shows.

use std::os::fd::AsFd;

use rustix::termios::{
    ControlModes, InputModes, LocalModes, OptionalActions, OutputModes, SpecialCodeIndex, Termios, tcgetattr,
    tcgetwinsize, tcsetattr,
};

/// Another screen with no cursor and no wrapping, whose size is asked for. Terminals pass over what they don't know. First goes what
/// a program in a shell may have left: a scroll region, insert and origin mode, line drawing, application keys, reports of the
/// mouse, which would be taken for keys, and of what is pasted.
pub(super) const OPEN: &str = "\x1b[?1049h\
    \x1b[r\x1b[4l\x1b[?6l\x0f\x1b(B\x1b[?1l\x1b>\x1b[?9l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?2004l\
    \x1b[?25l\x1b[?7l\x1b[0m\x1b[2J\x1b7\x1b[999;999H\x1b[6n\x1b8\x1b[18t";
/// Asks for the size: by where the cursor gets to, and by name.
pub(super) const ASK_SIZE: &str = "\x1b7\x1b[999;999H\x1b[6n\x1b8\x1b[18t";
/// Everything as it was: attributes, scroll region, wrapping, cursor, the first screen. Does no harm where nothing was changed,
/// but for rows below the cursor, where nothing is.
pub(super) const CLOSE: &str = "\x1b[0m\x1b7\x1b[r\x1b8\x1b[?7h\x1b[?25h\x1b[?1049l\r\x1b[J";

/// A line's end brings the cursor to the first column.
const ENDS_LINES: OutputModes = OutputModes::OPOST.union(OutputModes::ONLCR);

/// Makes a terminal deaf: nobody reads from it, and what comes in must not matter. By default a single Ctrl-S, or a byte of line
/// noise that looks like one, holds all output back until a Ctrl-Q; everything else would be echoed.
pub fn ignore_input(terminal: impl AsFd) {
    // Whatever is no terminal has no input.
    let Ok(mut modes) = tcgetattr(&terminal) else { return };
    dumb(&mut modes);
    // No receiver.
    modes.control_modes.remove(ControlModes::CREAD);
    let _ = tcsetattr(&terminal, OptionalActions::Now, &modes);
}

/// Makes a terminal give its bytes as they come; nothing in them holds output back, is echoed or sends a signal. False: it is no
/// terminal.
pub(super) fn listen(terminal: impl AsFd) -> bool {
    let Ok(mut modes) = tcgetattr(&terminal) else { return false };
    dumb(&mut modes);
    modes
        .input_modes
        .remove(InputModes::ICRNL | InputModes::INLCR | InputModes::IGNCR | InputModes::ISTRIP | InputModes::INPCK);
    modes.input_modes.insert(InputModes::IGNPAR);
    modes.input_modes.remove(InputModes::PARMRK);
    modes.local_modes.remove(LocalModes::ICANON | LocalModes::IEXTEN);
    modes.control_modes.insert(ControlModes::CREAD);
    modes.special_codes[SpecialCodeIndex::VMIN] = 1;
    modes.special_codes[SpecialCodeIndex::VTIME] = 0;
    modes.output_modes.insert(ENDS_LINES);
    tcsetattr(&terminal, OptionalActions::Now, &modes).is_ok()
}

/// Whether a line's end is made more of than it is. A shell has a terminal of its own that does so, unless a program there wants to
/// go down in its column.
pub(super) fn end_lines(terminal: impl AsFd, end: bool) {
    let Ok(mut modes) = tcgetattr(&terminal) else { return };
    modes.output_modes.set(ENDS_LINES, end);
    let _ = tcsetattr(&terminal, OptionalActions::Now, &modes);
}

/// What comes in does nothing by itself.
fn dumb(modes: &mut Termios) {
    modes.input_modes.remove(InputModes::IXON | InputModes::IXOFF | InputModes::BRKINT);
    modes.input_modes.insert(InputModes::IGNBRK);
    modes.local_modes.remove(LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ISIG);
    // No cable that may hang up.
    modes.control_modes.insert(ControlModes::CLOCAL);
}

/// Columns and rows, where the kernel knows them: of pseudo-terminals and screens, not of serial lines.
pub(super) fn size(terminal: impl AsFd) -> Option<(usize, usize)> {
    let size = tcgetwinsize(&terminal).ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then_some((usize::from(size.ws_col), usize::from(size.ws_row)))
}
