//! The repository itself: its crates, its files and its pages.

mod circles;
mod errors_index;
mod house;
mod mistakes;
mod prose;
mod type_names;
mod way_of_a_call;
