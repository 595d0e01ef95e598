//! The worker.
//!
//! | module | what it holds |
//! |---|---|
//! | `start` | the entry: does what the page's first message asks for |
//! | `serve` | loads a model, then serves the page |
//! | `fetch` | downloads a model, or copies one, into the browser's private file system |
//! | `conformance` | runs conformance tests, and writes their report |
//! | `part` | a kept file that is being written |
//! | `ranges` | files that are read in ranges, without waiting: opened, kept, fetched |

mod conformance;
mod fetch;
mod part;
mod ranges;
mod serve;
mod start;
