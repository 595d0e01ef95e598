//! The conversation: messages, markdown, the box to write in.
//!
//! | module | what it holds |
//! |---|---|
//! | [`list`] | the list of messages, of which only those in sight are laid out |
//! | [`message`] | one message with its buttons |
//! | [`reasoning`] | the line that folds reasoning, and how it stands out |
//! | [`segments`] | which parts of a message are reasoning |
//! | [`blocks`] | cutting Markdown into blocks as it grows |
//! | [`prepare`] | what is changed in Markdown before it is drawn |
//! | [`markdown`] | drawing Markdown, block by block |
//! | [`code`] | blocks of code |
//! | [`tables`] | tables |
//! | [`math`] | formulas |
//! | [`words`] | linking words on the screen with their place in the source |
//! | [`stats`] | what an answer took, in words |
//! | [`composer`] | the box to write in |
//! | [`start`] | what is shown where there is nothing to show |
//! | [`buttons`] | buttons with icons: dim until hovered, and round |

mod blocks;
mod buttons;
mod code;
mod composer;
mod list;
mod markdown;
pub mod math;
pub(super) mod message;
mod prepare;
mod reasoning;
mod segments;
mod start;
mod stats;
mod tables;
#[cfg(test)]
mod tests;
mod words;

use std::{collections::HashMap, ops::Range};

use egui::{Align, Id, Layout, Rect, Role, Sense, Ui, UiBuilder, Vec2, WidgetInfo, accesskit::Live as LiveRegion, pos2};
use pleiad_models::Role as Speaker;

use super::{Action, Command, Theme, icons::Icon, theme};
use crate::{
    chats::{Chat, ChatId, MessageId},
    settings::Settings,
    talk::Live,
};
use list::{List, Shown};
use message::{Editor, Messages, Said};

/// Words of a message that are linked with a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// In which conversation.
    pub chat: ChatId,
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

impl ChatContext<'_> {
    /// Words of that message to light.
    fn lit_in(&self, message: MessageId) -> Option<&Span> {
        self.lit.filter(|s| s.message == message && self.chat.is_some_and(|c| c.id == s.chat))
    }
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
    /// Messages being written in other conversations.
    drafts: HashMap<ChatId, String>,
    chat: Option<ChatId>,
    list: List,
    messages: Messages,
    composer: composer::Composer,
    /// The answer that was under way in the last frame.
    running: Option<MessageId>,
    /// What screen readers are told.
    announcement: String,
}

impl ChatView {
    /// Draws the conversation and the box to write in, and fills all of `ui`.
    pub fn show(&mut self, ui: &mut Ui, cx: &ChatContext<'_>, out: &mut Vec<Action>) {
        let shown = cx.chat.map(|c| list::path(&c.tree)).unwrap_or_default();
        self.show_path(ui, cx, &shown, out);
    }

    /// Whether Escape closes an editor here, so that it is not to be taken as [`Command::Stop`].
    pub fn takes_escape(&self) -> bool {
        self.messages.editor.is_some()
    }

    /// Height of the box to write in, with what belongs to it, in the last frame.
    pub fn input_height(&self) -> f32 {
        self.composer.height
    }

    /// Names the box to write in.
    pub fn input_id() -> Id {
        composer::id()
    }

