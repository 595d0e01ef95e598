//! The list itself: groups, rows, their menus, and the editor of a title.

use egui::{
    self, EventFilter, Id, Key, Popup, Rect, RichText, Role, ScrollArea, Sense, TextEdit, TextStyle, Ui, UiBuilder, Vec2,
    WidgetInfo, text::CCursorRange,
};

use super::super::icons::{self, Icon};
use super::{SidebarContext, SidebarView, Step, elided, focus_row, ground, moved, nothing_ui, pressed};
use crate::{
    chats::{ChatId, Summary},
    ui::{Action, Theme, action::ExportFormat, parts, theme},
};

/// A day in milliseconds.
const DAY: u64 = 86_400_000;
/// Width of the button that opens a row's menu.
const MENU: f32 = 26.0;

/// A row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Row {
    /// The heading of a group.
    Heading(&'static str),
    /// A conversation, by its place among the summaries.
    Chat(usize),
}

/// A title that is being edited.
#[derive(Debug)]
pub(super) struct Editing {
    chat: ChatId,
    text: String,
    /// The editor was drawn, and has been given the focus.
    begun: bool,
}

/// What a person wants of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Nothing,
    Rename,
    Go(Step),
}

impl PartialEq for Step {
    fn eq(&self, other: &Self) -> bool {
        (self.from, self.down) == (other.from, other.down)
    }
}

impl Eq for Step {}

/// The group of a conversation. Days are those of UTC: the time zone is not known everywhere.
fn group(summary: &Summary, now_ms: u64) -> &'static str {
    match (now_ms / DAY).saturating_sub(summary.updated_ms / DAY) {
        _ if summary.pinned => "Pinned",
        0 => "Today",
        1 => "Yesterday",
        2..=7 => "Last 7 days",
        _ => "Older",
    }
}

/// Puts a heading before each group.
pub(super) fn arrange(rows: &mut Vec<Row>, summaries: &[Summary], now_ms: u64) {
    rows.clear();
    let mut last = "";
    for (i, summary) in summaries.iter().enumerate() {
        let group = group(summary, now_ms);
        if group != last {
            rows.push(Row::Heading(group));
            last = group;
        }
        rows.push(Row::Chat(i));
    }
}

fn row_id(chat: &ChatId) -> Id {
    Id::unique("sidebar chat").with(&chat.0)
}

impl SidebarView {
    pub(super) fn list_ui(&mut self, ui: &mut Ui, cx: &SidebarContext<'_>, out: &mut Vec<Action>) {
        let mut rows = std::mem::take(&mut self.rows);
        arrange(&mut rows, cx.summaries, cx.now_ms);
        let place = |chat: &ChatId| {
            rows.iter().position(|r| matches!(r, Row::Chat(i) if cx.summaries.get(*i).is_some_and(|s| s.id == *chat)))
        };
        let mut reveal = None;
        if let Some(chat) = self.rename.take() {
            reveal = place(&chat);
            if let Some(summary) = cx.summaries.iter().find(|s| s.id == chat && s.damaged.is_none()) {
                self.editing = Some(Editing { chat, text: summary.title.clone(), begun: false });
            }
        }
        if self.open.as_ref() != cx.open {
            self.open = cx.open.cloned();
            reveal = reveal.or_else(|| cx.open.and_then(place));
        }
        if rows.is_empty() {
            self.editing = None;
            nothing_ui(ui, "No conversations yet");
            self.rows = rows;
            return;
        }
        let height = ui.text_style_height(&TextStyle::Body) + 12.0;
        ui.spacing_mut().item_spacing.y = 0.0;
        let mut edited = false;
        ScrollArea::vertical().id_salt("conversations").auto_shrink(false).show_viewport(ui, |ui, view| {
            ui.set_height(height * rows.len() as f32);
            let area = ui.max_rect();
            let rect = |i: usize| {
                let min = egui::pos2(area.left(), area.top() + i as f32 * height);
                Rect::from_min_size(min, Vec2::new(area.width(), height))
            };
            if let Some(i) = reveal {
                ui.scroll_to_rect(rect(i), None);
            }
            let focus = |ui: &Ui, step: Step| {
                let chat = |&i: &usize| matches!(rows.get(i), Some(Row::Chat(_)));
                let to = if step.down { (step.from..rows.len()).find(chat) } else { (0..=step.from).rev().find(chat) };
                if let Some((to, Row::Chat(i))) = to.and_then(|i| Some((i, rows.get(i)?)))
                    && let Some(summary) = cx.summaries.get(*i)
                {
                    focus_row(ui, row_id(&summary.id), rect(to));
                }
            };
            if self.enter {
                focus(ui, Step { from: 0, down: true });
            }
            // One row more on each side, for the focus to move to.
            let first = ((view.min.y / height).floor().max(0.0) as usize).saturating_sub(1);
            let end = ((view.max.y / height).ceil().max(0.0) as usize + 1).min(rows.len());
            let mut steps = None;
            for (place, row) in rows.iter().enumerate().take(end).skip(first) {
                let rect = rect(place);
                match row {
                    Row::Heading(name) => heading_ui(ui, rect, name),
                    Row::Chat(i) => {
                        let Some(summary) = cx.summaries.get(*i) else { continue };
                        if let Some(editing) = self.editing.as_mut().filter(|e| e.chat == summary.id) {
                            edited = true;
                            if editing.show(ui, rect, &summary.title, out) {
                                self.editing = None;
                            }
                            continue;
                        }
                        match row_ui(ui, rect, summary, cx, (place, rows.len()), out) {
                            Wish::Rename => self.rename = Some(summary.id.clone()),
                            Wish::Go(step) => steps = Some(step),
                            Wish::Nothing => {}
                        }
                    }
                }
            }
            if let Some(step) = steps {
                focus(ui, step);
            }
        });
        // A title that was scrolled away is kept, as one that loses the focus.
        if !edited && let Some(editing) = self.editing.take_if(|e| e.begun) {
            let title = cx.summaries.iter().find(|s| s.id == editing.chat).map(|s| s.title.as_str());
            if let Some(title) = title {
                editing.keep(title, out);
            }
        }
        if self.rename.is_some() {
            ui.ctx().request_repaint();
        }
        self.rows = rows;
    }
}

