//! The state of the program, its frame, and what actions do.
//!
//! | module | what it holds |
//! |---|---|
//! | `layout` | where panels are |
//! | `act` | what actions do |
//! | `commands` | what commands do, and when they can be given |
//! | `news` | what engines, loaders and dialogs have said since the last frame |
//! | `start` | what the program is given |

mod act;
mod commands;
mod layout;
mod news;
mod start;

use std::{collections::VecDeque, sync::Arc};

use eframe::{
    Frame,
    egui::{Context, Event, Rect, Ui, Visuals},
};
use pleiad_runtime::engine::GenerationStats;
use web_time::{Duration, Instant};

pub use self::start::Start;
use super::{
    Action, Page, Theme,
    chat::{ChatView, Span},
    experts::ExpertsView,
    files::{Files, PathLine},
    fonts,
    journal::{Journal, Level},
    palette::PaletteView,
    performance::PerformanceView,
    picker::PickerView,
    setup::SetupView,
    sidebar::SidebarView,
    theme::clear_colour,
    toasts::{Toasts, Tone},
};
use crate::{
    activity::{Activity, Shape},
    chats::{ChatId, Hit, Library, MessageId, Setup, storage::Storage},
    loading::{Examined, Models, Source, Wake, devices::Devices, shelf::Shelf},
    settings::{LoadSettings, Settings},
    talk::Talker,
};

/// Answers whose statistics the performance page shows.
const ANSWERS: usize = 64;
/// Frames whose time the performance page shows.
const FRAMES: usize = 240;
/// How long settings rest before they are written.
const SETTLE: Duration = Duration::from_millis(600);
/// How often what could not be written is tried again.
const RETRY: Duration = Duration::from_secs(3);
/// Time between frames while something is being written.
const LIVE_FRAME: Duration = Duration::from_millis(16);
/// Conversations that a search finds at most.
const HITS: usize = 200;

/// What the program is at, for those who do not see it.
#[derive(Clone, Debug, PartialEq)]
pub enum Status {
    /// A model is being loaded: its name, and how much of it is there, 0 to 1.
    Loading(String, f32),
    /// It waits for a question: the model's name.
    Ready(String),
    /// An answer is being written.
    Answering,
    /// There is no model, for this reason.
    Failed(String),
}

/// The program.
pub struct App {
    settings: Settings,
    /// How models are loaded on this visit, where that differs from the settings.
    visit: Option<LoadSettings>,
    /// Time between frames while something is being written.
    pace: Duration,
    settings_storage: Box<dyn Storage>,
    /// When settings were last changed and not written yet.
    unsaved: Option<Instant>,
    library: Library,
    models: Models,
    devices: Devices,
    wake: Wake,
    talker: Talker,
    activity: Option<Activity>,
    /// The model whose activity that is.
    activity_of: Option<String>,
    resident: Arc<[bool]>,
    files: Box<dyn Files>,
    shelf: Option<Box<dyn Shelf>>,
    /// Answers that were finished since somebody asked.
    finished: Vec<(ChatId, MessageId)>,
    gpu: bool,

    page: Page,
    chat: Option<ChatId>,
    deleted: Vec<ChatId>,
    setup_open: bool,
    /// Changes to how answers are made that are not written yet: letters of a system prompt come one by one.
    setup_unsaved: Option<(ChatId, Setup, Instant)>,
    /// In a narrow window the list covers the page.
    list_over_page: bool,
    /// What the first model to be loaded could not be, in words.
    problem: Option<String>,
    examined: Option<Examined>,
    examining: bool,
    picker_problem: Option<String>,
    /// The search, the state of the library it was made in, and what it found.
    found: (String, u64, Vec<Hit>),
    answers: Vec<GenerationStats>,
    /// Prompt packs that were read.
    surveys: usize,
    frames: VecDeque<f32>,
    /// The words pointed at in the conversation, and those of the token pointed at among the experts, in the last frame.
    pointed: Option<Span>,
    lit: Option<Span>,
    /// When what could not be written was tried again last.
    retried: Instant,
    /// The model that was asked for in the picker: once it is there, the picker closes.
    asked: Option<String>,
    /// The model that is loaded because it was the last one: where it cannot be had, the embedded one takes its place.
    last_model: Option<Source>,
    /// Bytes of memory that parts of the program take, by name.
    memory: Vec<(String, u64)>,
    /// What was typed behind a command, and in how many frames it is given to what the command opens.
    typed: Option<(Vec<Event>, u8)>,
    /// Whether something lay over the page in the last frame.
    was_covered: bool,
    /// In how many frames the box to write in gets the focus back; 0: nobody lost it.
    refocus: u8,
    /// Where the page was in the last frame.
    page_rect: Rect,
    started: Instant,

