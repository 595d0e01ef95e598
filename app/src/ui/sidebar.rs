//! The list of conversations, and search.
//!
//! | module | what it holds |
//! |---|---|
//! | [`list`] | groups, rows, their menus, and the editor of a title |
//! | [`hits`] | what a search has found |

mod hits;
mod list;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use egui::{
    self, Align, Button, Color32, EventFilter, FocusDirection, Galley, Id, Key, Layout, Modifiers, Rect, Response, RichText,
    Role, Sense, TextEdit, TextStyle, TextWrapMode, Ui, Vec2, WidgetText,
};

use super::{Action, Command, Page, Theme, icons::Icon, parts, theme};
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
    /// The page that is shown.
    pub page: Page,
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
    /// The title that is being edited.
    editing: Option<list::Editing>,
    /// The rows of the list; kept to be used again.
    rows: Vec<list::Row>,
    /// The conversation that was open in the last frame: the list follows when it changes.
    open: Option<ChatId>,
    /// The focus goes to the first row.
    enter: bool,
    /// How high the part below the list was.
    footer: f32,
}

impl SidebarView {
    /// Draws the list.
    pub fn show(&mut self, ui: &mut Ui, cx: &SidebarContext<'_>, out: &mut Vec<Action>) {
        if self.rename.is_some() {
            // The title is edited in the list.
            self.query.clear();
        }
        header_ui(ui, out);
        self.search_ui(ui);
        ui.add_space(2.0);
        let footer = if self.footer > 0.0 { self.footer } else { 100.0 };
        let height = (ui.available_height() - footer - ui.spacing().item_spacing.y).max(60.0);
        let rect = Rect::from_min_size(ui.cursor().min, Vec2::new(ui.available_width(), height));
        ui.scope_builder(egui::UiBuilder::new().max_rect(rect), |ui| {
            if self.query.trim().is_empty() {
                self.list_ui(ui, cx, out);
            } else {
                self.hits_ui(ui, cx, out);
            }
            self.enter = false;
        });
        ui.advance_cursor_after_rect(rect);
        self.footer = ui.scope(|ui| footer_ui(ui, cx, out)).response.rect.height();
    }

    fn search_ui(&mut self, ui: &mut Ui) {
        ui.horizontal(|ui| {
            let clear = if self.query.is_empty() { 0.0 } else { 26.0 + ui.spacing().item_spacing.x };
            let search = TextEdit::singleline(&mut self.query)
                .id(Id::unique("sidebar search"))
                .hint_text("Search")
                .event_filter(EventFilter { horizontal_arrows: true, vertical_arrows: true, escape: true, tab: false })
                .desired_width(ui.available_width() - clear);
            let search = ui.add(search).accessible_name("Search conversations");
            if std::mem::take(&mut self.focus_search) {
                search.request_focus();
            }
            if search.has_focus() {
                if pressed(ui, Key::Escape) {
                    if self.query.is_empty() {
                        search.surrender_focus();
                    }
                    self.query.clear();
                }
                self.enter = pressed(ui, Key::ArrowDown);
            }
            let tooltip = "Clear the search (Esc)";
            if clear > 0.0 && parts::icon_button(ui, "×", "Clear the search", tooltip).clicked() {
                self.query.clear();
                search.request_focus();
            }
        });
    }
}

fn header_ui(ui: &mut Ui, out: &mut Vec<Action>) {
    let strong = Theme::of(ui.ctx()).strong;
    let brand = ui.label(RichText::new("Pleiad").heading().color(strong));
    ui.ctx().accesskit_node_builder(brand.id, |node| node.set_role(Role::Heading));
    let new = Button::new("+  New conversation").min_size(Vec2::new(ui.available_width(), 0.0));
    let new = ui.add(new);
    parts::named(&new, Role::Button, Command::NewChat.name());
    if new.on_hover_text(Command::NewChat.tooltip(ui.ctx())).clicked() {
        out.push(Action::Run(Command::NewChat));
    }
}

