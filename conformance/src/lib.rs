//! Whether a GPU computes these models right, and how fast.
//!
//! [`suite`] runs tests on an open adapter, natively and in a browser, and tells a [`suite::Sink`] of each as it ends. What it
//! tells is what a [`report::Report`] holds.
//!
//! | module | what it holds |
//! |---|---|
//! | [`report`] | what a run found, as it is published |
//! | [`suite`] | the tests, and running them |
//! | [`table`] | what every kernel variant needs of a device, known without one |
//! | [`setup`] | plans of a few operations on random weights, on both executors: the cases of kernel tests |
//! | `case` | one test and what comes out of it |
//! | `probe` | small programs of the tests' own |
//! | `scalar`, `integer`, `memory`, `subgroup` | what WGSL promises |
//! | `kernel`, `model` | kernels and whole models against their twins |
//! | `speed` | what the device reaches |
//! | [`wire`] | what whoever runs the suite says to whoever started it, line by line |
//! | [`session`] | a run that is put together from such lines, over crashes and interruptions |
//! | [`expect`] | failures that are known |
//! | [`summary`] | counts and worst measures |
//! | [`compare`] | two reports, or many |
//! | [`output`] | reports as JSON, JUnit XML, a page and a table |
//! | [`schema`] | the published schema of the JSON |
#![warn(missing_docs)]

mod case;
pub mod compare;
pub mod expect;
mod identity;
mod integer;
mod kernel;
mod memory;
mod model;
pub mod output;
mod probe;
pub mod report;
mod scalar;
pub mod schema;
pub mod session;
pub mod setup;
mod speed;
mod subgroup;
pub mod suite;
pub mod summary;
pub mod table;
pub mod wire;