    fn show_path(&mut self, ui: &mut Ui, cx: &ChatContext<'_>, shown: &[Shown<'_>], out: &mut Vec<Action>) {
        self.pointed = None;
        let chat = cx.chat.map(|c| &c.id);
        if self.chat.as_ref() != chat {
            // What is being written belongs to its conversation.
            if let Some(before) = self.chat.take().filter(|_| !self.draft.is_empty()) {
                self.drafts.insert(before, std::mem::take(&mut self.draft));
            }
            if let Some(draft) = chat.and_then(|id| self.drafts.remove(id)) {
                self.draft = draft;
            }
            self.chat = chat.cloned();
            self.list.reset();
            self.messages.reset();
            (self.running, self.announcement) = (None, String::new());
        }
        self.messages.tidy();
        self.requests(ui, shown);

        let whole = ui.available_rect_before_wrap();
        let height = self.composer.height.min(whole.height() * 0.6);
        let top = Rect::from_min_max(whole.min, pos2(whole.right(), whole.bottom() - height));
        let mut upper = ui.new_child(UiBuilder::new().id_salt("list").max_rect(top).layout(Layout::top_down(Align::Min)));
        upper.shrink_clip_rect(top);
        if shown.is_empty() {
            if let Some(text) = start::start_ui(&mut upper, cx, out) {
                out.push(Action::Send(text.to_owned()));
                self.list.following = true;
            }
        } else {
            self.list_ui(&mut upper, cx, shown, out);
        }
        self.composer_ui(ui, cx, shown, whole, height, out);
        self.announce(ui, cx, shown);
        ui.advance_cursor_after_rect(whole);
    }

    /// What was asked for from outside.
    fn requests(&mut self, ui: &Ui, shown: &[Shown<'_>]) {
        if std::mem::take(&mut self.jump_to_end) {
            self.list.following = true;
        }
        if let Some(id) = self.edit.take()
            && let Some(s) = shown.iter().find(|s| s.message.id == id)
        {
            self.messages.editor = Some(Editor::new(s.message));
            if !self.list.sees(id, shown) {
                self.list.scroll_to(id);
            }
        }
        if let Some(id) = self.scroll_to.take() {
            self.list.scroll_to(id);
            self.messages.marked = Some((id, ui.input(|i| i.time)));
        }
        // An editor whose message is no longer shown.
        if self.messages.editor.as_ref().is_some_and(|e| !shown.iter().any(|s| s.message.id == e.message)) {
            self.messages.editor = None;
        }
    }

    fn list_ui(&mut self, ui: &mut Ui, cx: &ChatContext<'_>, shown: &[Shown<'_>], out: &mut Vec<Action>) {
        let area = ui.available_rect_before_wrap();
        let Self { list, messages, pointed, edit, .. } = self;
        let mut said = Said { out, pointed, edit };
        list.ui(ui, shown, &mut |ui, i| {
            if let Some(item) = shown.get(i) {
                messages.ui(ui, cx, item, i + 1 == shown.len(), &mut said);
            }
        });
        list.hold(shown);
        if !list.following {
            let center = pos2(area.center().x, area.bottom() - 16.0 - theme::GAP);
            let rect = Rect::from_center_size(center, Vec2::splat(32.0));
            let tip = Command::JumpToEnd.tooltip(ui.ctx());
            let mut child = ui.new_child(UiBuilder::new().id_salt("jump").max_rect(rect));
            let button = buttons::round_button(&mut child, Icon::Down, Command::JumpToEnd.name(), &tip, false);
            ui.painter().circle_stroke(rect.center(), 16.0, (1.0, Theme::of(ui.ctx()).line));
            if button.clicked() {
                list.following = true;
                ui.ctx().request_repaint();
            }
        }
    }

    fn composer_ui(
        &mut self,
        ui: &mut Ui,
        cx: &ChatContext<'_>,
        shown: &[Shown<'_>],
        whole: Rect,
        height: f32,
        out: &mut Vec<Action>,
    ) {
        let rect = Rect::from_x_y_ranges(list::column(ui, whole), whole.bottom() - height..=whole.bottom());
        let mut lower = ui.new_child(UiBuilder::new().id_salt("composer").max_rect(rect).layout(Layout::top_down(Align::Min)));
        lower.add_space(theme::GAP);
        if !shown.is_empty() {
            start::banner_ui(&mut lower, cx, out);
        }
        let focus = std::mem::take(&mut self.focus_input);
        match self.composer.ui(&mut lower, cx, &mut self.draft, focus, shown, out) {
            Some(composer::Asked::Send) => self.list.following = true,
            Some(composer::Asked::EditLast) => {
                let question = shown.iter().rev().find(|s| s.message.role == Speaker::User);
                self.edit = question.map(|s| s.message.id);
                ui.ctx().request_repaint();
            }
            None => {}
        }
        lower.add_space(theme::GAP);
        let needed = lower.min_rect().height();
        if (needed - self.composer.height).abs() > 0.5 {
            self.composer.height = needed;
            ui.ctx().request_discard("the box to write in has another height");
        }
    }

    /// Tells screen readers of an answer that is finished.
    fn announce(&mut self, ui: &mut Ui, cx: &ChatContext<'_>, shown: &[Shown<'_>]) {
        /// Longest announcement, in characters.
        const LONGEST: usize = 600;
        let running = cx.live.map(|l| l.message);
        if let Some(done) = self.running.filter(|_| running.is_none()) {
            let answer = shown.iter().find(|s| s.message.id == done);
            self.announcement = answer.map_or_else(String::new, |s| {
                let text: String = message::answer_text(s.message).chars().take(LONGEST).collect();
                format!("Answer finished. {text}")
            });
        } else if running.is_some() {
            self.announcement.clear();
        }
        self.running = running;
        let rect = Rect::from_min_size(ui.max_rect().left_bottom(), Vec2::ZERO);
        let response = ui.interact(rect, ui.unique_id().with("announcement"), Sense::hover());
        response.widget_info(|| WidgetInfo::labeled(Role::Status, true, &self.announcement));
        ui.ctx().accesskit_node_builder(response.id, |node| node.set_live(LiveRegion::Polite));
    }
}
