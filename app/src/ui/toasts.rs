//! What went wrong, and what can be undone: short notes that come and go. Problems stay until they are dismissed, and have room of
//! their own in the window; the others float over the page for some seconds.

use egui::{
    self, Align2, Area, Button, Context, Frame, Id, Label, Order, Rect, RichText, Role, ScrollArea, Stroke, Ui, accesskit, pos2,
};
use web_time::{Duration, Instant};

use super::{Action, Theme, icons::Icon, parts, theme};

/// Seconds that a note stays.
const STAYS: f64 = 4.0;
/// Seconds that a note with an offer stays: there is something to decide.
const OFFER_STAYS: f64 = 10.0;
/// Most notes shown at once.
const MOST: usize = 5;
/// A note that comes again within this time is counted rather than shown twice.
const SAME: Duration = Duration::from_secs(1);
/// Widest note that floats, in points.
const WIDTH: f32 = 380.0;
/// Most of the window's height that problems take.
const SHARE: f32 = 0.35;

/// What a note is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// Something to know.
    Info,
    /// Something that went wrong.
    Problem,
}

/// A note.
#[derive(Debug)]
struct Note {
    /// Names it among all notes there were.
    serial: u64,
    tone: Tone,
    text: String,
    offer: Option<Offer>,
    /// How often it came.
    times: u32,
    /// Seconds it still stays; infinite for problems.
    left: f64,
    added: Instant,
    /// It was not drawn yet, so that no time has passed for it.
    fresh: bool,
}

/// A button on a note: what it says, and what it does.
pub type Offer = (String, Action);

/// Short notes that come and go.
#[derive(Debug, Default)]
pub struct Toasts {
    /// Oldest first.
    notes: Vec<Note>,
    serials: u64,
    /// When notes were drawn last, in egui's seconds.
    last: f64,
    /// The note that the pointer or the keyboard was on then.
    held: Option<u64>,
}

impl Toasts {
    /// Adds a note; `offer`: a button on it, with what it does.
    pub fn add(&mut self, tone: Tone, text: impl Into<String>, offer: Option<Offer>) {
        let text = text.into();
        let left = match (tone, &offer) {
            (Tone::Problem, _) => f64::INFINITY,
            (Tone::Info, Some(_)) => OFFER_STAYS,
            (Tone::Info, None) => STAYS,
        };
        let added = Instant::now();
        let same = |n: &&mut Note| n.tone == tone && n.text == text && n.offer == offer && added.duration_since(n.added) < SAME;
        if let Some(note) = self.notes.iter_mut().rev().find(same) {
            (note.times, note.left, note.added, note.fresh) = (note.times + 1, left, added, true);
            return;
        }
        self.serials += 1;
        self.notes.push(Note { serial: self.serials, tone, text, offer, times: 1, left, added, fresh: true });
    }

    /// Whether there are problems to show.
    pub fn has_problems(&self) -> bool {
        self.notes.iter().any(|n| n.tone == Tone::Problem)
    }

    /// Draws the problems, in room of their own: they stay until they are dismissed, and cover nothing. Screen readers hear each
    /// once.
    pub fn problems_ui(&mut self, ui: &mut Ui, out: &mut Vec<Action>) {
        let most = ui.ctx().content_rect().height() * SHARE;
        ScrollArea::vertical().id_salt("problems").max_height(most).auto_shrink([false, true]).show(ui, |ui| {
            self.notes_ui(ui, Tone::Problem, out);
        });
    }

    /// Draws the notes of a tone, the latest of them. The one that is pointed at, if one is.
    fn notes_ui(&mut self, ui: &mut Ui, tone: Tone, out: &mut Vec<Action>) -> Option<u64> {
        let folded = self.folded(tone);
        let all = folded > 0 && folded_ui(ui, folded);
        let (mut dismissed, mut pointed) = (None, None);
        for note in self.notes.iter_mut().filter(|n| n.tone == tone).skip(folded) {
            let (held, done) = ui.push_id(note.serial, |ui| note.show(ui, out)).inner;
            pointed = pointed.or(held.then_some(note.serial));
            dismissed = dismissed.or(done.then_some(note.serial));
        }
        self.notes.retain(|n| !(all && n.tone == tone) && Some(n.serial) != dismissed);
        if all || dismissed.is_some() {
            ui.ctx().request_repaint();
        }
        pointed
    }

    /// How many notes of a tone are folded away.
    fn folded(&self, tone: Tone) -> usize {
        self.notes.iter().filter(|n| n.tone == tone).count().saturating_sub(MOST)
    }

