//! What containers print: from their pipes to a ring each, and line by line to the console.

mod lines;
mod ring;

pub use lines::{Lines, MAX_LINE, Piece};
pub use ring::{Entry, Rings};
