//! Where everything is: one column beside a conversation, two on a page of its own.

use std::{ops::Range, sync::Arc};

use egui::{self, Button, PopupAnchor, Rect, Role, ScrollArea, Tooltip, Ui, UiBuilder, WidgetInfo, vec2};

use super::{
    ExpertsView, Tab,
    chips::chips_ui,
    data, facts,
    header::{Asked, Origin},
    slots::SlotsContext,
    strip::{Metric, StripContext},
    transport::{self, Event, Progress},
};
use crate::{
    activity::{Activity, Cell, Field, Mode, Scale, Snapshot, View, domains::Domain},
    settings::Settings,
    ui::{
        Action, Theme,
        chat::Span,
        experts::{grid::GridContext, legend::legend_ui},
        parts, theme,
    },
};

/// What one frame is drawn from.
pub struct Frame<'a> {
    /// What is drawn: the live activity, or that of a record.
    pub source: &'a Activity,
    /// The live activity.
    pub live: &'a Activity,
    /// How far the replay is; `None`: what is drawn is live.
    pub progress: Option<Progress>,
    /// The words that are pointed at in the conversation.
    pub pointed: Option<&'a Span>,
    /// An answer is being written.
    pub running: bool,
    /// The survey under way, and how many wait behind it.
    pub surveying: Option<(&'a str, usize)>,
    /// Whether the grid may be drawn by a callback.
    pub gpu: bool,
    /// Alone on its page.
    pub alone: bool,
    /// What a person has chosen.
    pub settings: &'a Settings,
    /// Seconds of the activity's clock.
    pub now: f64,
}

/// Narrower than this, everything is in one column also on a page of its own.
const TWO_COLUMNS: f32 = 940.0;
/// Lower than this, grid and controls scroll with the rest.
const LOW: f32 = 560.0;

/// What was found out for this frame before anything is drawn.
struct Now {
    /// Numbers of the tokens that are kept.
    tokens: Range<usize>,
    field: Field,
    view: View,
    /// The token whose experts are lit.
    token: Option<usize>,
    /// The one whose word is pointed at in the conversation.
    marked: Option<usize>,
}

impl ExpertsView {
    /// Draws everything; answers what was asked of the replay.
    pub(super) fn panel_ui(&mut self, ui: &mut Ui, f: &Frame<'_>, out: &mut Vec<Action>) -> Option<Event> {
        if let Some(wait) = self.data.tick(f.source, f.now) {
            ui.ctx().request_repaint_after(wait);
        }
        let mut event = None;
        let room = ui.available_size();
        if f.alone && room.x >= TWO_COLUMNS && room.y >= LOW {
            self.header_ui(ui, f, out);
            event = self.transport_ui(ui, f);
            let now = self.look(f);
            let rest = ui.available_rect_before_wrap();
            let (left, right) = rest.split_left_right_at_fraction(0.62);
            let column = |ui: &mut Ui, rect: Rect, salt: &str, add: &mut dyn FnMut(&mut Ui)| {
                let mut child = ui.new_child(UiBuilder::new().id_salt(salt).max_rect(rect));
                child.set_clip_rect(rect.intersect(ui.clip_rect()));
                add(&mut child);
            };
            let this = &mut *self;
            column(ui, left.with_max_x(left.right() - theme::PAD), "left", &mut |ui| {
                let strip = this.strip_height(f, 0.22 * room.y);
                // Legend and two lines of chips.
                let low = (ui.available_height() - strip - 112.0).max(160.0);
                this.grid_ui(ui, f, &now, low);
                this.chips_ui(ui, f, &now);
                this.strip_ui(ui, f, &now, 0.22 * room.y);
            });
            column(ui, right, "right", &mut |ui| {
                ScrollArea::vertical().id_salt("experts details").auto_shrink(false).show(ui, |ui| {
                    this.facts_ui(ui, f, &now);
                    this.tabs_ui(ui, f, &now, out);
                });
            });
            ui.advance_cursor_after_rect(rest);
        } else if room.y < LOW {
            ScrollArea::vertical().id_salt("experts all").auto_shrink(false).show(ui, |ui| {
                event = self.top_ui(ui, f, 220.0, out);
            });
        } else {
            event = self.top_ui(ui, f, room.y * 0.4, out);
        }
        event
    }

