//! Choosing a model, and what would go where.

use eframe::egui::Context;

use super::Action;
use crate::{
    loading::{Examined, Loading, Models, devices::Devices},
    settings::Settings,
};

/// What the picker is drawn from.
pub struct PickerContext<'a> {
    /// What is loaded.
    pub models: &'a Models,
    /// What is being loaded.
    pub loading: Option<&'a Loading>,
    /// The model that was looked at last, for its price.
    pub examined: Option<&'a Examined>,
    /// A model is being looked at.
    pub examining: bool,
    /// Why looking at a model, or loading it, failed; in words.
    pub problem: Option<&'a str>,
    /// The devices there are.
    pub devices: &'a Devices,
    /// What a person has chosen.
    pub settings: &'a Settings,
}

/// What the picker keeps between frames.
#[derive(Debug, Default)]
pub struct PickerView {
    /// Whether it is open.
    pub open: bool,
}

impl PickerView {
    /// Draws the picker over everything else, if it is open.
    pub fn show(&mut self, ctx: &Context, cx: &PickerContext<'_>, out: &mut Vec<Action>) {
        let _ = (ctx, cx, out);
    }
}
