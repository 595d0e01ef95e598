//! The list of conversations, and search.

use eframe::egui::Ui;

use super::Action;
use crate::chats::{ChatId, Hit, Summary};

/// What the list is drawn from.
pub struct SidebarContext<'a> {
    /// All conversations, in order.
    pub summaries: &'a [Summary],
    /// The one that is open.
    pub open: Option<&'a ChatId>,
    /// Those in which an answer is under way.
    pub busy: &'a [ChatId],
    /// What the search for [`SidebarView::query`] has found.
    pub hits: &'a [Hit],
    /// The model that answers; `None`: none is loaded.
    pub model: Option<&'a str>,
    /// Where it runs.
    pub device: Option<&'a str>,
    /// Now, in milliseconds since 1970.
    pub now_ms: u64,
}

/// What the list keeps between frames.
#[derive(Debug, Default)]
pub struct SidebarView {
    /// What is searched for; empty: nothing.
    pub query: String,
    /// Puts the cursor into the search box in the next frame.
    pub focus_search: bool,
    /// Opens the editor of a title in the next frame.
    pub rename: Option<ChatId>,
}

impl SidebarView {
    /// Draws the list.
    pub fn show(&mut self, ui: &mut Ui, cx: &SidebarContext<'_>, out: &mut Vec<Action>) {
        let _ = (ui, cx, out);
    }
}