fn heading_ui(ui: &mut Ui, rect: Rect, name: &str) {
    let label = egui::Label::new(parts::small(ui, name).strong()).selectable(false);
    let rect = Rect::from_min_max(egui::pos2(rect.left() + theme::GAP, rect.top() + 6.0), rect.max);
    let response = ui
        .scope_builder(UiBuilder::new().max_rect(rect).layout(egui::Layout::left_to_right(egui::Align::Center)), |ui| {
            ui.add(label)
        })
        .inner;
    ui.ctx().accesskit_node_builder(response.id, |node| node.set_role(Role::Heading));
}

/// Draws a row; `at`: its place, and how many there are.
fn row_ui(ui: &Ui, rect: Rect, s: &Summary, cx: &SidebarContext<'_>, at: (usize, usize), out: &mut Vec<Action>) -> Wish {
    let t = Theme::of(ui.ctx());
    let (open, busy) = (cx.open == Some(&s.id), cx.busy.contains(&s.id));
    let response = ui.interact(rect, row_id(&s.id), Sense::click());
    response.widget_info(|| {
        let state = match (&s.damaged, busy) {
            (Some(_), _) => ", cannot be opened",
            (None, true) => ", answering",
            (None, false) => "",
        };
        WidgetInfo::selected(Role::Button, true, open, format!("{}{state}", s.title))
    });
    let mut wish = Wish::Nothing;
    let menu_id = response.id.with("menu");
    let menu_rect = Rect::from_min_max(egui::pos2(rect.right() - MENU, rect.top()), rect.max);
    // The button is there where it can be used: under the pointer, and where the focus is.
    let with_menu = ui.rect_contains_pointer(rect)
        || response.has_focus()
        // Tab goes on to the button.
        || response.lost_focus()
        || ui.memory(|m| m.has_focus(menu_id))
        || Popup::is_id_open(ui.ctx(), menu_id.with("popup"));
    ground(ui, rect, &response, open);

    let inner = rect.shrink2(Vec2::new(theme::GAP, 0.0));
    let (mut left, mut right) = (inner.left(), inner.right());
    if s.damaged.is_some() {
        let rect = Rect::from_center_size(egui::pos2(left + icons::SIZE / 2.0, inner.center().y), Vec2::splat(icons::SIZE));
        Icon::Warning.paint(ui.painter(), rect, t.warn);
        left += icons::SIZE + 6.0;
    } else if busy {
        left += icons::dot(ui.painter(), left, inner.center().y, t.accent) + 6.0;
    }
    if with_menu {
        right -= MENU - theme::GAP;
    }
    let mut put = |text: RichText, at_right: bool| {
        let galley = elided(ui, text, right - left);
        let x = if at_right { right - galley.size().x } else { left };
        let pos = egui::pos2(x, inner.center().y - galley.size().y / 2.0);
        if at_right {
            right -= galley.size().x + 6.0;
        } else {
            left += galley.size().x + 6.0;
        }
        ui.painter().galley(pos, galley, t.text);
    };
    if with_menu {
        // Its button is drawn below.
    } else if busy {
        put(RichText::new("answering").text_style(TextStyle::Small).color(t.accent), true);
    } else {
        let ago = RichText::new(parts::ago(s.updated_ms, cx.now_ms)).text_style(TextStyle::Small);
        put(ago.color(if open { t.text } else { t.muted }), true);
    }
    let colour = match (&s.damaged, open) {
        (Some(_), _) => t.muted,
        (None, true) => t.strong,
        (None, false) => t.text,
    };
    put(RichText::new(&s.title).color(colour), false);

    if with_menu {
        let menu = ui.interact(menu_rect, menu_id, Sense::click());
        parts::named(&menu, Role::Button, &format!("Menu of {}", s.title));
        Icon::More.paint_button(ui, menu_rect, &menu);
        Popup::menu(&menu).id(menu_id.with("popup")).show(|ui| menu_ui(ui, s, &mut wish, out));
    }
    response.context_menu(|ui| menu_ui(ui, s, &mut wish, out));
    if let Some(reason) = &s.damaged {
        response.on_hover_text(reason);
        return wish;
    }
    if let Some(step) = moved(ui, &response, at.0, at.1) {
        return Wish::Go(step);
    }
    if response.double_clicked() || response.has_focus() && pressed(ui, Key::F2) {
        wish = Wish::Rename;
    } else if response.clicked() {
        out.push(Action::OpenChat(s.id.clone()));
    }
    wish
}

