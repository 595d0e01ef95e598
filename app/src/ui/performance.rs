//! Devices, memory and timings.

use eframe::egui::Ui;
use pleiad_runtime::engine::GenerationStats;

use super::Action;
use crate::{
    loading::{Models, devices::Devices},
    settings::Settings,
};

/// What the page is drawn from.
pub struct PerformanceContext<'a> {
    /// What is loaded.
    pub models: &'a Models,
    /// The devices there are.
    pub devices: &'a Devices,
    /// The statistics of the last answers, oldest first.
    pub answers: &'a [GenerationStats],
    /// Milliseconds of CPU that the last frames of the window took, oldest first.
    pub frames: &'a [f32],
    /// What a person has chosen.
    pub settings: &'a Settings,
}

/// What the page keeps between frames.
#[derive(Debug, Default)]
pub struct PerformanceView {}

impl PerformanceView {
    /// Draws the page.
    pub fn show(&mut self, ui: &mut Ui, cx: &PerformanceContext<'_>, out: &mut Vec<Action>) {
        let _ = (ui, cx, out);
    }
}
