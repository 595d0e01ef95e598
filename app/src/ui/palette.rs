//! The command palette, and the list of shortcuts.
//!
//! | module | what it holds |
//! |---|---|
//! | [`fuzzy`] | finding commands by a few of their letters |
//! | [`shortcuts`] | the list of shortcuts |

mod fuzzy;
mod shortcuts;

use std::sync::Arc;

use egui::{
    self, Align2, Context, Galley, Id, Key, Modal, Modifiers, Rect, Role, ScrollArea, Sense, Stroke, TextEdit, TextFormat,
    TextStyle, Ui, Vec2, WidgetInfo, text::LayoutJob,
};

use super::{Action, Command, Theme, parts, theme};
use fuzzy::Found;

/// Below this width of the palette a row has a name and a shortcut only.
const ROOMY: f32 = 440.0;

/// The palette.
#[derive(Debug, Default)]
pub struct PaletteView {
    /// Whether it is open.
    pub open: bool,
    /// Whether the list of shortcuts is open.
    pub shortcuts: bool,
    /// What is looked for.
    query: String,
    /// What was found for it, best first.
    found: Vec<Found>,
    /// The row that Enter runs.
    at: usize,
    /// What was open in the last frame: the palette, the shortcuts.
    was: (bool, bool),
    /// What had the focus before.
    focus: Option<Id>,
    /// Frames until that gets it back; 0: it has it, or nothing is to be given back.
    returns: u8,
}

impl PaletteView {
    /// Draws the palette, or the list of shortcuts, over everything else, if one is open. `enabled`: whether a command
    /// can be given now.
    pub fn show(&mut self, ctx: &Context, enabled: &dyn Fn(Command) -> bool, out: &mut Vec<Action>) {
        let was = self.was;
        if (self.open || self.shortcuts) && was == (false, false) {
            self.focus = ctx.memory(|m| m.focused());
        }
        if self.open {
            if !was.0 {
                self.query.clear();
                self.find();
            }
            self.palette_ui(ctx, !was.0, enabled, out);
        }
        if self.shortcuts && shortcuts::shortcuts_ui(ctx, !was.1) {
            self.shortcuts = false;
        }
        self.was = (self.open, self.shortcuts);
        if was != (false, false) && self.was == (false, false) {
            self.returns = 3;
        }
        self.return_focus(ctx);
    }

    /// Gives the focus back to what had it, once egui lets go of the modal layer, unless a command gave it to something else.
    fn return_focus(&mut self, ctx: &Context) {
        if self.returns == 0 || self.was != (false, false) {
            return;
        }
        self.returns -= 1;
        if self.returns > 0 {
            ctx.request_repaint();
        } else if let Some(id) = self.focus.take().filter(|_| ctx.memory(|m| m.focused()).is_none()) {
            ctx.memory_mut(|m| m.request_focus(id));
            ctx.request_repaint();
        }
    }

    fn find(&mut self) {
        self.found = fuzzy::search(&self.query);
        self.at = 0;
    }

    fn palette_ui(&mut self, ctx: &Context, first_frame: bool, enabled: &dyn Fn(Command) -> bool, out: &mut Vec<Action>) {
        let screen = ctx.content_rect();
        let width = (screen.width() - 4.0 * theme::PAD).min(620.0);
        // Before the search box sees them.
        let pressed = |key| ctx.input_mut(|i| i.consume_key(Modifiers::NONE, key));
        let (up, down, enter) = (pressed(Key::ArrowUp), pressed(Key::ArrowDown), pressed(Key::Enter));
        let last = self.found.len().saturating_sub(1);
        if down {
            self.at = if self.at >= last { 0 } else { self.at + 1 };
        }
        if up {
            self.at = self.at.checked_sub(1).unwrap_or(last);
        }
        let mut chosen = None;
        let id = Id::unique("command palette");
        let area = Modal::default_area(id).anchor(Align2::CENTER_TOP, Vec2::new(0.0, (screen.height() * 0.1).min(72.0)));
        let modal = Modal::new(id).area(area).show(ctx, |ui| {
            ui.set_width(width);
            let search = TextEdit::singleline(&mut self.query).hint_text("Find a command").desired_width(f32::INFINITY);
            let search = ui.add(search).accessible_name("Find a command");
            if first_frame {
                search.request_focus();
            }
            if search.changed() {
                self.find();
            }
            // What was written in the same frame counts.
            chosen = self.found.get(self.at).filter(|_| enter).map(|f| f.command);
            ui.add_space(4.0);
            if self.found.is_empty() {
                ui.label(parts::muted(ui, "No command matches."));
            } else {
                let clicked = self.rows_ui(ui, up || down || search.changed(), enabled);
                chosen = chosen.or(clicked);
                // The focus stays in the search box; screen readers follow the chosen row.
                if let Some(row) = self.found.get(self.at) {
                    let row = row_id(row.command).accesskit_id();
                    ui.ctx().accesskit_node_builder(search.id, |node| node.set_active_descendant(row));
                }
            }
        });
        if let Some(command) = chosen.filter(|c| enabled(*c)) {
            out.push(Action::Run(command));
            self.open = false;
        }
        if modal.should_close() {
            self.open = false;
        }
    }

