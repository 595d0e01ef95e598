//! An engine that works elsewhere: in a browser, in a worker, while the page has the handle.
//!
//! The page has a [`Remote`] behind its [`Engine`](super::Engine): what sessions ask for becomes messages, and messages that come
//! back become events. The worker has a [`Host`] in front of the engine that does the work. Messages are bytes; both sides are
//! the same program, so their form is nobody else's business.
//!
//! The worker's engine needs no tokenizer: the page turns tokens into text.

mod host;
mod message;
mod page;
#[cfg(test)]
mod tests;

pub use host::Host;
pub use page::Remote;
