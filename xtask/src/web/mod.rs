//! `cargo xtask web`: the browser's app as a static site, `web/dist`.
//!
//! | module | what it holds |
//! |---|---|
//! | `browser` | the tests in a browser |
//! | `build` | from the workspace to `web/dist` |
//! | `optimise` | `wasm-opt`, where it can be had |
//! | `http` | requests and ranges of HTTP/1.1 |
//! | `serve` | a server of static files on this machine |

mod browser;
mod build;
mod http;
mod optimise;
mod serve;

use std::path::PathBuf;

pub(crate) use browser::{prepare, test};
pub(crate) use build::build;
pub(crate) use serve::Serve;

/// What browsers run.
const TARGET: &str = "wasm32-unknown-unknown";

/// The folder of the site.
fn dist() -> PathBuf {
    crate::root().join("web/dist")
}
