//! The page.
//!
//! | module | what it holds |
//! |---|---|
//! | `start` | the entry, and the app in the page |
//! | `query` | what the address of the page says |
//! | `mirror` | labelled elements for screen readers and scripts |
//! | `store` | conversations and settings, in the browser's database |
//! | `files` | files that a person chooses, drops or saves |
//! | `opened` | files that were opened in this page, by number |
//! | `loader` | workers that load models |
//! | `shelf` | models that are kept, and downloads |

mod files;
mod loader;
mod mirror;
mod opened;
mod query;
mod shelf;
mod start;
mod store;
