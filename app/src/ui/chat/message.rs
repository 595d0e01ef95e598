//! One message: what is said, the buttons under it, and what it took.

use std::collections::HashMap;

use egui::{
    Align, Button, Frame, Id, Key, Label, Layout, Margin, Rect, RichText, Role, Stroke, StrokeKind, TextEdit, TextStyle, Ui,
    UiBuilder, Vec2, pos2,
};
use pleiad_models::Role as Speaker;

use super::{
    super::{Action, Command, Theme, icons::Icon, parts, theme},
    ChatContext, Span, buttons,
    list::Shown,
    markdown::{Document, Place, Renderer},
    reasoning::{fold_header, thought_ui, thought_words},
    segments::{Segment, segments},
    stats,
    words::Link,
};
use crate::{
    chats::{Answer, Message, MessageId, Rating, Stop},
    talk::{Live, live::Stage},
};

/// An editor that is open in the place of a message.
pub(super) struct Editor {
    pub message: MessageId,
    text: String,
    focus: bool,
}

impl Editor {
    pub fn new(message: &Message) -> Self {
        Self { message: message.id, text: message.text.clone(), focus: true }
    }
}

/// A prompt that is being read: since when, and how far it was then.
struct Reading {
    message: MessageId,
    since: f64,
    done: usize,
}

/// A message, cut into parts.
#[derive(Default)]
struct Body {
    segments: Vec<Segment>,
    documents: Vec<Document>,
    key: Option<(usize, bool, bool)>,
    used: u64,
}

impl Body {
    fn refresh(&mut self, text: &str, thinking: bool, live: bool) {
        let key = Some((text.len(), thinking, live));
        if self.key != key {
            self.key = key;
            self.segments = segments(text, thinking, live);
            self.documents.resize_with(self.segments.len(), Document::default);
        }
    }
}

/// What messages keep between frames.
#[derive(Default)]
pub(super) struct Messages {
    bodies: HashMap<MessageId, Body>,
    folds: HashMap<(MessageId, usize), bool>,
    pub editor: Option<Editor>,
    renderer: Renderer,
    reading: Option<Reading>,
    /// The message that a button of has the keyboard.
    focused: Option<MessageId>,
    /// A message that was scrolled to, and when.
    pub marked: Option<(MessageId, f64)>,
    frame: u64,
}

/// Bodies remembered: more than are in sight.
const REMEMBERED: usize = 200;
/// Seconds that a message stays marked.
const MARKED: f64 = 1.6;

/// What drawing a message leads to.
pub(super) struct Said<'a> {
    pub out: &'a mut Vec<Action>,
    pub pointed: &'a mut Option<Span>,
    pub edit: &'a mut Option<MessageId>,
}

impl Messages {
    /// Forgets everything: another conversation was opened.
    pub fn reset(&mut self) {
        *self = Self { renderer: std::mem::take(&mut self.renderer), ..Self::default() };
    }

    /// Once per frame: forgets what was not drawn for long.
    pub fn tidy(&mut self) {
        self.frame += 1;
        if self.bodies.len() > REMEMBERED {
            let oldest = self.frame.saturating_sub(60);
            self.bodies.retain(|_, b| b.used >= oldest);
        }
    }

    /// Draws a message. `last`: it is the last one that is shown.
    pub fn ui(&mut self, ui: &mut Ui, cx: &ChatContext<'_>, item: &Shown<'_>, last: bool, said: &mut Said<'_>) {
        let id = item.message.id;
        self.mark(ui, cx, id);
        let top = ui.cursor().min;
        if self.editor.as_ref().is_some_and(|e| e.message == id) {
            self.editor_ui(ui, cx, item.message, said.out);
        } else if item.message.role == Speaker::User {
            person_ui(ui, cx, item.message, said);
        } else {
            self.model_ui(ui, cx, item.message, last, said);
        }
        let body = Rect::from_min_max(top, pos2(ui.max_rect().right(), ui.cursor().top() + 34.0));
        let lively = last || self.focused == Some(id) || ui.rect_contains_pointer(body);
        self.buttons(ui, cx, item, last, lively, said);
        if let Some(answer) = &item.message.answer
            && live_of(cx, id).is_none()
        {
            stats::line_ui(ui, answer);
        }
    }

