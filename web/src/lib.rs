//! The app in a browser: the page draws and keeps conversations, a worker runs the model.
//!
//! | module | what it holds |
//! |---|---|
//! | `page` | the window, the elements for screen readers and scripts, conversations and files |
//! | `worker` | the worker: a model that is read in ranges, and the engine that runs it |
//! | `link` | what page and worker say to each other while a model is loaded |
//! | `js` | small things that browsers do |
//!
//! Both are this one program, started twice: `start_page` and `start_worker`.
#![cfg(target_arch = "wasm32")]

mod js;
mod link;
mod page;
mod worker;
