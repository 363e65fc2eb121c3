//! What containers print: from their pipes to a ring each, and line by line to the console. Beside them, what happened.

mod follower;
mod journal;
mod lines;
mod ring;

pub use follower::{Batch, Follower, Place};
pub use journal::Journal;
pub use lines::{Lines, MAX_LINE, Piece};
pub use ring::{Entry, Rings};