    /// Marks a message that was scrolled to for a moment.
    fn mark(&mut self, ui: &Ui, cx: &ChatContext<'_>, id: MessageId) {
        let Some((_, since)) = self.marked.filter(|(m, _)| *m == id) else { return };
        let age = ui.input(|i| i.time) - since;
        if age >= MARKED {
            self.marked = None;
            return;
        }
        let strength = if cx.settings.reduced_motion { 1.0 } else { (1.0 - age / MARKED) as f32 };
        let rect = ui.max_rect().expand(theme::GAP);
        let stroke = Stroke::new(2.0, Theme::of(ui.ctx()).accent.gamma_multiply(strength));
        ui.painter().rect_stroke(rect, theme::ROUND, stroke, StrokeKind::Inside);
        let wait = if cx.settings.reduced_motion { MARKED - age } else { 1.0 / 30.0 };
        ui.ctx().request_repaint_after(std::time::Duration::from_secs_f64(wait));
    }

    fn model_ui(&mut self, ui: &mut Ui, cx: &ChatContext<'_>, message: &Message, last: bool, said: &mut Said<'_>) {
        let live = live_of(cx, message.id);
        author_ui(ui, cx, message);
        let mut body = self.bodies.remove(&message.id).unwrap_or_default();
        body.used = self.frame;
        let thinking = message.answer.as_ref().is_some_and(|a| a.thinking);
        body.refresh(&message.text, thinking, live.is_some());

        let rect = Rect::from_min_size(ui.cursor().min, Vec2::new(ui.available_width(), f32::INFINITY));
        let mut link =
            Link { lit: cx.lit_in(message.id).map(|s| s.bytes.clone()), pointing: ui.rect_contains_pointer(rect), pointed: None };
        let mut first_thought = true;
        let count = body.segments.len();
        for (i, (segment, document)) in body.segments.iter().zip(&mut body.documents).enumerate() {
            let text = message.text.get(segment.range.clone()).unwrap_or("");
            let growing = live.is_some() && i + 1 == count;
            if text.trim().is_empty() && !(growing && segment.thought) {
                continue;
            }
            let place = Place { text, base: segment.range.start, live: growing };
            ui.push_id(("part", i), |ui| {
                if segment.thought {
                    let seconds = message.answer.as_ref().and_then(|a| a.thought_seconds).filter(|_| first_thought);
                    let words = thought_words(segment.closed || !growing, live, seconds);
                    first_thought = false;
                    let mut open = self.folds.get(&(message.id, i)).copied().unwrap_or(cx.settings.unfold_reasoning);
                    if fold_header(ui, &words, open) {
                        open = !open;
                        self.folds.insert((message.id, i), open);
                    }
                    if open && !text.trim().is_empty() {
                        thought_ui(ui, |ui| self.renderer.ui(ui, document, place, &mut link, said.out));
                    }
                } else {
                    self.renderer.ui(ui, document, place, &mut link, said.out);
                }
            });
        }
        if let Some(bytes) = link.pointed {
            *said.pointed = cx.chat.map(|c| Span { chat: c.id.clone(), message: message.id, bytes });
        }
        self.bodies.insert(message.id, body);
        if let Some(live) = live {
            self.progress_ui(ui, live);
        }
        if let Some(answer) = &message.answer {
            stats::end_ui(ui, &answer.stop, live.is_some() || (last && waits(cx)));
        }
    }

