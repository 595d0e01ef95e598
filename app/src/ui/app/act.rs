//! What actions do.

use egui::{Context, OpenUrl};

use super::App;
use crate::{
    chats::{ChatId, Library, transfer},
    loading::shelf::Shelf,
    settings::Settings,
    ui::{
        Action, Page, Theme,
        action::{ExportFormat, TraceExport},
        files::Want,
        fonts,
        journal::Level,
        toasts::Tone,
    },
};

impl App {
    /// Carries out what a panel asked for.
    pub(super) fn act(&mut self, ctx: &Context, action: Action) {
        if !matches!(action, Action::SetSetup(_)) {
            self.settle_setup();
        }
        match action {
            Action::Run(command) => self.run(ctx, command),
            Action::Go(page) => self.go(page),

            Action::OpenChat(id) => self.open(id),
            Action::OpenMessage(id, message) => {
                self.library.show_path_to(&id, message);
                self.open(id);
                self.chat_view.scroll_to = Some(message);
            }
            Action::Rename(id, title) => self.library.rename(&id, &title),
            Action::Pin(id, pinned) => self.library.pin(&id, pinned),
            Action::Delete(id) => self.delete(id),
            Action::Undelete(id) => self.undelete(&id),
            Action::Export(id, format) => self.export(&id, format),
            Action::Import => self.files.ask(Want::Chats),

            Action::Send(text) => self.with_chat(|app, chat| app.talker.send(&mut app.library, &app.models, chat, &text)),
            Action::Stop => self.with_chat(|app, chat| app.talker.stop(chat)),
            Action::Regenerate(message) => {
                self.with_chat(|app, chat| app.talker.regenerate(&mut app.library, &app.models, chat, message));
            }
            Action::Edit(message, text) => {
                self.with_chat(|app, chat| app.talker.edit(&mut app.library, &app.models, chat, message, &text));
            }
            Action::Continue(message) => {
                self.with_chat(|app, chat| app.talker.go_on(&mut app.library, &app.models, chat, message));
            }
            Action::Rate(message, rating) => self.with_chat(|app, chat| app.library.rate(chat, message, rating)),
            Action::Show(message) => self.with_chat(|app, chat| app.library.show(chat, message)),
            Action::SetSetup(setup) => {
                self.with_chat(|app, chat| app.setup_unsaved = Some((chat.clone(), setup, web_time::Instant::now())));
            }

            Action::OpenPicker => self.open_picker(),
            Action::ChooseModel { folder } => self.files.ask(Want::Model { folder }),
            Action::Examine(source) => self.examine(source),
            Action::Load { source, keep } => {
                self.picker_problem = None;
                self.asked = Some(source.key());
                let load = self.load_settings().clone();
                self.models.load(source, &load, keep);
            }
            Action::CancelLoading => self.models.cancel(),
            Action::Unload(key) => {
                self.models.unload(&key);
                self.follow_first();
            }
            Action::Download(url) => self.with_shelf(|shelf| shelf.download(&url)),
            Action::StopDownload(name) => self.with_shelf(|shelf| shelf.stop(&name)),
            Action::RemoveKept(name) => {
                self.with_shelf(|shelf| shelf.remove(&name));
                self.forget_kept(&name);
            }
            Action::Keep(source) => self.with_shelf(|shelf| shelf.keep(&source)),
            Action::SetSettings(settings) => self.set_settings(ctx, *settings),
            Action::LookForDevices => self.devices = crate::loading::devices::Devices::look(&self.wake),

            Action::Survey(texts) => {
                for (name, text) in texts {
                    self.talker.survey(&self.models, &name, &text);
                }
            }
            Action::StopSurveys => self.talker.stop_surveys(),
            Action::ExportTrace(format) => self.export_trace(format),
            Action::ImportTrace => self.files.ask(Want::Trace),

            Action::Copy(text) => {
                ctx.copy_text(text);
                self.toasts.add(Tone::Info, "Copied", None);
            }
            Action::Visit(url) => ctx.open_url(OpenUrl::new_tab(url)),
            Action::Complain(text) => self.complain(text),
            Action::Tell(text) => self.tell(text),
        }
    }

    /// Does something with the conversation that is open.
    fn with_chat(&mut self, f: impl FnOnce(&mut Self, &ChatId)) {
        if let Some(chat) = self.chat.clone() {
            f(self, &chat);
        }
    }

    /// Does something with what is kept for a page, where something is.
    fn with_shelf(&mut self, f: impl FnOnce(&mut dyn Shelf)) {
        if let Some(shelf) = self.shelf.as_deref_mut() {
            f(shelf);
        }
    }

    /// Forgets a model that is kept no longer.
    fn forget_kept(&mut self, name: &str) {
        let key = format!("kept:{name}");
        if self.examined.as_ref().is_some_and(|e| e.source.key() == key) {
            self.examined = None;
        }
        if self.settings.recent.iter().chain(&self.settings.model).any(|k| *k == key) {
            self.settings.recent.retain(|k| *k != key);
            self.settings.model.take_if(|k| *k == key);
            self.settings_changed();
        }
    }

    /// Whether this is a page in a browser.
    pub(super) fn in_page(&self) -> bool {
        cfg!(target_arch = "wasm32") || self.shelf.is_some()
    }

    /// Forgets files of earlier visits. `tell`: a person is told where the last model was one of them.
    pub(super) fn forget_opened(&mut self, tell: bool) {
        let before = self.settings.recent.len();
        let last = self.settings.forget_opened();
        if last.is_some() || self.settings.recent.len() != before {
            self.settings_changed();
        }
        if let Some(name) = last.filter(|_| tell) {
            self.tell(format!("{name} was opened in an earlier visit; open it again to go on with it"));
        }
    }

