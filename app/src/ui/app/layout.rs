//! Where panels are.

use egui::{self, Align, CentralPanel, Context, Frame, Layout, Panel, RichText, Ui};

use super::{App, HITS};
use crate::{
    clock::now_ms,
    loading::LoadedModel,
    settings::WindowPlace,
    ui::{
        Action, Command, Page, Theme, chat::ChatContext, experts::ExpertsContext, icons::Icon, parts::muted,
        performance::PerformanceContext, picker::PickerContext, preferences::preferences_ui, setup::SetupContext,
        sidebar::SidebarContext, theme,
    },
};

/// Width of the list of conversations.
const LIST: f32 = 250.0;
/// Least width of a conversation with something beside it.
const LEAST_CHAT: f32 = 320.0;

/// Whether one thing is shown at a time.
pub(super) fn narrow(ctx: &Context) -> bool {
    ctx.content_rect().width() < theme::NARROW
}

/// Whether experts have room beside the conversation.
pub(super) fn roomy(ctx: &Context, list: bool) -> bool {
    let width = ctx.content_rect().width();
    !narrow(ctx) && width - if list { LIST } else { 0.0 } >= 2.0 * LEAST_CHAT
}

impl App {
    /// Draws all panels.
    pub(super) fn layout_ui(&mut self, ui: &mut Ui, out: &mut Vec<Action>) {
        let t = Theme::of(ui.ctx());
        let narrow = narrow(ui.ctx());
        let list = if narrow { self.list_over_page } else { self.settings.sidebar };
        let panel = Frame::new().fill(t.panel).inner_margin(theme::GAP);
        if list && narrow {
            self.problems_ui(ui, out);
            CentralPanel::default().frame(panel).show(ui, |ui| {
                ui.with_layout(Layout::right_to_left(Align::Min), |ui| {
                    if Icon::Close.button(ui, "Close the list", "Back to the page").clicked() {
                        self.list_over_page = false;
                    }
                });
                self.sidebar_ui(ui, out);
            });
            return;
        }
        if list {
            let list = Panel::left("list").frame(panel).resizable(true).default_size(LIST).size_range(180.0..=420.0);
            list.show(ui, |ui| self.sidebar_ui(ui, out));
        }
        let bar = Frame::new().fill(t.page).inner_margin(egui::Margin::symmetric(theme::GAP as i8, 5));
        Panel::top("bar").frame(bar).show(ui, |ui| self.bar_ui(ui, out));
        self.problems_ui(ui, out);
        self.page_rect = ui.available_rect_before_wrap();
        match self.page {
            Page::Chat => self.chat_page_ui(ui, narrow, out),
            page => {
                let frame = Frame::new().fill(t.page).inner_margin(if narrow { theme::GAP } else { theme::PAD });
                CentralPanel::default().frame(frame).show(ui, |ui| match page {
                    Page::Experts => self.experts_ui(ui, true, out),
                    Page::Performance => {
                        let frames: Vec<f32> = self.frames.iter().copied().collect();
                        let cx = PerformanceContext {
                            models: &self.models,
                            devices: &self.devices,
                            answers: &self.answers,
                            frames: &frames,
                            settings: &self.settings,
                            page: self.in_page(),
                            memory: &self.memory,
                        };
                        self.performance.show(ui, &cx, out);
                    }
                    Page::Settings => {
                        let places = [
                            ("Conversations".to_owned(), self.library.place()),
                            ("Settings".to_owned(), self.settings_storage.place()),
                        ];
                        let places = (!self.in_page()).then_some(places.as_slice());
                        preferences_ui(ui, &self.settings, places, out);
                    }
                    Page::Log | Page::Chat => self.journal.show(ui, out),
                });
            }
        }
    }

    /// Draws what lies over the page.
    pub(super) fn overlays_ui(&mut self, ctx: &Context, out: &mut Vec<Action>) {
        let loading = self.models.loading();
        let mut picker = std::mem::take(&mut self.picker);
        let cx = PickerContext {
            models: &self.models,
            loading: loading.as_ref(),
            examined: self.examined.as_ref(),
            examining: self.examining,
            problem: self.picker_problem.as_deref(),
            devices: &self.devices,
            shelf: self.shelf.as_deref(),
            settings: &self.settings,
            load: self.load_settings(),
        };
        picker.show(ctx, &cx, out);
        self.picker = picker;
        let mut palette = std::mem::take(&mut self.palette);
        palette.show(ctx, &|c| self.can(c), out);
        self.palette = palette;
        if let Some((want, path)) = self.path_line.show(ctx) {
            self.files.typed(want, &path);
        }
        // Above the box to write in, and clear of what stands beside it.
        let mut area = self.page_rect;
        if self.page == Page::Chat {
            area.max.y -= self.chat_view.input_height();
        }
        self.toasts.show(ctx, area, out);
    }

