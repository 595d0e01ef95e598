//! Models: what would go where, loading, what is loaded.
//!
//! | module | what it holds |
//! |---|---|
//! | [`source`] | where a model comes from |
//! | [`price`] | what would go where under a memory budget, before anything is loaded |
//! | [`loaded`] | a model that is ready |
//! | [`models`] | loading beside the window, and all that is loaded |
//! | [`devices`] | the devices there are, found beside the window |
//! | [`options`] | from what a person has chosen to what an engine is told |
//! | [`shelf`] | models that are kept for a page, and downloads of them |
//! | `elsewhere` | in a browser: models that are loaded by a worker |
//! | `head` | in a browser: opening a model by the beginning of its file |
//! | [`host`] | how much memory this computer has |
//! | [`beside`] | work beside the window, where platforms differ |

pub mod beside;
pub mod devices;
#[cfg(target_arch = "wasm32")]
pub mod elsewhere;
#[cfg(any(target_arch = "wasm32", test))]
mod head;
pub mod host;
mod job;
pub mod loaded;
pub mod models;
pub mod options;
pub mod price;
pub mod shelf;
pub mod source;

use std::sync::Arc;

pub use loaded::LoadedModel;
pub use models::{Loading, Models};
pub use price::{Examined, Price, Share};
pub use source::{Found, Source};

/// Called when something that the window shows has changed on another thread: it asks for a frame.
pub type Wake = Arc<dyn Fn() + Send + Sync>;