/// What can be done with a conversation.
fn menu_ui(ui: &mut Ui, s: &Summary, wish: &mut Wish, out: &mut Vec<Action>) {
    let mut entry = |ui: &mut Ui, name: &str, action: Action| {
        if ui.button(name).clicked() {
            out.push(action);
        }
    };
    // Of a damaged one nothing is known that could be written.
    if s.damaged.is_none() {
        if ui.button("Rename").clicked() {
            *wish = Wish::Rename;
        }
        entry(ui, if s.pinned { "Unpin" } else { "Pin" }, Action::Pin(s.id.clone(), !s.pinned));
        entry(ui, "Export as Markdown...", Action::Export(s.id.clone(), ExportFormat::Markdown));
        entry(ui, "Export as JSON...", Action::Export(s.id.clone(), ExportFormat::Json));
        ui.separator();
    }
    entry(ui, "Delete", Action::Delete(s.id.clone()));
}

impl Editing {
    /// Draws the editor in the place of the row. Whether it is over.
    fn show(&mut self, ui: &mut Ui, rect: Rect, title: &str, out: &mut Vec<Action>) -> bool {
        let id = Id::unique("sidebar title");
        let rect = rect.shrink2(Vec2::new(2.0, 1.0));
        let output = ui
            .scope_builder(UiBuilder::new().max_rect(rect), |ui| {
                TextEdit::singleline(&mut self.text)
                    .id(id)
                    .desired_width(rect.width())
                    .event_filter(EventFilter { horizontal_arrows: true, vertical_arrows: true, escape: true, tab: false })
                    .show(ui)
            })
            .inner;
        let response = output.response.response.accessible_name("Title");
        if !self.begun {
            self.begun = true;
            response.request_focus();
            let mut state = output.state;
            state.cursor.set_char_range(Some(CCursorRange::select_all_str(&self.text)));
            state.store(ui.ctx(), id);
            return false;
        }
        if response.has_focus() {
            return pressed(ui, Key::Escape);
        }
        if response.lost_focus() {
            self.keep(title, out);
            return true;
        }
        false
    }

    /// Names the conversation, if there is a name and it is another one.
    fn keep(&self, title: &str, out: &mut Vec<Action>) {
        let text = self.text.trim();
        if !text.is_empty() && text != title {
            out.push(Action::Rename(self.chat.clone(), text.to_owned()));
        }
    }
}
