//! What engines, loaders and dialogs have said since the last frame.

use std::sync::Arc;

use egui::Context;

use super::{ANSWERS, App};
use crate::{
    activity::{Activity, Home},
    loading::{LoadedModel, Source, models::News, shelf::ShelfNews},
    talk::Notice,
    ui::{
        Page,
        files::{Got, Want},
        journal::Level,
    },
};

impl App {
    /// Takes all of it.
    pub(super) fn hear(&mut self, ctx: &Context) {
        for news in self.models.poll() {
            self.hear_of_model(news);
        }
        if self.models.loading().is_some() {
            ctx.request_repaint_after(std::time::Duration::from_millis(100));
        }
        let now = self.now();
        for notice in self.talker.poll(&mut self.library, &self.models, self.activity.as_mut(), now) {
            self.hear_of_answer(notice);
        }
        for (name, uses) in self.talker.surveyed() {
            self.surveys += 1;
            self.experts.surveyed(name, uses);
        }
        self.see_residency();
        for problem in self.library.take_problems() {
            self.complain(problem);
        }
        for got in self.files.poll() {
            self.hear_of_file(got);
        }
        self.hear_of_shelf(ctx);
    }

    fn hear_of_model(&mut self, news: News) {
        match news {
            News::Loaded(model) => {
                self.last_model = None;
                if self.models.get(None).is_some_and(|first| first.key() == model.key()) {
                    self.settings.opened(&model.key());
                    self.settings_changed();
                }
                let info = model.engine.info();
                self.note(Level::Info, format!("{} is ready on {} after {:.1} s", model.name, info.device, info.load_seconds));
                if let Some(notice) = &model.notice {
                    self.note(Level::Warning, notice.clone());
                    self.tell(notice.clone());
                }
                self.problem = None;
                if self.asked.as_ref() == Some(&model.key()) {
                    (self.asked, self.picker_problem, self.picker.open) = (None, None, false);
                }
                self.follow_first();
            }
            News::Failed { source, why } if self.last_model.take_if(|s| *s == source).is_some() => {
                self.complain(format!("{} cannot be had any more ({why}): the embedded model takes its place", source.name()));
                self.load_embedded();
            }
            News::Failed { source, why } => {
                let words = format!("{} could not be loaded: {why}", source.name());
                self.note(Level::Error, words.clone());
                if self.picker.open {
                    self.picker_problem = Some(words.clone());
                } else {
                    self.complain(words.clone());
                }
                if self.models.loaded().is_empty() {
                    self.problem = Some(words);
                }
            }
            News::Cancelled(source) => {
                self.last_model.take_if(|s| *s == source);
                self.tell(format!("Loading {} was cancelled", source.name()));
            }
            News::Examined(examined) => {
                (self.examining, self.picker_problem) = (false, None);
                self.examined = Some(examined);
            }
            News::NotExamined { source, why } => {
                self.examining = false;
                self.examined = None;
                self.note(Level::Error, format!("{}: {why}", source.name()));
                self.picker_problem = Some(format!("{} cannot be opened: {why}", source.name()));
            }
        }
    }

    /// Follows the experts of the model that answers. One that was loaded anew, with another budget, goes on counting.
    pub(super) fn follow_first(&mut self) {
        let first = self.models.get(None);
        let (key, shape) = (first.map(LoadedModel::key), first.and_then(|m| m.shape.clone()));
        self.resident = Arc::default();
        let same = key == self.activity_of && self.activity.as_ref().map(|a| &**a.shape()) == shape.as_deref();
        if same {
            return;
        }
        self.activity = shape.map(|shape| Activity::new(shape, Activity::TOKENS));
        self.activity_of = key;
        self.experts = Default::default();
        self.lit = None;
    }

    /// Shows where experts are, where that has changed.
    fn see_residency(&mut self) {
        let (Some(model), Some(activity)) = (self.models.get(None), self.activity.as_mut()) else { return };
        let resident = model.engine.resident();
        if Arc::ptr_eq(&resident, &self.resident) {
            return;
        }
        let homes: Vec<Home> = resident.iter().map(|&there| if there { Home::Device } else { Home::Host }).collect();
        activity.residency(&homes);
        self.resident = resident;
    }

    fn hear_of_answer(&mut self, notice: Notice) {
        match notice {
            Notice::Finished { chat, message } => {
                self.finished.push((chat.clone(), message));
                let answer = self.library.peek(&chat).and_then(|c| c.tree.get(message)).and_then(|m| m.answer.as_ref());
                if let Some(stats) = answer.and_then(|a| a.stats) {
                    self.answers.push(stats);
                    let surplus = self.answers.len().saturating_sub(ANSWERS);
                    self.answers.drain(..surplus);
                }
            }
            Notice::Info(text) => self.tell(text),
            Notice::Problem(text) => self.complain(text),
        }
    }

    fn hear_of_file(&mut self, got: Got) {
        match got {
            Got::Model(key) => {
                if let Some(source) = Source::of(&key) {
                    self.examine(source);
                }
            }
            Got::Read(Want::Trace, name, bytes) => self.import_trace(&name, &bytes),
            Got::Read(_, name, bytes) => self.import_chats(&name, &bytes),
            Got::Saved(place) => self.tell(format!("Saved as {place}")),
            Got::Failed(words) => self.complain(words),
            Got::Type(want) => self.path_line.open(want),
        }
    }

    fn hear_of_shelf(&mut self, ctx: &Context) {
        let Some(shelf) = self.shelf.as_mut() else { return };
        let news = shelf.poll();
        if !shelf.downloads().is_empty() {
            ctx.request_repaint_after(std::time::Duration::from_millis(200));
        }
        for news in news {
            match news {
                ShelfNews::Ready(source) => self.examine(source),
                ShelfNews::Notice(words) => self.tell(words),
                ShelfNews::Failed(words) => self.complain(words),
            }
        }
    }

    /// Looks at a model, and shows it in the picker.
    pub(super) fn examine(&mut self, source: Source) {
        (self.picker.open, self.examining) = (true, true);
        self.picker_problem = None;
        self.models.examine(source);
    }

    /// Reads conversations from a file.
    pub(super) fn import_chats(&mut self, name: &str, bytes: &[u8]) {
        match self.library.import(name, bytes) {
            Ok(ids) => {
                let many = if ids.len() == 1 { "one conversation".into() } else { format!("{} conversations", ids.len()) };
                self.tell(format!("Imported {many}"));
                if let Some(first) = ids.into_iter().next() {
                    self.open(first);
                }
            }
            // The words name the file.
            Err(why) => self.complain(why),
        }
    }

    /// Reads a record of experts, to replay it.
    pub(super) fn import_trace(&mut self, name: &str, bytes: &[u8]) {
        let Some(activity) = &self.activity else {
            self.complain("A record can be replayed once a model with experts is loaded");
            return;
        };
        match self.experts.import(activity, bytes) {
            Ok(()) => {
                self.go(Page::Experts);
                self.tell(format!("{name} is ready to be replayed"));
            }
            Err(why) => self.complain(format!("{name} cannot be replayed: {why}")),
        }
    }
}
