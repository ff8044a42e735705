//! The repository itself: its crates, its files and its pages.

mod circles;
mod errors_index;
mod house;
mod mistakes;
