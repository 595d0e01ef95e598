//! The list of shortcuts.

use egui::{self, Context, Id, Label, Modal, RichText, ScrollArea, Ui};

use crate::ui::{Command, Theme, command::Group, parts, theme};

/// Narrowest column of the list, in points, at the usual size of text.
const COLUMN: f32 = 350.0;

/// Draws the list over everything else. Whether it was closed.
pub(super) fn shortcuts_ui(ctx: &Context, first_frame: bool) -> bool {
    let screen = ctx.content_rect();
    let scale = parts::text_scale(&ctx.global_style());
    let column = COLUMN * scale.max(1.0);
    let width = (screen.width() - 4.0 * theme::PAD).min(2.0 * column + 2.0 * theme::PAD);
    let modal = Modal::new(Id::unique("shortcuts")).show(ctx, |ui| {
        ui.set_width(width);
        let mut closed = false;
        ui.horizontal(|ui| {
            ui.heading("Keyboard shortcuts");
            ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
                let close = parts::icon_button(ui, "×", "Close", "Close this list");
                if first_frame {
                    close.request_focus();
                }
                closed = close.clicked();
            });
        });
        ScrollArea::vertical().max_height((screen.height() - 140.0).max(120.0)).auto_shrink([false, true]).show(ui, |ui| {
            if width >= 2.0 * column {
                ui.spacing_mut().item_spacing.x = 2.0 * theme::PAD;
                ui.columns(2, |columns| {
                    // Two columns of about the same height.
                    for (column, groups) in columns.iter_mut().zip([&Group::ALL[..3], &Group::ALL[3..]]) {
                        groups.iter().for_each(|g| group_ui(column, *g));
                    }
                });
            } else {
                Group::ALL.into_iter().for_each(|g| group_ui(ui, g));
            }
        });
        closed
    });
    modal.inner || modal.should_close()
}

/// The commands of a group that have a shortcut.
fn group_ui(ui: &mut Ui, group: Group) {
    parts::section(ui, group.name());
    let t = Theme::of(ui.ctx());
    for command in Command::here().filter(|c| c.group() == group) {
        let keys = command.shortcut_text(ui.ctx());
        if keys.is_empty() {
            continue;
        }
        ui.horizontal(|ui| {
            ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
                ui.label(RichText::new(keys).color(t.strong).text_style(egui::TextStyle::Monospace));
                ui.with_layout(egui::Layout::left_to_right(egui::Align::Center), |ui| {
                    let name = command.name().trim_end_matches("...");
                    ui.add(Label::new(name).truncate()).on_hover_text(command.explanation());
                });
            });
        });
    }
}
