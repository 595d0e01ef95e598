//! What commands do, and when they can be given.

use egui::{Context, ViewportCommand};

use super::App;
use crate::{
    chats::{ChatId, Message, MessageId, Stop},
    loading::Source,
    settings::ThemeChoice,
    ui::{
        Action, Command, Page,
        action::ExportFormat,
        chat::{ChatView, message::answer_text},
        command,
        files::Want,
    },
};

/// Frames from a command until what it opens has the focus: one in which it is drawn, and one in which it has it.
const UNTIL_FOCUS: u8 = 2;
/// Frames from the end of a dialog until what lies below it can have the focus. The palette gives it back one frame earlier.
const AFTER_DIALOG: u8 = 4;
/// A step of text size.
const TEXT_STEP: f32 = 0.1;

impl App {
    /// The command whose shortcut was pressed.
    pub(super) fn command_pressed(&mut self, ctx: &Context) -> Option<Action> {
        if self.covered() {
            return None;
        }
        // Escape closes what is open in the page before it stops an answer.
        let typing = ctx.memory(|m| m.focused()).is_some_and(|id| id != ChatView::input_id());
        let escape_taken = self.chat_view.takes_escape() || typing || ctx.any_popup_open();
        // These keys move the caret where something is written.
        let writing = typing || (!self.chat_view.draft.is_empty() && ctx.memory(|m| m.has_focus(ChatView::input_id())));
        let caret = |c| matches!(c, Command::JumpToEnd | Command::EditLast | Command::PreviousChat | Command::NextChat);
        let enabled = |c| self.can(c) && !(c == Command::Stop && escape_taken) && !(writing && caret(c));
        let mut behind = Vec::new();
        let pressed = Command::pressed(ctx, &enabled, &mut behind);
        // What is typed in the next frame is for what the command opens, too.
        if pressed.is_some() {
            self.typed = Some((behind, UNTIL_FOCUS));
            ctx.request_repaint();
        }
        pressed.map(Action::Run)
    }

    /// Holds back what is typed right behind a command until what the command opens has the focus.
    pub(super) fn hold_typed(&mut self, ctx: &Context) {
        let Some((mut typed, frames)) = self.typed.take() else { return };
        ctx.input_mut(|i| {
            if frames <= 1 {
                i.events.splice(0..0, typed.drain(..));
                return;
            }
            typed.extend(i.events.iter().filter(|e| command::is_typing(e)).cloned());
            i.events.retain(|e| !command::is_typing(e));
        });
        if frames > 1 {
            self.typed = Some((typed, frames - 1));
            ctx.request_repaint();
        }
    }

    /// Gives the focus to the box to write in some frames after it got lost: egui lets go of a dialog's layer later than the
    /// dialog is gone. What has taken the focus meanwhile keeps it.
    pub(super) fn return_focus(&mut self, ctx: &Context) {
        let covered = self.covered();
        if std::mem::replace(&mut self.was_covered, covered) && !covered {
            self.refocus = AFTER_DIALOG;
        }
        if self.refocus == 0 || covered {
            return;
        }
        self.refocus -= 1;
        if self.refocus > 0 {
            ctx.request_repaint();
        } else if self.page == Page::Chat && ctx.memory(|m| m.focused()).is_none() && !ctx.any_popup_open() {
            self.chat_view.focus_input = true;
            ctx.request_repaint();
        }
    }

    /// Whether something lies over the page that keys are meant for.
    pub(super) fn covered(&self) -> bool {
        self.picker.open || self.palette.open || self.palette.shortcuts || self.path_line.is_open()
    }