    /// One column. Where there is room, grid and controls stay while the rest scrolls.
    fn top_ui(&mut self, ui: &mut Ui, f: &Frame<'_>, grid: f32, out: &mut Vec<Action>) -> Option<Event> {
        let scrolls = ui.available_height().is_infinite() || ui.clip_rect().height() < LOW;
        self.header_ui(ui, f, out);
        let event = self.transport_ui(ui, f);
        let now = self.look(f);
        self.grid_ui(ui, f, &now, grid);
        let mut rest = |ui: &mut Ui| {
            self.facts_ui(ui, f, &now);
            self.chips_ui(ui, f, &now);
            self.strip_ui(ui, f, &now, 110.0);
            self.tabs_ui(ui, f, &now, out);
        };
        if scrolls {
            rest(ui);
        } else {
            ScrollArea::vertical().id_salt("experts rest").auto_shrink(false).show(ui, rest);
        }
        event
    }

    fn header_ui(&mut self, ui: &mut Ui, f: &Frame<'_>, out: &mut Vec<Action>) {
        let origin = match (&f.progress, f.running) {
            (Some(p), _) => Origin::Replay(&p.name),
            (None, true) => Origin::Running,
            (None, false) => Origin::Live,
        };
        let known: Vec<Arc<Snapshot>> = self.taken.iter().chain(&self.domains.results).cloned().collect();
        let asked = self.header.show(ui, f.settings, &origin, &known, out);
        self.carry_out(asked, f);
    }

    /// Takes a side of the comparison.
    fn carry_out(&mut self, asked: Option<Asked>, f: &Frame<'_>) {
        let (side, taken) = match asked {
            Some(Asked::TakeNow(side)) => {
                let at = self.taken.len() + 1;
                let name = match &self.timeline.brush {
                    Some(b) => format!("{at}: tokens {}–{}", b.start + 1, b.end),
                    None => format!("{at}: after {} tokens", parts::count(f.source.sums().tokens())),
                };
                let taken = Arc::new(f.source.snapshot(name, self.timeline.brush.clone()));
                self.taken.push(Arc::clone(&taken));
                (side, taken)
            }
            Some(Asked::Take(side, taken)) => (side, taken),
            None => return,
        };
        *self.header.side(side) = Some(taken);
        self.header.mode = Mode::Difference;
    }

    /// The controls of a replay are at hand whatever tab is open.
    fn transport_ui(&mut self, ui: &mut Ui, f: &Frame<'_>) -> Option<Event> {
        f.progress.as_ref().and_then(|p| transport::replay_ui(ui, p))
    }

    /// What the grid shows in this frame.
    fn look(&mut self, f: &Frame<'_>) -> Now {
        let tokens = data::tokens(f.source);
        // Tokens that are not kept any more cannot be looked at.
        if self.timeline.brush.as_ref().is_some_and(|b| b.end <= tokens.start || b.start >= tokens.end) {
            self.timeline.brush = None;
        }
        let kept = |n: &usize| tokens.contains(n);
        (self.pinned_token, self.pointed_token) = (self.pinned_token.filter(kept), self.pointed_token.filter(kept));
        let marked = f.pointed.and_then(|span| data::find(f.source, span));
        let token = self.pointed_token.or(marked).or(self.pinned_token);
        let mut view = self.view(f.settings);
        view.token = token.filter(|_| view.mode == Mode::Now);
        let field = self.data.field(f.source, &view);
        Now { tokens, field, view, token, marked }
    }

