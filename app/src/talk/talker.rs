//! What people ask for: send, stop, regenerate, edit, continue.

use super::Live;
use crate::{
    activity::Activity,
    chats::{ChatId, Library, MessageId},
    loading::Models,
};

/// Something that a person should know.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// An answer is over: for screen readers.
    Finished {
        /// In which conversation.
        chat: ChatId,
        /// Which.
        message: MessageId,
    },
    /// Something went differently; the answer goes on.
    Info(String),
    /// Something failed, in words.
    Problem(String),
}

/// All answers under way, over all conversations. Nothing here waits.
#[derive(Debug, Default)]
pub struct Talker {}

impl Talker {
    /// The person says something after the leaf that is shown, and the model answers.
    pub fn send(&mut self, library: &mut Library, models: &Models, chat: &ChatId, text: &str) {
        let _ = (library, models, chat, text);
    }

    /// Answers the same prompt anew: a sibling of `message`.
    pub fn regenerate(&mut self, library: &mut Library, models: &Models, chat: &ChatId, message: MessageId) {
        let _ = (library, models, chat, message);
    }

    /// Says `text` in the place of `message`, as a sibling. A person's is answered; a model's stays as edited.
    pub fn edit(&mut self, library: &mut Library, models: &Models, chat: &ChatId, message: MessageId, text: &str) {
        let _ = (library, models, chat, message, text);
    }

    /// Goes on with an answer that ended early (stopped, cut at its longest, or the program ended).
    pub fn go_on(&mut self, library: &mut Library, models: &Models, chat: &ChatId, message: MessageId) {
        let _ = (library, models, chat, message);
    }

    /// Stops what is under way in a conversation, further turns of two minds included.
    pub fn stop(&mut self, chat: &ChatId) {
        let _ = chat;
    }

    /// Reads a text to see which experts it uses, in a session of its own; [`Talker::surveyed`] tells when it is over.
    /// `name` names it.
    pub fn survey(&mut self, models: &Models, name: &str, text: &str) {
        let _ = (models, name, text);
    }

    /// Texts that have been read since this was last asked: the name, and uses of every expert `[rows, experts]`.
    pub fn surveyed(&mut self) -> Vec<(String, Vec<u64>)> {
        Vec::new()
    }

    /// The survey that is under way, and how many wait behind it.
    pub fn surveying(&self) -> Option<(&str, usize)> {
        None
    }

    /// Takes what the engines have said since the last call. `activity` is told of routing of the first model's answers;
    /// `now` in seconds of a clock that does not go back.
    pub fn poll(&mut self, library: &mut Library, models: &Models, activity: Option<&mut Activity>, now: f64) -> Vec<Notice> {
        let _ = (library, models, activity, now);
        Vec::new()
    }

    /// Whether anything is under way.
    pub fn busy(&self) -> bool {
        false
    }

    /// The answer under way in a conversation.
    pub fn live(&self, chat: &ChatId) -> Option<&Live> {
        let _ = chat;
        None
    }

    /// The conversations in which an answer is under way.
    pub fn chats(&self) -> Vec<ChatId> {
        Vec::new()
    }
}