    /// Draws what was found. The command that was clicked.
    fn rows_ui(&mut self, ui: &mut Ui, moved: bool, enabled: &dyn Fn(Command) -> bool) -> Option<Command> {
        let height = ui.text_style_height(&TextStyle::Body) + 12.0;
        let most = (ui.ctx().content_rect().height() * 0.6).max(3.0 * height);
        let pointed = ui.input(|i| i.pointer.is_moving());
        let mut clicked = None;
        ui.spacing_mut().item_spacing.y = 0.0;
        ScrollArea::vertical().id_salt("commands").auto_shrink([false, true]).max_height(most).show_rows(
            ui,
            height,
            self.found.len(),
            |ui, range| {
                let area = ui.max_rect();
                let rect = |i: usize| {
                    let y = area.top() + (i as f32 - range.start as f32) * height;
                    Rect::from_min_size(egui::pos2(area.left(), y), Vec2::new(area.width(), height))
                };
                if moved {
                    ui.scroll_to_rect_animation(rect(self.at), None, egui::style::ScrollAnimation::none());
                }
                for i in range.clone() {
                    let Some(found) = self.found.get(i) else { continue };
                    let enabled = enabled(found.command);
                    let response = row_ui(ui, rect(i), found, i == self.at, enabled);
                    if response.hovered() && pointed {
                        self.at = i;
                    }
                    if response.clicked() && enabled {
                        clicked = Some(found.command);
                    }
                }
                ui.allocate_space(Vec2::new(0.0, range.len() as f32 * height));
            },
        );
        clicked
    }
}

fn row_id(command: Command) -> Id {
    Id::unique(("command palette", command))
}

/// Draws a row: what was found in name and explanation, group and shortcut.
fn row_ui(ui: &Ui, rect: Rect, found: &Found, chosen: bool, enabled: bool) -> egui::Response {
    let t = Theme::of(ui.ctx());
    let command = found.command;
    // Not reached by Tab: the arrow keys move through the rows.
    let response = ui.interact(rect, row_id(command), if enabled { Sense::CLICK } else { Sense::hover() });
    response.widget_info(|| WidgetInfo::selected(Role::ListBoxOption, enabled, chosen, command.name()));
    if !ui.is_rect_visible(rect) {
        return response;
    }
    if chosen {
        ui.painter().rect_filled(rect, theme::ROUND_SMALL, t.accent_soft);
        // Not by colour alone.
        let bar = Rect::from_min_size(rect.left_top(), Vec2::new(3.0, rect.height()));
        ui.painter().rect_filled(bar, 1.0, t.accent);
    }
    let roomy = rect.width() >= ROOMY;
    let inner = rect.shrink2(Vec2::new(theme::GAP + 2.0, 0.0));
    let keys = command.shortcut_text(ui.ctx());
    let mut right = inner.right();
    let mut put_right = |text: String, style: TextStyle, colour, least: f32| {
        if !text.is_empty() {
            let galley = ui.painter().layout_no_wrap(text, style.resolve(ui.style()), colour);
            let pos = egui::pos2(right - galley.size().x, inner.center().y - galley.size().y / 2.0);
            right -= galley.size().x.max(least) + theme::GAP;
            ui.painter().galley(pos, galley, colour);
        } else {
            right -= least + theme::GAP;
        }
    };
    // Muted text is too pale on the ground of the chosen row.
    let quiet = if chosen && enabled { t.text } else { t.muted };
    put_right(keys, TextStyle::Monospace, if enabled { t.text } else { t.muted }, if roomy { 96.0 } else { 0.0 });
    if roomy {
        put_right(command.group().name().to_owned(), TextStyle::Small, quiet, 70.0);
    }
    let galley = name_galley(ui, found, right - inner.left(), roomy, enabled, quiet);
    let pos = egui::pos2(inner.left(), inner.center().y - galley.size().y / 2.0);
    ui.painter().galley(pos, galley, t.text);
    if enabled { response } else { response.on_hover_text("Not possible now") }
}