    /// Adds a font for characters that no other has. One of that name that is there already stays.
    pub fn add_font(&mut self, ctx: &Context, name: &str, bytes: Vec<u8>) {
        if !fonts::add(ctx, name, bytes) {
            self.note(Level::Warning, format!("{name} is no font that can be used"));
        }
    }

    /// Notes how many bytes of memory parts of the program take, by name, for the page of performance.
    pub fn set_memory(&mut self, memory: Vec<(String, u64)>) {
        self.memory = memory;
    }

    /// Another page.
    pub(super) fn go(&mut self, page: Page) {
        self.page = page;
        self.list_over_page = false;
        if page == Page::Chat {
            self.chat_view.focus_input = true;
        }
    }

    /// Opens a conversation.
    pub(super) fn open(&mut self, id: ChatId) {
        if self.library.chat(&id).is_none() {
            self.complain("This conversation cannot be opened");
            return;
        }
        if self.chat.as_ref() != Some(&id) {
            self.chat = Some(id.clone());
            self.settings.chat = Some(id.0);
            self.settings_changed();
            self.chat_view.jump_to_end = true;
        }
        self.go(Page::Chat);
    }

    /// A new conversation; the open one, where nothing was said in it yet.
    pub(super) fn new_chat(&mut self) {
        let empty = self.chat.as_ref().and_then(|c| self.library.peek(c)).is_some_and(|c| c.tree.is_empty());
        if !empty {
            self.begin_chat();
        }
        self.go(Page::Chat);
    }

    fn begin_chat(&mut self) {
        let id = self.library.create(self.new_setup());
        self.settings.chat = Some(id.0.clone());
        self.settings_changed();
        self.chat = Some(id);
    }

    fn delete(&mut self, id: ChatId) {
        self.talker.stop(&id);
        let title = title(&self.library, &id);
        self.library.delete(&id);
        if self.chat.as_ref() == Some(&id) {
            self.begin_chat();
        }
        self.toasts.add(
            Tone::Info,
            format!("Deleted \u{201c}{title}\u{201d}"),
            Some(("Undo".into(), Action::Undelete(id.clone()))),
        );
        self.deleted.push(id);
    }

    pub(super) fn undelete(&mut self, id: &ChatId) {
        self.deleted.retain(|d| d != id);
        if self.library.undo_delete(id) {
            self.open(id.clone());
        } else {
            self.complain("The conversation is no longer in the bin");
        }
    }

    pub(super) fn export(&mut self, id: &ChatId, format: ExportFormat) {
        let title = title(&self.library, id);
        let Some(chat) = self.library.chat(id) else { return };
        let (text, extension) = match format {
            ExportFormat::Markdown => (transfer::to_markdown(chat), "md"),
            ExportFormat::Json => (transfer::to_json(chat), "json"),
        };
        let name = format!("{}.{extension}", file_name(&title));
        self.files.ask(Want::Save { name, bytes: text.into_bytes() });
    }

    fn export_trace(&mut self, format: TraceExport) {
        let Some(activity) = &self.activity else { return };
        let (bytes, extension) = match format {
            TraceExport::Csv => (Ok(self.experts.trace(activity, false).into_bytes()), "csv"),
            TraceExport::JsonLines => (Ok(self.experts.trace(activity, true).into_bytes()), "jsonl"),
            TraceExport::Png => (self.experts.picture(activity, &self.settings), "png"),
        };
        match bytes {
            Ok(bytes) => {
                let name = format!("{}-experts.{extension}", file_name(&activity.shape().model));
                self.files.ask(Want::Save { name, bytes });
            }
            Err(why) => self.complain(why),
        }
    }

    /// Opens the picker at the model that is loaded.
    pub(super) fn open_picker(&mut self) {
        self.picker.open = true;
        if self.examined.is_none() {
            let source = self.models.get(None).map_or(crate::loading::Source::Tiny, |m| m.source.clone());
            self.examine(source);
        }
    }

    pub(super) fn set_settings(&mut self, ctx: &Context, settings: Settings) {
        if self.settings == settings {
            return;
        }
        if self.settings.load != settings.load {
            self.visit = None;
        }
        self.settings = settings;
        Theme::apply(ctx, &self.settings);
        self.settings_changed();
    }
}

/// What a conversation is called.
fn title(library: &Library, id: &ChatId) -> String {
    library.summaries().iter().find(|s| &s.id == id).map_or_else(|| "New conversation".into(), |s| s.title.clone())
}

/// A title as the name of a file that any system takes.
fn file_name(title: &str) -> String {
    let kept: String = title.chars().map(|c| if c.is_alphanumeric() || " -_.".contains(c) { c } else { '-' }).take(60).collect();
    let kept = kept.trim_matches([' ', '.', '-']);
    // What Windows takes for devices.
    let device = ["con", "prn", "aux", "nul"].iter().any(|d| kept.eq_ignore_ascii_case(d));
    match kept {
        "" => "conversation".into(),
        name if device => format!("{name}-"),
        name => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_become_names_of_files() {
        assert_eq!(file_name("What is 1/2 + 3?"), "What is 1-2 + 3-".trim_end_matches('-').replace('+', "-"));
        assert_eq!(file_name("..."), "conversation");
        assert_eq!(file_name("\u{4f60}\u{597d}"), "\u{4f60}\u{597d}");
    }
}
