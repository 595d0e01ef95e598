//! The app as a page: models that are kept for it, and what it does without files.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use egui::{Key, Modifiers};
use egui_kittest::kittest::Queryable as _;
use pleiad_app::{
    loading::{
        Source,
        shelf::{Download, KeptFile, Room, Shelf, ShelfNews},
    },
    ui::{Action, Page},
};

use crate::stage::{Stage, click, folder, loaded, until};

/// What was asked of a shelf, and what it is to tell.
#[derive(Clone, Default)]
struct Clerk {
    asked: Rc<RefCell<Vec<String>>>,
    news: Rc<RefCell<Vec<ShelfNews>>>,
    /// Bytes of the download under way.
    done: Rc<Cell<Option<u64>>>,
}

/// A shelf that does as its clerk says.
struct Kept {
    clerk: Clerk,
    files: Vec<KeptFile>,
    downloads: Vec<Download>,
}

const TOTAL: u64 = 8 << 20;

impl Kept {
    fn ask(&self, what: String) {
        self.clerk.asked.borrow_mut().push(what);
    }
}

impl Shelf for Kept {
    fn poll(&mut self) -> Vec<ShelfNews> {
        let download = |done| Download { name: "new.gguf".into(), done, total: Some(TOTAL), speed: 1e6, in_memory: false };
        self.downloads = self.clerk.done.get().map(download).into_iter().collect();
        std::mem::take(&mut *self.clerk.news.borrow_mut())
    }
    fn files(&self) -> &[KeptFile] {
        &self.files
    }
    fn downloads(&self) -> &[Download] {
        &self.downloads
    }
    fn room(&self) -> Option<Room> {
        Some(Room { used: 4 << 20, quota: 1 << 30, lasting: false })
    }
    fn download(&mut self, url: &str) {
        self.ask(format!("download {url}"));
        self.clerk.done.set(Some(0));
    }
    fn keep(&mut self, source: &Source) {
        self.ask(format!("keep {}", source.key()));
    }
    fn stop(&mut self, name: &str) {
        self.ask(format!("stop {name}"));
        self.clerk.done.set(None);
    }
    fn remove(&mut self, name: &str) {
        self.ask(format!("remove {name}"));
        self.files.retain(|f| f.name != name);
    }
}

/// A stage with a shelf that has one file.
fn stage() -> (Stage, Clerk) {
    let clerk = Clerk::default();
    let old = KeptFile { name: "old.gguf".into(), bytes: 4 << 20, total: Some(4 << 20), url: String::new() };
    let shelf = Kept { clerk: clerk.clone(), files: vec![old], downloads: Vec::new() };
    (Stage { shelf: Some(Box::new(shelf)), ..Stage::default() }, clerk)
}

#[test]
fn a_download_is_begun_in_the_picker_and_its_model_is_shown() {
    let (stage, clerk) = stage();
    let data = folder("download");
    std::fs::create_dir_all(&data).unwrap();
    let mut harness = stage.open(&data);
    loaded(&mut harness);
    let ctx = harness.ctx.clone();
    harness.state_mut().give(&ctx, Action::OpenPicker);
    until(&mut harness, "the price", |app| app.examined().is_some());
    let line = "Download a model from an address";
    harness.get_by_role_and_label(egui::accesskit::Role::TextInput, line).focus();
    harness.run_steps(2);
    harness.get_by_role_and_label(egui::accesskit::Role::TextInput, line).type_text("https://example.org/new.gguf");
    harness.run_steps(2);
    harness.key_press(Key::Enter);
    harness.run_steps(3);
    clerk.done.set(Some(TOTAL / 2));
    harness.run_steps(3);
    assert!(harness.query_by_label("Downloading new.gguf, 50 %").is_some());
    click(&mut harness, "Stop the download of new.gguf");
    assert!(harness.query_by_label_contains("Downloading").is_none());
    let asked = ["download https://example.org/new.gguf", "stop new.gguf"];
    assert_eq!(*clerk.asked.borrow(), asked);
    // Later it is there.
    let path = data.join("new.gguf");
    std::fs::write(&path, pleiad_models::TINY_GGUF).unwrap();
    clerk.news.borrow_mut().push(ShelfNews::Ready(Source::Path(path.clone())));
    until(&mut harness, "the model that came", |app| app.examined().is_some_and(|e| e.source == Source::Path(path.clone())));
    assert!(harness.state().picker_open());
    clerk.news.borrow_mut().push(ShelfNews::Failed("no room for half.gguf".into()));
    harness.run_steps(3);
    assert!(harness.query_all_by_label_contains("no room for half.gguf").next().is_some());
}

#[test]
fn what_is_removed_is_forgotten() {
    let (mut stage, clerk) = stage();
    stage.settings.opened("kept:old.gguf");
    let mut harness = stage.open(&folder("removed"));
    loaded(&mut harness);
    let ctx = harness.ctx.clone();
    harness.state_mut().give(&ctx, Action::OpenPicker);
    until(&mut harness, "the price", |app| app.examined().is_some());
    click(&mut harness, "Remove old.gguf");
    click(&mut harness, "Yes, remove old.gguf");
    assert_eq!(*clerk.asked.borrow(), ["remove old.gguf"]);
    assert!(harness.query_by_label("Remove old.gguf").is_none());
    assert!(!harness.state().settings().recent.iter().any(|k| k.starts_with("kept:")));
}

#[test]
fn a_last_model_that_is_gone_gives_way_to_the_embedded_one() {
    // One that was opened is not asked for; one that is kept is.
    for (key, words) in
        [("opened:0:mine.gguf", "mine.gguf was opened in an earlier visit"), ("kept:old.gguf", "old.gguf cannot be had")]
    {
        let (mut stage, _) = stage();
        stage.model = None;
        stage.settings.opened(key);
        let mut harness = stage.open(&folder(&format!("gone-{}", &key[..4])));
        loaded(&mut harness);
        assert_eq!(harness.state().models().loaded()[0].key(), "tiny");
        assert_eq!(harness.state().problem(), None);
        assert!(harness.query_all_by_label_contains(words).next().is_some(), "{words}");
        assert_eq!(harness.state().settings().model.as_deref(), Some("tiny"));
        assert!(!harness.state().settings().recent.iter().any(|k| k.starts_with("opened:")));
    }
}

#[test]
fn a_page_says_where_things_are_kept_and_cannot_be_quit() {
    let (stage, _) = stage();
    let mut harness = stage.open(&folder("page"));
    loaded(&mut harness);
    let ctx = harness.ctx.clone();
    harness.state_mut().give(&ctx, Action::Go(Page::Settings));
    harness.run_steps(3);
    assert!(harness.query_by_label_contains("are kept in this browser").is_some());
    harness.state_mut().set_memory(vec![("Page".into(), 48 << 20)]);
    harness.state_mut().give(&ctx, Action::Go(Page::Performance));
    harness.run_steps(3);
    assert!(harness.query_by_label("48.0 MiB").is_some());
    harness.key_press_modifiers(Modifiers::COMMAND, Key::Q);
    harness.run_steps(3);
    assert_eq!(harness.state().page(), Page::Performance);
}