    /// Whether a command can be given now.
    pub(super) fn can(&self, command: Command) -> bool {
        let chat = self.chat.as_ref().and_then(|c| self.library.peek(c));
        let said = chat.is_some_and(|c| !c.tree.is_empty());
        let live = self.chat.as_ref().is_some_and(|c| self.talker.live(c).is_some());
        let here = self.page == Page::Chat;
        match command {
            Command::Stop => live,
            Command::RenameChat | Command::PinChat | Command::DeleteChat | Command::ExportMarkdown | Command::ExportJson => said,
            Command::UndoDelete => !self.deleted.is_empty(),
            Command::Regenerate => here && !live && self.last_answer().is_some() && !self.models.loaded().is_empty(),
            Command::CopyLast => self.last_answer().is_some(),
            Command::EditLast => here && self.last_question().is_some(),
            Command::Continue => {
                let ended_early = |m: &Message| m.answer.as_ref().is_some_and(|a| a.stop != Stop::End);
                here && !live && !self.models.loaded().is_empty() && self.last_answer().is_some_and(ended_early)
            }
            Command::JumpToEnd => here && said,
            Command::NextMode | Command::ClearExperts | Command::ToggleRecording => self.activity.is_some(),
            Command::Quit | Command::OpenFolder => !self.in_page(),
            _ => true,
        }
    }

    /// Does what a command says.
    pub(super) fn run(&mut self, ctx: &Context, command: Command) {
        if !self.can(command) {
            return;
        }
        let chat = self.chat.clone();
        match command {
            Command::NewChat => self.new_chat(),
            Command::PreviousChat => self.step_chat(-1),
            Command::NextChat => self.step_chat(1),
            Command::RenameChat => {
                self.show_list(ctx);
                self.sidebar.rename = chat;
            }
            Command::PinChat => {
                if let Some(id) = chat {
                    let pinned = self.library.peek(&id).is_some_and(|c| c.pinned);
                    self.library.pin(&id, !pinned);
                }
            }
            Command::DeleteChat => {
                if let Some(id) = chat {
                    self.act(ctx, Action::Delete(id));
                }
            }
            Command::UndoDelete => {
                if let Some(id) = self.deleted.last().cloned() {
                    self.undelete(&id);
                }
            }
            Command::ExportMarkdown | Command::ExportJson => {
                let format = if command == Command::ExportJson { ExportFormat::Json } else { ExportFormat::Markdown };
                if let Some(id) = chat {
                    self.export(&id, format);
                }
            }
            Command::ImportChats => self.files.ask(Want::Chats),
            Command::Search => {
                self.show_list(ctx);
                self.sidebar.focus_search = true;
            }
            Command::ToggleSetup => {
                self.setup_open = !self.setup_open || self.page != Page::Chat;
                self.go(Page::Chat);
            }
            Command::FocusInput => self.go(Page::Chat),
            Command::Stop => {
                self.act(ctx, Action::Stop);
                // Escape takes the focus from the box to write in, which wants it back.
                self.refocus = 1;
            }
            Command::Regenerate => {
                if let Some(id) = self.last_answer().map(|m| m.id) {
                    self.act(ctx, Action::Regenerate(id));
                }
            }
            Command::EditLast => self.chat_view.edit = self.last_question(),
            Command::Continue => {
                if let Some(id) = self.last_answer().map(|m| m.id) {
                    self.act(ctx, Action::Continue(id));
                }
            }
            Command::CopyLast => {
                if let Some(text) = self.last_answer().map(answer_text) {
                    self.act(ctx, Action::Copy(text));
                }
            }
            Command::JumpToEnd => self.chat_view.jump_to_end = true,
            Command::OpenPicker => self.open_picker(),
            Command::LoadTiny => self.load_embedded(),
            Command::OpenFile => self.files.ask(Want::Model { folder: false }),
            Command::OpenFolder => self.files.ask(Want::Model { folder: true }),
            Command::ShowChat => self.go(Page::Chat),
            Command::ShowExperts => self.go(Page::Experts),
            Command::ShowPerformance => self.go(Page::Performance),
            Command::ShowSettings => self.go(Page::Settings),
            Command::ShowLog => self.go(Page::Log),
            Command::ToggleSidebar => {
                if super::layout::narrow(ctx) {
                    self.list_over_page = !self.list_over_page;
                } else {
                    self.settings.sidebar = !self.settings.sidebar;
                    self.settings_changed();
                }
            }
            Command::ToggleExperts => {
                if super::layout::roomy(ctx, self.settings.sidebar) {
                    self.settings.experts = !self.settings.experts || self.page != Page::Chat || self.setup_open;
                    self.setup_open = false;
                    self.page = Page::Chat;
                    self.settings_changed();
                } else {
                    self.go(if self.page == Page::Experts { Page::Chat } else { Page::Experts });
                }
            }
            Command::NextMode => self.experts.next_mode(),
            Command::ClearExperts => self.clear_experts(),
            Command::ToggleRecording => self.toggle_recording(),
            Command::ToggleTheme => {
                let mut settings = self.settings.clone();
                settings.theme = if ctx.theme() == egui::Theme::Dark { ThemeChoice::Light } else { ThemeChoice::Dark };
                self.set_settings(ctx, settings);
            }
            Command::LargerText => self.resize_text(ctx, TEXT_STEP),
            Command::SmallerText => self.resize_text(ctx, -TEXT_STEP),
            Command::UsualText => self.resize_text(ctx, 1.0 - self.settings.font_scale),
            Command::OpenPalette => self.palette.open = true,
            Command::ShowShortcuts => self.palette.shortcuts = true,
            Command::Quit => ctx.send_viewport_cmd(ViewportCommand::Close),
        }
    }