    chat_view: ChatView,
    sidebar: SidebarView,
    setup: SetupView,
    experts: ExpertsView,
    picker: PickerView,
    performance: PerformanceView,
    palette: PaletteView,
    path_line: PathLine,
    toasts: Toasts,
    journal: Journal,
}

impl App {
    /// Begins: reads settings and conversations, and loads a model beside the window.
    pub fn new(ctx: &Context, start: Start) -> Self {
        let waker = ctx.clone();
        let wake: Wake = match start.pace {
            None => Arc::new(move || waker.request_repaint()),
            Some(pace) => Arc::new(move || waker.request_repaint_after(pace)),
        };
        let mut start = start;
        let (settings, complaint) = Settings::read(&mut *start.settings);
        // Text has a size of its own in the settings.
        ctx.options_mut(|o| o.zoom_with_keyboard = false);
        fonts::install(ctx);
        Theme::apply(ctx, &settings);
        let mut app = Self {
            library: Library::open(start.chats),
            models: Models::new(Arc::clone(&wake)),
            devices: Devices::look(&wake),
            wake,
            settings_storage: start.settings,
            visit: None,
            pace: start.pace.unwrap_or(LIVE_FRAME),
            unsaved: None,
            talker: Talker::default(),
            activity: None,
            activity_of: None,
            resident: Arc::default(),
            files: start.files,
            shelf: start.shelf,
            finished: Vec::new(),
            gpu: start.gpu,
            page: Page::Chat,
            chat: None,
            deleted: Vec::new(),
            setup_open: false,
            setup_unsaved: None,
            list_over_page: false,
            problem: None,
            examined: None,
            examining: false,
            picker_problem: None,
            found: (String::new(), 0, Vec::new()),
            answers: Vec::new(),
            surveys: 0,
            frames: VecDeque::new(),
            pointed: None,
            lit: None,
            retried: Instant::now(),
            asked: None,
            last_model: None,
            memory: Vec::new(),
            typed: None,
            was_covered: false,
            refocus: 0,
            page_rect: Rect::NOTHING,
            started: Instant::now(),
            chat_view: ChatView::default(),
            sidebar: SidebarView::default(),
            setup: SetupView::default(),
            experts: ExpertsView::default(),
            picker: PickerView::default(),
            performance: PerformanceView::default(),
            palette: PaletteView::default(),
            path_line: PathLine::default(),
            toasts: Toasts::default(),
            journal: Journal::default(),
            settings,
        };
        app.chat_view.focus_input = true;
        if let Some(complaint) = complaint {
            app.complain(complaint);
        }
        if app.library.place().is_empty() {
            app.complain(if app.in_page() {
                "This browser keeps nothing for this page: conversations last until it is closed"
            } else {
                "There is no folder to keep conversations in: they last until the window is closed"
            });
        }
        let last = app.settings.chat.clone().map(ChatId).filter(|id| start.setup.is_none() && app.library.chat(id).is_some());
        app.chat = Some(last.unwrap_or_else(|| app.library.create(start.setup.unwrap_or_else(|| app.new_setup()))));
        if app.in_page() {
            app.forget_opened(start.model.is_none());
        }
        let last_model = app.settings.model.as_deref().and_then(Source::of);
        if start.model.is_none() && app.in_page() {
            app.last_model = last_model.clone().filter(|s| *s != Source::Tiny);
        }
        let source = start.model.or(last_model).unwrap_or(Source::Tiny);
        app.note(Level::Info, format!("loading {}", source.name()));
        if let Some(change) = start.load {
            let mut load = app.settings.load.clone();
            change(&mut load);
            app.visit = Some(load);
        }
        let load = app.load_settings().clone();
        app.models.load(source, &load, false);
        app
    }