    /// The grid with its legend, and the card of the cell under the pointer.
    fn grid_ui(&mut self, ui: &mut Ui, f: &Frame<'_>, now: &Now, most: f32) {
        let shape = f.source.shape();
        let known = !now.tokens.is_empty() || self.header.mode == Mode::Residency;
        if !known {
            let t = Theme::of(ui.ctx());
            ui.add_space(theme::GAP);
            ui.vertical_centered(|ui| {
                ui.label(egui::RichText::new("Nothing yet").color(t.strong).strong());
                ui.label(parts::muted(ui, "Ask something and watch: every token lights the experts it uses."));
            });
            ui.add_space(theme::GAP);
        } else if let Some(what) = self.missing() {
            ui.label(parts::muted(ui, what));
        }
        let natural = shape.rows.len() as f32 * 16.0 + 40.0;
        let height = natural.clamp(110.0, most.max(110.0));
        let rect = Rect::from_min_size(ui.cursor().min, vec2(ui.available_width(), height));
        let source = f.source;
        let field = &now.field;
        let describe =
            |cell: Cell| source.facts(cell, 0).map(|f| facts::sentence(&f, &shown_of(field, cell))).unwrap_or_default();
        let lit = self.data.lit(f.source, now.token);
        let cx = GridContext {
            shape,
            field,
            palette: f.settings.palette,
            lit: &lit,
            pinned: self.pinned,
            gpu: f.gpu,
            reduced_motion: f.settings.reduced_motion,
        };
        let response =
            ui.scope_builder(UiBuilder::new().id_salt("experts grid").max_rect(rect), |ui| self.grid.show(ui, &cx, &describe));
        let shown = response.response.rect;
        let response = response.inner;
        if let Some(cell) = response.clicked {
            self.pinned = if self.pinned == Some(cell) { None } else { Some(cell) };
        }
        let over = ui.rect_contains_pointer(shown);
        if let (Some(cell), true) = (response.pointed, over) {
            let facts = self.data.facts(f.source, cell);
            Tooltip::always_open(ui.ctx().clone(), ui.layer_id(), ui.unique_id().with("facts"), PopupAnchor::Pointer)
                .gap(14.0)
                .show(|ui| {
                    ui.set_max_width(330.0);
                    if let Some(facts) = &facts {
                        facts::facts_ui(ui, facts, shape, &shown_of(field, cell), "experts facts pointed");
                    }
                    ui.label(parts::small(ui, if self.pinned == Some(cell) { "Click to unpin" } else { "Click to pin" }));
                });
        }
        // The keyboard's cursor has no pointer to put a card at.
        self.cursor = response.pointed.filter(|_| !over);
        legend_ui(ui, field, f.settings.palette);
    }