    /// Draws what is no problem, at the lower end of `area`: it stays for some seconds, or while it is pointed at.
    pub fn show(&mut self, ctx: &Context, area: Rect, out: &mut Vec<Action>) {
        let now = ctx.input(|i| i.time);
        let elapsed = (now - self.last).max(0.0);
        self.last = now;
        self.age(elapsed);
        if !self.notes.iter().any(|n| n.tone == Tone::Info) {
            self.held = None;
            return;
        }
        let area = if area.is_positive() { area } else { ctx.content_rect() };
        let width = WIDTH.min(area.width() - 2.0 * theme::PAD).max(120.0);
        let place = pos2(area.center().x, area.bottom() - theme::GAP);
        let notes = Area::new(Id::unique("toasts")).order(Order::Tooltip).pivot(Align2::CENTER_BOTTOM).fixed_pos(place);
        let shown = notes.show(ctx, |ui| {
            ui.set_width(width);
            self.notes_ui(ui, Tone::Info, out)
        });
        self.held = shown.inner;
        // The next frame that notes need is the one in which the next of them goes.
        let next = self.ages().map(|n| n.left).fold(f64::INFINITY, f64::min);
        if next.is_finite() {
            ctx.request_repaint_after_secs(next as f32);
        }
    }

    /// How many notes there are, shown or folded away.
    pub fn len(&self) -> usize {
        self.notes.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.notes.is_empty()
    }

    /// Those for which time passes: an offer that nobody can see does not run out.
    fn ages(&self) -> impl Iterator<Item = &Note> {
        let (folded, held) = (self.folded(Tone::Info), self.held);
        let notes = self.notes.iter().filter(|n| n.tone == Tone::Info).enumerate();
        notes.filter(move |(i, n)| (*i >= folded || n.offer.is_none()) && Some(n.serial) != held).map(|(_, n)| n)
    }

    /// Lets time pass.
    fn age(&mut self, elapsed: f64) {
        let aged: Vec<u64> = self.ages().filter(|n| !n.fresh).map(|n| n.serial).collect();
        for note in &mut self.notes {
            note.fresh = false;
            if aged.contains(&note.serial) {
                note.left -= elapsed;
            }
        }
        // A frame may come a little early.
        self.notes.retain(|n| n.left > 0.01);
    }
}

/// Tells of notes that are not shown. Whether all were dismissed.
fn folded_ui(ui: &mut Ui, folded: usize) -> bool {
    let t = Theme::of(ui.ctx());
    let frame = Frame::new().fill(t.raised).stroke(Stroke::new(1.0, t.line)).corner_radius(theme::ROUND).inner_margin(6);
    let mut all = false;
    frame.show(ui, |ui| {
        ui.horizontal(|ui| {
            ui.label(parts::small(ui, format!("and {folded} more")));
            ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
                all = ui.small_button("Dismiss all").clicked();
            });
        });
    });
    all
}

impl Note {
    /// Draws it. Whether it is pointed at, and whether it is done with.
    fn show(&mut self, ui: &mut Ui, out: &mut Vec<Action>) -> (bool, bool) {
        let t = Theme::of(ui.ctx());
        let (icon, colour, live) = match self.tone {
            Tone::Info => (Icon::Info, t.accent, accesskit::Live::Polite),
            Tone::Problem => (Icon::Warning, t.bad, accesskit::Live::Assertive),
        };
        let (mut focused, mut done) = (false, false);
        let frame = Frame::new()
            .fill(t.raised)
            .stroke(Stroke::new(1.0, if self.tone == Tone::Problem { t.bad } else { t.line }))
            .corner_radius(theme::ROUND)
            .inner_margin(theme::GAP)
            .shadow(ui.visuals().popup_shadow);
        let response = frame
            .show(ui, |ui| {
                ui.set_width(ui.available_width());
                ui.horizontal_top(|ui| {
                    icon.show(ui, colour);
                    ui.with_layout(egui::Layout::right_to_left(egui::Align::Min), |ui| {
                        let close = parts::icon_button(ui, "×", "Dismiss", "Dismiss this note");
                        focused |= close.has_focus();
                        done |= close.clicked();
                        ui.with_layout(egui::Layout::top_down(egui::Align::Min), |ui| {
                            let text = match self.times {
                                1 => self.text.clone(),
                                n => format!("{} ({n} times)", self.text),
                            };
                            let said = ui.add(Label::new(RichText::new(text).color(t.text)).wrap());
                            ui.ctx().accesskit_node_builder(said.id, |node| node.set_live(live));
                            if let Some((name, action)) = &self.offer {
                                let button = ui.add(Button::new(RichText::new(name).color(t.accent)));
                                parts::named(&button, Role::Button, name);
                                focused |= button.has_focus();
                                if button.clicked() {
                                    out.push(action.clone());
                                    done = true;
                                }
                            }
                        });
                    });
                });
            })
            .response;
        (focused || ui.rect_contains_pointer(response.rect), done)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

    use egui::accesskit::Live;
    use egui_kittest::{
        Harness,
        kittest::{NodeT as _, Queryable as _},
    };

    use super::*;
    use crate::chats::ChatId;

    type State = (Toasts, Vec<Action>);

    /// Frames that are half a second apart.
    fn harness(notes: &[(Tone, &str, Option<Offer>)]) -> Harness<'static, State> {
        let mut toasts = Toasts::default();
        for (tone, text, offer) in notes {
            toasts.add(*tone, *text, offer.clone());
        }
        Harness::builder().with_size([900.0, 600.0]).with_step_dt(0.5).build_ui_state(
            |ui, s: &mut State| {
                s.0.problems_ui(ui, &mut s.1);
                s.0.show(ui.ctx(), Rect::NOTHING, &mut s.1);
            },
            (toasts, Vec::new()),
        )
    }

