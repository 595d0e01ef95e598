//! Prompt packs side by side: which experts code, mathematics or a language use more than an even spread would.

use std::sync::Arc;

use egui::{
    self, Button, ColorImage, Grid, Image, Role, TextEdit, TextureHandle, TextureOptions, Ui, Vec2, WidgetInfo,
    load::SizedTexture, vec2,
};

use super::{
    facts::percent,
    header::{Asked, Side, elided},
};
use crate::{
    activity::{
        Cell, Scale, Shape, Snapshot,
        domains::Domain,
        snapshot::{Divergence, Mover},
    },
    settings::Palette,
    ui::{Action, Theme, experts::colours, parts, theme},
};

/// Either end of the shared scale, in powers of two.
const OCTAVES: f32 = 3.0;
/// Cells that are listed where two domains differ most.
const MOVERS: usize = 8;

/// What the tab keeps between frames.
#[derive(Default)]
pub struct Domains {
    /// What was read, in the order in which it was read.
    pub results: Vec<Arc<Snapshot>>,
    own: String,
    maps: Vec<Option<TextureHandle>>,
    /// How far apart every pair is.
    distances: Vec<Vec<Option<Divergence>>>,
    movers: Vec<Mover>,
}

impl Domains {
    /// A text was read. One of the same name takes the place of the one before.
    pub fn surveyed(&mut self, shape: &Shape, name: String, uses: Vec<u64>) {
        let Some(new) = Snapshot::new(name, shape, uses).map(Arc::new) else { return };
        match self.results.iter_mut().find(|r| r.label == new.label) {
            Some(old) => *old = new,
            None => self.results.push(new),
        }
        self.maps = self.results.iter().map(|_| None).collect();
        self.distances = self.results.iter().map(|a| self.results.iter().map(|b| a.divergence(b)).collect()).collect();
        self.movers = self.farthest().map(|(a, b)| a.movers(b, MOVERS)).unwrap_or_default();
    }

    fn distance(&self, a: usize, b: usize) -> Option<&Divergence> {
        self.distances.get(a)?.get(b)?.as_ref()
    }

    /// The pair that differs most.
    fn farthest(&self) -> Option<(&Arc<Snapshot>, &Arc<Snapshot>)> {
        let pairs = (0..self.results.len()).flat_map(|a| (a + 1..self.results.len()).map(move |b| (a, b)));
        let apart = |&(a, b): &(usize, usize)| self.distance(a, b).and_then(|d| d.overall).unwrap_or(0.0);
        let (a, b) = pairs.max_by(|x, y| apart(x).total_cmp(&apart(y)))?;
        Some((self.results.get(a)?, self.results.get(b)?))
    }

    /// Draws the tab. `packs`: names and texts that come with the program.
    pub fn show(
        &mut self,
        ui: &mut Ui,
        shape: &Shape,
        packs: &[Domain],
        surveying: Option<(&str, usize)>,
        out: &mut Vec<Action>,
    ) -> Option<Asked> {
        self.ask_ui(ui, packs, surveying, out);
        if self.results.is_empty() {
            ui.label(parts::muted(ui, "Reads short texts without answering, and shows which experts each of them uses."));
            return None;
        }
        let asked = self.maps_ui(ui, shape);
        if self.results.len() > 1 {
            self.distances_ui(ui);
            self.movers_ui(ui, shape);
        }
        asked
    }

    fn ask_ui(&mut self, ui: &mut Ui, packs: &[Domain], surveying: Option<(&str, usize)>, out: &mut Vec<Action>) {
        let free = surveying.is_none();
        ui.horizontal_wrapped(|ui| {
            if ui.add_enabled(free, Button::new("Read all")).on_hover_text("Read every text of the list").clicked() {
                out.push(Action::Survey(packs.iter().map(|p| (p.name.to_owned(), p.text.to_owned())).collect()));
            }
            for Domain { name, text } in packs {
                let button = ui.add_enabled(free, Button::new(*name));
                if button.on_hover_text(format!("Read: {}", elided(text, 120))).clicked() {
                    out.push(Action::Survey(vec![((*name).to_owned(), (*text).to_owned())]));
                }
            }
        });
        ui.horizontal(|ui| {
            let width = (ui.available_width() - 90.0).max(120.0);
            let field = TextEdit::singleline(&mut self.own).hint_text("Or a text of your own").desired_width(width);
            let field = ui.name_inputs("A text of your own to read", |ui| ui.add(field));
            let entered = field.lost_focus() && ui.input(|i| i.key_pressed(egui::Key::Enter));
            let some = !self.own.trim().is_empty();
            let read = ui.add_enabled(free && some, Button::new("Read")).on_hover_text("Read this text");
            if read.clicked() || (entered && free && some) {
                let text = self.own.trim().to_owned();
                out.push(Action::Survey(vec![(format!("“{}”", elided(&text, 20)), text)]));
            }
        });
        if let Some((name, behind)) = surveying {
            ui.horizontal(|ui| {
                ui.spinner();
                let wait = if behind > 0 { format!(", {behind} to go") } else { String::new() };
                ui.label(parts::muted(ui, format!("Reading {name}{wait}")));
                if ui.button("Stop reading").on_hover_text("Stop, and forget the texts that wait").clicked() {
                    out.push(Action::StopSurveys);
                }
            });
        }
    }

