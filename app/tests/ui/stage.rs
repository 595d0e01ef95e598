//! What the tests stand on: an app with storage of its own, and hands to use it.

use std::{
    cell::RefCell,
    path::Path,
    rc::Rc,
    time::{Duration, Instant},
};

use egui::{Key, Modifiers, Theme, Vec2};
use egui_kittest::{Harness, kittest::Queryable as _};
use pleiad_app::{
    chats::{
        Chat, Message, Sampling, Setup, Stop,
        storage::{Folder, Storage},
    },
    loading::{Source, shelf::Shelf},
    settings::{LoadSettings, Settings, ThemeChoice},
    ui::{
        App,
        app::Start,
        experts::paint,
        files::{Files, Got, Want},
    },
};
use pleiad_models::Role;

/// What a test may wait for at most.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Files as a test's person chooses them.
#[derive(Clone, Default)]
pub struct Hands(Rc<RefCell<(Vec<Want>, Vec<Got>)>>);

impl Hands {
    /// What the app has asked for since this was last asked.
    pub fn wanted(&self) -> Vec<Want> {
        std::mem::take(&mut self.0.borrow_mut().0)
    }

    /// The person has chosen.
    pub fn choose(&self, got: Got) {
        self.0.borrow_mut().1.push(got);
    }
}

impl Files for Hands {
    fn ask(&mut self, want: Want) {
        self.0.borrow_mut().0.push(want);
    }

    fn typed(&mut self, want: Want, _path: &str) {
        self.ask(want);
    }

    fn poll(&mut self) -> Vec<Got> {
        std::mem::take(&mut self.0.borrow_mut().1)
    }
}

/// How a test's app begins.
pub struct Stage {
    pub size: Vec2,
    pub theme: Theme,
    /// The model to begin with; `None`: the last one.
    pub model: Option<Source>,
    pub settings: Settings,
    pub setup: Option<Setup>,
    pub hands: Hands,
    /// What is kept for a page.
    pub shelf: Option<Box<dyn Shelf>>,
}

impl Default for Stage {
    fn default() -> Self {
        let settings = Settings {
            theme: ThemeChoice::Dark,
            load: LoadSettings { device: "cpu".into(), ..LoadSettings::default() },
            reduced_motion: true,
            ..Settings::default()
        };
        Self {
            size: Vec2::new(1100.0, 760.0),
            theme: Theme::Dark,
            model: Some(Source::Tiny),
            settings,
            setup: Some(greedy()),
            hands: Hands::default(),
            shelf: None,
        }
    }
}

/// Answers that are the same every time.
pub fn greedy() -> Setup {
    Setup {
        sampling: Sampling { temperature: Some(0.0), seed: Some(1), ..Sampling::default() },
        max_tokens: Some(120),
        ..Setup::default()
    }
}

/// A folder of a test's own, empty.
pub fn folder(name: &str) -> std::path::PathBuf {
    let path = std::env::temp_dir().join(format!("pleiad-ui-{}-{name}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    path
}

impl Stage {
    /// The app on the files in `data`; settings are those of the stage the first time, and those kept there later.
    pub fn open(self, data: &Path) -> Harness<'static, App> {
        self.open_on(Box::new(Folder::new(data.join("chats"))), data)
    }

    /// The same with conversations kept elsewhere.
    pub fn open_on(self, chats: Box<dyn Storage>, data: &Path) -> Harness<'static, App> {
        let mut settings: Box<dyn Storage> = Box::new(Folder::new(data.to_owned()));
        if settings.read("settings.json").is_err() {
            self.settings.write(&mut *settings).unwrap();
        }
        let (setup, hands, model, shelf) = (self.setup, self.hands, self.model, self.shelf);
        let builder = Harness::builder().with_size(self.size).with_theme(self.theme).with_max_steps(64);
        // Models write whatever they like; which scripts can be drawn depends on the system's fonts.
        let mut harness = builder.allow_missing_glyphs().wgpu().build_eframe(move |cc| {
            let start = Start {
                chats,
                settings,
                shelf,
                files: Box::new(hands),
                model,
                load: None,
                setup,
                gpu: cc.wgpu_render_state.as_ref().is_some_and(|state| paint::install(&cc.egui_ctx, state)),
                pace: None,
            };
            App::new(&cc.egui_ctx, start)
        });
        harness.step();
        harness
    }
}

/// Draws frames until something is so.
#[track_caller]
pub fn until(harness: &mut Harness<'static, App>, what: &str, mut so: impl FnMut(&App) -> bool) {
    let start = Instant::now();
    while !so(harness.state()) {
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}: {:#?}", texts(harness.state()));
        harness.step();
        std::thread::sleep(Duration::from_millis(4));
    }
    // What became so is drawn.
    harness.run_steps(3);
}

/// Who said what, of what is shown.
fn texts(app: &App) -> Vec<String> {
    let open = app.open_chat().and_then(|c| app.library().peek(c)).is_some();
    if open { shown(app).iter().map(|m| format!("{:?} {}: {}", m.author, m.role.as_str(), m.text)).collect() } else { Vec::new() }
}

/// An app with the embedded model, ready.
pub fn ready(name: &str) -> Harness<'static, App> {
    let mut harness = Stage::default().open(&folder(name));
    loaded(&mut harness);
    harness
}

/// Waits for the model.
#[track_caller]
pub fn loaded(harness: &mut Harness<'static, App>) {
    until(harness, "the model", |app| !app.models().loaded().is_empty());
}

/// The conversation that is open.
pub fn chat(app: &App) -> &Chat {
    app.library().peek(app.open_chat().unwrap()).unwrap()
}

/// What is shown of it.
pub fn shown(app: &App) -> Vec<&Message> {
    let chat = chat(app);
    chat.tree.path().iter().map(|&id| chat.tree.get(id).unwrap()).collect()
}

/// The last message that is shown.
pub fn last(app: &App) -> &Message {
    shown(app).pop().unwrap()
}

/// Writes a question, and presses Enter.
pub fn ask(harness: &mut Harness<'static, App>, text: &str) {
    harness.get_by_role_and_label(egui::accesskit::Role::MultilineTextInput, "Message").focus();
    harness.step();
    harness.get_by_role_and_label(egui::accesskit::Role::MultilineTextInput, "Message").type_text(text);
    harness.step();
    harness.key_press(Key::Enter);
    harness.run_steps(2);
}

/// Waits for the answer under way to end.
#[track_caller]
pub fn answered(harness: &mut Harness<'static, App>) {
    until(harness, "an answer", |app| {
        !app.busy() && last(app).role == Role::Assistant && last(app).answer.as_ref().is_some_and(|a| a.stop != Stop::Unfinished)
    });
}

/// Asks, and waits for the answer.
#[track_caller]
pub fn ask_and_wait(harness: &mut Harness<'static, App>, text: &str) -> String {
    ask(harness, text);
    answered(harness);
    last(harness.state()).text.clone()
}

/// Clicks the last widget of that name.
#[track_caller]
pub fn click(harness: &mut Harness<'static, App>, name: &str) {
    let found: Vec<_> = harness.query_all_by_label(name).collect();
    found.last().unwrap_or_else(|| panic!("there is no {name}")).click();
    harness.run_steps(3);
}

/// Presses a key with Ctrl (Command on a Mac).
pub fn ctrl(harness: &mut Harness<'static, App>, key: Key) {
    harness.key_press_modifiers(Modifiers::COMMAND, key);
    harness.run_steps(3);
}