    /// How models are loaded.
    fn load_settings(&self) -> &LoadSettings {
        self.visit.as_ref().unwrap_or(&self.settings.load)
    }

    /// Loads the embedded model in place of the first.
    fn load_embedded(&mut self) {
        let load = self.load_settings().clone();
        self.models.load(Source::Tiny, &load, false);
    }

    /// Takes what engines, loaders and dialogs have said: before each frame, and while the window is hidden.
    pub fn tick(&mut self, ctx: &Context) {
        self.hear(ctx);
        if self.setup_unsaved.as_ref().is_some_and(|(_, _, at)| at.elapsed() >= SETTLE) {
            self.settle_setup();
        } else if self.setup_unsaved.is_some() {
            ctx.request_repaint_after(SETTLE);
        }
        if self.library.unsaved() {
            // A disk may have room again.
            if self.retried.elapsed() >= RETRY {
                self.library.retry();
                self.retried = Instant::now();
            }
            ctx.request_repaint_after(RETRY);
        }
        if self.talker.busy() {
            ctx.request_repaint_after(self.pace);
        }
        if self.unsaved.is_some_and(|at| at.elapsed() >= SETTLE) {
            self.save_settings();
        } else if self.unsaved.is_some() {
            ctx.request_repaint_after(SETTLE);
        }
    }

    /// Draws a frame, and carries out what it asks for.
    pub fn show(&mut self, ui: &mut Ui) {
        let begun = Instant::now();
        let ctx = ui.ctx().clone();
        self.hold_typed(&ctx);
        let mut out: Vec<Action> = self.command_pressed(&ctx).into_iter().collect();
        self.take_dropped(&ctx, &mut out);
        self.layout_ui(ui, &mut out);
        self.overlays_ui(&ctx, &mut out);
        for action in out {
            self.act(&ctx, action);
        }
        self.return_focus(&ctx);
        if cfg!(not(target_arch = "wasm32")) {
            self.remember_window(&ctx);
        }
        self.frames.push_back(begun.elapsed().as_secs_f32() * 1e3);
        if self.frames.len() > FRAMES {
            self.frames.pop_front();
        }
    }

    /// What the program is at.
    pub fn status(&self) -> Status {
        if self.talker.busy() {
            return Status::Answering;
        }
        match (self.models.loading(), self.models.get(None), &self.problem) {
            (Some(l), _, _) => Status::Loading(l.source.name(), if l.total > 0 { l.done as f32 / l.total as f32 } else { 0.0 }),
            (None, Some(model), _) => Status::Ready(model.name.clone()),
            (None, None, Some(problem)) => Status::Failed(problem.clone()),
            (None, None, None) => Status::Failed("no model is loaded".into()),
        }
    }