    /// How far an answer under way is.
    fn progress_ui(&mut self, ui: &mut Ui, live: &Live) {
        if let Stage::Reading { done, total, .. } = live.stage
            && total > 0
        {
            let now = ui.input(|i| i.time);
            let fresh = self.reading.as_ref().is_none_or(|r| r.message != live.message || r.done > done);
            if fresh {
                self.reading = Some(Reading { message: live.message, since: now, done });
            }
            let left = self.reading.as_ref().filter(|r| done > r.done && now - r.since > 0.5).map(|r| {
                let speed = (done - r.done) as f64 / (now - r.since);
                (total.saturating_sub(done)) as f64 / speed
            });
            let left = left.map_or_else(String::new, |s| format!(", about {} left", parts::seconds(s)));
            let words =
                format!("Reading the prompt, {} of {} tokens{left}", parts::count(done as u64), parts::count(total as u64));
            ui.label(parts::muted(ui, &words));
            let share = done as f32 / total as f32;
            let size = Vec2::new(ui.available_width().min(320.0), 6.0);
            let bar = parts::meter(ui, share, size, Theme::of(ui.ctx()).accent);
            parts::named(&bar, Role::ProgressIndicator, &words);
            return;
        }
        let words = stats::live_words(live);
        if !words.is_empty() {
            ui.label(parts::small(ui, words));
        }
    }

    fn buttons(&mut self, ui: &mut Ui, cx: &ChatContext<'_>, item: &Shown<'_>, last: bool, lively: bool, said: &mut Said<'_>) {
        let message = item.message;
        let person = message.role == Speaker::User;
        if self.editor.as_ref().is_some_and(|e| e.message == message.id) {
            return;
        }
        let idle = cx.live.is_none();
        let id = message.id;
        let mut focused = false;
        let mut clicked = |ui: &mut Ui, icon, name: &str, tip: &str, on, enabled: bool| {
            let response = ui.add_enabled_ui(enabled, |ui| buttons::button(ui, icon, name, tip, on)).inner;
            focused |= response.has_focus();
            response.clicked()
        };
        let layout = if person { Layout::right_to_left(Align::Center) } else { Layout::left_to_right(Align::Center) };
        let width = ui.available_width();
        ui.allocate_ui_with_layout(Vec2::new(width, 26.0), layout, |ui| {
            ui.spacing_mut().item_spacing.x = 2.0;
            if !lively {
                ui.multiply_opacity(0.45);
            }
            if person {
                // Right to left: the browser of siblings stands at the edge.
                siblings_ui(ui, item, &mut clicked, said.out);
                if clicked(ui, Icon::Edit, "Edit message", "Say something else in its place, as a branch", None, true) {
                    *said.edit = Some(id);
                }
                if clicked(ui, Icon::Copy, "Copy message", "Copy this message", None, true) {
                    said.out.push(Action::Copy(message.text.clone()));
                }
                let unanswered = message.children.is_empty() && cx.live.is_none() && cx.model.is_some();
                if unanswered && clicked(ui, Icon::Again, "Answer", "Let the model answer this question", None, true) {
                    said.out.push(Action::Regenerate(id));
                }
                return;
            }
            if live_of(cx, id).is_none() {
                if clicked(ui, Icon::Copy, "Copy answer", "Copy this answer, without its reasoning", None, true) {
                    said.out.push(Action::Copy(answer_text(message)));
                }
                for (rating, icon, name, tip) in [
                    (Rating::Good, Icon::Good, "Good answer", "This answer helped"),
                    (Rating::Bad, Icon::Bad, "Bad answer", "This answer did not help"),
                ] {
                    let on = message.rating == Some(rating);
                    if clicked(ui, icon, name, tip, Some(on), true) {
                        said.out.push(Action::Rate(id, (!on).then_some(rating)));
                    }
                }
                let tip = if last { Command::Regenerate.tooltip(ui.ctx()) } else { "Answer the same question anew".to_owned() };
                if clicked(ui, Icon::Again, "Regenerate answer", &tip, None, idle) {
                    said.out.push(Action::Regenerate(id));
                }
                if clicked(ui, Icon::Edit, "Edit answer", "Put other words in its place, as a branch", None, true) {
                    *said.edit = Some(id);
                }
                if idle && message.answer.as_ref().is_some_and(|a| a.stop != Stop::End) {
                    let tip = if last { Command::Continue.tooltip(ui.ctx()) } else { "Go on where it ended".to_owned() };
                    if clicked(ui, Icon::Continue, "Continue answer", &tip, None, true) {
                        said.out.push(Action::Continue(id));
                    }
                }
            }
            siblings_ui(ui, item, &mut clicked, said.out);
        });
        if focused {
            self.focused = Some(id);
        } else if self.focused == Some(id) {
            self.focused = None;
        }
    }

