//! What a person sees: the window, and the command line `pleiad`.
//!
//! | module | what it holds |
//! |---|---|
//! | [`ui`] | the app: what is drawn, and the actions it asks for |
//! | [`chats`] | conversations as trees of messages, and the files they are kept in |
//! | [`talk`] | answers under way: from a question to tokens in a conversation |
//! | [`activity`] | what the experts did: the numbers behind every view of them |
//! | [`loading`] | models: what would go where, loading, what is loaded |
//! | [`settings`] | what a person has chosen, kept between runs |
//! | [`conversation`] | the messages of a prompt, and their token ids |
//! | [`thinking`] | telling reasoning from the answer while both stream in |
//! | [`sizes`] | numbers of bytes, said and understood |
//! | [`clock`] | the time of day |
//! | [`cli`] | the commands, one file each |
//! | [`window`] | the app in a window of its own |
//!
//! Arrows run from `ui` to the others; none of them knows of `ui`. Apart from [`cli`] and [`window`], nothing here assumes a
//! file system, threads or a call that may block: the same code runs in a browser.

pub mod activity;
pub mod chats;
#[cfg(not(target_arch = "wasm32"))]
pub mod cli;
pub mod clock;
pub mod conversation;
pub mod loading;
pub mod settings;
pub mod sizes;
pub mod talk;
pub mod thinking;
pub mod ui;
#[cfg(not(target_arch = "wasm32"))]
pub mod window;
