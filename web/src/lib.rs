//! The app in a browser: the page draws and keeps conversations, a worker runs the model.
//!
//! | module | what it holds |
//! |---|---|
//! | `page` | the window, the elements for screen readers and scripts, conversations and files |
//! | `worker` | the worker: a model that is read in ranges, and the engine that runs it |
//! | `link` | what page and workers say to each other while a model is loaded or fetched |
//! | `kept` | the folder of models in the browser's private file system |
//! | `net` | what a server answers, piece by piece |
//! | `js` | small things that browsers do |
//! | `scope` | what the scopes of a page and of a worker have in common |
//!
//! Both are this one program, started twice: `start_page` and `start_worker`.
#![cfg(target_arch = "wasm32")]

mod js;
mod kept;
mod link;
mod net;
mod page;
mod scope;
mod worker;
