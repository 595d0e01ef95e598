//! The conversation: messages, markdown, the box to write in.

use std::ops::Range;

use eframe::egui::Ui;

use super::Action;
use crate::{
    chats::{Chat, MessageId},
    settings::Settings,
    talk::Live,
};

/// Words of a message that are linked with a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Which message.
    pub message: MessageId,
    /// Where in its text, in bytes.
    pub bytes: Range<usize>,
}

/// What the conversation is drawn from.
pub struct ChatContext<'a> {
    /// What is open; `None`: nothing was said yet.
    pub chat: Option<&'a Chat>,
    /// The answer under way in it.
    pub live: Option<&'a Live>,
    /// The name of the model that answers; `None`: none is loaded.
    pub model: Option<&'a str>,
    /// Longest context of it, in tokens.
    pub context: usize,
    /// A model is being loaded: share done, if it is known.
    pub loading: Option<Option<f32>>,
    /// Why there is no model, if loading it failed.
    pub problem: Option<&'a str>,
    /// Words to light: the text of the token that is pointed at among the experts.
    pub lit: Option<&'a Span>,
    /// What a person has chosen.
    pub settings: &'a Settings,
}

/// What the conversation keeps between frames.
#[derive(Default)]
pub struct ChatView {
    /// The message being written.
    pub draft: String,
    /// The words of an answer that are pointed at in this frame.
    pub pointed: Option<Span>,
    /// Puts the cursor into the box in the next frame.
    pub focus_input: bool,
    /// Scrolls to the end in the next frame.
    pub jump_to_end: bool,
    /// Scrolls to a message in the next frame.
    pub scroll_to: Option<MessageId>,
    /// Opens the editor of a message in the next frame.
    pub edit: Option<MessageId>,
}

impl ChatView {
    /// Draws the conversation and the box to write in, and fills all of `ui`.
    pub fn show(&mut self, ui: &mut Ui, cx: &ChatContext<'_>, out: &mut Vec<Action>) {
        let _ = (ui, cx, out);
    }
}
