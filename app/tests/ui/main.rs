//! The app as a person uses it, without a window: real engine, real storage, drawn by whatever GPU there is (lavapipe always).

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test
#![allow(clippy::print_stdout)] // skipped tests say so

mod answers;
mod conversations;
mod crash;
mod experts;
mod keys;
mod notes;
mod pages;
mod pictures;
mod pixels;
mod shelf;
mod stage;
