//! What page and worker say to each other while a model is loaded. Once it is, they exchange the bytes of
//! [`pleiad_runtime::engine::remote`].
//!
//! To the worker goes first an object `{ kind, file, name, options }` ([`FIELDS`]): `kind` is one of [`FILE`], [`KEPT`] and [`URL`];
//! `file` a File, or the name of a kept file, or an address; `options` the engine's options as JSON. Then byte arrays.
//!
//! The worker answers with objects that have one of the fields [`PROGRESS`] (`[what, done, total]`), [`READY`] (the greeting),
//! [`FAILED`] (words) and, from then on, with byte arrays.

/// Names of the fields of the first message.
pub const FIELDS: [&str; 4] = ["kind", "file", "name", "options"];
/// A File that a person opened.
pub const FILE: &str = "file";
/// A file of the origin's private file system.
pub const KEPT: &str = "kept";
/// A file of the site, small enough to be fetched whole, or read by synchronous ranged requests.
pub const URL: &str = "url";
/// How far it is.
pub const PROGRESS: &str = "progress";
/// The model is there.
pub const READY: &str = "ready";
/// It could not be loaded.
pub const FAILED: &str = "failed";
/// The folder of the private file system that kept models lie in.
pub const FOLDER: &str = "models";