/// Name and explanation with the letters that were found underlined.
fn name_galley(ui: &Ui, found: &Found, width: f32, roomy: bool, enabled: bool, quiet: egui::Color32) -> Arc<Galley> {
    let t = Theme::of(ui.ctx());
    let wrap = egui::text::TextWrapping::truncate_at_width(width.max(20.0));
    let mut job = LayoutJob { wrap, ..LayoutJob::default() };
    let mut add = |text: &str, marks: &[usize], style: TextStyle, plain: egui::Color32| {
        let font = style.resolve(ui.style());
        let mut marks = marks.iter().copied().peekable();
        let mut buffer = [0; 4];
        for (i, c) in text.chars().enumerate() {
            let marked = marks.next_if_eq(&i).is_some();
            let mut format = TextFormat::simple(font.clone(), plain);
            if marked && enabled {
                (format.color, format.underline) = (t.strong, Stroke::new(1.5, t.accent));
            }
            job.append(c.encode_utf8(&mut buffer), 0.0, format);
        }
    };
    add(found.command.name(), &found.in_name, TextStyle::Body, if enabled { t.text } else { t.muted });
    if roomy {
        add("   ", &[], TextStyle::Small, quiet);
        add(found.command.explanation(), &found.in_explanation, TextStyle::Small, quiet);
    }
    ui.painter().layout_job(job)
}

#[cfg(test)]
mod tests {
    use egui_kittest::{Harness, kittest::Queryable as _};

    use super::*;

    #[derive(Default)]
    struct State {
        view: PaletteView,
        out: Vec<Action>,
        text: String,
    }

    /// A text field below, and a palette in which everything but Quit is possible.
    fn harness(width: f32) -> Harness<'static, State> {
        Harness::builder().with_size([width, 600.0]).build_ui_state(
            |ui, s: &mut State| {
                ui.text_edit_singleline(&mut s.text).accessible_name("Below");
                s.view.show(ui.ctx(), &|c| c != Command::Quit, &mut s.out);
            },
            State::default(),
        )
    }

    fn open(h: &mut Harness<'_, State>, query: &str) {
        h.state_mut().view.open = true;
        h.run();
        h.get_by_label("Find a command").type_text(query);
        h.run();
    }

    #[test]
    fn typing_and_enter_run_a_command_and_the_focus_returns() {
        let mut h = harness(800.0);
        h.get_by_label("Below").focus();
        h.run();
        open(&mut h, "new conv");
        // The search box has the focus, and the row is its active descendant.
        assert!(h.get_by_role_and_label(Role::ListBoxOption, "New conversation").is_focused());
        h.key_press(Key::Enter);
        h.run();
        assert_eq!(h.state().out, [Action::Run(Command::NewChat)]);
        assert!(!h.state().view.open && h.get_by_label("Below").is_focused());
    }

    #[test]
    fn arrows_move_and_wrap_and_escape_closes() {
        let mut h = harness(800.0);
        open(&mut h, "");
        let chosen = |h: &Harness<'_, State>| h.state().view.found[h.state().view.at].command;
        h.key_press(Key::ArrowDown);
        h.run();
        assert_eq!(chosen(&h), Command::ALL[1]);
        h.key_press(Key::ArrowUp);
        h.run();
        h.key_press(Key::ArrowUp);
        h.run();
        assert_eq!(chosen(&h), Command::Quit);
        assert!(h.get_by_label("Quit").rect().max.y <= 600.0, "the chosen row is scrolled to");
        h.key_press(Key::Enter);
        h.run();
        assert!(h.state().out.is_empty() && h.state().view.open, "what is not possible now is not run");
        h.key_press(Key::Escape);
        h.run();
        assert!(h.state().out.is_empty() && !h.state().view.open);
    }

    #[test]
    fn a_click_runs_and_nonsense_finds_nothing() {
        let mut h = harness(340.0);
        open(&mut h, "log");
        h.get_by_role_and_label(Role::ListBoxOption, "Log").click();
        h.run();
        assert_eq!(h.state().out, [Action::Run(Command::ShowLog)]);
        open(&mut h, "qqqq");
        h.get_by_label("No command matches.");
        h.key_press(Key::Enter);
        h.run();
        assert_eq!(h.state().out.len(), 1);
    }

    #[test]
    fn few_rows_are_laid_out() {
        let mut h = harness(800.0);
        open(&mut h, "");
        assert!(h.get_all_by_role(Role::ListBoxOption).count() < 20);
    }

    #[test]
    fn every_shortcut_is_listed() {
        for width in [340.0, 900.0] {
            let mut h = harness(width);
            h.state_mut().view.shortcuts = true;
            h.run();
            for command in Command::ALL.iter().filter(|c| c.shortcut().is_some()) {
                assert!(h.query_all_by_label(command.name().trim_end_matches("...")).next().is_some(), "{command:?}");
            }
            h.get_by_label("Close").click();
            h.run();
            assert!(!h.state().view.shortcuts);
        }
    }
}