    fn editor_ui(&mut self, ui: &mut Ui, cx: &ChatContext<'_>, message: &Message, out: &mut Vec<Action>) {
        let Some(mut editor) = self.editor.take() else { return };
        let person = message.role == Speaker::User;
        let mut keep = true;
        Frame::new().fill(Theme::of(ui.ctx()).raised).corner_radius(theme::ROUND).inner_margin(theme::PAD).show(ui, |ui| {
            let width = ui.available_width();
            let name = if person { "Edit message" } else { "Edit answer" };
            let id = Id::unique(("chat editor", message.id.0));
            let edit = TextEdit::multiline(&mut editor.text).id(id).desired_width(width).desired_rows(3);
            let had_focus = ui.memory(|m| m.has_focus(id));
            let response = ui.add(edit).accessible_name(name);
            if std::mem::take(&mut editor.focus) {
                response.request_focus();
                response.scroll_to_me(None);
            }
            let escape = ui.input(|i| i.key_pressed(Key::Escape));
            if escape && (had_focus || response.has_focus() || response.lost_focus()) {
                keep = false;
                ui.input_mut(|i| i.consume_key(egui::Modifiers::NONE, Key::Escape));
            }
            ui.horizontal_wrapped(|ui| {
                let changed = editor.text != message.text && !editor.text.trim().is_empty();
                let save = if person { "Send as a branch" } else { "Save as a branch" };
                let tip = match (cx.live.is_some(), changed) {
                    (true, _) => "An answer is being written",
                    (_, false) => "Nothing was changed",
                    _ => "The old words stay beside the new ones",
                };
                let ready = changed && cx.live.is_none();
                if ui.add_enabled(ready, Button::new(save)).on_hover_text(tip).on_disabled_hover_text(tip).clicked() {
                    out.push(Action::Edit(message.id, editor.text.trim_end().to_owned()));
                    keep = false;
                }
                if ui.button("Cancel").clicked() {
                    keep = false;
                }
            });
        });
        if keep {
            self.editor = Some(editor);
        }
    }
}

/// The answer under way, if it is that message.
fn live_of<'a>(cx: &ChatContext<'a>, id: MessageId) -> Option<&'a Live> {
    cx.live.filter(|l| l.message == id)
}

/// Whether something is under way, so that an answer without an end may still be waiting.
fn waits(cx: &ChatContext<'_>) -> bool {
    cx.live.is_some()
}

/// The words of an answer, without its reasoning.
pub(in crate::ui) fn answer_text(message: &Message) -> String {
    let thinking = message.answer.as_ref().is_some_and(|a: &Answer| a.thinking);
    let parts = segments(&message.text, thinking, false);
    let text: String = parts.iter().filter(|s| !s.thought).filter_map(|s| message.text.get(s.range.clone())).collect();
    if text.trim().is_empty() { message.text.clone() } else { text.trim().to_owned() }
}