    fn undo() -> Option<Offer> {
        Some(("Undo".into(), Action::Undelete(ChatId("a".into()))))
    }

    #[test]
    fn notes_go_after_their_time_and_problems_stay() {
        let mut h = harness(&[(Tone::Info, "Copied", None), (Tone::Problem, "Disk full", None), (Tone::Info, "Deleted", undo())]);
        h.run_steps(2);
        assert_eq!(h.state().0.len(), 3);
        let live = |h: &Harness<'_, State>, text| h.get_by_label(text).accesskit_node().live();
        assert_eq!((live(&h, "Copied"), live(&h, "Disk full")), (Live::Polite, Live::Assertive));
        h.run_steps(9);
        assert!(h.query_by_label("Copied").is_none() && h.query_by_label("Deleted").is_some());
        h.run_steps(14);
        assert!(h.query_by_label("Deleted").is_none());
        h.run_steps(400);
        h.get_all_by_label("Dismiss").next().unwrap().click();
        h.run_steps(2);
        assert!(h.state().0.is_empty());
    }

    #[test]
    fn an_offer_is_taken_once() {
        let mut h = harness(&[(Tone::Info, "Deleted", undo())]);
        h.run_steps(2);
        h.get_by_label("Undo").click();
        h.run_steps(3);
        assert_eq!(h.state().1, [Action::Undelete(ChatId("a".into()))]);
        assert!(h.state().0.is_empty());
    }

    #[test]
    fn a_note_stays_while_it_is_pointed_at() {
        let mut h = harness(&[(Tone::Info, "Copied", None)]);
        h.run_steps(2);
        h.get_by_label("Copied").hover();
        h.run_steps(40);
        assert_eq!(h.state().0.len(), 1);
        h.remove_cursor();
        h.run_steps(12);
        assert!(h.state().0.is_empty());
    }

    #[test]
    fn repeated_notes_are_counted_and_many_are_folded() {
        let mut h = harness(&[(Tone::Problem, "No", None), (Tone::Problem, "No", None)]);
        h.run_steps(2);
        assert!(h.query_by_label("No (2 times)").is_some());
        let two_offers = [(Tone::Info, "Deleted", undo()), (Tone::Info, "Deleted", None)];
        assert_eq!(harness(&two_offers).state().0.len(), 2, "an offer must not be lost");
        let texts: Vec<String> = (0..8).map(|i| format!("Problem {i}")).collect();
        let many: Vec<_> = texts.iter().map(|t| (Tone::Problem, t.as_str(), None)).collect();
        let mut h = harness(&many);
        h.run_steps(2);
        assert!(h.query_by_label("and 3 more").is_some() && h.query_by_label("Problem 2").is_none());
        assert!(h.query_by_label("Problem 7").is_some());
        h.get_by_label("Dismiss all").click();
        h.run_steps(2);
        assert!(h.state().0.is_empty());
    }

    #[test]
    fn nothing_is_drawn_again_before_a_note_goes() {
        let mut h = harness(&[(Tone::Info, "Copied", None)]);
        h.run();
        let delay = h.output().viewport_output.values().next().unwrap().repaint_delay;
        assert!(delay > Duration::from_secs(1) && delay <= Duration::from_secs(4), "{delay:?}");
        let mut h = harness(&[(Tone::Problem, "No", None)]);
        h.run();
        assert_eq!(h.output().viewport_output.values().next().unwrap().repaint_delay, Duration::MAX);
    }
}
