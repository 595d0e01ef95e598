//! Answers under way: from a question to tokens in a conversation.
//!
//! | module | what it holds |
//! |---|---|
//! | [`talker`] | what people ask for: send, stop, regenerate, edit, continue |
//! | [`run`] | one generation, from its prompt to its last event |
//! | [`live`] | how far an answer is |
//! | [`duet`] | a second mind that reviews, or talks with the first |
//! | [`survey`] | prompt packs that are read to see which experts they use |

pub mod duet;
pub mod live;
pub mod run;
pub mod survey;
pub mod talker;

pub use live::Live;
pub use talker::{Notice, Talker};