fn person_ui(ui: &mut Ui, cx: &ChatContext<'_>, message: &Message, said: &mut Said<'_>) {
    let t = Theme::of(ui.ctx());
    let column = ui.available_rect_before_wrap();
    let room = (column.width() * 0.88 - 2.0 * theme::PAD).max(40.0);
    let font = TextStyle::Body.resolve(ui.style());
    let galley = ui.painter().layout(message.text.clone(), font, t.text, room);
    let width = galley.size().x.ceil().max(12.0) + 2.0 * theme::PAD;
    let rect = Rect::from_min_max(pos2(column.right() - width, column.top()), column.right_bottom());
    let pointing = ui.rect_contains_pointer(Rect::from_min_size(rect.min, galley.size() + Vec2::splat(2.0 * theme::PAD)));
    let mut link = Link { lit: cx.lit_in(message.id).map(|s| s.bytes.clone()), pointing, pointed: None };
    ui.scope_builder(UiBuilder::new().id_salt("bubble").max_rect(rect), |ui| {
        let frame = Frame::new().fill(t.bubble).corner_radius(theme::ROUND).inner_margin(Margin::same(theme::PAD as i8));
        frame.show(ui, |ui| {
            let whole = 0..message.text.len();
            let begun = link.begin(ui, &whole);
            ui.add(Label::new(galley));
            link.end(ui, begun, rect, &message.text, 0, t.mark);
        });
    });
    if let Some(bytes) = link.pointed {
        *said.pointed = cx.chat.map(|c| Span { chat: c.id.clone(), message: message.id, bytes });
    }
}

/// The name above an answer.
fn author_ui(ui: &mut Ui, cx: &ChatContext<'_>, message: &Message) {
    let model = message.answer.as_ref().map(|a| a.model.as_str()).filter(|m| !m.is_empty()).or(cx.model);
    let Some(author) = &message.author else {
        if let Some(model) = model {
            ui.label(parts::small(ui, model));
        }
        return;
    };
    let t = Theme::of(ui.ctx());
    let second = cx.chat.is_some_and(|c| c.setup.duet.second == *author);
    let color = t.plots[if second { 2 } else { 0 }];
    ui.horizontal(|ui| {
        let initial: String = author.chars().take(1).collect();
        let frame = Frame::new().stroke(Stroke::new(if second { 2.0 } else { 1.0 }, color)).inner_margin(Margin::symmetric(8, 2));
        // The two differ in their shape and their initial as well as in colour.
        let frame = frame.corner_radius(if second { 2 } else { theme::ROUND });
        let tip = if second { "The second mind" } else { "The first mind" };
        frame
            .show(ui, |ui| {
                ui.spacing_mut().item_spacing.x = 6.0;
                let rect = ui.allocate_space(Vec2::splat(14.0)).1;
                let font = TextStyle::Small.resolve(ui.style());
                ui.painter().circle_filled(rect.center(), 7.5, color);
                ui.painter().text(rect.center(), egui::Align2::CENTER_CENTER, initial, font, t.page);
                ui.label(RichText::new(author).color(color).text_style(Theme::small()).strong())
            })
            .inner
            .on_hover_text(tip);
        if let Some(model) = model {
            ui.label(parts::small(ui, model));
        }
    });
}

/// Draws a button (its icon, name, tooltip, whether it is on, whether it is enabled). Whether it was clicked.
type Clicked<'a> = dyn FnMut(&mut Ui, Icon, &str, &str, Option<bool>, bool) -> bool + 'a;

/// "‹ 2/3 ›"
fn siblings_ui(ui: &mut Ui, item: &Shown<'_>, clicked: &mut Clicked<'_>, out: &mut Vec<Action>) {
    let count = item.siblings.len();
    if count < 2 {
        return;
    }
    let previous = item.index.checked_sub(1).and_then(|i| item.siblings.get(i).copied());
    let next = item.siblings.get(item.index + 1).copied();
    let rtl = ui.layout().prefer_right_to_left();
    let mut arrow = |ui: &mut Ui, forward: bool| {
        let (icon, name, tip, to) = if forward {
            (Icon::Next, "Next version", "Show the version after this one", next)
        } else {
            (Icon::Previous, "Previous version", "Show the version before this one", previous)
        };
        if clicked(ui, icon, name, tip, None, to.is_some())
            && let Some(to) = to
        {
            out.push(Action::Show(to));
        }
    };
    arrow(ui, rtl);
    let text = format!("{}/{count}", item.index + 1);
    ui.label(parts::small(ui, text)).on_hover_text(format!("Version {} of {count}", item.index + 1));
    arrow(ui, !rtl);
}
