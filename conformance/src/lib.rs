//! Whether a GPU computes these models right, and how fast.
//!
//! [`suite`] runs tests on an open adapter, natively and in a browser, and tells a [`suite::Sink`] of each as it ends. What it
//! tells is what a [`report::Report`] holds.
#![warn(missing_docs)]

pub mod report;
pub mod suite;
