//! The list of messages: only those in sight are laid out, and it never jumps.
//!
//! Heights are known of messages that were drawn; of others they are estimated. Whatever changes above, the first message in
//! sight stays where it is. Messages just above the visible part are drawn before they come into sight, so that their heights
//! are known by then.

use std::collections::HashMap;

use egui::{Id, Key, Layout, Modifiers, Rangef, Rect, ScrollArea, TextStyle, Ui, UiBuilder, Vec2, pos2, scroll_area};

use super::super::theme;
use crate::chats::{Message, MessageId, Tree};

/// A message on the path that is shown.
#[derive(Clone, Copy)]
pub(super) struct Shown<'a> {
    /// The message.
    pub message: &'a Message,
    /// Itself and its siblings.
    pub siblings: &'a [MessageId],
    /// Its place among them.
    pub index: usize,
}

/// The path that is shown.
pub(super) fn path(tree: &Tree) -> Vec<Shown<'_>> {
    let shown = |id| {
        let (siblings, index) = tree.siblings(id);
        Some(Shown { message: tree.get(id)?, siblings, index })
    };
    tree.shown_path().iter().copied().filter_map(shown).collect()
}

/// Space between messages.
const SPACE: f32 = 18.0;
/// Space above the first and below the last.
const EDGE: f32 = 16.0;
/// How far above and below the visible part messages are drawn.
const ABOVE: f32 = 500.0;
const BELOW: f32 = 100.0;

/// A height, and what it was measured or estimated for.
#[derive(Clone, Copy)]
struct Height {
    len: usize,
    width: f32,
    size: f32,
    value: f32,
    measured: bool,
}

/// Where the list is.
pub(super) struct List {
    heights: HashMap<MessageId, Height>,
    /// Where each message begins.
    tops: Vec<f32>,
    /// The message that stays where it is: the visible part begins so far below its top.
    anchor: Option<(MessageId, f32)>,
    /// Whether the end stays in sight.
    pub following: bool,
    /// Where the visible part begins, as of the last frame.
    offset: f32,
    /// What the scroll area has noted of that. It may be less: it looks up how long the list was a frame before.
    stored: f32,
    /// Largest offset that the scroll area knows of.
    most: f32,
    view: f32,
    /// The first message whose place is right with regard to those in sight.
    placed: usize,
    /// Messages laid out in the last frame.
    pub laid_out: usize,
}

impl Default for List {
    fn default() -> Self {
        Self {
            heights: HashMap::new(),
            tops: Vec::new(),
            anchor: None,
            following: true,
            offset: 0.0,
            stored: 0.0,
            most: 0.0,
            view: 0.0,
            placed: 0,
            laid_out: 0,
        }
    }
}

impl List {
    /// Forgets everything: another conversation was opened.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Brings a message into sight.
    pub fn scroll_to(&mut self, id: MessageId) {
        self.anchor = Some((id, -SPACE));
        self.following = false;
    }

