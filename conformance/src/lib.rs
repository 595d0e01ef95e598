//! Whether a GPU computes these models right, and how fast.
//!
//! [`suite`] runs tests on an open adapter, natively and in a browser, and tells a [`suite::Sink`] of each as it ends. What it
//! tells is what a [`report::Report`] holds.
//!
//! | module | what it holds |
//! |---|---|
//! | [`report`] | what was found on one adapter |
//! | [`suite`] | the tests |
//! | [`wire`] | what whoever runs the suite says to whoever started it, line by line |
//! | [`session`] | a run that is put together from such lines, over crashes and interruptions |
//! | [`expect`] | failures that are known |
//! | [`summary`] | counts and worst measures |
//! | [`compare`] | two reports, or many |
//! | [`output`] | reports as JSON, JUnit XML, a page and a table |
//! | [`schema`] | the published schema of the JSON |
#![warn(missing_docs)]

pub mod compare;
pub mod expect;
pub mod output;
pub mod report;
pub mod schema;
pub mod session;
pub mod suite;
pub mod summary;
pub mod wire;
