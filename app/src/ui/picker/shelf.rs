//! Models that are kept for a page: what is there, what is on its way, and what room there is.

use egui::{self, Button, Key, Label, Response, RichText, Role, TextEdit, Ui, accesskit};

use super::{PickerContext, address, model_ui};
use crate::{
    loading::{
        Source,
        shelf::{Download, KeptFile, Room, Shelf},
    },
    ui::{Action, Theme, parts, theme},
};

/// How the keys of kept files begin ([`Source::key`]).
pub(super) const KEPT: &str = "kept:";
/// How those of opened files begin.
const OPENED: &str = "opened:";

/// What a person is doing with the shelf.
#[derive(Debug, Default)]
pub(super) struct ShelfView {
    /// The address that is being typed.
    address: String,
    /// What is wrong with the one that was typed, in words.
    problem: Option<String>,
    /// The file that is to be removed, once that is confirmed.
    removing: Option<String>,
}

impl ShelfView {
    /// Forgets a question that was not answered.
    pub fn settle(&mut self) {
        (self.problem, self.removing) = (None, None);
    }

    /// Draws the shelf. `chosen`: the key of the model that is shown. The model that was clicked.
    pub fn show(
        &mut self,
        ui: &mut Ui,
        shelf: &dyn Shelf,
        cx: &PickerContext<'_>,
        chosen: Option<&str>,
        out: &mut Vec<Action>,
    ) -> Option<Source> {
        let mut clicked = None;
        parts::section(ui, if shelf.room().is_some() { "Kept in this browser" } else { "On this page" });
        for file in shelf.files() {
            let key = format!("{KEPT}{}", file.name);
            let loaded = cx.models.get(Some(&key)).is_some();
            let source = Source::of(&key);
            match source.filter(|_| file.is_complete()) {
                Some(source) => {
                    let note = if loaded { "loaded" } else { "" };
                    if model_ui(ui, chosen == Some(key.as_str()), &source, note).clicked() {
                        clicked = Some(source);
                    }
                }
                None => {
                    ui.add(Label::new(parts::muted(ui, &file.name)).truncate());
                }
            }
            self.file_ui(ui, file, loaded, out);
        }
        for download in shelf.downloads() {
            download_ui(ui, download, out);
        }
        if shelf.files().is_empty() && shelf.downloads().is_empty() {
            ui.label(parts::muted(ui, "Nothing yet."));
        }
        self.address_ui(ui, out);
        room_ui(ui, shelf.room());
        clicked
    }

    /// What there is of a file, and what can be done with it.
    fn file_ui(&mut self, ui: &mut Ui, file: &KeptFile, loaded: bool, out: &mut Vec<Action>) {
        let name = file.name.as_str();
        if self.removing.as_deref() == Some(name) {
            ui.horizontal_wrapped(|ui| {
                ui.label(RichText::new(format!("Remove {}?", parts::bytes(file.bytes))).color(Theme::of(ui.ctx()).warn));
                if small_button(ui, "Remove it", &format!("Yes, remove {name}")).clicked() {
                    self.removing = None;
                    out.push(Action::RemoveKept(name.to_owned()));
                }
                let keep = small_button(ui, "Keep it", &format!("No, keep {name}"));
                if keep.clicked() {
                    self.removing = None;
                }
            });
            return;
        }
        ui.horizontal_wrapped(|ui| {
            ui.label(parts::small(ui, amount(file)));
            if !file.is_complete() && !file.url.is_empty() {
                let go_on = small_button(ui, "Go on", &format!("Go on with the download of {name}"));
                if go_on.on_hover_text(file.url.as_str()).clicked() {
                    out.push(Action::Download(file.url.clone()));
                }
            }
            let remove = ui.add_enabled(!loaded, Button::new("Remove").small());
            parts::named(&remove, Role::Button, &format!("Remove {name}"));
            if remove.on_disabled_hover_text("It is loaded: unload it first").clicked() {
                self.removing = Some(name.to_owned());
            }
        });
    }