    /// Whether a message is in sight, going by the last frame.
    pub fn sees(&self, id: MessageId, shown: &[Shown<'_>]) -> bool {
        let Some(i) = shown.iter().position(|s| s.message.id == id) else { return false };
        let height = self.heights.get(&id).map_or(0.0, |h| h.value);
        self.tops.get(i).is_some_and(|&top| top < self.offset + self.view && top + height > self.offset)
    }

    fn height(&mut self, message: &Message, width: f32, size: f32) -> f32 {
        let len = message.text.len();
        let known = self.heights.get(&message.id);
        if let Some(h) = known.filter(|h| h.width == width && h.size == size && (h.measured || h.len == len)) {
            return h.value;
        }
        let estimate = match known {
            Some(h) => h.value * (h.width / width.max(1.0)) * (size / h.size).powi(2),
            None => estimate(&message.text, width, size),
        };
        self.heights.insert(message.id, Height { len, width, size, value: estimate, measured: false });
        estimate
    }

    /// Draws the list. `draw` draws a message, given its place in `shown`.
    pub fn ui(&mut self, ui: &mut Ui, shown: &[Shown<'_>], draw: &mut dyn FnMut(&mut Ui, usize)) {
        let available = ui.available_rect_before_wrap();
        let size = TextStyle::Body.resolve(ui.style()).size;
        // The bar has its place whether or not it is shown: text that is laid out anew because of a bar is restless.
        let column = column(ui, available);
        let (left, width) = (column.min, column.span());

        self.tops.clear();
        let mut y = EDGE;
        for s in shown {
            self.tops.push(y);
            y += self.height(s.message, width, size) + SPACE;
        }
        let total = y - SPACE + EDGE;
        let view = available.height();
        let most = (total - view).max(0.0);

        let mut wanted = self.offset;
        let mut held = None;
        if self.following {
            wanted = most;
        } else if let Some((id, below)) = self.anchor {
            held = shown.iter().position(|s| s.message.id == id);
            wanted = held.and_then(|i| self.tops.get(i)).map_or(wanted, |top| top + below);
        }
        if let Some(pages) = self.page_keys(ui) {
            self.following = false;
            wanted = (wanted + pages * view * 0.9).clamp(0.0, most);
        }
        let moved = (wanted - self.stored).abs() > 0.5;
        let mut area = ScrollArea::vertical().id_salt("messages").auto_shrink([false, false]);
        if moved {
            area = area.vertical_scroll_offset(wanted);
        }
        let output = area.show_viewport(ui, |ui, viewport| {
            let base = ui.max_rect().top();
            ui.set_min_size(Vec2::new(ui.available_width(), total));
            let bottom = self.messages(ui, shown, draw, (left, base, width, size), (viewport, held));
            if let Some(bottom) = bottom.filter(|b| *b > total) {
                ui.set_min_height(bottom);
            }
        });
        self.follow(&output, wanted);
        self.view = output.inner_rect.height();
    }

    /// Pages that the keyboard asks to move by.
    fn page_keys(&self, ui: &Ui) -> Option<f32> {
        // Another field may have a use for these keys.
        let focused = ui.memory(|m| m.focused());
        if focused.is_some_and(|f| f != super::composer::id()) && ui.ctx().egui_wants_keyboard_input() {
            return None;
        }
        ui.input_mut(|i| {
            if i.consume_key(Modifiers::NONE, Key::PageUp) {
                Some(-1.0)
            } else if i.consume_key(Modifiers::NONE, Key::PageDown) {
                Some(1.0)
            } else {
                None
            }
        })
    }

    /// Draws the messages around `viewport`, and moves [`Self::tops`] to where they really are. The end of the last, if it was
    /// among them.
    fn messages(
        &mut self,
        ui: &mut Ui,
        shown: &[Shown<'_>],
        draw: &mut dyn FnMut(&mut Ui, usize),
        (left, base, width, size): (f32, f32, f32, f32),
        (viewport, held): (Rect, Option<usize>),
    ) -> Option<f32> {
        self.laid_out = 0;
        let from = |y: f32, tops: &[f32]| tops.partition_point(|&top| top <= y).saturating_sub(1);
        let above = from(viewport.min.y - ABOVE, &self.tops);
        // From this one on, each is placed where the one before it ends.
        let first = held.unwrap_or(usize::MAX).clamp(above, from(viewport.max.y, &self.tops).max(above));
        let first = if held.is_some() { first } else { from(viewport.min.y, &self.tops) };
        self.placed = first;
        let mut next = None;
        let mut changed = false;
        for i in above..shown.len() {
            let Some(s) = shown.get(i) else { break };
            let (len, id) = (s.message.text.len(), s.message.id);
            let known = self.heights.get(&id).copied();
            let estimated = self.tops.get(i).copied().unwrap_or_default();
            let top = next.filter(|_| i > first).unwrap_or(estimated);
            if top > viewport.max.y + BELOW {
                break;
            }
            // One above that was never drawn is drawn out of sight: it may be higher than there is room for.
            let hidden = i < first && known.is_none_or(|h| !h.measured);
            let gap = hidden || i < first && known.is_some_and(|h| h.len != len);
            if i < first && !gap {
                self.placed = self.placed.min(i);
            } else if gap {
                self.placed = first;
            }
            let y = if hidden { viewport.min.y - 100_000.0 } else { top };
            let rect = Rect::from_min_size(pos2(left, base + y), Vec2::new(width, known.map_or(size, |h| h.value)));
            let scope = ui.make_persistent_id(("message", id.0));
            let height = message_scope(ui, scope, rect, |ui| draw(ui, i));
            self.laid_out += 1;
            changed |= known.is_none_or(|h| (h.value - height).abs() > 0.5);
            self.heights.insert(id, Height { len, width, size, value: height, measured: true });
            if i >= first {
                if let Some(t) = self.tops.get_mut(i) {
                    *t = top;
                }
                next = Some(top + height + SPACE);
            }
            if i + 1 == shown.len() {
                return finish(ui, changed, next.map(|n| n - SPACE + EDGE));
            }
        }
        finish(ui, changed, None)
    }

    /// Notes where a person has scrolled to; the visible part began at `wanted`.
    fn follow(&mut self, output: &scroll_area::ScrollAreaOutput<()>, wanted: f32) {
        let now = output.state.unclamped_offset().y;
        let most = (output.content_size.y - output.inner_rect.height()).max(0.0);
        // The area has drawn what was wanted, but notes no more than it knew of.
        let cut = wanted > self.most + 0.5;
        let expected = wanted.min(self.most).min(most);
        self.following = if self.following { cut || now >= expected - 0.5 } else { now >= most - 2.0 };
        self.offset = if cut { wanted.min(most) } else { now };
        (self.stored, self.most) = (now, most);
        if cut {
            self.stored = f32::MIN;
        }
    }

    /// Chooses the message that stays where it is until the next frame.
    pub fn hold(&mut self, shown: &[Shown<'_>]) {
        let i = self.tops.partition_point(|&top| top <= self.offset).saturating_sub(1);
        // Rather one whose place is certain, if it is near: those above it may turn out to be higher than was thought.
        let near = self.tops.get(self.placed).is_some_and(|top| top - self.offset < self.view);
        let i = if near { i.max(self.placed) } else { i };
        self.anchor = shown.get(i).zip(self.tops.get(i)).map(|(s, top)| (s.message.id, self.offset - top));
    }
}

/// Where running text stands, from left to right.
pub(super) fn column(ui: &Ui, area: Rect) -> Rangef {
    let room = area.width() - ui.spacing().scroll.allocated_width();
    let width = (room - 2.0 * theme::PAD).clamp(60.0, theme::READING_WIDTH);
    let left = area.left() + ((room - width) / 2.0).max(theme::PAD);
    Rangef::new(left, left + width)
}

fn finish(ui: &Ui, changed: bool, end: Option<f32>) -> Option<f32> {
    if changed {
        ui.ctx().request_repaint();
    }
    end
}

/// Draws a message into `rect` without moving anything else. Returns its height.
fn message_scope(ui: &mut Ui, id: Id, rect: Rect, draw: impl FnOnce(&mut Ui)) -> f32 {
    let layout = Layout::top_down(egui::Align::Min);
    let mut child = ui.new_child(UiBuilder::new().scope_id(id).max_rect(rect).layout(layout));
    child.set_width(rect.width());
    draw(&mut child);
    child.min_rect().height()
}

/// The height that a message will have, roughly.
fn estimate(text: &str, width: f32, size: f32) -> f32 {
    let per_line = (width / (0.5 * size)).max(8.0) as usize;
    let lines: usize = text.split('\n').map(|l| l.len() / per_line + 1).sum();
    lines as f32 * size * 1.45 + 70.0
}