    fn show_list(&mut self, ctx: &Context) {
        if super::layout::narrow(ctx) {
            self.list_over_page = true;
        } else {
            self.settings.sidebar = true;
        }
    }

    fn clear_experts(&mut self) {
        if let Some(activity) = &mut self.activity {
            activity.clear();
        }
    }

    fn toggle_recording(&mut self) {
        if let Some(activity) = &mut self.activity {
            self.experts.toggle_recording(activity);
        }
    }

    fn resize_text(&mut self, ctx: &Context, by: f32) {
        let mut settings = self.settings.clone();
        settings.font_scale = (settings.font_scale + by).clamp(0.7, 2.0);
        self.set_settings(ctx, settings);
    }

    /// Opens the conversation so many lines further down the list.
    fn step_chat(&mut self, by: isize) {
        let ids: Vec<ChatId> = self.library.summaries().iter().filter(|s| s.damaged.is_none()).map(|s| s.id.clone()).collect();
        let at = self.chat.as_ref().and_then(|c| ids.iter().position(|id| id == c));
        let next = match at {
            Some(at) => at.checked_add_signed(by),
            None => Some(0),
        };
        if let Some(id) = next.and_then(|n| ids.get(n)) {
            self.open(id.clone());
        }
    }

    /// The last answer that is shown.
    fn last_answer(&self) -> Option<&Message> {
        let chat = self.library.peek(self.chat.as_ref()?)?;
        chat.tree.get(chat.tree.leaf()?).filter(|m| m.answer.is_some())
    }

    /// The last question that is shown.
    fn last_question(&self) -> Option<MessageId> {
        let chat = self.library.peek(self.chat.as_ref()?)?;
        let path = chat.tree.path();
        path.iter().rev().copied().find(|&id| chat.tree.get(id).is_some_and(|m| m.role == pleiad_models::Role::User))
    }

    /// Takes files that were dropped on the window.
    pub(super) fn take_dropped(&mut self, ctx: &Context, out: &mut Vec<Action>) {
        let dropped = ctx.input(|i| i.raw.dropped_files.clone());
        for file in dropped {
            let path = file.path();
            let is = |extension: &str| path.extension().is_some_and(|e| e.eq_ignore_ascii_case(extension));
            let want = match (is("csv"), is("json") || is("jsonl")) {
                (true, _) => Some(Want::Trace),
                (_, true) => Some(Want::Chats),
                _ => None,
            };
            // A path is a source where there are paths; a browser tells nothing but the name.
            let model = is("gguf") || Source::of(&path.display().to_string()).is_some();
            match want.or(model.then_some(Want::Model { folder: false })) {
                Some(want) => self.files.dropped(want, file),
                None => out.push(Action::Complain(format!("{}: nothing can be done with this", path.display()))),
            }
        }
    }
}