    /// The answers that were finished since this was last asked.
    pub fn take_finished(&mut self) -> Vec<(ChatId, MessageId)> {
        std::mem::take(&mut self.finished)
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// All conversations.
    pub fn library(&self) -> &Library {
        &self.library
    }

    /// The conversation that is open.
    pub fn open_chat(&self) -> Option<&ChatId> {
        self.chat.as_ref()
    }

    /// What is loaded.
    pub fn models(&self) -> &Models {
        &self.models
    }

    /// What the experts of the model that answers did.
    pub fn activity(&self) -> Option<&Activity> {
        self.activity.as_ref()
    }

    /// What the middle of the window shows.
    pub fn page(&self) -> Page {
        self.page
    }

    /// Why no model is loaded, in words.
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Whether the picker is open.
    pub fn picker_open(&self) -> bool {
        self.picker.open
    }

    /// Why the model asked for in the picker cannot be had, in words.
    pub fn picker_problem(&self) -> Option<&str> {
        self.picker_problem.as_deref()
    }

    /// The model that was looked at last.
    pub fn examined(&self) -> Option<&Examined> {
        self.examined.as_ref()
    }

    /// The words pointed at in the conversation.
    pub fn pointed(&self) -> Option<&Span> {
        self.pointed.as_ref()
    }

    /// Prompt packs that were read.
    pub fn surveys_done(&self) -> usize {
        self.surveys
    }

    /// Takes notes away (tests: before a picture is taken).
    pub fn quiet(&mut self) {
        self.toasts = Toasts::default();
    }

    /// Whether an answer is being written.
    pub fn busy(&self) -> bool {
        self.talker.busy()
    }

    /// Milliseconds of CPU that the last frames took, oldest first.
    pub fn frame_times(&self) -> impl Iterator<Item = f32> {
        self.frames.iter().copied()
    }

    /// Follows the experts of a model of that shape, which runs elsewhere (benchmarks).
    pub fn watch(&mut self, shape: Arc<Shape>) -> &mut Activity {
        self.activity_of = None;
        self.activity.insert(Activity::new(shape, Activity::TOKENS))
    }

    /// What the experts did, to add to it (benchmarks).
    pub fn activity_mut(&mut self) -> Option<&mut Activity> {
        self.activity.as_mut()
    }

    /// All conversations, to add to them (benchmarks).
    pub fn library_mut(&mut self) -> &mut Library {
        &mut self.library
    }

    /// Does what a panel could have asked for (tests and scripts).
    pub fn give(&mut self, ctx: &Context, action: Action) {
        self.act(ctx, action);
    }

    /// Seconds since the start: the clock of activity.
    fn now(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// How answers of a new conversation are made.
    fn new_setup(&self) -> Setup {
        Setup { system: self.settings.system.clone(), ..Setup::default() }
    }

    fn note(&mut self, level: Level, text: impl Into<String>) {
        self.journal.add(level, text);
    }

    /// Tells a person something.
    fn tell(&mut self, text: impl Into<String>) {
        let text = text.into();
        self.journal.add(Level::Info, text.clone());
        self.toasts.add(Tone::Info, text, None);
    }

    /// Tells a person what went wrong.
    fn complain(&mut self, text: impl Into<String>) {
        let text = text.into();
        self.journal.add(Level::Error, text.clone());
        self.toasts.add(Tone::Problem, text, None);
    }

    /// Writes how answers are made, if that has changed.
    fn settle_setup(&mut self) {
        if let Some((chat, setup, _)) = self.setup_unsaved.take() {
            self.library.set_setup(&chat, setup);
        }
    }

    fn settings_changed(&mut self) {
        self.unsaved = Some(Instant::now());
    }

    fn save_settings(&mut self) {
        self.unsaved = None;
        if let Err(e) = self.settings.write(&mut *self.settings_storage) {
            self.complain(format!("the settings could not be kept: {e}"));
        }
    }
}

impl eframe::App for App {
    fn logic(&mut self, ctx: &Context, _frame: &mut Frame) {
        self.tick(ctx);
    }

    fn ui(&mut self, ui: &mut Ui, _frame: &mut Frame) {
        self.show(ui);
    }

    fn on_exit(&mut self) {
        self.settle_setup();
        self.settings.chat = self.chat.as_ref().map(|c| c.0.clone());
        self.save_settings();
    }

    fn clear_color(&self, visuals: &Visuals) -> [f32; 4] {
        clear_colour(visuals)
    }
}
