//! A long list through a small window: what of it is seen, and how keys move that.

use std::ops::Range;

use super::keys::Key;

/// The window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pager {
    /// The first row that is seen.
    first: usize,
    selected: usize,
    /// The end is seen, also when it moves.
    follow: bool,
    /// At its end it follows again.
    tail: bool,
    /// As it was last drawn.
    total: usize,
    height: usize,
}

impl Pager {
    /// One that begins at the first row.
    pub fn top() -> Self {
        Self { first: 0, selected: 0, follow: false, tail: false, total: usize::MAX, height: 1 }
    }

    /// One that follows the last.
    pub fn bottom() -> Self {
        Self { follow: true, tail: true, ..Self::top() }
    }

    /// The row that a person has chosen.
    pub fn selected(&self) -> usize {
        self.selected
    }

    /// The end is seen, also when it moves.
    pub fn follows(&self) -> bool {
        self.follow
    }

    /// Which of `total` rows are seen in a window of `height`.
    pub fn window(&mut self, total: usize, height: usize) -> Range<usize> {
        (self.total, self.height) = (total, height.max(1));
        let last = total.saturating_sub(height);
        self.first = if self.follow { last } else { self.first.min(last) };
        self.first..self.first.saturating_add(height).min(total)
    }

    /// The same, where the selected row is always seen.
    pub fn window_on_selected(&mut self, total: usize, height: usize) -> Range<usize> {
        self.selected = self.selected.min(total.saturating_sub(1));
        let lowest = self.selected.saturating_add(1).saturating_sub(height.max(1));
        self.first = self.first.clamp(lowest, self.selected.max(lowest));
        self.window(total, height)
    }

    /// Moves the window.
    pub fn scroll(&mut self, key: Key) {
        let last = self.total.saturating_sub(self.height);
        let Some(first) = moved(key, self.first, self.height, last) else { return };
        self.first = first;
        self.follow = self.tail && first == last;
    }

    /// Moves the selection.
    pub fn select(&mut self, key: Key) {
        let last = self.total.saturating_sub(1);
        if let Some(selected) = moved(key, self.selected, self.height, last) {
            self.selected = selected;
        }
    }
}

fn moved(key: Key, from: usize, page: usize, last: usize) -> Option<usize> {
    let to = match key {
        Key::Up | Key::Char(b'k') => from.saturating_sub(1),
        Key::Down | Key::Char(b'j') => from.saturating_add(1),
        Key::PageUp | Key::Control(b'b') => from.saturating_sub(page),
        Key::PageDown | Key::Char(b' ') | Key::Control(b'f') => from.saturating_add(page),
        Key::Home | Key::Char(b'g') => 0,
        Key::End | Key::Char(b'G') => last,
        _ => return None,
    };
    Some(to.min(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_followed_until_somebody_scrolls_and_again_at_the_end() {
        let mut pager = Pager::bottom();
        assert_eq!(pager.window(100, 10), 90..100);
        assert_eq!(pager.window(101, 10), 91..101);
        pager.scroll(Key::Up);
        assert!(!pager.follows());
        assert_eq!(pager.window(200, 10), 90..100, "what is read stays where it is");
        pager.scroll(Key::PageUp);
        assert_eq!(pager.window(200, 10), 80..90);
        pager.scroll(Key::End);
        assert_eq!(pager.window(300, 10), 290..300);
        pager.scroll(Key::Home);
        assert_eq!(pager.window(5, 10), 0..5);
    }

    #[test]
    fn the_selection_is_always_seen() {
        let mut pager = Pager::top();
        assert_eq!(pager.window_on_selected(30, 10), 0..10);
        pager.select(Key::PageDown);
        assert_eq!((pager.selected(), pager.window_on_selected(30, 10)), (10, 1..11));
        pager.select(Key::End);
        assert_eq!((pager.selected(), pager.window_on_selected(30, 10)), (29, 20..30));
        pager.select(Key::Down);
        pager.select(Key::Char(b'k'));
        assert_eq!((pager.selected(), pager.window_on_selected(30, 10)), (28, 20..30));
        assert_eq!(pager.window_on_selected(30, 3), 26..29);
        pager.select(Key::Home);
        assert_eq!(pager.window_on_selected(30, 3), 0..3);
        assert_eq!(pager.window_on_selected(0, 0), 0..0);
    }

    #[test]
    fn nothing_drawn_yet_moves_nothing_out_of_bounds() {
        let mut pager = Pager::top();
        pager.select(Key::End);
        assert_eq!(pager.window_on_selected(3, 10), 0..3);
        assert_eq!(pager.selected(), 2);
    }
}
