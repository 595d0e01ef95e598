//! Files that a person chooses: the platform's dialogs, and a line to type a path into where there are none.

use egui::{self, Context, DroppedFileHandle, Key};

use super::{Theme, theme};

/// What a file is wanted for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    /// A model: a .gguf file, or a folder.
    Model {
        /// A folder rather than a file.
        folder: bool,
    },
    /// Conversations to read.
    Chats,
    /// A record of experts to replay.
    Trace,
    /// A place to write these bytes to.
    Save {
        /// The name that is proposed.
        name: String,
        /// What is written.
        bytes: Vec<u8>,
    },
}

impl Want {
    /// What a dialog for it is called.
    pub fn title(&self) -> &'static str {
        match self {
            Self::Model { folder: true } => "Open a model folder",
            Self::Model { folder: false } => "Open a model file",
            Self::Chats => "Import conversations",
            Self::Trace => "Open a record of experts",
            Self::Save { .. } => "Save",
        }
    }

    /// What a path for it looks like.
    pub fn example(&self) -> &'static str {
        match self {
            Self::Model { folder: true } => "/home/me/models/DeepSeek-V2-Lite",
            Self::Model { folder: false } => "/home/me/model.gguf",
            Self::Chats => "/home/me/conversation.json",
            Self::Trace => "/home/me/experts.csv",
            Self::Save { .. } => "/home/me/file",
        }
    }
}

/// What became of a wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Got {
    /// The key of a model source.
    Model(String),
    /// A file's name and content.
    Read(Want, String, Vec<u8>),
    /// It was written, there.
    Saved(String),
    /// It could not be done, in words.
    Failed(String),
    /// There is no dialog on this system: a path has to be typed.
    Type(Want),
}

/// The platform's files. Nothing here waits: [`Files::poll`] tells what a person has chosen.
pub trait Files {
    /// Asks a person for a file.
    fn ask(&mut self, want: Want);
    /// Takes the path that a person has typed.
    fn typed(&mut self, want: Want, path: &str);
    /// Takes a file that a person has dropped: by its path, unless the platform has no paths.
    fn dropped(&mut self, want: Want, file: DroppedFileHandle) {
        self.typed(want, &file.path().display().to_string());
    }
    /// What became of what was asked for.
    fn poll(&mut self) -> Vec<Got>;
}

/// Where there are no files: every wish fails in words.
#[derive(Debug, Default)]
pub struct NoFiles {
    got: Vec<Got>,
}

impl Files for NoFiles {
    fn ask(&mut self, want: Want) {
        self.got.push(Got::Failed(format!("{}: there are no files here", want.title())));
    }

    fn typed(&mut self, want: Want, _path: &str) {
        self.ask(want);
    }

    fn poll(&mut self) -> Vec<Got> {
        std::mem::take(&mut self.got)
    }
}

/// A line to type a path into.
#[derive(Debug, Default)]
pub struct PathLine {
    want: Option<Want>,
    path: String,
    fresh: bool,
}

impl PathLine {
    /// Opens it.
    pub fn open(&mut self, want: Want) {
        self.path = if let Want::Save { name, .. } = &want { name.clone() } else { String::new() };
        (self.want, self.fresh) = (Some(want), true);
    }

    /// Whether it is open.
    pub fn is_open(&self) -> bool {
        self.want.is_some()
    }

    /// Draws it, if it is open. Returns the path when a person has typed one.
    pub fn show(&mut self, ctx: &Context) -> Option<(Want, String)> {
        let (title, example) = self.want.as_ref().map(|w| (w.title(), w.example()))?;
        let mut done = false;
        let response = egui::Modal::new(egui::Id::unique("path line")).show(ctx, |ui| {
            ui.set_width((ui.ctx().content_rect().width() - 4.0 * theme::PAD).min(480.0));
            ui.heading(title);
            ui.label("This system offers no file dialog. Type a path.");
            let edit = egui::TextEdit::singleline(&mut self.path).desired_width(f32::INFINITY).hint_text(example);
            let edit = ui.add(edit);
            super::parts::named(&edit, egui::Role::TextInput, "Path");
            if std::mem::take(&mut self.fresh) {
                edit.request_focus();
            }
            done = edit.lost_focus() && ui.input(|i| i.key_pressed(Key::Enter));
            ui.add_space(theme::GAP);
            ui.horizontal(|ui| {
                let strong = Theme::of(ui.ctx());
                let ready = !self.path.trim().is_empty();
                let button = egui::Button::new(egui::RichText::new("OK").color(strong.on_accent)).fill(strong.accent);
                done |= ui.add_enabled(ready, button).clicked();
                if ui.button("Cancel").clicked() {
                    ui.close();
                }
            });
        });
        if done && !self.path.trim().is_empty() {
            return Some((self.want.take()?, self.path.trim().to_owned()));
        }
        if response.should_close() {
            self.want = None;
        }
        None
    }
}