/// The model, and the pages.
fn footer_ui(ui: &mut Ui, cx: &SidebarContext<'_>, out: &mut Vec<Action>) {
    let t = Theme::of(ui.ctx());
    ui.separator();
    let lines = ui.text_style_height(&TextStyle::Body) + ui.text_style_height(&TextStyle::Small);
    let (rect, response) = ui.allocate_exact_size(Vec2::new(ui.available_width(), lines + 12.0), Sense::click());
    let model = cx.model.unwrap_or("No model");
    let device = cx.device.unwrap_or(if cx.model.is_some() { "" } else { "Choose a model..." });
    let name = match (cx.model, cx.device) {
        (Some(m), Some(d)) => format!("Choose a model, now {m} on {d}"),
        (Some(m), None) => format!("Choose a model, now {m}"),
        (None, _) => "Choose a model".to_owned(),
    };
    parts::named(&response, Role::Button, &name);
    ground(ui, rect, &response, false);
    let inner = rect.shrink2(Vec2::new(theme::GAP, 6.0));
    let text = elided(ui, RichText::new(model).color(t.strong), inner.width());
    ui.painter().galley(inner.min, text, t.strong);
    let text = elided(ui, parts::small(ui, device), inner.width());
    ui.painter().galley(egui::pos2(inner.left(), inner.bottom() - text.size().y), text, t.muted);
    if response.on_hover_text(Command::OpenPicker.tooltip(ui.ctx())).clicked() {
        out.push(Action::OpenPicker);
    }
    ui.horizontal_wrapped(|ui| {
        ui.spacing_mut().item_spacing.x = 4.0;
        for (page, icon, name, command) in [
            (Page::Chat, Icon::Chat, "Conversation", Command::ShowChat),
            (Page::Experts, Icon::Experts, "Experts", Command::ShowExperts),
            (Page::Performance, Icon::Performance, "Performance", Command::ShowPerformance),
            (Page::Settings, Icon::Settings, "Settings", Command::ShowSettings),
            (Page::Log, Icon::Log, "Log", Command::ShowLog),
        ] {
            if icon.toggle(ui, cx.page == page, name, &command.tooltip(ui.ctx())).clicked() {
                out.push(Action::Go(page));
            }
        }
    });
}

/// Paints the ground of something that can be clicked.
fn ground(ui: &Ui, rect: Rect, response: &Response, chosen: bool) {
    let t = Theme::of(ui.ctx());
    let fill = match (chosen, response.hovered() || response.has_focus()) {
        (true, _) => t.accent_soft,
        (false, true) => ui.visuals().widgets.hovered.weak_bg_fill,
        (false, false) => Color32::TRANSPARENT,
    };
    ui.painter().rect_filled(rect, theme::ROUND_SMALL, fill);
    if chosen {
        // Not by colour alone.
        ui.painter().rect_filled(Rect::from_min_size(rect.min, Vec2::new(3.0, rect.height())), 1.0, t.accent);
    }
    if response.has_focus() {
        ui.painter().rect_stroke(rect, theme::ROUND_SMALL, egui::Stroke::new(1.0, t.accent), egui::StrokeKind::Inside);
    }
}

/// A text on one line.
fn elided(ui: &Ui, text: RichText, width: f32) -> Arc<Galley> {
    WidgetText::from(text).into_galley(ui, Some(TextWrapMode::Truncate), width.max(8.0), TextStyle::Body)
}

/// Whether a key was pressed; nobody else sees it.
fn pressed(ui: &Ui, key: Key) -> bool {
    ui.input_mut(|i| i.consume_key(Modifiers::NONE, key))
}

/// Where the keys move the focus to from row `i` of `len`, when that has the focus.
fn moved(ui: &Ui, response: &Response, i: usize, len: usize) -> Option<Step> {
    if !response.has_focus() {
        return None;
    }
    let filter = EventFilter { vertical_arrows: true, ..EventFilter::default() };
    ui.memory_mut(|m| m.set_focus_lock_filter(response.id, filter));
    let step = if pressed(ui, Key::ArrowDown) {
        Step { from: (i + 1).min(len), down: true }
    } else if pressed(ui, Key::ArrowUp) {
        Step { from: i.checked_sub(1)?, down: false }
    } else if pressed(ui, Key::Home) {
        Step { from: 0, down: true }
    } else if pressed(ui, Key::End) {
        Step { from: len.saturating_sub(1), down: false }
    } else {
        return None;
    };
    // egui itself would go to what is nearest on the screen.
    ui.memory_mut(|m| m.move_focus(FocusDirection::None));
    Some(step)
}

/// Where the focus goes: the first row from here on that can have it.
#[derive(Clone, Copy, Debug)]
struct Step {
    from: usize,
    down: bool,
}

/// Gives the focus to a row and scrolls to it.
fn focus_row(ui: &Ui, id: Id, rect: Rect) {
    ui.memory_mut(|m| m.request_focus(id));
    // At once: a row that is not drawn in the next frame would lose the focus.
    ui.scroll_to_rect_animation(rect, None, egui::style::ScrollAnimation::none());
    ui.ctx().request_repaint();
}

/// A note in the place of rows.
fn nothing_ui(ui: &mut Ui, text: &str) {
    ui.add_space(theme::PAD);
    ui.with_layout(Layout::top_down(Align::Center), |ui| ui.label(parts::muted(ui, text)));
}