    /// One small map for each text, as many side by side as there is room for.
    fn maps_ui(&mut self, ui: &mut Ui, shape: &Shape) -> Option<Asked> {
        let mut asked = None;
        let columns = ((ui.available_width() / 230.0) as usize).clamp(1, 4).min(self.results.len());
        let width = (ui.available_width() - theme::GAP * (columns - 1) as f32) / columns as f32;
        let rows = shape.rows.len().max(1) as f32;
        let size = vec2(width, (rows * 4.0).clamp(36.0, 130.0));
        let at = |i: usize| i..(i + columns).min(self.results.len());
        let starts: Vec<_> = (0..self.results.len()).step_by(columns).map(at).collect();
        for line in starts {
            ui.horizontal_top(|ui| {
                for i in line {
                    ui.allocate_ui(vec2(width, size.y + 60.0), |ui| {
                        ui.vertical(|ui| {
                            ui.set_width(width);
                            asked = self.map_ui(ui, shape, i, size).or(asked.take());
                        });
                    });
                }
            });
        }
        let key = "Uses as a multiple of an even spread, layers downwards and experts to the right; one scale from 1/8 to 8 \
                   times for all, palest at 1.";
        ui.label(parts::small(ui, key));
        asked
    }

    fn map_ui(&mut self, ui: &mut Ui, shape: &Shape, i: usize, size: Vec2) -> Option<Asked> {
        let (Some(result), Some(slot)) = (self.results.get(i), self.maps.get_mut(i)) else { return None };
        let ctx = ui.ctx().clone();
        let texture = slot.get_or_insert_with(|| {
            ctx.load_texture(format!("domain {}", result.label), picture(shape, result), TextureOptions::NEAREST)
        });
        ui.label(egui::RichText::new(elided(&result.label, 24)).color(Theme::of(ui.ctx()).strong));
        let image = ui.add(Image::from_texture(SizedTexture::new(texture.id(), size)));
        let (cell, most) = largest(shape, result);
        let layer = shape.rows.get(cell.row).copied().unwrap_or_default();
        let said =
            format!("{}: most used relative to an even spread: layer {layer}, expert {}, {most:.1}×", result.label, cell.expert);
        image.widget_info(|| WidgetInfo::labeled(Role::Image, true, &said));
        image.on_hover_text(said);
        let mut asked = None;
        ui.horizontal(|ui| {
            for side in [Side::A, Side::B] {
                let button = ui.add(Button::new(format!("Use as {}", side.name())).small());
                let name = format!("Use {} as {}", result.label, side.name());
                parts::named(&button, Role::Button, &name);
                if button.on_hover_text("Compare in the mode A − B").clicked() {
                    asked = Some(Asked::Take(side, Arc::clone(result)));
                }
            }
        });
        asked
    }

    fn distances_ui(&self, ui: &mut Ui) {
        parts::section(ui, "How far apart");
        egui::ScrollArea::horizontal().id_salt("distances").show(ui, |ui| {
            Grid::new("domain distances").striped(true).min_row_height(16.0).spacing([12.0, 4.0]).show(ui, |ui| {
                ui.label("");
                for r in &self.results {
                    ui.label(parts::small(ui, elided(&r.label, 12)));
                }
                ui.end_row();
                for (r, distances) in self.results.iter().zip(&self.distances) {
                    ui.label(parts::small(ui, elided(&r.label, 12)));
                    for d in distances {
                        let bits = d.as_ref().and_then(|d| d.overall);
                        let text = bits.map_or_else(|| "–".to_owned(), |bits| format!("{bits:.3}"));
                        let label = ui.label(egui::RichText::new(text).text_style(Theme::small()));
                        if let Some(chance) = d.as_ref().and_then(|d| d.chance).filter(|_| bits != Some(0.0)) {
                            label.on_hover_text(format!("Chance alone would give about {chance:.3}"));
                        }
                    }
                    ui.end_row();
                }
            });
        });
        let key = "Jensen–Shannon divergence in bits, mean over layers: 0 where two texts use the same experts equally, 1 \
                   where they share none. Point at a number for what chance alone would give.";
        ui.label(parts::small(ui, key));
    }

