//! The worker.
//!
//! | module | what it holds |
//! |---|---|
//! | `start` | the entry: loads a model, then serves the page |
//! | `ranges` | files that are read in ranges, without waiting: opened, kept, fetched |

mod ranges;
mod start;