    /// What went wrong, below the bar: it takes room from the page rather than lie over its buttons.
    fn problems_ui(&mut self, ui: &mut Ui, out: &mut Vec<Action>) {
        if self.toasts.has_problems() {
            let frame = Frame::new().fill(Theme::of(ui.ctx()).page).inner_margin(theme::GAP);
            Panel::top("problems").frame(frame).show(ui, |ui| self.toasts.problems_ui(ui, out));
        }
    }

    fn sidebar_ui(&mut self, ui: &mut Ui, out: &mut Vec<Action>) {
        let revision = self.library.revision();
        if self.sidebar.query != self.found.0 || revision != self.found.1 {
            let query = self.sidebar.query.clone();
            let hits = if query.trim().is_empty() { Vec::new() } else { self.library.search(&query, HITS) };
            self.found = (query, revision, hits);
        }
        let model = self.models.get(None);
        let busy = self.talker.chats();
        let cx = SidebarContext {
            summaries: self.library.summaries(),
            open: self.chat.as_ref(),
            busy: &busy,
            hits: &self.found.2,
            model: model.map(|m| m.name.as_str()),
            device: model.map(|m| m.engine.info().device.as_str()),
            page: self.page,
            now_ms: now_ms(),
        };
        self.sidebar.show(ui, &cx, out);
    }