    /// What the mode still needs.
    fn missing(&self) -> Option<&'static str> {
        match (self.header.mode, &self.header.a, &self.header.b) {
            (Mode::Difference, _, None) => Some("Choose B above: what is counted now, or a text that was read under Domains."),
            (Mode::Difference, None, Some(_)) => Some("A is what is counted now."),
            _ => None,
        }
    }

    fn facts_ui(&mut self, ui: &mut Ui, f: &Frame<'_>, now: &Now) {
        let Some(cell) = self.pinned.or(self.cursor) else { return };
        let Some(facts) = self.data.facts(f.source, cell) else { return };
        let mut close = false;
        parts::card(ui, |ui| {
            ui.set_width(ui.available_width());
            if self.pinned.is_some() {
                let corner = Rect::from_min_size(ui.max_rect().right_top() - vec2(26.0, 4.0), vec2(26.0, 26.0));
                let mut at = ui.new_child(UiBuilder::new().id_salt("unpin").max_rect(corner));
                close = parts::icon_button(&mut at, "×", "Unpin the expert", "Unpin").clicked();
            }
            facts::facts_ui(ui, &facts, f.source.shape(), &shown_of(&now.field, cell), "experts facts pinned");
        });
        if close {
            self.pinned = None;
        }
    }

    fn chips_ui(&mut self, ui: &mut Ui, f: &Frame<'_>, now: &Now) {
        if !now.tokens.is_empty() {
            let chips = self.data.chips(f.source, now.view.range.as_ref());
            chips_ui(ui, &chips);
        }
    }

    /// How high the strip is with its caption.
    fn strip_height(&self, f: &Frame<'_>, cells: f32) -> f32 {
        if data::tokens(f.source).is_empty() { 0.0 } else { cells.min(10.0 * f.source.shape().rows.len() as f32) + 124.0 }
    }

    fn strip_ui(&mut self, ui: &mut Ui, f: &Frame<'_>, now: &Now, cells: f32) {
        if now.tokens.is_empty() {
            return;
        }
        ui.horizontal_wrapped(|ui| {
            ui.label(parts::small(ui, "Tokens"));
            for metric in Metric::ALL {
                let on = self.strip.metric == metric;
                let button = ui.add(Button::selectable(on, metric.name()).small());
                let name = format!("Colour tokens by {}", metric.name().to_lowercase());
                button.widget_info(|| WidgetInfo::selected(Role::RadioButton, true, on, &name));
                if button.on_hover_text(metric.explanation()).clicked() {
                    self.strip.metric = metric;
                }
            }
            if self.pinned_token.is_some() && ui.small_button("Unpin token").clicked() {
                self.pinned_token = None;
            }
        });
        let first = now.tokens.start;
        let token = |i: usize| data::token(f.source, first + i);
        let inside = |number: usize| number.saturating_sub(first);
        let cx = StripContext {
            shape: f.source.shape(),
            count: now.tokens.len(),
            token: &token,
            revision: f.source.revision(),
            palette: f.settings.palette,
            marked: now.marked.map(inside),
            pinned: self.pinned_token.map(inside),
            brush: self.timeline.brush.as_ref().map(|b| inside(b.start)..inside(b.end)),
            height: cells,
        };
        let response = self.strip.show(ui, &cx);
        if let Some(clicked) = response.clicked.map(|i| first + i) {
            self.pinned_token = if self.pinned_token == Some(clicked) { None } else { Some(clicked) };
        }
        let pointed = response.pointed.map(|i| first + i);
        if pointed != self.pointed_token {
            // The grid above was drawn before this was known.
            self.pointed_token = pointed;
            ui.ctx().request_repaint();
        }
        if f.progress.is_none() {
            self.lit = pointed.or(self.pinned_token).and_then(|n| data::token(f.source, n)).and_then(data::span_of);
        }
    }

    fn tabs_ui(&mut self, ui: &mut Ui, f: &Frame<'_>, now: &Now, out: &mut Vec<Action>) {
        ui.add_space(theme::GAP / 2.0);
        ui.horizontal_wrapped(|ui| {
            ui.spacing_mut().item_spacing.x = 2.0;
            for tab in Tab::ALL {
                let (name, explanation) = tab.texts();
                let button = ui.add(Button::selectable(self.tab == tab, name));
                button.widget_info(|| WidgetInfo::selected(Role::Tab, true, self.tab == tab, name));
                if button.on_hover_text(explanation).clicked() {
                    self.tab = tab;
                }
            }
        });
        ui.separator();
        match self.tab {
            Tab::Timeline => {
                let lines = self.data.lines(f.source);
                self.timeline.show(ui, &lines, now.tokens.clone());
            }
            Tab::Domains => {
                let asked = self.domains.show(ui, f.source.shape(), &Domain::ALL, f.surveying, out);
                self.carry_out(asked, f);
            }
            Tab::Table => {
                self.data.rows(f.source, &now.field, &now.view, &mut self.table);
                let (scale, unit) = (now.field.scale, now.field.unit);
                // Of what it is an amount is said once, in the head of the column.
                let shown = |v| value_text(v, scale, "").trim_end().to_owned();
                if let Some(cell) = self.table.show(ui, self.pinned, unit, &shown) {
                    self.pinned = if self.pinned == Some(cell) { None } else { Some(cell) };
                }
            }
            Tab::Slots => {
                let curve = self.data.curve(f.source);
                let slots = self.data.slots(f.live);
                let all = f.source.sums().rows().iter().fold((0, 0), |(n, m), r| (n + r.lookups, m + r.misses));
                let measured = (all.0 > 0).then(|| 1.0 - all.1 as f64 / all.0 as f64);
                self.slots.show(ui, &SlotsContext { shape: f.source.shape(), curve: &curve, slots, measured });
            }
            Tab::Record => {
                transport::record_ui(ui, f.live.recorder(), data::tokens(f.live).len(), &mut self.ids_only, out);
            }
        }
        ui.add_space(theme::PAD);
    }
}

/// What the grid shows of a cell, in words.
fn shown_of(field: &Field, cell: Cell) -> String {
    let value = field.values.get(cell.row * field.columns + cell.expert).copied().unwrap_or(f32::NAN);
    value_text(value, field.scale, field.unit)
}

/// A number of a field, in words.
pub fn value_text(value: f32, scale: Scale, unit: &str) -> String {
    if value.is_nan() {
        return "nothing known".into();
    }
    match scale {
        Scale::Ratio { octaves } if value <= -octaves => format!("at most {}×", (-octaves).exp2()),
        Scale::Ratio { octaves } if value >= octaves => format!("{}× or more", octaves.exp2()),
        Scale::Ratio { .. } => format!("{:.2}×", value.exp2()),
        Scale::Signed { .. } => format!("{:+.2} %", 100.0 * value),
        Scale::Homes => data::home_of(value).map_or("unknown", facts::home_name).into(),
        Scale::Linear { .. } | Scale::Log { .. } => {
            let number = if value.fract() == 0.0 {
                format!("{value:.0}")
            } else if value >= 10.0 {
                format!("{value:.1}")
            } else {
                format!("{value:.3}")
            };
            format!("{number} {unit}")
        }
    }
}