    /// A line for an address.
    fn address_ui(&mut self, ui: &mut Ui, out: &mut Vec<Action>) {
        ui.add_space(theme::GAP);
        let label = ui.label("Download a model from an address");
        let edit = TextEdit::singleline(&mut self.address).hint_text("https://\u{2026}/model.gguf").desired_width(f32::INFINITY);
        let edit = ui.add(edit).labelled_by(label.id);
        if edit.changed() {
            self.problem = None;
        }
        let entered = edit.lost_focus() && ui.input(|i| i.key_pressed(Key::Enter));
        let ready = !self.address.trim().is_empty();
        let pressed = ui.add_enabled(ready, Button::new("Download")).clicked();
        if ready && (entered || pressed) {
            match address::read(&self.address) {
                Ok(url) => {
                    self.address.clear();
                    out.push(Action::Download(url));
                }
                Err(why) => self.problem = Some(why),
            }
        }
        if let Some(why) = &self.problem {
            let said = ui.label(RichText::new(why).color(Theme::of(ui.ctx()).bad).text_style(Theme::small()));
            ui.ctx().accesskit_node_builder(said.id, |node| node.set_live(accesskit::Live::Polite));
            ui.ctx().accesskit_node_builder(edit.id, |node| node.set_invalid(accesskit::Invalid::True));
        }
        let hint =
            "The link of a .gguf file in one part, such as those listed under \u{201c}Files\u{201d} of a model on Hugging Face.";
        ui.label(parts::small(ui, hint));
    }
}

/// A small button, and what screen readers call it.
fn small_button(ui: &mut Ui, text: &str, name: &str) -> Response {
    let response = ui.small_button(text);
    parts::named(&response, Role::Button, name);
    response
}

/// How much of a file is here.
fn amount(file: &KeptFile) -> String {
    match file.total {
        _ if file.is_complete() => parts::bytes(file.bytes),
        Some(total) => format!("{} of {} are here", parts::bytes(file.bytes), parts::bytes(total)),
        None => format!("{} are here, not all of it", parts::bytes(file.bytes)),
    }
}

/// Something on its way.
fn download_ui(ui: &mut Ui, download: &Download, out: &mut Vec<Action>) {
    let name = download.name.as_str();
    ui.add(Label::new(name).truncate());
    match download.total.filter(|&total| total > 0) {
        Some(total) => {
            let share = (download.done as f64 / total as f64).clamp(0.0, 1.0);
            let size = egui::vec2(ui.available_width(), 8.0);
            let bar = parts::meter(ui, share as f32, size, Theme::of(ui.ctx()).accent);
            parts::named(&bar, Role::ProgressIndicator, &format!("Downloading {name}, {:.0} %", share * 100.0));
        }
        None => {
            ui.spinner();
        }
    }
    ui.label(parts::small(ui, progress(download.done, download.total, download.speed)));
    if download.in_memory {
        ui.label(parts::small(ui, "Held in memory: it is gone when the page is closed."));
    }
    if small_button(ui, "Stop", &format!("Stop the download of {name}")).clicked() {
        out.push(Action::StopDownload(name.to_owned()));
    }
}

/// Bytes, bytes a second and the time that is left: "1.0 GiB of 4.0 GiB, 512.0 MiB/s, 6.0 s left". No speed: not known yet.
pub(super) fn progress(done: u64, total: Option<u64>, speed: f64) -> String {
    let mut text = match total {
        Some(total) => format!("{} of {}", parts::bytes(done), parts::bytes(total)),
        None => parts::bytes(done),
    };
    if speed >= 1.0 {
        text += &format!(", {}/s", parts::bytes(speed as u64));
        if let Some(total) = total {
            text += &format!(", {} left", parts::seconds(total.saturating_sub(done) as f64 / speed));
        }
    }
    text
}

fn room_ui(ui: &mut Ui, room: Option<Room>) {
    let text = match room {
        Some(Room { used, quota, lasting }) => {
            let used = format!("{} of {} used", parts::bytes(used), parts::bytes(quota));
            if lasting { used } else { format!("{used}; the browser may clear them when it is short of room") }
        }
        None => "This browser keeps no files for pages like this: downloads last until the page is closed.".to_owned(),
    };
    ui.label(parts::small(ui, text));
}

/// For a file that was opened, an offer to keep a copy.
pub(super) fn keep_ui(ui: &mut Ui, shelf: &dyn Shelf, source: &Source, out: &mut Vec<Action>) {
    if shelf.room().is_none() || !source.key().starts_with(OPENED) {
        return;
    }
    let name = source.name();
    if shelf.downloads().iter().any(|d| d.name == name) {
        ui.label(parts::small(ui, "A copy is being made."));
    } else if shelf.files().iter().any(|f| f.name == name && f.is_complete()) {
        ui.label(parts::small(ui, "A file of this name is kept in this browser."));
    } else if ui.button("Keep a copy in this browser").on_hover_text("It is there at the next visit, too").clicked() {
        out.push(Action::Keep(source.clone()));
    }
}