    /// The line above the page: what is open, the model, and what can be shown beside it.
    fn bar_ui(&mut self, ui: &mut Ui, out: &mut Vec<Action>) {
        let tip = |ui: &Ui, c: Command| c.tooltip(ui.ctx());
        ui.horizontal(|ui| {
            if Icon::List.button(ui, Command::ToggleSidebar.name(), &tip(ui, Command::ToggleSidebar)).clicked() {
                out.push(Action::Run(Command::ToggleSidebar));
            }
            if self.page != Page::Chat && Icon::Back.button(ui, "Back to the conversation", &tip(ui, Command::ShowChat)).clicked()
            {
                out.push(Action::Go(Page::Chat));
            }
            ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                let chat = self.page == Page::Chat;
                if Icon::Search.button(ui, Command::OpenPalette.name(), &tip(ui, Command::OpenPalette)).clicked() {
                    out.push(Action::Run(Command::OpenPalette));
                }
                let roomy = roomy(ui.ctx(), self.settings.sidebar);
                let experts = if roomy { chat && self.settings.experts && !self.setup_open } else { self.page == Page::Experts };
                if Icon::Experts.toggle(ui, experts, Command::ToggleExperts.name(), &tip(ui, Command::ToggleExperts)).clicked() {
                    out.push(Action::Run(Command::ToggleExperts));
                }
                let on = chat && self.setup_open;
                if Icon::Setup.toggle(ui, on, Command::ToggleSetup.name(), &tip(ui, Command::ToggleSetup)).clicked() {
                    out.push(Action::Run(Command::ToggleSetup));
                }
                self.model_button_ui(ui, out);
                ui.with_layout(Layout::left_to_right(Align::Center), |ui| {
                    let title = match self.page {
                        Page::Chat => self.title(),
                        Page::Experts => "Experts".into(),
                        Page::Performance => "Devices and performance".into(),
                        Page::Settings => "Settings".into(),
                        Page::Log => "Log".into(),
                    };
                    ui.add(egui::Label::new(RichText::new(title).strong().color(Theme::of(ui.ctx()).strong)).truncate());
                });
            });
        });
    }

    /// What is open is called.
    fn title(&self) -> String {
        let of = |id| self.library.summaries().iter().find(|s| &s.id == id).map(|s| s.title.clone());
        self.chat.as_ref().and_then(of).unwrap_or_else(|| "New conversation".into())
    }

    fn model_button_ui(&mut self, ui: &mut Ui, out: &mut Vec<Action>) {
        let (text, name) = match (self.models.loading(), self.models.get(None)) {
            (Some(l), _) => {
                let doing = if l.doing.is_empty() || narrow(ui.ctx()) { "Loading" } else { &l.doing };
                let far = l.share().map_or_else(|| "...".to_owned(), |share| format!(" {:.0} %", 100.0 * share));
                (muted(ui, format!("{doing}{far}")), format!("Loading {}", l.source.name()))
            }
            (None, Some(m)) => (RichText::new(shortened(&m.name)), format!("Model {}", m.name)),
            (None, None) => (RichText::new("Choose a model..."), "Choose a model".into()),
        };
        let response = ui.button(text).on_hover_text(Command::OpenPicker.tooltip(ui.ctx()));
        crate::ui::parts::named(&response, egui::Role::Button, &name);
        if response.clicked() {
            out.push(Action::OpenPicker);
        }
    }

    fn chat_page_ui(&mut self, ui: &mut Ui, narrow: bool, out: &mut Vec<Action>) {
        let t = Theme::of(ui.ctx());
        let width = ui.available_width();
        let side = Frame::new().fill(t.panel).inner_margin(theme::PAD);
        if self.setup_open {
            if narrow {
                CentralPanel::default().frame(side).show(ui, |ui| self.setup_ui(ui, out));
                return;
            }
            Panel::right("setup").frame(side).resizable(true).default_size(310.0).size_range(240.0..=460.0).show(ui, |ui| {
                self.setup_ui(ui, out);
            });
        } else if self.settings.experts && roomy(ui.ctx(), self.settings.sidebar) {
            let most = (width - LEAST_CHAT).max(LEAST_CHAT);
            let panel = Panel::right("experts").frame(side).resizable(true);
            let shown = panel
                // Whole points: a fraction would be rounded anew, and the divider creep, each time the panel is shown again.
                .default_size((width * self.settings.experts_share).min(most).round())
                .size_range(LEAST_CHAT..=most)
                .show(ui, |ui| self.experts_ui(ui, false, out));
            let share = (shown.response.rect.width() / width).clamp(0.2, 0.8);
            if (share - self.settings.experts_share).abs() > 0.01 && ui.input(|i| i.pointer.any_released()) {
                self.settings.experts_share = share;
                self.settings_changed();
            }
        }
        let frame = Frame::new().fill(t.page);
        self.page_rect = ui.available_rect_before_wrap();
        CentralPanel::default().frame(frame).show(ui, |ui| self.chat_ui(ui, out));
    }

    fn chat_ui(&mut self, ui: &mut Ui, out: &mut Vec<Action>) {
        if let Some(id) = &self.chat {
            // Read when it is first shown.
            self.library.chat(id);
        }
        let model = self.models.get(None);
        let loading = self.models.loading().map(|l| l.share().map(|share| share as f32));
        let cx = ChatContext {
            chat: self.chat.as_ref().and_then(|id| self.library.peek(id)),
            live: self.chat.as_ref().and_then(|id| self.talker.live(id)),
            model: model.map(|m| m.name.as_str()),
            context: model.map_or(0, LoadedModel::context),
            loading,
            problem: self.problem.as_deref(),
            lit: self.lit.as_ref(),
            settings: &self.settings,
        };
        self.chat_view.show(ui, &cx, out);
        self.pointed = self.chat_view.pointed.clone();
    }

    fn setup_ui(&mut self, ui: &mut Ui, out: &mut Vec<Action>) {
        let Some(chat) = self.chat.as_ref().and_then(|id| self.library.chat(id)) else { return };
        let setup = match &self.setup_unsaved {
            Some((id, setup, _)) if *id == chat.id => setup.clone(),
            _ => chat.setup.clone(),
        };
        let models: Vec<(String, String)> = self.models.loaded().iter().map(|m| (m.key(), m.name.clone())).collect();
        let cx = SetupContext {
            setup: &setup,
            recommended: self.models.get(None).map(|m| &m.generation),
            models: &models,
            settings: &self.settings,
        };
        // Undoing in the prompt of one conversation must not bring back that of another.
        let place = self.chat.clone();
        ui.push_id(place, |ui| self.setup.show(ui, &cx, out));
    }

    fn experts_ui(&mut self, ui: &mut Ui, alone: bool, out: &mut Vec<Action>) {
        let now = self.now();
        let cx = ExpertsContext {
            activity: self.activity.as_mut(),
            pointed: self.pointed.as_ref(),
            running: self.talker.busy(),
            surveying: self.talker.surveying(),
            gpu: self.gpu,
            alone,
            settings: &self.settings,
            now,
        };
        self.experts.show(ui, cx, out);
        self.lit = self.experts.lit.clone();
    }

    /// Notes where the window is, for the next start.
    pub(super) fn remember_window(&mut self, ctx: &Context) {
        if self.in_page() {
            // The window is the browser's.
            return;
        }
        let place = ctx.input(|i| {
            let v = i.viewport();
            if v.minimized == Some(true) {
                return None;
            }
            // Wayland tells nobody where a window is.
            let size = v.inner_rect.map_or_else(|| i.content_rect().size(), |r| r.size());
            let position = v.outer_rect.map(|r| [r.min.x, r.min.y]);
            Some(WindowPlace { position, size: [size.x, size.y], maximised: v.maximized.unwrap_or(false) })
        });
        let Some(mut place) = place.filter(|p| p.size[0] >= 200.0 && p.size[1] >= 200.0) else { return };
        if let (true, Some(before)) = (place.maximised, self.settings.window) {
            // The size to go back to.
            (place.size, place.position) = (before.size, before.position);
        }
        if self.settings.window != Some(place) {
            self.settings.window = Some(place);
            self.settings_changed();
        }
    }
}

/// The name of a model, as much of it as a button should have.
fn shortened(name: &str) -> String {
    const MOST: usize = 28;
    if name.chars().count() <= MOST { name.to_owned() } else { name.chars().take(MOST - 1).chain(['\u{2026}']).collect() }
}
