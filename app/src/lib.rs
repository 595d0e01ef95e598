//! What a person sees: the command line `pleiad`.
//!
//! | module | what it holds |
//! |---|---|
//! | [`cli`] | the commands, one file each |
//! | [`conversation`] | a conversation, and the token ids of its prompt |
//! | [`thinking`] | telling reasoning from the answer while both stream in |

pub mod cli;
pub mod conversation;
pub mod thinking;
