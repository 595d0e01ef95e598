//! What the grid shows: mode, half-life, what is compared with what, and where the tokens come from.

use std::sync::Arc;

use egui::{Button, ComboBox, RichText, Role, Slider, Ui, WidgetInfo};

use crate::{
    activity::{Mode, Snapshot},
    settings::Settings,
    ui::{Action, Command, Theme, parts, theme},
};

/// One side of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// What is counted positive.
    A,
    /// What is subtracted.
    B,
}

impl Side {
    /// Its letter.
    pub fn name(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::B => "B",
        }
    }
}

/// What a person asked of the header that the panel has to carry out.
#[derive(Clone, Debug, PartialEq)]
pub enum Asked {
    /// Puts the uses counted now aside, as a side.
    TakeNow(Side),
    /// Compares with something put aside.
    Take(Side, Arc<Snapshot>),
}

/// What the header keeps between frames.
#[derive(Default)]
pub struct Header {
    /// What the grid shows.
    pub mode: Mode,
    /// What is counted positive in [`Mode::Difference`].
    pub a: Option<Arc<Snapshot>>,
    /// What is subtracted.
    pub b: Option<Arc<Snapshot>>,
    /// Half-life while its slider is dragged.
    pub(super) half_life: Option<f32>,
}

/// Where the tokens come from.
pub enum Origin<'a> {
    /// The model answers now.
    Running,
    /// The model has answered.
    Live,
    /// A record is replayed.
    Replay(&'a str),
}

impl Header {
    /// The half-life that the grid uses.
    pub fn half_life(&self, settings: &Settings) -> f32 {
        self.half_life.unwrap_or(settings.half_life)
    }

    /// One side of the comparison.
    pub fn side(&mut self, side: Side) -> &mut Option<Arc<Snapshot>> {
        match side {
            Side::A => &mut self.a,
            Side::B => &mut self.b,
        }
    }

    /// Draws the header. `known`: everything that was put aside and can be compared with.
    pub fn show(
        &mut self,
        ui: &mut Ui,
        settings: &Settings,
        origin: &Origin<'_>,
        known: &[Arc<Snapshot>],
        out: &mut Vec<Action>,
    ) -> Option<Asked> {
        let mut asked = None;
        ui.horizontal_wrapped(|ui| {
            self.mode_ui(ui);
            match self.mode {
                Mode::Recent => self.half_life_ui(ui, settings, out),
                Mode::Difference => asked = self.sides_ui(ui, known),
                _ => {}
            }
            let clear = ui.button("Clear");
            parts::named(&clear, Role::Button, Command::ClearExperts.name());
            if clear.on_hover_text(Command::ClearExperts.tooltip(ui.ctx())).clicked() {
                out.push(Action::Run(Command::ClearExperts));
            }
            origin_ui(ui, origin);
        });
        asked
    }

    /// Buttons side by side where all fit, else a menu.
    fn mode_ui(&mut self, ui: &mut Ui) {
        if ui.available_width() > 760.0 {
            ui.scope(|ui| {
                ui.spacing_mut().item_spacing.x = 2.0;
                for mode in Mode::ALL {
                    let button = ui.add(Button::selectable(self.mode == mode, mode.name()));
                    button.widget_info(|| WidgetInfo::selected(Role::RadioButton, true, self.mode == mode, mode.name()));
                    if button.on_hover_text(mode.explanation()).clicked() {
                        self.mode = mode;
                    }
                }
            });
            return;
        }
        let combo = ui.name_inputs("What the grid shows", |ui| {
            ComboBox::from_id_salt("experts mode").selected_text(self.mode.name()).width(150.0).height(320.0).show_ui(ui, |ui| {
                for mode in Mode::ALL {
                    ui.selectable_value(&mut self.mode, mode, mode.name()).on_hover_text(mode.explanation());
                }
            })
        });
        combo.response.on_hover_text(self.mode.explanation());
    }

    fn half_life_ui(&mut self, ui: &mut Ui, settings: &Settings, out: &mut Vec<Action>) {
        let mut half_life = self.half_life(settings);
        let slider = Slider::new(&mut half_life, 1.0..=512.0).logarithmic(true).fixed_decimals(0).suffix(" tokens");
        let response = ui.scope(|ui| {
            ui.spacing_mut().slider_width = 90.0;
            ui.name_inputs("Half-life in tokens", |ui| ui.add(slider))
        });
        let response = response.inner.on_hover_text("After so many tokens a use counts half");
        if response.changed() {
            self.half_life = Some(half_life);
        }
        // Settings are written to a file: once a drag is over, not at each of its steps.
        if let Some(chosen) = self.half_life.filter(|_| !response.dragged()) {
            if (chosen - settings.half_life).abs() > 1e-3 {
                out.push(Action::SetSettings(Box::new(Settings { half_life: chosen, ..settings.clone() })));
            }
            if !response.changed() {
                self.half_life = None;
            }
        }
    }

    fn sides_ui(&mut self, ui: &mut Ui, known: &[Arc<Snapshot>]) -> Option<Asked> {
        let mut asked = None;
        for side in [Side::A, Side::B] {
            let name = side.name();
            let shown = self.side(side).as_ref().map_or("choose", |r| r.label.as_str());
            let text = format!("{name}: {}", elided(shown, 18));
            ui.name_inputs(format!("Side {name} of the comparison"), |ui| {
                ComboBox::from_id_salt(("experts side", name)).selected_text(text).width(120.0).show_ui(ui, |ui| {
                    let now = ui.selectable_label(false, format!("{name} = now"));
                    if now.on_hover_text("Put aside what is counted at this moment").clicked() {
                        asked = Some(Asked::TakeNow(side));
                    }
                    for reference in known {
                        let on = self.side(side).as_ref().is_some_and(|chosen| Arc::ptr_eq(chosen, reference));
                        if ui.selectable_label(on, reference.label.as_str()).clicked() {
                            asked = Some(Asked::Take(side, Arc::clone(reference)));
                        }
                    }
                });
            });
        }
        let swap = ui.add_enabled(self.a.is_some() || self.b.is_some(), Button::new("Swap"));
        if swap.on_hover_text("A becomes B, and B becomes A").clicked() {
            std::mem::swap(&mut self.a, &mut self.b);
        }
        asked
    }
}

fn origin_ui(ui: &mut Ui, origin: &Origin<'_>) {
    let t = Theme::of(ui.ctx());
    let (text, colour, tooltip) = match origin {
        Origin::Running => ("live, running".to_owned(), t.good, "Tokens come from the answer that is being written".to_owned()),
        Origin::Live => ("live".to_owned(), t.muted, "Tokens come from this program's own answers".to_owned()),
        Origin::Replay(name) => ("replay".to_owned(), t.warn, format!("Tokens come from a record: {name}")),
    };
    super::chips::chip_ui(ui, &text, colour, &tooltip);
}

/// A text in at most `most` characters.
pub fn elided(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

/// What to do where the panel has nothing to show: a title, and a sentence.
pub fn empty_ui(ui: &mut Ui, title: &str, text: &str, button: Option<(&str, Action)>, out: &mut Vec<Action>) {
    let strong = Theme::of(ui.ctx()).strong;
    ui.vertical_centered(|ui| {
        ui.add_space((ui.available_height() * 0.3).clamp(theme::PAD, 220.0));
        ui.label(RichText::new(title).color(strong).heading());
        ui.add_space(theme::GAP);
        ui.label(parts::muted(ui, text));
        if let Some((name, action)) = button {
            ui.add_space(theme::GAP);
            if ui.button(name).clicked() {
                out.push(action);
            }
        }
    });
}