    fn movers_ui(&self, ui: &mut Ui, shape: &Shape) {
        let Some((a, b)) = self.farthest() else { return };
        let (a, b) = (&a.label, &b.label);
        parts::section(ui, "Where they differ most");
        if self.movers.is_empty() {
            ui.label(parts::small(ui, "Nowhere by more than chance explains."));
            return;
        }
        Grid::new("movers").striped(true).min_row_height(16.0).spacing([12.0, 4.0]).show(ui, |ui| {
            for title in ["Expert", elided(a, 16).as_str(), elided(b, 16).as_str()] {
                ui.label(parts::small(ui, title));
            }
            ui.end_row();
            for Mover { cell, a, b } in &self.movers {
                let layer = shape.rows.get(cell.row).copied().unwrap_or_default();
                for text in [format!("layer {layer}, expert {}", cell.expert), percent(*a), percent(*b)] {
                    ui.label(egui::RichText::new(text).text_style(Theme::small()));
                }
                ui.end_row();
            }
        });
    }
}

fn picture(shape: &Shape, load: &Snapshot) -> ColorImage {
    let colour = |r: f64| {
        colours::colour_of(Scale::Ratio { octaves: OCTAVES }, r.log2().max(-f64::from(OCTAVES)) as f32, Palette::default(), false)
    };
    let pixels = load.relative().map(|r| if r.is_nan() { egui::Color32::TRANSPARENT } else { colour(r) }).collect();
    ColorImage::new([shape.experts.max(1), shape.rows.len().max(1)], pixels)
}

/// The cell that is used most relative to an even spread, and how much.
fn largest(shape: &Shape, load: &Snapshot) -> (Cell, f64) {
    let (mut cell, mut most) = (Cell { row: 0, expert: 0 }, 0.0);
    for (i, r) in load.relative().enumerate() {
        if r > most {
            (cell, most) = (Cell { row: i / shape.experts.max(1), expert: i % shape.experts.max(1) }, r);
        }
    }
    (cell, most)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test
    use super::{super::fixture, *};

    #[test]
    fn a_result_takes_the_place_of_its_elder() {
        let shape = fixture::shape(1, 4, 1);
        let mut d = Domains::default();
        d.surveyed(&shape, "code".into(), vec![4, 0, 0, 0]);
        d.surveyed(&shape, "maths".into(), vec![0, 4, 0, 0]);
        d.surveyed(&shape, "wrong".into(), vec![1, 2]);
        assert_eq!((d.results.len(), d.distance(0, 1).unwrap().overall), (2, Some(1.0)));
        d.surveyed(&shape, "maths".into(), vec![4, 0, 0, 0]);
        assert_eq!((d.results.len(), d.distance(0, 1).unwrap().overall), (2, Some(0.0)));
    }

    #[test]
    fn the_pair_that_is_farthest_apart_gives_the_movers() {
        let shape = fixture::shape(1, 4, 1);
        let mut d = Domains::default();
        d.surveyed(&shape, "code".into(), vec![400, 0, 0, 0]);
        d.surveyed(&shape, "English".into(), vec![200, 100, 100, 0]);
        d.surveyed(&shape, "Chinese".into(), vec![0, 0, 400, 0]);
        let (a, b) = d.farthest().unwrap();
        assert_eq!((a.label.as_str(), b.label.as_str()), ("code", "Chinese"));
        assert_eq!(d.movers[0], Mover { cell: Cell { row: 0, expert: 0 }, a: 1.0, b: 0.0 });
        assert_eq!(largest(&shape, b), (Cell { row: 0, expert: 2 }, 4.0));
        let image = picture(&shape, b);
        assert_eq!((image.size, image.pixels[0] == image.pixels[1], image.pixels[0] == image.pixels[2]), ([4, 1], true, false));
    }
}
