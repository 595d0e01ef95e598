//! What a search has found.

use egui::{self, Id, Rect, RichText, Role, ScrollArea, Sense, TextFormat, TextStyle, Ui, Vec2, text::LayoutJob};

use super::{SidebarContext, SidebarView, elided, focus_row, ground, moved, nothing_ui};
use crate::{
    chats::Hit,
    ui::{Action, Theme, parts, theme},
};

/// Lines of an excerpt.
const LINES: usize = 2;

impl SidebarView {
    /// Draws what was found in the place of the list.
    pub(super) fn hits_ui(&mut self, ui: &mut Ui, cx: &SidebarContext<'_>, out: &mut Vec<Action>) {
        if cx.hits.is_empty() {
            nothing_ui(ui, "Nothing found");
            return;
        }
        let found = match cx.hits.len() {
            1 => "1 place".to_owned(),
            n => format!("{n} places"),
        };
        ui.label(parts::small(ui, found));
        let excerpt = ui.text_style_height(&TextStyle::Small) * LINES as f32;
        let height = ui.text_style_height(&TextStyle::Body) + excerpt + 16.0;
        ui.spacing_mut().item_spacing.y = 0.0;
        ScrollArea::vertical().id_salt("hits").auto_shrink(false).show_viewport(ui, |ui, view| {
            ui.set_height(height * cx.hits.len() as f32);
            let area = ui.max_rect();
            let rect = |i: usize| {
                let min = egui::pos2(area.left(), area.top() + i as f32 * height);
                Rect::from_min_size(min, Vec2::new(area.width(), height))
            };
            let id = |i: usize| Id::unique("sidebar hit").with(i);
            if self.enter {
                focus_row(ui, id(0), rect(0));
            }
            // One row more on each side, for the focus to move to.
            let first = ((view.min.y / height).floor().max(0.0) as usize).saturating_sub(1);
            let end = ((view.max.y / height).ceil().max(0.0) as usize + 1).min(cx.hits.len());
            for (i, hit) in cx.hits.iter().enumerate().take(end).skip(first) {
                let response = ui.interact(rect(i), id(i), Sense::click());
                let name = match hit.message {
                    Some(_) => format!("{}: {}", hit.title, hit.excerpt),
                    None => format!("{}, in the title", hit.title),
                };
                parts::named(&response, Role::Button, &name);
                ground(ui, rect(i), &response, false);
                hit_paint(ui, rect(i), hit);
                if let Some(step) = moved(ui, &response, i, cx.hits.len()) {
                    let to = step.from.min(cx.hits.len() - 1);
                    focus_row(ui, id(to), rect(to));
                }
                if response.clicked() {
                    out.push(match hit.message {
                        Some(message) => Action::OpenMessage(hit.chat.clone(), message),
                        None => Action::OpenChat(hit.chat.clone()),
                    });
                }
            }
        });
    }
}

/// Paints title and excerpt.
fn hit_paint(ui: &Ui, rect: Rect, hit: &Hit) {
    if !ui.is_rect_visible(rect) {
        return;
    }
    let t = Theme::of(ui.ctx());
    let inner = rect.shrink2(Vec2::new(theme::GAP, 6.0));
    let title = elided(ui, RichText::new(&hit.title).color(t.text), inner.width());
    let below = inner.top() + title.size().y + 2.0;
    ui.painter().galley(inner.min, title, t.text);
    let excerpt = ui.painter().layout_job(excerpt_job(ui, hit, inner.width()));
    ui.painter().galley(egui::pos2(inner.left(), below), excerpt, t.muted);
}

/// The excerpt with the words that were found marked.
fn excerpt_job(ui: &Ui, hit: &Hit, width: f32) -> LayoutJob {
    let t = Theme::of(ui.ctx());
    let font = TextStyle::Small.resolve(ui.style());
    let plain = TextFormat::simple(font.clone(), t.muted);
    let marked = TextFormat { background: t.mark, ..TextFormat::simple(font, t.text) };
    let mut job = LayoutJob::default();
    job.wrap.max_width = width;
    job.wrap.max_rows = LINES;
    let (start, end) = (hit.range.start, hit.range.end);
    match (hit.excerpt.get(..start), hit.excerpt.get(start..end), hit.excerpt.get(end..)) {
        (Some(before), Some(words), Some(after)) => {
            // Line breaks would take the room of words.
            job.append(&one_line(before), 0.0, plain.clone());
            job.append(&one_line(words), 0.0, marked);
            job.append(&one_line(after), 0.0, plain);
        }
        _ => job.append(&one_line(&hit.excerpt), 0.0, plain),
    }
    job
}

fn one_line(text: &str) -> String {
    text.replace(['\n', '\r', '\t'], " ")
}
